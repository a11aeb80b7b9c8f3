//! A pool: some worker threads serving some queues.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::record::PoolRecord;
use crate::rules::name;
use crate::rules::queues::Queues;
use crate::store::PoolId;
use crate::store::tray::Tray;

/// Some worker threads serving some queues, for [`EngineBuilder::pool`](crate::EngineBuilder::pool).
///
/// The list is strict in its order: a job of the second queue runs only while the first has none.
/// `"*"` matches every queue, `"mail*"` those with the prefix, `"-name"` excludes; queues matched
/// by one entry share one order (priority, then run_at, then id). With weights the next queue is
/// drawn at random instead.
///
/// ```
/// # use std::time::Duration;
/// use legwork::Pool;
/// Pool::new(["high", "default", "low"]).workers(4);
/// Pool::new(["*", "-reports"]).name("rest");
/// Pool::weighted([("webhooks", 3), ("mail", 1)]);
/// Pool::new(["low_priority"]).workers(1).every(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    list: Vec<(String, Option<u32>)>,
    name: Option<String>,
    workers: Option<usize>,
    every: Option<Duration>,
}

impl Pool {
    /// A pool that serves these queues in strict order, with as many workers as the machine has
    /// cores.
    pub fn new<Q: Into<String>>(queues: impl IntoIterator<Item = Q>) -> Pool {
        Pool::of(queues.into_iter().map(|queue| (queue.into(), None)).collect())
    }

    /// A pool that draws the next queue at random, by weight, among those that have work. A
    /// weight is at least 1.
    pub fn weighted<Q: Into<String>>(queues: impl IntoIterator<Item = (Q, u32)>) -> Pool {
        Pool::of(queues.into_iter().map(|(queue, weight)| (queue.into(), Some(weight))).collect())
    }

    fn of(list: Vec<(String, Option<u32>)>) -> Pool {
        Pool { list, name: None, workers: None, every: None }
    }

    /// Whether it serves a queue, by its names, patterns and exclusions; the number of its workers does not
    /// matter. `false` if these are invalid.
    ///
    /// ```
    /// # use legwork::Pool;
    /// assert!(Pool::new(["mail*", "-mail.slow"]).serves("mail.urgent"));
    /// ```
    pub fn serves(&self, queue: &str) -> bool {
        Queues::serve(&self.list, queue)
    }

    /// How many worker threads; 0 is allowed, for a pool to be resized later.
    pub fn workers(mut self, workers: usize) -> Pool {
        self.workers = Some(workers);
        self
    }

    /// A name, for its threads, attempts and [`Engine::resize`](crate::Engine::resize). Default:
    /// the queue list, joined by commas.
    pub fn name(mut self, name: impl Into<String>) -> Pool {
        self.name = Some(name.into());
        self
    }

    /// Looks for work only this often, and then works until there is none left: a queue that runs
    /// once an hour, or in batches to spare a battery. The first look is at the start.
    pub fn every(mut self, period: Duration) -> Pool {
        self.every = Some(period);
        self
    }

    pub(super) fn check(self) -> Result<CheckedPool> {
        let queues = Queues::parse(&self.list)?;
        let name = self.name.unwrap_or_else(|| {
            let names: Vec<&str> = self.list.iter().map(|(queue, _)| queue.as_str()).collect();
            let mut joined = names.join(",");
            let mut end = joined.len().min(name::MAX_BYTES);
            while !joined.is_char_boundary(end) {
                end -= 1;
            }
            joined.truncate(end);
            if joined.is_empty() { "*".to_owned() } else { joined }
        });
        name::check("pool name", &name)?;
        if self.every == Some(Duration::ZERO) {
            return Err(Error::invalid("pool period", "it is zero"));
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.unwrap_or_else(cores);
        Ok(CheckedPool { queues, name, workers, every: self.every, list: self.list })
    }
}

pub(super) struct CheckedPool {
    pub(super) queues: Queues,
    pub(super) name: String,
    pub(super) workers: usize,
    pub(super) every: Option<Duration>,
    /// The queues as they were given, with their weights.
    list: Vec<(String, Option<u32>)>,
}

impl CheckedPool {
    /// What others are to know of it.
    pub(super) fn record(&self) -> PoolRecord {
        PoolRecord {
            name: self.name.clone(),
            queues: self.list.iter().map(|(queue, _)| queue.clone()).collect(),
            weights: self.list.iter().filter_map(|(_, weight)| *weight).collect(),
            workers: self.workers,
            every: self.every,
        }
    }
}

/// A pool at work.
pub(super) struct RunningPool {
    pub(super) id: PoolId,
    /// Jobs claimed ahead for its workers.
    pub(super) tray: Arc<Tray>,
    pub(super) name: String,
    pub(super) every: Option<Duration>,
    /// What others know of it, save the number of its workers.
    record: PoolRecord,
    started: Instant,
    count: Mutex<Count>,
    /// Wakes the workers of a pool that works on a cadence.
    bell: Condvar,
}

struct Count {
    target: usize,
    /// No matter how many there should be, for now there should be none.
    quiet: bool,
    live: usize,
    abandoned: usize,
    /// Threads started so far, for their names.
    started: usize,
    rung: u64,
    /// Raised by each change after which waiting workers must look again.
    epoch: u64,
    closed: bool,
}

impl Count {
    fn wanted(&self) -> usize {
        if self.quiet { 0 } else { self.target }
    }
}

/// What a worker saw of its pool when it last looked.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) epoch: u64,
    rung: u64,
}

impl RunningPool {
    pub(super) fn new(id: PoolId, tray: Arc<Tray>, pool: CheckedPool) -> RunningPool {
        tray.set_workers(pool.workers);
        let record = pool.record();
        RunningPool {
            record,
            id,
            tray,
            name: pool.name,
            every: pool.every,
            started: Instant::now(),
            count: Mutex::new(Count {
                target: pool.workers,
                quiet: false,
                live: 0,
                abandoned: 0,
                started: 0,
                rung: 0,
                epoch: 0,
                closed: false,
            }),
            bell: Condvar::new(),
        }
    }

    /// What others are to know of it now.
    pub(super) fn record(&self) -> PoolRecord {
        let count = self.lock();
        let workers = if count.closed { 0 } else { count.wanted() };
        PoolRecord { workers, ..self.record.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers for the threads that are missing, counted as alive from now on.
    pub(super) fn missing(&self) -> Vec<usize> {
        let mut count = self.lock();
        let mut numbers = Vec::new();
        while !count.closed && count.live < count.wanted() {
            count.live += 1;
            count.started += 1;
            numbers.push(count.started);
        }
        numbers
    }

    /// So many threads that were counted could not be started.
    pub(super) fn not_started(&self, threads: usize) {
        self.lock().live -= threads;
    }

    /// The new epoch, for unparking the workers that wait.
    pub(super) fn resize(&self, workers: usize) -> u64 {
        self.change(|count| count.target = workers)
    }

    /// The same, when no more jobs are to be started, or are so again.
    pub(super) fn hold(&self, quiet: bool) -> u64 {
        self.change(|count| count.quiet = quiet)
    }

    fn change(&self, change: impl FnOnce(&mut Count)) -> u64 {
        let mut count = self.lock();
        change(&mut count);
        self.tray.set_workers(count.wanted());
        count.epoch += 1;
        self.bell.notify_all();
        count.epoch
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// Whether the calling worker should go on, and as of when; `None`: it should end, and no
    /// longer counts.
    pub(super) fn go_on(&self) -> Option<Seen> {
        let mut count = self.lock();
        let end = count.closed || count.live > count.wanted();
        if end {
            count.live -= 1;
        }
        (!end).then_some(Seen { epoch: count.epoch, rung: count.rung })
    }

    /// A worker is held up in an attempt whose finish is void. `true`: it may be replaced.
    pub(super) fn abandon(&self) -> bool {
        let mut count = self.lock();
        count.abandoned += 1;
        let replace = count.abandoned <= count.wanted() && !count.closed;
        if replace {
            count.live -= 1;
        }
        replace
    }

    /// An abandoned attempt has ended after all; the worker goes on. If it was replaced the pool
    /// has one too many now, and one of them ends.
    pub(super) fn returned(&self, replaced: bool) {
        let mut count = self.lock();
        count.abandoned -= 1;
        if replaced {
            count.live += 1;
        }
    }

    /// Makes a pool on a cadence look for work now.
    pub(super) fn ring(&self) {
        self.lock().rung += 1;
        self.bell.notify_all();
    }

    /// Sleeps until the next look is due, the bell rings, or the worker should end.
    pub(super) fn wait_for_tick(&self, every: Duration, seen: Seen) {
        let mut count = self.lock();
        let into = self.started.elapsed().as_nanos() % every.as_nanos();
        let rest = every.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)));
        let tick = Instant::now() + rest.min(Duration::from_secs(365 * 86_400));
        loop {
            let left = tick.saturating_duration_since(Instant::now());
            if left.is_zero()
                || count.rung != seen.rung
                || count.closed
                || count.live > count.wanted()
            {
                return;
            }
            count = self.bell.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
