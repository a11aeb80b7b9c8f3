//! Lines: who of those that wait for a limit is next, and when to look again.

use rusqlite::{Connection, OptionalExtension, params};

use super::{MOST_NEXT, number, room, run};
use crate::clock::Micros;
use crate::error::Result;
use crate::limit::Terms;
use crate::rules::limit::{STEP, turn};
use crate::store::sqlite::book::Book;
use crate::store::sqlite::counter::Counter;
use crate::store::sqlite::errors::storing;
use crate::store::sqlite::lanes::{Key, LaneId};

/// The next lane with the same numbers in a line, then the next numbers. Two, since SQLite would walk
/// all that are equal for `(waits_as, lane) > (?2, ?3)`.
pub(in crate::store::sqlite) const NEXT_GROUP: [&str; 2] = [
    "SELECT waits_as, lane FROM legwork_jobs INDEXED BY legwork_waiting
      WHERE waits_on = ?1 AND waits_as = ?2 AND lane > ?3 ORDER BY lane LIMIT 1",
    "SELECT waits_as, lane FROM legwork_jobs INDEXED BY legwork_waiting
      WHERE waits_on = ?1 AND waits_as > ?2 AND ?3 = ?3 ORDER BY waits_as, lane LIMIT 1",
];
pub(in crate::store::sqlite) const HOW_MANY_NEXT: &str = "
SELECT count(*) FROM (
    SELECT 1 FROM legwork_jobs INDEXED BY legwork_waiting
     WHERE waits_on = ?1 AND waits_as = ?2 AND lane = ?3 AND state = 3 LIMIT (?4+0))";
pub(in crate::store::sqlite) const FIRST_WAITING: &str = "
SELECT id, priority, run_at, crashes IS NOT NULL FROM legwork_jobs INDEXED BY legwork_waiting
 WHERE waits_on = ?1 AND waits_as = ?2 AND lane = ?3 AND state = 2
 ORDER BY priority, run_at, id LIMIT (?4+0)";
pub(in crate::store::sqlite) const MAKE_NEXT: &str =
    "UPDATE legwork_jobs SET state = 3 WHERE id = ?1";
pub(in crate::store::sqlite) const NEXT_LOOK: &str = "
SELECT look_at FROM legwork_lines INDEXED BY legwork_next_look ORDER BY look_at LIMIT 1";
pub(in crate::store::sqlite) const LOOKS_DUE: &str = "
SELECT line FROM legwork_lines INDEXED BY legwork_next_look
 WHERE look_at <= ?1 ORDER BY look_at LIMIT 256";
const LOOK_AT: &str = "
INSERT INTO legwork_lines (line, look_at) VALUES (?1, ?2)
    ON CONFLICT (line) DO UPDATE SET look_at = excluded.look_at WHERE look_at <> excluded.look_at";
/// The clock was ahead when these were set; a look more does no harm.
pub(in crate::store::sqlite) const LOOK_AGAIN: &str =
    "UPDATE legwork_lines SET look_at = ?1 WHERE look_at > ?1";
const DO_NOT_LOOK: &str = "DELETE FROM legwork_lines WHERE line = ?1";
/// A job that has left the state of waiting in its line.
pub(in crate::store::sqlite) struct Next {
    pub(in crate::store::sqlite) lane: LaneId,
    pub(in crate::store::sqlite) place: Key,
    pub(in crate::store::sqlite) suspect: bool,
}

/// What moving a line on has come to.
#[derive(Default)]
pub(in crate::store::sqlite) struct Advanced {
    pub(in crate::store::sqlite) next: Vec<Next>,
    /// When to look again; `None`: not for the time alone.
    pub(in crate::store::sqlite) look_at: Option<Micros>,
}

/// Restores the invariant in one line.
pub(in crate::store::sqlite) fn advance(
    conn: &Connection,
    line: &str,
    now: Micros,
) -> Result<Advanced> {
    let mut advanced = Advanced::default();
    let Some((_, key)) = line.split_once(':') else { return Ok(advanced) };
    let (mut seen, mut lane) = (String::new(), LaneId::MIN);
    while let Some(group) = next_group(conn, line, &seen, lane)? {
        (seen, lane) = group;
        if let Some(terms) = terms(&seen) {
            advance_group(conn, line, key, &seen, &terms, lane, now, &mut advanced)?;
        }
    }
    match advanced.look_at {
        Some(at) => run(conn, LOOK_AT, params![line, at])?,
        None => run(conn, DO_NOT_LOOK, [line])?,
    };
    Ok(advanced)
}

pub(super) fn next_group(
    conn: &Connection,
    line: &str,
    terms: &str,
    lane: LaneId,
) -> Result<Option<(String, LaneId)>> {
    for sql in NEXT_GROUP {
        let group = conn
            .prepare_cached(sql)
            .and_then(|mut ask| {
                ask.query_row(params![line, terms, lane], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            })
            .map_err(storing)?;
        if group.is_some() {
            return Ok(group);
        }
    }
    Ok(None)
}

pub(super) fn terms(text: &str) -> Option<Terms> {
    serde_json::from_str(text)
        .map_err(|error| log::error!("legwork: a line that cannot be read: {error}"))
        .ok()
}

#[allow(clippy::too_many_arguments, reason = "a group is five of them")]
pub(super) fn advance_group(
    conn: &Connection,
    line: &str,
    key: &str,
    text: &str,
    terms: &Terms,
    lane: LaneId,
    now: Micros,
    advanced: &mut Advanced,
) -> Result<()> {
    let room = room(conn, key, terms, now)?;
    let may = room.starts.min(MOST_NEXT);
    let have = number(conn, HOW_MANY_NEXT, params![line, text, lane, may.max(1)])?;
    let have = u32::try_from(have.unwrap_or(0)).unwrap_or(u32::MAX);
    let wanted = may.saturating_sub(have);
    let mut ask = conn.prepare_cached(FIRST_WAITING).map_err(storing)?;
    let first = ask
        .query_map(params![line, text, lane, wanted.max(1)], |row| {
            let place = Key { id: row.get(0)?, priority: row.get(1)?, run_at: row.get(2)? };
            Ok(Next { lane, place, suspect: row.get(3)? })
        })
        .and_then(Iterator::collect::<rusqlite::Result<Vec<Next>>>)
        .map_err(storing)?;
    if wanted == 0 {
        // The start of one that is next names the line again; otherwise only the time does.
        if have == 0 && !first.is_empty() && room.next < Micros::MAX {
            let at = room.next.max(now.saturating_add(1));
            advanced.look_at = Some(advanced.look_at.map_or(at, |look| look.min(at)));
        }
        return Ok(());
    }
    for next in first {
        run(conn, MAKE_NEXT, [next.place.id])?;
        advanced.next.push(next);
    }
    Ok(())
}

/// Moves lines on, on a connection of the app; `true`: somebody may go on.
pub(in crate::store::sqlite) fn advance_on(
    conn: &Connection,
    lines: Vec<String>,
    now: Micros,
    counter: &mut Counter,
) -> Result<bool> {
    let mut news = false;
    for line in lines {
        let advanced = advance(conn, &line, now)?;
        news |= advanced.look_at.is_some() || !advanced.next.is_empty();
        advanced.next.iter().for_each(|next| counter.lane_changed(next.lane));
    }
    Ok(news)
}

impl Book {
    /// Something in this line may go on: it has more room, or one that was next is not any more.
    pub(in crate::store::sqlite) fn moves_on(&mut self, line: impl Into<String>) {
        self.lines.insert(line.into());
    }

    /// Whether the clock has been set back, so that times to look may lie too far ahead.
    pub(in crate::store::sqlite) fn clock_went_back(&self, now: Micros) -> bool {
        self.next_look.is_some() && now < self.clock_seen.saturating_sub(STEP)
    }

    /// Moves on all lines that were named, and those whose time has come.
    pub(in crate::store::sqlite) fn advance(&mut self, now: Micros) -> Result<()> {
        if self.clock_went_back(now) {
            self.look_at_all_lines(now)?;
        }
        self.clock_seen = now;
        if self.next_look.is_some_and(|at| at <= now) {
            let mut ask = self.conn.prepare_cached(LOOKS_DUE).map_err(storing)?;
            let due = ask.query_map([now], |row| row.get(0)).and_then(Iterator::collect);
            let due: Vec<String> = due.map_err(storing)?;
            drop(ask);
            self.lines.extend(due);
            self.next_look = None;
            self.advance_named(now)?;
            self.next_look = number(&self.conn, NEXT_LOOK, [])?;
            return Ok(());
        }
        self.advance_named(now)
    }

    /// The times to look are of a clock that was ahead, or may be.
    pub(in crate::store::sqlite) fn look_at_all_lines(&mut self, now: Micros) -> Result<()> {
        run(&self.conn, LOOK_AGAIN, [now])?;
        self.next_look = number(&self.conn, NEXT_LOOK, [])?;
        Ok(())
    }

    pub(super) fn advance_named(&mut self, now: Micros) -> Result<()> {
        while let Some(line) = self.lines.pop_first() {
            let advanced = advance(&self.conn, &line, now)?;
            for Next { lane, place, suspect } in advanced.next {
                if suspect {
                    self.suspect_ready(lane);
                    continue;
                }
                // Others need not know of one that is claimed with this very transaction.
                self.lanes.lower(lane, place);
                self.nexts.insert(place.id, lane);
            }
            if let Some(at) = advanced.look_at {
                self.look_at(at);
            }
        }
        Ok(())
    }

    pub(super) fn look_at(&mut self, at: Micros) {
        self.rules_moved = true;
        if !self.lanes.has_pools() {
            // The alarm is for others to set.
            self.news_for_others();
        }
        self.next_look = Some(self.next_look.map_or(at, |look| look.min(at)));
    }

    /// How much later than the first of all instances this process looks at the next line.
    pub(in crate::store::sqlite) fn turn_to_look(&self) -> Micros {
        let (Some(at), false) = (self.next_look, self.others.is_empty()) else { return 0 };
        let own: Vec<i64> = self.own.iter().copied().collect();
        turn(&own, self.others.iter().map(|other| other.id), at)
    }
}
