//! How a file is opened.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;

use crate::clock::{Clock, Random};
use crate::error::Result;
use crate::event::{Event, Hub};
use crate::middleware::{Middleware, OnEnqueue};
use crate::new_job::{NewJob, Retention};
use crate::store::{Durability, Notice, Settings, Store};

use super::{Attempts, Inner, Jobs, lock};
#[cfg(doc)]
use crate::error::Error;

/// How a file is opened.
///
/// Made by [`Jobs::builder`], ended by [`open`](JobsBuilder::open).
pub struct JobsBuilder {
    path: PathBuf,
    durability: Durability,
    busy_timeout: Duration,
    allow_network_fs: bool,
    retention: Retention,
    history_rows: u64,
    max_args: usize,
    clock: Clock,
    random: Random,
    middleware: Vec<Arc<dyn Middleware>>,
    on_enqueue: Vec<OnEnqueue>,
}

impl JobsBuilder {
    pub(super) fn new(path: PathBuf) -> JobsBuilder {
        JobsBuilder {
            path,
            durability: Durability::default(),
            busy_timeout: Duration::from_secs(5),
            allow_network_fs: false,
            retention: Retention::default(),
            history_rows: 1_000_000,
            max_args: 16 * 1024 * 1024,
            clock: Clock::system(),
            random: Random::new(),
            middleware: Vec::new(),
            on_enqueue: Vec::new(),
        }
    }

    /// What is synced before it is acknowledged. Default: [`Durability::Synced`].
    pub fn durability(mut self, durability: Durability) -> JobsBuilder {
        self.durability = durability;
        self
    }

    /// How long a verb waits for a write lock that another connection holds before it returns
    /// [`Error::Busy`]. Default: 5 seconds; at most a day.
    pub fn busy_timeout(mut self, timeout: Duration) -> JobsBuilder {
        self.busy_timeout = timeout.min(Duration::from_secs(86_400));
        self
    }

    /// Opens files on network file systems too. WAL needs shared memory and working locks, which
    /// most of them do not have.
    pub fn allow_network_fs(mut self, allow: bool) -> JobsBuilder {
        self.allow_network_fs = allow;
        self
    }

    /// How long finished jobs are kept, unless their kind or the job says otherwise.
    pub fn retention(mut self, retention: Retention) -> JobsBuilder {
        self.retention = retention;
        self
    }

    /// How many finished jobs are kept at most; beyond it those that would be pruned next go
    /// first. Default: 1,000,000.
    pub fn history_rows(mut self, most: u64) -> JobsBuilder {
        self.history_rows = most;
        self
    }

    /// Longest arguments of a job, in bytes of JSON. Default: 16 MiB.
    pub fn max_args(mut self, bytes: usize) -> JobsBuilder {
        self.max_args = bytes;
        self
    }

    /// Where the time comes from. Default: [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> JobsBuilder {
        self.clock = clock;
        self
    }

    /// Where jitter and weighted choices come from. Default: [`Random::new`].
    pub fn random(mut self, random: Random) -> JobsBuilder {
        self.random = random;
        self
    }

    /// Code around every attempt on this handle, `perform_now` included; the first one added is
    /// the outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> JobsBuilder {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Code that every job passes before it is enqueued: it may change it (add a trace id to its
    /// `meta`, say) or refuse it with an error. It stands before, not around: a bulk is one
    /// transaction however many jobs it has.
    pub fn on_enqueue(
        mut self,
        look: impl Fn(NewJob) -> Result<NewJob> + Send + Sync + 'static,
    ) -> JobsBuilder {
        self.on_enqueue.push(Arc::new(look));
        self
    }

    /// Opens the file, or creates it, and brings legwork's tables in it up to date. A file that
    /// is created is readable by its owner alone.
    ///
    /// # Errors
    /// Before any write: [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`],
    /// [`Error::ReadOnly`], [`Error::NetworkFs`]. [`Error::Busy`] if another connection holds the
    /// write lock while the tables have to be made.
    pub fn open(self) -> Result<Jobs> {
        let events = Arc::new(Hub::default());
        let trouble = Arc::new(Mutex::new(None));
        let store = Store::open(Settings {
            path: self.path,
            durability: self.durability,
            busy_timeout: self.busy_timeout,
            allow_network_fs: self.allow_network_fs,
            retention: self.retention,
            history_rows: self.history_rows,
            clock: self.clock.clone(),
            random: self.random,
            observer: observer(Arc::clone(&events), Arc::clone(&trouble), self.clock),
        })?;
        Ok(Jobs(Arc::new(Inner {
            store,
            events,
            trouble,
            attempts: Attempts::default(),
            middleware: self.middleware,
            on_enqueue: self.on_enqueue,
            max_args: self.max_args,
            workers: AtomicUsize::new(0),
        })))
    }
}

/// Turns the store's notices into events and log lines.
fn observer(
    events: Arc<Hub>,
    trouble: Arc<Mutex<Option<(OffsetDateTime, String)>>>,
    clock: Clock,
) -> Arc<dyn Fn(Notice) + Send + Sync> {
    Arc::new(move |notice| {
        let note = |text: String| {
            log::warn!("legwork: {text}");
            *lock(&trouble) = Some((clock.now(), text));
        };
        match notice {
            Notice::Busy { waited } => {
                note(format!("another connection has held the write lock for {waited:?}"));
                events.tell(|| Event::DatabaseBusy { waited });
            }
            Notice::Held { error } => {
                note(format!("finished work is held until it can be recorded: {error}"));
                events.tell(|| Event::WriteFailed { error });
            }
            Notice::Recovered => {
                log::info!("legwork: writing works again");
                events.tell(|| Event::Recovered);
            }
            Notice::UnknownKind { kind } => {
                log::warn!(kind = kind.as_str(); "legwork: jobs of a kind that no engine here knows are waiting");
                events.tell(|| Event::UnknownKind { kind });
            }
        }
    })
}
