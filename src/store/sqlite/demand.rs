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
    /// Room in the tray for jobs of a lane, as last asked, without what is given here.
    room: Option<(LaneId, usize)>,
    /// How many have been put ahead here.
    given_ahead: usize,
}

impl<'a> Seat<'a> {
    pub(super) fn new(
        pool: PoolId,
        instance: InstanceId,
        waiting: usize,
        tray: Option<&'a Tray>,
    ) -> Seat<'a> {
        Seat { pool, instance, waiting, tray, room: None, given_ahead: 0 }
    }

    fn has_room(&mut self, lane: LaneId) -> bool {
        let Some(tray) = self.tray else { return false };
        let room = match self.room {
            Some((of, room)) if of == lane => room,
            _ => tray.room(lane),
        };
        self.room = Some((lane, room));
        room > self.given_ahead
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
                seat.given_ahead += 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PoolSpec;
    use crate::store::sqlite::book::Book;
    use crate::store::sqlite::migrate;
    use crate::{new_job::NewJob, rules::queues::Queues};

    fn job(kind: &str) -> NewRow {
        NewJob::of_kind_json(kind, "{}").into_row(1_000_000, 100).unwrap()
    }

    #[test]
    fn a_bulk_of_kinds_in_turn_puts_no_more_ahead_than_the_tray_takes() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        migrate::migrate(&conn).unwrap();
        let mut book = Book::new(conn);
        let spec = PoolSpec {
            instance: 1,
            queues: Queues::parse(&[]).unwrap(),
            kinds: Arc::new(["a".to_owned(), "b".to_owned()].into()),
        };
        book.open_pool(1, spec);
        assert!(book.begin().unwrap());
        let tray = Tray::default();
        tray.set_workers(1);
        // One job of each kind, which is short.
        for kind in ["a", "b"] {
            let seat = Seat::new(1, 1, 1, Some(&tray));
            let mut demand = Demand::new(vec![seat], 0);
            book.insert(&[job(kind)], &mut demand).unwrap();
            let claimed = &demand.given[0].claimed;
            tray.began(claimed);
            tray.ended(claimed.claim);
        }
        let room = tray.room(1).max(tray.room(2));
        assert!(room > 0);
        let rows: Vec<NewRow> = ["a", "b"].into_iter().cycle().take(4 * room).map(job).collect();
        let mut demand = Demand::new(vec![Seat::new(1, 1, 0, Some(&tray))], 0);
        book.insert(&rows, &mut demand).unwrap();
        let given = demand.given.len();
        assert!((1..=room).contains(&given), "{given} of {room}");
    }
}
