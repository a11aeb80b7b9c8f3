//! The handle on a database file: enqueue, look, control.

mod attempts;
mod builder;
mod control;
mod enqueue;
mod look;

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use crate::clock::{Clock, Random};
use crate::error::Result;
use crate::event::{Event, Hub};
use crate::middleware::{Middleware, OnEnqueue};
use crate::store::Store;

pub(crate) use self::attempts::Attempts;
pub use self::builder::JobsBuilder;

/// The handle on a database file. Cheap to clone, `Send + Sync`; all clones share one writer
/// thread, which ends with the last of them.
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
    store: Store,
    events: Arc<Hub>,
    trouble: Arc<Mutex<Option<(OffsetDateTime, String)>>>,
    attempts: Attempts,
    middleware: Vec<Arc<dyn Middleware>>,
    on_enqueue: Vec<OnEnqueue>,
    max_args: usize,
    workers: AtomicUsize,
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

    /// The file, by its canonical path.
    pub fn path(&self) -> &Path {
        self.0.store.path()
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
        &self.0.attempts
    }

    pub(crate) fn middleware(&self) -> &[Arc<dyn Middleware>] {
        &self.0.middleware
    }

    pub(crate) fn workers(&self) -> &AtomicUsize {
        &self.0.workers
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        self.0.events.tell(event);
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Jobs").field(&self.path()).finish()
    }
}
