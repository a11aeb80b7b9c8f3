//! The handle on a database file: enqueue, look, control.

mod attempts;
mod builder;
pub(crate) mod check;
mod control;
#[cfg(feature = "cron")]
pub(crate) mod cron;
mod ears;
mod enqueue;
mod examine;
mod flows;
mod gates;
mod listen;
mod look;
mod open;
mod shared;
mod transfer;
mod upkeep;
mod waiting;

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Random};
use crate::error::Result;
use crate::event::Event;
use crate::middleware::{Middleware, OnEnqueue};
use crate::store::{SqliteInfo, Store, Taken};

pub(crate) use self::attempts::Attempts;
pub use self::builder::JobsBuilder;
pub use self::check::{CheckReport, CronTrouble, KindTrouble};
pub use self::listen::{Listener, Told};
use self::shared::Shared;
pub use self::transfer::ImportRun;

/// The handle on a database file. Cheap to clone, `Send + Sync`; all handles of a process on one
/// file, clones or opened anew, share one writer thread, which ends with the last of them.
///
/// A child made by `fork` without `exec` cannot use a handle of its parent, nor open a file that its
/// parent has open: every call returns [`Error::Forked`](crate::Error::Forked), and dropping
/// the handle or an engine there does nothing.
///
/// ```
/// # use serde::{Serialize, Deserialize};
/// # use legwork::{Context, Job, JobResult, Jobs, NewJob, Outcome};
/// # #[derive(Serialize, Deserialize)] struct WelcomeEmail { user_id: i64 }
/// # impl Job for WelcomeEmail {
/// #     const KIND: &'static str = "welcome_email";
/// #     type State = ();
/// #     fn perform(&self, _: &Context) -> JobResult { Ok(Outcome::Done) }
/// # }
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let jobs = Jobs::open(path)?;
/// let id = jobs.enqueue(WelcomeEmail { user_id: 7 })?;   // committed when it returns
/// assert_eq!(jobs.get(id)?.kind, "welcome_email");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// The shared file, with this handle's patience.
    store: Store,
    middleware: Vec<Arc<dyn Middleware>>,
    on_enqueue: Vec<OnEnqueue>,
    max_args: usize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.store.is_forked() {
            // The connections are the parent's: closing them here, or joining a thread that exists
            // only there, would harm it. So the file counts as open in this process for good.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The values behind these locks are whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Opens or creates a file with the default settings.
    ///
    /// # Errors
    /// As [`JobsBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Jobs> {
        Jobs::builder(path).open()
    }

    /// Settings for opening a file.
    pub fn builder(path: impl AsRef<Path>) -> JobsBuilder {
        JobsBuilder::new(path.as_ref().to_owned())
    }

    /// The SQLite that this program is linked with, and whether it is one of those with a known bug
    /// that can damage files. Opening a file says so in the log as well, once a process.
    ///
    /// ```
    /// let sqlite = legwork::Jobs::sqlite();
    /// println!("SQLite {}, WAL-reset bug: {}", sqlite.version, sqlite.wal_reset_bug);
    /// ```
    pub fn sqlite() -> SqliteInfo {
        SqliteInfo::here()
    }

    /// The file, by its canonical path.
    pub fn path(&self) -> &Path {
        self.0.store.path()
    }

    /// Closes when nothing can be done any more by this handle: its file is gone, or legwork has panicked;
    /// or all handles are.
    #[cfg(feature = "cli")]
    pub(crate) fn ended(&self) -> crossbeam_channel::Receiver<()> {
        self.0.store.ended()
    }

    /// The clock that the handle goes by.
    pub fn clock(&self) -> &Clock {
        &self.0.store.settings().clock
    }

    pub(crate) fn random(&self) -> &Random {
        &self.0.store.settings().random
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn attempts_here(&self) -> &Attempts {
        &self.0.shared.attempts
    }

    pub(crate) fn middleware(&self) -> &[Arc<dyn Middleware>] {
        &self.0.middleware
    }

    pub(crate) fn worker_threads(&self) -> &AtomicUsize {
        &self.0.shared.workers
    }

    pub(crate) fn tell_taken(&self, taken: &Taken) {
        shared::tell_taken(&self.0.shared.events, taken);
    }

    /// Calls `bell` when cron entries have been changed, here or elsewhere, for as long as it is held.
    #[cfg(feature = "cron")]
    pub(crate) fn on_cron_change(&self, bell: &crate::event::Bell) {
        self.0.shared.events.hang(bell);
    }

    /// Tells whoever listens in other processes what happens here from now on.
    pub(crate) fn tell_ears(&self) {
        self.0.shared.ears.look();
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        self.0.shared.events.tell(event);
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Jobs").field(&self.path()).finish()
    }
}
