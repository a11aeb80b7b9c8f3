//! A job as a line of an export: all that is needed to make it anew in another file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::clock::{Micros, from_micros, to_micros};
use crate::error::{Error, Result};
use crate::id::{FlowId, JobId};
use crate::limit::Limits;
use crate::new_job::{NewRow, Overrides, check_args, check_meta, check_start, check_tags};
use crate::rules::name;
use crate::rules::unique::{Hold, Key, is_made_of_args};
use crate::state::State;
use crate::unique::Conflict;

/// A job, read by [`Jobs::export`](crate::Jobs::export) to be enqueued elsewhere by
/// [`Jobs::import`](crate::Jobs::import). As JSON it is a line of `legwork export`.
///
/// It does not hold: the errors of earlier attempts, log lines, stored steps and cursors, progress, and
/// how many processes have died of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportedJob {
    /// Its id in the file that it comes from.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Where it stood.
    pub state: State,
    /// Its priority.
    pub priority: i64,
    /// When it was enqueued.
    #[serde(with = "time::serde::rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// When it may run, or was to run.
    #[serde(with = "time::serde::rfc3339")]
    pub run_at: OffsetDateTime,
    /// How many attempts have been used up.
    pub attempts: u32,
    /// When its first attempt started, once one has failed.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub first_started_at: Option<OffsetDateTime>,
    /// When its last attempt started, if it is finished.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub started_at: Option<OffsetDateTime>,
    /// When it finished.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub finished_at: Option<OffsetDateTime>,
    /// When its retention ends, if it is finished and no member of a flow.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub prune_at: Option<OffsetDateTime>,
    /// Its arguments: the text of their JSON, as it was given.
    pub args: String,
    /// Its own retry policy, time-out and retention, as the file has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its free keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Its unique key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<ExportedKey>,
    /// Its limits, as the file has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Value>,
    /// The gate that must be open for it to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// When it ends unless it has started.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
    /// The parents for which it still waits, by their ids in the file that it comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// It may start however these have finished.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anyway: bool,
    /// Others wait for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_parent: bool,
    /// The flow whose member it was. It is made anew without: flows are not exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowId>,
    /// What it has put out, as the text of its JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Why it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A job is tried again no sooner than a moment later: nobody has seen as many.
const MOST_ATTEMPTS: u32 = u32::MAX / 2;

/// A unique key and until when it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportedKey {
    /// The key.
    pub key: String,
    /// `1`: until a start, `2`: until the end, `3`: for a period, `4`: one runs, one waits.
    pub hold: i64,
    /// The end of a period.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<OffsetDateTime>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(is: &bool) -> bool {
    !is
}

/// What an import has made of some jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Jobs that were enqueued.
    pub enqueued: u64,
    /// Finished jobs that were added to the history.
    pub finished: u64,
    /// Finished jobs that were left out.
    pub left_out: u64,
    /// Jobs that were left out since another one has their unique key.
    pub not_unique: u64,
}

/// How far an export has been imported into a file: see [`Jobs::imported_lines`](crate::Jobs::imported_lines).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportedLines {
    /// Up to this line the jobs that were not finished are imported.
    pub waiting: u64,
    /// Up to this line the finished ones are in the history.
    pub finished: u64,
}

impl ImportedLines {
    /// The same, up to this line; with the finished ones or without.
    pub(crate) fn up_to(self, line: u64, history: bool) -> ImportedLines {
        ImportedLines {
            waiting: self.waiting.max(line),
            finished: if history { line } else { self.finished },
        }
    }
}

/// A checked job on its way into the store.
#[derive(Clone, Debug)]
pub(crate) struct ImportRow {
    pub(crate) old: JobId,
    pub(crate) row: NewRow,
    /// Parents by their old ids, which come into being with it.
    pub(crate) after: Vec<JobId>,
    /// Others wait for it.
    pub(crate) is_parent: bool,
    pub(crate) enqueued_at: Micros,
    pub(crate) attempts: u32,
    pub(crate) first_started_at: Option<Micros>,
    /// If it is finished.
    pub(crate) end: Option<ImportEnd>,
}

/// How an imported job has ended.
#[derive(Clone, Debug)]
pub(crate) struct ImportEnd {
    pub(crate) state: State,
    pub(crate) started_at: Option<Micros>,
    pub(crate) finished_at: Micros,
    /// `None`: by its retention, from now on.
    pub(crate) prune_at: Option<Micros>,
    pub(crate) output: Option<String>,
    pub(crate) reason: Option<String>,
}

impl ExportedJob {
    /// Checks it as a new job is checked.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Json`] for what the store would not take.
    pub(crate) fn into_row(self, now: Micros, max_args: usize) -> Result<ImportRow> {
        self.check(max_args)?;
        let run_at = to_micros(self.run_at);
        let end = match self.finished_at {
            Some(at) if self.state.is_finished() => Some(ImportEnd {
                state: self.state,
                started_at: self.started_at.map(to_micros),
                finished_at: to_micros(at),
                prune_at: self.prune_at.map(to_micros),
                output: self.output,
                reason: self.reason,
            }),
            None if self.state.is_finished() => {
                return Err(Error::invalid("job", "it is finished and does not say when"));
            }
            _ => None,
        };
        let state = match self.state {
            _ if run_at <= now => State::Ready,
            State::Retrying => State::Retrying,
            _ => State::Scheduled,
        };
        let limits = self.limits.map(from_json::<Limits>).transpose()?;
        // They are checked as a new job's are.
        let limits = limits.map(|limits| limits.resolved(&self.args)).transpose()?.flatten();
        let options = self.options.map(from_json::<Overrides>).transpose()?;
        let unique = self.unique.map(|key| key.into_key(&self.kind)).transpose()?;
        let row = NewRow {
            state,
            kind: self.kind,
            queue: self.queue,
            priority: self.priority,
            run_at,
            enqueued_at: now,
            gate: self.gate,
            expires_at: self.expires_at.map(to_micros),
            args: self.args,
            options: options.map(|options| to_json(&options)).transpose()?,
            tags: (!self.tags.is_empty()).then(|| to_json(&self.tags)).transpose()?,
            meta: (!self.meta.is_empty()).then(|| to_json(&self.meta)).transpose()?,
            unique,
            limits,
            flow: None,
            parents: Vec::new(),
            anyway: self.anyway,
        };
        Ok(ImportRow {
            old: self.id,
            row,
            after: self.after,
            is_parent: self.is_parent,
            enqueued_at: to_micros(self.enqueued_at),
            attempts: self.attempts,
            first_started_at: self.first_started_at.map(to_micros),
            end,
        })
    }

    fn check(&self, max_args: usize) -> Result<()> {
        name::check("kind", &self.kind)?;
        name::check("queue name", &self.queue)?;
        if let Some(gate) = &self.gate {
            name::check("gate name", gate)?;
        }
        check_tags(&self.tags)?;
        check_meta(&self.meta)?;
        check_args(&self.args, max_args)?;
        for (what, json) in [("arguments", Some(&self.args)), ("output", self.output.as_ref())] {
            if let Some(json) = json {
                serde_json::from_str::<serde::de::IgnoredAny>(json)
                    .map_err(|source| Error::Json { what, source })?;
            }
        }
        // It is counted on from there.
        if self.attempts > MOST_ATTEMPTS {
            return Err(Error::invalid("job", "it has used more attempts than can be counted"));
        }
        check_start(to_micros(self.run_at))
    }
}

impl ExportedKey {
    pub(crate) fn new(key: String, hold: i64, until: Option<Micros>) -> ExportedKey {
        ExportedKey { key, hold, until: until.map(from_micros) }
    }

    /// One that is taken leaves the job out, and nothing else.
    fn into_key(self, kind: &str) -> Result<Key> {
        // One that was made of arguments has the kind's name in it, and is longer.
        if !is_made_of_args(&self.key, kind) {
            name::check("unique key", &self.key)?;
        }
        let hold = Hold::from_code(self.hold)
            .ok_or_else(|| Error::invalid("unique key", "there is no such hold"))?;
        if (hold == Hold::Period) != self.until.is_some() {
            return Err(Error::invalid("unique key", "a period has an end, and nothing else has"));
        }
        let until = self.until.map(to_micros);
        Ok(Key { name: self.key, hold, until, conflict: Conflict::Reject, report: true })
    }
}

fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|source| Error::Json { what: "job", source })
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::Json { what: "job", source })
}
