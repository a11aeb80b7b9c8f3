//! What may happen: the operations, and how they are drawn.

use legwork::{Conflict, Edit, JobId, JobOptions, Limit, NewJob, OnBusy, Retry, Scope, Unique};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::rules::Model;
use super::world::{CopyJob, SendJob};

pub const QUEUES: [&str; 3] = ["a", "b", "c"];
pub const KEYS: [&str; 2] = ["k", "l"];
pub const GATE: &str = "g";
pub const STEPS: [&str; 3] = ["one", "two", "three"];
/// The seconds between two starts by each key's rate.
pub const PER: [u64; 2] = [20, 45];
/// The seconds between two ticks of the cron entry.
pub const TICK: u64 = 30;

/// The pools of an engine, each a strict list of queues.
pub type Pools = &'static [&'static [&'static str]];

pub const LAYOUTS: [Pools; 4] =
    [&[&["*"]], &[&["a", "b", "*"]], &[&["b"], &["c", "a"]], &[&["c", "*"], &["a"]]];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    Enqueue(New),
    Flow(Plan),
    RunOne(Run),
    Cancel(Pick),
    Retry(Pick),
    Delete(Pick),
    /// Seconds from now, or ago.
    Reschedule(Pick, i64),
    RunNow(Pick),
    Edit(Pick, Edited),
    Clone(Pick),
    Pause(Paused),
    Resume(Paused),
    CloseGate,
    OpenGate,
    Advance(u64),
    SetBack(u64),
    PauseCron,
    ResumeCron,
    AskCron,
    Reopen,
    /// The process dies between two steps.
    CrashIdle,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct New {
    pub queue: usize,
    pub kind: Kind,
    pub priority: i64,
    /// Seconds.
    pub delay: u64,
    pub way: Way,
    pub gated: bool,
    /// Seconds.
    pub expires: Option<u64>,
    pub unique: Option<Rule>,
    pub limit: Option<Limited>,
    pub after: Option<After>,
}

/// A rule of uniqueness for one of two keys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rule {
    pub key: usize,
    pub held: Held,
    pub conflict: Conflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Held {
    Started,
    Finished,
    /// Seconds.
    Period(u64),
    KeepLast,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limited {
    pub key: usize,
    pub terms: Terms,
    /// Or it is discarded when a worker comes to it in vain.
    pub waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Terms {
    /// One at once.
    AtOnce,
    /// One in the key's time.
    Paced,
    Burst,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct After {
    pub parent: Pick,
    pub anyway: bool,
}

/// What jobs that wait become.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Edited {
    pub queue: usize,
    pub priority: i64,
    pub gated: bool,
}

impl Edited {
    pub fn edit(self) -> Edit {
        let edit = Edit::new().queue(QUEUES[self.queue]).priority(self.priority);
        if self.gated { edit.gate(GATE) } else { edit.without_gate() }
    }
}

/// A flow: a chain, or a batch; either calls back when it has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub chained: bool,
    pub anyway: bool,
    /// Queue and kind.
    pub members: Vec<(usize, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Way {
    Handle,
    /// Two of it in one transaction.
    Bulk,
    /// On a connection of the app.
    App,
    /// There, by SQL.
    View,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    Copy,
    Send,
}

/// What a job does when it runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    /// It comes to so many steps first.
    pub steps: usize,
    /// Somebody cancels it meanwhile.
    pub cancelled: bool,
    /// Somebody tries meanwhile what cannot be done to a running job.
    pub meddled_with: bool,
    /// Seconds.
    pub takes: u64,
    /// What the job enqueues, then.
    pub meanwhile: Option<New>,
    pub end: End,
}

pub const DONE: Run = Run {
    steps: 0,
    cancelled: false,
    meddled_with: false,
    takes: 0,
    meanwhile: None,
    end: End::Done,
};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum End {
    Done,
    /// Stops if it is told to, else it is done.
    Heed,
    Fail,
    Panic,
    Fatal,
    Snooze(u64),
    Cancel,
    /// The process dies.
    Crash,
}

/// Stands for an id: one of those given out so far, or the next one.
pub type Pick = usize;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Paused {
    All,
    Queue(usize),
    Kind(Kind),
}

impl Paused {
    pub fn scope(self) -> Scope {
        match self {
            Paused::All => Scope::All,
            Paused::Queue(queue) => Scope::Queue(QUEUES[queue].to_owned()),
            Paused::Kind(kind) => Scope::Kind(kind.name().to_owned()),
        }
    }

    /// All that can be paused.
    pub fn everything() -> impl Iterator<Item = Paused> {
        let kinds = [Kind::Copy, Kind::Send].map(Paused::Kind);
        (0..QUEUES.len()).map(Paused::Queue).chain(kinds).chain([Paused::All])
    }
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Copy => "copy",
            Kind::Send => "send",
        }
    }

    /// Attempts in all, and the seconds between them.
    pub fn retries(self) -> (u32, u64) {
        match self {
            Kind::Copy => (3, 7),
            Kind::Send => (2, 0),
        }
    }

    pub fn options(self) -> JobOptions {
        let (attempts, delay) = self.retries();
        JobOptions::new().retry(Retry::fixed(seconds(delay)).attempts(attempts).jitter(0.0))
    }

    fn job(self) -> NewJob {
        match self {
            Kind::Copy => NewJob::new(CopyJob),
            Kind::Send => NewJob::new(SendJob),
        }
    }
}

impl New {
    /// A job of this kind in this queue, and nothing else.
    pub fn plain(queue: usize, kind: Kind) -> New {
        New {
            queue,
            kind,
            priority: 0,
            delay: 0,
            way: Way::Handle,
            gated: false,
            expires: None,
            unique: None,
            limit: None,
            after: None,
        }
    }

    /// Without what does not go together.
    fn fitting(mut self) -> New {
        if self.way == Way::View {
            let by_sql =
                |rule: Rule| Rule { held: Held::Finished, conflict: Conflict::Reject, ..rule };
            self.unique = self.unique.map(by_sql);
            (self.limit, self.after) = (None, None);
        }
        let replaces = |rule: Rule| matches!(rule.conflict, Conflict::Replace | Conflict::KeepLast);
        if self.way == Way::Bulk || self.unique.is_some_and(replaces) {
            self.after = None;
        }
        self
    }

    /// With its parent's id.
    pub fn resolved(mut self, model: &Model) -> New {
        self.after = self.after.map(|after| After {
            parent: usize::try_from(model.pick(after.parent)).unwrap(),
            ..after
        });
        self
    }

    pub fn job(&self) -> NewJob {
        let mut job = self.kind.job();
        job = job.queue(QUEUES[self.queue]).priority(self.priority).delay(seconds(self.delay));
        if self.gated {
            job = job.gate(GATE);
        }
        if let Some(expires) = self.expires {
            job = job.expires_after(seconds(expires));
        }
        if let Some(Rule { key, held, conflict }) = self.unique {
            let unique = Unique::by_key(KEYS[key]).on_conflict(conflict);
            job = job.unique(match held {
                Held::Started => unique.until_started(),
                Held::Finished | Held::KeepLast => unique,
                Held::Period(period) => unique.for_period(seconds(period)),
            });
        }
        if let Some(Limited { key, terms, waits }) = self.limit {
            let rate = Limit::rate(KEYS[key], 1, seconds(PER[key]));
            job = job.limited(match terms {
                Terms::AtOnce => Limit::at_once(KEYS[key], 1),
                Terms::Paced => rate,
                Terms::Burst => rate.burst(),
            });
            job = job.on_busy(if waits { OnBusy::Wait } else { OnBusy::Discard });
        }
        if let Some(After { parent, anyway }) = self.after {
            job = job.after([JobId(parent as i64)]);
            if anyway {
                job = job.after_failure(legwork::AfterFailure::Continue);
            }
        }
        job
    }
}

impl Run {
    pub fn resolved(self, model: &Model) -> Run {
        Run { meanwhile: self.meanwhile.map(|new| new.resolved(model)), ..self }
    }
}

fn kind() -> impl Strategy<Value = Kind> + Clone {
    prop_oneof![Just(Kind::Copy), Just(Kind::Send)]
}

fn some_seconds() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![Just(0_u64), Just(5), Just(10), Just(60)]
}

fn new() -> impl Strategy<Value = New> + Clone {
    let way = prop_oneof![
        8 => Just(Way::Handle),
        2 => Just(Way::Bulk),
        3 => Just(Way::App),
        2 => Just(Way::View)
    ];
    let conflict = prop_oneof![
        Just(Conflict::Ignore),
        Just(Conflict::Replace),
        Just(Conflict::Reject),
        Just(Conflict::KeepLast),
    ];
    let held =
        prop_oneof![Just(Held::Started), Just(Held::Finished), (1..90_u64).prop_map(Held::Period)];
    let rule = (0..KEYS.len(), held, conflict).prop_map(|(key, held, conflict)| {
        let held = if conflict == Conflict::KeepLast { Held::KeepLast } else { held };
        Rule { key, held, conflict }
    });
    let terms =
        prop_oneof![2 => Just(Terms::AtOnce), 1 => Just(Terms::Paced), 1 => Just(Terms::Burst)];
    let limit = (0..KEYS.len(), terms, prop::bool::weighted(0.7))
        .prop_map(|(key, terms, waits)| Limited { key, terms, waits });
    let after = (0..1_000_usize, prop::bool::weighted(0.3))
        .prop_map(|(parent, anyway)| After { parent, anyway });
    let rules = (
        prop::bool::weighted(0.2),
        prop::option::weighted(0.15, 1..60_u64),
        prop::option::weighted(0.35, rule),
        prop::option::weighted(0.25, limit),
        prop::option::weighted(0.25, after),
    );
    (0..QUEUES.len(), kind(), -1_i64..=1, some_seconds(), way, rules).prop_map(
        |(queue, kind, priority, delay, way, (gated, expires, unique, limit, after))| {
            let new =
                New { queue, kind, priority, delay, way, gated, expires, unique, limit, after };
            new.fitting()
        },
    )
}

fn run() -> impl Strategy<Value = Run> {
    let end = prop_oneof![
        4 => Just(End::Done),
        1 => Just(End::Heed),
        4 => Just(End::Fail),
        1 => Just(End::Panic),
        1 => Just(End::Fatal),
        2 => some_seconds().prop_map(End::Snooze),
        1 => Just(End::Cancel),
        2 => Just(End::Crash),
    ];
    let takes = prop_oneof![4 => Just(0_u64), 1 => some_seconds()];
    let steps = prop_oneof![3 => Just(0_usize), 1 => 1..=STEPS.len()];
    let flags = (steps, prop::bool::weighted(0.15), prop::bool::weighted(0.1));
    let meanwhile = new().prop_map(|new| New { way: Way::Handle, ..new });
    (flags, takes, prop::option::weighted(0.3, meanwhile), end).prop_map(
        |((steps, cancelled, meddled_with), takes, meanwhile, end)| Run {
            steps,
            cancelled,
            meddled_with,
            takes,
            meanwhile,
            end,
        },
    )
}

pub fn step() -> impl Strategy<Value = Step> {
    let pick = 0..1_000_usize;
    let paused = prop_oneof![
        Just(Paused::All),
        (0..QUEUES.len()).prop_map(Paused::Queue),
        kind().prop_map(Paused::Kind),
    ];
    let edited = (0..QUEUES.len(), -1_i64..=1, prop::bool::weighted(0.2))
        .prop_map(|(queue, priority, gated)| Edited { queue, priority, gated });
    let members = prop::collection::vec((0..QUEUES.len(), kind()), 0..4);
    let plan = (any::<bool>(), prop::bool::weighted(0.3), members)
        .prop_map(|(chained, anyway, members)| Plan { chained, anyway, members });
    prop_oneof![
        14 => new().prop_map(Step::Enqueue),
        2 => plan.prop_map(Step::Flow),
        18 => run().prop_map(Step::RunOne),
        2 => pick.clone().prop_map(Step::Cancel),
        3 => pick.clone().prop_map(Step::Retry),
        1 => pick.clone().prop_map(Step::Delete),
        3 => (pick.clone(), -30_i64..60).prop_map(|(pick, by)| Step::Reschedule(pick, by)),
        2 => pick.clone().prop_map(Step::RunNow),
        2 => (pick.clone(), edited).prop_map(|(pick, edited)| Step::Edit(pick, edited)),
        1 => pick.prop_map(Step::Clone),
        2 => paused.clone().prop_map(Step::Pause),
        3 => paused.prop_map(Step::Resume),
        1 => Just(Step::CloseGate),
        2 => Just(Step::OpenGate),
        5 => (1..90_u64).prop_map(Step::Advance),
        1 => (1..90_u64).prop_map(Step::SetBack),
        1 => Just(Step::PauseCron),
        1 => Just(Step::ResumeCron),
        1 => Just(Step::AskCron),
        1 => Just(Step::Reopen),
        1 => Just(Step::CrashIdle),
    ]
}
