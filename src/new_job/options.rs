//! What a kind says of its jobs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::NewJob;
use crate::limit::{Limit, Limits, OnBusy};
use crate::rules::retry::Retry;
use crate::state::State;
use crate::unique::Unique;

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

    /// By the state that it is for.
    pub(crate) fn spans(&self) -> [(State, Duration); 3] {
        let states = [State::Completed, State::Cancelled, State::Failed];
        states.map(|state| (state, self.of(state)))
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
