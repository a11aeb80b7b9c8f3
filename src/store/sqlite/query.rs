//! Reading: jobs, lists, counts, statistics. On read-only connections; never blocks the writer.

mod conditions;
mod failures;
mod list;
mod stats;

use rusqlite::{Connection, OptionalExtension, Row};

use super::book::NEXT_DUE;
use super::errors::storing;
use super::{gates, limits, text};
use crate::clock::{Micros, from_micros};
use crate::error::Result;
use crate::id::{FlowId, JobId};
use crate::new_job::Overrides;
use crate::record::{AttemptRecord, JobRecord, LogLine, Progress};
use crate::state::State;

pub(super) use self::conditions::Conditions;
#[cfg(test)]
pub(super) use self::failures::failed_sql;
pub(super) use self::failures::failures;
#[cfg(test)]
pub(super) use self::list::list_sql;
pub(super) use self::list::{count, list};
#[cfg(test)]
pub(super) use self::stats::{BACKLOG, OLDEST_READY};
pub(super) use self::stats::{backlog, oldest_ready, paused, stats};

/// The columns of a record, the same from both tables. `SHOWN` stands for [`gates::SHOWN`].
const LIVE: &str = "
SELECT job.id, lane.kind, lane.queue, SHOWN, job.priority, job.enqueued_at, job.run_at,
       job.started_at, NULL AS finished_at, job.attempts, job.args, job.tags, job.meta,
       job.progress_done, job.progress_total, job.message, NULL AS output, NULL AS reason,
       job.cancel_requested IS NOT NULL, json_array_length(job.crashes), job.unique_key,
       nullif(lane.gate, ''), job.expires_at, job.limits,
       CASE job.state WHEN 2 THEN job.waits_on END, job.flow, job.parents_left, NULL, job.options
  FROM legwork_jobs AS job JOIN legwork_lanes AS lane ON lane.id = job.lane";
const FINISHED: &str = "
SELECT job.id, lane.kind, lane.queue, job.state, job.priority, job.enqueued_at, job.run_at,
       job.started_at, job.finished_at, job.attempts, job.args, job.tags, job.meta,
       job.progress_done, job.progress_total, job.message, job.output, job.reason, 0, NULL,
       job.unique_key, nullif(lane.gate, ''), NULL, job.limits, NULL, job.flow, NULL, job.cause,
       job.options
  FROM legwork_history AS job JOIN legwork_lanes AS lane ON lane.id = job.lane";

fn as_shown(table: &str) -> String {
    table.replace("SHOWN", gates::SHOWN)
}

fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let time = |at: Option<Micros>| at.map(from_micros);
    let args = text::shown(row, 10)?.unwrap_or_default();
    let tags = text::shown(row, 11)?;
    let meta = text::shown(row, 12)?;
    Ok(JobRecord {
        id: JobId(row.get(0)?),
        kind: row.get(1)?,
        queue: row.get(2)?,
        state: State::from_code(row.get(3)?).unwrap_or(State::Blocked),
        priority: row.get(4)?,
        enqueued_at: from_micros(row.get(5)?),
        run_at: from_micros(row.get(6)?),
        started_at: time(row.get(7)?),
        finished_at: time(row.get(8)?),
        attempts: row.get(9)?,
        limits: limits::shown(text::shown(row, 23)?.as_deref(), &args),
        args,
        tags: json_or_empty(tags),
        meta: json_or_empty(meta),
        progress: Progress::read(row.get(13)?, row.get(14)?, row.get(15)?),
        output: row.get(16)?,
        reason: row.get(17)?,
        cancel_requested: row.get(18)?,
        crashes: row.get(19)?,
        unique_key: text::shown(row, 20)?,
        gate: row.get(21)?,
        expires_at: time(row.get(22)?),
        waits_on: text::shown(row, 24)?,
        flow: row.get::<_, Option<i64>>(25)?.map(FlowId),
        parents_left: row.get::<_, Option<i64>>(26)?.unwrap_or(0).unsigned_abs(),
        cause: row.get::<_, Option<i64>>(27)?.map(JobId),
        own: json_or_empty::<Overrides>(text::shown(row, 28)?).into(),
    })
}

/// Tags, meta and options are written by legwork; what another hand has broken shows as nothing.
fn json_or_empty<T: serde::de::DeserializeOwned + Default>(text: Option<String>) -> T {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

pub(super) fn get(conn: &Connection, id: JobId) -> Result<Option<JobRecord>> {
    // One snapshot, so that a job on its way from one table to the other is seen in one of them.
    in_snapshot(conn, |conn| {
        for table in [LIVE, FINISHED] {
            let found = conn
                .prepare_cached(&format!("{} WHERE job.id = ?1", as_shown(table)))?
                .query_row([id.0], record)
                .optional()?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    })
}

/// The parents of a job, by rising id.
pub(super) fn parents(conn: &Connection, child: JobId) -> Result<Vec<JobRecord>> {
    let mut parents = in_snapshot(conn, |conn| {
        let mut parents = Vec::new();
        for table in [LIVE, FINISHED] {
            let sql = format!(
                "{} WHERE job.id IN (SELECT parent FROM legwork_edges INDEXED BY legwork_parents
                                      WHERE child = ?1)",
                as_shown(table)
            );
            let mut ask = conn.prepare_cached(&sql)?;
            for job in ask.query_map([child.0], record)? {
                parents.push(job?);
            }
        }
        Ok(parents)
    })?;
    parents.sort_unstable_by_key(|job| job.id);
    Ok(parents)
}

/// Reads several things of one moment.
pub(super) fn in_snapshot<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T> {
    let snapshot = conn.unchecked_transaction().map_err(storing)?;
    let found = read(&snapshot).map_err(storing)?;
    snapshot.commit().map_err(storing)?;
    Ok(found)
}

pub(super) fn attempts(conn: &Connection, id: JobId) -> Result<Vec<AttemptRecord>> {
    let read = |row: &Row<'_>| {
        Ok(AttemptRecord {
            attempt: row.get(0)?,
            started_at: from_micros(row.get(1)?),
            ended_at: from_micros(row.get(2)?),
            worker: row.get(3)?,
            error: row.get(4)?,
            counted: row.get(5)?,
        })
    };
    conn.prepare_cached(
        "SELECT attempt, started_at, ended_at, worker, error, counted
           FROM legwork_attempts WHERE job = ?1 ORDER BY seq",
    )
    .and_then(|mut ask| ask.query_map([id.0], read)?.collect())
    .map_err(storing)
}

const LOGS: &str = "
SELECT attempt, at, line, seq FROM legwork_logs WHERE job = ?1 AND seq > ?2 ORDER BY at, seq";

/// Those with a number beyond `after`, oldest first.
pub(super) fn logs(conn: &Connection, id: JobId, after: i64) -> Result<Vec<LogLine>> {
    let read = |row: &Row<'_>| {
        Ok(LogLine {
            attempt: row.get(0)?,
            at: from_micros(row.get(1)?),
            line: row.get(2)?,
            number: row.get(3)?,
        })
    };
    conn.prepare_cached(LOGS)
        .and_then(|mut ask| ask.query_map([id.0, after], read)?.collect())
        .map_err(storing)
}

/// When the next waiting job falls due.
pub(super) fn next_due(conn: &Connection) -> Result<Option<Micros>> {
    let mut due = None;
    for sql in NEXT_DUE {
        let next: Option<Micros> = conn
            .prepare_cached(sql)
            .and_then(|mut ask| ask.query_row([], |row| row.get(0)).optional())
            .map_err(storing)?;
        due = due.into_iter().chain(next).min();
    }
    Ok(due)
}
