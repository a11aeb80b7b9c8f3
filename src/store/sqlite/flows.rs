//! Flows: their rows, which count their members, and their callbacks.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::Book;
use super::ends::Effects;
use super::enqueue;
use super::errors::storing;
use crate::clock::{Micros, from_micros, micros_of};
use crate::error::{Error, Result};
use crate::flow::{EnqueuedFlow, FlowPage, FlowRecord, FlowRow, FlowState, Upon};
use crate::id::{FlowId, JobId};
use crate::new_job::{NewJob, NewRow, Retention};
use crate::rules::flow::{calls_back, state};
use crate::state::State;

const CREATE: &str = "
INSERT INTO legwork_flows (id, sort, name, properties, created_at, keep, members, pending)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0)";
const ADD_CALLBACK: &str = "INSERT INTO legwork_callbacks (flow, upon, job) VALUES (?1, ?2, ?3)";
pub(super) const JOIN: &str = "
UPDATE legwork_flows SET members = members + 1, pending = pending + 1
 WHERE id = ?1 AND ended_at IS NULL";
const BECOME_MEMBER: &str = "UPDATE legwork_jobs SET flow = ?2 WHERE id = ?1";
/// A member has ended as failed (`?2`), as cancelled (`?3`) or as neither.
pub(super) const COUNT_END: &str = "
UPDATE legwork_flows
   SET pending = pending - 1, failed = failed + ?2, cancelled = cancelled + ?3
 WHERE id = ?1 RETURNING pending";
pub(super) const COUNT_RETURN: &str = "
UPDATE legwork_flows
   SET pending = pending + 1, failed = failed - ?2, cancelled = cancelled - ?3,
       ended_at = NULL, prune_at = NULL
 WHERE id = ?1";
const READ_COUNTS: &str =
    "SELECT pending, failed, cancelled, keep FROM legwork_flows WHERE id = ?1";
const END: &str = "UPDATE legwork_flows SET ended_at = ?2, prune_at = ?3 WHERE id = ?1";
pub(super) const CALLBACKS: &str =
    "SELECT upon, job FROM legwork_callbacks WHERE flow = ?1 AND id IS NULL ORDER BY upon";
const CALLED_BACK: &str = "UPDATE legwork_callbacks SET id = ?3 WHERE flow = ?1 AND upon = ?2";
pub(super) const CALLBACK_OF: &str =
    "SELECT flow FROM legwork_callbacks INDEXED BY legwork_callback_jobs WHERE id = ?1";
pub(super) const NEXT_PRUNE: &str = "
SELECT prune_at FROM legwork_flows AS flow INDEXED BY legwork_next_flow_prune
 WHERE prune_at IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM legwork_callbacks AS callback
                    CROSS JOIN legwork_jobs AS job ON job.id = callback.id
                    WHERE callback.flow = flow.id)
 ORDER BY prune_at LIMIT 1";
/// The flows that may be pruned, without those whose callbacks have not finished, and those that have
/// members of whose end others have still to hear.
pub(super) const EXPIRED: &str = "
SELECT id FROM legwork_flows AS flow INDEXED BY legwork_next_flow_prune
 WHERE prune_at IS NOT NULL AND prune_at <= ?1
   AND NOT EXISTS (SELECT 1 FROM legwork_callbacks AS callback
                    CROSS JOIN legwork_jobs AS job ON job.id = callback.id
                    WHERE callback.flow = flow.id)
   AND NOT EXISTS (SELECT 1 FROM legwork_settling AS settling
                    CROSS JOIN legwork_history AS member ON member.id = settling.job
                    WHERE member.flow = flow.id)
 ORDER BY prune_at LIMIT 1";
/// The first of its members have been pruned: the others follow, whatever comes between.
const GOES: &str = "UPDATE legwork_flows SET prune_at = ?2 WHERE id = ?1 AND prune_at <> ?2";
const IS_GOING: &str = "SELECT 1 FROM legwork_flows WHERE id = ?1 AND prune_at = ?2";
/// When a flow may be pruned of which a part is gone.
const GOING: Micros = Micros::MIN;
pub(super) const MEMBERS: &str = "
SELECT id FROM legwork_history INDEXED BY legwork_finished_members WHERE flow = ?1 LIMIT (?2+0)";
const FORGET: [&str; 2] =
    ["DELETE FROM legwork_callbacks WHERE flow = ?1", "DELETE FROM legwork_flows WHERE id = ?1"];
const RECORD: &str = "
SELECT id, sort, name, properties, created_at, ended_at, members, pending, failed, cancelled
  FROM legwork_flows";

/// A job that a flow's end enqueues.
pub(super) struct Callback {
    pub(super) flow: i64,
    pub(super) upon: Upon,
    pub(super) row: NewRow,
}

fn run(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<usize> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(with)).map_err(storing)
}

/// Counts a new member, whose row is not there yet.
///
/// # Errors
/// [`Error::NoFlow`]; [`Error::FlowEnded`].
pub(super) fn join(conn: &Connection, flow: FlowId) -> Result<()> {
    if run(conn, JOIN, [flow.0])? == 1 {
        return Ok(());
    }
    Err(match record(conn, flow)? {
        Some(_) => Error::FlowEnded(flow),
        None => Error::NoFlow(flow),
    })
}

/// Marks the row of a new member.
pub(super) fn become_member(conn: &Connection, id: i64, flow: FlowId) -> Result<()> {
    run(conn, BECOME_MEMBER, [id, flow.0]).map(drop)
}

/// The counters that a member in this state counts in: failed, cancelled.
fn counts_in(state: State) -> (bool, bool) {
    (state == State::Failed, state == State::Cancelled)
}

/// A member has ended; with the last one, the flow has.
pub(super) fn member_ended(
    conn: &Connection,
    flow: i64,
    state: State,
    now: Micros,
    keep: Retention,
    effects: &mut Effects,
) -> Result<()> {
    let (failed, cancelled) = counts_in(state);
    let pending: Option<i64> = conn
        .prepare_cached(COUNT_END)
        .and_then(|mut count| {
            count.query_row(params![flow, failed, cancelled], |row| row.get(0)).optional()
        })
        .map_err(storing)?;
    if pending == Some(0) { end(conn, flow, now, keep, effects) } else { Ok(()) }
}

/// Whether some of a flow's members have been pruned: the others do not come back.
pub(super) fn is_going(conn: &Connection, flow: i64) -> Result<bool> {
    conn.prepare_cached(IS_GOING)
        .and_then(|mut ask| ask.exists(params![flow, GOING]))
        .map_err(storing)
}

/// A finished member is to run again.
pub(super) fn member_came_back(conn: &Connection, flow: i64, state: State) -> Result<()> {
    let (failed, cancelled) = counts_in(state);
    run(conn, COUNT_RETURN, params![flow, failed, cancelled]).map(drop)
}

/// No member is pending any more.
fn end(
    conn: &Connection,
    flow: i64,
    now: Micros,
    keep: Retention,
    effects: &mut Effects,
) -> Result<()> {
    let (state, own): (FlowState, Option<String>) = conn
        .prepare_cached(READ_COUNTS)
        .and_then(|mut ask| {
            ask.query_row([flow], |row| {
                let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
                Ok((state(count(0)?, count(1)?, count(2)?), row.get(3)?))
            })
        })
        .map_err(storing)?;
    // What another version wrote and this one cannot read falls back to the default.
    let own = own.and_then(|json| serde_json::from_str::<Retention>(&json).ok());
    let kept = own.unwrap_or(keep).of(match state {
        FlowState::Failed => State::Failed,
        FlowState::Cancelled => State::Cancelled,
        FlowState::Running | FlowState::Completed => State::Completed,
    });
    let prune_at = now.saturating_add(micros_of(kept));
    run(conn, END, params![flow, now, prune_at])?;
    effects.prune_at(prune_at);
    effects.ended.push((FlowId(flow), state));
    let mut ask = conn.prepare_cached(CALLBACKS).map_err(storing)?;
    let waiting: Vec<(String, String)> = ask
        .query_map([flow], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(storing)?;
    for (word, json) in waiting {
        let Some(upon) = Upon::from_word(&word).filter(|upon| calls_back(*upon, state)) else {
            continue;
        };
        // It was checked with the flow; another hand may have changed it since.
        let row = serde_json::from_str::<NewJob>(&json)
            .map_err(|source| Error::Json { what: "callback", source })
            .and_then(|job| job.into_row(now, usize::MAX));
        match row {
            Ok(mut row) => {
                row.report_conflict();
                effects.callbacks.push(Callback { flow, upon, row });
            }
            Err(error) => log::error!("legwork: the {word} callback of flow {flow}: {error}"),
        }
    }
    Ok(())
}

/// A callback was enqueued, and is not again.
pub(super) fn called_back(conn: &Connection, flow: i64, upon: Upon, id: JobId) -> Result<()> {
    run(conn, CALLED_BACK, params![flow, upon.word(), id.0]).map(drop)
}

/// Puts a flow's row in place; its members join one by one.
fn create(conn: &Connection, id: FlowId, flow: &FlowRow, now: Micros) -> Result<()> {
    let keep = flow.keep.map(|keep| serde_json::to_string(&keep).expect("durations are JSON"));
    let FlowRow { sort, name, properties, .. } = flow;
    run(conn, CREATE, params![id.0, sort, name, properties, now, keep])?;
    for (upon, job) in &flow.callbacks {
        run(conn, ADD_CALLBACK, params![id.0, upon.word(), job])?;
    }
    Ok(())
}

/// A flow's members as rows that name their parents by id; the first one has the id `first`.
fn rows(flow: &FlowRow, id: FlowId, first: i64) -> impl Iterator<Item = NewRow> {
    flow.members.iter().map(move |(row, parents)| {
        let mut row = row.clone();
        row.join(id);
        row.parents.extend(parents.iter().map(|&at| JobId(first + at as i64)));
        row.parents.sort_unstable();
        row.parents.dedup();
        row
    })
}

impl Book {
    /// Enqueues a flow and all its members, or nothing.
    pub(super) fn enqueue_flow(
        &mut self,
        flow: &FlowRow,
        now: Micros,
        keep: Retention,
    ) -> Result<EnqueuedFlow> {
        let id = FlowId(self.last_id() + 1);
        self.gave_ids(id.0);
        create(&self.conn, id, flow, now)?;
        let rows: Vec<NewRow> = rows(flow, id, id.0 + 1).collect();
        let done = self.insert(&rows, &mut super::demand::Demand::default())?;
        if rows.is_empty() {
            let mut effects = Effects::default();
            end(&self.conn, id.0, now, keep, &mut effects)?;
            self.carry_out(effects)?;
        }
        Ok(EnqueuedFlow { id, members: done.iter().map(|done| done.id()).collect() })
    }

    /// Removes a bite of the members of an ended flow that may be pruned at `now`, and with the last
    /// of them the flow; how many members. One that is begun with is the first at the next call. `None`: there is no such flow.
    pub(super) fn prune_flow(&self, now: Micros, limit: u64) -> Result<Option<u64>> {
        let Some(flow) = self
            .conn
            .prepare_cached(EXPIRED)
            .and_then(|mut ask| ask.query_row([now], |row| row.get::<_, i64>(0)).optional())
            .map_err(storing)?
        else {
            return Ok(None);
        };
        self.remove_flow(flow, limit).map(Some)
    }

    /// Removes a bite of the members of one that has ended, and with the last of them the flow.
    pub(super) fn remove_flow(&self, flow: i64, limit: u64) -> Result<u64> {
        let mut ask = self.conn.prepare_cached(MEMBERS).map_err(storing)?;
        let members: Vec<i64> = ask
            .query_map(params![flow, limit.cast_signed()], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(storing)?;
        for &id in &members {
            self.forget_job(id)?;
        }
        let removed = members.len() as u64;
        if removed >= limit {
            run(&self.conn, GOES, params![flow, GOING])?;
        } else {
            for sql in FORGET {
                run(&self.conn, sql, [flow])?;
            }
        }
        Ok(removed)
    }
}

/// The same as [`Book::enqueue_flow`] on a connection of the app.
pub(super) fn enqueue_on(
    conn: &Connection,
    flow: &FlowRow,
    now: Micros,
    keep: Retention,
) -> Result<EnqueuedFlow> {
    let id = FlowId(enqueue::take_id_on(conn)?);
    create(conn, id, flow, now)?;
    let members = rows(flow, id, id.0 + 1)
        .map(|row| enqueue::insert_on(conn, &row, keep).map(|done| done.id()))
        .collect::<Result<Vec<JobId>>>()?;
    if members.is_empty() {
        let mut effects = Effects::default();
        end(conn, id.0, now, keep, &mut effects)?;
        super::ends::carry_out_on(conn, effects, now, keep)?;
    }
    Ok(EnqueuedFlow { id, members })
}

fn read(row: &Row<'_>) -> rusqlite::Result<FlowRecord> {
    let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
    let (members, pending, failed, cancelled) = (count(6)?, count(7)?, count(8)?, count(9)?);
    let ended_at: Option<Micros> = row.get(5)?;
    let properties: String = row.get(3)?;
    Ok(FlowRecord {
        id: FlowId(row.get(0)?),
        sort: row.get(1)?,
        name: row.get(2)?,
        // What another hand has broken shows as nothing.
        properties: serde_json::from_str(&properties).unwrap_or_default(),
        // An empty one has ended as soon as it was there, too.
        state: state(pending, failed, cancelled),
        created_at: from_micros(row.get(4)?),
        ended_at: ended_at.map(from_micros),
        members,
        pending,
        completed: members.saturating_sub(pending + failed + cancelled),
        failed,
        cancelled,
    })
}

/// One flow.
pub(super) fn record(conn: &Connection, id: FlowId) -> Result<Option<FlowRecord>> {
    conn.prepare_cached(&format!("{RECORD} WHERE id = ?1"))
        .and_then(|mut ask| ask.query_row([id.0], read).optional())
        .map_err(storing)
}

/// A page of the flows, newest first.
pub(super) fn list(conn: &Connection, before: Option<FlowId>, limit: usize) -> Result<FlowPage> {
    let limit = limit.clamp(1, 10_000);
    let before = before.map_or(i64::MAX, |id| id.0);
    let sql = format!("{RECORD} WHERE id < ?1 ORDER BY id DESC LIMIT (?2+0)");
    let mut flows: Vec<FlowRecord> = conn
        .prepare_cached(&sql)
        .and_then(|mut ask| ask.query_map(params![before, limit as i64 + 1], read)?.collect())
        .map_err(storing)?;
    let more = flows.len() > limit;
    flows.truncate(limit);
    let next = if more { flows.last().map(|flow| flow.id) } else { None };
    Ok(FlowPage { flows, next })
}

/// The flow whose callback a job is.
pub(super) fn called_by(conn: &Connection, id: JobId) -> Result<Option<FlowId>> {
    conn.prepare_cached(CALLBACK_OF)
        .and_then(|mut ask| ask.query_row([id.0], |row| row.get(0).map(FlowId)).optional())
        .map_err(storing)
}
