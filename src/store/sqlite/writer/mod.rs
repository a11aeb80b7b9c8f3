//! The writer: the one thread that writes to the file.
//!
//! It takes whatever lies in its mailbox, without waiting for more, and records it as one *group*
//! in one transaction: notes and finishes first, then inserts and controls, then what has fallen due,
//! then claims. Only after the commit does it answer anybody. The guide's
//! [architecture page](crate::guide::architecture) tells why in this order.
//!
//! It sleeps on its mailbox, until mail comes or the next alarm: a job that falls due, finished
//! jobs to be pruned. With neither it sleeps for good.

mod answer;
mod group;
mod spare;
mod trouble;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use self::group::{Answers, Failed, FinishOperation, Group, Parked};
pub(super) use self::group::{Mail, Operation, deadline};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::store::sqlite::book::{Book, Undone};
use crate::store::sqlite::tripwire::Tripwire;
use crate::store::waiters::Waiters;
use crate::store::{Durability, InstanceId, Notice, PoolId, Settings, WorkerMail};

pub(super) struct Writer {
    book: Book,
    mail: Receiver<Mail>,
    settings: Settings,
    waiters: Arc<Waiters>,
    parked: HashMap<PoolId, VecDeque<Parked>>,
    /// The newest epoch of each pool that was unparked.
    epochs: HashMap<PoolId, u64>,
    /// Attempts under way per instance, by token: claims answered and not yet finished.
    running: HashMap<InstanceId, HashSet<i64>>,
    when_empty: Vec<(InstanceId, Vec<PoolId>, Sender<()>)>,
    /// Finishes that could not be recorded.
    held: Vec<FinishOperation>,
    /// A transaction has failed: when to try again, and how long that pause is.
    trouble: Option<(Instant, Duration)>,
    reported_kinds: HashSet<String>,
    tripwire: Arc<Tripwire>,
    history_rows: Option<u64>,
    prune_not_before: Option<Instant>,
    /// Since when groups have followed each other without a pause.
    busy_since: Option<Instant>,
    neighbour_seen: Option<Instant>,
    stopping: bool,
}

/// Longest wait while an alarm is set: monotonic clocks stand still while a laptop sleeps.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Writer {
    pub(super) fn new(
        book: Book,
        mail: Receiver<Mail>,
        settings: Settings,
        waiters: Arc<Waiters>,
        tripwire: Arc<Tripwire>,
    ) -> Writer {
        Writer {
            book,
            mail,
            settings,
            waiters,
            parked: HashMap::new(),
            epochs: HashMap::new(),
            running: HashMap::new(),
            when_empty: Vec::new(),
            held: Vec::new(),
            trouble: None,
            reported_kinds: HashSet::new(),
            tripwire,
            history_rows: None,
            prune_not_before: None,
            busy_since: None,
            neighbour_seen: None,
            stopping: false,
        }
    }

    /// Works until it is told to stop, then records what is still in the mailbox.
    pub(super) fn run(mut self) {
        while let Some(group) = self.collect() {
            if self.tripwire.sprung().is_none() {
                self.record(group);
            }
            if let Some(gone) = self.tripwire.sprung() {
                self.book.let_go();
                // Whoever waits for an answer learns of it by the end of this thread.
                return (self.settings.observer)(Notice::Gone { error: gone.to_string() });
            }
            self.prune_if_due();
            self.leave_a_gap();
        }
        if let Err(error) = self.book.optimize() {
            log::debug!("legwork: optimize: {error}");
        }
    }

    // ---- waiting -------------------------------------------------------------------------

    /// Waits for mail or an alarm and takes what is there. `None`: stop.
    fn collect(&mut self) -> Option<Group> {
        let mut group = Group::default();
        if self.mail.is_empty() && !self.is_due() {
            self.busy_since = None;
            if self.stopping {
                return self.last_group(group);
            }
            match self.wait() {
                Ok(mail) => self.sort(mail, &mut group),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
        }
        while !group.is_large() {
            match self.mail.try_recv() {
                Ok(mail) => self.sort(mail, &mut group),
                Err(_) => break,
            }
        }
        if self.trouble.is_some_and(|(at, _)| Instant::now() >= at) {
            group.finishes.append(&mut self.held);
            group.look = true;
        }
        Some(group)
    }

    /// Before stopping, one more try for finishes that are held.
    fn last_group(&mut self, mut group: Group) -> Option<Group> {
        if self.held.is_empty() {
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
        std::thread::sleep(pause);
        group.finishes.append(&mut self.held);
        Some(group)
    }

    fn wait(&self) -> Result<Mail, RecvTimeoutError> {
        match self.next_alarm() {
            None => self.mail.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => self.mail.recv_timeout(wait),
        }
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
        let now = self.settings.clock.micros();
        let until =
            |at: Micros| Duration::from_micros(at.saturating_sub(now).max(0).unsigned_abs());
        let due = self.book.next_due.map(until);
        let prune = self.book.next_prune.map(|at| {
            let pause = self
                .prune_not_before
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            until(at).max(pause)
        });
        due.into_iter().chain(prune).min().map(|wait| wait.min(LONGEST_WAIT))
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
                if let Some(finish) = work.finish {
                    group.rows += finish.children.len();
                    group.finishes.push(FinishOperation { finish, to: work.to });
                }
            }
            Mail::Insert(operation) => {
                group.rows += operation.what.len();
                group.inserts.push(operation);
            }
            Mail::Control(operation) => group.controls.push(operation),
            Mail::Join(operation) => group.joins.push(operation),
            Mail::Leave(operation) => group.leaves.push(operation),
            Mail::Note(note) => group.notes.push(note),
            Mail::OpenPool(pool, spec) => {
                self.book.open_pool(pool, spec);
                group.look = true;
            }
            Mail::ClosePool(pool) => {
                self.unpark(pool);
                self.epochs.remove(&pool);
                // Nobody empties these queues any more; dropping the sender says so.
                self.when_empty.retain(|(_, pools, _)| !pools.contains(&pool));
                self.book.lanes.close_pool(pool);
            }
            Mail::Unpark(pool, epoch) => {
                let newest = self.epochs.entry(pool).or_default();
                *newest = epoch.max(*newest);
                self.unpark(pool);
            }
            Mail::WhenEmpty(instance, pools, tell) => {
                self.when_empty.push((instance, pools, tell));
                group.look = true;
            }
            Mail::Look => group.look = true,
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
            || group.operations() > 0
            || self.is_due()
            || self.parked.iter().any(|(pool, parked)| !parked.is_empty() && self.book.lanes.any(*pool))
            // Somebody else may have made something ready; asking costs a microsecond.
            || (self.parked.values().any(|parked| !parked.is_empty())
                && self.book.has_news().unwrap_or(true))
    }

    fn is_due(&self) -> bool {
        self.book.lanes.has_pools()
            && self.trouble.is_none()
            && self.book.next_due.is_some_and(|at| at <= self.settings.clock.micros())
    }

    fn record(&mut self, mut group: Group) {
        if self.has_work(&group) && self.lock(&mut group) {
            self.record_locked(group);
        }
        self.answer_empty_handed();
        self.report_unknown_kinds();
    }

    /// Takes the write lock, for as long as any operation is still wanted; mail that comes
    /// meanwhile joins the group. `false`: given up, nothing is left to do.
    fn lock(&mut self, group: &mut Group) -> bool {
        if let Err(error) = self.book.set_synced(self.must_sync(group)) {
            log::error!("legwork: {error}");
        }
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        let mut reported = false;
        loop {
            match self.book.begin() {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => return self.give_up(group, error),
            }
            self.neighbour_seen = Some(Instant::now());
            if started.elapsed() > Duration::from_secs(1) && !reported {
                reported = true;
                (self.settings.observer)(Notice::Busy { waited: started.elapsed() });
            }
            group.drop_expired(Instant::now());
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
                    log::error!("legwork: {error}");
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
                    || !group.controls.is_empty()
                    || group.finishes.iter().any(|op| !op.finish.children.is_empty())
            }
        }
    }

    fn record_locked(&mut self, group: Group) {
        match self.transaction(&group, true) {
            Ok(answers) => self.answer(group, answers),
            Err(failed) => self.recover(group, failed),
        }
    }

    /// Applies the group, claims for whoever waits if it may, and commits. On failure everything is
    /// rolled back.
    fn transaction(&mut self, group: &Group, may_claim: bool) -> Result<Answers, Failed> {
        let mut answers = Answers::default();
        let mut applied = self.apply(group, &mut answers);
        if may_claim {
            applied = applied.and_then(|()| self.claim_for_parked(&mut answers));
        }
        let committed = applied
            .map_err(|error| (error, false))
            .and_then(|()| self.book.commit().map_err(|error| (error, true)));
        committed.map_err(|(error, at_commit)| {
            self.book.roll_back();
            Failed { error, at_commit, claims: std::mem::take(&mut answers.claims) }
        })?;
        Ok(answers)
    }

    fn apply(&mut self, group: &Group, answers: &mut Answers) -> Result<()> {
        let keep = self.settings.retention;
        let now = self.settings.clock.micros();
        let book = &mut self.book;
        // Before the finishes: an attempt posts its notes first, and the claim that they name ends
        // with its finish.
        for note in &group.notes {
            if let Err(error) = settle(book.operation(|book| book.note(note)))? {
                log::warn!("legwork: progress of job {} not written: {error}", note.claim.id);
            }
        }
        for op in &group.finishes {
            let mut done = settle(book.operation(|book| book.finish(&op.finish, keep)))?;
            if let Err(error) = &done {
                let refused = op.finish.refused(error);
                done = settle(book.operation(|book| book.finish(&refused, keep)))?;
            }
            answers.finishes.push(done);
        }
        for op in &group.inserts {
            answers.inserts.push(settle(book.operation(|book| book.insert(&op.what)))?);
        }
        for op in &group.controls {
            let done = settle(book.operation(|book| book.control(&op.what, now, keep)))?;
            if done.is_err() {
                // What was paused in memory may have been rolled back.
                book.read_pauses()?;
            }
            answers.controls.push(done);
        }
        for op in &group.leaves {
            answers.leaves.push(settle(book.operation(|book| book.leave(op.what, now, keep)))?);
        }
        for op in &group.joins {
            answers.joins.push(settle(book.operation(|book| book.join(&op.what, now, keep)))?);
        }
        Ok(())
    }

    fn claim_for_parked(&mut self, answers: &mut Answers) -> Result<()> {
        if !self.held.is_empty() {
            // Workers pause until what they have done can be recorded.
            return Ok(());
        }
        let now = self.settings.clock.micros();
        if self.book.lanes.has_pools() && self.book.next_due.is_some_and(|at| at <= now) {
            self.book.make_due_ready(now)?;
        }
        for (&pool, parked) in &mut self.parked {
            while !parked.is_empty() {
                let Some(claimed) = self.book.claim(pool, now, &self.settings.random)? else {
                    break;
                };
                let Some(parked) = parked.pop_front() else { break };
                answers.claims.push((pool, parked, claimed));
            }
        }
        Ok(())
    }
}

/// An operation's own failure is its answer; the loss of the transaction is everybody's.
fn settle<T>(done: Result<T, Undone>) -> Result<Result<T>> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(Undone::Operation(error)) => Ok(Err(error)),
        Err(Undone::Everything(error)) => Err(error),
    }
}
