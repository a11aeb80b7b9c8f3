//! What jobs that wait are made of, changed: arguments, queue, priority and the rest.
//!
//! What is made of the arguments is made anew with them: the keys of limits, and a unique key of
//! arguments, which can be taken.

use rusqlite::params;

use super::book::Book;
use super::errors::storing;
use super::kinds as known_kinds;
use super::text;
use super::unique::{self, Renamed};
use super::waiting::Waiting;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::kinds;
use crate::new_job::{Edit, Retention};
use crate::rules::unique::{is_of_args, renamed};
use crate::state::State;
use crate::store::Controlled;

pub(super) const READ: &str = "
SELECT lane.queue, lane.kind, lane.gate, job.args, job.options, job.tags, job.meta
  FROM legwork_jobs AS job CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane WHERE job.id = ?1";
pub(super) const REWRITE: &str = "
UPDATE legwork_jobs
   SET lane = ?2, priority = ?3, args = coalesce(?4, args), options = ?5, tags = ?6, meta = ?7,
       unique_key = ?8, limits = coalesce(?9, limits)
 WHERE id = ?1 AND instance IS NULL";

struct Contents {
    queue: String,
    kind: String,
    gate: String,
    args: String,
    options: Option<String>,
    tags: Option<String>,
    meta: Option<String>,
}

impl Book {
    /// Changes a job that waits. One that cannot be what the edit makes of it stays as it is.
    pub(super) fn edit(
        &mut self,
        id: JobId,
        edit: &Edit,
        now: Micros,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        let Some(mut job) = self.waiting(id, now, keep, done)? else { return Ok(()) };
        let had = self.contents(id)?;
        let key = match self.made_anew(&mut job, &had, edit) {
            Ok(key) => key,
            Err(error @ (Error::Invalid { .. } | Error::Json { .. })) => {
                done.refused.push((id, error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let Some(to) = self.with_key(&mut job, key, now, done)? else { return Ok(()) };
        let before = (job.lane, job.priority);
        let queue = edit.queue.as_deref().unwrap_or(&had.queue);
        job.lane = self.lane(queue, &had.kind, edit.gate_of(&had.gate))?;
        job.priority = edit.priority.unwrap_or(job.priority);
        let moves = before != (job.lane, job.priority) || edit.new_args().is_some();
        self.rewrite(&job, had, edit)?;
        if moves {
            self.stand(&job, to, now)?;
        }
        done.changed.push(id);
        Ok(())
    }

    fn contents(&self, id: JobId) -> Result<Contents> {
        self.conn
            .prepare_cached(READ)
            .and_then(|mut ask| {
                ask.query_row([id.0], |row| {
                    Ok(Contents {
                        queue: row.get(0)?,
                        kind: row.get(1)?,
                        gate: row.get(2)?,
                        args: text::json(row, 3)?,
                        options: text::shown(row, 4)?,
                        tags: text::shown(row, 5)?,
                        meta: text::shown(row, 6)?,
                    })
                })
            })
            .map_err(storing)
    }

    /// Makes the keys of the job's limits of its new arguments; its unique key, if that is another one
    /// now.
    fn made_anew(&self, job: &mut Waiting, had: &Contents, edit: &Edit) -> Result<Option<String>> {
        let Some(args) = edit.new_args() else { return Ok(None) };
        if let Some(limits) = job.limits.as_ref().filter(|limits| !limits.is_unresolved()) {
            job.limits = limits.remade(args)?;
        }
        let Some(held) = job.unique.as_ref().filter(|held| is_of_args(&held.key, &had.kind)) else {
            return Ok(None);
        };
        let kind = known_kinds::one(&self.conn, &had.kind)?;
        let rule = kind.and_then(|options| kinds::from_json(&options).ok()?.unique);
        let key = renamed(&held.key, &had.kind, &had.args, args, rule.as_ref())?;
        Ok((key != held.key).then_some(key))
    }

    /// Gives the job its new key, if it has another one now; how it stands then. `None`: another job has
    /// that key.
    fn with_key(
        &mut self,
        job: &mut Waiting,
        key: Option<String>,
        now: Micros,
        done: &mut Controlled,
    ) -> Result<Option<State>> {
        let (Some(held), Some(key)) = (&mut job.unique, key) else { return Ok(Some(job.stands())) };
        match unique::rename(&self.conn, job.id, held, &key, job.never_started, now)? {
            Err(holder) => {
                done.not_unique.push((key, holder));
                Ok(None)
            }
            Ok(Renamed { another_runs, until }) => {
                held.key = key;
                if let Some(until) = until {
                    self.prune_at(until);
                }
                Ok(Some(job.stands_beside(another_runs, now)))
            }
        }
    }

    fn rewrite(&self, job: &Waiting, had: Contents, edit: &Edit) -> Result<()> {
        let args = edit.new_args();
        let limits = args.and(job.limits.as_ref()).map(super::limits::to_json);
        self.conn
            .prepare_cached(REWRITE)
            .and_then(|mut rewrite| {
                rewrite.execute(params![
                    job.id,
                    job.lane,
                    job.priority,
                    args,
                    edit.options_of(had.options),
                    edit.tags_of(had.tags),
                    edit.meta_of(had.meta),
                    job.unique.as_ref().map(|held| &held.key),
                    limits,
                ])
            })
            .map(drop)
            .map_err(storing)
    }
}

impl Waiting {
    /// How it stands with another key, beside one that runs with that or not.
    fn stands_beside(&self, another_runs: bool, now: Micros) -> State {
        match self.stands() {
            // Its start finds the other one.
            State::Ready if another_runs && !self.suspect => State::Blocked,
            State::Blocked if another_runs || self.has_parents => State::Blocked,
            State::Blocked if self.run_at > now => State::Scheduled,
            State::Blocked => State::Ready,
            state => state,
        }
    }
}
