//! Gates: conditions of the machine or the app that jobs can wait for.
//!
//! A gate is part of its jobs' lane, and closed ones have a row. So closing and opening move no job:
//! the lanes behind a gate lose their seats, or get them back with the bounds that they have kept.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::book::Book;
use super::errors::storing;
use crate::clock::{Micros, from_micros};
use crate::error::Result;
use crate::record::GateRecord;
use crate::state::State;

const CLOSED: &str = "SELECT name FROM legwork_gates";
const CLOSE: &str = "INSERT OR IGNORE INTO legwork_gates (name, closed_at) VALUES (?1, ?2)";
const OPEN: &str = "DELETE FROM legwork_gates WHERE name = ?1";
const IS_BEHIND_CLOSED: &str = "
SELECT 1 FROM legwork_lanes AS lane JOIN legwork_gates AS gate ON gate.name = lane.gate
 WHERE lane.id = ?1";
const ALL: &str = "
SELECT name, closed_at FROM legwork_gates
 UNION ALL
SELECT DISTINCT gate, NULL FROM legwork_lanes
 WHERE gate <> '' AND gate NOT IN (SELECT name FROM legwork_gates)
 ORDER BY 1";

/// The state of a row of `legwork_jobs AS job` with its `legwork_lanes AS lane`, as people see it: what
/// is ready behind a closed gate is blocked.
pub(super) const SHOWN: &str = "CASE WHEN job.state = 3 AND lane.gate <> ''
     AND EXISTS (SELECT 1 FROM legwork_gates WHERE name = lane.gate) THEN 2 ELSE job.state END";

impl Book {
    /// The gates that are closed.
    pub(super) fn closed_gates(&self) -> Result<HashSet<String>> {
        let mut ask = self.conn.prepare_cached(CLOSED).map_err(storing)?;
        ask.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(storing)
    }

    /// Closes a gate at a time, or opens it (`None`); nothing happens to one that is so already.
    /// `false`: it was so already.
    pub(super) fn set_gate(&mut self, name: &str, closed_at: Option<Micros>) -> Result<bool> {
        let changed = match closed_at {
            Some(at) => self
                .conn
                .prepare_cached(CLOSE)
                .and_then(|mut close| close.execute(params![name, at])),
            None => self.conn.prepare_cached(OPEN).and_then(|mut open| open.execute([name])),
        }
        .map_err(storing)?;
        if changed == 0 {
            return Ok(false);
        }
        self.rules_changed();
        self.read_pauses()?;
        Ok(true)
    }

    /// The state of a job of this lane, as people see it.
    pub(super) fn shown(&self, state: State, lane: i64) -> Result<State> {
        if state != State::Ready {
            return Ok(state);
        }
        let mut ask = self.conn.prepare_cached(IS_BEHIND_CLOSED).map_err(storing)?;
        let blocked = ask.exists([lane]).map_err(storing)?;
        Ok(if blocked { State::Blocked } else { State::Ready })
    }
}

/// The closed gates, and those that jobs have named; by name.
pub(super) fn all(conn: &Connection) -> Result<Vec<GateRecord>> {
    let mut ask = conn.prepare_cached(ALL).map_err(storing)?;
    let gates = ask.query_map([], |row| {
        let closed_at: Option<Micros> = row.get(1)?;
        Ok(GateRecord { name: row.get(0)?, closed_since: closed_at.map(from_micros) })
    });
    gates.and_then(Iterator::collect).map_err(storing)
}
