//! Time and chance, handed in: the engine reads neither the system's clock nor a global random
//! source, so that a test can turn time by hand and replay by seed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// Microseconds since 1970-01-01 UTC: how every time stands in the file.
pub(crate) type Micros = i64;

pub(crate) fn to_micros(at: OffsetDateTime) -> Micros {
    // OffsetDateTime spans years ±9999, far inside i64 microseconds.
    (at.unix_timestamp_nanos() / 1_000) as Micros
}

pub(crate) fn from_micros(at: Micros) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

pub(crate) fn micros_of(d: Duration) -> Micros {
    Micros::try_from(d.as_micros()).unwrap_or(Micros::MAX)
}

/// From one time to a later one; nothing if it is not later.
pub(crate) fn between(from: Micros, to: Micros) -> Duration {
    Duration::from_micros(to.saturating_sub(from).max(0).unsigned_abs())
}

type Listener = Box<dyn Fn() + Send + Sync>;

/// Where a [`Jobs`](crate::Jobs) handle reads the time. Cheap to clone; clones share one clock.
///
/// A clock tells two times: the *wall clock* (what is written to the file, what schedules go by)
/// and *awake time* (monotonic, what time-outs count).
///
/// ```
/// # use std::time::Duration;
/// use legwork::Clock;
/// let clock = Clock::stopped(time::macros::datetime!(2026-01-01 0:00 UTC));
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(clock.now(), time::macros::datetime!(2026-01-01 0:01:30 UTC));
/// ```
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System { origin: Instant },
    Stopped(Arc<Stopped>),
    Function { now: Arc<dyn Fn() -> OffsetDateTime + Send + Sync>, origin: Instant },
}

struct Stopped {
    hands: Mutex<Hands>,
    listeners: Mutex<Vec<Listener>>,
}

struct Hands {
    wall: OffsetDateTime,
    awake: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock {
    /// The system's clocks. The default.
    pub fn system() -> Clock {
        Clock(Kind::System { origin: Instant::now() })
    }

    /// A clock that stands at `at` until [`advance`](Clock::advance) or [`set`](Clock::set) turns it.
    pub fn stopped(at: OffsetDateTime) -> Clock {
        Clock(Kind::Stopped(Arc::new(Stopped {
            hands: Mutex::new(Hands { wall: at, awake: Duration::ZERO }),
            listeners: Mutex::new(Vec::new()),
        })))
    }

    /// A wall clock read from `now`, such as a simulated or a network clock; awake time is the
    /// system's.
    pub fn from_fn(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Clock {
        Clock(Kind::Function { now: Arc::new(now), origin: Instant::now() })
    }

    /// The wall clock.
    pub fn now(&self) -> OffsetDateTime {
        match &self.0 {
            Kind::System { .. } => OffsetDateTime::now_utc(),
            Kind::Stopped(stopped) => lock(&stopped.hands).wall,
            Kind::Function { now, .. } => now(),
        }
    }

    /// Turns a stopped clock forward by `by`, wall clock and awake time alike, and wakes whatever
    /// waits for a time. Jobs that became due are seen at once.
    ///
    /// # Panics
    /// If this clock is not a stopped one.
    pub fn advance(&self, by: Duration) {
        self.turn(|hands| {
            hands.wall += by;
            hands.awake += by;
        });
    }

    /// Sets a stopped clock's wall clock, forward or back, as a user or NTP would; awake time
    /// stays.
    ///
    /// # Panics
    /// If this clock is not a stopped one.
    pub fn set(&self, to: OffsetDateTime) {
        self.turn(|hands| hands.wall = to);
    }

    fn turn(&self, change: impl FnOnce(&mut Hands)) {
        let Kind::Stopped(stopped) = &self.0 else {
            panic!("only a stopped clock can be turned by hand");
        };
        change(&mut lock(&stopped.hands));
        lock(&stopped.listeners).iter().for_each(|listener| listener());
    }

    /// Whether time moves only by hand.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.0, Kind::Stopped(_))
    }

    /// Calls `listener` after each turn of a stopped clock; the other clocks never call it.
    pub(crate) fn on_turn(&self, listener: impl Fn() + Send + Sync + 'static) {
        if let Kind::Stopped(stopped) = &self.0 {
            lock(&stopped.listeners).push(Box::new(listener));
        }
    }

    /// Whether both are the same clock: clones of one another, or the system's.
    pub(crate) fn is(&self, other: &Clock) -> bool {
        match (&self.0, &other.0) {
            (Kind::System { .. }, Kind::System { .. }) => true,
            (Kind::Stopped(this), Kind::Stopped(other)) => Arc::ptr_eq(this, other),
            (Kind::Function { now: this, .. }, Kind::Function { now: other, .. }) => {
                Arc::ptr_eq(this, other)
            }
            _ => false,
        }
    }

    pub(crate) fn micros(&self) -> Micros {
        to_micros(self.now())
    }

    /// Time since the clock was made that the machine was awake.
    pub(crate) fn awake(&self) -> Duration {
        match &self.0 {
            Kind::System { origin } | Kind::Function { origin, .. } => origin.elapsed(),
            Kind::Stopped(stopped) => lock(&stopped.hands).awake,
        }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::System { .. } => "system",
            Kind::Stopped(_) => "stopped",
            Kind::Function { .. } => "function",
        };
        f.debug_tuple("Clock").field(&kind).finish()
    }
}

/// Where jitter and weighted choices come from. Cheap to clone; clones share one sequence.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<fastrand::Rng>>);

impl Random {
    /// Seeded from the operating system. The default.
    pub fn new() -> Random {
        Random(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// The same sequence each time for the same seed.
    pub fn seeded(seed: u64) -> Random {
        Random(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Whether both draw from one sequence.
    pub(crate) fn is(&self, other: &Random) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn fraction(&self) -> f64 {
        lock(&self.0).f64()
    }

    /// Uniform in `0..below`; `below` must not be 0.
    pub(crate) fn below(&self, below: u64) -> u64 {
        lock(&self.0).u64(0..below)
    }
}

impl Default for Random {
    fn default() -> Random {
        Random::new()
    }
}
