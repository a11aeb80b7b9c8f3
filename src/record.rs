//! What is read back from the file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::id::{FlowId, JobId};
use crate::limit::Limit;
use crate::state::State;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 if unknown.
    pub total: u64,
    /// The last message.
    pub message: Option<String>,
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
}

/// Which jobs: every condition that is set must hold, an empty one holds for all.
///
/// ```
/// use legwork::{Filter, State};
/// let filter = Filter::new().state(State::Failed).kind("welcome_email").tag("eu");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub(crate) states: Vec<State>,
    pub(crate) kinds: Vec<String>,
    pub(crate) queues: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) until: Option<OffsetDateTime>,
    pub(crate) flow: Option<FlowId>,
}

impl Filter {
    /// All jobs.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// Jobs in this state; several calls: in any of them.
    pub fn state(mut self, state: State) -> Filter {
        self.states.push(state);
        self
    }

    /// Jobs of this kind; several calls: of any of them.
    pub fn kind(mut self, kind: impl Into<String>) -> Filter {
        self.kinds.push(kind.into());
        self
    }

    /// Jobs in this queue; several calls: in any of them.
    pub fn queue(mut self, queue: impl Into<String>) -> Filter {
        self.queues.push(queue.into());
        self
    }

    /// Jobs with this tag; several calls: with all of them.
    pub fn tag(mut self, tag: impl Into<String>) -> Filter {
        self.tags.push(tag.into());
        self
    }

    /// The members of this flow.
    pub fn flow(mut self, id: FlowId) -> Filter {
        self.flow = Some(id);
        self
    }

    /// Jobs enqueued at or after this.
    pub fn since(mut self, at: OffsetDateTime) -> Filter {
        self.since = Some(at);
        self
    }

    /// Jobs enqueued before this.
    pub fn until(mut self, at: OffsetDateTime) -> Filter {
        self.until = Some(at);
        self
    }
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

/// Numbers about the whole file at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// How many jobs are in each state.
    pub states: BTreeMap<State, u64>,
    /// Per queue, by name.
    pub queues: BTreeMap<String, QueueStats>,
    /// Per kind, from its last finished jobs.
    pub kinds: BTreeMap<String, KindStats>,
    /// What is paused.
    pub paused: Vec<Scope>,
}

impl Stats {
    /// How many jobs are in `state`.
    pub fn count(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }
}

/// Numbers about one queue.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueueStats {
    /// How many unfinished jobs are in each state.
    pub states: BTreeMap<State, u64>,
    /// How long the job that has been ready longest has waited since its `run_at`.
    pub oldest_ready: Option<Duration>,
}

/// Numbers about one kind, taken from the most recent finished jobs of the file (at most 10,000
/// of all kinds together).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KindStats {
    /// Jobs of this kind in the sample.
    pub finished: u64,
    /// Those of them that gave up.
    pub failed: u64,
    /// Finished jobs a minute, over the time that the sample of this kind spans.
    pub per_minute: f64,
    /// From `run_at` to the start of the last attempt.
    pub wait: Percentiles,
    /// From the start of the last attempt to its end.
    pub run: Percentiles,
}

/// Three points of a distribution, by the nearest-rank method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: Duration,
    /// 95 % are at most this.
    pub p95: Duration,
    /// 99 % are at most this.
    pub p99: Duration,
}

impl Percentiles {
    /// Nearest rank: the smallest value such that at least p of all values are not larger.
    pub(crate) fn of(mut values: Vec<Duration>) -> Percentiles {
        if values.is_empty() {
            return Percentiles::default();
        }
        values.sort_unstable();
        let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Percentiles { p50: at(50), p95: at(95), p99: at(99) }
    }
}

/// What can be paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

/// An engine that runs jobs of the file, in this process or another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceRecord {
    /// Its number, never given twice in the file.
    pub id: i64,
    /// Its process, as that process sees its own id; 0 if it cannot be told.
    pub pid: u32,
    /// When the engine was started.
    pub started_at: OffsetDateTime,
    /// Whether its process lives. A dead one stays until an engine takes over what it held.
    pub alive: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let ms = Duration::from_millis;
        let found = Percentiles::of((1..=100).rev().map(ms).collect());
        assert_eq!((found.p50, found.p95, found.p99), (ms(50), ms(95), ms(99)));
        let one = Percentiles::of(vec![ms(7)]);
        assert_eq!((one.p50, one.p99), (ms(7), ms(7)));
    }
}
