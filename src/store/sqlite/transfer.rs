//! Jobs on their way into another file: read with all that makes them, and made anew.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::de::DeserializeOwned;

use super::book::Book;
use super::demand::Demand;
use super::ends::keep_of;
use super::errors::storing;
use super::query::Conditions;
use super::{Store, edges, text};
use crate::clock::{Micros, from_micros, micros_of};
use crate::error::{Error, Result};
use crate::exported::{ExportedJob, ExportedKey, ImportEnd, ImportRow, ImportedLines};
use crate::id::{FlowId, JobId};
use crate::new_job::Retention;
use crate::record::Filter;
use crate::rules::unique::Hold;
use crate::state::State;
use crate::store::{Control, Import, ImportDone, ImportMark};
use crate::unique::Enqueued;

const LIVE: &str = "
SELECT job.id, lane.kind, lane.queue, nullif(lane.gate, ''), job.state, job.priority, job.enqueued_at,
       job.run_at, job.attempts, job.first_started_at, NULL, NULL, NULL, job.args, job.options,
       job.tags, job.meta, job.unique_key, job.unique_hold, job.limits, job.expires_at, job.flow,
       NULL, NULL";
const FINISHED: &str = "
SELECT job.id, lane.kind, lane.queue, nullif(lane.gate, ''), job.state, job.priority, job.enqueued_at,
       job.run_at, job.attempts, NULL, job.started_at, job.finished_at, job.prune_at, job.args, job.options,
       job.tags, job.meta, job.unique_key, job.unique_hold, job.limits, NULL, job.flow,
       job.output, job.reason";
pub(super) const UNTIL: &str =
    "SELECT until FROM legwork_unique WHERE key = ?1 AND slot = 0 AND job = ?2";
/// A newer job that has the place of one that has started.
pub(super) const NEWER: &str =
    "SELECT 1 FROM legwork_unique WHERE key = ?1 AND slot = 0 AND job <> ?2";
pub(super) const PARENTS: &str = "
SELECT parent, anyway FROM legwork_edges INDEXED BY legwork_parents WHERE child = ?1 AND done = 0";
pub(super) const IS_PARENT: &str = "SELECT 1 FROM legwork_edges WHERE parent = ?1 AND done = 0";
const COMPLETE: &str = "
UPDATE legwork_jobs SET enqueued_at = ?2, attempts = ?3, first_started_at = ?4 WHERE id = ?1";
const INTO_HISTORY: &str = "
INSERT INTO legwork_history
       (id, lane, state, priority, run_at, enqueued_at, attempts, started_at, finished_at, prune_at,
        args, options, tags, meta, output, unique_key, unique_hold, limits, reason)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
/// How many lines of an export have been imported.
const READ_MARK: &str = "SELECT value FROM legwork_meta WHERE key = ?1";
const WRITE_MARK: &str = "
INSERT INTO legwork_meta (key, value) VALUES (?1, ?2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const FORGET_PARENTS: &str = "DELETE FROM legwork_meta WHERE key > ?1 AND key < ?2";

fn mark(export: &str) -> String {
    format!("import {export}")
}

/// The same of its finished jobs, which may be imported later than the others.
fn mark_of_history(export: &str) -> String {
    format!("history of {export}")
}

/// Where it stands which job a parent has become, until its export is imported: an import that was
/// interrupted goes on by it.
fn mark_of_parent(export: &str, old: JobId) -> String {
    format!("{}{old}", marks_of_parents(export))
}

/// Begins as no other export's do.
fn marks_of_parents(export: &str) -> String {
    format!("imported {} {export} job ", export.len())
}

impl Store {
    /// Jobs that match, behind an id, by rising id.
    pub(crate) fn export(
        &self,
        filter: &Filter,
        after: JobId,
        limit: usize,
    ) -> Result<Vec<ExportedJob>> {
        let conn = self.reader()?;
        let snapshot = conn.unchecked_transaction().map_err(storing)?;
        let mut jobs = Vec::new();
        for (finished, columns) in [(false, LIVE), (true, FINISHED)] {
            let Some(Conditions { from, sql, values, .. }) = Conditions::of(filter, finished)
            else {
                continue;
            };
            let most = values.len() + 3;
            // The jobs outermost: their order is the answer's.
            let sql = format!(
                "{columns} FROM {from} CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane{sql}
                  ORDER BY job.id LIMIT (?{most}+0)"
            );
            let first = after.0.saturating_add(1);
            let all = [Value::from(i64::MAX), Value::from(first)]
                .into_iter()
                .chain(values)
                .chain([Value::from(limit as i64)]);
            let mut ask = snapshot.prepare_cached(&sql).map_err(storing)?;
            let mut rows = ask.query(params_from_iter(all)).map_err(storing)?;
            while let Some(row) = rows.next().map_err(storing)? {
                jobs.push(exported(row).map_err(storing)?);
            }
        }
        jobs.sort_unstable_by_key(|job| job.id);
        jobs.truncate(limit);
        for job in jobs.iter_mut().filter(|job| !job.state.is_finished()) {
            relations(&snapshot, job).map_err(storing)?;
        }
        Ok(jobs)
    }

    /// How far this export has been imported.
    pub(crate) fn imported_lines(&self, export: &str) -> Result<ImportedLines> {
        imported_lines(&*self.reader()?, export)
    }

    /// Whether an import that has not ended has imported this parent.
    pub(crate) fn imported_parent(&self, export: &str, old: JobId) -> Result<bool> {
        read_mark(&*self.reader()?, &mark_of_parent(export, old)).map(|id| id.is_some())
    }

    /// Forgets which jobs the parents of an export have become: all of it is imported.
    pub(crate) fn end_import(&self, export: String) -> Result<()> {
        self.control(Control::EndImport(export)).map(drop)
    }

    /// Imports all of these jobs or none.
    pub(crate) fn import(&self, import: Import) -> Result<ImportDone> {
        self.control(Control::Import(Box::new(import))).map(|done| done.imported)
    }
}

fn read_mark(conn: &Connection, key: &str) -> Result<Option<i64>> {
    conn.prepare_cached(READ_MARK)
        .and_then(|mut ask| ask.query_row([key], |row| row.get(0)).optional())
        .map_err(storing)
}

fn imported_lines(conn: &Connection, export: &str) -> Result<ImportedLines> {
    let lines = |key: &str| read_mark(conn, key).map(|lines| lines.unwrap_or(0).unsigned_abs());
    Ok(ImportedLines { waiting: lines(&mark(export))?, finished: lines(&mark_of_history(export))? })
}

fn exported(row: &Row<'_>) -> rusqlite::Result<ExportedJob> {
    let time = |at: Option<Micros>| at.map(from_micros);
    let key: Option<String> = text::shown(row, 17)?;
    let hold: Option<i64> = row.get(18)?;
    let prune_at: Option<Micros> = row.get(12)?;
    Ok(ExportedJob {
        id: JobId(row.get(0)?),
        kind: row.get(1)?,
        queue: row.get(2)?,
        gate: row.get(3)?,
        state: State::from_code(row.get(4)?).unwrap_or(State::Blocked),
        priority: row.get(5)?,
        enqueued_at: from_micros(row.get(6)?),
        run_at: from_micros(row.get(7)?),
        attempts: row.get(8)?,
        first_started_at: time(row.get(9)?),
        started_at: time(row.get(10)?),
        finished_at: time(row.get(11)?),
        // Members of flows have no time of their own.
        prune_at: time(prune_at.filter(|at| *at != super::ends::WITH_ITS_FLOW)),
        args: text::shown(row, 13)?.unwrap_or_default(),
        options: json(row, 14)?,
        tags: json(row, 15)?.unwrap_or_default(),
        meta: json(row, 16)?.unwrap_or_default(),
        unique: key.zip(hold).map(|(key, hold)| ExportedKey::new(key, hold, None)),
        limits: json(row, 19)?,
        expires_at: time(row.get(20)?),
        flow: row.get::<_, Option<i64>>(21)?.map(FlowId),
        output: row.get(22)?,
        reason: row.get(23)?,
        after: Vec::new(),
        anyway: false,
        is_parent: false,
    })
}

/// What another hand has broken is left out.
fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    Ok(text::shown(row, at)?.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Its key's period, its parents and whether it has children.
fn relations(conn: &Connection, job: &mut ExportedJob) -> rusqlite::Result<()> {
    if let Some(key) = &job.unique
        && job.state == State::Running
        && Hold::from_code(key.hold).is_some_and(Hold::moves_at_start)
        && conn.prepare_cached(NEWER)?.exists(params![key.key, job.id.0])?
    {
        // The key is that one's: with it, this one would keep it out.
        job.unique = None;
    }
    if let Some(key) = &mut job.unique {
        let until: Option<Option<Micros>> = conn
            .prepare_cached(UNTIL)?
            .query_row(params![key.key, job.id.0], |row| row.get(0))
            .optional()?;
        key.until = until.flatten().map(from_micros);
    }
    let mut ask = conn.prepare_cached(PARENTS)?;
    let mut parents = ask.query([job.id.0])?;
    while let Some(row) = parents.next()? {
        job.after.push(JobId(row.get(0)?));
        job.anyway |= row.get::<_, bool>(1)?;
    }
    let mut ask = conn.prepare_cached(IS_PARENT)?;
    job.is_parent = ask.exists([job.id.0])?;
    Ok(())
}

impl Book {
    /// Makes exported jobs anew.
    pub(super) fn import(
        &mut self,
        import: &Import,
        now: Micros,
        keep: Retention,
    ) -> Result<ImportDone> {
        let mut done = ImportDone::default();
        let mut made: HashMap<JobId, JobId> = HashMap::new();
        let export = import.mark.as_ref().map(|mark| mark.export.as_str());
        if let Some(mark) = &import.mark
            && let Some(before) = mark.after
            && imported_lines(&self.conn, &mark.export)? != before
        {
            return Err(Error::invalid("import", "somebody else imports the same export"));
        }
        for job in &import.jobs {
            let id = match &job.end {
                Some(end) => {
                    done.imported.finished += 1;
                    self.import_finished(job, end, now, keep)?
                }
                None => match self.import_live(job, &made, export)? {
                    Enqueued::New(id) | Enqueued::Replaced(id) => {
                        done.imported.enqueued += 1;
                        id
                    }
                    Enqueued::Existing(holder) | Enqueued::Rejected { holder } => {
                        done.imported.not_unique += 1;
                        // A period may outlive its job: then there is nothing to wait for.
                        if edges::is_gone(&self.conn, holder.0)? { JobId::UNSTORED } else { holder }
                    }
                },
            };
            made.insert(job.old, id);
            done.ids.push((job.old, id));
            if let Some(export) = export.filter(|_| job.is_parent) {
                self.write_mark(&mark_of_parent(export, job.old), id.0)?;
            }
        }
        if let Some(ImportMark { export, reached, .. }) = &import.mark {
            self.write_mark(&mark(export), reached.waiting.cast_signed())?;
            if reached.finished > 0 {
                self.write_mark(&mark_of_history(export), reached.finished.cast_signed())?;
            }
        }
        Ok(done)
    }

    fn write_mark(&self, key: &str, value: i64) -> Result<()> {
        self.conn
            .prepare_cached(WRITE_MARK)
            .and_then(|mut write| write.execute(params![key, value]))
            .map(drop)
            .map_err(storing)
    }

    /// See [`Store::end_import`].
    pub(super) fn end_import(&self, export: &str) -> Result<()> {
        let from = marks_of_parents(export);
        let to = format!("{from}~");
        self.conn.execute(FORGET_PARENTS, [from, to]).map(drop).map_err(storing)
    }

    fn import_live(
        &mut self,
        job: &ImportRow,
        made: &HashMap<JobId, JobId>,
        export: Option<&str>,
    ) -> Result<Enqueued> {
        let mut row = job.row.clone();
        for &parent in &job.after {
            let id = match (made.get(&parent), export) {
                (Some(&id), _) => Some(id),
                (None, Some(export)) => {
                    read_mark(&self.conn, &mark_of_parent(export, parent))?.map(JobId)
                }
                (None, None) => None,
            };
            row.parents.push(id.ok_or(Error::NotFound(parent))?);
        }
        row.parents.retain(|id| *id != JobId::UNSTORED);
        row.parents.sort_unstable();
        row.parents.dedup();
        let done = self.insert(std::slice::from_ref(&row), &mut Demand::default())?;
        let done = done.into_iter().next().ok_or(Error::Poisoned)?;
        if let Enqueued::New(id) = done {
            let values = params![id.0, job.enqueued_at, job.attempts, job.first_started_at];
            self.conn
                .prepare_cached(COMPLETE)
                .and_then(|mut complete| complete.execute(values))
                .map_err(storing)?;
        }
        Ok(done)
    }

    fn import_finished(
        &mut self,
        job: &ImportRow,
        end: &ImportEnd,
        now: Micros,
        keep: Retention,
    ) -> Result<JobId> {
        let row = &job.row;
        let lane = self.lane(&row.queue, &row.kind, row.gate())?;
        let id = self.last_id() + 1;
        self.gave_ids(id);
        let kept = keep_of(row.options.as_deref()).unwrap_or(keep).of(end.state);
        let prune_at = end.prune_at.unwrap_or_else(|| now.saturating_add(micros_of(kept)));
        self.conn
            .prepare_cached(INTO_HISTORY)
            .and_then(|mut insert| {
                insert.execute(params![
                    id,
                    lane,
                    end.state.code(),
                    row.priority,
                    row.run_at,
                    job.enqueued_at,
                    job.attempts,
                    end.started_at,
                    end.finished_at,
                    prune_at,
                    row.args,
                    row.options,
                    row.tags,
                    row.meta,
                    end.output,
                    row.unique.as_ref().map(|key| &key.name),
                    row.unique.as_ref().map(|key| key.hold.code()),
                    row.limits.as_ref().map(super::limits::to_json),
                    end.reason,
                ])
            })
            .map_err(storing)?;
        self.prune_at(prune_at);
        Ok(JobId(id))
    }
}
