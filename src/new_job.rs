//! A job about to be enqueued, and the options that a kind or a call gives it.

mod edit;
mod options;
mod row;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::flow::AfterFailure;
use crate::id::JobId;
use crate::limit::{Limit, Limits, OnBusy};
use crate::rules::retry::{Plan, Retry};
use crate::unique::Unique;

pub use self::edit::Edit;
pub(crate) use self::edit::with_meta;
pub use self::options::{JobOptions, Overdue, Retention};
pub(crate) use self::row::{LATEST, NewRow, check_args, check_meta, check_start, check_tags};

/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";

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
    /// Instead of the number of its own policy or of its kind's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<Retention>,
}

/// Arguments that come as text, if they are JSON.
fn checked(args: String) -> Result<String, String> {
    match serde_json::from_str::<serde::de::IgnoredAny>(&args) {
        Ok(_) => Ok(args),
        Err(error) => Err(format!("they are not JSON: {error}")),
    }
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
        NewJob::from_parts(kind.into(), checked(args), JobOptions::default())
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

    /// How many attempts there are in all, the first included, instead of the number that its kind's retry
    /// policy (or [its own](NewJob::retry)) says; 0 counts as 1. The policy's delays stay, and its rules for
    /// error types keep their own number if that is smaller.
    ///
    /// ```
    /// # use legwork::NewJob;
    /// let upload = NewJob::of_kind("upload", serde_json::json!({ "file": 4 })).attempts(3);
    /// ```
    pub fn attempts(mut self, attempts: u32) -> NewJob {
        self.overrides.attempts = Some(attempts.max(1));
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
}
