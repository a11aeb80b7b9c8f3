//! Claiming suspects: at most one at a time in a process, so that a death has one to blame.
//!
//! Whether suspects may be ready is known in memory ([`Book::suspects`]), so that a file without
//! suspects pays nothing for them. Whether this process runs one is asked of the file each time:
//! its rows are the truth about every engine and every handle of the process.

use rusqlite::params;

use super::book::Book;
use super::claim::{Found, found};
use super::errors::storing;
use super::lanes::{Key, LaneId};
use crate::error::Result;
use crate::store::{InstanceId, PoolId};

/// Ready suspects in claim order. Not limited: jobs that were held when a process died are few,
/// and a suspect behind others that nobody may run must be found.
pub(super) const NEXT_SUSPECT: &str = "
SELECT lane, priority, run_at, id FROM legwork_jobs INDEXED BY legwork_next_suspect
 WHERE state = 3 AND instance IS NULL AND crashes IS NOT NULL  -- ready
 ORDER BY priority, run_at, id";

/// Whether an instance, or another one of its process, runs a suspect.
pub(super) const RUNS_SUSPECT: &str = "
SELECT 1 FROM legwork_jobs AS job INDEXED BY legwork_running_suspects
 WHERE job.instance IS NOT NULL AND job.crashes IS NOT NULL
   AND (job.instance = (?1+0) OR EXISTS (
        SELECT 1 FROM legwork_instances AS theirs CROSS JOIN legwork_instances AS mine
         WHERE theirs.id = job.instance AND mine.id = (?1+0)
           AND theirs.pid = mine.pid AND theirs.pid_start = mine.pid_start
           AND theirs.pid_space = mine.pid_space AND theirs.boot_id = mine.boot_id))";

const READ_READY: &str = "
SELECT id, priority, run_at, args, options, meta, attempts, first_started_at, unique_key,
       unique_hold, expires_at, limits, waits_on, flow, has_steps IS NOT NULL
  FROM legwork_jobs WHERE id = ?1";

impl Book {
    /// Whether any suspect is ready.
    pub(super) fn has_ready_suspects(&self) -> Result<bool> {
        self.conn.prepare_cached(NEXT_SUSPECT).and_then(|mut ask| ask.exists([])).map_err(storing)
    }

    /// The first suspect that the pool may start now, for each of its ranks; nothing at all if its
    /// process runs one already.
    pub(super) fn next_suspects(
        &mut self,
        pool: PoolId,
        instance: InstanceId,
    ) -> Result<Vec<Option<(LaneId, Key)>>> {
        if !self.suspects || self.runs_suspect(instance)? {
            return Ok(Vec::new());
        }
        let ranks = self.lanes.spec(pool).map_or(0, |spec| spec.queues.ranks());
        let mut first = vec![None; ranks];
        let mut any = false;
        self.walk_suspects(|book, lane, key| {
            any = true;
            if let Some(rank) = book.lanes.rank(pool, lane) {
                first[rank].get_or_insert((lane, key));
            }
            first.iter().any(Option::is_none)
        })?;
        self.suspects = any;
        Ok(first)
    }

    /// Whether a suspect is ready that the pool may run, now or after another one.
    pub(super) fn has_suspect_for(&self, pool: PoolId) -> Result<bool> {
        self.finds_suspect(|book, lane| book.lanes.rank(pool, lane).is_some())
    }

    pub(super) fn lane_has_suspect(&self, wanted: LaneId) -> Result<bool> {
        self.finds_suspect(|_, lane| lane == wanted)
    }

    fn finds_suspect(&self, wanted: impl Fn(&Book, LaneId) -> bool) -> Result<bool> {
        let mut found = false;
        if self.suspects {
            self.walk_suspects(|book, lane, _| {
                found = wanted(book, lane);
                !found
            })?;
        }
        Ok(found)
    }

    /// Shows the ready suspects in claim order, for as long as `more` wants them.
    fn walk_suspects(&self, mut more: impl FnMut(&Book, LaneId, Key) -> bool) -> Result<()> {
        let mut ask = self.conn.prepare_cached(NEXT_SUSPECT).map_err(storing)?;
        let mut rows = ask.query([]).map_err(storing)?;
        while let Some(row) = rows.next().map_err(storing)? {
            let read = || -> rusqlite::Result<(LaneId, Key)> {
                Ok((
                    row.get(0)?,
                    Key { priority: row.get(1)?, run_at: row.get(2)?, id: row.get(3)? },
                ))
            };
            let (lane, key) = read().map_err(storing)?;
            if !more(self, lane, key) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn runs_suspect(&self, instance: InstanceId) -> Result<bool> {
        self.conn
            .prepare_cached(RUNS_SUSPECT)
            .and_then(|mut ask| ask.exists([instance]))
            .map_err(storing)
    }

    /// What an attempt of a ready suspect needs.
    pub(super) fn read_suspect(&self, key: Key) -> Result<Found> {
        self.conn
            .prepare_cached(READ_READY)
            .and_then(|mut ask| ask.query_row(params![key.id], found))
            .map_err(storing)
    }
}
