//! What is to change of jobs that wait.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::checked;
use super::row::{check_args, check_meta, check_tags};
use crate::error::{Error, Result};
use crate::rules::name;
use crate::rules::retry::{Plan, Retry};

/// What [`Jobs::edit`](crate::Jobs::edit) changes of jobs that wait. What is not set stays as it is.
///
/// ```
/// use legwork::Edit;
/// let edit = Edit::new()
///     .args(serde_json::json!({ "user_id": 7 }))
///     .queue("mail")
///     .priority(-1)
///     .tag("corrected");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Edit {
    pub(crate) queue: Option<String>,
    pub(crate) priority: Option<i64>,
    args: Option<Result<String, String>>,
    /// All tags that a job had go.
    untagged: bool,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    gate: Option<String>,
    /// It loses its gate.
    gateless: bool,
    timeout: Option<Duration>,
    retry: Option<Result<Plan, &'static str>>,
    attempts: Option<u32>,
}

impl Edit {
    /// Changes nothing so far; an edit that changes nothing is refused.
    pub fn new() -> Edit {
        Edit::default()
    }

    /// Other arguments: the job itself, or its JSON. All of them, not those that differ.
    pub fn args(mut self, args: impl Serialize) -> Edit {
        self.args = Some(serde_json::to_string(&args).map_err(|error| error.to_string()));
        self
    }

    /// The same, as JSON text.
    pub fn args_json(mut self, args: impl Into<String>) -> Edit {
        self.args = Some(checked(args.into()));
        self
    }

    /// Another queue, a name of 1 to 255 bytes without control characters.
    pub fn queue(mut self, queue: impl Into<String>) -> Edit {
        self.queue = Some(queue.into());
        self
    }

    /// Another priority; lower numbers run first.
    pub fn priority(mut self, priority: i64) -> Edit {
        self.priority = Some(priority);
        self
    }

    /// A tag more.
    pub fn tag(mut self, tag: impl Into<String>) -> Edit {
        self.tags.push(tag.into());
        self
    }

    /// These tags in place of all that it had.
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Edit {
        self.untagged = true;
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// A key and value of its meta, instead of that key's value.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Edit {
        self.meta.insert(key.into(), value.into());
        self
    }

    /// The gate that must be open for it to start.
    pub fn gate(mut self, name: impl Into<String>) -> Edit {
        self.gate = Some(name.into());
        self.gateless = false;
        self
    }

    /// No gate.
    pub fn without_gate(mut self) -> Edit {
        self.gate = None;
        self.gateless = true;
        self
    }

    /// A time-out of its own.
    pub fn timeout(mut self, timeout: Duration) -> Edit {
        self.timeout = Some(timeout);
        self
    }

    /// A retry policy of its own, for the attempts to come, with its number of attempts. As with
    /// [`NewJob::retry`](crate::NewJob::retry) it cannot have functions.
    pub fn retry(mut self, retry: Retry) -> Edit {
        self.retry = Some(retry.plan());
        self
    }

    /// How many attempts there are in all, as with [`NewJob::attempts`](crate::NewJob::attempts). Those that
    /// are used up count: a job that has had as many runs once more, and is not retried.
    pub fn attempts(mut self, attempts: u32) -> Edit {
        self.attempts = Some(attempts.max(1));
        self
    }

    /// Refuses what no job could be enqueued with.
    pub(crate) fn check(&self, max_args: usize) -> Result<()> {
        let texts = self.tags.is_empty() && !self.untagged && self.meta.is_empty();
        let options = self.keeps_options();
        let place = self.queue.is_none() && self.priority.is_none();
        let gate = self.gate.is_none() && !self.gateless;
        if texts && options && place && gate && self.args.is_none() {
            return Err(Error::invalid("edit", "it changes nothing"));
        }
        if let Some(queue) = &self.queue {
            name::check("queue name", queue)?;
        }
        if let Some(gate) = &self.gate {
            name::check("gate name", gate)?;
        }
        check_tags(&self.tags)?;
        check_meta(&self.meta)?;
        if let Some(Err(why)) = &self.retry {
            return Err(Error::invalid("retry policy", *why));
        }
        match &self.args {
            Some(Ok(args)) => check_args(args, max_args),
            Some(Err(why)) => Err(Error::invalid("arguments", why)),
            None => Ok(()),
        }
    }

    /// The new arguments, once they are checked.
    pub(crate) fn new_args(&self) -> Option<&str> {
        self.args.as_ref()?.as_deref().ok()
    }

    /// The gate of a job that had this one, `""` for none.
    pub(crate) fn gate_of<'a>(&'a self, had: &'a str) -> &'a str {
        let kept = if self.gateless { "" } else { had };
        self.gate.as_deref().unwrap_or(kept)
    }

    /// The tags of a job that had these, as the file has them.
    pub(crate) fn tags_of(&self, had: Option<String>) -> Option<String> {
        if self.tags.is_empty() && !self.untagged {
            return had;
        }
        let had = had.filter(|_| !self.untagged);
        // What another hand has broken is no tag.
        let mut tags: Vec<String> = read(had.as_deref());
        tags.extend(self.tags.iter().cloned());
        tags.sort_unstable();
        tags.dedup();
        (!tags.is_empty()).then(|| to_json(&tags))
    }

    /// The meta of a job that had this.
    pub(crate) fn meta_of(&self, had: Option<String>) -> Option<String> {
        if self.meta.is_empty() {
            return had;
        }
        let mut meta: BTreeMap<String, String> = read(had.as_deref());
        meta.extend(self.meta.clone());
        Some(to_json(&meta))
    }

    fn keeps_options(&self) -> bool {
        self.timeout.is_none() && self.retry.is_none() && self.attempts.is_none()
    }

    /// The options of its own of a job that had these; those that another version has written stay.
    pub(crate) fn options_of(&self, had: Option<String>) -> Option<String> {
        if self.keeps_options() {
            return had;
        }
        let mut options: Map<String, Value> = read(had.as_deref());
        if let Some(timeout) = self.timeout {
            options.insert("timeout".to_owned(), value(&timeout));
        }
        if let Some(Ok(plan)) = &self.retry {
            options.insert("retry".to_owned(), value(plan));
            // The new policy has its own.
            options.remove("attempts");
        }
        if let Some(attempts) = self.attempts {
            options.insert("attempts".to_owned(), value(&attempts));
        }
        Some(to_json(&options))
    }
}

/// With one more entry: for the meta of a job as the file has it.
pub(crate) fn with_meta(had: Option<&str>, key: &str, value: String) -> String {
    let mut meta: BTreeMap<String, String> = read(had);
    meta.insert(key.to_owned(), value);
    to_json(&meta)
}

fn read<T: serde::de::DeserializeOwned + Default>(json: Option<&str>) -> T {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn to_json(plain: &impl Serialize) -> String {
    serde_json::to_string(plain).expect("texts and numbers are JSON")
}

fn value(plain: &impl Serialize) -> Value {
    serde_json::to_value(plain).expect("texts and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;

    #[test]
    fn bad_input_is_named() {
        for (bad, what) in [
            (Edit::new(), "edit"),
            (Edit::new().queue(""), "queue name"),
            (Edit::new().gate(""), "gate name"),
            (Edit::new().tag("a\nb"), "tag"),
            (Edit::new().meta("", "v"), "meta key"),
            (Edit::new().args_json("{"), "arguments"),
            (Edit::new().args("x".repeat(4_000)), "arguments"),
            (Edit::new().args_json("[".repeat(1001) + &"]".repeat(1001)), "arguments"),
            (Edit::new().retry(Retry::custom(|_, _| None)), "retry policy"),
        ] {
            match bad.check(3_000) {
                Err(Error::Invalid { what: named, .. }) => assert_eq!(named, what),
                other => panic!("{what}: {other:?}"),
            }
        }
        Edit::new().tags([""; 0]).check(0).unwrap();
        Edit::new().without_gate().check(0).unwrap();
    }

    #[test]
    fn tags_are_added_or_replaced_and_meta_is_set_key_by_key() {
        let had = || Some(r#"["a","b"]"#.to_owned());
        assert_eq!(Edit::new().tag("b").tag("c").tags_of(had()).unwrap(), r#"["a","b","c"]"#);
        assert_eq!(Edit::new().tags(["z"]).tag("y").tags_of(had()).unwrap(), r#"["y","z"]"#);
        assert_eq!(Edit::new().tags([""; 0]).tags_of(had()), None);
        assert_eq!(Edit::new().priority(1).tags_of(had()), had());
        let meta = Edit::new().meta("k", "2").meta_of(Some(r#"{"a":"1","k":"1"}"#.to_owned()));
        assert_eq!(meta.unwrap(), r#"{"a":"1","k":"2"}"#);
        assert_eq!(with_meta(None, "k", "3".to_owned()), r#"{"k":"3"}"#);
    }

    #[test]
    fn options_of_its_own_are_read_again_and_the_others_stay() {
        let edit = Edit::new()
            .timeout(Duration::from_secs(3))
            .retry(Retry::fixed(Duration::from_secs(1)).attempts(2));
        let had = r#"{"keep":{"completed":{"secs":1,"nanos":0},"cancelled":{"secs":1,"nanos":0},"failed":{"secs":1,"nanos":0}},"new":1}"#;
        let options = edit.options_of(Some(had.to_owned())).unwrap();
        let read: Overrides = serde_json::from_str(&options).unwrap();
        assert_eq!(read.timeout, Some(Duration::from_secs(3)));
        assert!(read.retry.is_some() && read.keep.is_some());
        assert!(options.contains(r#""new":1"#));
        let more = Edit::new().attempts(7).options_of(Some(options)).unwrap();
        let read: Overrides = serde_json::from_str(&more).unwrap();
        assert!(read.retry.is_some() && read.attempts == Some(7));
        // A new policy comes with a number of its own.
        let renewed = Edit::new().retry(Retry::none()).options_of(Some(more)).unwrap();
        let read: Overrides = serde_json::from_str(&renewed).unwrap();
        assert!(read.attempts.is_none());
    }
}
