//! How a file is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Random};
use crate::error::Result;
use crate::middleware::{Middleware, OnEnqueue};
use crate::new_job::{NewJob, Retention};
use crate::store::Durability;

use super::shared::Wanted;
use super::{Inner, Jobs, open};
#[cfg(doc)]
use crate::error::Error;

/// How a file is opened.
///
/// Made by [`Jobs::builder`], ended by [`open`](JobsBuilder::open).
///
/// A file has one writer in a process, however many handles. These settings are the writer's:
/// [`durability`](JobsBuilder::durability), [`retention`](JobsBuilder::retention),
/// [`history_rows`](JobsBuilder::history_rows), [`clock`](JobsBuilder::clock),
/// [`random`](JobsBuilder::random), [`sweep`](JobsBuilder::sweep),
/// [`checkpoint_on_close`](JobsBuilder::checkpoint_on_close),
/// [`allow_network_fs`](JobsBuilder::allow_network_fs). The first handle decides them; a later one
/// inherits what it leaves out, and is refused if it asks for something else. All others are each
/// handle's own.
///
/// ```
/// # use legwork::{Durability, Error, Jobs};
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let first = Jobs::builder(&path).durability(Durability::Strict).open()?;
/// let second = Jobs::open(&path)?;                                        // strict as well
/// let third = Jobs::builder(&path).durability(Durability::Relaxed).open();
/// assert!(matches!(third, Err(Error::Invalid { what: "durability", .. })));
/// # Ok(()) }
/// ```
pub struct JobsBuilder {
    path: PathBuf,
    wanted: Wanted,
    busy_timeout: Duration,
    max_args: usize,
    middleware: Vec<Arc<dyn Middleware>>,
    on_enqueue: Vec<OnEnqueue>,
}

impl JobsBuilder {
    pub(super) fn new(path: PathBuf) -> JobsBuilder {
        JobsBuilder {
            path,
            wanted: Wanted::default(),
            busy_timeout: Duration::from_secs(5),
            max_args: 16 * 1024 * 1024,
            middleware: Vec::new(),
            on_enqueue: Vec::new(),
        }
    }

    /// What is synced before it is acknowledged. Default: [`Durability::Synced`].
    pub fn durability(mut self, durability: Durability) -> JobsBuilder {
        self.wanted.durability = Some(durability);
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
        self.wanted.allow_network_fs = Some(allow);
        self
    }

    /// Whether a file that is not there is made, and one without legwork's tables gets them. Default: yes.
    /// Who only looks says no, and a wrong name is an [`Error::NoDatabase`] then. A file in which there is
    /// nothing at all counts as legwork's: another process may be about to make its tables.
    ///
    /// ```
    /// # use legwork::{Error, Jobs};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("ap.db");
    /// let jobs = Jobs::builder(&path).create(false).open();
    /// assert!(matches!(jobs, Err(Error::NoDatabase { exists: false, .. })));
    /// assert!(!path.exists());
    /// ```
    pub fn create(mut self, create: bool) -> JobsBuilder {
        self.wanted.create = Some(create);
        self
    }

    /// How long finished jobs are kept, unless their kind or the job says otherwise.
    pub fn retention(mut self, retention: Retention) -> JobsBuilder {
        self.wanted.retention = Some(retention);
        self
    }

    /// How many finished jobs are kept at most; beyond it those that would be pruned next go
    /// first. Default: 1,000,000.
    pub fn history_rows(mut self, most: u64) -> JobsBuilder {
        self.wanted.history_rows = Some(most);
        self
    }

    /// Whether the last handle that closes writes the `-wal` back into the database and removes it, so
    /// that one file is left. Default: yes. A program that opens the file, enqueues and ends is
    /// several syncs faster without: the next one finds the `-wal` ready, and each thousand pages it is
    /// written back anyway. Then the database consists of both files: copy it with
    /// [`backup`](crate::Jobs::backup), as one should in any case.
    pub fn checkpoint_on_close(mut self, checkpoint: bool) -> JobsBuilder {
        self.wanted.checkpoint_on_close = Some(checkpoint);
        self
    }

    /// How often an engine looks whether another program has written to the file with plain SQL, by
    /// a read of `PRAGMA data_version`. Also the net under a process that was killed between its
    /// commit and its ring. Default: 5 seconds; [`Duration::ZERO`] turns it off.
    pub fn sweep(mut self, every: Duration) -> JobsBuilder {
        self.wanted.sweep = Some(every);
        self
    }

    /// Longest arguments of a job, in bytes of JSON. Default: 16 MiB.
    pub fn max_args(mut self, bytes: usize) -> JobsBuilder {
        self.max_args = bytes;
        self
    }

    /// Where the time comes from. Default: [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> JobsBuilder {
        self.wanted.clock = Some(clock);
        self
    }

    /// Where jitter and weighted choices come from. Default: [`Random::new`].
    pub fn random(mut self, random: Random) -> JobsBuilder {
        self.wanted.random = Some(random);
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
    /// If this process has the file open already, the new handle joins the others: they share the
    /// writer, the readers and the [`events`](Jobs::events). A handle that is
    /// [`Poisoned`](Error::Poisoned) or whose file is [`Gone`](Error::Gone) is not joined; the
    /// file that has the name now is opened instead.
    ///
    /// # Errors
    /// Before any write: [`Error::NoDatabase`], [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`],
    /// [`Error::ReadOnly`], [`Error::NetworkFs`]. [`Error::Busy`] if another connection holds the
    /// write lock while the tables have to be made. [`Error::Invalid`] if this process has the file
    /// open with another setting of the writer. [`Error::Forked`] if the file was open in the
    /// process that this one was forked from: SQLite's locks do not survive a fork.
    pub fn open(self) -> Result<Jobs> {
        let shared = open::open(self.path, self.wanted, self.busy_timeout)?;
        Ok(Jobs(Arc::new(Inner {
            store: shared.store.with_patience(self.busy_timeout),
            shared,
            middleware: self.middleware,
            on_enqueue: self.on_enqueue,
            max_args: self.max_args,
        })))
    }
}
