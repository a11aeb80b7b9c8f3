//! The jobs that failed, by what their errors have in common. Read some at a time, so that no snapshot
//! is kept for long.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::super::errors::storing;
use super::super::text;
use super::conditions::{Conditions, LAST_FAILURE};
use crate::clock::from_micros;
use crate::error::Result;
use crate::id::JobId;
use crate::record::{FailureGroup, Filter};
use crate::rules::failures::{Failed, Groups};
use crate::state::State;

/// Jobs that are read in one snapshot.
const AT_ONCE: usize = 1_000;

const FAILED: &str = "job.finished_at, job.reason";
const RETRYING: &str = "ENDED, ERROR";

/// Newest first; `?1`: below, `?2`: from, the last: how many.
pub(in crate::store::sqlite) fn failed_sql(conditions: &Conditions, finished: bool) -> String {
    let failure = match finished {
        true => FAILED.to_owned(),
        false => RETRYING
            .replace("ENDED", &LAST_FAILURE.replace("COLUMN", "ended_at"))
            .replace("ERROR", &LAST_FAILURE.replace("COLUMN", "error")),
    };
    let (Conditions { from, sql, .. }, limit) = (conditions, conditions.values.len() + 3);
    format!(
        "SELECT job.id, lane.kind, {failure} FROM {from}
          CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane
          {sql} ORDER BY job.id DESC LIMIT (?{limit}+0)"
    )
}

/// The groups, the largest first. Of the filter's states these two count; it means failed if it names
/// none.
pub(in crate::store::sqlite) fn failures(
    conn: &Connection,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<FailureGroup>> {
    let mut groups = Groups::default();
    for state in [State::Failed, State::Retrying] {
        let wanted = match filter.states.is_empty() {
            true => state == State::Failed,
            false => filter.states.contains(&state),
        };
        if wanted {
            let filter = Filter { states: vec![state], ..filter.clone() };
            add(conn, &filter, state.is_finished(), &mut groups).map_err(storing)?;
        }
    }
    Ok(groups.into_largest(limit))
}

fn add(
    conn: &Connection,
    filter: &Filter,
    finished: bool,
    groups: &mut Groups,
) -> rusqlite::Result<()> {
    let Some(conditions) = Conditions::with_index(conn, filter, finished)? else { return Ok(()) };
    let sql = failed_sql(&conditions, finished);
    let mut below = i64::MAX;
    loop {
        let mut ask = conn.prepare_cached(&sql)?;
        let values = conditions.bound(below, 0).chain([Value::from(AT_ONCE as i64)]);
        let mut rows = ask.query(params_from_iter(values))?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let (id, failed) = failed(row)?;
            if let Some(failed) = failed {
                groups.add(failed);
            }
            (below, read) = (id, read + 1);
        }
        if read < AT_ONCE {
            return Ok(());
        }
    }
}

/// `None`: of its failure nothing is kept.
fn failed(row: &Row<'_>) -> rusqlite::Result<(i64, Option<Failed>)> {
    let id: i64 = row.get(0)?;
    let Some(at) = row.get::<_, Option<i64>>(2)? else { return Ok((id, None)) };
    let error = text::shown(row, 3)?.unwrap_or_default();
    Ok((id, Some(Failed { id: JobId(id), kind: row.get(1)?, at: from_micros(at), error })))
}
