//! A job as the store takes it: checked, with its times fixed and its keys made.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{NewJob, Overrides, Start};
use crate::clock::{Micros, micros_of, to_micros};
use crate::error::{Error, Result};
use crate::flow::AfterFailure;
use crate::id::{FlowId, JobId};
use crate::limit::Limits;
use crate::rules::{name, unique};
use crate::state::State;
use crate::unique::{Conflict, Unique};

impl NewJob {
    /// Checks every rule and fixes the times.
    pub(crate) fn into_row(self, now: Micros, max_args: usize) -> Result<NewRow> {
        name::check("kind", &self.kind)?;
        name::check("queue name", &self.queue)?;
        if let Some(gate) = &self.gate {
            name::check("gate name", gate)?;
        }
        check_tags(&self.tags)?;
        check_meta(&self.meta)?;
        if let Some(why) = self.bad_retry {
            return Err(Error::invalid("retry policy", why));
        }
        let args = self.args.map_err(|why| Error::invalid("arguments", why))?;
        check_args(&args, max_args)?;
        let run_at = match self.start {
            Start::After(delay) => now.saturating_add(micros_of(delay)),
            Start::At(at) => to_micros(at),
        };
        check_start(run_at)?;
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

pub(crate) fn check_tags(tags: &[String]) -> Result<()> {
    tags.iter().try_for_each(|tag| name::check("tag", tag))
}

pub(crate) fn check_meta(meta: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in meta {
        name::check("meta key", key)?;
        if value.len() > 4096 {
            return Err(Error::invalid("meta value", "it is longer than 4096 bytes"));
        }
    }
    Ok(())
}

/// Refuses arguments that the file would not take.
pub(crate) fn check_args(args: &str, max_args: usize) -> Result<()> {
    if args.len() > max_args {
        let why = format!("they have {} bytes of JSON, at most {max_args} are allowed", args.len());
        return Err(Error::invalid("arguments", why));
    }
    if is_deep(args) {
        let why =
            format!("they are nested deeper than {DEEPEST} levels, which SQLite does not read");
        return Err(Error::invalid("arguments", why));
    }
    Ok(())
}

pub(crate) fn check_start(run_at: Micros) -> Result<()> {
    if run_at > LATEST {
        return Err(Error::invalid("start time", "it lies after the year 9999"));
    }
    Ok(())
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
    use std::time::Duration;

    use super::*;
    use crate::rules::retry::Retry;
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
