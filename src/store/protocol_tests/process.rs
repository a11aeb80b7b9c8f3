//! A process at work: the writer, its workers and their tray, who enqueues, who stops. The tray is
//! the real one; everything else is told step by step as the code does it.

use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Model, Next, Step};
use crate::id::JobId;
use crate::store::tray::{Inner, PATIENCE, Place, Started, Visit};
use crate::store::{ClaimRef, Claimed, Ending, Finish, Verdict};

pub(super) type JobNo = usize;

/// What the model does otherwise than the code, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// Another process rings before it commits.
    RingsTooEarly,
    /// The doorbell's flag falls after the look instead of before it.
    BellFallsAfterTheLook,
    /// The writer sleeps without an alarm for trays in use.
    SleepsOnAUsedTray,
    /// The writer looks for the app's job without waiting for the write lock.
    LooksBesideTheLock,
    /// A request for a job is kept although its lane may have one.
    ParksBesideReadyJobs,
    /// A request that crossed with the closing of its pool is kept.
    KeepsLateRequests,
    /// A pool closes and its tray is left as it is.
    LeavesTheTray,
    /// A pool closes and what workers left in its tray is dropped.
    DropsTheEnds,
    /// Workers are called off without regard to when they looked at their pool.
    ForgetsEpochs,
    /// Whoever waits for emptiness is told while jobs run.
    TellsEmptyTooEarly,
}

/// Where a job comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// In the file from the start.
    There,
    /// `enqueue` in this process.
    Here,
    /// `enqueue_in`: a transaction of the app.
    App,
    /// Another process.
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) jobs: Vec<Source>,
    pub(super) workers: usize,
    pub(super) sweep: bool,
    pub(super) stops: bool,
    pub(super) resizes: bool,
    /// Somebody calls `run_until_empty`.
    pub(super) waits: bool,
    pub(super) broken: Option<Break>,
}

impl Setup {
    pub(super) fn of(jobs: &[Source], workers: usize) -> Setup {
        let jobs = jobs.to_vec();
        let (sweep, stops, resizes, waits) = (false, false, false, false);
        Setup { jobs, workers, sweep, stops, resizes, waits, broken: None }
    }

    pub(super) fn start(self) -> Process {
        let workers = vec![Worker::Looks { last: None }; self.workers];
        let sources = vec![Enqueuer::Idle; self.jobs.len()];
        let row = |source: &Source| match source {
            Source::There => Row::Ready,
            _ => Row::Absent,
        };
        // A pool that has just been opened knows nothing of its lanes.
        let writer = Writer { bound: true, ..Writer::default() };
        let rest = Rest {
            jobs: self.jobs.iter().map(row).collect(),
            runs: vec![0; self.jobs.len()],
            others: 0,
            locked: false,
            mail: Vec::new(),
            writer,
            inbox: vec![Inbox::default(); self.workers],
            workers,
            sources,
            bell: Bell::Sleeps,
            datagram: false,
            ringing: false,
            pool: Pool { target: self.workers, live: self.workers, epoch: 0, closed: false },
            stopping: false,
            stop: Stop::Runs,
            resize: Resize::Not,
            waiter: Waiter::Idle,
            bad: None,
        };
        let now = Instant::now();
        Process { setup: Arc::new(self), tray: Inner::default(), now, rest }
    }
}

/// A job's row in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Row {
    Absent,
    Ready,
    Claimed { started: bool },
    Done,
}

/// An attempt's end on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Last {
    job: JobNo,
    /// Given back, not completed.
    back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mail {
    Work { worker: usize, last: Option<Last>, claim: Option<u8> },
    Insert(JobNo),
    Call,
    Look,
    Rung,
    ClosePool,
    Unpark(u8),
    WhenEmpty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Worker {
    /// `RunningPool::go_on`.
    Looks {
        last: Option<Last>,
    },
    /// `Tray::visit`.
    Visits {
        last: Option<Last>,
        epoch: u8,
    },
    Calls {
        job: JobNo,
    },
    /// Tells the tray that a job's end goes another way.
    Hands {
        last: Last,
    },
    /// Posts its work.
    Posts {
        last: Option<Last>,
        claim: Option<u8>,
    },
    /// With what it has been answered so far.
    Waits {
        recorded: bool,
        next: Option<Option<JobNo>>,
        leaves: bool,
    },
    Starts {
        job: JobNo,
    },
    Runs {
        job: JobNo,
    },
    Ended,
}

impl Worker {
    fn runs(&self) -> bool {
        matches!(self, Worker::Runs { .. })
    }
}

/// What the writer has sent to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Inbox {
    finished: bool,
    /// `Some(None)`: nothing.
    claim: Option<Option<JobNo>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum At {
    #[default]
    SetsItsAlarm,
    Sleeps {
        alarm: bool,
    },
    TakesMail,
    TakesStarts,
    TakesStale,
    Serves,
    Locks,
    Answers,
    Puts,
    AnswersEmptyHanded,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Writer {
    at: At,
    parked: Vec<(usize, bool)>,
    reclaimed: Vec<JobNo>,
    epoch: u8,
    closed: bool,
    when_empty: bool,
    running: Vec<JobNo>,
    /// The lane may have a ready job.
    bound: bool,
    /// Commits of others that it has caught up with.
    seen: u8,
    // The group.
    finishes: Vec<(Last, Option<usize>)>,
    inserts: Vec<JobNo>,
    starts: Vec<JobNo>,
    look: bool,
    // The answers.
    told: Vec<usize>,
    answered: Vec<JobNo>,
    known: Vec<JobNo>,
    claims: Vec<(usize, JobNo)>,
    ahead: Vec<JobNo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Enqueuer {
    Idle,
    /// Posted, or in a transaction, or committed: whatever comes first there.
    Half,
    /// The second step is done, a third is to come.
    More,
    Done,
    /// Killed after the commit and before the ring.
    Killed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bell {
    Sleeps,
    Heard,
    Posts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pool {
    target: usize,
    live: usize,
    epoch: u8,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stop {
    Runs,
    Flagged,
    Closed,
    Posted,
    Returned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Resize {
    Not,
    Counted,
    Posted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Waiter {
    Idle,
    Checked,
    Waits,
    Told,
    Refused,
}

/// All but the tray.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rest {
    pub(super) jobs: Vec<Row>,
    runs: Vec<u8>,
    /// Commits of others.
    others: u8,
    /// A transaction of the app holds the write lock.
    locked: bool,
    mail: Vec<Mail>,
    writer: Writer,
    inbox: Vec<Inbox>,
    workers: Vec<Worker>,
    sources: Vec<Enqueuer>,
    bell: Bell,
    datagram: bool,
    ringing: bool,
    pool: Pool,
    stopping: bool,
    stop: Stop,
    resize: Resize,
    waiter: Waiter,
    bad: Option<&'static str>,
}

/// What of the tray decides about what comes: of times only whether they are a while ago.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TrayKey {
    ahead: Vec<i64>,
    ends: Vec<i64>,
    out: Vec<(i64, bool, bool)>,
    low: usize,
    flags: [bool; 4],
}

#[derive(Clone)]
pub(super) struct Process {
    setup: Arc<Setup>,
    tray: Inner,
    now: Instant,
    pub(super) rest: Rest,
}

fn claim_of(job: JobNo) -> ClaimRef {
    ClaimRef { id: JobId(job as i64), instance: 1, token: job as i64 }
}

fn claimed(job: JobNo) -> Claimed {
    Claimed {
        claim: claim_of(job),
        lane: 1,
        priority: 0,
        run_at: 0,
        kind: Arc::from(""),
        queue: Arc::from(""),
        args: String::new(),
        options: None,
        meta: None,
        attempts: 0,
        started_at: 0,
        first_started_at: None,
    }
}

fn ending(last: Last) -> Ending {
    let verdict = match last.back {
        true => Verdict::GiveBack { why: None },
        false => Verdict::Complete { output: None },
    };
    let finish = Finish {
        claim: claim_of(last.job),
        verdict,
        attempt: 1,
        worker: Arc::from(""),
        started_at: 0,
        ended_at: 0,
        keep: None,
        progress: None,
        logs: Vec::new(),
        children: Vec::new(),
        settle: false,
    };
    Ending { finish, told: None }
}

fn last_of(ending: &Ending) -> Last {
    let back = matches!(ending.finish.verdict, Verdict::GiveBack { .. });
    Last { job: ending.finish.claim.id.0 as JobNo, back }
}

fn number(claimed: &Claimed) -> JobNo {
    claimed.claim.id.0 as JobNo
}

/// Collects the steps out of a state.
struct Steps<'a> {
    from: &'a Process,
    next: &'a mut Vec<Next<Process>>,
}

impl Steps<'_> {
    fn step(
        &mut self,
        who: &'static str,
        which: usize,
        what: &'static str,
        act: impl FnOnce(&mut Process),
    ) {
        self.add(who, which, what, false, act);
    }

    fn outside(
        &mut self,
        who: &'static str,
        which: usize,
        what: &'static str,
        act: impl FnOnce(&mut Process),
    ) {
        self.add(who, which, what, true, act);
    }

    fn add(
        &mut self,
        who: &'static str,
        which: usize,
        what: &'static str,
        outside: bool,
        act: impl FnOnce(&mut Process),
    ) {
        let mut model = self.from.clone();
        act(&mut model);
        self.next.push(Next { step: Step { who, which, what }, outside, model });
    }
}

impl Model for Process {
    fn fingerprint(&self, hasher: &mut DefaultHasher) {
        self.rest.hash(hasher);
        self.tray_key().hash(hasher);
    }

    fn steps(&self, next: &mut Vec<Next<Process>>) {
        let mut steps = Steps { from: self, next };
        // A step that no other one can hinder, help or notice before it is done needs no
        // interleaving: taking it first leads to the same states.
        if self.writer_is_alone() {
            return self.writer(&mut steps);
        }
        let workers = 0..self.rest.workers.len();
        if let Some(which) = workers.into_iter().find(|&which| self.worker_is_alone(which)) {
            return self.worker(which, &mut steps);
        }
        self.time(&mut steps);
        self.writer(&mut steps);
        for which in 0..self.rest.workers.len() {
            self.worker(which, &mut steps);
        }
        for job in 0..self.rest.jobs.len() {
            self.enqueuer(job, &mut steps);
        }
        self.bell(&mut steps);
        self.stopper(&mut steps);
        self.waiter(&mut steps);
    }

    fn wrong(&self) -> Option<String> {
        if let Some(bad) = self.rest.bad {
            return Some(bad.into());
        }
        for (job, row) in self.rest.jobs.iter().enumerate() {
            let hands = self.hands(job);
            if hands > 1 {
                return Some(format!("job {job} is in {hands} hands"));
            }
            if hands > 0 && !matches!(row, Row::Claimed { .. }) {
                return Some(format!("job {job} is in somebody's hands and {row:?} in the file"));
            }
            if self.rest.runs[job] > 1 {
                return Some(format!("job {job} runs twice"));
            }
        }
        None
    }

    fn is_settled(&self) -> bool {
        let rest = &self.rest;
        let writer = &rest.writer;
        let asleep = matches!(writer.at, At::Sleeps { alarm: false }) && rest.mail.is_empty();
        let quiet = rest.bell == Bell::Sleeps && !rest.datagram && !rest.locked;
        let tray = self.tray.ahead.is_empty() && self.tray.ends.is_empty();
        let all = rest.workers.iter().all(|worker| match worker {
            Worker::Waits { recorded: true, next: None, .. } | Worker::Runs { .. } => {
                rest.stop == Stop::Runs && !writer.closed
            }
            Worker::Ended => true,
            _ => false,
        });
        let live = rest.workers.iter().filter(|worker| **worker != Worker::Ended).count();
        let staffed = live == rest.pool.live && (rest.pool.closed || live == rest.pool.target);
        let stopped = matches!(rest.stop, Stop::Runs | Stop::Returned);
        let told = matches!(rest.waiter, Waiter::Idle | Waiter::Told | Waiter::Refused)
            || (rest.waiter == Waiter::Waits && rest.workers.iter().any(Worker::runs));
        let begun = |source: &Enqueuer| matches!(source, Enqueuer::Half | Enqueuer::More);
        asleep
            && quiet
            && tray
            && all
            && staffed
            && stopped
            && told
            && !rest.sources.iter().any(begun)
            && rest.resize != Resize::Counted
            && writer.reclaimed.is_empty()
            && (0..rest.jobs.len()).all(|job| self.is_well(job))
    }

    fn describe(&self) -> String {
        format!("{:?} {:?}", self.rest, self.tray_key())
    }
}

impl Process {
    fn tray_key(&self) -> TrayKey {
        let tray = &self.tray;
        let old = |at: Instant| self.now.duration_since(at) >= PATIENCE;
        let mut out: Vec<(i64, bool, bool)> = tray
            .out
            .iter()
            .map(|out| (out.claim.id.0, out.known, !out.known && old(out.since)))
            .collect();
        out.sort_unstable();
        let fresh = tray.last_visit.is_some_and(|at| !old(at));
        TrayKey {
            ahead: tray.ahead.values().map(|job| job.claim.id.0).collect(),
            ends: tray.ends.iter().map(|end| end.finish.claim.id.0).collect(),
            out,
            low: tray.low,
            flags: [tray.watched, tray.called, tray.closed, fresh],
        }
    }

    fn is_broken(&self, broken: Break) -> bool {
        self.setup.broken == Some(broken)
    }

    /// In how many hands a claimed job is.
    fn hands(&self, job: JobNo) -> usize {
        let rest = &self.rest;
        let writer = &rest.writer;
        let workers = rest.workers.iter().filter(|worker| {
            matches!(worker, Worker::Calls { job: j } | Worker::Starts { job: j }
                | Worker::Runs { job: j } | Worker::Waits { next: Some(Some(j)), .. } if *j == job)
        });
        workers.count()
            + self.tray.ahead.values().filter(|claimed| number(claimed) == job).count()
            + writer.reclaimed.iter().filter(|j| **j == job).count()
            + writer.claims.iter().filter(|(_, j)| *j == job).count()
            + writer.ahead.iter().filter(|j| **j == job).count()
            + rest.inbox.iter().filter(|inbox| inbox.claim == Some(Some(job))).count()
    }

    /// Whether this is how a job may stay.
    fn is_well(&self, job: JobNo) -> bool {
        match self.rest.jobs[job] {
            Row::Absent | Row::Done => true,
            Row::Claimed { started } => {
                started && self.rest.workers.contains(&Worker::Runs { job })
            }
            // Nobody is free to run it, or nobody who could say so knows of it.
            Row::Ready => {
                self.rest.workers.iter().all(|worker| *worker == Worker::Ended || worker.runs())
                    || (self.rest.sources[job] == Enqueuer::Killed && !self.setup.sweep)
            }
        }
    }

    /// The writer's next step touches nothing that others touch meanwhile.
    fn writer_is_alone(&self) -> bool {
        let writer = &self.rest.writer;
        match writer.at {
            At::TakesStarts | At::TakesStale => {
                writer.closed
                    || (self.tray.ahead.is_empty() && self.tray.out.iter().all(|out| out.known))
            }
            At::Serves => writer.parked.is_empty(),
            // Answers are sent to who waits for them; what began is known to the file already.
            At::Answers => true,
            At::AnswersEmptyHanded => {
                !writer.when_empty && !self.is_broken(Break::BellFallsAfterTheLook)
            }
            _ => false,
        }
    }

    fn worker_is_alone(&self, which: usize) -> bool {
        let inbox = self.rest.inbox[which];
        match self.rest.workers[which] {
            Worker::Looks { .. } => !self.setup.stops && !self.setup.resizes,
            Worker::Starts { .. } => !self.setup.stops,
            Worker::Waits { .. } => inbox != Inbox::default(),
            _ => false,
        }
    }

    // ---- time ----------------------------------------------------------------------------

    fn time(&self, steps: &mut Steps<'_>) {
        let young = |at: Instant| self.now.duration_since(at) < PATIENCE;
        if self.tray.last_visit.is_some_and(young) || self.tray.out.iter().any(|o| young(o.since)) {
            steps.step("time", 0, "the tray's patience passes", |model| model.now += PATIENCE);
        }
    }

    // ---- the writer ----------------------------------------------------------------------

    fn writer(&self, steps: &mut Steps<'_>) {
        let mut step = |what: &'static str, act: &dyn Fn(&mut Process)| {
            steps.step("writer", 0, what, act);
        };
        let writer = &self.rest.writer;
        match writer.at {
            At::SetsItsAlarm => step("sets its alarm unless mail is there", &|model| {
                model.rest.writer.at = match model.rest.mail.is_empty() {
                    true => At::Sleeps { alarm: model.watch().is_some() },
                    false => At::TakesMail,
                };
            }),
            At::Sleeps { alarm } => {
                if !self.rest.mail.is_empty() {
                    step("wakes by mail", &|model| model.rest.writer.at = At::TakesMail);
                }
                if alarm {
                    step("wakes by its alarm", &|model| model.rest.writer.at = At::TakesMail);
                }
                if self.setup.sweep && self.rest.others != writer.seen {
                    step("wakes to sweep", &|model| {
                        model.rest.writer.look = true;
                        model.rest.writer.at = At::TakesMail;
                    });
                }
            }
            At::TakesMail => step("takes its mail and the ends in the tray", &|model| {
                model.take_mail();
                if !model.rest.writer.closed {
                    model.take_ends();
                }
                model.rest.writer.at = At::TakesStarts;
            }),
            At::TakesStarts => step("asks the tray for unknown starts", &|model| {
                if !model.rest.writer.closed {
                    let starts = model.tray.unknown_starts(model.now);
                    let starts = starts.iter().map(|start| start.claim.id.0 as JobNo);
                    model.rest.writer.starts = starts.collect();
                }
                model.rest.writer.at = At::TakesStale;
            }),
            At::TakesStale => step("takes stale jobs out of the tray", &|model| {
                if !model.rest.writer.closed {
                    let stale = model.tray.take_stale(model.now);
                    model.rest.writer.reclaimed.extend(stale.iter().map(number));
                }
                model.rest.writer.at = At::Serves;
            }),
            At::Serves => step("serves a parked worker from the tray", &Process::serve),
            At::Locks if self.rest.locked && !self.is_broken(Break::LooksBesideTheLock) => {
                if !self.rest.mail.is_empty() {
                    step("takes mail while it waits for the lock", &Process::take_mail);
                }
            }
            At::Locks if self.rest.locked => {
                step("looks beside the lock", &|model| {
                    model.rest.writer.look = false;
                    model.rest.writer.at = At::AnswersEmptyHanded;
                });
            }
            At::Locks => self.commits(steps),
            At::Answers => step("answers and hands over", &Process::answer),
            At::Puts => step("puts jobs into the tray", &|model| {
                let ahead = std::mem::take(&mut model.rest.writer.ahead);
                let place = |job: JobNo| Place { rank: 0, priority: 0, run_at: 0, id: job as i64 };
                let jobs = ahead.iter().map(|&job| (place(job), claimed(job))).collect();
                let late = model.tray.put(jobs);
                model.rest.writer.reclaimed.extend(late.iter().map(number));
                model.rest.writer.at = At::AnswersEmptyHanded;
            }),
            At::AnswersEmptyHanded => step("answers the others", &Process::answer_empty_handed),
        }
    }

    /// One step for each number of jobs that may be claimed ahead; the room in the tray bounds it.
    fn commits(&self, steps: &mut Steps<'_>) {
        let mut most = 0;
        let mut probe = self.clone();
        probe.apply();
        let writer = &probe.rest.writer;
        if !writer.closed && self.tray.in_use(self.now) {
            most = probe.rest.jobs.iter().filter(|row| **row == Row::Ready).count();
        }
        for count in 0..=most {
            steps.step("writer", count, "commits (claims so many ahead)", |model| {
                model.apply();
                for _ in 0..count {
                    let job = model.first_ready().expect("as many are ready");
                    model.rest.jobs[job] = Row::Claimed { started: false };
                    model.rest.writer.ahead.push(job);
                    model.rest.writer.running.push(job);
                }
                if most > 0 {
                    model.rest.writer.bound = model.first_ready().is_some();
                }
                model.rest.writer.at = At::Answers;
            });
        }
    }

    fn watch(&mut self) -> Option<Duration> {
        if self.rest.writer.closed {
            return None;
        }
        let alarm = self.tray.watch();
        alarm.filter(|_| !self.is_broken(Break::SleepsOnAUsedTray))
    }

    fn take_mail(&mut self) {
        for mail in std::mem::take(&mut self.rest.mail) {
            self.sort(mail);
        }
    }

    fn take_ends(&mut self) {
        let ends = self.tray.take_ends();
        let ends = ends.iter().map(|ending| (last_of(ending), None));
        self.rest.writer.finishes.extend(ends);
    }

    fn sort(&mut self, mail: Mail) {
        match mail {
            Mail::Work { worker, last, claim } => {
                if let Some(epoch) = claim {
                    let crossed =
                        self.rest.writer.closed && !self.is_broken(Break::KeepsLateRequests);
                    let called_off =
                        epoch < self.rest.writer.epoch && !self.is_broken(Break::ForgetsEpochs);
                    self.rest.writer.parked.push((worker, crossed || called_off));
                }
                if let Some(last) = last {
                    self.rest.writer.finishes.push((last, Some(worker)));
                }
            }
            Mail::Insert(job) => self.rest.writer.inserts.push(job),
            Mail::Call => {}
            Mail::Look => self.rest.writer.look = true,
            Mail::Rung => {
                if !self.is_broken(Break::BellFallsAfterTheLook) {
                    self.rest.ringing = false;
                }
                self.rest.writer.look = true;
            }
            Mail::ClosePool => {
                self.unpark();
                if !self.is_broken(Break::LeavesTheTray) {
                    let back = self.tray.close();
                    self.rest.writer.reclaimed.extend(back.iter().map(number));
                }
                if !self.is_broken(Break::DropsTheEnds) {
                    self.take_ends();
                }
                self.rest.writer.epoch = 0;
                self.rest.writer.closed = true;
                if std::mem::take(&mut self.rest.writer.when_empty) {
                    self.rest.waiter = Waiter::Refused;
                }
            }
            Mail::Unpark(epoch) => {
                self.rest.writer.epoch = epoch.max(self.rest.writer.epoch);
                self.unpark();
            }
            Mail::WhenEmpty => {
                self.rest.writer.when_empty = true;
                self.rest.writer.look = true;
            }
        }
    }

    fn unpark(&mut self) {
        for (worker, _) in std::mem::take(&mut self.rest.writer.parked) {
            self.rest.inbox[worker].claim = Some(None);
        }
    }

    fn serve(&mut self) {
        if !self.rest.writer.closed
            && !self.rest.writer.parked.is_empty()
            && let Some(claimed) = self.tray.take(0, self.now)
        {
            let (worker, _) = self.rest.writer.parked.remove(0);
            self.rest.inbox[worker].claim = Some(Some(number(&claimed)));
            return;
        }
        self.rest.writer.at = if self.has_work() { At::Locks } else { At::AnswersEmptyHanded };
    }

    /// Whether there is anything to take the write lock for.
    fn has_work(&self) -> bool {
        let writer = &self.rest.writer;
        let waiting = !writer.parked.is_empty();
        writer.look
            || !writer.finishes.is_empty()
            || !writer.inserts.is_empty()
            || !writer.starts.is_empty()
            || !writer.reclaimed.is_empty()
            || (waiting && writer.bound && !self.is_broken(Break::ParksBesideReadyJobs))
            || (waiting && self.rest.others != writer.seen)
    }

    fn first_ready(&self) -> Option<JobNo> {
        self.rest.jobs.iter().position(|row| *row == Row::Ready)
    }

    /// Everything of a transaction but the claims ahead.
    fn apply(&mut self) {
        let rest = &mut self.rest;
        let writer = &mut rest.writer;
        if writer.seen != rest.others {
            writer.seen = rest.others;
            writer.bound = true;
        }
        for job in std::mem::take(&mut writer.reclaimed) {
            if rest.jobs[job] == (Row::Claimed { started: false }) {
                rest.jobs[job] = Row::Ready;
                writer.bound = true;
            }
            writer.running.retain(|j| *j != job);
        }
        for job in std::mem::take(&mut writer.starts) {
            if rest.jobs[job] == (Row::Claimed { started: false }) {
                rest.jobs[job] = Row::Claimed { started: true };
            }
            writer.known.push(job);
        }
        for (last, worker) in std::mem::take(&mut writer.finishes) {
            if !matches!(rest.jobs[last.job], Row::Claimed { .. }) {
                rest.bad = Some("a finish comes without a claim");
            }
            rest.jobs[last.job] = if last.back { Row::Ready } else { Row::Done };
            writer.bound |= last.back;
            writer.running.retain(|j| *j != last.job);
            writer.told.extend(worker);
        }
        for job in std::mem::take(&mut writer.inserts) {
            rest.jobs[job] = Row::Ready;
            writer.bound = true;
            writer.answered.push(job);
        }
        writer.look = false;
        if writer.closed {
            return;
        }
        while !writer.parked.is_empty() && writer.bound {
            let Some(job) = rest.jobs.iter().position(|row| *row == Row::Ready) else {
                writer.bound = false;
                break;
            };
            rest.jobs[job] = Row::Claimed { started: true };
            let (worker, _) = writer.parked.remove(0);
            writer.claims.push((worker, job));
            writer.running.push(job);
        }
        writer.running.sort_unstable();
    }

    /// One answer: the commit has been made.
    fn answer(&mut self) {
        let writer = &mut self.rest.writer;
        if !writer.told.is_empty() || !writer.answered.is_empty() {
            for worker in std::mem::take(&mut writer.told) {
                self.rest.inbox[worker].finished = true;
            }
            for job in std::mem::take(&mut writer.answered) {
                self.rest.sources[job] = Enqueuer::Done;
            }
        } else if !writer.known.is_empty() {
            let known = std::mem::take(&mut writer.known);
            let started = |&job: &JobNo| Started { claim: claim_of(job), at: 0 };
            let known: Vec<Started> = known.iter().map(started).collect();
            if !writer.closed {
                self.tray.known(&known);
            }
        } else if !writer.claims.is_empty() {
            let (worker, job) = writer.claims.remove(0);
            if !writer.closed {
                self.tray.begin(&claimed(job), self.now, true);
            }
            self.rest.inbox[worker].claim = Some(Some(job));
        }
        let writer = &mut self.rest.writer;
        let more = !writer.known.is_empty() || !writer.claims.is_empty();
        let then = if writer.ahead.is_empty() { At::AnswersEmptyHanded } else { At::Puts };
        writer.at = if more { At::Answers } else { then };
    }

    fn answer_empty_handed(&mut self) {
        let ready = self.first_ready().is_some();
        let claimed = self.rest.jobs.iter().any(|row| matches!(row, Row::Claimed { .. }));
        let early = self.is_broken(Break::TellsEmptyTooEarly);
        let rest = &mut self.rest;
        let writer = &mut rest.writer;
        let (late, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut writer.parked).into_iter().partition(|(_, at_once)| *at_once);
        writer.parked = stay;
        for (worker, _) in late {
            rest.inbox[worker].claim = Some(None);
        }
        if writer.when_empty {
            let has_ready = !writer.closed && writer.bound && ready;
            let idle = writer.running.is_empty() || early;
            if idle && !has_ready {
                writer.when_empty = false;
                rest.waiter = Waiter::Told;
                if claimed {
                    rest.bad = Some("told to be empty while a job is claimed");
                }
            }
        }
        writer.at = At::SetsItsAlarm;
        if self.is_broken(Break::BellFallsAfterTheLook) {
            self.rest.ringing = false;
        }
    }

    // ---- a worker ------------------------------------------------------------------------

    fn worker(&self, which: usize, steps: &mut Steps<'_>) {
        let mut step = |what: &'static str, act: &dyn Fn(&mut Process)| {
            steps.step("worker", which, what, act);
        };
        match self.rest.workers[which] {
            Worker::Looks { last } => step("looks at its pool", &|model| {
                let pool = &mut model.rest.pool;
                let ends = pool.closed || pool.live > pool.target;
                pool.live -= usize::from(ends);
                model.rest.workers[which] = match (ends, last) {
                    (false, last) => Worker::Visits { last, epoch: pool.epoch },
                    (true, Some(last)) => Worker::Hands { last },
                    (true, None) => Worker::Ended,
                };
            }),
            Worker::Visits { last, epoch } => step("visits the tray", &|model| {
                model.rest.workers[which] = match model.tray.visit(last.map(ending), 0, model.now) {
                    Visit::Next { claimed, call: true } => Worker::Calls { job: number(&claimed) },
                    Visit::Next { claimed, call: false } => {
                        Worker::Starts { job: number(&claimed) }
                    }
                    Visit::Empty(last) => {
                        Worker::Posts { last: last.as_ref().map(last_of), claim: Some(epoch) }
                    }
                };
            }),
            Worker::Calls { job } => step("calls the writer", &|model| {
                model.rest.mail.push(Mail::Call);
                model.rest.workers[which] = Worker::Starts { job };
            }),
            Worker::Hands { last } => step("tells the tray of its end", &|model| {
                model.tray.ended(claim_of(last.job), model.now);
                model.rest.workers[which] = Worker::Posts { last: Some(last), claim: None };
            }),
            Worker::Posts { last, claim } => step("posts its end and its request", &|model| {
                model.rest.mail.push(Mail::Work { worker: which, last, claim });
                let leaves = claim.is_none();
                let next = leaves.then_some(None);
                model.rest.workers[which] =
                    Worker::Waits { recorded: last.is_none(), next, leaves };
            }),
            Worker::Waits { recorded, next, leaves } => {
                let inbox = self.rest.inbox[which];
                if inbox == Inbox::default() {
                    return;
                }
                step("gets an answer", &|model| {
                    model.rest.inbox[which] = Inbox::default();
                    let recorded = recorded || inbox.finished;
                    model.rest.workers[which] = match next.or(inbox.claim) {
                        Some(next) if recorded => match next {
                            Some(job) => Worker::Starts { job },
                            None if leaves => Worker::Ended,
                            None => Worker::Looks { last: None },
                        },
                        next => Worker::Waits { recorded, next, leaves },
                    };
                });
            }
            Worker::Starts { job } => step("starts its job unless it is to stop", &|model| {
                model.rest.workers[which] = if model.rest.stopping {
                    Worker::Looks { last: Some(Last { job, back: true }) }
                } else {
                    model.rest.runs[job] += 1;
                    Worker::Runs { job }
                };
            }),
            Worker::Runs { job } => {
                // A job may run for as long as it likes, until it is asked to stop.
                let outside = self.rest.stop == Stop::Runs;
                steps.add("worker", which, "ends its job", outside, |model| {
                    let last = Last { job, back: false };
                    model.rest.workers[which] = Worker::Looks { last: Some(last) };
                });
            }
            Worker::Ended => {}
        }
    }

    // ---- who enqueues --------------------------------------------------------------------

    fn enqueuer(&self, job: JobNo, steps: &mut Steps<'_>) {
        let at = self.rest.sources[job];
        match (self.setup.jobs[job], at) {
            (Source::Here, Enqueuer::Idle) => {
                steps.outside("caller", job, "posts a job", |model| {
                    model.rest.mail.push(Mail::Insert(job));
                    model.rest.sources[job] = Enqueuer::Half;
                })
            }
            (Source::App, Enqueuer::Idle) if !self.rest.locked => {
                steps.outside("app", job, "begins a transaction", |model| {
                    model.rest.locked = true;
                    model.rest.sources[job] = Enqueuer::Half;
                });
            }
            (Source::App, Enqueuer::Half) => {
                steps.step("app", job, "enqueues and posts a look", |model| {
                    model.rest.mail.push(Mail::Look);
                    model.rest.sources[job] = Enqueuer::More;
                })
            }
            (Source::App, Enqueuer::More) => steps.step("app", job, "commits", |model| {
                model.rest.locked = false;
                model.rest.jobs[job] = Row::Ready;
                model.rest.others += 1;
                model.rest.sources[job] = Enqueuer::Done;
            }),
            (Source::Other, _) if self.is_broken(Break::RingsTooEarly) => {
                self.ringer_too_early(job, steps);
            }
            (Source::Other, Enqueuer::Idle) if !self.rest.locked => {
                steps.outside("other process", job, "commits a job", |model| {
                    model.rest.jobs[job] = Row::Ready;
                    model.rest.others += 1;
                    model.rest.sources[job] = Enqueuer::Half;
                });
            }
            (Source::Other, Enqueuer::Half) => {
                steps.step("other process", job, "rings", |model| {
                    model.rest.datagram = true;
                    model.rest.sources[job] = Enqueuer::Done;
                });
                steps.outside("other process", job, "is killed", |model| {
                    model.rest.sources[job] = Enqueuer::Killed;
                });
            }
            _ => {}
        }
    }

    fn ringer_too_early(&self, job: JobNo, steps: &mut Steps<'_>) {
        match self.rest.sources[job] {
            Enqueuer::Idle => steps.outside("other process", job, "rings", |model| {
                model.rest.datagram = true;
                model.rest.sources[job] = Enqueuer::Half;
            }),
            Enqueuer::Half if !self.rest.locked => {
                steps.step("other process", job, "commits a job", |model| {
                    model.rest.jobs[job] = Row::Ready;
                    model.rest.others += 1;
                    model.rest.sources[job] = Enqueuer::Done;
                });
            }
            _ => {}
        }
    }

    fn bell(&self, steps: &mut Steps<'_>) {
        match self.rest.bell {
            Bell::Sleeps if self.rest.datagram => {
                steps.step("doorbell", 0, "hears a ring", |model| {
                    model.rest.datagram = false;
                    model.rest.bell = Bell::Heard;
                })
            }
            Bell::Sleeps => {}
            Bell::Heard => steps.step("doorbell", 0, "raises its flag", |model| {
                let raised = std::mem::replace(&mut model.rest.ringing, true);
                model.rest.bell = if raised { Bell::Sleeps } else { Bell::Posts };
            }),
            Bell::Posts => steps.step("doorbell", 0, "posts the ring", |model| {
                model.rest.mail.push(Mail::Rung);
                model.rest.bell = Bell::Sleeps;
            }),
        }
    }

    // ---- who stops, resizes and waits ----------------------------------------------------

    fn stopper(&self, steps: &mut Steps<'_>) {
        let ended = self.rest.workers.iter().all(|worker| *worker == Worker::Ended);
        let mut step = |what: &'static str, act: &dyn Fn(&mut Process)| {
            steps.step("stop", 0, what, act);
        };
        match self.rest.stop {
            Stop::Flagged => step("closes the pool", &|model| {
                model.rest.pool.closed = true;
                model.rest.stop = Stop::Closed;
            }),
            Stop::Closed => step("posts the closing", &|model| {
                model.rest.mail.push(Mail::ClosePool);
                model.rest.stop = Stop::Posted;
            }),
            Stop::Posted if ended => {
                step("finds all workers ended", &|model| model.rest.stop = Stop::Returned);
            }
            Stop::Runs if self.setup.stops => steps.outside("stop", 0, "says so", |model| {
                model.rest.stopping = true;
                model.rest.stop = Stop::Flagged;
            }),
            _ => {}
        }
        match self.rest.resize {
            Resize::Not if self.setup.resizes => {
                steps.outside("resize", 0, "counts one worker less", |model| {
                    model.rest.pool.target -= 1;
                    model.rest.pool.epoch += 1;
                    model.rest.resize = Resize::Counted;
                });
            }
            Resize::Counted => steps.step("resize", 0, "calls the workers off", |model| {
                model.rest.mail.push(Mail::Unpark(model.rest.pool.epoch));
                model.rest.resize = Resize::Posted;
            }),
            _ => {}
        }
    }

    fn waiter(&self, steps: &mut Steps<'_>) {
        match self.rest.waiter {
            Waiter::Idle if self.setup.waits => {
                steps.outside("run_until_empty", 0, "looks whether it stops", |model| {
                    model.rest.waiter =
                        if model.rest.stopping { Waiter::Refused } else { Waiter::Checked };
                });
            }
            Waiter::Checked => steps.step("run_until_empty", 0, "asks to be told", |model| {
                model.rest.mail.push(Mail::WhenEmpty);
                model.rest.waiter = Waiter::Waits;
            }),
            _ => {}
        }
    }
}
