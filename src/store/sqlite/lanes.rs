//! What the writer knows in memory about the lanes, so that a claim costs one look into the file
//! however many queues there are and whatever else waits.
//!
//! A lane is a (queue, kind, gate). Each has a *bound*: nothing ready in the lane goes before it.
//!
//! Invariant: a bound is never later than the lane's true first ready job, in claim order; `None`
//! says that nothing is ready. So a pool finds its next job by looking into the lane with the
//! lowest bound: if what it finds there is not later than the second lowest bound, it is the first
//! of all; otherwise the bound is raised to it and the search goes on.
//!
//! Everything that makes a job ready lowers the bound ([`Lanes::lower`]); claims need not raise it.
//! Changes by other connections are learnt from [`Counter`](super::counter::Counter), which sets the bound to
//! [`Key::LOWEST`]: unknown. A pool's seats are the lanes it may run: queue served, kind known,
//! nothing paused, its gate open. That is how pausing or closing 100 k jobs costs nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::record::Scope;
pub(super) use crate::store::LaneId;
use crate::store::{PoolId, PoolSpec};

/// The claim order inside a lane and over all lanes of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) priority: i64,
    pub(super) run_at: i64,
    pub(super) id: i64,
}

impl Key {
    pub(super) const LOWEST: Key = Key { priority: i64::MIN, run_at: i64::MIN, id: i64::MIN };
}

struct Lane {
    queue: Arc<str>,
    kind: Arc<str>,
    /// `""`: none.
    gate: Arc<str>,
    bound: Option<Key>,
    /// Some pool here runs its kind.
    known: bool,
}

/// The lanes that one pool may run now, by rank and bound.
struct Seats {
    spec: PoolSpec,
    ranks: Vec<BTreeSet<(Key, LaneId)>>,
    rank_of: HashMap<LaneId, usize>,
}

/// What must not be started now.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) paused: HashSet<Scope>,
    /// The gates that are closed.
    pub(super) closed: HashSet<String>,
}

/// A queue, a kind, a gate.
type Names = (Arc<str>, Arc<str>, Arc<str>);

#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    /// The lanes without a gate.
    ids: HashMap<Arc<str>, HashMap<Arc<str>, LaneId>>,
    /// Those with one; apart, so that the others are found without it.
    gated: HashMap<Names, LaneId>,
    pools: HashMap<PoolId, Seats>,
    held: Held,
    /// Lanes of unknown kinds with news.
    strange: BTreeSet<LaneId>,
}

impl Lanes {
    /// The id of a lane, if it is known here.
    pub(super) fn id(&self, queue: &str, kind: &str, gate: &str) -> Option<LaneId> {
        if gate.is_empty() {
            return self.ids.get(queue)?.get(kind).copied();
        }
        self.gated.get(&(queue.into(), kind.into(), gate.into())).copied()
    }

    /// Whether the lane has a gate.
    pub(super) fn is_gated(&self, lane: LaneId) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| !lane.gate.is_empty())
    }

    pub(super) fn knows(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Queue and kind of a lane that is known here.
    pub(super) fn names(&self, lane: LaneId) -> (Arc<str>, Arc<str>) {
        self.lanes.get(&lane).map_or_else(
            || (Arc::from(""), Arc::from("")),
            |lane| (Arc::clone(&lane.queue), Arc::clone(&lane.kind)),
        )
    }

    /// Learns that a lane exists, or that it may have news.
    pub(super) fn learn(
        &mut self,
        id: LaneId,
        (queue, kind, gate): (&str, &str, &str),
        bound: Option<Key>,
    ) {
        if !self.lanes.contains_key(&id) {
            let (queue, kind) = (Arc::<str>::from(queue), Arc::<str>::from(kind));
            let gate = Arc::<str>::from(gate);
            if gate.is_empty() {
                self.ids.entry(Arc::clone(&queue)).or_default().insert(Arc::clone(&kind), id);
            } else {
                let names = (Arc::clone(&queue), Arc::clone(&kind), Arc::clone(&gate));
                self.gated.insert(names, id);
            }
            let known = is_known(&self.pools, &kind);
            let lane = Lane { queue, kind, gate, bound: None, known };
            for seats in self.pools.values_mut() {
                seats.seat(id, &lane, &self.held);
            }
            self.lanes.insert(id, lane);
        }
        self.set(id, bound);
    }

    /// Drops a lane whose row was rolled back.
    pub(super) fn unlearn(&mut self, id: LaneId) {
        self.set(id, None);
        if let Some(lane) = self.lanes.remove(&id) {
            if !lane.gate.is_empty() {
                self.gated.remove(&(lane.queue, lane.kind, lane.gate));
            } else if let Some(kinds) = self.ids.get_mut(&lane.queue) {
                kinds.remove(&lane.kind);
            }
        }
        for seats in self.pools.values_mut() {
            seats.rank_of.remove(&id);
        }
    }

    /// Drops everything learnt from the file; the pools stay.
    pub(super) fn forget(&mut self) {
        self.lanes.clear();
        self.ids.clear();
        self.gated.clear();
        for seats in self.pools.values_mut() {
            seats.clear();
        }
    }

    /// A job with this key became ready in the lane.
    pub(super) fn lower(&mut self, id: LaneId, key: Key) {
        if self.lanes.get(&id).is_some_and(|lane| lane.bound.is_none_or(|bound| key < bound)) {
            self.set(id, Some(key));
        }
    }

    /// Replaces a lane's bound; the caller has seen that it holds.
    pub(super) fn set(&mut self, id: LaneId, bound: Option<Key>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.bound == bound {
            return;
        }
        for seats in self.pools.values_mut() {
            seats.moved(id, lane.bound, bound);
        }
        lane.bound = bound;
        if !lane.known && bound.is_some() {
            self.strange.insert(id);
        }
    }

    /// The lane to look into for the pool's next job in this rank, and the bound of the next best.
    pub(super) fn first(&self, pool: PoolId, rank: usize) -> Option<(LaneId, Option<Key>)> {
        let mut bounds = self.pools.get(&pool)?.ranks.get(rank)?.iter();
        let (_, lane) = bounds.next()?;
        Some((*lane, bounds.next().map(|(key, _)| *key)))
    }

    /// The lowest bound in a rank of the pool.
    pub(super) fn first_bound(&self, pool: PoolId, rank: usize) -> Option<Key> {
        self.pools.get(&pool)?.ranks.get(rank)?.first().map(|(key, _)| *key)
    }

    /// The bound of a lane.
    pub(super) fn bound(&self, lane: LaneId) -> Option<Key> {
        self.lanes.get(&lane)?.bound
    }

    /// The rank in which the pool may run jobs of this lane now, if it may.
    pub(super) fn rank(&self, pool: PoolId, lane: LaneId) -> Option<usize> {
        self.pools.get(&pool)?.rank_of.get(&lane).copied()
    }

    /// Whether nothing that is ready goes before this place in the pool's order, for all that is
    /// known: a bound that is too low says no.
    pub(super) fn is_next(&self, pool: PoolId, rank: usize, key: Key) -> bool {
        self.pools.get(&pool).is_some_and(|seats| {
            seats.ranks[..=rank].iter().enumerate().all(|(at, bounds)| match bounds.first() {
                None => true,
                Some((bound, _)) => at == rank && key < *bound,
            })
        })
    }

    /// Whether the pool may find anything.
    pub(super) fn any(&self, pool: PoolId) -> bool {
        self.pools.get(&pool).is_some_and(|seats| seats.ranks.iter().any(|rank| !rank.is_empty()))
    }

    pub(super) fn spec(&self, pool: PoolId) -> Option<&PoolSpec> {
        self.pools.get(&pool).map(|seats| &seats.spec)
    }

    pub(super) fn has_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    pub(super) fn open_pool(&mut self, pool: PoolId, spec: PoolSpec) {
        let ranks = vec![BTreeSet::new(); spec.queues.ranks()];
        let mut seats = Seats { spec, ranks, rank_of: HashMap::new() };
        for (id, lane) in &self.lanes {
            seats.seat(*id, lane, &self.held);
        }
        self.pools.insert(pool, seats);
        for lane in self.lanes.values_mut() {
            lane.known = is_known(&self.pools, &lane.kind);
        }
    }

    pub(super) fn close_pool(&mut self, pool: PoolId) {
        self.pools.remove(&pool);
    }

    /// Takes over what is paused and closed now; whether that is something else than before.
    pub(super) fn set_held(&mut self, held: Held) -> bool {
        if held == self.held {
            return false;
        }
        self.held = held;
        for seats in self.pools.values_mut() {
            seats.clear();
            for (id, lane) in &self.lanes {
                seats.seat(*id, lane, &self.held);
            }
        }
        true
    }

    /// The lanes of kinds that no pool here knows in which something may have become ready since
    /// the last call.
    pub(super) fn take_strange(&mut self) -> Vec<(LaneId, String)> {
        let strange = std::mem::take(&mut self.strange);
        strange
            .into_iter()
            // A pool may have come for it meanwhile.
            .filter_map(|id| Some((id, self.lanes.get(&id).filter(|lane| !lane.known)?)))
            .map(|(id, lane)| (id, lane.kind.to_string()))
            .collect()
    }
}

fn is_known(pools: &HashMap<PoolId, Seats>, kind: &str) -> bool {
    pools.values().any(|seats| seats.spec.kinds.contains(kind))
}

impl Held {
    fn holds(&self, lane: &Lane) -> bool {
        self.closed.contains(&*lane.gate)
            || self.paused.iter().any(|scope| match scope {
                Scope::All => true,
                Scope::Queue(queue) => **queue == *lane.queue,
                Scope::Kind(kind) => **kind == *lane.kind,
            })
    }
}

impl Seats {
    fn seat(&mut self, id: LaneId, lane: &Lane, held: &Held) {
        if held.holds(lane) || !self.spec.kinds.contains(&*lane.kind) {
            return;
        }
        let Some(rank) = self.spec.queues.rank(&lane.queue) else { return };
        self.rank_of.insert(id, rank);
        if let Some(bound) = lane.bound {
            self.ranks[rank].insert((bound, id));
        }
    }

    fn moved(&mut self, id: LaneId, from: Option<Key>, to: Option<Key>) {
        let Some(&rank) = self.rank_of.get(&id) else { return };
        if let Some(from) = from {
            self.ranks[rank].remove(&(from, id));
        }
        if let Some(to) = to {
            self.ranks[rank].insert((to, id));
        }
    }

    fn clear(&mut self) {
        self.rank_of.clear();
        self.ranks.iter_mut().for_each(BTreeSet::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::queues::Queues;
    use std::sync::Arc;

    fn key(priority: i64, id: i64) -> Key {
        Key { priority, run_at: 0, id }
    }

    fn lanes(queues: &[&str]) -> Lanes {
        let list: Vec<_> = queues.iter().map(|&q| (q.to_owned(), None)).collect();
        let mut lanes = Lanes::default();
        lanes.open_pool(
            1,
            PoolSpec {
                instance: 1,
                queues: Queues::parse(&list).unwrap(),
                kinds: Arc::new(["k".to_owned()].into()),
            },
        );
        lanes
    }

    fn paused<const N: usize>(scopes: [Scope; N]) -> Held {
        Held { paused: scopes.into(), ..Held::default() }
    }

    #[test]
    fn the_lane_with_the_lowest_bound_comes_first_with_the_next_bound() {
        let mut lanes = lanes(&["*"]);
        lanes.learn(1, ("a", "k", ""), Some(key(5, 1)));
        lanes.learn(2, ("b", "k", ""), Some(key(0, 2)));
        assert_eq!(lanes.first(1, 0), Some((2, Some(key(5, 1)))));
        lanes.set(2, None);
        assert_eq!(lanes.first(1, 0), Some((1, None)));
        lanes.lower(2, key(9, 3));
        lanes.lower(2, key(10, 4));
        assert_eq!(lanes.first(1, 0), Some((1, Some(key(9, 3)))));
    }

    #[test]
    fn paused_unknown_and_unserved_lanes_have_no_seat() {
        let mut lanes = lanes(&["a", "b"]);
        lanes.learn(1, ("a", "k", ""), Some(key(0, 1)));
        lanes.learn(2, ("b", "k", ""), Some(key(0, 2)));
        lanes.learn(3, ("a", "unknown", ""), Some(key(0, 3)));
        lanes.learn(4, ("c", "k", ""), Some(key(0, 4)));
        assert_eq!(lanes.first(1, 0), Some((1, None)));
        assert_eq!(lanes.first(1, 1), Some((2, None)));
        lanes.set_held(paused([Scope::Queue("a".into())]));
        assert_eq!(lanes.first(1, 0), None);
        lanes.lower(1, key(-1, 5));
        lanes.set_held(Held::default());
        assert_eq!(lanes.first(1, 0), Some((1, None)));
        assert_eq!(lanes.take_strange(), [(3, "unknown".to_owned())]);
        assert_eq!(lanes.take_strange(), []);
        lanes.set_held(paused([Scope::All]));
        assert!(!lanes.any(1));
    }

    #[test]
    fn a_closed_gate_takes_its_lanes_seats_away_and_keeps_their_bounds() {
        let mut lanes = lanes(&["*"]);
        lanes.learn(1, ("a", "k", ""), Some(key(0, 1)));
        lanes.learn(2, ("a", "k", "online"), Some(key(-1, 2)));
        assert_eq!(lanes.id("a", "k", ""), Some(1));
        assert_eq!(lanes.id("a", "k", "online"), Some(2));
        assert_eq!(lanes.first(1, 0), Some((2, Some(key(0, 1)))));
        let closed = Held { closed: ["online".to_owned()].into(), ..Held::default() };
        assert!(lanes.set_held(closed));
        assert_eq!(lanes.first(1, 0), Some((1, None)));
        assert!(lanes.is_gated(2) && !lanes.is_gated(1));
        lanes.lower(2, key(-2, 3));
        assert!(lanes.set_held(Held::default()));
        assert_eq!(lanes.first(1, 0), Some((2, Some(key(0, 1)))));
        lanes.unlearn(2);
        assert_eq!(lanes.id("a", "k", "online"), None);
        assert_eq!(lanes.id("a", "k", ""), Some(1));
    }
}
