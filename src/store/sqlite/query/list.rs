//! Lists and counts of the jobs that match a filter.
//!
//! A list goes down the ids of both tables, a stretch at a time, and stops when its page is full: it
//! costs what lies between its first and its last job. Where an index knows the few rows that can match
//! it is asked instead.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::conditions::{Conditions, has_lanes};
use super::{FINISHED, LIVE, as_shown, in_snapshot, record};
use crate::error::Result;
use crate::id::JobId;
use crate::record::{Filter, JobRecord, Page};

/// The ids that the first look covers; each further one covers four times as many.
const FIRST_STRETCH: i64 = 8_192;

/// A table's part of a list, newest first.
struct Part {
    table: &'static str,
    sql: String,
    conditions: Conditions,
    limit: usize,
}

impl Part {
    fn of(
        conn: &Connection,
        filter: &Filter,
        finished: bool,
        limit: usize,
    ) -> rusqlite::Result<Option<Part>> {
        let Some(conditions) = Conditions::with_index(conn, filter, finished)? else {
            return Ok(None);
        };
        let table = if finished { "legwork_history" } else { "legwork_jobs" };
        Ok(Some(Part { table, sql: list_sql(&conditions, finished), conditions, limit }))
    }

    fn read(
        &self,
        conn: &Connection,
        below: i64,
        from: i64,
        jobs: &mut Vec<JobRecord>,
    ) -> rusqlite::Result<()> {
        let mut ask = conn.prepare_cached(&self.sql)?;
        let values = self.conditions.bound(below, from).chain([Value::from(self.limit as i64)]);
        for job in ask.query_map(params_from_iter(values), record)? {
            jobs.push(job?);
        }
        Ok(())
    }

    fn id_at_end(&self, conn: &Connection, end: &str) -> rusqlite::Result<Option<i64>> {
        conn.prepare_cached(&format!("SELECT {end}(id) FROM {}", self.table))?
            .query_row([], |row| row.get(0))
            .optional()
            .map(Option::flatten)
    }
}

/// Newest first; `?1`: below, `?2`: from, the last: how many.
pub(in crate::store::sqlite) fn list_sql(conditions: &Conditions, finished: bool) -> String {
    let table = if finished { FINISHED } else { LIVE };
    // CROSS JOIN keeps the jobs outermost: their order is the answer's.
    let table = as_shown(table).replace(" JOIN ", " CROSS JOIN ").replace(
        if finished { "legwork_history AS job" } else { "legwork_jobs AS job" },
        &conditions.from,
    );
    let (sql, limit) = (&conditions.sql, conditions.values.len() + 3);
    format!("{table}{sql} ORDER BY job.id DESC LIMIT (?{limit}+0)")
}

pub(in crate::store::sqlite) fn list(
    conn: &Connection,
    filter: &Filter,
    before: Option<JobId>,
    limit: usize,
) -> Result<Page> {
    let limit = limit.clamp(1, 10_000);
    let before = before.map_or(i64::MAX, |id| id.0);
    let mut jobs = in_snapshot(conn, |conn| {
        let mut jobs = Vec::new();
        if !has_lanes(conn, filter)? {
            return Ok(jobs);
        }
        let mut parts = Vec::new();
        for finished in [false, true] {
            parts.extend(Part::of(conn, filter, finished, limit + 1)?);
        }
        let (indexed, walked): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| part.conditions.indexed);
        for part in &indexed {
            part.read(conn, before, 0, &mut jobs)?;
        }
        walk(conn, &walked, before, limit, &mut jobs)?;
        Ok(jobs)
    })?;
    jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = if more { jobs.last().map(|job| job.id) } else { None };
    Ok(Page { jobs, next })
}

/// Goes down the ids until more than `limit` jobs are known above where it has come to.
fn walk(
    conn: &Connection,
    parts: &[Part],
    before: i64,
    limit: usize,
    jobs: &mut Vec<JobRecord>,
) -> rusqlite::Result<()> {
    let (mut first, mut last) = (None::<i64>, None::<i64>);
    for part in parts {
        first = first.into_iter().chain(part.id_at_end(conn, "min")?).min();
        last = last.max(part.id_at_end(conn, "max")?);
    }
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    let mut below = before.min(last.saturating_add(1));
    let mut stretch = FIRST_STRETCH;
    while below > first && jobs.iter().filter(|job| job.id.0 >= below).count() <= limit {
        let from = below.saturating_sub(stretch).max(first);
        for part in parts {
            part.read(conn, below, from, jobs)?;
        }
        below = from;
        stretch = stretch.saturating_mul(4);
    }
    Ok(())
}

pub(in crate::store::sqlite) fn count(conn: &Connection, filter: &Filter) -> Result<u64> {
    in_snapshot(conn, |conn| {
        let mut total = 0;
        if !has_lanes(conn, filter)? {
            return Ok(total);
        }
        for finished in [false, true] {
            let Some(conditions) = Conditions::with_index(conn, filter, finished)? else {
                continue;
            };
            let lane = match conditions.joins {
                true => " CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane",
                false => "",
            };
            let Conditions { from, sql, .. } = &conditions;
            let sql = format!("SELECT count(*) FROM {from}{lane}{sql}");
            let found: i64 = conn
                .prepare_cached(&sql)?
                .query_row(params_from_iter(conditions.bound(i64::MAX, 0)), |row| row.get(0))?;
            total += found.unsigned_abs();
        }
        Ok(total)
    })
}
