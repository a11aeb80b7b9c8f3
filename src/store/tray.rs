//! The tray of a pool: jobs that the writer has claimed ahead, and finishes that wait for it.
//!
//! A busy pool would need a commit for each job if it claimed one when a worker is free. So the
//! writer claims short jobs ahead, in batches, and puts them into the tray; a worker takes its next
//! job from there and leaves the end of its last one, under one lock and without a wake-up. The
//! writer comes by itself while the tray is in use, at least once a [`TICK`]; workers call it
//! earlier when stock runs low or ends pile up. A pool without work has an empty tray and an
//! unwatched one: nobody wakes.
//!
//! What lies in the tray is claimed and not started: it shows as ready, and the writer may take it
//! out again at any time before a worker does. The [architecture page](crate::guide::architecture)
//! says when it does.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Micros;

use super::{ClaimRef, Claimed, Ending, LaneId};

/// How long the writer leaves a tray in use alone at most: an end is recorded no later.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// A job in the tray that no worker has taken for so long goes back to the queue, and a start that
/// the file does not know is written.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// So much work may lie in the tray.
const STOCK: Duration = Duration::from_millis(4);

/// Jobs that take longer are not claimed ahead: a commit of their own costs them little.
const SHORT: Duration = Duration::from_millis(1);

/// Most jobs in one tray.
const MOST: usize = 1024;

/// Ends that make a worker call the writer.
const ENDS: usize = 512;

/// The place of a job in the order of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Of its queue in the pool's list; a running number if queues are drawn by weight.
    pub(crate) rank: usize,
    pub(crate) priority: i64,
    pub(crate) run_at: Micros,
    pub(crate) id: i64,
}

/// A job that a worker runs.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) claim: ClaimRef,
    lane: LaneId,
    pub(super) since: Instant,
    started_at: Micros,
    /// The file knows that it is running.
    pub(super) known: bool,
}

/// A start that the file does not know of yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) claim: ClaimRef,
    pub(crate) at: Micros,
}

/// What lies under the tray's lock. Each method is one step of the protocols, without a clock of its
/// own, so that the tests of the protocols explore this very code.
#[derive(Clone, Default)]
pub(super) struct Inner {
    pub(super) ahead: BTreeMap<Place, Claimed>,
    pub(super) ends: Vec<Ending>,
    pub(super) out: Vec<Out>,
    /// Seconds that a job of a lane takes, smoothed.
    pace: HashMap<LaneId, f64>,
    /// Below this stock workers call.
    pub(super) low: usize,
    /// The writer comes by itself within a tick.
    pub(super) watched: bool,
    /// It was called and has not come yet.
    pub(super) called: bool,
    pub(super) closed: bool,
    pub(super) last_visit: Option<Instant>,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Tray {
    inner: Mutex<Inner>,
    workers: AtomicUsize,
}

/// What a worker gets for the end of its last job.
pub(crate) enum Visit {
    /// The next job; `call`: the writer must be told to come.
    Next { claimed: Claimed, call: bool },
    /// Nothing lies there; the end is handed back, to be posted with a request for a job.
    Empty(Option<Ending>),
}

impl Tray {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- workers -------------------------------------------------------------------------

    /// How many workers the pool has, which decides how much may lie in stock.
    pub(crate) fn set_workers(&self, workers: usize) {
        self.workers.store(workers, Ordering::Relaxed);
    }

    /// Leaves the end of the last job, if the next one can be taken.
    pub(crate) fn visit(&self, last: Option<Ending>, now: Micros) -> Visit {
        let at = Instant::now();
        self.lock().visit(last, now, at)
    }

    /// A worker starts a job that it got from the writer, as a start that the file knows.
    pub(crate) fn began(&self, claimed: &Claimed) {
        self.lock().begin(claimed, Instant::now(), true);
    }

    /// A job's end went another way than by a visit.
    pub(crate) fn ended(&self, claim: ClaimRef) {
        self.lock().ended(claim, Instant::now());
    }

    // ---- the writer ----------------------------------------------------------------------

    /// Takes what workers have left.
    pub(crate) fn take_ends(&self) -> Vec<Ending> {
        self.lock().take_ends()
    }

    /// How many jobs of this lane may be put in now, beside those that lie there; 0 for lanes
    /// whose jobs are long or have not been seen.
    pub(crate) fn room(&self, lane: LaneId) -> usize {
        let inner = self.lock();
        inner.depth(lane, self.workers.load(Ordering::Relaxed)).saturating_sub(inner.ahead.len())
    }

    /// Whether jobs of this lane may lie in the tray at all.
    pub(crate) fn is_for(&self, lane: LaneId) -> bool {
        self.lock().depth(lane, 1) > 0
    }

    /// Whether a worker has come by a moment ago, so that stock will be used.
    pub(crate) fn in_use(&self) -> bool {
        self.lock().in_use(Instant::now())
    }

    /// Puts jobs in; the claims are committed. Returned are those for which it is too late.
    pub(crate) fn put(&self, jobs: Vec<(Place, Claimed)>) -> Vec<Claimed> {
        self.lock().put(jobs)
    }

    /// The next job, for a worker that has come too early for it. Its start is not in the file.
    pub(crate) fn take(&self, now: Micros) -> Option<Claimed> {
        self.lock().take(now, Instant::now())
    }

    /// The last place in the tray.
    pub(crate) fn last_place(&self) -> Option<Place> {
        self.lock().ahead.last_key_value().map(|(place, _)| *place)
    }

    /// Takes jobs out that no worker has taken.
    pub(crate) fn take_back(&self, mut which: impl FnMut(&Claimed) -> bool) -> Vec<Claimed> {
        self.lock().take_back(&mut which)
    }

    /// Takes out the jobs that come after a place.
    pub(crate) fn take_back_after(&self, first: Place) -> Vec<Claimed> {
        let mut inner = self.lock();
        let after = inner.ahead.split_off(&first);
        after.into_values().collect()
    }

    /// Takes out the jobs that have lain there while no worker came by.
    pub(crate) fn take_stale(&self) -> Vec<Claimed> {
        self.lock().take_stale(Instant::now())
    }

    /// Takes everything out, for good.
    pub(crate) fn close(&self) -> Vec<Claimed> {
        self.lock().close()
    }

    /// The starts that the file should know by now.
    pub(crate) fn unknown_starts(&self) -> Vec<Started> {
        self.lock().unknown_starts(Instant::now())
    }

    /// The file knows of these starts.
    pub(crate) fn known(&self, started: &[Started]) {
        self.lock().known(started);
    }

    /// Until when the writer should come again by itself; `None`: the tray is not in use, and it
    /// is called.
    pub(crate) fn watch(&self) -> Option<Duration> {
        self.lock().watch()
    }
}

impl Inner {
    pub(super) fn visit(&mut self, last: Option<Ending>, now: Micros, at: Instant) -> Visit {
        self.last_visit = Some(at);
        if let Some(last) = &last {
            self.ended(last.finish.claim, at);
        }
        let Some(claimed) = self.take(now, at) else { return Visit::Empty(last) };
        self.ends.extend(last);
        let due = self.ends.len() >= ENDS || self.ahead.len() < self.low || !self.watched;
        let call = due && !self.called;
        self.called |= due;
        Visit::Next { claimed, call }
    }

    pub(super) fn take_ends(&mut self) -> Vec<Ending> {
        self.called = false;
        std::mem::take(&mut self.ends)
    }

    pub(super) fn in_use(&self, at: Instant) -> bool {
        !self.closed && self.last_visit.is_some_and(|last| at.duration_since(last) < PATIENCE)
    }

    pub(super) fn put(&mut self, jobs: Vec<(Place, Claimed)>) -> Vec<Claimed> {
        if self.closed {
            return jobs.into_iter().map(|(_, claimed)| claimed).collect();
        }
        self.ahead.extend(jobs);
        self.low = self.ahead.len() / 2;
        self.watched = true;
        Vec::new()
    }

    pub(super) fn take(&mut self, now: Micros, at: Instant) -> Option<Claimed> {
        let (_, mut claimed) = self.ahead.pop_first()?;
        claimed.started_at = now;
        self.begin(&claimed, at, false);
        Some(claimed)
    }

    fn take_back(&mut self, mut which: impl FnMut(&Claimed) -> bool) -> Vec<Claimed> {
        let mut back = Vec::new();
        if self.ahead.values().any(&mut which) {
            let (out, stay): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(&mut self.ahead).into_iter().partition(|(_, job)| which(job));
            self.ahead = stay;
            back.extend(out.into_values());
        }
        back
    }

    pub(super) fn take_stale(&mut self, at: Instant) -> Vec<Claimed> {
        let stale = self.last_visit.is_none_or(|last| at.duration_since(last) >= PATIENCE);
        if stale { self.take_back(|_| true) } else { Vec::new() }
    }

    pub(super) fn close(&mut self) -> Vec<Claimed> {
        self.closed = true;
        self.take_back(|_| true)
    }

    pub(super) fn unknown_starts(&self, at: Instant) -> Vec<Started> {
        let late = |out: &&Out| !out.known && at.duration_since(out.since) >= PATIENCE;
        let started = |out: &Out| Started { claim: out.claim, at: out.started_at };
        self.out.iter().filter(late).map(started).collect()
    }

    pub(super) fn known(&mut self, started: &[Started]) {
        for out in &mut self.out {
            out.known |= started.iter().any(|started| started.claim == out.claim);
        }
    }

    pub(super) fn watch(&mut self) -> Option<Duration> {
        let busy = !self.ahead.is_empty() || !self.ends.is_empty();
        let unknown = self.out.iter().any(|out| !out.known);
        self.watched = busy || unknown;
        if busy { Some(TICK) } else { unknown.then_some(PATIENCE) }
    }

    pub(super) fn begin(&mut self, claimed: &Claimed, since: Instant, known: bool) {
        let (claim, lane, started_at) = (claimed.claim, claimed.lane, claimed.started_at);
        self.out.push(Out { claim, lane, since, started_at, known });
    }

    pub(super) fn ended(&mut self, claim: ClaimRef, at: Instant) {
        let Some(place) = self.out.iter().position(|out| out.claim == claim) else { return };
        let out = self.out.swap_remove(place);
        // Capped, so that one worker that was held up does not make all jobs long.
        let took = at.saturating_duration_since(out.since).min(2 * SHORT).as_secs_f64();
        self.pace
            .entry(out.lane)
            .and_modify(|pace| *pace = *pace * 0.8 + took * 0.2)
            .or_insert(took);
    }

    fn depth(&self, lane: LaneId, workers: usize) -> usize {
        match self.pace.get(&lane) {
            Some(&pace) if pace <= SHORT.as_secs_f64() => {
                let jobs = STOCK.as_secs_f64() * workers as f64 / pace.max(1e-9);
                (jobs as usize).min(MOST)
            }
            _ => 0,
        }
    }
}
