//! The writer: the one thread that writes to the file.
//!
//! It takes whatever lies in its mailbox, without waiting for more, and records it as one *group*
//! in one transaction: notes and finishes first, then inserts and controls, then what has fallen due,
//! then claims. Only after the commit does it answer anybody. The guide's
//! [architecture page](crate::guide::architecture) tells why in this order.
//!
//! It sleeps on its mailbox, until mail comes or the next alarm: a job that falls due, finished
//! jobs to be pruned. With neither it sleeps for good.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::book::{Book, Undone};
use super::instance::InstanceLock;
use super::prune;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::store::waiters::Waiters;
use crate::store::{
    ClaimRef, Claimed, Control, Controlled, Durability, Finish, Finished, InstanceId, Joined, Note,
    Notice, PoolId, PoolSpec, Settings, Verdict, Work, WorkerMail,
};

/// What can be posted to the writer.
pub(super) enum Mail {
    Work(Work),
    Insert(Operation<Vec<NewRow>, Vec<JobId>>),
    Control(Operation<Control, Controlled>),
    Join(Operation<Arc<InstanceLock>, Joined>),
    Leave(Operation<InstanceId, Vec<JobId>>),
    Note(Note),
    OpenPool(PoolId, PoolSpec),
    ClosePool(PoolId),
    /// Answer all parked claims of a pool with `Nothing`, and later ones of an earlier epoch.
    Unpark(PoolId, u64),
    /// Tell when nothing is ready, due or running for these pools.
    WhenEmpty(InstanceId, Vec<PoolId>, Sender<()>),
    /// Something may have changed: the clock was turned, another connection may have committed.
    Look,
    Stop,
}

/// Something to do, until when it must have begun, and where the answer goes.
pub(super) struct Operation<T, A> {
    pub(super) what: T,
    pub(super) posted: Instant,
    /// `None`: it waits as long as it takes.
    pub(super) deadline: Option<Instant>,
    pub(super) answer: Sender<Result<A>>,
}

struct FinishOperation {
    finish: Finish,
    to: Sender<WorkerMail>,
}

struct Parked {
    to: Sender<WorkerMail>,
    /// Answer with `Nothing` instead of parking it.
    at_once: bool,
}

/// What is recorded in one transaction.
#[derive(Default)]
struct Group {
    finishes: Vec<FinishOperation>,
    inserts: Vec<Operation<Vec<NewRow>, Vec<JobId>>>,
    controls: Vec<Operation<Control, Controlled>>,
    joins: Vec<Operation<Arc<InstanceLock>, Joined>>,
    leaves: Vec<Operation<InstanceId, Vec<JobId>>>,
    notes: Vec<Note>,
    /// Rows in `inserts` and children, to bound the transaction.
    rows: usize,
    /// Another connection may have committed: take the lock even if there is nothing to write.
    look: bool,
}

impl Group {
    fn operations(&self) -> usize {
        self.finishes.len()
            + self.inserts.len()
            + self.controls.len()
            + self.joins.len()
            + self.leaves.len()
            + self.notes.len()
    }

    fn is_large(&self) -> bool {
        self.operations() >= 2048 || self.rows >= 50_000
    }

    /// Drops operations that have waited for the lock past their deadline, unapplied.
    fn drop_expired(&mut self, now: Instant) {
        fn keep<T, A>(operations: &mut Vec<Operation<T, A>>, now: Instant) {
            operations.retain(|operation| {
                let expired = operation.deadline.is_some_and(|deadline| now >= deadline);
                if expired {
                    let waited = now - operation.posted;
                    let _ = operation.answer.send(Err(Error::Busy { waited }));
                }
                !expired
            });
        }
        keep(&mut self.inserts, now);
        keep(&mut self.controls, now);
        keep(&mut self.joins, now);
        keep(&mut self.leaves, now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let inserts = self.inserts.iter().filter_map(|operation| operation.deadline);
        let controls = self.controls.iter().filter_map(|operation| operation.deadline);
        let joins = self.joins.iter().filter_map(|operation| operation.deadline);
        inserts.chain(controls).chain(joins).min()
    }

    /// The group split into its operations, finishes first.
    fn split(self) -> impl Iterator<Item = Group> {
        let one = Group::default;
        let finishes =
            self.finishes.into_iter().map(move |op| Group { finishes: vec![op], ..one() });
        let inserts = self.inserts.into_iter().map(move |op| Group { inserts: vec![op], ..one() });
        let controls =
            self.controls.into_iter().map(move |op| Group { controls: vec![op], ..one() });
        let joins = self.joins.into_iter().map(move |op| Group { joins: vec![op], ..one() });
        let leaves = self.leaves.into_iter().map(move |op| Group { leaves: vec![op], ..one() });
        let notes = self.notes.into_iter().map(move |op| Group { notes: vec![op], ..one() });
        finishes.chain(inserts).chain(controls).chain(joins).chain(leaves).chain(notes)
    }
}

/// The answers of a group, sent after its commit; in the order of its operations.
#[derive(Default)]
struct Answers {
    finishes: Vec<Result<Finished>>,
    inserts: Vec<Result<Vec<JobId>>>,
    controls: Vec<Result<Controlled>>,
    joins: Vec<Result<Joined>>,
    leaves: Vec<Result<Vec<JobId>>>,
    claims: Vec<(PoolId, Parked, Claimed)>,
}

/// How a transaction came to nothing.
struct Failed {
    error: Error,
    at_commit: bool,
    claims: Vec<(PoolId, Parked, Claimed)>,
}

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
    history_rows: Option<u64>,
    prune_not_before: Option<Instant>,
    /// Since when groups have followed each other without a pause.
    busy_since: Option<Instant>,
    neighbour_seen: Option<Instant>,
    stopping: bool,
}

/// Longest wait while an alarm is set: monotonic clocks stand still while a laptop sleeps.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Pause between bites of pruning and between looks for something to prune.
const PRUNE_PAUSE: Duration = Duration::from_millis(20);
const PRUNE_EVERY: Duration = Duration::from_secs(10);

impl Writer {
    pub(super) fn new(
        book: Book,
        mail: Receiver<Mail>,
        settings: Settings,
        waiters: Arc<Waiters>,
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
            self.record(group);
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
                self.epochs.insert(pool, epoch);
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
            let done = settle(book.operation(|book| book.finish(&op.finish, keep)))?;
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

    // ---- answering -----------------------------------------------------------------------

    fn answer(&mut self, group: Group, answers: Answers) {
        for (op, done) in group.finishes.into_iter().zip(answers.finishes) {
            self.finished(op, done);
        }
        if self.held.is_empty() && self.trouble.take().is_some() {
            (self.settings.observer)(Notice::Recovered);
        }
        // An answer that nobody waits for any more is of no interest.
        for (op, ids) in group.inserts.into_iter().zip(answers.inserts) {
            let _ = op.answer.send(ids);
        }
        for (op, done) in group.controls.into_iter().zip(answers.controls) {
            for id in done.iter().flat_map(|done| &done.changed) {
                self.waiters.tell(*id);
            }
            let _ = op.answer.send(done);
        }
        for (op, done) in group.leaves.into_iter().zip(answers.leaves) {
            self.running.remove(&op.what);
            let _ = op.answer.send(done);
        }
        for (op, done) in group.joins.into_iter().zip(answers.joins) {
            let _ = op.answer.send(done);
        }
        for (_, parked, claimed) in answers.claims {
            self.hand_over(parked, claimed);
        }
    }

    fn finished(&mut self, op: FinishOperation, done: Result<Finished>) {
        if let Some(running) = self.running.get_mut(&op.finish.claim.instance) {
            running.remove(&op.finish.claim.token);
        }
        if let Ok(Finished::Recorded { state, .. }) = &done
            && state.is_finished()
        {
            self.counted_into_history(1);
            self.waiters.tell(op.finish.claim.id);
        }
        if let Ok(Finished::Settled) = &done {
            self.counted_into_history(1);
            self.waiters.tell(op.finish.claim.id);
        }
        let _ = op.to.send(WorkerMail::Finished(done));
    }

    fn hand_over(&mut self, parked: Parked, claimed: Claimed) {
        let claim = claimed.claim;
        self.running.entry(claim.instance).or_default().insert(claim.token);
        if parked.to.send(WorkerMail::Claimed(Box::new(claimed))).is_err() {
            self.give_back(claim);
        }
    }

    /// Returns a job that was claimed for nobody, with the next group.
    fn give_back(&mut self, claim: ClaimRef) {
        let finish = Finish {
            claim,
            verdict: Verdict::GiveBack { why: None },
            attempt: 1,
            worker: Arc::from("legwork-writer"),
            ended_at: self.settings.clock.micros(),
            keep: None,
            progress: None,
            logs: Vec::new(),
            children: Vec::new(),
            settle: false,
        };
        let (to, _) = crossbeam_channel::bounded(1);
        self.held.push(FinishOperation { finish, to });
        self.trouble.get_or_insert((Instant::now(), Duration::from_millis(10)));
    }

    /// Claims that may not park go away with nothing; whoever waits for emptiness is told.
    fn answer_empty_handed(&mut self) {
        for parked in self.parked.values_mut() {
            parked.retain(|claim| {
                if claim.at_once {
                    let _ = claim.to.send(WorkerMail::Nothing);
                }
                !claim.at_once
            });
        }
        if self.when_empty.is_empty() || self.is_due() {
            return;
        }
        let waiting = std::mem::take(&mut self.when_empty);
        for (instance, pools, tell) in waiting {
            let idle = self.running.get(&instance).is_none_or(HashSet::is_empty)
                && pools.iter().all(|&pool| !self.book.has_ready(pool).unwrap_or(true));
            if !idle {
                self.when_empty.push((instance, pools, tell));
            } else {
                let _ = tell.send(());
            }
        }
    }

    fn report_unknown_kinds(&mut self) {
        if !self.book.lanes.has_pools() {
            return;
        }
        for (lane, kind) in self.book.lanes.take_strange() {
            if self.reported_kinds.contains(&kind) {
                continue;
            }
            if self.book.lane_has_ready(lane).unwrap_or(false) {
                self.reported_kinds.insert(kind.clone());
                (self.settings.observer)(Notice::UnknownKind { kind });
            }
        }
    }

    // ---- trouble -------------------------------------------------------------------------

    /// A full disk or an I/O error has undone the whole group: its operations are tried one by
    /// one, finishes first, so that one that cannot be written does not take the others along.
    fn recover(&mut self, group: Group, failed: Failed) {
        for (pool, parked, claimed) in failed.claims.into_iter().rev() {
            if failed.at_commit {
                // The commit may have taken effect after all; a stale give-back changes nothing.
                self.give_back(claimed.claim);
            }
            self.parked.entry(pool).or_default().push_front(parked);
        }
        let unknown = failed.at_commit && matches!(failed.error, Error::Io(_));
        if unknown || group.operations() <= 1 {
            let error = if unknown {
                Error::OutcomeUnknown(failed.error.to_string())
            } else {
                failed.error
            };
            self.fail_all(group, error);
            return;
        }
        for mut one in group.split() {
            if self.lock(&mut one) {
                match self.transaction(&one, false) {
                    Ok(answers) => self.answer(one, answers),
                    Err(failed) => self.recover(one, failed),
                }
            }
        }
        // Claims were left out; they are tried again with the next look.
        self.back_off();
    }

    /// Answers everything in the group with the error; finishes are held and tried again.
    fn fail_all(&mut self, group: Group, error: Error) {
        self.back_off();
        let again = |error: &Error| match error {
            Error::Full(_) => Error::Full(error.to_string().into()),
            Error::Io(_) => Error::Io(error.to_string().into()),
            Error::Busy { waited } => Error::Busy { waited: *waited },
            Error::Corrupt(what) => Error::Corrupt(what.clone()),
            Error::OutcomeUnknown(what) => Error::OutcomeUnknown(what.clone()),
            other => Error::Sqlite(other.to_string().into()),
        };
        for op in group.inserts {
            let _ = op.answer.send(Err(again(&error)));
        }
        for op in group.controls {
            let _ = op.answer.send(Err(again(&error)));
        }
        for op in group.joins {
            let _ = op.answer.send(Err(again(&error)));
        }
        for op in group.leaves {
            let _ = op.answer.send(Err(again(&error)));
        }
        if !group.finishes.is_empty() {
            self.hold(group.finishes, &error);
        }
    }

    fn hold(&mut self, finishes: Vec<FinishOperation>, error: &Error) {
        self.held.extend(finishes);
        log::warn!(
            "legwork: {} finishes are held until they can be recorded: {error}",
            self.held.len()
        );
        (self.settings.observer)(Notice::Held { error: error.to_string() });
    }

    /// Sets the alarm for another try: after 50 ms, then ever later up to 5 s, with jitter so
    /// that several processes do not come back together.
    fn back_off(&mut self) {
        let pause = self.trouble.map_or(Duration::from_millis(50), |(_, pause)| {
            (pause * 2).min(Duration::from_secs(5))
        });
        let wait = pause.mul_f64(1.0 + 0.2 * self.settings.random.fraction());
        self.trouble = Some((Instant::now() + wait, pause));
    }

    // ---- between groups ------------------------------------------------------------------

    fn counted_into_history(&mut self, rows: u64) {
        if let Some(count) = &mut self.history_rows {
            *count += rows;
        }
    }

    /// Removes a bite of what has outlived its retention, when it is time for it.
    fn prune_if_due(&mut self) {
        if !self.book.lanes.has_pools() || self.stopping || self.trouble.is_some() {
            return;
        }
        // Under a stopped clock nothing but the clock decides, so that tests see the same each time.
        let paused = self.prune_not_before.is_some_and(|at| Instant::now() < at);
        if paused && !self.settings.clock.is_stopped() {
            return;
        }
        let now = self.settings.clock.micros();
        let expired = self.book.next_prune.is_some_and(|at| at <= now);
        let over_cap = self.over_cap();
        if !expired && over_cap == 0 {
            return;
        }
        let mut group = Group::default();
        if !self.lock(&mut group) {
            return;
        }
        let removed = self
            .book
            .prune(now, over_cap)
            .and_then(|removed| self.book.commit().map(|()| removed))
            .unwrap_or_else(|error| {
                self.book.roll_back();
                log::warn!("legwork: pruning: {error}");
                0
            });
        if let Some(count) = &mut self.history_rows {
            *count = count.saturating_sub(removed);
        }
        self.prune_not_before =
            Some(Instant::now() + if removed >= prune::BITE { PRUNE_PAUSE } else { PRUNE_EVERY });
        if removed < prune::BITE && self.book.give_pages_back().unwrap_or(false) {
            self.prune_not_before = Some(Instant::now() + PRUNE_PAUSE);
        }
        // What came in while waiting for the lock.
        if group.operations() > 0 || group.look {
            self.record(group);
        }
    }

    fn over_cap(&mut self) -> u64 {
        if self.history_rows.is_none() {
            self.history_rows = self.book.count_history().ok();
        }
        self.history_rows.unwrap_or(0).saturating_sub(self.settings.history_rows)
    }

    /// Leaves the write lock free for a moment when groups have followed each other for a while:
    /// the app's own transactions find it by looking again and again (SQLite's busy handler), and
    /// would hardly ever find it free otherwise. Shorter while nobody else writes.
    fn leave_a_gap(&mut self) {
        if self.mail.is_empty() && !self.is_due() {
            return;
        }
        let now = Instant::now();
        let since = *self.busy_since.get_or_insert(now);
        if self.book.has_news().unwrap_or(false) {
            self.neighbour_seen = Some(now);
        }
        let neighbour = self.neighbour_seen.is_some_and(|seen| now - seen < Duration::from_secs(1));
        let (work, gap) = if neighbour {
            (Duration::from_millis(4), Duration::from_millis(4))
        } else {
            (Duration::from_millis(20), Duration::from_micros(500))
        };
        if now - since >= work {
            std::thread::sleep(gap);
            self.busy_since = Some(Instant::now());
        }
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

/// How long one caller's operation may wait for the lock.
pub(super) fn deadline(busy_timeout: Duration) -> (Instant, Option<Instant>) {
    let now = Instant::now();
    (now, now.checked_add(busy_timeout))
}
