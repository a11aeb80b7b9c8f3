//! What is read back from the file.

mod filter;
mod own;
mod stats;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::id::{FlowId, JobId};
use crate::limit::Limit;
use crate::state::State;

pub(crate) use self::filter::Arg;
pub use self::filter::Filter;
pub use self::own::OwnOptions;
pub use self::stats::{Backlog, FailureGroup, KindStats, Percentiles, QueueStats, Stats};
pub use self::worker::{InstanceRecord, PoolRecord, RunningJob, WorkerRecord};

/// A job as it stands in the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Where it stands.
    pub state: State,
    /// Its priority; lower numbers run first.
    pub priority: i64,
    /// When it was enqueued.
    #[serde(with = "time::serde::rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// When it may run, or was to run: its start time, or that of its next attempt.
    #[serde(with = "time::serde::rfc3339")]
    pub run_at: OffsetDateTime,
    /// When the current or last attempt started.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it finished.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// How many attempts have been used up: those that failed, and the one that completed it.
    pub attempts: u32,
    /// Its arguments, as JSON text.
    pub args: String,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// Its free keys and values.
    pub meta: BTreeMap<String, String>,
    /// What it has reported of its progress.
    pub progress: Option<Progress>,
    /// What it has put out, as JSON text.
    pub output: Option<String>,
    /// Why it failed or was cancelled: the report of the last failed attempt, or the reason given.
    pub reason: Option<String>,
    /// Whether it was asked to stop while running.
    pub cancel_requested: bool,
    /// `None`: above suspicion. A job that was running when its process died is a suspect until an
    /// attempt of it ends in any other way; this is how many deaths, the first not included, are
    /// counted against it (see [`EngineBuilder::crash_limit`](crate::EngineBuilder::crash_limit)).
    pub crashes: Option<u32>,
    /// Its unique key: `args:<kind>:<hash>` if it was made of arguments.
    pub unique_key: Option<String>,
    /// Its limits, with the keys made of its arguments.
    pub limits: Vec<Limit>,
    /// If a limit is what it waits for: `limit:` or `rate:`, and the key.
    pub waits_on: Option<String>,
    /// The flow whose member it is.
    pub flow: Option<FlowId>,
    /// How many of its parents have still to finish.
    pub parents_left: u64,
    /// The parent whose end has cancelled it.
    pub cause: Option<JobId>,
    /// The gate that must be open for it to start, if it has one.
    pub gate: Option<String>,
    /// When it ends as `cancelled` unless it has started; `None` if it has, or never expires.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// What it has of its own, instead of its kind's options.
    pub own: OwnOptions,
}

impl JobRecord {
    /// The arguments decoded as `T`, usually the job's own type.
    ///
    /// # Errors
    /// [`Error::Json`] if they do not fit `T`.
    pub fn args_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.args).map_err(|source| Error::Json { what: "arguments", source })
    }
}

/// How far a job says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 if unknown.
    pub total: u64,
    /// The last message.
    pub message: Option<String>,
}

impl Progress {
    /// As it stands in the columns of a job.
    pub(crate) fn read(
        done: Option<i64>,
        total: Option<i64>,
        message: Option<String>,
    ) -> Option<Progress> {
        let number = |value: Option<i64>| value.unwrap_or(0).unsigned_abs();
        (done.is_some() || message.is_some()).then(|| Progress {
            done: number(done),
            total: number(total),
            message,
        })
    }
}

/// One attempt that did not complete its job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AttemptRecord {
    /// Its number, from 1; an interrupted attempt shares its number with the next.
    pub attempt: u32,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub ended_at: OffsetDateTime,
    /// The worker that ran it; `None` if its process died.
    pub worker: Option<String>,
    /// What went wrong: the error with its sources, or the panic with its location, at most 8 KiB.
    pub error: String,
    /// Whether it was used up (`false`: interrupted by a stop or a crash).
    pub counted: bool,
}

/// What is stored of a step or cursor of a job: [`Jobs::steps`](crate::Jobs::steps).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// Whether it is a [`Cursor`](crate::Cursor).
    pub cursor: bool,
    /// When it was stored last.
    #[serde(with = "time::serde::rfc3339")]
    pub stored_at: OffsetDateTime,
    /// The size of what is stored, in bytes of JSON. `None`: only its name, since it had no result or
    /// position yet when a later one was stored.
    pub bytes: Option<u64>,
}

/// A line that a job wrote with [`Context::log`](crate::Context::log).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The attempt that wrote it, from 1.
    pub attempt: u32,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The line, at most 4 KiB.
    pub line: String,
    /// Its number in the file, which rises from line to line; for
    /// [`Jobs::logs_after`](crate::Jobs::logs_after).
    pub number: i64,
}

/// One page of a listing, newest jobs first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The jobs, by falling id.
    pub jobs: Vec<JobRecord>,
    /// Pass this as `before` to get the next page; `None` on the last one.
    pub next: Option<JobId>,
}

/// What can be paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "scope", content = "name", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scope {
    /// Everything.
    All,
    /// The jobs of one queue.
    Queue(String),
    /// The jobs of one kind.
    Kind(String),
}

/// A gate: a condition of the machine or the app that jobs wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GateRecord {
    /// Its name.
    pub name: String,
    /// Since when it is closed; `None`: it is open.
    #[serde(with = "time::serde::rfc3339::option")]
    pub closed_since: Option<OffsetDateTime>,
}

/// Which jobs a control verb works on: one id, several, or all that match a [`Filter`].
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one at a time, and a box would be everybody's"
)]
#[non_exhaustive]
pub enum Selection {
    /// One job; a verb that cannot be done to it is an error.
    One(JobId),
    /// These jobs; those that the verb cannot be done to are skipped.
    Many(Vec<JobId>),
    /// All that match when the verb gets to them.
    Matching(Filter),
}

impl From<JobId> for Selection {
    fn from(id: JobId) -> Selection {
        Selection::One(id)
    }
}

impl From<Vec<JobId>> for Selection {
    fn from(ids: Vec<JobId>) -> Selection {
        Selection::Many(ids)
    }
}

impl From<&[JobId]> for Selection {
    fn from(ids: &[JobId]) -> Selection {
        Selection::Many(ids.to_vec())
    }
}

impl From<Filter> for Selection {
    fn from(filter: Filter) -> Selection {
        Selection::Matching(filter)
    }
}

/// What a control verb did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Jobs it changed, or running jobs it asked to stop.
    pub changed: u64,
    /// Jobs it could not be done to: gone, or in another state.
    pub skipped: u64,
    /// Of those, jobs that cannot run again, or be edited so, because another one has their unique key.
    pub not_unique: u64,
    /// Of those, jobs that cannot run again because a parent has failed or was cancelled.
    pub held_by_parent: u64,
}

/// What [`Jobs::clone_jobs`](crate::Jobs::clone_jobs) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cloned {
    /// The new jobs: in the order of those that were named, or of a list, which begins with the newest.
    pub ids: Vec<JobId>,
    /// Jobs of which there is no new one: gone, or with a unique key that another one has.
    pub skipped: u64,
    /// Of those, jobs with such a key.
    pub not_unique: u64,
}

/// The answer to [`Jobs::health`](crate::Jobs::health).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// Worker threads alive in this process, over all engines on this handle.
    pub workers: usize,
    /// Attempts under way in this process.
    pub running: usize,
    /// How long the job that has been ready longest has waited since its `run_at`.
    pub oldest_ready: Option<Duration>,
    /// The last trouble the writer met (full disk, lock held for long), and when.
    pub last_error: Option<(OffsetDateTime, String)>,
}
