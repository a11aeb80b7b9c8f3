//! The one error type of legwork's verbs, named for what a caller can do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::id::{FlowId, JobId};
use crate::state::State;

/// What every verb of [`Jobs`](crate::Jobs) and [`Engine`](crate::Engine) returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a verb was refused or could not be carried out.
///
/// The variants are named for what the caller can do; the SQLite error behind one of them, if
/// any, is its [`source`](std::error::Error::source) or stands in its text. Unless a variant says
/// otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The write lock was not free within the busy time-out. The operation was dropped and will
    /// not be applied later; it is safe to try again.
    #[error(
        "the database was locked by another connection for {waited:?}; nothing was written \
         (a thread that holds its own write transaction must use `enqueue_in`, not `enqueue`)"
    )]
    Busy {
        /// How long the operation waited.
        waited: Duration,
    },
    /// A plain verb was called inside [`Jobs::transaction`](crate::Jobs::transaction), where it
    /// would wait for the very transaction that surrounds it.
    #[error(
        "`{verb}` called inside `jobs.transaction(..)` would wait for that transaction; \
         use `enqueue_in(tx, ..)` or call it afterwards"
    )]
    InTransaction {
        /// The verb that was called.
        verb: &'static str,
    },
    /// The disk or the file's size limit is full. Free space and try again.
    #[error("no space left for the database: {0}")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Reading or writing the file failed below SQLite.
    #[error("the database could not be read or written: {0}")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An I/O error struck at the commit itself: the operation may or may not have taken effect.
    /// Look before trying again.
    #[error("an I/O error struck at the commit; whether it took effect is unknown: {0}")]
    OutcomeUnknown(String),
    /// No job has this id: it never existed, was deleted, or was pruned.
    #[error("no job {0}: it never existed, was deleted, or was pruned after its retention")]
    NotFound(JobId),
    /// No cron entry has this name.
    #[error("there is no cron entry {0:?}")]
    UnknownCron(String),
    /// The job is in a state in which the verb makes no sense.
    #[error("cannot {verb} job {id}: it is {state}")]
    WrongState {
        /// The job.
        id: JobId,
        /// Its state when the verb reached it.
        state: State,
        /// The verb that was refused.
        verb: &'static str,
    },
    /// Another job has the unique key.
    #[error("the unique key {key:?} is held by job {holder}")]
    NotUnique {
        /// The key; `args:<kind>:<hash>` for one made of arguments.
        key: String,
        /// The job that holds it; with a period perhaps finished and pruned by now.
        holder: JobId,
    },
    /// A job cannot run again while a parent of it has not completed: retry that, which brings this one
    /// back.
    #[error("job {id} waits for job {parent}, which has failed or was cancelled; retry that one")]
    HeldByParent {
        /// The job.
        id: JobId,
        /// Its parent.
        parent: JobId,
    },
    /// No flow has this id: it never existed, or was pruned.
    #[error("no flow {0}: it never existed, or was pruned after its retention")]
    NoFlow(FlowId),
    /// The flow has ended, so that nothing can be added to it.
    #[error("flow {0} has ended; nothing can be added to it")]
    FlowEnded(FlowId),
    /// The flow did not end within the time allowed to [`Jobs::wait_flow`](crate::Jobs::wait_flow).
    #[error("flow {id} did not end within {waited:?}; {pending} of its jobs have not finished")]
    FlowTimeout {
        /// The flow waited for.
        id: FlowId,
        /// How long.
        waited: Duration,
        /// How many of its members had not finished then.
        pending: u64,
    },
    /// An argument breaks a rule; `why` says which.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// What was given, such as `"queue name"`.
        what: &'static str,
        /// The rule it breaks.
        why: String,
    },
    /// A value could not be turned into JSON, or stored JSON not into the asked type.
    #[error("{what}: {source}")]
    Json {
        /// Which value.
        what: &'static str,
        /// The error of the codec.
        #[source]
        source: serde_json::Error,
    },
    /// The job was not finished within the time allowed to [`Jobs::wait`](crate::Jobs::wait) for it.
    #[error("job {id} was not finished within {waited:?}; it is {state}")]
    Timeout {
        /// The job waited for.
        id: JobId,
        /// How long.
        waited: Duration,
        /// Its state at the end of the wait.
        state: State,
    },
    /// The job no longer belongs to the attempt that speaks for it: it was rescued, cancelled or
    /// abandoned meanwhile. Roll the surrounding transaction back.
    #[error("this attempt no longer holds job {0}; its transaction must not commit")]
    LostClaim(JobId),
    /// A job came to another step than its earlier attempts did, in the same place: the program has
    /// been changed. Deploy one that knows the old name there, or start the job over with
    /// [`Jobs::retry_from_scratch`](crate::Jobs::retry_from_scratch). No step was run.
    #[error(
        "job {id} comes to {visited} as number {place} of its steps, where earlier attempts had {stored}; \
         bring that back, or retry the job from scratch (`legwork retry --from-scratch {id}`)"
    )]
    StepChanged {
        /// The job.
        id: JobId,
        /// Which of its steps, from 1.
        place: usize,
        /// What is stored there, as ``step `charge` ``.
        stored: String,
        /// What the job came to now.
        visited: String,
    },
    /// The stored result of a step, or position of a cursor, does not fit the type that is asked for
    /// now. The step was not run again.
    #[error("what is stored of {step} does not decode: {source}")]
    StepValue {
        /// Which, as ``step `charge` ``.
        step: String,
        /// The error of the codec.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a newer legwork; nothing was touched. Update this program.
    #[error("the file has legwork schema {found}, this program knows up to {known}")]
    Newer {
        /// Schema version in the file.
        found: i64,
        /// Newest version this program knows.
        known: i64,
    },
    /// The file, or the connection handed in, is not what legwork can work on: no SQLite database,
    /// a SQLite that is too old, another file than the handle's.
    #[error("{}: {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing of legwork's is there, and none was to be made:
    /// [`JobsBuilder::create`](crate::JobsBuilder::create).
    #[error("{}", no_database(path, *exists))]
    NoDatabase {
        /// The file.
        path: PathBuf,
        /// Whether there is such a file: it is another program's then.
        exists: bool,
    },
    /// SQLite reports a damaged file. It was not written to; restore a backup.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The file or its directory cannot be written.
    #[error("{} cannot be written: {why}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What was refused.
        why: String,
    },
    /// The file lies on a network file system, where SQLite's locks and WAL are not safe.
    /// [`allow_network_fs`](crate::JobsBuilder::allow_network_fs) overrides this.
    #[error("{} lies on a network file system ({fs}), where WAL mode is not safe", path.display())]
    NetworkFs {
        /// The file.
        path: PathBuf,
        /// The file system's type.
        fs: String,
    },
    /// legwork's own writer thread panicked. The handle is dead, the file is not: every job is
    /// in it, and a new handle can be opened. The log has the panic.
    #[error("legwork's writer thread has panicked; open the file again")]
    Poisoned,
    /// The file or its `-wal` was removed or replaced while it was open. Nothing more is written
    /// through this handle; a new one can be opened. What was in the lost file is lost with it; if that
    /// was the `-wal`, all since its last checkpoint. The operation that met it was not
    /// acknowledged, but may be in the file: look before trying again.
    #[error(
        "{}: {why} while it was open; what was written since may be lost; open the file again",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// What was removed or replaced.
        why: &'static str,
    },
    /// This process was made by `fork` from the one that opened the file, and has not called
    /// `exec` since. SQLite's connections and locks do not survive that, nor do legwork's threads.
    /// Open files after forking, not before.
    #[error("the file was opened before this process was forked; open files after the fork")]
    Forked,
    /// The handle or engine was stopped.
    #[error("{0} has been stopped")]
    Stopped(&'static str),
    /// Any other error of SQLite, unexpected here.
    #[error("SQLite: {0}")]
    Sqlite(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Error {
        Error::Invalid { what, why: why.into() }
    }

    /// Whether the same call can succeed later without any change: a lock, a full disk.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Busy { .. } | Error::Full(_) | Error::Io(_))
    }
}

fn no_database(path: &Path, exists: bool) -> String {
    let path = path.display();
    if exists {
        format!("{path} is no database of legwork's")
    } else {
        format!("there is no {path}")
    }
}
