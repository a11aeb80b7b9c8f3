//! New jobs made after others.

use rusqlite::{OptionalExtension, Row, params};

use super::book::Book;
use super::demand::Demand;
use super::errors::storing;
use super::unique::Held;
use super::{limits, text};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::{NewRow, with_meta};
use crate::rules::unique::{Hold, Key};
use crate::state::State;
use crate::store::{ClonedJob, Controlled};
use crate::unique::{Conflict, Enqueued};

/// A job that has not finished, then one that has.
pub(super) const READ: [&str; 2] = [
    "SELECT lane.kind, lane.queue, lane.gate, job.priority, job.args, job.options, job.tags, job.meta,
            job.limits, job.unique_key, job.unique_hold
       FROM legwork_jobs AS job CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane
      WHERE job.id = ?1",
    "SELECT lane.kind, lane.queue, lane.gate, job.priority, job.args, job.options, job.tags, job.meta,
            job.limits, job.unique_key, job.unique_hold
       FROM legwork_history AS job CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane
      WHERE job.id = ?1",
];

/// The job that is to be enqueued, its key refused if another one has it.
fn copy(row: &Row<'_>, of: JobId, now: Micros) -> rusqlite::Result<NewRow> {
    let gate: String = row.get(2)?;
    let held = Held::from_columns(text::shown(row, 9)?, row.get(10)?);
    Ok(NewRow {
        state: State::Ready,
        kind: row.get(0)?,
        queue: row.get(1)?,
        priority: row.get(3)?,
        run_at: now,
        enqueued_at: now,
        gate: Some(gate).filter(|gate| !gate.is_empty()),
        expires_at: None,
        args: text::json(row, 4)?,
        options: text::shown(row, 5)?,
        tags: text::shown(row, 6)?,
        meta: Some(with_meta(text::shown(row, 7)?.as_deref(), "cloned_from", of.to_string())),
        unique: held.map(|Held { key, hold }| Key {
            name: key,
            hold,
            // As in a retry: it stops for another one's period, and takes none of its own.
            until: (hold == Hold::Period).then_some(now),
            conflict: Conflict::Reject,
            report: true,
        }),
        limits: limits::read(text::shown(row, 8)?.as_deref()),
        flow: None,
        parents: Vec::new(),
        anyway: false,
    })
}

impl Book {
    /// Enqueues a new job like this one.
    pub(super) fn clone_job(
        &mut self,
        id: JobId,
        now: Micros,
        done: &mut Controlled,
    ) -> Result<()> {
        let Some(mut row) = self.to_clone(id, now)? else {
            done.skipped.push((id, None));
            return Ok(());
        };
        if let Some(limits) = row.limits.take() {
            // Those of a job that came by SQL and has not started.
            match limits.resolved(&row.args) {
                Ok(limits) => row.limits = limits,
                Err(error @ (Error::Invalid { .. } | Error::Json { .. })) => {
                    done.refused.push((id, error));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let rows = std::slice::from_ref(&row);
        match self.insert(rows, &mut Demand::default())?.pop() {
            Some(Enqueued::New(new)) => {
                let NewRow { kind, queue, .. } = row;
                done.cloned.push(ClonedJob { id: new, kind, queue });
                done.changed.push(id);
            }
            Some(taken) => {
                let key = row.unique.map(|key| key.name).unwrap_or_default();
                done.not_unique.push((key, taken.id()));
            }
            None => done.skipped.push((id, None)),
        }
        Ok(())
    }

    fn to_clone(&self, id: JobId, now: Micros) -> Result<Option<NewRow>> {
        for sql in READ {
            let found = self
                .conn
                .prepare_cached(sql)
                .and_then(|mut ask| {
                    ask.query_row(params![id.0], |row| copy(row, id, now)).optional()
                })
                .map_err(storing)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
