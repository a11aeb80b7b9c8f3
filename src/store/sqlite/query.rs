//! Reading: jobs, lists, counts, statistics. On read-only connections; never blocks the writer.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::book::{NEXT_DUE, scope_from};
use super::errors::storing;
use super::{gates, limits, text};
use crate::clock::{Micros, between, from_micros, to_micros};
use crate::error::Result;
use crate::id::{FlowId, JobId};
use crate::record::{
    AttemptRecord, Filter, JobRecord, KindStats, LogLine, Page, Percentiles, Progress, Scope, Stats,
};
use crate::state::State;

/// The columns of a record, the same from both tables. `SHOWN` stands for [`gates::SHOWN`].
const LIVE: &str = "
SELECT job.id, lane.kind, lane.queue, SHOWN, job.priority, job.enqueued_at, job.run_at,
       job.started_at, NULL AS finished_at, job.attempts, job.args, job.tags, job.meta,
       job.progress_done, job.progress_total, job.message, NULL AS output, NULL AS reason,
       job.cancel_requested IS NOT NULL, json_array_length(job.crashes), job.unique_key,
       nullif(lane.gate, ''), job.expires_at, job.limits,
       CASE job.state WHEN 2 THEN job.waits_on END, job.flow, job.parents_left, NULL
  FROM legwork_jobs AS job JOIN legwork_lanes AS lane ON lane.id = job.lane";
const FINISHED: &str = "
SELECT job.id, lane.kind, lane.queue, job.state, job.priority, job.enqueued_at, job.run_at,
       job.started_at, job.finished_at, job.attempts, job.args, job.tags, job.meta,
       job.progress_done, job.progress_total, job.message, job.output, job.reason, 0, NULL,
       job.unique_key, nullif(lane.gate, ''), NULL, job.limits, NULL, job.flow, NULL, job.cause
  FROM legwork_history AS job JOIN legwork_lanes AS lane ON lane.id = job.lane";

fn as_shown(table: &str) -> String {
    table.replace("SHOWN", gates::SHOWN)
}

fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    let time = |at: Option<Micros>| at.map(from_micros);
    let args = text::shown(row, 10)?.unwrap_or_default();
    let tags = text::shown(row, 11)?;
    let meta = text::shown(row, 12)?;
    let done: Option<i64> = row.get(13)?;
    let total: Option<i64> = row.get(14)?;
    let message: Option<String> = row.get(15)?;
    let progress = (done.is_some() || message.is_some()).then(|| Progress {
        done: done.unwrap_or(0).unsigned_abs(),
        total: total.unwrap_or(0).unsigned_abs(),
        message,
    });
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
        progress,
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
    })
}

/// Tags and meta are written by legwork; what another hand has broken shows as nothing.
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

fn in_snapshot<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T> {
    let snapshot = conn.unchecked_transaction().map_err(storing)?;
    let found = read(&snapshot).map_err(storing)?;
    snapshot.commit().map_err(storing)?;
    Ok(found)
}

/// The part of a filter that one table can hold, as SQL; `None`: nothing of it.
pub(super) fn conditions(filter: &Filter, finished: bool) -> Option<(String, Vec<Value>)> {
    let mut sql = String::from(" WHERE job.id < ?1");
    let mut values = Vec::new();
    let mut number = 1;
    let mut place = |values: &mut Vec<Value>, value: Value| {
        number += 1;
        values.push(value);
        format!("?{number}")
    };
    let states: Vec<State> =
        filter.states.iter().copied().filter(|state| state.is_finished() == finished).collect();
    if !filter.states.is_empty() {
        match states[..] {
            [] => return None,
            // Alone these have an index each; as literals, so that it is seen to apply.
            [state @ (State::Failed | State::Cancelled)] => {
                sql += &format!(" AND job.state = {}", state.code());
            }
            _ => {
                // `+` keeps the list in the order of ids instead of an index of the claims.
                let codes: Vec<String> = states.iter().map(|s| s.code().to_string()).collect();
                // Only these two are not always shown as they stand.
                let as_it_stands =
                    states.contains(&State::Ready) == states.contains(&State::Blocked);
                let state = if finished || as_it_stands { "job.state" } else { gates::SHOWN };
                sql += &format!(" AND +({state}) IN ({})", codes.join(", "));
            }
        }
    }
    if let Some(flow) = filter.flow {
        let flow = place(&mut values, flow.0.into());
        sql += &format!(" AND job.flow = {flow}");
    }
    for (column, names) in [("kind", &filter.kinds), ("queue", &filter.queues)] {
        if !names.is_empty() {
            let places: Vec<String> =
                names.iter().map(|name| place(&mut values, name.clone().into())).collect();
            sql += &format!(" AND +lane.{column} IN ({})", places.join(", "));
        }
    }
    for tag in &filter.tags {
        let tag = place(&mut values, tag.clone().into());
        sql += &format!(
            " AND EXISTS (SELECT 1 FROM json_each(coalesce(job.tags, '[]')) WHERE value = {tag})"
        );
    }
    if let Some(since) = filter.since {
        let since = place(&mut values, to_micros(since).into());
        sql += &format!(" AND job.enqueued_at >= {since}");
    }
    if let Some(until) = filter.until {
        let until = place(&mut values, to_micros(until).into());
        sql += &format!(" AND job.enqueued_at < {until}");
    }
    Some((sql, values))
}

/// A table's part of a list, newest first.
pub(super) fn list_sql(filter: &Filter, finished: bool) -> Option<(String, Vec<Value>)> {
    let (conditions, values) = conditions(filter, finished)?;
    let table = if finished { FINISHED } else { LIVE };
    // CROSS JOIN keeps the jobs outermost: their order is the answer's.
    let table = as_shown(table).replace(" JOIN ", " CROSS JOIN ");
    let limit = values.len() + 2;
    Some((format!("{table}{conditions} ORDER BY job.id DESC LIMIT (?{limit}+0)"), values))
}

pub(super) fn list(
    conn: &Connection,
    filter: &Filter,
    before: Option<JobId>,
    limit: usize,
) -> Result<Page> {
    let limit = limit.clamp(1, 10_000);
    let before = before.map_or(i64::MAX, |id| id.0);
    let mut jobs = in_snapshot(conn, |conn| {
        let mut jobs = Vec::new();
        for finished in [false, true] {
            let Some((sql, values)) = list_sql(filter, finished) else { continue };
            let all = std::iter::once(Value::from(before))
                .chain(values)
                .chain([Value::from(limit as i64 + 1)]);
            let mut ask = conn.prepare_cached(&sql)?;
            for job in ask.query_map(params_from_iter(all), record)? {
                jobs.push(job?);
            }
        }
        Ok(jobs)
    })?;
    jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = if more { jobs.last().map(|job| job.id) } else { None };
    Ok(Page { jobs, next })
}

pub(super) fn count(conn: &Connection, filter: &Filter) -> Result<u64> {
    in_snapshot(conn, |conn| {
        let mut total = 0;
        for (finished, table) in [(false, "legwork_jobs"), (true, "legwork_history")] {
            let Some((conditions, values)) = conditions(filter, finished) else { continue };
            let sql = format!(
                "SELECT count(*) FROM {table} AS job
                   JOIN legwork_lanes AS lane ON lane.id = job.lane{conditions}"
            );
            let all = std::iter::once(Value::from(i64::MAX)).chain(values);
            let found: i64 =
                conn.prepare_cached(&sql)?.query_row(params_from_iter(all), |row| row.get(0))?;
            total += found.unsigned_abs();
        }
        Ok(total)
    })
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

/// The earliest start time of the ready jobs, above suspicion and not, save those behind closed
/// gates; an index serves each.
pub(super) const OLDEST_READY: [&str; 2] = [
    "SELECT min(run_at) FROM legwork_jobs INDEXED BY legwork_next_ready
      WHERE state = 3 AND instance IS NULL AND crashes IS NULL
        AND lane NOT IN (SELECT lane.id FROM legwork_lanes AS lane
                           JOIN legwork_gates AS gate ON gate.name = lane.gate)",
    "SELECT min(run_at) FROM legwork_jobs INDEXED BY legwork_next_suspect
      WHERE state = 3 AND instance IS NULL AND crashes IS NOT NULL
        AND lane NOT IN (SELECT lane.id FROM legwork_lanes AS lane
                           JOIN legwork_gates AS gate ON gate.name = lane.gate)",
];

/// How long the job that has been ready longest has waited.
pub(super) fn oldest_ready(conn: &Connection, now: Micros) -> Result<Option<Duration>> {
    let mut oldest: Option<Micros> = None;
    for sql in OLDEST_READY {
        let first: Option<Micros> = conn
            .prepare_cached(sql)
            .and_then(|mut ask| ask.query_row([], |row| row.get(0)))
            .map_err(storing)?;
        oldest = oldest.into_iter().chain(first).min();
    }
    Ok(oldest.map(|at| between(at, now)))
}

/// How many finished jobs the figures per kind are taken from.
const SAMPLE: i64 = 10_000;

pub(super) fn stats(conn: &Connection, now: Micros) -> Result<Stats> {
    in_snapshot(conn, |conn| {
        let mut stats = Stats::default();
        let mut ask = conn.prepare_cached(
            &"SELECT lane.queue, SHOWN, count(*), min(job.run_at) FROM legwork_jobs AS job
               JOIN legwork_lanes AS lane ON lane.id = job.lane GROUP BY 1, 2"
                .replace("SHOWN", gates::SHOWN),
        )?;
        let mut rows = ask.query([])?;
        while let Some(row) = rows.next()? {
            let state = State::from_code(row.get(1)?).unwrap_or(State::Blocked);
            let count = row.get::<_, i64>(2)?.unsigned_abs();
            *stats.states.entry(state).or_default() += count;
            let queue = stats.queues.entry(row.get(0)?).or_default();
            queue.states.insert(state, count);
            if state == State::Ready {
                queue.oldest_ready = Some(between(row.get(3)?, now));
            }
        }
        let history = |condition: &str| {
            let sql = format!("SELECT count(*) FROM legwork_history{condition}");
            conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        };
        let (all, failed, cancelled) =
            (history("")?, history(" WHERE state = 7")?, history(" WHERE state = 8")?);
        for (state, count) in [
            (State::Completed, all.saturating_sub(failed + cancelled)),
            (State::Failed, failed),
            (State::Cancelled, cancelled),
        ] {
            if count > 0 {
                stats.states.insert(state, count);
            }
        }
        stats.paused = read_pauses(conn)?;
        stats.kinds = kinds(conn)?;
        Ok(stats)
    })
}

fn read_pauses(conn: &Connection) -> rusqlite::Result<Vec<Scope>> {
    let mut ask = conn.prepare_cached("SELECT scope, name FROM legwork_pauses")?;
    ask.query_map([], |row| Ok(scope_from(&row.get::<_, String>(0)?, row.get(1)?)))?.collect()
}

/// What is paused.
pub(super) fn paused(conn: &Connection) -> Result<Vec<Scope>> {
    read_pauses(conn).map_err(storing)
}

#[derive(Default)]
struct Sample {
    failed: u64,
    finished: Vec<Micros>,
    waits: Vec<Duration>,
    runs: Vec<Duration>,
}

fn kinds(conn: &Connection) -> rusqlite::Result<BTreeMap<String, KindStats>> {
    let mut ask = conn.prepare_cached(
        "SELECT lane.kind, job.state, job.run_at, job.started_at, job.finished_at
           FROM (SELECT * FROM legwork_history ORDER BY id DESC LIMIT (?1+0)) AS job
           JOIN legwork_lanes AS lane ON lane.id = job.lane",
    )?;
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    let mut rows = ask.query(params![SAMPLE])?;
    while let Some(row) = rows.next()? {
        let (run_at, finished_at): (Micros, Micros) = (row.get(2)?, row.get(4)?);
        let sample = samples.entry(row.get(0)?).or_default();
        sample.finished.push(finished_at);
        sample.failed += u64::from(row.get::<_, i64>(1)? == State::Failed.code());
        if let Some(started_at) = row.get::<_, Option<Micros>>(3)? {
            sample.waits.push(between(run_at, started_at));
            sample.runs.push(between(started_at, finished_at));
        }
    }
    Ok(samples.into_iter().map(|(kind, sample)| (kind, figures(sample))).collect())
}

fn figures(sample: Sample) -> KindStats {
    let first = sample.finished.iter().min().copied().unwrap_or(0);
    let last = sample.finished.iter().max().copied().unwrap_or(0);
    let minutes = between(first, last).as_secs_f64() / 60.0;
    let finished = sample.finished.len() as u64;
    KindStats {
        finished,
        failed: sample.failed,
        per_minute: if minutes > 0.0 { finished as f64 / minutes } else { 0.0 },
        wait: Percentiles::of(sample.waits),
        run: Percentiles::of(sample.runs),
    }
}
