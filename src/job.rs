//! What a job is: a struct that is its own arguments, with a kind and a way to perform it.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::failure::Failure;
use crate::new_job::{JobOptions, NewJob};

/// A unit of work: a struct that is its own arguments, stored as JSON.
///
/// Pass ids, not objects: what the id stands for may change between enqueue and run. A job may run
/// a second time if its process dies in the middle, so it should be safe to repeat; effects in the
/// database can be made to happen exactly once with [`Context::finish_in`].
///
/// ```
/// use legwork::{Context, Job, JobOptions, JobResult, Outcome, Retry};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct WelcomeEmail { user_id: i64 }
///
/// struct App { /* connections, settings, ... */ }
///
/// impl Job for WelcomeEmail {
///     const KIND: &'static str = "welcome_email";
///     type State = App;
///     fn options() -> JobOptions {
///         JobOptions::new().queue("mail").timeout(Duration::from_secs(30))
///             .retry(Retry::exponential(Duration::from_secs(300)).attempts(3))
///     }
///     fn perform(&self, cx: &Context<App>) -> JobResult {
///         let _app: &App = cx.state();
///         cx.log(format!("mail to user {}", self.user_id));
///         Ok(Outcome::Done)
///     }
/// }
/// ```
pub trait Job: Serialize + DeserializeOwned + 'static {
    /// The name under which jobs of this type are stored: 1 to 255 bytes without control
    /// characters, and the same for as long as such jobs wait.
    const KIND: &'static str;

    /// Former kinds whose jobs this type still runs. Unique keys that are made of arguments have the kind
    /// in them: a job that waits under a former kind does not count against a new one.
    const ALIASES: &'static [&'static str] = &[];

    /// What the app hands to its jobs: [`EngineBuilder::state`](crate::EngineBuilder::state). `()`
    /// for jobs that need nothing.
    type State: Send + Sync + 'static;

    /// Queue, priority, retry and the rest for jobs of this kind.
    fn options() -> JobOptions {
        JobOptions::new()
    }

    /// Does the work. An error is retried by the kind's policy, a panic too; `.fatal()?` fails
    /// for good.
    ///
    /// # Errors
    /// Any error makes the attempt a failed one.
    fn perform(&self, cx: &Context<Self::State>) -> JobResult;

    /// Called once when a job of this kind has given up, before that is recorded; after a crash
    /// in between it may be called again. A panic in it is logged and changes nothing.
    fn gave_up(&self, cx: &Context<Self::State>, failure: &Failure) {
        let _ = (cx, failure);
    }
}

/// What [`Job::perform`] returns.
pub type JobResult = Result<Outcome, Failure>;

/// What should happen next to a job whose attempt did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The job is completed.
    Done,
    /// Run it again after this long; uses up no attempt.
    Snooze(Duration),
    /// Nothing to do any more: the job ends as `cancelled` with this reason.
    Cancel(String),
}

impl Outcome {
    /// Run the job again after `delay`, without using up an attempt.
    pub fn snooze(delay: Duration) -> Outcome {
        Outcome::Snooze(delay)
    }

    /// End the job as `cancelled`.
    pub fn cancel(reason: impl Into<String>) -> Outcome {
        Outcome::Cancel(reason.into())
    }
}

impl NewJob {
    /// A job with its kind's options.
    pub fn new<J: Job>(job: J) -> NewJob {
        let args = serde_json::to_string(&job).map_err(|error| error.to_string());
        NewJob::from_parts(J::KIND.to_owned(), args, J::options())
    }
}

impl<J: Job> From<J> for NewJob {
    fn from(job: J) -> NewJob {
        NewJob::new(job)
    }
}
