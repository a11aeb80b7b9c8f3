//! The counter row: the numbers given out last, and what tells other writers what they have missed.

use rusqlite::{Connection, params};

use super::errors::storing;
use super::lanes::LaneId;
use crate::error::Result;

/// So many of the last changes are remembered with their lanes.
const REMEMBERED: usize = 16;

const READ: &str =
    "SELECT last_job, last_change, changed_lanes, roster, asked, rules FROM legwork_counter";
const WRITE: &str = "
UPDATE legwork_counter
   SET last_job = ?1, last_change = ?2, changed_lanes = ?3, roster = ?4, asked = ?5, rules = ?6";

/// `legwork_counter`, without the number of instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) last_job: i64,
    last_change: i64,
    changed_lanes: String,
    pub(super) roster: i64,
    pub(super) asked: i64,
    pub(super) rules: i64,
}

impl Counter {
    pub(super) fn read(conn: &Connection) -> Result<Counter> {
        conn.prepare_cached(READ)
            .and_then(|mut ask| {
                ask.query_row([], |row| {
                    Ok(Counter {
                        last_job: row.get(0)?,
                        last_change: row.get(1)?,
                        changed_lanes: row.get(2)?,
                        roster: row.get(3)?,
                        asked: row.get(4)?,
                        rules: row.get(5)?,
                    })
                })
            })
            .map_err(storing)
    }

    pub(super) fn write(&self, conn: &Connection) -> Result<()> {
        conn.prepare_cached(WRITE)
            .and_then(|mut write| {
                write.execute(params![
                    self.last_job,
                    self.last_change,
                    self.changed_lanes,
                    self.roster,
                    self.asked,
                    self.rules
                ])
            })
            .map(drop)
            .map_err(storing)
    }

    /// Something of the lane became claimable.
    pub(super) fn lane_changed(&mut self, lane: LaneId) {
        self.last_change += 1;
        let mut lanes: Vec<&str> = self.changed_lanes.split_whitespace().collect();
        let lane = lane.to_string();
        lanes.push(&lane);
        self.changed_lanes = lanes[lanes.len().saturating_sub(REMEMBERED)..].join(" ");
    }

    /// The lanes that have changed since `seen` was read; `None`: that is too long ago to tell.
    pub(super) fn changed_since(&self, seen: &Counter) -> Option<Vec<LaneId>> {
        let missed = usize::try_from(self.last_change - seen.last_change).ok()?;
        let lanes: Result<Vec<LaneId>, _> =
            self.changed_lanes.split_whitespace().map(str::parse).collect();
        let lanes = lanes.ok()?;
        Some(lanes[lanes.len().checked_sub(missed)?..].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_are_told_and_longer_gaps_are_known_as_such() {
        let mut counter = Counter::default();
        let start = counter.clone();
        assert_eq!(counter.changed_since(&start), Some(vec![]));
        for lane in 1..=16 {
            counter.lane_changed(lane);
        }
        assert_eq!(counter.changed_since(&start), Some((1..=16).collect()));
        let middle = counter.clone();
        counter.lane_changed(17);
        assert_eq!(counter.changed_since(&start), None);
        assert_eq!(counter.changed_since(&middle), Some(vec![17]));
    }

    #[test]
    fn a_list_that_was_emptied_or_spoilt_says_that_anything_may_have_changed() {
        let seen = Counter { last_change: 3, ..Counter::default() };
        for list in ["", "7 x"] {
            let counter =
                Counter { last_change: 4, changed_lanes: list.to_owned(), ..Counter::default() };
            assert_eq!(counter.changed_since(&seen), None, "{list}");
        }
        // A restored backup may count from further back.
        let counter = Counter { last_change: 1, ..Counter::default() };
        assert_eq!(counter.changed_since(&seen), None);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let conn = Connection::open_in_memory().unwrap();
        super::super::migrate::migrate(&conn).unwrap();
        let mut counter =
            Counter { last_job: 1, roster: 2, asked: 3, rules: 4, ..Counter::default() };
        counter.lane_changed(5);
        counter.write(&conn).unwrap();
        assert_eq!(Counter::read(&conn).unwrap(), counter);
    }
}
