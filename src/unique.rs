//! Which jobs there may be only one of, and what happens to a second one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::JobId;

/// Keeps a job from being enqueued while another one with the same key is there.
///
/// | held | by | until |
/// |---|---|---|
/// | [`until_finished`](Unique::until_finished), the default | the job | it is completed, failed, cancelled or deleted; retries keep it |
/// | [`until_started`](Unique::until_started) | the job | an attempt starts; a job that waits again takes it again, and ends `cancelled: superseded` if a newer one has it |
/// | [`for_period`](Unique::for_period) | the period | that long after the job was enqueued, even if it is finished and pruned by then |
///
/// A key is one name for the whole file, over kinds and queues. It is held by the primary key of a
/// table and decided in the transaction of the insert: two processes never both enqueue.
///
/// ```
/// # use std::time::Duration;
/// use legwork::{Conflict, NewJob, Unique};
/// # let reindex = |_| NewJob::of_kind("reindex", serde_json::json!({}));
/// // At most one waits or runs.
/// let job = reindex(1).unique_key("reindex-1");
/// // One for these arguments in ten minutes; a second one is an error.
/// let job = reindex(1).unique(
///     Unique::by_args().for_period(Duration::from_secs(600)).on_conflict(Conflict::Reject),
/// );
/// // One runs, at most one waits, and that has the newest arguments.
/// let job = reindex(1).unique(Unique::by_key("reindex").on_conflict(Conflict::KeepLast));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    pub(crate) by: By,
    pub(crate) window: Window,
    pub(crate) conflict: Conflict,
}

/// What the key is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum By {
    Key(String),
    Args,
    Fields(Vec<String>),
}

/// How long the key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Window {
    Started,
    Finished,
    Period(Duration),
}

/// What happens to a job whose key is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Conflict {
    /// It is not enqueued; the answer is the id of the job that has the key. The default.
    #[default]
    Ignore,
    /// If the job that has the key still waits, it gets the new arguments, start time, priority,
    /// queue, tags, metadata and options. With other arguments, or of another kind, it is new work:
    /// attempts that the old one has used up are forgotten, and so is its wait for a retry. One that has
    /// been handed to a worker is left alone, as with `Ignore`.
    Replace,
    /// The enqueue fails with [`Error::NotUnique`](crate::Error::NotUnique).
    Reject,
    /// A mode of its own, whatever the window: of the jobs with the key at most one runs and at most one
    /// waits. A new one waits until the running one has ended; while one waits, it takes over the
    /// newest arguments as with `Replace`. So the last state asked for is always worked off.
    KeepLast,
}

impl Unique {
    fn by(by: By) -> Unique {
        Unique { by, window: Window::Finished, conflict: Conflict::Ignore }
    }

    /// By a name: 1 to 255 bytes without control characters.
    pub fn by_key(key: impl Into<String>) -> Unique {
        Unique::by(By::Key(key.into()))
    }

    /// By kind and all arguments. The order of their fields makes no difference.
    pub fn by_args() -> Unique {
        Unique::by(By::Args)
    }

    /// By kind and these fields of the arguments, which must be a JSON object. A field that is missing
    /// counts as null.
    pub fn by_fields<S: Into<String>>(fields: impl IntoIterator<Item = S>) -> Unique {
        Unique::by(By::Fields(fields.into_iter().map(Into::into).collect()))
    }

    /// Holds the key until an attempt of the job starts.
    pub fn until_started(mut self) -> Unique {
        self.window = Window::Started;
        self
    }

    /// Holds the key until the job has finished. The default.
    pub fn until_finished(mut self) -> Unique {
        self.window = Window::Finished;
        self
    }

    /// Holds the key for so long after the job was enqueued, whatever becomes of it; only if it waits and
    /// is cancelled or deleted before it has used up an attempt (a snooze uses none) the key is free at
    /// once. Longer than zero, or the enqueue is refused.
    pub fn for_period(mut self, period: Duration) -> Unique {
        self.window = Window::Period(period);
        self
    }

    /// What happens to a second job.
    pub fn on_conflict(mut self, conflict: Conflict) -> Unique {
        self.conflict = conflict;
        self
    }
}

/// What became of one job of [`Jobs::enqueue_each`](crate::Jobs::enqueue_each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enqueued {
    /// It is enqueued.
    New(JobId),
    /// It is not: this job has its key.
    Existing(JobId),
    /// This job had its key, and has got its arguments.
    Replaced(JobId),
    /// It was refused: this job has its key.
    Rejected {
        /// The job that has the key, perhaps finished already.
        holder: JobId,
    },
}

impl Enqueued {
    /// The job that is to do the work: the new one, or the one that has its key.
    pub fn id(&self) -> JobId {
        match *self {
            Enqueued::New(id) | Enqueued::Existing(id) | Enqueued::Replaced(id) => id,
            Enqueued::Rejected { holder } => holder,
        }
    }

    /// Whether there is a new job.
    pub fn is_new(&self) -> bool {
        matches!(self, Enqueued::New(_))
    }
}
