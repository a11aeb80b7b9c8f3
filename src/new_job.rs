//! A job about to be enqueued, and the options that a kind or a call gives it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::clock::{Micros, micros_of, to_micros};
use crate::error::{Error, Result};
use crate::flow::AfterFailure;
use crate::id::{FlowId, JobId};
use crate::limit::{Limit, Limits, OnBusy};
use crate::rules::retry::{Plan, Retry};
use crate::rules::{name, unique};
use crate::state::State;
use crate::unique::{Conflict, Unique};

/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// What happens to an attempt that goes on after its time-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overdue {
    /// Report it as stuck and go on waiting for it. The default: a thread cannot be killed, and
    /// the job may still finish.
    #[default]
    Wait,
    /// Report it, count the attempt as failed, make its later finish void, and open a
    /// replacement worker (at most as many as the pool has workers). The job may then run again
    /// while the abandoned thread is still at it, and so may another one with its unique key; its slots
    /// of limits it keeps until the thread ends.
    Abandon,
}

/// How long finished jobs are kept before they are pruned.
///
/// Defaults: completed and cancelled 1 day, failed 30 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    completed: Duration,
    cancelled: Duration,
    failed: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        const DAY: Duration = Duration::from_secs(86_400);
        Retention { completed: DAY, cancelled: DAY, failed: 30 * DAY }
    }
}

impl Retention {
    /// The same for all three states.
    pub fn all(keep: Duration) -> Retention {
        Retention { completed: keep, cancelled: keep, failed: keep }
    }

    /// How long completed jobs are kept.
    pub fn completed(self, keep: Duration) -> Retention {
        Retention { completed: keep, ..self }
    }

    /// How long cancelled jobs are kept.
    pub fn cancelled(self, keep: Duration) -> Retention {
        Retention { cancelled: keep, ..self }
    }

    /// How long jobs that gave up are kept.
    pub fn failed(self, keep: Duration) -> Retention {
        Retention { failed: keep, ..self }
    }

    pub(crate) fn of(&self, state: State) -> Duration {
        match state {
            State::Failed => self.failed,
            State::Cancelled => self.cancelled,
            _ => self.completed,
        }
    }
}

/// The options of a kind of job, returned by [`Job::options`](crate::Job::options). What a call
/// sets on [`NewJob`] wins over them.
///
/// Queue, priority, delay, tags, gate, expiry, limits and retention are taken when a job is enqueued; retry, time-out and
/// overdue policy when it runs, so that a new build changes them for waiting jobs too.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    pub(crate) queue: Option<String>,
    pub(crate) priority: i64,
    pub(crate) delay: Duration,
    pub(crate) retry: Retry,
    pub(crate) timeout: Option<Duration>,
    pub(crate) overdue: Overdue,
    pub(crate) tags: Vec<String>,
    pub(crate) retention: Option<Retention>,
    pub(crate) unique: Option<Unique>,
    pub(crate) gate: Option<String>,
    pub(crate) expires_after: Option<Duration>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) on_busy: OnBusy,
}

impl JobOptions {
    /// Queue `"default"`, priority 0, [`Retry::polynomial`], no time-out, no tags.
    pub fn new() -> JobOptions {
        JobOptions::default()
    }

    /// The queue, a name of 1 to 255 bytes without control characters.
    pub fn queue(mut self, queue: impl Into<String>) -> JobOptions {
        self.queue = Some(queue.into());
        self
    }

    /// The priority; lower numbers run first.
    pub fn priority(mut self, priority: i64) -> JobOptions {
        self.priority = priority;
        self
    }

    /// How long after it is enqueued a job may run. Default: at once.
    pub fn delay(mut self, delay: Duration) -> JobOptions {
        self.delay = delay;
        self
    }

    /// When a failed job runs again, and when it gives up.
    pub fn retry(mut self, retry: Retry) -> JobOptions {
        self.retry = retry;
        self
    }

    /// How long an attempt may take, in time that the machine is awake. Cooperative: see
    /// [`Context::checkpoint`](crate::Context::checkpoint).
    pub fn timeout(mut self, timeout: Duration) -> JobOptions {
        self.timeout = Some(timeout);
        self
    }

    /// What happens to an attempt that goes on after its time-out.
    pub fn overdue(mut self, overdue: Overdue) -> JobOptions {
        self.overdue = overdue;
        self
    }

    /// A word to find the kind's jobs by.
    pub fn tag(mut self, tag: impl Into<String>) -> JobOptions {
        self.tags.push(tag.into());
        self
    }

    /// Keeps a second job from being enqueued while one is there.
    pub fn unique(mut self, unique: Unique) -> JobOptions {
        self.unique = Some(unique);
        self
    }

    /// How long its finished jobs are kept, instead of the handle's retention.
    pub fn retention(mut self, retention: Retention) -> JobOptions {
        self.retention = Some(retention);
        self
    }

    /// The gate that must be open for its jobs to start, a name of 1 to 255 bytes without control
    /// characters. See [`Jobs::close_gate`](crate::Jobs::close_gate). Default: none.
    ///
    /// ```
    /// # use legwork::JobOptions;
    /// let upload = JobOptions::new().queue("sync").gate("online");
    /// ```
    pub fn gate(mut self, name: impl Into<String>) -> JobOptions {
        self.gate = Some(name.into());
        self
    }

    /// How long after the time from which it may run a job must have started for the first time;
    /// after that it ends as `cancelled`. More than zero. Default: no limit. Retries do not expire.
    ///
    /// ```
    /// # use legwork::JobOptions;
    /// # use std::time::Duration;
    /// let notice = JobOptions::new().expires_after(Duration::from_secs(5 * 60));
    /// ```
    pub fn expires_after(mut self, within: Duration) -> JobOptions {
        self.expires_after = Some(within);
        self
    }

    /// How many of its jobs run at once, or start in a time, beside those of the kind's other limits.
    ///
    /// ```
    /// # use legwork::{JobOptions, Limit};
    /// let import = JobOptions::new().limit(Limit::at_once("account", 2).by(["account_id"]));
    /// ```
    pub fn limit(mut self, limit: Limit) -> JobOptions {
        Limits::put(&mut self.limits, limit);
        self
    }

    /// What happens to a job that could start but for a limit. Default: it waits.
    pub fn on_busy(mut self, on_busy: OnBusy) -> JobOptions {
        self.on_busy = on_busy;
        self
    }
}

/// A job about to be enqueued: its kind, its arguments, and options that win over the kind's.
///
/// ```
/// # use std::time::Duration;
/// # use serde::{Serialize, Deserialize};
/// use legwork::{Context, Job, JobResult, NewJob, Outcome};
///
/// #[derive(Serialize, Deserialize)]
/// struct ReviewReminder { order: i64 }
/// impl Job for ReviewReminder {
///     const KIND: &'static str = "review_reminder";
///     type State = ();
///     fn perform(&self, _: &Context) -> JobResult { Ok(Outcome::Done) }
/// }
///
/// let reminder = NewJob::new(ReviewReminder { order: 9 })
///     .delay(Duration::from_secs(7 * 86_400))
///     .queue("mail")
///     .meta("trace", "4bf92f35");
/// ```
///
/// It is serialized as cron entries keep it in the file; what that looks like may change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewJob {
    kind: String,
    args: Result<String, String>,
    queue: String,
    priority: i64,
    start: Start,
    overrides: Overrides,
    // One that has it is never stored.
    #[serde(skip)]
    bad_retry: Option<&'static str>,
    gate: Option<String>,
    expires_after: Option<Duration>,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    unique: Option<Unique>,
    #[serde(default)]
    limits: Vec<Limit>,
    #[serde(default)]
    on_busy: OnBusy,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    after: Vec<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_failure: Option<AfterFailure>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Start {
    After(Duration),
    At(OffsetDateTime),
}

/// What one job has of its own, as JSON beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Overrides {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<Plan>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<Retention>,
}

impl NewJob {
    /// A job of any kind, known to this program or not, with its arguments as JSON.
    ///
    /// Programs that have the kind's type use [`NewJob::new`]. The kind's options are not known here;
    /// [`Jobs::known_options`](crate::Jobs::known_options) asks the file for them.
    pub fn of_kind(kind: impl Into<String>, args: Value) -> NewJob {
        NewJob::from_parts(kind.into(), Ok(args.to_string()), JobOptions::default())
    }

    /// Like [`of_kind`](NewJob::of_kind), for arguments that are JSON text already.
    pub fn of_kind_json(kind: impl Into<String>, args: impl Into<String>) -> NewJob {
        let args = args.into();
        let checked = match serde_json::from_str::<serde::de::IgnoredAny>(&args) {
            Ok(_) => Ok(args),
            Err(error) => Err(format!("they are not JSON: {error}")),
        };
        NewJob::from_parts(kind.into(), checked, JobOptions::default())
    }

    pub(crate) fn from_parts(
        kind: String,
        args: Result<String, String>,
        options: JobOptions,
    ) -> NewJob {
        NewJob {
            kind,
            args,
            queue: options.queue.unwrap_or_else(|| DEFAULT_QUEUE.to_owned()),
            priority: options.priority,
            start: Start::After(options.delay),
            overrides: Overrides { keep: options.retention, ..Overrides::default() },
            bad_retry: None,
            gate: options.gate,
            expires_after: options.expires_after,
            tags: options.tags,
            meta: BTreeMap::new(),
            unique: options.unique,
            limits: options.limits,
            on_busy: options.on_busy,
            after: Vec::new(),
            after_failure: None,
        }
    }

    /// The queue, a name of 1 to 255 bytes without control characters.
    pub fn queue(mut self, queue: impl Into<String>) -> NewJob {
        self.queue = queue.into();
        self
    }

    /// The priority; lower numbers run first.
    pub fn priority(mut self, priority: i64) -> NewJob {
        self.priority = priority;
        self
    }

    /// Takes queue, priority, delay, tags, retention, gate, expiry, unique rule and limits from these
    /// options, in place of what was set before; what follows wins over them. For jobs made without their type: see
    /// [`Jobs::known_options`](crate::Jobs::known_options).
    pub fn options(mut self, options: JobOptions) -> NewJob {
        self.queue = options.queue.unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
        self.priority = options.priority;
        self.start = Start::After(options.delay);
        self.overrides.keep = options.retention;
        self.tags = options.tags;
        self.unique = options.unique;
        self.gate = options.gate;
        self.expires_after = options.expires_after;
        self.limits = options.limits;
        self.on_busy = options.on_busy;
        self
    }

    /// Runs no sooner than this long after it is enqueued.
    pub fn delay(mut self, delay: Duration) -> NewJob {
        self.start = Start::After(delay);
        self
    }

    /// Runs no sooner than this. A time in the past means at once, before jobs with a later time
    /// in the same queue and priority.
    pub fn run_at(mut self, at: OffsetDateTime) -> NewJob {
        self.start = Start::At(at);
        self
    }

    /// The same job, not before this long after its time.
    pub(crate) fn later(mut self, by: Duration) -> NewJob {
        self.start = match self.start {
            Start::After(delay) => Start::After(delay.saturating_add(by)),
            // What lies beyond the year 9999 is refused with the job.
            Start::At(at) => {
                match time::Duration::try_from(by).ok().and_then(|by| at.checked_add(by)) {
                    Some(at) => Start::At(at),
                    None => Start::After(Duration::MAX),
                }
            }
        };
        self
    }

    /// A retry policy of its own. Policies with functions or rules for error types cannot be
    /// stored with a job and make the enqueue fail with [`Error::Invalid`].
    pub fn retry(mut self, retry: Retry) -> NewJob {
        match retry.plan() {
            Ok(plan) => self.overrides.retry = Some(plan),
            Err(why) => self.bad_retry = Some(why),
        }
        self
    }

    /// A time-out of its own.
    pub fn timeout(mut self, timeout: Duration) -> NewJob {
        self.overrides.timeout = Some(timeout);
        self
    }

    /// A retention of its own.
    pub fn retention(mut self, retention: Retention) -> NewJob {
        self.overrides.keep = Some(retention);
        self
    }

    /// Keeps a second job from being enqueued while this one is there; instead of the kind's rule.
    pub fn unique(mut self, unique: Unique) -> NewJob {
        self.unique = Some(unique);
        self
    }

    /// Unique by this key until it has finished: `unique(Unique::by_key(key))`.
    pub fn unique_key(self, key: impl Into<String>) -> NewJob {
        self.unique(Unique::by_key(key))
    }

    /// The gate that must be open for it to start, instead of the kind's. See
    /// [`Jobs::close_gate`](crate::Jobs::close_gate).
    pub fn gate(mut self, name: impl Into<String>) -> NewJob {
        self.gate = Some(name.into());
        self
    }

    /// How long after the time from which it may run it must have started for the first time; after
    /// that it ends as `cancelled`, with the reason. More than zero. Its retries do not expire, and
    /// [`Jobs::retry`](crate::Jobs::retry) of an expired job runs it without a limit.
    ///
    /// ```
    /// # use legwork::NewJob;
    /// # use std::time::Duration;
    /// let notice = NewJob::of_kind("notice", serde_json::json!({ "meeting": 4 }))
    ///     .expires_after(Duration::from_secs(5 * 60));
    /// ```
    pub fn expires_after(mut self, within: Duration) -> NewJob {
        self.expires_after = Some(within);
        self
    }

    /// At most `most` jobs with this key run at once, over all processes: `limited(Limit::at_once(key,
    /// most))`.
    pub fn limit(self, key: impl Into<String>, most: u32) -> NewJob {
        self.limited(Limit::at_once(key, most))
    }

    /// At most `most` jobs with this key start in any time of length `per`, evenly spaced, over all
    /// processes: `limited(Limit::rate(key, most, per))`.
    pub fn rate(self, key: impl Into<String>, most: u32, per: Duration) -> NewJob {
        self.limited(Limit::rate(key, most, per))
    }

    /// A limit beside those that the job has; instead of one for the same key.
    pub fn limited(mut self, limit: Limit) -> NewJob {
        Limits::put(&mut self.limits, limit);
        self
    }

    /// Takes away all limits, also those of the kind.
    pub fn unlimited(mut self) -> NewJob {
        self.limits.clear();
        self
    }

    /// What happens if it could start but for a limit, instead of the kind's rule.
    pub fn on_busy(mut self, on_busy: OnBusy) -> NewJob {
        self.on_busy = on_busy;
        self
    }

    /// Starts once these jobs have completed, whatever they are; beside those named before. If one of
    /// them fails, is cancelled or is deleted this job is cancelled, and comes back when it is retried:
    /// see [`after_failure`](NewJob::after_failure). A job that is not there makes the enqueue fail with
    /// [`Error::NotFound`].
    ///
    /// A delay or start time counts as well. So does an expiry: from the time at which the job could
    /// have started without this.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob};
    /// # use serde_json::json;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let build = jobs.enqueue(NewJob::of_kind("build", json!({})))?;
    /// jobs.enqueue(NewJob::of_kind("publish", json!({})).after([build]))?;
    /// # Ok(()) }
    /// ```
    pub fn after(mut self, parents: impl IntoIterator<Item = JobId>) -> NewJob {
        self.after.extend(parents);
        self
    }

    /// What becomes of it if a parent fails: one named with [`after`](NewJob::after) or in a flow,
    /// whose rule this goes before.
    pub fn after_failure(mut self, what: AfterFailure) -> NewJob {
        self.after_failure = Some(what);
        self
    }

    pub(crate) fn or_after_failure(mut self, what: AfterFailure) -> NewJob {
        self.after_failure.get_or_insert(what);
        self
    }

    /// A word to find the job by, beside the kind's.
    pub fn tag(mut self, tag: impl Into<String>) -> NewJob {
        self.tags.push(tag.into());
        self
    }

    /// A free key and value, such as a trace id; handed to middleware and shown with the job.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> NewJob {
        self.meta.insert(key.into(), value.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The queue as set so far.
    pub fn queue_name(&self) -> &str {
        &self.queue
    }

    /// The arguments as JSON, or `None` if they could not be serialized (the enqueue will say why).
    pub fn args(&self) -> Option<&str> {
        self.args.as_deref().ok()
    }

    /// Whether it is to start at a fixed time.
    #[cfg(feature = "cron")]
    pub(crate) fn has_start_time(&self) -> bool {
        matches!(self.start, Start::At(_))
    }

    /// Checks every rule and fixes the times.
    pub(crate) fn into_row(self, now: Micros, max_args: usize) -> Result<NewRow> {
        name::check("kind", &self.kind)?;
        name::check("queue name", &self.queue)?;
        if let Some(gate) = &self.gate {
            name::check("gate name", gate)?;
        }
        for tag in &self.tags {
            name::check("tag", tag)?;
        }
        for (key, value) in &self.meta {
            name::check("meta key", key)?;
            if value.len() > 4096 {
                return Err(Error::invalid("meta value", "it is longer than 4096 bytes"));
            }
        }
        if let Some(why) = self.bad_retry {
            return Err(Error::invalid("retry policy", why));
        }
        let args = self.args.map_err(|why| Error::invalid("arguments", why))?;
        if args.len() > max_args {
            return Err(Error::invalid(
                "arguments",
                format!("they have {} bytes of JSON, at most {max_args} are allowed", args.len()),
            ));
        }
        if is_deep(&args) {
            return Err(Error::invalid(
                "arguments",
                format!("they are nested deeper than {DEEPEST} levels, which SQLite does not read"),
            ));
        }
        let run_at = match self.start {
            Start::After(delay) => now.saturating_add(micros_of(delay)),
            Start::At(at) => to_micros(at),
        };
        if run_at > LATEST {
            return Err(Error::invalid("start time", "it lies after the year 9999"));
        }
        let replaces =
            |unique: &Unique| matches!(unique.conflict, Conflict::Replace | Conflict::KeepLast);
        if !self.after.is_empty() && self.unique.as_ref().is_some_and(replaces) {
            let why = "a job that may take the place of another cannot have parents of its own";
            return Err(Error::invalid("parents", why));
        }
        let unique =
            self.unique.map(|unique| unique::key(&unique, &self.kind, &args, now)).transpose()?;
        let expires_at = match self.expires_after.map(micros_of) {
            Some(..=0) => return Err(Error::invalid("expiry", "it must be longer than zero")),
            // Later than any time that can be told: never.
            within => within.map(|within| run_at.saturating_add(within)).filter(|at| *at <= LATEST),
        };
        let limits = Limits::of(self.limits, self.on_busy, &args)?;
        let mut tags = self.tags;
        tags.sort_unstable();
        tags.dedup();
        let mut parents = self.after;
        parents.sort_unstable();
        parents.dedup();
        Ok(NewRow {
            state: if run_at > now { State::Scheduled } else { State::Ready },
            kind: self.kind,
            queue: self.queue,
            priority: self.priority,
            run_at,
            enqueued_at: now,
            gate: self.gate,
            expires_at,
            args,
            options: json_unless(self.overrides == Overrides::default(), &self.overrides)?,
            tags: json_unless(tags.is_empty(), &tags)?,
            meta: json_unless(self.meta.is_empty(), &self.meta)?,
            unique,
            limits,
            flow: None,
            parents,
            anyway: self.after_failure == Some(AfterFailure::Continue),
        })
    }
}

/// The nesting of JSON that SQLite's functions read.
const DEEPEST: usize = 1000;

/// Whether JSON is nested deeper than SQLite reads it.
fn is_deep(json: &str) -> bool {
    // Each level takes an opening and a closing byte.
    if json.len() <= 2 * DEEPEST {
        return false;
    }
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest > DEEPEST
}

/// 9999-12-31T23:59:59 UTC in microseconds: the last time that `OffsetDateTime` can tell.
pub(crate) const LATEST: Micros = 253_402_300_799 * 1_000_000;

fn json_unless<T: Serialize>(absent: bool, value: &T) -> Result<Option<String>> {
    if absent {
        return Ok(None);
    }
    serde_json::to_string(value)
        .map(Some)
        .map_err(|source| Error::Json { what: "job options", source })
}

impl NewRow {
    /// A refusal for the job's unique key is an answer and not an error.
    pub(crate) fn report_conflict(&mut self) {
        if let Some(key) = &mut self.unique {
            key.report = true;
        }
    }
}

/// A checked job as the store takes it.
#[derive(Clone, Debug)]
pub(crate) struct NewRow {
    pub(crate) state: State,
    pub(crate) kind: String,
    pub(crate) queue: String,
    pub(crate) priority: i64,
    pub(crate) run_at: Micros,
    pub(crate) enqueued_at: Micros,
    pub(crate) gate: Option<String>,
    pub(crate) expires_at: Option<Micros>,
    pub(crate) args: String,
    pub(crate) options: Option<String>,
    pub(crate) tags: Option<String>,
    pub(crate) meta: Option<String>,
    pub(crate) unique: Option<unique::Key>,
    pub(crate) limits: Option<Limits>,
    /// The flow that it becomes a member of.
    pub(crate) flow: Option<FlowId>,
    /// In rising order.
    pub(crate) parents: Vec<JobId>,
    /// It starts however its parents have finished.
    pub(crate) anyway: bool,
}

impl NewRow {
    /// The gate's name as the file has it: `""` for none.
    pub(crate) fn gate(&self) -> &str {
        self.gate.as_deref().unwrap_or_default()
    }

    /// Makes it a member of a flow: it is itself, so no other job can stand for it.
    pub(crate) fn join(&mut self, flow: FlowId) {
        self.flow = Some(flow);
        if let Some(key) = &mut self.unique {
            key.conflict = Conflict::Reject;
        }
    }

    /// Whether both go into one lane.
    pub(crate) fn is_of_lane(&self, other: &NewRow) -> bool {
        self.kind == other.kind && self.queue == other.queue && self.gate == other.gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(job: NewJob) -> Result<NewRow> {
        job.into_row(1_000, 3_000)
    }

    #[test]
    fn bad_input_is_named() {
        let job = || NewJob::of_kind("k", json!({}));
        for (bad, what) in [
            (NewJob::of_kind("", json!({})), "kind"),
            (job().queue("a\0b"), "queue name"),
            (job().tag("x".repeat(300)), "tag"),
            (job().meta("", "v"), "meta key"),
            (NewJob::of_kind("k", json!("x".repeat(4_000))), "arguments"),
            (NewJob::of_kind_json("k", "{"), "arguments"),
            (job().retry(Retry::custom(|_, _| None)), "retry policy"),
            (job().delay(Duration::MAX), "start time"),
            (job().gate(""), "gate name"),
            (job().limit("k", 0), "limit"),
            (job().expires_after(Duration::from_nanos(1)), "expiry"),
            (NewJob::of_kind_json("k", "[".repeat(1001) + &"]".repeat(1001)), "arguments"),
        ] {
            match row(bad) {
                Err(Error::Invalid { what: named, .. }) => assert_eq!(named, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_set_is_not_stored() {
        let row = row(NewJob::of_kind("k", json!({}))).unwrap();
        assert_eq!((row.options, row.tags, row.meta), (None, None, None));
        assert_eq!(row.state, State::Ready);
    }
}
