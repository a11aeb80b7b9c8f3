//! What a job has instead of its kind's options.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::new_job::{Overrides, Retention};
use crate::rules::seconds;

/// What a job has of its own: [`JobRecord::own`](super::JobRecord::own). What is `None` it takes from its
/// kind as it runs, or, once it has finished, has taken.
///
/// ```
/// # use std::time::Duration;
/// use legwork::{Jobs, NewJob, Retry};
/// # use serde_json::json;
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let jobs = Jobs::open(dir.path().join("app.db"))?;
/// let retry = Retry::exponential(Duration::from_secs(5)).cap(Duration::from_secs(3600));
/// let id = jobs.enqueue(NewJob::of_kind("upload", json!({})).retry(retry).attempts(8))?;
/// let own = jobs.get(id)?.own;
/// assert_eq!(own.attempts, Some(8));
/// assert_eq!(own.retry.as_deref(), Some("exponential from 5s, no delay over 1h"));
/// assert_eq!(own.timeout, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OwnOptions {
    /// How many attempts it gets in all, the first included: its own number, or that of its own retry
    /// policy.
    pub attempts: Option<u32>,
    /// Its retry policy, in words.
    pub retry: Option<String>,
    /// How long an attempt of it may take. In JSON, `timeout_seconds`.
    #[serde(rename = "timeout_seconds", serialize_with = "seconds::if_any::serialize")]
    pub timeout: Option<Duration>,
    /// How long it is kept once it has finished. In JSON, `keep_seconds`: an object with a number for each
    /// of `completed`, `cancelled` and `failed`.
    #[serde(rename = "keep_seconds", serialize_with = "each_in_seconds")]
    pub keep: Option<Retention>,
}

impl From<Overrides> for OwnOptions {
    fn from(own: Overrides) -> OwnOptions {
        let Overrides { retry, attempts, timeout, keep } = own;
        OwnOptions {
            attempts: attempts.or_else(|| retry.as_ref()?.attempts()),
            retry: retry.map(|plan| plan.to_string()),
            timeout,
            keep,
        }
    }
}

fn each_in_seconds<S: Serializer>(keep: &Option<Retention>, to: S) -> Result<S::Ok, S::Error> {
    keep.map(|keep| keep.spans().map(|(state, span)| (state, span.as_secs_f64())))
        .map(std::collections::BTreeMap::from)
        .serialize(to)
}
