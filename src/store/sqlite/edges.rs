//! Parents and children: who waits for whom.
//!
//! > **The invariant of edges.** A job that waits has in `parents_left` how many of its edges are not
//! > done, and is blocked while there are any. An edge whose parent has finished as the child wants it is
//! > done, or the parent is *unsettled*.
//!
//! Whatever ends a job or brings one back names it as unsettled, and [`settle`] restores the invariant:
//! for each child in turn it looks at how the parent stands *now*, so that it does no harm to come by twice,
//! or late. A transaction settles a bite; what is left stands in `legwork_settling`.

use rusqlite::{Connection, OptionalExtension, params};

use super::ends::{Effects, Why, cancel_waiting, live};
use super::errors::storing;
use super::lanes::Key as Place;
use super::limits::{self, InLine};
use super::unique::{self, Held, Waits};
use super::{control, flows};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::{NewRow, Retention};
use crate::rules::flow::{Fate, Standing, fate, reason};
use crate::rules::unique::Hold;
use crate::state::State;

/// So many children hear of an end in one transaction.
pub(super) const BITE: usize = 256;

const ANY: &str =
    "SELECT EXISTS (SELECT 1 FROM legwork_edges), EXISTS (SELECT 1 FROM legwork_settling)";
const LINK: &str = "
INSERT INTO legwork_edges (parent, child, anyway, done) VALUES (?1, ?2, ?3, ?4)";
const IS_LIVE: &str = "SELECT 1 FROM legwork_jobs WHERE id = ?1";
const FINISHED_AS: &str = "SELECT state FROM legwork_history WHERE id = ?1";
/// The children that have not heard of their parent's end.
pub(super) const CHILDREN: &str = "
SELECT child, anyway FROM legwork_edges
 WHERE parent = ?1 AND child > ?2 AND done = 0 ORDER BY child LIMIT (?3+0)";
const DONE: &str =
    "UPDATE legwork_edges SET done = 1 WHERE parent = ?1 AND child = ?2 AND done = 0";
const ONE_LESS: &str = "
UPDATE legwork_jobs SET parents_left = nullif(parents_left - 1, 0)
 WHERE id = ?1 AND parents_left > 0 RETURNING parents_left IS NULL";
const READ_WAITING: &str = "
SELECT lane, priority, run_at, limits, unique_key, unique_hold FROM legwork_jobs WHERE id = ?1";
const GO_ON: &str = "
UPDATE legwork_jobs SET state = ?2, waits_on = ?3, waits_as = ?4 WHERE id = ?1";
/// How many parents a job still waits for.
pub(super) const LEFT: &str = "
SELECT count(*) FROM legwork_edges INDEXED BY legwork_parents WHERE child = ?1 AND done = 0";
/// A parent for which a job waits in vain: it has failed, was cancelled, or is not there at all.
pub(super) const IN_VAIN: &str = "
SELECT edge.parent FROM legwork_edges AS edge INDEXED BY legwork_parents
  LEFT JOIN legwork_history AS parent ON parent.id = edge.parent
 WHERE edge.child = ?1 AND edge.done = 0 AND edge.anyway = 0
   AND (parent.state IN (7, 8)
        OR parent.id IS NULL AND NOT EXISTS (SELECT 1 FROM legwork_jobs WHERE id = edge.parent))
 LIMIT 1";
const CAUSE: &str = "SELECT cause FROM legwork_history WHERE id = ?1 AND state = 8";
const SET_CAUSE: &str = "UPDATE legwork_history SET cause = ?2 WHERE id = ?1";
const CAUSE_IS_GONE: &str =
    "UPDATE legwork_history SET cause = ?2 WHERE id = ?1 AND cause IS NOT NULL";
const WAIT_FOR_PARENTS: &str = "
UPDATE legwork_jobs SET parents_left = ?2 WHERE id = ?1";
const NEXT_SETTLING: &str = "SELECT job, after FROM legwork_settling ORDER BY job LIMIT 1";
const SETTLE_LATER: &str = "
INSERT INTO legwork_settling (job, after) VALUES (?1, ?2)
    ON CONFLICT (job) DO UPDATE SET after = excluded.after";
const SETTLED: &str = "DELETE FROM legwork_settling WHERE job = ?1";
const IS_SETTLING: &str = "SELECT 1 FROM legwork_settling WHERE job = ?1";
/// Both sides of a job that is no more.
pub(super) const FORGET: [&str; 2] = [
    "DELETE FROM legwork_edges WHERE parent = ?1",
    "DELETE FROM legwork_edges WHERE (parent, child) IN (
         SELECT parent, child FROM legwork_edges INDEXED BY legwork_parents WHERE child = ?1)",
];

fn exists(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<bool> {
    conn.prepare_cached(sql).and_then(|mut ask| ask.exists(with)).map_err(storing)
}

fn one<T: rusqlite::types::FromSql>(
    conn: &Connection,
    sql: &str,
    with: impl rusqlite::Params,
) -> Result<Option<T>> {
    conn.prepare_cached(sql)
        .and_then(|mut ask| ask.query_row(with, |row| row.get(0)).optional())
        .map_err(storing)
}

fn run(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<usize> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(with)).map_err(storing)
}

/// Whether there are any edges, and whether anything is left to settle.
pub(super) fn any(conn: &Connection) -> Result<(bool, bool)> {
    conn.prepare_cached(ANY)
        .and_then(|mut ask| ask.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(storing)
}

/// Whether children of this job have still to hear of its end.
pub(super) fn is_settling(conn: &Connection, id: i64) -> Result<bool> {
    exists(conn, IS_SETTLING, [id])
}

/// Ties a new job to its parents, before its row is there; how many it has to wait for. Those from
/// `first_new` on come into being with it.
///
/// # Errors
/// [`Error::NotFound`] if a parent is not there.
pub(super) fn link(
    conn: &Connection,
    child: i64,
    row: &NewRow,
    first_new: i64,
    effects: &mut Effects,
) -> Result<i64> {
    let mut left = 0;
    for parent in &row.parents {
        let standing = if parent.0 >= first_new && parent.0 < child {
            Standing::Unfinished
        } else {
            match standing(conn, parent.0)? {
                Standing::Gone => return Err(Error::NotFound(*parent)),
                standing => standing,
            }
        };
        let done = fate(standing, row.anyway) == Fate::Go;
        run(conn, LINK, params![parent.0, child, row.anyway, done])?;
        left += i64::from(!done);
        if fate(standing, row.anyway) == Fate::Cancel {
            // It waits in vain: it is cancelled as if that happened now.
            effects.unsettled.insert(parent.0);
        }
    }
    Ok(left)
}

/// Lets a new job wait for so many parents.
pub(super) fn wait_for_parents(conn: &Connection, child: i64, left: i64) -> Result<()> {
    run(conn, WAIT_FOR_PARENTS, params![child, left]).map(drop)
}

fn standing(conn: &Connection, parent: i64) -> Result<Standing> {
    if exists(conn, IS_LIVE, [parent])? {
        return Ok(Standing::Unfinished);
    }
    let state: Option<i64> = one(conn, FINISHED_AS, [parent])?;
    Ok(state.and_then(State::from_code).map_or(Standing::Gone, Standing::Finished))
}

/// Whether there is no such job, finished or not.
pub(super) fn is_gone(conn: &Connection, id: i64) -> Result<bool> {
    Ok(standing(conn, id)? == Standing::Gone)
}

/// Settles what is named, then what was left by others if that is to be done; a bite of it all.
/// `true`: something is left in the file.
pub(super) fn settle(
    conn: &Connection,
    effects: &mut Effects,
    budget: usize,
    left_by_others: bool,
    now: Micros,
    keep: Retention,
) -> Result<bool> {
    let mut budget = budget;
    let mut stored = left_by_others;
    loop {
        let named = effects.unsettled.pop_first().map(|job| (job, 0, false));
        let next = match named {
            Some(named) => Some(named),
            None if left_by_others && budget > 0 => next_settling(conn)?,
            None => None,
        };
        let Some((job, after, from_file)) = next else { break };
        if budget == 0 {
            run(conn, SETTLE_LATER, params![job, after])?;
            stored = true;
            continue;
        }
        let (heard, last) = tell_children(conn, job, after, budget, now, keep, effects)?;
        budget = budget.saturating_sub(heard.max(1));
        match last {
            Some(last) => {
                run(conn, SETTLE_LATER, params![job, last])?;
                stored = true;
            }
            None if from_file => drop(run(conn, SETTLED, [job])?),
            None => {}
        }
    }
    Ok(stored && any(conn)?.1)
}

fn next_settling(conn: &Connection) -> Result<Option<(i64, i64, bool)>> {
    conn.prepare_cached(NEXT_SETTLING)
        .and_then(|mut ask| {
            ask.query_row([], |row| Ok((row.get(0)?, row.get(1)?, true))).optional()
        })
        .map_err(storing)
}

/// Lets some children hear how their parent stands: how many, and the last one if there may be more.
fn tell_children(
    conn: &Connection,
    parent: i64,
    after: i64,
    most: usize,
    now: Micros,
    keep: Retention,
    effects: &mut Effects,
) -> Result<(usize, Option<i64>)> {
    let children: Vec<(i64, bool)> = conn
        .prepare_cached(CHILDREN)
        .and_then(|mut ask| {
            ask.query_map(params![parent, after, most as i64], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
        })
        .map_err(storing)?;
    // At most jobs' ends nobody waits.
    if children.is_empty() && after == 0 {
        return Ok((0, None));
    }
    let stands = standing(conn, parent)?;
    for &(child, anyway) in &children {
        match fate(stands, anyway) {
            Fate::Wait => come_back(conn, child, parent, now, effects)?,
            Fate::Go => {
                if run(conn, DONE, [parent, child])? == 1 {
                    let waits = one_parent_less(conn, child, now, &mut effects.lines)?;
                    effects.waits.extend(waits);
                }
            }
            Fate::Cancel => {
                if let Some(job) = live(conn, child)?.filter(|job| job.claim.is_none()) {
                    let why = Why { reason: &reason(parent, stands), cause: Some(parent) };
                    cancel_waiting(conn, child, job, why, now, keep, effects)?;
                    effects.cancelled.push(JobId(child));
                } else if stands == Standing::Gone {
                    // Another parent's return does not bring it back.
                    run(conn, CAUSE_IS_GONE, [child, parent])?;
                }
            }
        }
    }
    let last = children.last().filter(|_| children.len() == most).map(|(child, _)| *child);
    if stands == Standing::Gone && last.is_none() {
        // Nobody waits for it any more, not even after a retry.
        run(conn, FORGET[0], [parent])?;
    }
    Ok((children.len(), last))
}

/// A parent has finished as this child wants it; what becomes of the child if that was the last one.
fn one_parent_less(
    conn: &Connection,
    child: i64,
    now: Micros,
    lines: &mut Vec<String>,
) -> Result<Option<Waits>> {
    if one(conn, ONE_LESS, [child])? != Some(true) {
        return Ok(None);
    }
    go_on(conn, child, now, lines)
}

/// Lets a blocked job go on that has no parents to wait for any more.
fn go_on(
    conn: &Connection,
    id: i64,
    now: Micros,
    lines: &mut Vec<String>,
) -> Result<Option<Waits>> {
    let (lane, priority, run_at, limits, unique) = conn
        .prepare_cached(READ_WAITING)
        .and_then(|mut ask| {
            ask.query_row([id], |row| {
                let limits = limits::read(row.get::<_, Option<String>>(3)?.as_deref());
                let unique = Held::from_columns(row.get(4)?, row.get(5)?);
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, limits, unique))
            })
        })
        .map_err(storing)?;
    if let Some(held) = unique.filter(|held| held.hold == Hold::KeepLast)
        && unique::runs_beside(conn, id, &held)?
    {
        // The end of that one lets it go on.
        return Ok(None);
    }
    let place = Place { priority, run_at, id };
    let (state, line): (State, Option<InLine>) = match limits {
        _ if run_at > now => (State::Scheduled, None),
        Some(limits) => limits::enter(conn, lane, place, &limits, now)?,
        None => (State::Ready, None),
    };
    let (waits_on, waits_as) = line.map(|at| (at.line, at.terms)).unzip();
    run(conn, GO_ON, params![id, state.code(), waits_on, waits_as])?;
    if state == State::Blocked {
        lines.extend(waits_on);
        return Ok(None);
    }
    Ok(Some(Waits { state, lane, place, left: None }))
}

/// A parent has come back: so does the child that its end had cancelled, unless another one's has, too.
fn come_back(
    conn: &Connection,
    child: i64,
    parent: i64,
    now: Micros,
    effects: &mut Effects,
) -> Result<()> {
    if one::<Option<i64>>(conn, CAUSE, [child])?.flatten() != Some(parent) {
        return Ok(());
    }
    if let Some(other) = waits_in_vain_for(conn, child)? {
        return run(conn, SET_CAUSE, [child, other]).map(drop);
    }
    let Some(job) = control::finished(conn, JobId(child))? else { return Ok(()) };
    if let Some(flow) = job.flow
        && flows::is_going(conn, flow)?
    {
        return Ok(());
    }
    if let Some(held) = &job.unique
        && let Err(holder) = unique::revive(conn, child, held, now)?
    {
        log::warn!(
            "legwork: job {child} stays cancelled though its parent {parent} runs again: job {holder} has its unique key"
        );
        return Ok(());
    }
    control::revive(conn, JobId(child), State::Blocked, Some(left(conn, child)?), now)?;
    if let Some(flow) = job.flow {
        flows::member_came_back(conn, flow, job.state)?;
    }
    effects.unsettled.insert(child);
    Ok(())
}

/// How many parents a job still waits for.
pub(super) fn left(conn: &Connection, child: i64) -> Result<i64> {
    Ok(one(conn, LEFT, [child])?.unwrap_or(0))
}

/// A parent that has finished and not as the job wants it.
pub(super) fn waits_in_vain_for(conn: &Connection, child: i64) -> Result<Option<i64>> {
    one(conn, IN_VAIN, [child])
}

/// Forgets who a job that is no more has waited for, and who for it.
pub(super) fn forget(conn: &Connection, id: i64) -> Result<()> {
    FORGET.into_iter().try_for_each(|sql| run(conn, sql, [id]).map(drop))
}
