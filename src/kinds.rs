//! What the file keeps of the kinds that engines know: the options that are taken at the enqueue.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Micros, micros_of};
use crate::error::{Error, Result};
use crate::limit::{Limit, OnBusy};
use crate::new_job::{JobOptions, Retention};
use crate::rules::name;
use crate::unique::Unique;

/// Kinds with their options as JSON, as `legwork_kinds` has them.
pub(crate) type KindOptions = BTreeMap<String, String>;

/// The options as JSON; what the kind leaves open is left out. The trigger of `legwork_enqueue` reads
/// the same names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Recorded {
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    priority: i64,
    /// In microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    delay: Micros,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<Retention>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<String>,
    /// In microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_after: Option<Micros>,
    /// Not for the trigger, which cannot make keys of arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<Unique>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<Limit>,
    #[serde(skip_serializing_if = "waits")]
    on_busy: OnBusy,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn waits(on_busy: &OnBusy) -> bool {
    *on_busy == OnBusy::Wait
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A kind's options as they are recorded.
///
/// # Errors
/// [`Error::Invalid`] for a queue or tag with which no job could be enqueued.
pub(crate) fn to_json(options: &JobOptions) -> Result<String> {
    if let Some(queue) = &options.queue {
        name::check("queue name", queue)?;
    }
    if let Some(gate) = &options.gate {
        name::check("gate", gate)?;
    }
    options.tags.iter().try_for_each(|tag| name::check("tag", tag))?;
    options.limits.iter().try_for_each(Limit::check)?;
    if options.expires_after.is_some_and(|within| micros_of(within) == 0) {
        return Err(Error::invalid("expiry", "it must be longer than zero"));
    }
    let recorded = Recorded {
        queue: options.queue.clone(),
        priority: options.priority,
        delay: micros_of(options.delay),
        tags: options.tags.clone(),
        keep: options.retention,
        gate: options.gate.clone(),
        expires_after: options.expires_after.map(micros_of),
        unique: options.unique.clone(),
        limits: options.limits.clone(),
        on_busy: options.on_busy,
    };
    serde_json::to_string(&recorded).map_err(|source| Error::Json { what: "job options", source })
}

/// The options that were recorded; those that are taken when a job runs are left at their defaults.
pub(crate) fn from_json(json: &str) -> Result<JobOptions> {
    let recorded: Recorded = serde_json::from_str(json)
        .map_err(|source| Error::Json { what: "recorded kind", source })?;
    let delay = Duration::from_micros(u64::try_from(recorded.delay).unwrap_or(0));
    let mut options = JobOptions::new().priority(recorded.priority).delay(delay);
    options.queue = recorded.queue;
    options.tags = recorded.tags;
    options.retention = recorded.keep;
    options.gate = recorded.gate;
    options.expires_after = recorded
        .expires_after
        .map(|within| Duration::from_micros(u64::try_from(within).unwrap_or(0)));
    options.unique = recorded.unique;
    options.limits = recorded.limits;
    options.on_busy = recorded.on_busy;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_comes_back_and_defaults_take_no_room() {
        assert_eq!(to_json(&JobOptions::new()).unwrap(), "{}");
        let options = JobOptions::new()
            .queue("mail")
            .priority(-2)
            .delay(Duration::from_millis(1500))
            .tag("a")
            .retention(Retention::all(Duration::from_secs(9)))
            .gate("online")
            .expires_after(Duration::from_secs(5))
            .unique(Unique::by_args().until_started())
            .limit(Limit::at_once("account", 2).by(["id"]))
            .on_busy(OnBusy::Discard);
        let json = to_json(&options).unwrap();
        let back = from_json(&json).unwrap();
        assert_eq!(to_json(&back).unwrap(), json);
        assert_eq!((back.queue.as_deref(), back.delay), (Some("mail"), options.delay));
        assert!(to_json(&JobOptions::new().queue("")).is_err());
        // A newer legwork may record more.
        assert_eq!(from_json(r#"{"priority": 4, "new": [1]}"#).unwrap().priority, 4);
    }
}
