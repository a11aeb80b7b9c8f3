//! Inserting jobs: by the writer, which may hand them to a waiting worker in the same statement, and
//! on a connection of the app.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::book::Book;
use super::counter::Counter;
use super::demand::Demand;
use super::ends::{self, Effects};
use super::errors::storing;
use super::lanes::{Key, LaneId};
use super::limits::{self, InLine};
use super::unique::{self, Taken, Waits};
use super::{edges, flows};
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::{NewRow, Retention};
use crate::state::State;
use crate::store::ClaimRef;
use crate::unique::Enqueued;

pub(super) const INSERT: &str = "
INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args, options, tags, meta,
                          instance, token, started_at, unique_key, unique_hold, expires_at,
                          limits, waits_on, waits_as)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";

/// The claim that a job comes into being with.
#[derive(Clone, Copy)]
pub(super) struct Born {
    pub(super) claim: ClaimRef,
    /// `None`: claimed ahead.
    pub(super) started_at: Option<Micros>,
}

fn insert_row(
    insert: &mut CachedStatement<'_>,
    id: i64,
    lane: LaneId,
    row: &NewRow,
    state: State,
    line: Option<&InLine>,
    born: Option<Born>,
) -> Result<()> {
    let started_at = born.and_then(|born| born.started_at);
    let state = if started_at.is_some() { State::Running } else { state };
    insert
        .execute(params![
            id,
            lane,
            state.code(),
            row.priority,
            row.run_at,
            row.enqueued_at,
            row.args,
            row.options,
            row.tags,
            row.meta,
            born.map(|born| born.claim.instance),
            born.map(|born| born.claim.token),
            started_at,
            row.unique.as_ref().map(|key| &key.name),
            row.unique.as_ref().map(|key| key.hold.code()),
            row.expires_at,
            row.limits.as_ref().map(limits::to_json),
            line.map(|at| &at.line),
            line.map(|at| &at.terms),
        ])
        .map(drop)
        .map_err(storing)
}

impl Book {
    /// Inserts `rows`, in their order; those that somebody waits for, and that nothing ready goes
    /// before, as claimed. Those whose unique key is taken are not, or replace the one that has it.
    pub(super) fn insert(
        &mut self,
        rows: &[NewRow],
        demand: &mut Demand<'_>,
    ) -> Result<Vec<Enqueued>> {
        let lanes = self.lanes_of(rows)?;
        let mut id = self.last_id();
        let mut done = Vec::with_capacity(rows.len());
        let (mut due, mut over, mut expiry) = (None, None, None);
        let mut wait = |state: State, run_at| {
            if matches!(state, State::Scheduled | State::Retrying) {
                due = due.into_iter().chain([run_at]).min();
            }
        };
        let first = id + 1;
        let mut effects = Effects::default();
        let mut insert = self.conn.prepare_cached(INSERT).map_err(storing)?;
        for (row, &lane) in rows.iter().zip(&lanes) {
            let next = id + 1;
            let taken = match &row.unique {
                None => Taken::Insert(row.state),
                Some(key) => unique::take(&self.conn, next, lane, row, key)?,
            };
            let mut state = match taken {
                Taken::Insert(state) => state,
                Taken::Not(instead, waits) => {
                    if let Some(Waits { state, lane, place, left }) = waits {
                        self.lines.extend(left);
                        expiry = expiry.into_iter().chain(row.expires_at).min();
                        wait(state, place.run_at);
                        if state == State::Ready {
                            self.lanes.lower(lane, place);
                            self.made_ready.insert(lane);
                        }
                    }
                    done.push(instead);
                    continue;
                }
            };
            id = next;
            expiry = expiry.into_iter().chain(row.expires_at).min();
            over = over.into_iter().chain(row.unique.as_ref().and_then(|key| key.until)).min();
            done.push(Enqueued::New(JobId(id)));
            let key = Key { priority: row.priority, run_at: row.run_at, id };
            let related = row.flow.is_some() || !row.parents.is_empty();
            let left = if related { relate(&self.conn, id, row, first, &mut effects)? } else { 0 };
            if left > 0 {
                state = State::Blocked;
            }
            let mut line = None;
            if let Some(limits) = row.limits.as_ref().filter(|_| state == State::Ready) {
                (state, line) = limits::enter(&self.conn, lane, key, limits, row.enqueued_at)?;
                if let Some(at) = line.as_ref().filter(|_| state == State::Blocked) {
                    self.lines.insert(at.line.clone());
                }
            }
            let ready = state == State::Ready;
            // One that frees or moves its key at the start, or can expire, goes by the claim.
            let by_claim = related
                || row.expires_at.is_some()
                || row.limits.is_some()
                || row.unique.as_ref().is_some_and(|key| key.hold.moves_at_start());
            let taker =
                if ready && !by_claim { demand.taker(&self.lanes, lane, key) } else { None };
            let born = taker.as_ref().map(|taker| {
                self.last_token += 1;
                taker.claim(JobId(id), self.last_token)
            });
            insert_row(&mut insert, id, lane, row, state, line.as_ref(), born)?;
            if related {
                mark(&self.conn, id, row, left)?;
            }
            match (taker, born) {
                (Some(taker), Some(born)) => {
                    demand.give(taker, born, row, lane, self.lanes.names(lane));
                }
                _ if ready => {
                    self.lanes.lower(lane, key);
                    self.made_ready.insert(lane);
                }
                _ => wait(state, row.run_at),
            }
        }
        drop(insert);
        self.gave_ids(id);
        if rows.iter().any(|row| !row.parents.is_empty()) {
            self.edges_came();
            self.flows.unsettled.extend(effects.unsettled);
        }
        if let Some(over) = over {
            self.prune_at(over);
        }
        if let Some(expiry) = expiry {
            self.expires_at(expiry);
        }
        if let Some(due) = due {
            self.due_at(due);
            if !self.lanes.has_pools() {
                // The alarm is for others to set.
                self.news_for_others();
            }
        }
        Ok(done)
    }

    fn lanes_of(&mut self, rows: &[NewRow]) -> Result<Vec<LaneId>> {
        let mut lanes = Vec::with_capacity(rows.len());
        let mut last: Option<(&NewRow, LaneId)> = None;
        for row in rows {
            let lane = match last {
                // A bulk is mostly of one kind.
                Some((seen, lane)) if seen.is_of_lane(row) => lane,
                _ => self.lane(&row.queue, &row.kind, row.gate())?,
            };
            last = Some((row, lane));
            lanes.push(lane);
        }
        Ok(lanes)
    }
}

/// Ties a new job to its parents and its flow; for how many parents it waits.
fn relate(
    conn: &Connection,
    id: i64,
    row: &NewRow,
    first_new: i64,
    effects: &mut Effects,
) -> Result<i64> {
    if let Some(flow) = row.flow {
        flows::join(conn, flow)?;
    }
    edges::link(conn, id, row, first_new, effects)
}

/// Writes what only jobs have that belong to others, so that the rest need not bind it.
fn mark(conn: &Connection, id: i64, row: &NewRow, left: i64) -> Result<()> {
    if let Some(flow) = row.flow {
        flows::become_member(conn, id, flow)?;
    }
    if left > 0 { edges::wait_for_parents(conn, id, left) } else { Ok(()) }
}

const FIND_LANE: &str = "SELECT id FROM legwork_lanes WHERE queue = ?1 AND kind = ?2 AND gate = ?3";
const CREATE_LANE: &str = "INSERT INTO legwork_lanes (queue, kind, gate) VALUES (?1, ?2, ?3)";

/// Finds or creates a lane on any connection; `true`: created.
pub(super) fn find_or_create_lane(
    conn: &Connection,
    queue: &str,
    kind: &str,
    gate: &str,
) -> Result<(LaneId, bool)> {
    let found = conn
        .prepare_cached(FIND_LANE)
        .and_then(|mut find| find.query_row([queue, kind, gate], |row| row.get(0)).optional())
        .map_err(storing)?;
    if let Some(id) = found {
        return Ok((id, false));
    }
    conn.prepare_cached(CREATE_LANE)
        .and_then(|mut create| create.execute([queue, kind, gate]))
        .map_err(storing)?;
    Ok((conn.last_insert_rowid(), true))
}

const TAKE_LOCK: &str = "UPDATE legwork_counter SET last_job = last_job WHERE one = 1";

/// Inserts one job on a connection of the app, in its transaction if it has one open.
pub(super) fn insert_on(conn: &Connection, row: &NewRow, keep: Retention) -> Result<Enqueued> {
    // Outside a transaction the savepoint is one: all the statements below, or none.
    conn.execute_batch("SAVEPOINT legwork_enqueue").map_err(storing)?;
    let inserted = insert_steps(conn, row, keep)
        .and_then(|id| conn.execute_batch("RELEASE legwork_enqueue").map_err(storing).map(|()| id));
    if inserted.is_err() {
        // After a full disk SQLite may have rolled the app's transaction back; then there is no
        // savepoint left to undo, and the first error is the one that tells.
        let undo = "ROLLBACK TO legwork_enqueue; RELEASE legwork_enqueue";
        if let Err(undoing) = conn.execute_batch(undo) {
            log::debug!("legwork: undoing an enqueue: {undoing}");
        }
    }
    inserted
}

fn insert_steps(conn: &Connection, row: &NewRow, keep: Retention) -> Result<Enqueued> {
    // First a write, even if it changes nothing: what is read next cannot grow old.
    conn.prepare_cached(TAKE_LOCK).and_then(|mut take| take.execute([])).map_err(storing)?;
    let mut counter = Counter::read(conn)?;
    let (lane, is_new) = find_or_create_lane(conn, &row.queue, &row.kind, row.gate())?;
    let id = counter.last_job + 1;
    let taken = match &row.unique {
        None => Taken::Insert(row.state),
        Some(key) => unique::take(conn, id, lane, row, key)?,
    };
    let mut lines = Vec::new();
    let mut effects = Effects::default();
    let (done, changed) = match taken {
        Taken::Insert(mut state) => {
            counter.last_job = id;
            let left = relate(conn, id, row, id, &mut effects)?;
            if left > 0 {
                state = State::Blocked;
            }
            let mut line = None;
            if let Some(limits) = row.limits.as_ref().filter(|_| state == State::Ready) {
                let key = Key { priority: row.priority, run_at: row.run_at, id };
                (state, line) = limits::enter(conn, lane, key, limits, row.enqueued_at)?;
                lines.extend(line.as_ref().map(|at| at.line.clone()));
            }
            let mut insert = conn.prepare_cached(INSERT).map_err(storing)?;
            insert_row(&mut insert, id, lane, row, state, line.as_ref(), None)?;
            mark(conn, id, row, left)?;
            (Enqueued::New(JobId(id)), Some(lane))
        }
        Taken::Not(instead, waits) => {
            let lane = waits.as_ref().map(|waits| waits.lane);
            lines.extend(waits.and_then(|waits| waits.left));
            (instead, lane)
        }
    };
    // A new lane is told to others even if the job does not come into it.
    if let Some(lane) = changed.or(is_new.then_some(lane)) {
        limits::advance_on(conn, lines, row.enqueued_at, &mut counter)?;
        counter.lane_changed(lane);
        counter.rules += 1;
        counter.write(conn)?;
    }
    ends::carry_out_on(conn, effects, row.enqueued_at, keep)?;
    Ok(done)
}

/// Takes the next id on a connection of the app, for something else than a job.
pub(super) fn take_id_on(conn: &Connection) -> Result<i64> {
    conn.prepare_cached(TAKE_LOCK).and_then(|mut take| take.execute([])).map_err(storing)?;
    let mut counter = Counter::read(conn)?;
    counter.last_job += 1;
    counter.write(conn)?;
    Ok(counter.last_job)
}
