//! Who waits for a job: what an insert can hand over in its own statement.
//!
//! A job that comes into being claimed costs one statement instead of two and never enters the
//! index of ready jobs. That keeps the order only if nothing that is ready goes before it, and if
//! the one who waits has nothing in his tray that does.

use std::sync::Arc;

use super::enqueue::Born;
use super::lanes::{Key, LaneId, Lanes};
use super::unique::Held;
use crate::clock::Micros;
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::store::tray::{Place, Tray};
use crate::store::{ClaimRef, Claimed, InstanceId, PoolId};

/// What one pool could take.
pub(super) struct Seat<'a> {
    pub(super) pool: PoolId,
    pub(super) instance: InstanceId,
    /// Workers that wait.
    pub(super) waiting: usize,
    /// Where jobs may be put ahead.
    pub(super) tray: Option<&'a Tray>,
    /// Room in the tray for jobs of a lane, as last asked.
    room: Option<(LaneId, usize)>,
}

impl<'a> Seat<'a> {
    pub(super) fn new(
        pool: PoolId,
        instance: InstanceId,
        waiting: usize,
        tray: Option<&'a Tray>,
    ) -> Seat<'a> {
        Seat { pool, instance, waiting, tray, room: None }
    }

    fn has_room(&mut self, lane: LaneId) -> bool {
        let Some(tray) = self.tray else { return false };
        match self.room {
            Some((of, room)) if of == lane => room > 0,
            _ => {
                let room = tray.room(lane);
                self.room = Some((lane, room));
                room > 0
            }
        }
    }
}

/// A claimed job for a pool.
pub(super) struct Given {
    pub(super) pool: PoolId,
    /// `None`: for a worker that waits; otherwise its place in the tray.
    pub(super) place: Option<Place>,
    pub(super) claimed: Claimed,
}

/// Who waits, and what he was given, in one transaction.
#[derive(Default)]
pub(super) struct Demand<'a> {
    seats: Vec<Seat<'a>>,
    now: Micros,
    pub(super) given: Vec<Given>,
}

/// Who gets a job.
pub(super) struct Taker {
    seat: usize,
    rank: usize,
    instance: InstanceId,
    started_at: Option<Micros>,
}

impl Taker {
    /// The claim that the job is to be inserted with.
    pub(super) fn claim(&self, id: JobId, token: i64) -> Born {
        let claim = ClaimRef { id, instance: self.instance, token };
        Born { claim, started_at: self.started_at }
    }
}

impl<'a> Demand<'a> {
    pub(super) fn new(seats: Vec<Seat<'a>>, now: Micros) -> Demand<'a> {
        Demand { seats, now, given: Vec::new() }
    }

    /// Who may have a new ready job of this lane at once.
    pub(super) fn taker(&mut self, lanes: &Lanes, lane: LaneId, key: Key) -> Option<Taker> {
        let now = self.now;
        self.seats.iter_mut().enumerate().find_map(|(at, seat)| {
            let rank = lanes.rank(seat.pool, lane)?;
            // What is behind a gate is for those that start it at once.
            let ahead = seat.waiting == 0;
            if ahead && (lanes.is_gated(lane) || !seat.has_room(lane))
                || !lanes.is_next(seat.pool, rank, key)
            {
                return None;
            }
            let started_at = (seat.waiting > 0).then_some(now);
            Some(Taker { seat: at, rank, instance: seat.instance, started_at })
        })
    }

    pub(super) fn give(
        &mut self,
        taker: Taker,
        born: Born,
        row: &NewRow,
        lane: LaneId,
        (queue, kind): (Arc<str>, Arc<str>),
    ) {
        let seat = &mut self.seats[taker.seat];
        let place = match taker.started_at {
            Some(_) => {
                seat.waiting -= 1;
                None
            }
            None => {
                if let Some((_, room)) = &mut seat.room {
                    *room -= 1;
                }
                let (priority, run_at) = (row.priority, row.run_at);
                Some(Place { rank: taker.rank, priority, run_at, id: born.claim.id.0 })
            }
        };
        let claimed = Claimed {
            claim: born.claim,
            lane,
            priority: row.priority,
            run_at: row.run_at,
            kind,
            queue,
            args: row.args.clone(),
            options: row.options.clone(),
            meta: row.meta.clone(),
            unique: row.unique.as_ref().map(Held::of),
            // One that has limits goes by the claim.
            limits: None,
            // So does a member of a flow.
            flow: None,
            has_steps: false,
            attempts: 0,
            started_at: taker.started_at.unwrap_or(0),
            first_started_at: None,
        };
        self.given.push(Given { pool: seat.pool, place, claimed });
    }
}
