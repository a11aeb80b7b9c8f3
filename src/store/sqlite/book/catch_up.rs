//! What others have changed since the last transaction, and what the file says of the times to come.

use rusqlite::{OptionalExtension, Row};

use super::{Book, scope_from};
use crate::clock::Micros;
use crate::error::Result;
use crate::store::sqlite::counter::Counter;
use crate::store::sqlite::errors::storing;
use crate::store::sqlite::expiry::NEXT_EXPIRY;
use crate::store::sqlite::lanes::{Held, Key, LaneId, Lanes};
use crate::store::sqlite::limits::NEXT_LOOK;
use crate::store::sqlite::{flows, unique};

const ONE_LANE: &str = "SELECT id, queue, kind, gate FROM legwork_lanes WHERE id = ?1";
const ALL_LANES: &str = "SELECT id, queue, kind, gate FROM legwork_lanes";
const PAUSES: &str = "SELECT scope, name FROM legwork_pauses";
/// The next due job of one waiting state; asked for each of the two.
pub(in crate::store::sqlite) const NEXT_DUE: [&str; 2] = [
    "SELECT run_at FROM legwork_jobs INDEXED BY legwork_next_scheduled
      WHERE state = 1 ORDER BY run_at LIMIT 1",
    "SELECT run_at FROM legwork_jobs INDEXED BY legwork_next_retrying
      WHERE state = 5 ORDER BY run_at LIMIT 1",
];
pub(in crate::store::sqlite) const NEXT_PRUNE: &str =
    "SELECT prune_at FROM legwork_history ORDER BY prune_at LIMIT 1";

impl Book {
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let version = self.read_version()?;
        let known = self.lanes_loaded || !self.lanes.has_pools();
        if self.version == Some(version) && known && !self.all_anew {
            return Ok(());
        }
        let seen = std::mem::replace(&mut self.counter, Counter::read(&self.conn)?);
        self.asked_changed |= self.counter.asked != seen.asked;
        self.news |= self.version.is_some_and(|seen| seen != version);
        if self.lanes.has_pools() {
            let anew = self.all_anew || self.version.is_none() || !self.lanes_loaded;
            match self.counter.changed_since(&seen) {
                Some(changed) if !anew => self.read_lanes(&changed)?,
                _ => self.read_all_lanes()?,
            }
            // The dead may have left suspects, and alarms that they no longer keep.
            if anew || (seen.rules, seen.roster) != (self.counter.rules, self.counter.roster) {
                self.read_pauses()?;
                self.read_alarms()?;
                self.suspects = self.has_ready_suspects()?;
                #[cfg(feature = "cron")]
                self.read_cron_stamp(anew)?;
            }
        }
        // Whether there are any is known to each process by itself alone.
        self.read_edges()?;
        self.read_roster()?;
        self.version = Some(version);
        self.all_anew = false;
        Ok(())
    }

    /// Somebody may have written who tells nobody what: the next transaction reads everything anew.
    pub(in crate::store::sqlite) fn read_all_anew(&mut self) {
        self.all_anew = true;
    }

    pub(super) fn read_all_lanes(&mut self) -> Result<()> {
        let mut ask = self.conn.prepare_cached(ALL_LANES).map_err(storing)?;
        let mut rows = ask.query([]).map_err(storing)?;
        while let Some(row) = rows.next().map_err(storing)? {
            learn(&mut self.lanes, row).map_err(storing)?;
        }
        self.lanes_loaded = true;
        Ok(())
    }

    /// What is ready in these lanes is no longer known.
    pub(super) fn read_lanes(&mut self, changed: &[LaneId]) -> Result<()> {
        for &id in changed {
            if self.lanes.knows(id) {
                self.lanes.set(id, Some(Key::LOWEST));
                continue;
            }
            let mut ask = self.conn.prepare_cached(ONE_LANE).map_err(storing)?;
            ask.query_row([id], |row| learn(&mut self.lanes, row)).map_err(storing)?;
        }
        Ok(())
    }

    /// Reads what is paused and which gates are closed.
    pub(in crate::store::sqlite) fn read_pauses(&mut self) -> Result<()> {
        let mut ask = self.conn.prepare_cached(PAUSES).map_err(storing)?;
        let paused = ask
            .query_map([], |row| {
                let (scope, name): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(scope_from(&scope, name))
            })
            .and_then(Iterator::collect)
            .map_err(storing)?;
        let held = Held { paused, closed: self.closed_gates()? };
        self.pauses_changed |= self.lanes.set_held(held);
        Ok(())
    }

    /// Reads when the next job falls due, the next expires and the next may be pruned.
    pub(in crate::store::sqlite) fn read_alarms(&mut self) -> Result<()> {
        let mut due: Option<Micros> = None;
        for sql in NEXT_DUE {
            let next = self.first(sql)?;
            due = due.into_iter().chain(next).min();
        }
        self.next_due = due;
        self.next_expiry = self.first(NEXT_EXPIRY)?;
        self.next_look = self.first(NEXT_LOOK)?;
        let over = self.first(unique::NEXT_OVER)?;
        let flow = self.first(flows::NEXT_PRUNE)?;
        let pruned = self.first(NEXT_PRUNE)?.filter(|at| *at < Micros::MAX);
        self.next_prune = pruned.into_iter().chain(over).chain(flow).min();
        Ok(())
    }

    pub(super) fn first(&self, sql: &str) -> Result<Option<Micros>> {
        let mut ask = self.conn.prepare_cached(sql).map_err(storing)?;
        ask.query_row([], |row| row.get(0)).optional().map_err(storing)
    }

    /// Reads who else runs jobs of this file, if somebody has come or gone.
    pub(super) fn read_roster(&mut self) -> Result<()> {
        if self.roster_read != Some(self.counter.roster) {
            self.others = self.instances()?;
            self.others.retain(|other| !self.own.contains(&other.id));
            self.roster_read = Some(self.counter.roster);
        }
        Ok(())
    }
}

/// What is ready in a lane that has just been read is not known.
pub(super) fn learn(lanes: &mut Lanes, row: &Row<'_>) -> rusqlite::Result<()> {
    let (queue, kind, gate): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    lanes.learn(row.get(0)?, (&queue, &kind, &gate), Some(Key::LOWEST));
    Ok(())
}
