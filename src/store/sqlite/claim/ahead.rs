//! Claiming ahead: jobs for a pool's tray, in the pool's order.

use super::{Book, Found};
use crate::clock::Random;
use crate::error::Result;
use crate::store::sqlite::lanes::{Key, LaneId};
use crate::store::tray::{Place, Tray};
use crate::store::{Claimed, InstanceId, PoolId};

/// Jobs of one lane that are read at once while other lanes have some, too.
const TURN: usize = 8;

/// Jobs that overtake a full tray in one transaction.
const URGENT: usize = 16;

pub(super) fn place(rank: usize, key: Key) -> Place {
    Place { rank, priority: key.priority, run_at: key.run_at, id: key.id }
}

impl Book {
    /// Claims ahead what the pool's tray has room for, in the pool's order, up to the first job
    /// that is not for trays.
    pub(in crate::store::sqlite) fn claim_ahead(
        &mut self,
        pool: PoolId,
        tray: &Tray,
        random: &Random,
    ) -> Result<Vec<(Place, Claimed)>> {
        let Some(spec) = self.lanes.spec(pool) else { return Ok(Vec::new()) };
        let (instance, ranks) = (spec.instance, spec.queues.ranks());
        let weighted = spec.queues.is_weighted();
        // After a failure each is claimed by itself.
        if self.careful || self.next_suspects(pool, instance)?.iter().any(Option::is_some) {
            // A suspect waits for a worker that looks at the file.
            return Ok(Vec::new());
        }
        if weighted {
            return self.draw_ahead(pool, instance, tray, random);
        }
        let last = tray.last_place();
        let mut ahead = Vec::new();
        for rank in 0..ranks {
            while let Some((lane, next_best)) = self.lanes.first(pool, rank) {
                let urgent = last.is_some_and(|last| {
                    self.lanes.bound(lane).is_some_and(|bound| place(rank, bound) < last)
                });
                let room = tray.room(lane).max(if urgent { URGENT } else { 0 });
                let room = room.saturating_sub(ahead.len());
                if room == 0 || !self.may_lie_in(tray, lane) {
                    return Ok(ahead);
                }
                let found = self.find_some(lane, next_best, room)?;
                if found.is_empty() && self.starts_alone(lane)? {
                    return Ok(ahead);
                }
                for found in found {
                    let place = place(rank, found.key);
                    ahead.push((place, self.take(lane, found, instance, None)?));
                }
            }
        }
        Ok(ahead)
    }

    /// The same for a pool whose queues are drawn by weight; the tray keeps the order of the draws.
    pub(super) fn draw_ahead(
        &mut self,
        pool: PoolId,
        instance: InstanceId,
        tray: &Tray,
        random: &Random,
    ) -> Result<Vec<(Place, Claimed)>> {
        let mut ahead: Vec<(Place, Claimed)> = Vec::new();
        'draws: loop {
            let Some(spec) = self.lanes.spec(pool) else { return Ok(ahead) };
            for rank in spec.queues.order(random) {
                if let Some((lane, found)) = self.find_first(pool, rank)? {
                    let alone = self.lanes.is_gated(lane) || found.starts_alone();
                    if alone || tray.room(lane) <= ahead.len() {
                        return Ok(ahead);
                    }
                    self.draws += 1;
                    let place = place(self.draws, found.key);
                    ahead.push((place, self.take(lane, found, instance, None)?));
                    continue 'draws;
                }
            }
            return Ok(ahead);
        }
    }

    /// Whether a job is ready that goes before `last` and cannot lie in the tray beside it.
    pub(in crate::store::sqlite) fn must_go_first(
        &mut self,
        pool: PoolId,
        tray: &Tray,
        last: Place,
    ) -> Result<Option<Place>> {
        let Some(spec) = self.lanes.spec(pool) else { return Ok(None) };
        if spec.queues.is_weighted() {
            return Ok(None);
        }
        for rank in 0..spec.queues.ranks().min(last.rank + 1) {
            let may = self.lanes.first_bound(pool, rank).is_some_and(|key| place(rank, key) < last);
            if may && let Some((lane, found)) = self.find_first(pool, rank)? {
                let first = place(rank, found.key);
                let alone = found.starts_alone() || !self.may_lie_in(tray, lane);
                return Ok((first < last && alone).then_some(first));
            }
        }
        Ok(None)
    }

    /// Whether jobs of the lane may be claimed ahead: not those behind a gate, which may close.
    pub(super) fn may_lie_in(&self, tray: &Tray, lane: LaneId) -> bool {
        tray.is_for(lane) && !self.lanes.is_gated(lane)
    }

    /// The first jobs of a lane, at most `room`, as long as none of another lane goes before;
    /// raises the lane's bound behind them.
    pub(super) fn find_some(
        &mut self,
        lane: LaneId,
        next_best: Option<Key>,
        room: usize,
    ) -> Result<Vec<Found>> {
        // Lanes take turns in the order; what is read beyond this one's turn is read for nothing.
        let limit = if next_best.is_some() { room.min(TURN) } else { room };
        let mut ready = self.read_ready(lane, limit)?;
        let all = ready.len() < limit;
        let first = ready.iter().take_while(|found| {
            next_best.is_none_or(|best| found.key <= best) && !found.starts_alone()
        });
        let count = first.count();
        let bound = match ready.get(count) {
            Some(beyond) => Some(beyond.key),
            None if all => None,
            None => ready.last().map(|last| last.key),
        };
        self.lanes.set(lane, bound);
        ready.truncate(count);
        Ok(ready)
    }

    /// Whether the lane's first job must not be claimed ahead.
    pub(super) fn starts_alone(&self, lane: LaneId) -> Result<bool> {
        Ok(self.read_ready(lane, 1)?.first().is_some_and(Found::starts_alone))
    }
}
