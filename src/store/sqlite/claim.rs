//! Claiming: what falls due becomes ready, and the next ready job of a pool becomes a worker's.
//! Suspects are found apart from the others; see [`suspects`](super::suspects).

use rusqlite::{OptionalExtension, Row, params};

use super::book::Book;
use super::errors::storing;
use super::lanes::{Key, LaneId};
use crate::clock::{Micros, Random};
use crate::error::Result;
use crate::id::JobId;
use crate::store::{ClaimRef, Claimed, PoolId};

/// The first ready job of a lane, in claim order.
///
/// `(?1+0)` and not `?1`: SQLite compares a bare parameter with the conditions of partial indexes,
/// and then prepares the statement anew each time the parameter is bound.
pub(super) const NEXT_READY: &str = "
SELECT id, priority, run_at, args, options, meta, attempts, first_started_at
  FROM legwork_jobs INDEXED BY legwork_next_ready
 WHERE state = 3 AND instance IS NULL AND crashes IS NULL AND lane = (?1+0)  -- ready
 ORDER BY priority, run_at, id
 LIMIT 1";

pub(super) const CLAIM: &str = "
UPDATE legwork_jobs SET state = 4, instance = ?2, token = ?3, started_at = ?4  -- running
 WHERE id = ?1";

/// Waiting jobs of one state whose time has come, the earliest first.
pub(super) const DUE: [&str; 2] = [
    "SELECT id, lane, priority, run_at FROM legwork_jobs INDEXED BY legwork_next_scheduled
      WHERE state = 1 AND run_at <= ?1 ORDER BY run_at LIMIT 256",
    "SELECT id, lane, priority, run_at FROM legwork_jobs INDEXED BY legwork_next_retrying
      WHERE state = 5 AND run_at <= ?1 ORDER BY run_at LIMIT 256",
];
pub(super) const MAKE_READY: &str = "UPDATE legwork_jobs SET state = 3 WHERE id = ?1";

pub(super) struct Found {
    pub(super) key: Key,
    args: String,
    options: Option<String>,
    meta: Option<String>,
    attempts: u32,
    first_started_at: Option<Micros>,
}

pub(super) fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        key: Key { id: row.get(0)?, priority: row.get(1)?, run_at: row.get(2)? },
        args: row.get(3)?,
        options: row.get(4)?,
        meta: row.get(5)?,
        attempts: row.get(6)?,
        first_started_at: row.get(7)?,
    })
}

impl Book {
    /// Makes waiting jobs ready whose time has come: a bite of them, so that a million due at once
    /// hold nobody up. `next_due` tells whether more are left.
    pub(super) fn make_due_ready(&mut self, now: Micros) -> Result<()> {
        let mut due: Vec<(i64, LaneId, i64, i64)> = Vec::new();
        for sql in DUE {
            let mut ask = self.conn.prepare_cached(sql).map_err(storing)?;
            let rows = ask
                .query_map([now], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .map_err(storing)?;
            for row in rows {
                due.push(row.map_err(storing)?);
            }
        }
        {
            let mut make = self.conn.prepare_cached(MAKE_READY).map_err(storing)?;
            for (id, ..) in &due {
                make.execute([id]).map_err(storing)?;
            }
        }
        for (id, lane, priority, run_at) in due {
            self.ready(lane, Key { priority, run_at, id });
        }
        self.read_alarms()
    }

    /// Claims the pool's next job, or finds that there is none.
    pub(super) fn claim(
        &mut self,
        pool: PoolId,
        now: Micros,
        random: &Random,
    ) -> Result<Option<Claimed>> {
        let Some(spec) = self.lanes.spec(pool) else { return Ok(None) };
        let instance = spec.instance;
        let order = spec.queues.order(random);
        let suspects = self.next_suspects(pool, instance)?;
        for rank in order {
            let first = self.find_first(pool, rank)?;
            let suspect = suspects.get(rank).copied().flatten();
            match (first, suspect) {
                (Some((lane, found)), suspect)
                    if suspect.is_none_or(|(_, key)| found.key < key) =>
                {
                    return self.take(lane, found, instance, now).map(Some);
                }
                (_, Some((lane, key))) => {
                    return self.take_suspect(lane, key, instance, now).map(Some);
                }
                (_, None) => {}
            }
        }
        Ok(None)
    }

    /// Whether a look into the file may find a job for the pool.
    pub(super) fn may_claim(&self, pool: PoolId) -> bool {
        self.suspects || self.lanes.any(pool)
    }

    /// Whether the pool has a job to claim.
    pub(super) fn has_ready(&mut self, pool: PoolId) -> Result<bool> {
        let ranks = self.lanes.spec(pool).map_or(0, |spec| spec.queues.ranks());
        for rank in 0..ranks {
            if self.find_first(pool, rank)?.is_some() {
                return Ok(true);
            }
        }
        self.has_suspect_for(pool)
    }

    /// Whether anything in the lane is ready, whoever may run it.
    pub(super) fn lane_has_ready(&self, lane: LaneId) -> Result<bool> {
        let ready = self.conn.prepare_cached(NEXT_READY).and_then(|mut ask| ask.exists([lane]));
        Ok(ready.map_err(storing)? || self.lane_has_suspect(lane)?)
    }

    /// The first job of a rank over all its lanes; raises the bounds that it finds too low.
    fn find_first(&mut self, pool: PoolId, rank: usize) -> Result<Option<(LaneId, Found)>> {
        while let Some((lane, next_best)) = self.lanes.first(pool, rank) {
            let head = self
                .conn
                .prepare_cached(NEXT_READY)
                .and_then(|mut ask| ask.query_row([lane], found).optional())
                .map_err(storing)?;
            let key = head.as_ref().map(|head| head.key);
            self.lanes.set(lane, key);
            match head {
                Some(head) if next_best.is_none_or(|best| head.key <= best) => {
                    return Ok(Some((lane, head)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn take(
        &mut self,
        lane: LaneId,
        found: Found,
        instance: i64,
        now: Micros,
    ) -> Result<Claimed> {
        let token = self.next_token;
        self.next_token += 1;
        self.conn
            .prepare_cached(CLAIM)
            .and_then(|mut claim| claim.execute(params![found.key.id, instance, token, now]))
            .map_err(storing)?;
        Ok(Claimed {
            claim: ClaimRef { id: JobId(found.key.id), instance, token },
            kind: self.lanes.kind(lane).to_owned(),
            queue: self.lanes.queue(lane).to_owned(),
            args: found.args,
            options: found.options,
            meta: found.meta,
            attempts: found.attempts,
            started_at: now,
            first_started_at: found.first_started_at,
        })
    }
}
