//! Limits: how many run at once by a key, and how many start in a time.
//!
//! What is taken is counted from rows that come with a start, in its transaction, so that no process
//! has more than there is. A job for which there is no room waits in a *line*: it is blocked, and has
//! left the index of ready jobs, so that a claim never passes by those that wait.
//!
//! > **The invariant of lines.** In each line, for each set of numbers and each lane, as many jobs are
//! > *next* (ready, still in the line) as could start now, 64 at most, or nobody waits behind them.
//!
//! Whatever makes room, and whatever takes away one that was next, names the line
//! ([`Book::moves_on`]), and [`Book::advance`] restores the invariant before anybody claims: it looks
//! at the front of each line only. One that is next goes by the claim like any other job; there all of
//! its limits are asked again, and if one of them has no room it waits for that.
//!
//! A lane is part of the place in a line, since what is next in one that is paused must not keep those
//! of other lanes from going on.

mod lines;

#[cfg(test)]
pub(super) use self::lines::{FIRST_WAITING, HOW_MANY_NEXT, LOOKS_DUE, MAKE_NEXT, NEXT_GROUP};
pub(super) use self::lines::{NEXT_LOOK, advance_on};

use rusqlite::{Connection, OptionalExtension, params};

use super::book::Book;
use super::errors::storing;
use super::lanes::{Key, LaneId};
use crate::clock::Micros;
use crate::error::Result;
use crate::limit::{Limit, Limits, OnBusy, Rate, Terms};
use crate::rules::limit::{Paced, Room, Spent, counts_as, paced, paced_after, unit, windowed};
use crate::state::State;
use crate::store::ClaimRef;

pub(super) const TAKEN: &str = "
SELECT count(*) FROM (SELECT 1 FROM legwork_slots WHERE key = ?1 LIMIT (?2+0))";
/// A job that names a key twice, by another hand, has one slot.
const TAKE_SLOT: &str =
    "INSERT OR IGNORE INTO legwork_slots (key, instance, token, job) VALUES (?1, ?2, ?3, ?4)";
pub(super) const FREE_SLOT: &str =
    "DELETE FROM legwork_slots WHERE key = ?1 AND instance = ?2 AND token = ?3";
pub(super) const SLOTS_OF: &str = "
SELECT DISTINCT key FROM legwork_slots INDEXED BY legwork_slots_of_instance WHERE instance = ?1";
pub(super) const FREE_SLOTS_OF: &str = "DELETE FROM legwork_slots WHERE instance = ?1";
pub(super) const FREE_SLOTS_OF_CLAIM: &str = "
DELETE FROM legwork_slots WHERE instance = ?1 AND token = ?2 RETURNING key";
/// Whoever holds these is not there at all.
const STRAY_SLOTS: &str = "
DELETE FROM legwork_slots WHERE instance NOT IN (SELECT id FROM legwork_instances)
RETURNING key";

pub(super) const PACED: &str = "SELECT since, until FROM legwork_rates WHERE key = ?1 AND at = ?2";
pub(super) const SPENT: &str =
    "SELECT at, weight FROM legwork_rates WHERE key = ?1 AND at > ?2 ORDER BY at";
const PACE: &str = "
INSERT INTO legwork_rates (key, at, weight, until, since) VALUES (?1, ?2, 0, ?3, ?4)
    ON CONFLICT (key, at) DO UPDATE SET until = excluded.until, since = excluded.since";
/// A start counts for the key's other spaces, too.
pub(super) const PACE_OTHERS: &str = "
UPDATE legwork_rates SET until = max(until, ?3) - at * ?4, since = ?3
 WHERE key = ?1 AND at < 0 AND at <> ?2";
const SPEND: &str = "
INSERT INTO legwork_rates (key, at, weight, until) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (key, at) DO UPDATE SET weight = weight + excluded.weight,
                                        until = max(until, excluded.until)";
/// A key's own old rows; those of longer times stay.
pub(super) const NO_LONGER_COUNTS: &str =
    "DELETE FROM legwork_rates WHERE key = ?1 AND at > 0 AND at <= ?2 AND until <= ?3";
pub(super) const RATES_OVER: &str = "
DELETE FROM legwork_rates WHERE (key, at) IN (
    SELECT key, at FROM legwork_rates INDEXED BY legwork_rates_over
     WHERE until <= ?1 ORDER BY until LIMIT (?2+0))";

/// Those that are next, and those that wait: time may have made room for them that they do not know of yet.
pub(super) const HOW_MANY_BEFORE: &str = "
SELECT count(*) FROM (
    SELECT 1 FROM legwork_jobs INDEXED BY legwork_waiting
     WHERE waits_on = ?1 AND waits_as = ?2 AND lane = ?3 AND state IN (2, 3)
       AND (priority, run_at, id) < (?5, ?6, ?7) LIMIT (?4+0))";
pub(super) const WAIT: &str =
    "UPDATE legwork_jobs SET state = 2, waits_on = ?2, waits_as = ?3 WHERE id = ?1";
const REWRITE: &str = "UPDATE legwork_jobs SET limits = ?2 WHERE id = ?1";
pub(super) const LEAVE_LINE: &str =
    "UPDATE legwork_jobs SET waits_on = NULL, waits_as = NULL WHERE id = ?1";

/// The lanes of whoever waits in a line.
pub(super) const LANES_THAT_WAIT: &str = "
SELECT lane FROM legwork_jobs INDEXED BY legwork_waiting WHERE waits_on IS NOT NULL";

/// So many of a line are next at once: a start makes the one behind them next.
pub(super) const MOST_NEXT: u32 = 64;

/// A place in a line.
pub(super) struct InLine {
    pub(super) line: String,
    /// The numbers, as JSON.
    pub(super) terms: String,
}

impl InLine {
    pub(super) fn of(limit: &Limit) -> InLine {
        let terms = serde_json::to_string(&limit.terms).expect("numbers are JSON");
        InLine { line: limit.line(), terms }
    }
}

/// Reads what was stored; what another hand has broken limits nothing.
pub(super) fn read(limits: Option<&str>) -> Option<Limits> {
    serde_json::from_str(limits?)
        .map_err(|error| log::error!("legwork: limits that cannot be read: {error}"))
        .ok()
}

pub(super) fn to_json(limits: &Limits) -> String {
    serde_json::to_string(limits).expect("limits are JSON")
}

fn number(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<Option<i64>> {
    conn.prepare_cached(sql)
        .and_then(|mut ask| ask.query_row(with, |row| row.get(0)).optional())
        .map_err(storing)
}

fn run(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<usize> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(with)).map_err(storing)
}

/// How many jobs could start by these numbers now.
fn room(conn: &Connection, key: &str, terms: &Terms, now: Micros) -> Result<Room> {
    match terms {
        Terms::AtOnce(most) => {
            let taken = number(conn, TAKEN, params![key, most])?.unwrap_or(0);
            let starts = u32::try_from(i64::from(*most) - taken).unwrap_or(0);
            Ok(Room { starts, next: Micros::MAX })
        }
        Terms::Rate(rate) if rate.burst => Ok(windowed(rate, &spent(conn, key, rate, now)?, now)),
        Terms::Rate(rate) => Ok(paced(rate, last_paced(conn, key, rate)?, now)),
    }
}

fn last_paced(conn: &Connection, key: &str, rate: &Rate) -> Result<Option<Paced>> {
    conn.prepare_cached(PACED)
        .and_then(|mut ask| {
            ask.query_row(params![key, -unit(rate)], |row| {
                Ok(Paced { since: row.get(0)?, free_at: row.get(1)? })
            })
            .optional()
        })
        .map_err(storing)
}

fn spent(conn: &Connection, key: &str, rate: &Rate, now: Micros) -> Result<Vec<Spent>> {
    let mut ask = conn.prepare_cached(SPENT).map_err(storing)?;
    ask.query_map(params![key, now.saturating_sub(rate.per).max(0)], |row| {
        Ok(Spent { at: row.get(0)?, weight: row.get(1)? })
    })
    .and_then(Iterator::collect)
    .map_err(storing)
}

/// Where a new job stands that could start but for its limits: whether it waits, and in which line.
/// One that is not to wait is left to the claim.
pub(super) fn enter(
    conn: &Connection,
    lane: LaneId,
    place: Key,
    limits: &Limits,
    now: Micros,
) -> Result<(State, Option<InLine>)> {
    if limits.on_busy == OnBusy::Discard {
        return Ok((State::Ready, None));
    }
    for limit in &limits.limits {
        let may = room(conn, &limit.key, &limit.terms, now)?.starts.min(MOST_NEXT);
        let at = InLine::of(limit);
        let before = if may == 0 {
            0
        } else {
            let Key { priority, run_at, id } = place;
            let of = params![at.line, at.terms, lane, may, priority, run_at, id];
            number(conn, HOW_MANY_BEFORE, of)?.unwrap_or(0)
        };
        if before >= i64::from(may) {
            return Ok((State::Blocked, Some(at)));
        }
    }
    Ok((State::Ready, limits.limits.first().map(InLine::of)))
}

/// The reason of a job that was not to wait.
pub(super) fn discarded(limit: &Limit) -> String {
    match &limit.terms {
        Terms::AtOnce(most) => {
            format!("discarded: {most} jobs with the limit key {:?} were under way", limit.key)
        }
        Terms::Rate(_) => {
            format!("discarded: the rate of the key {:?} was used up", limit.key)
        }
    }
}

/// The first limit that has no room for one more start.
pub(super) fn without_room<'a>(
    conn: &Connection,
    limits: &'a Limits,
    now: Micros,
) -> Result<Option<&'a Limit>> {
    for limit in &limits.limits {
        if room(conn, &limit.key, &limit.terms, now)?.starts == 0 {
            return Ok(Some(limit));
        }
    }
    Ok(None)
}

/// Takes up what a start takes, after [`without_room`] has found nothing.
pub(super) fn take(conn: &Connection, claim: ClaimRef, limits: &Limits, now: Micros) -> Result<()> {
    for Limit { key, terms, .. } in &limits.limits {
        match terms {
            Terms::AtOnce(_) => {
                run(conn, TAKE_SLOT, params![key, claim.instance, claim.token, claim.id.0])?;
            }
            Terms::Rate(rate) if rate.burst => {
                run(conn, NO_LONGER_COUNTS, params![key, now.saturating_sub(rate.per), now])?;
                let at = counts_as(rate, now);
                let until = at.saturating_add(rate.per);
                run(conn, SPEND, params![key, at, rate.weight, until])?;
            }
            Terms::Rate(rate) => {
                let (at, weight) = (-unit(rate), rate.weight);
                let free_at = paced_after(rate, last_paced(conn, key, rate)?, now);
                run(conn, PACE, params![key, at, free_at, now])?;
                run(conn, PACE_OTHERS, params![key, at, now, weight])?;
            }
        }
    }
    Ok(())
}

/// Gives back what an attempt took up at once; the lines that move on by it.
pub(super) fn release(conn: &Connection, claim: ClaimRef, limits: &Limits) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for limit in &limits.limits {
        if matches!(limit.terms, Terms::AtOnce(_))
            && run(conn, FREE_SLOT, params![limit.key, claim.instance, claim.token])? == 1
        {
            lines.push(limit.line());
        }
    }
    Ok(lines)
}

/// Writes the limits of a job anew, once their keys are made.
pub(super) fn rewrite(conn: &Connection, id: i64, limits: Option<&Limits>) -> Result<()> {
    run(conn, REWRITE, params![id, limits.map(to_json)]).map(drop)
}

/// The limits of a job for people: as they stand there, if their keys cannot be made of its arguments.
pub(super) fn shown(limits: Option<&str>, args: &str) -> Vec<Limit> {
    let Some(limits) = read(limits) else { return Vec::new() };
    let resolved = if limits.is_unresolved() { limits.resolved(args).ok().flatten() } else { None };
    let mut limits = resolved.unwrap_or(limits).limits;
    // What they were made of is the store's own matter.
    limits.iter_mut().for_each(|limit| limit.of.clear());
    limits
}

/// Puts a job at the end of its wait for a limit.
pub(super) fn wait(conn: &Connection, id: i64, at: &InLine) -> Result<()> {
    run(conn, WAIT, params![id, at.line, at.terms]).map(drop)
}

pub(super) fn leave_line(conn: &Connection, id: i64) -> Result<()> {
    run(conn, LEAVE_LINE, [id]).map(drop)
}

/// Removes a bite of what no longer counts.
pub(super) fn prune(conn: &Connection, now: Micros, limit: u64) -> Result<u64> {
    run(conn, RATES_OVER, params![now, limit.cast_signed()]).map(|removed| removed as u64)
}

impl Book {
    /// An attempt has ended, and with it what it took up. `unknown`: nobody knows which limits it has.
    pub(super) fn release(
        &mut self,
        claim: ClaimRef,
        limits: Option<&Limits>,
        unknown: bool,
    ) -> Result<()> {
        let lines = match limits {
            Some(limits) => release(&self.conn, claim, limits)?,
            None if unknown => {
                let mut free = self.conn.prepare_cached(FREE_SLOTS_OF_CLAIM).map_err(storing)?;
                free.query_map(params![claim.instance, claim.token], |row| row.get(0))
                    .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
                    .map_err(storing)?
                    .into_iter()
                    .map(|key| format!("limit:{key}"))
                    .collect()
            }
            None => return Ok(()),
        };
        self.lines.extend(lines);
        Ok(())
    }

    /// An instance has gone, and what its attempts took up is free.
    pub(super) fn release_all(&mut self, instance: i64) -> Result<()> {
        let mut ask = self.conn.prepare_cached(SLOTS_OF).map_err(storing)?;
        let keys = ask.query_map([instance], |row| row.get(0)).and_then(Iterator::collect);
        let keys: Vec<String> = keys.map_err(storing)?;
        drop(ask);
        if !keys.is_empty() {
            run(&self.conn, FREE_SLOTS_OF, [instance])?;
            self.lines.extend(keys.into_iter().map(|key| format!("limit:{key}")));
        }
        Ok(())
    }

    /// What is taken up by instances that are not there at all: of a copied file, or by another hand.
    pub(super) fn release_strays(&mut self) -> Result<()> {
        let mut ask = self.conn.prepare_cached(STRAY_SLOTS).map_err(storing)?;
        let keys = ask.query_map([], |row| row.get(0)).and_then(Iterator::collect);
        let keys: Vec<String> = keys.map_err(storing)?;
        drop(ask);
        self.lines.extend(keys.into_iter().map(|key| format!("limit:{key}")));
        Ok(())
    }

    /// Whether somebody waits in a line who is of a lane that the pool may run now.
    pub(super) fn has_waiting(&self, pool: u64) -> Result<bool> {
        let mut ask = self.conn.prepare_cached(LANES_THAT_WAIT).map_err(storing)?;
        let mut rows = ask.query([]).map_err(storing)?;
        while let Some(row) = rows.next().map_err(storing)? {
            if self.lanes.rank(pool, row.get(0).map_err(storing)?).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
