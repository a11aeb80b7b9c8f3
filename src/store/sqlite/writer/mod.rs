//! The writer: the one thread that writes to the file.
//!
//! It takes whatever lies in its mailbox, without waiting for more, and records it as one *group*
//! in one transaction: notes, steps and finishes first, then inserts and controls, then what has fallen due,
//! then claims. Only after the commit does it answer anybody. The guide's
//! [architecture page](crate::guide::architecture) tells why in this order.
//!
//! A caller who is alone records his operation himself, at the writer's [desk].
//!
//! It sleeps on its mailbox, until mail comes or the next alarm: a job that falls due or expires,
//! finished jobs to be pruned. With neither it sleeps for good.

mod answer;
mod apply;
mod desk;
mod gaps;
mod group;
mod neighbours;
mod spare;
mod stock;
mod trouble;
mod wal;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

pub(super) use self::desk::Desk;
use self::gaps::Gaps;
use self::group::{FinishOperation, Group, Parked};
pub(super) use self::group::{Mail, Operation, deadline};
use self::neighbours::Neighbours;
use self::wal::WalWatch;
pub(super) use self::wal::{CHECKPOINTS, checkpoints};
use crate::clock::Micros;
use crate::error::Error;
use crate::rules::trust::Trust;
use crate::store::sqlite::book::Book;
use crate::store::sqlite::tripwire::Tripwire;
use crate::store::tray::Tray;
use crate::store::waiters::Waiters;
use crate::store::{
    Claimed, Control, Durability, Emptiness, InstanceId, Notice, PoolId, Settings, WorkerMail,
};

pub(super) struct Writer {
    book: Book,
    mail: Receiver<Mail>,
    settings: Settings,
    waiters: Arc<Waiters>,
    parked: HashMap<PoolId, VecDeque<Parked>>,
    trays: HashMap<PoolId, Arc<Tray>>,
    /// Taken out of the trays; their claims are still in the file.
    reclaimed: Vec<Claimed>,
    /// The newest epoch of each pool that was unparked.
    epochs: HashMap<PoolId, u64>,
    /// Attempts under way per instance, by token: claims answered and not yet finished.
    running: HashMap<InstanceId, HashSet<i64>>,
    when_empty: Vec<Emptiness>,
    /// Finishes that could not be recorded.
    held: Vec<FinishOperation>,
    /// Engines that have left, and whose rows could not be taken away.
    leaving: Vec<InstanceId>,
    /// A transaction has failed: when to try again, and how long that pause is.
    trouble: Option<(Instant, Duration)>,
    /// The trouble has been told, and its end is to be.
    trouble_told: bool,
    damage_told: bool,
    wal: WalWatch,
    reported_kinds: HashSet<String>,
    tripwire: Arc<Tripwire>,
    history_rows: Option<u64>,
    prune_not_before: Option<Instant>,
    /// How far the wall clock is believed, once somebody has asked; and the clocks as they were then,
    /// or when the file was opened.
    trust: Option<Trust>,
    looked: (Micros, Duration),
    /// An operation that a caller could not record at once.
    left_over: Option<Group>,
    /// A caller does the work, in his own thread.
    at_desk: bool,
    /// Until when the thread sleeps; `None`: until mail comes.
    sleeps_until: Option<Instant>,
    gaps: Gaps,
    neighbours: Neighbours,
    stopping: bool,
}

/// Longest wait while an alarm is set: monotonic clocks stand still while a laptop sleeps.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Writer {
    pub(super) fn new(
        book: Book,
        mail: Receiver<Mail>,
        desk: Weak<Desk>,
        settings: Settings,
        waiters: Arc<Waiters>,
        tripwire: Arc<Tripwire>,
    ) -> Writer {
        let looked = (settings.clock.micros(), settings.clock.awake());
        let neighbours = Neighbours::new(desk, Arc::clone(&settings.observer));
        Writer {
            book,
            mail,
            settings,
            waiters,
            parked: HashMap::new(),
            trays: HashMap::new(),
            reclaimed: Vec::new(),
            epochs: HashMap::new(),
            running: HashMap::new(),
            when_empty: Vec::new(),
            held: Vec::new(),
            leaving: Vec::new(),
            trouble: None,
            trouble_told: false,
            damage_told: false,
            wal: WalWatch::default(),
            reported_kinds: HashSet::new(),
            tripwire,
            history_rows: None,
            prune_not_before: None,
            trust: None,
            looked,
            left_over: None,
            at_desk: false,
            sleeps_until: None,
            gaps: Gaps::default(),
            neighbours,
            stopping: false,
        }
    }

    /// One turn of the thread: takes what is there, and records it. `false`: it was told to stop,
    /// and is done.
    fn turn(&mut self, first: Option<Mail>) -> bool {
        let Some(mut group) = self.collect(first) else {
            self.close();
            return false;
        };
        self.visit_trays(&mut group);
        self.go_round(&mut group);
        if self.tripwire.sprung().is_none() {
            self.record(group);
        }
        if let Some(gone) = self.tripwire.sprung() {
            self.book.leave_wal();
            // Whoever waits for an answer learns of it by the end of the thread.
            (self.settings.observer)(Notice::Gone { error: gone.to_string() });
            return false;
        }
        self.prune_if_due();
        self.bound_the_wal();
        self.leave_a_gap();
        true
    }

    /// The last that is done on the connection.
    fn close(&mut self) {
        if !self.settings.checkpoint_on_close {
            self.shorten_wal();
            self.book.leave_wal();
        } else if let Err(error) = self.book.optimize() {
            log::debug!("legwork: optimize: {error}");
        }
    }

    // ---- waiting -------------------------------------------------------------------------

    /// Takes what is in the mailbox. `None`: stop.
    fn collect(&mut self, first: Option<Mail>) -> Option<Group> {
        let mut group = self.left_over.take().unwrap_or_default();
        if self.stopping && first.is_none() && self.mail.is_empty() && group.operations() == 0 {
            return self.last_group(group);
        }
        if let Some(mail) = first {
            self.sort(mail, &mut group);
        }
        while !self.is_large(&group) {
            match self.mail.try_recv() {
                Ok(mail) => self.sort(mail, &mut group),
                Err(_) => break,
            }
        }
        if self.trouble.is_some_and(|(at, _)| Instant::now() >= at) {
            self.take_up_held(&mut group);
            group.look = true;
        }
        Some(group)
    }

    /// Before stopping, one more try for finishes that are held.
    fn last_group(&mut self, mut group: Group) -> Option<Group> {
        if self.held.is_empty() && self.leaving.is_empty() {
            return None;
        }
        let pause = self.trouble.map_or(Duration::ZERO, |(_, pause)| pause);
        if pause >= Duration::from_secs(2) {
            log::error!(
                "legwork: {} finishes could not be recorded; the jobs will run again",
                self.held.len()
            );
            return None;
        }
        let at = self.trouble.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        std::thread::sleep(at.unwrap_or_default());
        self.take_up_held(&mut group);
        Some(group)
    }

    /// How long until something has to be done unasked; `None`: not until mail comes.
    fn next_alarm(&self) -> Option<Duration> {
        let trouble = self.trouble.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        if trouble.is_some() {
            return trouble;
        }
        if self.settings.clock.is_stopped() || !self.book.lanes.has_pools() {
            return None;
        }
        self.next_time()
    }

    fn next_time(&self) -> Option<Duration> {
        if self.book.flows.settling {
            return Some(Duration::ZERO);
        }
        let now = self.settings.clock.micros();
        let until =
            |at: Micros| Duration::from_micros(at.saturating_sub(now).max(0).unsigned_abs());
        let due = self.book.next_due.map(until);
        let expiry = self.book.next_expiry.map(until);
        let look = self.next_look().map(until);
        let prune = self.book.next_prune.map(|at| {
            let pause = self
                .prune_not_before
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            let wait = match self.trust {
                Some(trust) if trust.doubts() && at <= now => trust.wait_for(at),
                _ => until(at),
            };
            wait.max(pause)
        });
        due.into_iter()
            .chain(expiry)
            .chain(look)
            .chain(prune)
            .min()
            .map(|wait| wait.min(LONGEST_WAIT))
    }

    fn sort(&mut self, mail: Mail, group: &mut Group) {
        match mail {
            Mail::Work(work) => {
                if let Some(claim) = work.claim {
                    // A request that crossed with the closing or unparking of its pool is not kept.
                    let late = self.book.lanes.spec(claim.pool).is_none()
                        || self.epochs.get(&claim.pool).is_some_and(|&epoch| claim.epoch < epoch);
                    let parked = Parked { to: work.to.clone(), at_once: late || !claim.park };
                    self.parked.entry(claim.pool).or_default().push_back(parked);
                }
                if let Some(ending) = work.finish {
                    group.add(FinishOperation::new(ending, Some(work.to)));
                }
            }
            Mail::Insert(operation) => {
                group.rows += operation.what.len();
                group.inserts.push(operation);
            }
            Mail::Control(operation) => group.controls.push(operation),
            Mail::Join(operation) => {
                self.neighbours.hang_bell(&operation.what.lock);
                group.joins.push(operation);
            }
            Mail::Leave(operation) => group.leaves.push(operation),
            Mail::Save(operation) => group.saves.push(operation),
            Mail::Note(note) => group.notes.push(note),
            Mail::OpenPool(pool, spec, tray) => {
                self.book.open_pool(pool, spec);
                self.trays.insert(pool, tray);
                group.look = true;
            }
            Mail::ClosePool(pool) => {
                self.unpark(pool);
                self.close_tray(pool, group);
                self.epochs.remove(&pool);
                // Nobody empties these queues any more; dropping the sender says so.
                self.when_empty.retain(|asked| !asked.pools.contains(&pool));
                self.book.lanes.close_pool(pool);
            }
            Mail::Unpark(pool, epoch) => {
                let newest = self.epochs.entry(pool).or_default();
                *newest = epoch.max(*newest);
                self.unpark(pool);
            }
            Mail::WhenEmpty(asked) => {
                self.when_empty.push(asked);
                group.look = true;
            }
            Mail::Call => {}
            Mail::Look => group.look = true,
            Mail::LookAndRing => {
                group.look = true;
                group.ring = true;
            }
            Mail::Rung => {
                self.neighbours.rung();
                self.waiters.look_again();
                group.look = true;
            }
            Mail::Panicked => panic!("another thread of legwork has panicked"),
            Mail::Stop => self.stopping = true,
        }
    }

    fn unpark(&mut self, pool: PoolId) {
        for parked in self.parked.get_mut(&pool).into_iter().flat_map(|queue| queue.drain(..)) {
            let _ = parked.to.send(WorkerMail::Nothing);
        }
    }

    // ---- recording -----------------------------------------------------------------------

    /// Whether there is anything to take the write lock for.
    fn has_work(&self, group: &Group) -> bool {
        group.look
            || group.rescue
            || group.operations() > 0
            || !self.reclaimed.is_empty()
            || self.is_due()
            || self.parked.iter().any(|(pool, parked)| !parked.is_empty() && self.book.may_claim(*pool))
            // Somebody else may have made something ready; asking costs a microsecond.
            || (self.parked.values().any(|parked| !parked.is_empty())
                && self.book.has_news().unwrap_or(true))
    }

    fn is_due(&self) -> bool {
        if !self.book.lanes.has_pools() || self.trouble.is_some() {
            return false;
        }
        let now = self.settings.clock.micros();
        let alarms = [self.book.next_due, self.book.next_expiry, self.next_look()];
        self.book.was_cut_short()
            || self.book.flows.settling
            || self.book.clock_went_back(now)
            || alarms.iter().flatten().any(|at| *at <= now)
    }

    /// When to look unasked at a line that only the time moves on: not at once with all others.
    fn next_look(&self) -> Option<Micros> {
        Some(self.book.next_look?.saturating_add(self.book.turn_to_look()))
    }

    fn record(&mut self, mut group: Group) {
        self.serve_from_trays();
        self.defer_leaves(&mut group);
        if self.has_work(&group) && self.lock(&mut group) {
            self.record_locked(group);
        }
        self.answer_empty_handed();
        self.report_unknown_kinds();
    }

    /// Takes the write lock if it is free. `false`: it is not.
    fn begin_at_once(&mut self, group: &Group) -> bool {
        // The thread meets an error again, and deals with it.
        let begun = self
            .book
            .set_synced(self.must_sync(group))
            .and_then(|()| self.book.begin())
            .unwrap_or(false);
        if !begun {
            self.gaps.saw_neighbour(Instant::now());
        }
        begun
    }

    /// Takes the write lock, for as long as any operation is still wanted; mail that comes
    /// meanwhile joins the group. `false`: given up, nothing is left to do.
    fn lock(&mut self, group: &mut Group) -> bool {
        if self.at_desk {
            // A caller waits for nobody but his own commit.
            let begun = self.begin_at_once(group);
            if !begun {
                self.leave_over(std::mem::take(group));
            }
            return begun;
        }
        if let Err(error) = self.book.set_synced(self.must_sync(group)) {
            return self.give_up(group, error);
        }
        let wanted = group.operations() > 0;
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        let mut reported = false;
        loop {
            match self.book.begin() {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => return self.give_up(group, error),
            }
            self.gaps.saw_neighbour(Instant::now());
            if started.elapsed() > Duration::from_secs(1) && !reported {
                reported = true;
                (self.settings.observer)(Notice::Busy { waited: started.elapsed() });
            }
            group.drop_expired(Instant::now());
            if wanted && group.operations() == 0 && !group.look {
                return false;
            }
            if self.stopping && started.elapsed() > self.settings.busy_timeout {
                return self.give_up(group, Error::Busy { waited: started.elapsed() });
            }
            let wait = match group.next_deadline() {
                Some(at) => pause.min(at.saturating_duration_since(Instant::now())),
                None => pause,
            };
            let posted = Instant::now();
            if let Ok(mail) = self.mail.recv_timeout(wait) {
                self.sort(mail, group);
                while let Ok(mail) = self.mail.try_recv() {
                    self.sort(mail, group);
                }
                if let Err(error) = self.book.set_synced(self.must_sync(group)) {
                    return self.give_up(group, error);
                }
                // Mail does not shorten the pause: the lock is somebody else's all the same.
                let rest = wait.saturating_sub(posted.elapsed());
                if !self.stopping {
                    std::thread::sleep(rest);
                }
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// Leaves operations to the thread, behind what is left to it already.
    fn leave_over(&mut self, group: Group) {
        match &mut self.left_over {
            Some(left) => left.absorb(group),
            None => self.left_over = Some(group),
        }
    }

    /// The lock cannot be had at all.
    fn give_up(&mut self, group: &mut Group, error: Error) -> bool {
        let group = std::mem::take(group);
        self.fail_all(group, error);
        false
    }

    /// Which groups are synced before they are acknowledged.
    fn must_sync(&self, group: &Group) -> bool {
        match self.settings.durability {
            Durability::Relaxed => false,
            Durability::Strict => true,
            Durability::Synced => {
                !group.inserts.is_empty()
                    // What was removed may come back by a power cut, and goes again; and that leaves no
                    // engine.
                    || group.controls.iter().any(|op| {
                        !matches!(op.what, Control::Upkeep(_) | Control::SetPools(..))
                    })
                    || group.saves.iter().any(|op| op.what.synced)
                    || group.finishes.iter().any(|op| !op.finish.children.is_empty())
            }
        }
    }
}
