//! A process at work: the writer, its workers and their tray, who enqueues, who stops. The tray is
//! the real one; everything else is told step by step as the code does it.

mod around;
mod checks;
mod steps;
mod worker;
mod writer;

use std::sync::Arc;
use std::time::Instant;

use crate::id::JobId;
use crate::store::tray::Inner;
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

impl Process {
    fn is_broken(&self, broken: Break) -> bool {
        self.setup.broken == Some(broken)
    }
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
        unique: None,
        limits: None,
        flow: None,
        has_steps: false,
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
    let finish = Finish::bare(claim_of(last.job), verdict, "", 0);
    Ending { finish, told: None }
}

fn last_of(ending: &Ending) -> Last {
    let back = matches!(ending.finish.verdict, Verdict::GiveBack { .. });
    Last { job: ending.finish.claim.id.0 as JobNo, back }
}

fn number(claimed: &Claimed) -> JobNo {
    claimed.claim.id.0 as JobNo
}
