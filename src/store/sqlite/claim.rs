//! Claiming: what falls due becomes ready, and the next ready job of a pool becomes a worker's, at
//! once or ahead. Suspects are found apart from the others; see
//! [`suspects`](super::suspects).

mod ahead;

use std::sync::Arc;

use rusqlite::{Row, params};

use super::book::{Book, Undone};
use super::ends::Why;
use super::errors::{self, storing};
use super::expiry;
use super::lanes::{Key, LaneId};
use super::limits::{self, InLine};
use super::text;
use super::unique::{self, Held};
use crate::clock::{Micros, Random};
use crate::error::Result;
use crate::id::JobId;
use crate::limit::{Limits, OnBusy};
use crate::new_job::Retention;
use crate::store::tray::Started;
use crate::store::{ClaimRef, Claimed, InstanceId, PoolId};

/// The first ready jobs of a lane, in claim order.
///
/// `(?1+0)` and not `?1`: SQLite compares a bare parameter with the conditions of partial indexes,
/// and then prepares the statement anew each time the parameter is bound.
pub(super) const NEXT_READY: &str = "
SELECT id, priority, run_at, args, options, meta, attempts, first_started_at, unique_key,
       unique_hold, expires_at, limits, waits_on, flow, has_steps IS NOT NULL
  FROM legwork_jobs INDEXED BY legwork_next_ready
 WHERE state = 3 AND instance IS NULL AND crashes IS NULL AND lane = (?1+0)  -- ready
 ORDER BY priority, run_at, id
 LIMIT (?2+0)";

pub(super) const CLAIM: &str = "
UPDATE legwork_jobs SET state = 4, instance = ?2, token = ?3, started_at = ?4  -- running
 WHERE id = ?1";
/// The same for a job that could have expired. Apart, since it touches an index more.
pub(super) const CLAIM_IN_TIME: &str = "
UPDATE legwork_jobs SET state = 4, instance = ?2, token = ?3, started_at = ?4, expires_at = NULL
 WHERE id = ?1";
pub(super) const CLAIM_AHEAD: &str = "
UPDATE legwork_jobs SET instance = ?2, token = ?3 WHERE id = ?1";
/// A job that was claimed ahead has been started.
pub(super) const START: &str = "
UPDATE legwork_jobs SET state = 4, started_at = ?4  -- running
 WHERE id = ?1 AND instance = ?2 AND token = ?3 AND started_at IS NULL";
/// A job that was claimed ahead and not started loses its claim.
pub(super) const UNCLAIM: &str = "
UPDATE legwork_jobs SET instance = NULL, token = NULL
 WHERE id = ?1 AND instance = ?2 AND token = ?3 AND started_at IS NULL";

/// Waiting jobs of one state whose time has come, the earliest first.
pub(super) const DUE: [&str; 2] = [
    "SELECT id, lane, priority, run_at, crashes IS NOT NULL
       FROM legwork_jobs INDEXED BY legwork_next_scheduled
      WHERE state = 1 AND run_at <= ?1 ORDER BY run_at LIMIT 256",
    "SELECT id, lane, priority, run_at, crashes IS NOT NULL
       FROM legwork_jobs INDEXED BY legwork_next_retrying
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
    unique: Option<Held>,
    expires_at: Option<Micros>,
    limits: Option<Arc<Limits>>,
    /// The line that it leaves by its start.
    waits_on: Option<String>,
    flow: Option<i64>,
    has_steps: bool,
}

impl Found {
    /// A start changes more than its row, or looks at the time, so that it must not be claimed ahead.
    fn starts_alone(&self) -> bool {
        self.expires_at.is_some()
            || self.limits.is_some()
            || self.unique.as_ref().is_some_and(|held| held.hold.moves_at_start())
    }
}

pub(super) fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        key: Key { id: row.get(0)?, priority: row.get(1)?, run_at: row.get(2)? },
        args: text::json(row, 3)?,
        options: text::shown(row, 4)?,
        meta: text::shown(row, 5)?,
        attempts: row.get(6)?,
        first_started_at: row.get(7)?,
        unique: Held::from_columns(text::shown(row, 8)?, row.get(9)?),
        expires_at: row.get(10)?,
        limits: limits::read(text::shown(row, 11)?.as_deref()).map(Arc::new),
        waits_on: text::shown(row, 12)?,
        flow: row.get(13)?,
        has_steps: row.get(14)?,
    })
}

enum Tried {
    Claimed(Box<Claimed>),
    Nothing,
    MayNotStart,
}

impl Book {
    /// Makes waiting jobs ready whose time has come: a bite of them, so that a million due at once
    /// hold nobody up. `next_due` tells whether more are left.
    pub(super) fn make_due_ready(&mut self, now: Micros) -> Result<()> {
        let mut due: Vec<(LaneId, Key, bool)> = Vec::new();
        for sql in DUE {
            let mut ask = self.conn.prepare_cached(sql).map_err(storing)?;
            let rows = ask
                .query_map([now], |row| {
                    let (id, priority, run_at) = (row.get(0)?, row.get(2)?, row.get(3)?);
                    Ok((row.get(1)?, Key { priority, run_at, id }, row.get(4)?))
                })
                .map_err(storing)?;
            for row in rows {
                due.push(row.map_err(storing)?);
            }
        }
        {
            let mut make = self.conn.prepare_cached(MAKE_READY).map_err(storing)?;
            for (_, key, _) in &due {
                make.execute([key.id]).map_err(storing)?;
            }
        }
        for (lane, key, suspect) in due {
            if suspect {
                self.suspect_ready(lane);
            } else {
                self.ready(lane, key);
            }
        }
        self.read_alarms()
    }

    /// Claims the pool's next job for a worker that waits, or finds that there is none. Jobs that are
    /// found to have expired end, and are named in `expired`.
    pub(super) fn claim(
        &mut self,
        pool: PoolId,
        now: Micros,
        random: &Random,
        keep: Retention,
        expired: &mut Vec<JobId>,
    ) -> Result<Option<Claimed>> {
        loop {
            match self.try_claim(pool, now, random, keep, expired)? {
                Tried::Claimed(claimed) => return Ok(Some(*claimed)),
                Tried::Nothing => return Ok(None),
                Tried::MayNotStart if self.was_cut_short() => return Ok(None),
                Tried::MayNotStart => self.passed_by += 1,
            }
        }
    }

    fn try_claim(
        &mut self,
        pool: PoolId,
        now: Micros,
        random: &Random,
        keep: Retention,
        expired: &mut Vec<JobId>,
    ) -> Result<Tried> {
        let Some(spec) = self.lanes.spec(pool) else { return Ok(Tried::Nothing) };
        let instance = spec.instance;
        let order = spec.queues.order(random);
        let suspects = self.next_suspects(pool, instance)?;
        for rank in order {
            let first = self.find_first_in_time(pool, rank, now, keep, expired)?;
            if expired.len() >= expiry::MOST {
                return Ok(Tried::Nothing);
            }
            let suspect = suspects.get(rank).copied().flatten();
            match (first, suspect) {
                (Some((lane, found)), suspect)
                    if suspect.is_none_or(|(_, key)| found.key < key) =>
                {
                    return self.start_or_end(lane, found, instance, now, keep, expired);
                }
                (_, Some((lane, key))) => {
                    let found = self.read_suspect(key)?;
                    return self.start_or_end(lane, found, instance, now, keep, expired);
                }
                (_, None) => {}
            }
        }
        Ok(Tried::Nothing)
    }

    /// Claims a job as a start. If that is what makes the transaction fail, and by what stands in its row,
    /// the job ends by it: the others must not stand still for ever. One in a transaction.
    fn start_or_end(
        &mut self,
        lane: LaneId,
        found: Found,
        instance: InstanceId,
        now: Micros,
        keep: Retention,
        ended: &mut Vec<JobId>,
    ) -> Result<Tried> {
        if !self.careful {
            return self.start_now(lane, found, instance, now, keep, ended);
        }
        let id = found.key.id;
        match self.operation(|book| book.start_now(lane, found, instance, now, keep, ended)) {
            Ok(tried) => Ok(tried),
            Err(Undone::Everything(error)) => Err(error),
            Err(Undone::Operation(error)) if !errors::may_be_of_one_row(&error) => Err(error),
            Err(Undone::Operation(error)) => {
                // The next transaction goes on.
                self.passed_by = expiry::MOST;
                log::error!(job = id; "legwork: it cannot be started: {error}");
                let why = format!("it cannot be started: {error}");
                self.end_waiting(id, Why::reason(&why), now, keep)?;
                ended.push(JobId(id));
                Ok(Tried::MayNotStart)
            }
        }
    }

    /// Claims a job as a start, unless a limit or its unique key forbids that: then it is blocked, or
    /// ends if it is not to wait.
    fn start_now(
        &mut self,
        lane: LaneId,
        mut found: Found,
        instance: InstanceId,
        now: Micros,
        keep: Retention,
        ended: &mut Vec<JobId>,
    ) -> Result<Tried> {
        let id = found.key.id;
        if let Some(limits) = found.limits.take_if(|limits| limits.is_unresolved()) {
            match limits.resolved(&found.args) {
                Ok(resolved) => {
                    limits::rewrite(&self.conn, id, resolved.as_ref())?;
                    found.limits = resolved.map(Arc::new);
                }
                Err(error) => {
                    self.end_waiting(id, Why::reason(&error.to_string()), now, keep)?;
                    ended.push(JobId(id));
                    self.advance(now)?;
                    return Ok(Tried::MayNotStart);
                }
            }
        }
        let limits = found.limits.clone();
        if let Some(limits) = &limits
            && let Some(limit) = limits::without_room(&self.conn, limits, now)?
        {
            match limits.on_busy {
                OnBusy::Wait => {
                    limits::wait(&self.conn, id, &InLine::of(limit))?;
                    self.moves_on(limit.line());
                    found.waits_on.into_iter().for_each(|line| self.moves_on(line));
                }
                OnBusy::Discard => {
                    let why = limits::discarded(limit);
                    self.end_waiting(id, Why::reason(&why), now, keep)?;
                    ended.push(JobId(id));
                }
            }
            self.advance(now)?;
            return Ok(Tried::MayNotStart);
        }
        let line = found.waits_on.take();
        if line.is_some() {
            limits::leave_line(&self.conn, id)?;
        }
        if let Some(held) = &found.unique
            && !unique::start(&self.conn, id, held)?
        {
            line.into_iter().for_each(|line| self.moves_on(line));
            self.advance(now)?;
            return Ok(Tried::MayNotStart);
        }
        let claimed = self.take(lane, found, instance, Some(now))?;
        if let Some(limits) = &limits {
            limits::take(&self.conn, claimed.claim, limits, now)?;
            self.nexts.remove(&id);
            self.starts_limited = true;
            // The next start by a rate is a matter of time from here; and of a limit for very many,
            // not all that may start are next.
            let moved = limits.limits.iter().filter(|limit| limit.may_exceed(limits::MOST_NEXT));
            moved.for_each(|limit| self.moves_on(limit.line()));
            self.advance(now)?;
        }
        Ok(Tried::Claimed(Box::new(claimed)))
    }

    /// Whether claims have met so many jobs that may not start that they go on in the next transaction.
    pub(super) fn was_cut_short(&self) -> bool {
        self.passed_by >= expiry::MOST
    }

    /// Whether a look into the file may find a job for the pool.
    pub(super) fn may_claim(&self, pool: PoolId) -> bool {
        self.suspects || self.lanes.any(pool)
    }

    /// Whether the pool has a job to claim, now or when a limit lets it.
    pub(super) fn has_ready(&mut self, pool: PoolId) -> Result<bool> {
        Ok(self.has_claimable(pool)? || self.has_waiting(pool)?)
    }

    /// Whether the pool has a job to claim now.
    pub(super) fn has_claimable(&mut self, pool: PoolId) -> Result<bool> {
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
        Ok(!self.read_ready(lane, 1)?.is_empty() || self.lane_has_suspect(lane)?)
    }

    fn read_ready(&self, lane: LaneId, limit: usize) -> Result<Vec<Found>> {
        let mut ask = self.conn.prepare_cached(NEXT_READY).map_err(storing)?;
        let rows = ask.query_map(params![lane, limit as i64], found).map_err(storing)?;
        let mut ready = Vec::with_capacity(limit.min(64));
        for row in rows {
            ready.push(row.map_err(storing)?);
        }
        Ok(ready)
    }

    /// The first job of a rank over all its lanes; raises the bounds that it finds too low.
    fn find_first(&mut self, pool: PoolId, rank: usize) -> Result<Option<(LaneId, Found)>> {
        while let Some((lane, next_best)) = self.lanes.first(pool, rank) {
            let head = self.read_ready(lane, 1)?.pop();
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

    /// The same, past those whose time is over.
    fn find_first_in_time(
        &mut self,
        pool: PoolId,
        rank: usize,
        now: Micros,
        keep: Retention,
        expired: &mut Vec<JobId>,
    ) -> Result<Option<(LaneId, Found)>> {
        while expired.len() < expiry::MOST {
            match self.find_first(pool, rank)? {
                Some((_, late)) if late.expires_at.is_some_and(|at| at <= now) => {
                    self.end_waiting(late.key.id, Why::reason(expiry::REASON), now, keep)?;
                    expired.push(JobId(late.key.id));
                    self.advance(now)?;
                }
                first => return Ok(first),
            }
        }
        Ok(None)
    }

    /// Claims a job: as started at this time, or ahead.
    pub(super) fn take(
        &mut self,
        lane: LaneId,
        found: Found,
        instance: InstanceId,
        started_at: Option<Micros>,
    ) -> Result<Claimed> {
        let token = self.next_token();
        let id = found.key.id;
        if let Some(expires_at) = found.expires_at {
            self.expiring.insert(ClaimRef { id: JobId(id), instance, token }, expires_at);
        }
        match started_at {
            Some(at) => self
                .conn
                .prepare_cached(if found.expires_at.is_some() { CLAIM_IN_TIME } else { CLAIM })
                .and_then(|mut claim| claim.execute(params![id, instance, token, at])),
            None => self
                .conn
                .prepare_cached(CLAIM_AHEAD)
                .and_then(|mut claim| claim.execute(params![id, instance, token])),
        }
        .map_err(storing)?;
        let (queue, kind) = self.lanes.names(lane);
        Ok(Claimed {
            claim: ClaimRef { id: JobId(id), instance, token },
            lane,
            priority: found.key.priority,
            run_at: found.key.run_at,
            kind,
            queue,
            args: found.args,
            options: found.options,
            meta: found.meta,
            unique: found.unique,
            limits: found.limits,
            flow: found.flow,
            has_steps: found.has_steps,
            attempts: found.attempts,
            started_at: started_at.unwrap_or(0),
            first_started_at: found.first_started_at,
        })
    }

    /// Lets a job that was claimed ahead be claimed by anybody again.
    pub(super) fn unclaim(&mut self, job: &Claimed) -> Result<()> {
        let claim = job.claim;
        let freed = self
            .conn
            .prepare_cached(UNCLAIM)
            .and_then(|mut free| free.execute(params![claim.id.0, claim.instance, claim.token]))
            .map_err(storing)?;
        if freed == 1 {
            let key = Key { priority: job.priority, run_at: job.run_at, id: claim.id.0 };
            self.ready(job.lane, key);
        }
        Ok(())
    }

    /// Writes the start of a job that was claimed ahead.
    pub(super) fn start(&self, started: &Started) -> Result<()> {
        let claim = started.claim;
        self.conn
            .prepare_cached(START)
            .and_then(|mut start| {
                start.execute(params![claim.id.0, claim.instance, claim.token, started.at])
            })
            .map(drop)
            .map_err(storing)
    }
}
