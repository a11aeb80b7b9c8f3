//! Who holds a unique key: taken with an insert, moved or freed with a start and an end, always in
//! the transaction that makes the change.
//!
//! The primary key of `legwork_unique` decides, no look-up beforehand. Slot 0 is the holder. Under
//! [`Hold::KeepLast`] it is the one that waits, and slot 1 the one that runs.
//!
//! All of it works on any connection: the writer's, and one of the app in its own transaction. What
//! became claimable by it is returned, since the two tell others in different ways.

use rusqlite::{Connection, OptionalExtension, params};

use super::errors::storing;
use super::lanes::{Key as Place, LaneId};
use super::{limits, steps};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::rules::unique::{Hold, Key};
use crate::state::State;
use crate::unique::{Conflict, Enqueued};

/// Takes the key, or takes it over from a period that is over; also from one that more than twice its
/// length is left of: the clock was ahead when it began.
pub(super) const TAKE: &str = "
INSERT INTO legwork_unique (key, slot, job, until, period) VALUES (?1, 0, ?2, ?3, ?3 - ?4)
    ON CONFLICT (key, slot) DO UPDATE
   SET job = excluded.job, until = excluded.until, period = excluded.period
 WHERE legwork_unique.until <= ?4 OR legwork_unique.until - ?4 > 2 * legwork_unique.period";
/// A holder whose time to start is over holds nothing, though nobody has ended it yet. Its row keeps the
/// key: with that it takes it again if it is retried.
pub(super) const LET_GO: &str = "
DELETE FROM legwork_unique
 WHERE key = ?1 AND slot = 0
   AND EXISTS (SELECT 1 FROM legwork_jobs
                WHERE id = legwork_unique.job AND instance IS NULL AND expires_at <= ?2)";
/// The one that runs goes before the one that waits.
pub(super) const HOLDER: &str =
    "SELECT job FROM legwork_unique WHERE key = ?1 ORDER BY slot DESC LIMIT 1";
pub(super) const IN_SLOT: &str = "SELECT job FROM legwork_unique WHERE key = ?1 AND slot = ?2";
pub(super) const FREE: &str = "DELETE FROM legwork_unique WHERE key = ?1 AND job = ?2";
pub(super) const START: &str =
    "UPDATE OR IGNORE legwork_unique SET slot = 1 WHERE key = ?1 AND slot = 0 AND job = ?2";
pub(super) const WAIT_AGAIN: &str =
    "UPDATE OR IGNORE legwork_unique SET slot = 0 WHERE key = ?1 AND slot = 1 AND job = ?2";
/// Whether the new job is the same work as the one that waits: the same kind and arguments.
pub(super) const IS_SAME: &str = "
SELECT args = ?3 AND (SELECT kind FROM legwork_lanes WHERE id = lane)
                   = (SELECT kind FROM legwork_lanes WHERE id = ?2)
  FROM legwork_jobs WHERE id = ?1 AND instance IS NULL";
/// One that is blocked by its key or by parents stays so, while a line is left: its limits are new. The
/// same work (?12) stays suspect, and keeps its attempts and the time of its retry; other work is new.
pub(super) const REPLACE: &str = "
UPDATE legwork_jobs
   SET lane = ?2, priority = ?4, args = ?6, options = ?7, tags = ?8, meta = ?9,
       limits = ?11, waits_on = NULL, waits_as = NULL,
       state = CASE WHEN ?12 AND crashes IS NOT NULL AND state NOT IN (1, 5) THEN 3
                    WHEN ?12 AND (crashes IS NOT NULL OR state = 5) THEN state
                    WHEN state = 2 AND waits_on IS NULL THEN state ELSE ?3 END,
       run_at = CASE WHEN ?12 AND (crashes IS NOT NULL OR state = 5) THEN run_at ELSE ?5 END,
       expires_at = CASE WHEN ?12 AND (crashes IS NOT NULL OR state = 5) THEN NULL ELSE ?10 END,
       attempts = CASE WHEN ?12 THEN attempts ELSE 0 END,
       first_started_at = CASE WHEN ?12 THEN first_started_at END,
       crashes = CASE WHEN ?12 THEN crashes END,
       has_steps = CASE WHEN ?12 THEN has_steps END,
       progress_done = CASE WHEN ?12 THEN progress_done END,
       progress_total = CASE WHEN ?12 THEN progress_total END,
       message = CASE WHEN ?12 THEN message END
 WHERE id = ?1 AND instance IS NULL";
pub(super) const UNTIL: &str =
    "SELECT until FROM legwork_unique WHERE key = ?1 AND slot = 0 AND job = ?2";
const LINE_OF: &str = "SELECT waits_on FROM legwork_jobs WHERE id = ?1";
pub(super) const WAITING: &str = "
SELECT state, lane, priority, run_at FROM legwork_jobs WHERE id = ?1 AND instance IS NULL";
pub(super) const UNBLOCK: &str = "
UPDATE legwork_jobs SET state = CASE WHEN run_at <= ?2 THEN 3 ELSE 1 END  -- ready or scheduled
 WHERE id = ?1 AND state = 2 AND waits_on IS NULL AND parents_left IS NULL";
pub(super) const BLOCK: &str = "
UPDATE legwork_jobs SET state = 2, crashes = NULL, waits_on = NULL, waits_as = NULL
 WHERE id = ?1 AND instance IS NULL";
/// Periods that are over.
pub(super) const OVER: &str = "
DELETE FROM legwork_unique WHERE (key, slot) IN (
    SELECT key, slot FROM legwork_unique INDEXED BY legwork_unique_until
     WHERE until IS NOT NULL AND until <= ?1 ORDER BY until LIMIT (?2+0))";
pub(super) const NEXT_OVER: &str = "
SELECT until FROM legwork_unique INDEXED BY legwork_unique_until
 WHERE until IS NOT NULL ORDER BY until LIMIT 1";

/// A key that a job has, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) key: String,
    pub(crate) hold: Hold,
}

impl Held {
    pub(super) fn of(key: &Key) -> Held {
        Held { key: key.name.clone(), hold: key.hold }
    }

    /// From the two columns of a row; `None`: the job has no key.
    pub(super) fn from_columns(key: Option<String>, hold: Option<i64>) -> Option<Held> {
        Some(Held { key: key?, hold: Hold::from_code(hold?)? })
    }
}

/// A job that waits, now that a key was freed or its row replaced.
pub(super) struct Waits {
    pub(super) state: State,
    pub(super) lane: LaneId,
    pub(super) place: Place,
    /// The line that it has left.
    pub(super) left: Option<String>,
}

/// What an insert has to do about the job's key.
pub(super) enum Taken {
    /// The job is inserted, in this state.
    Insert(State),
    /// It is not. If the holder was replaced: where that waits now.
    Not(Enqueued, Option<Waits>),
}

fn one(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<Option<i64>> {
    conn.prepare_cached(sql)
        .and_then(|mut ask| ask.query_row(with, |row| row.get(0)).optional())
        .map_err(storing)
}

fn run(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<usize> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(with)).map_err(storing)
}

enum Seized {
    /// The job has it. One that keeps the last may have another one running before it.
    Mine { another_runs: bool },
    /// This one has it.
    Anothers(i64),
}

/// Takes a key if it is free.
fn seize(
    conn: &Connection,
    key: &str,
    id: i64,
    hold: Hold,
    until: Option<Micros>,
    now: Micros,
) -> Result<Seized> {
    let running = one(conn, IN_SLOT, params![key, 1])?;
    let keeps_last = hold == Hold::KeepLast;
    if running.is_none() || keeps_last {
        let values = params![key, id, until, now];
        if run(conn, TAKE, values)? == 1
            || run(conn, LET_GO, params![key, now])? == 1 && run(conn, TAKE, values)? == 1
        {
            return Ok(Seized::Mine { another_runs: running.is_some() });
        }
    }
    Ok(Seized::Anothers(match running {
        Some(running) if !keeps_last => running,
        _ => one(conn, IN_SLOT, params![key, 0])?.unwrap_or(id),
    }))
}

/// Takes the key of a new job, or settles the conflict.
///
/// # Errors
/// [`Error::NotUnique`] if the job is to be refused then.
pub(super) fn take(
    conn: &Connection,
    id: i64,
    lane: LaneId,
    row: &NewRow,
    key: &Key,
) -> Result<Taken> {
    let holder = match seize(conn, &key.name, id, key.hold, key.until, row.enqueued_at)? {
        Seized::Mine { another_runs } => {
            let state = if another_runs { State::Blocked } else { row.state };
            return Ok(Taken::Insert(state));
        }
        Seized::Anothers(holder) => holder,
    };
    let holder_id = JobId(holder);
    let taken = match key.conflict {
        Conflict::Reject if key.report => {
            Taken::Not(Enqueued::Rejected { holder: holder_id }, None)
        }
        Conflict::Reject => {
            return Err(Error::NotUnique { key: key.name.clone(), holder: holder_id });
        }
        Conflict::Ignore => Taken::Not(Enqueued::Existing(holder_id), None),
        Conflict::Replace | Conflict::KeepLast => match replace(conn, holder, lane, row)? {
            Some(waits) => Taken::Not(Enqueued::Replaced(holder_id), Some(waits)),
            None => Taken::Not(Enqueued::Existing(holder_id), None),
        },
    };
    Ok(taken)
}

/// `None`: it no longer waits.
fn replace(conn: &Connection, holder: i64, lane: LaneId, row: &NewRow) -> Result<Option<Waits>> {
    let Some(same) = one(conn, IS_SAME, params![holder, lane, row.args])? else { return Ok(None) };
    let values = params![
        holder,
        lane,
        row.state.code(),
        row.priority,
        row.run_at,
        row.args,
        row.options,
        row.tags,
        row.meta,
        row.expires_at,
        row.limits.as_ref().map(limits::to_json),
        same
    ];
    let left: Option<String> = conn
        .prepare_cached(LINE_OF)
        .and_then(|mut ask| ask.query_row([holder], |row| row.get(0)).optional())
        .map_err(storing)?
        .flatten();
    if run(conn, REPLACE, values)? == 0 {
        return Ok(None);
    }
    if same == 0 {
        // What is stored of its steps is the work of its old arguments.
        run(conn, steps::FORGET, [holder])?;
    }
    Ok(waiting(conn, holder)?.map(|waits| Waits { left, ..waits }))
}

fn waiting(conn: &Connection, id: i64) -> Result<Option<Waits>> {
    conn.prepare_cached(WAITING)
        .and_then(|mut ask| {
            ask.query_row([id], |row| {
                Ok(Waits {
                    state: State::from_code(row.get(0)?).unwrap_or(State::Blocked),
                    lane: row.get(1)?,
                    place: Place { priority: row.get(2)?, run_at: row.get(3)?, id },
                    left: None,
                })
            })
            .optional()
        })
        .map_err(storing)
}

/// Whether another job runs beside which this one has to wait.
pub(super) fn runs_beside(conn: &Connection, id: i64, held: &Held) -> Result<bool> {
    Ok(one(conn, IN_SLOT, params![held.key, 1])?.is_some_and(|running| running != id))
}

/// An attempt of a job starts whose hold moves then. `false`: it must not, another one runs.
pub(super) fn start(conn: &Connection, id: i64, held: &Held) -> Result<bool> {
    match held.hold {
        Hold::UntilStarted => run(conn, FREE, params![held.key, id]).map(|_| true),
        Hold::KeepLast if run(conn, START, params![held.key, id])? == 1 => Ok(true),
        // It has the slot already: this is a backup, in which nothing runs.
        Hold::KeepLast if one(conn, IN_SLOT, params![held.key, 1])? == Some(id) => Ok(true),
        Hold::KeepLast => {
            run(conn, BLOCK, [id])?;
            Ok(false)
        }
        Hold::UntilFinished | Hold::Period => Ok(true),
    }
}

/// A job that has run is to wait again. `Some`: it must not, this newer job has its place.
pub(super) fn wait_again(
    conn: &Connection,
    id: i64,
    held: &Held,
    now: Micros,
) -> Result<Option<JobId>> {
    let has_it = match held.hold {
        Hold::UntilFinished | Hold::Period => return Ok(None),
        Hold::UntilStarted => run(conn, TAKE, params![held.key, id, None::<Micros>, now])? == 1,
        Hold::KeepLast => run(conn, WAIT_AGAIN, params![held.key, id])? == 1,
    };
    if has_it {
        return Ok(None);
    }
    let holder = one(conn, IN_SLOT, params![held.key, 0])?;
    Ok(holder.filter(|&holder| holder != id).map(JobId))
}

/// Why a job ends that a newer one has taken the place of.
pub(super) fn superseded(newer: JobId) -> String {
    format!("superseded by job {newer}")
}

/// A job ends, or goes: its key is free, unless a period holds it. What waited for that end is
/// returned.
pub(super) fn free(
    conn: &Connection,
    id: i64,
    held: &Held,
    never_started: bool,
    now: Micros,
) -> Result<Option<Waits>> {
    if held.hold == Hold::Period && !never_started {
        return Ok(None);
    }
    run(conn, FREE, params![held.key, id])?;
    if held.hold != Hold::KeepLast {
        return Ok(None);
    }
    match one(conn, IN_SLOT, params![held.key, 0])? {
        Some(next) if run(conn, UNBLOCK, params![next, now])? == 1 => waiting(conn, next),
        _ => Ok(None),
    }
}

/// A finished job is to run again: it takes its key anew. `Err`: another job has it.
pub(super) fn revive(
    conn: &Connection,
    id: i64,
    held: &Held,
    now: Micros,
) -> Result<std::result::Result<State, JobId>> {
    let taken = |holder: Option<i64>| match holder {
        Some(holder) if holder != id => Err(JobId(holder)),
        _ => Ok(State::Ready),
    };
    if held.hold == Hold::Period {
        let values = params![held.key, id, now, now];
        // Over at once: only another one's period stands in the way.
        return if run(conn, TAKE, values)? == 1 {
            Ok(Ok(State::Ready))
        } else {
            one(conn, HOLDER, [&held.key]).map(taken)
        };
    }
    let running = one(conn, IN_SLOT, params![held.key, 1])?;
    if (running.is_none() || held.hold == Hold::KeepLast)
        && run(conn, TAKE, params![held.key, id, None::<Micros>, now])? == 1
    {
        return Ok(Ok(if running.is_some() { State::Blocked } else { State::Ready }));
    }
    match one(conn, IN_SLOT, params![held.key, 0])? {
        waits @ Some(_) => Ok(taken(waits)),
        None => Ok(taken(running)),
    }
}

/// Another key for a job that waits.
pub(super) struct Renamed {
    /// Another job runs beside which it has to wait now.
    pub(super) another_runs: bool,
    /// The end of the period for which it holds it.
    pub(super) until: Option<Micros>,
}

/// Gives a job that waits another key, and frees the one that it had as if it ended; a period goes on
/// with the new one. `Err`: this job has that key, and nothing was changed.
pub(super) fn rename(
    conn: &Connection,
    id: i64,
    held: &Held,
    key: &str,
    never_started: bool,
    now: Micros,
) -> Result<std::result::Result<Renamed, JobId>> {
    let period = held.hold == Hold::Period;
    let until = if period {
        let until: Option<Option<i64>> = conn
            .prepare_cached(UNTIL)
            .and_then(|mut ask| ask.query_row(params![held.key, id], |row| row.get(0)).optional())
            .map_err(storing)?;
        Some(until.flatten().map_or(now, |until| until.max(now)))
    } else {
        None
    };
    let another_runs = match seize(conn, key, id, held.hold, until, now)? {
        Seized::Mine { another_runs } => another_runs,
        // A period of its own, of when it had this key before.
        Seized::Anothers(holder) if holder == id => false,
        Seized::Anothers(holder) => return Ok(Err(JobId(holder))),
    };
    if !period || never_started {
        run(conn, FREE, params![held.key, id])?;
    }
    Ok(Ok(Renamed { another_runs, until }))
}

/// Removes a bite of periods that are over.
pub(super) fn prune(conn: &Connection, now: Micros, limit: u64) -> Result<u64> {
    run(conn, OVER, params![now, limit.cast_signed()]).map(|removed| removed as u64)
}
