//! Any sequence of operations, crashes and clock moves against a small in-memory model of the rules.
//!
//! The engine is a manual one on a stopped clock, so the model can foretell everything: which job
//! runs next, and what every job looks like after each step. `PROPTEST_CASES` asks for more cases.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    Clock, Conflict, Context, Engine, Enqueued, Error, Failure, Filter, Job, JobId, JobOptions,
    JobResult, Jobs, ManualEngine, NewJob, Outcome, Pool, Random, ResultExt, Retention, Retry,
    Scope, State, Unique,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

mod rules;

use self::rules::{Answer, Known, Model, Slots, Verb, seconds};
use crate::common::{Place, place, stopped_clock};

const QUEUES: [&str; 3] = ["a", "b", "c"];

/// The pools of an engine, each a strict list of queues.
type Pools = &'static [&'static [&'static str]];

const LAYOUTS: [Pools; 4] =
    [&[&["*"]], &[&["a", "b", "*"]], &[&["b"], &["c", "a"]], &[&["c", "*"], &["a"]]];

// ---- the operations ----------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    Enqueue(New),
    RunOne(Run),
    Cancel(Pick),
    Retry(Pick),
    Delete(Pick),
    Pause(Paused),
    Resume(Paused),
    CloseGate,
    OpenGate,
    Advance(u64),
    SetBack(u64),
    Reopen,
    /// The process dies between two steps.
    CrashIdle,
}

#[derive(Clone, Copy, Debug)]
struct New {
    queue: usize,
    kind: Kind,
    priority: i64,
    delay: u64,
    way: Way,
    gated: bool,
    /// Seconds.
    expires: Option<u64>,
    unique: Option<Rule>,
}

/// A rule of uniqueness for one of two keys.
#[derive(Clone, Copy, Debug)]
struct Rule {
    key: usize,
    held: Held,
    conflict: Conflict,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Started,
    Finished,
    /// Seconds.
    Period(u64),
    KeepLast,
}

const KEYS: [&str; 2] = ["k", "l"];
const GATE: &str = "g";
const STEPS: [&str; 3] = ["one", "two", "three"];

#[derive(Clone, Copy, Debug)]
enum Way {
    Handle,
    /// Two of it in one transaction.
    Bulk,
    /// On a connection of the app.
    App,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Copy,
    Send,
}

/// What the next job does when it runs.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// It comes to so many steps first.
    steps: usize,
    /// Somebody cancels it meanwhile.
    cancelled: bool,
    /// Somebody tries meanwhile what cannot be done to a running job.
    meddled_with: bool,
    /// Seconds.
    takes: u64,
    /// What the job enqueues, then.
    meanwhile: Option<New>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
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
type Pick = usize;

#[derive(Clone, Copy, Debug)]
enum Paused {
    All,
    Queue(usize),
    Kind(Kind),
}

impl Paused {
    fn scope(self) -> Scope {
        match self {
            Paused::All => Scope::All,
            Paused::Queue(queue) => Scope::Queue(QUEUES[queue].to_owned()),
            Paused::Kind(kind) => Scope::Kind(kind.name().to_owned()),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds = prop_oneof![Just(0_u64), Just(5), Just(10), Just(60)];
    let kind = prop_oneof![Just(Kind::Copy), Just(Kind::Send)];
    let way = prop_oneof![4 => Just(Way::Handle), 1 => Just(Way::Bulk), 2 => Just(Way::App)];
    let conflict = prop_oneof![
        Just(Conflict::Ignore),
        Just(Conflict::Replace),
        Just(Conflict::Reject),
        Just(Conflict::KeepLast),
    ];
    let held =
        prop_oneof![Just(Held::Started), Just(Held::Finished), (1..90_u64).prop_map(Held::Period),];
    let rule = (0..KEYS.len(), held, conflict).prop_map(|(key, held, conflict)| {
        let held = if conflict == Conflict::KeepLast { Held::KeepLast } else { held };
        Rule { key, held, conflict }
    });
    let limits = (
        prop::bool::weighted(0.2),
        prop::option::weighted(0.15, 1..60_u64),
        prop::option::weighted(0.4, rule),
    );
    let new = (0..QUEUES.len(), kind.clone(), -1_i64..=1, seconds.clone(), way, limits).prop_map(
        |(queue, kind, priority, delay, way, (gated, expires, unique))| New {
            queue,
            kind,
            priority,
            delay,
            way,
            gated,
            expires,
            unique,
        },
    );
    let end = prop_oneof![
        4 => Just(End::Done),
        1 => Just(End::Heed),
        4 => Just(End::Fail),
        1 => Just(End::Panic),
        1 => Just(End::Fatal),
        2 => seconds.clone().prop_map(End::Snooze),
        1 => Just(End::Cancel),
        2 => Just(End::Crash),
    ];
    let takes = prop_oneof![4 => Just(0_u64), 1 => seconds];
    let steps = prop_oneof![3 => Just(0_usize), 1 => 1..=STEPS.len()];
    let flags = (steps, prop::bool::weighted(0.15), prop::bool::weighted(0.1));
    let run = (flags, takes, prop::option::weighted(0.3, new.clone()), end).prop_map(
        |((steps, cancelled, meddled_with), takes, meanwhile, end)| Run {
            steps,
            cancelled,
            meddled_with,
            takes,
            meanwhile,
            end,
        },
    );
    let pick = 0..1_000_usize;
    let paused = prop_oneof![
        Just(Paused::All),
        (0..QUEUES.len()).prop_map(Paused::Queue),
        kind.prop_map(Paused::Kind),
    ];
    let step = prop_oneof![
        14 => new.prop_map(Step::Enqueue),
        18 => run.prop_map(Step::RunOne),
        2 => pick.clone().prop_map(Step::Cancel),
        3 => pick.clone().prop_map(Step::Retry),
        1 => pick.prop_map(Step::Delete),
        2 => paused.clone().prop_map(Step::Pause),
        3 => paused.prop_map(Step::Resume),
        1 => Just(Step::CloseGate),
        2 => Just(Step::OpenGate),
        5 => (1..90_u64).prop_map(Step::Advance),
        1 => (1..90_u64).prop_map(Step::SetBack),
        1 => Just(Step::Reopen),
        1 => Just(Step::CrashIdle),
    ];
    prop::collection::vec(step, 1..75)
}

// ---- the real thing ----------------------------------------------------------------------------

/// What the jobs are told to do, what came of what they enqueued, and where a crash leaves its image.
struct Stage {
    run: Mutex<Run>,
    enqueued: Mutex<Option<Enqueue>>,
    /// The steps that were not stored yet.
    stepped: Mutex<Vec<&'static str>>,
    image: Mutex<Option<Place>>,
}

/// The id that an enqueue answers, or who has the key.
type Enqueue = Result<i64, i64>;

fn enqueued(answer: legwork::Result<JobId>) -> Enqueue {
    match answer {
        Ok(id) => Ok(id.0),
        Err(Error::NotUnique { holder, .. }) => Err(holder.0),
        Err(error) => panic!("not enqueued: {error}"),
    }
}

#[derive(Serialize, Deserialize)]
struct CopyJob;

#[derive(Serialize, Deserialize)]
struct SendJob;

macro_rules! acts {
    ($job:ty, $kind:expr, $name:literal) => {
        impl Job for $job {
            const KIND: &'static str = $name;
            type State = Arc<Stage>;
            fn options() -> JobOptions {
                $kind.options()
            }
            fn perform(&self, cx: &Context<Arc<Stage>>) -> JobResult {
                act(cx)
            }
        }
    };
}
acts!(CopyJob, Kind::Copy, "copy");
acts!(SendJob, Kind::Send, "send");

fn act(cx: &Context<Arc<Stage>>) -> JobResult {
    let run = *cx.state().run.lock().unwrap();
    let jobs = cx.jobs();
    for (number, name) in STEPS.iter().copied().enumerate().take(run.steps) {
        let found = cx.step(name, || {
            cx.state().stepped.lock().unwrap().push(name);
            Ok(number)
        })?;
        assert_eq!(found, number);
    }
    if run.meddled_with {
        assert_eq!(control(jobs, cx.id().0, Verb::Delete), Answer::WrongState(State::Running));
        assert_eq!(control(jobs, cx.id().0, Verb::Retry), Answer::WrongState(State::Running));
    }
    jobs.clock().advance(seconds(run.takes));
    if run.cancelled {
        assert_eq!(control(jobs, cx.id().0, Verb::Cancel), Answer::Done);
    }
    if let Some(new) = run.meanwhile {
        *cx.state().enqueued.lock().unwrap() = Some(enqueued(jobs.enqueue(new.job())));
    }
    match run.end {
        End::Done => Ok(Outcome::Done),
        End::Heed => {
            cx.checkpoint()?;
            Ok(Outcome::Done)
        }
        End::Fail => Err(Failure::msg("told to fail")),
        // Without the hook, which would print it.
        End::Panic => std::panic::resume_unwind(Box::new("told to panic")),
        End::Fatal => Err(std::io::Error::other("told to give up")).fatal(),
        End::Snooze(delay) => Ok(Outcome::snooze(seconds(delay))),
        End::Cancel => Ok(Outcome::cancel("told to")),
        End::Crash => {
            *cx.state().image.lock().unwrap() = Some(image_of(jobs.path()));
            Ok(Outcome::Done)
        }
    }
}

/// What is left of a file whose process dies now. Copied by a child process: closing a descriptor
/// of the file in this one would drop SQLite's locks on it.
fn image_of(db: &Path) -> Place {
    let image = place();
    let all = db.parent().unwrap().join(".");
    let copied = Command::new("cp").arg("-r").arg(all).arg(image.dir.path()).status().unwrap();
    assert!(copied.success());
    image
}

fn control(jobs: &Jobs, id: i64, verb: Verb) -> Answer {
    let done = match verb {
        Verb::Cancel => jobs.cancel(JobId(id)),
        Verb::Retry => jobs.retry(JobId(id)),
        Verb::Delete => jobs.delete(JobId(id)),
    };
    match done {
        Ok(changed) => {
            assert_eq!((changed.changed, changed.skipped), (1, 0));
            Answer::Done
        }
        Err(Error::NotFound(_)) => Answer::NotFound,
        Err(Error::NotUnique { holder, .. }) => Answer::NotUnique(holder.0),
        Err(Error::WrongState { state, .. }) => Answer::WrongState(state),
        Err(error) => panic!("{verb:?}: {error}"),
    }
}

const DONE: Run = Run {
    steps: 0,
    cancelled: false,
    meddled_with: false,
    takes: 0,
    meanwhile: None,
    end: End::Done,
};

impl New {
    fn job(&self) -> NewJob {
        let mut job = match self.kind {
            Kind::Copy => NewJob::new(CopyJob),
            Kind::Send => NewJob::new(SendJob),
        };
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
        job
    }
}

struct World {
    // Dropped in this order.
    engine: ManualEngine,
    app: rusqlite::Connection,
    place: Place,
    pools: Pools,
    stage: Arc<Stage>,
    enqueued_meanwhile: Option<Enqueue>,
    /// Of the process in which a job ran last, which has perhaps died by it.
    stage_before: Arc<Stage>,
}

impl World {
    fn open(place: Place, clock: Clock, pools: Pools) -> World {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
        // Pruning goes by real time too, and what is synced is another test's matter.
        let jobs = place
            .builder()
            .clock(clock)
            .random(Random::seeded(7))
            .retention(Retention::all(CENTURY))
            .durability(legwork::Durability::Relaxed)
            .open()
            .unwrap();
        let stage = Arc::new(Stage {
            run: Mutex::new(DONE),
            enqueued: Mutex::new(None),
            stepped: Mutex::new(Vec::new()),
            image: Mutex::new(None),
        });
        let engine = pools
            .iter()
            .fold(Engine::builder(&jobs).state(Arc::clone(&stage)), |builder, queues| {
                builder.pool(Pool::new(queues.iter().copied()))
            })
            .register::<CopyJob>()
            .register::<SendJob>()
            .manual()
            .unwrap();
        let app = place.connect();
        let stage_before = Arc::clone(&stage);
        World { engine, app, place, pools, stage, enqueued_meanwhile: None, stage_before }
    }

    fn jobs(&self) -> &Jobs {
        self.engine.jobs()
    }

    /// Goes on with another file, or with the same one after a restart.
    fn go_on_with(self, image: Option<Place>) -> World {
        let World { engine, app, place, pools, .. } = self;
        let clock = engine.jobs().clock().clone();
        // The new process of an image starts while the old one's handle is still open here.
        let image = match image {
            Some(image) => World::open(image, clock, pools),
            None => {
                drop((engine, app));
                return World::open(place, clock, pools);
            }
        };
        drop((engine, app, place));
        image
    }

    fn enqueue(&self, new: &New) -> Vec<Enqueue> {
        match new.way {
            Way::Handle => vec![enqueued(self.jobs().enqueue(new.job()))],
            Way::Bulk => {
                let done = self.jobs().enqueue_each([new.job(), new.job()]).unwrap();
                let told = |done: &Enqueued| match done {
                    Enqueued::Rejected { holder } => Err(holder.0),
                    done => Ok(done.id().0),
                };
                done.iter().map(told).collect()
            }
            Way::App => vec![enqueued(self.jobs().enqueue_in(&self.app, new.job()))],
        }
    }

    fn run_one(self, run: Run) -> (World, Option<i64>) {
        *self.stage.run.lock().unwrap() = run;
        let ran = self.engine.run_one().unwrap().map(|id| id.0);
        let image = self.stage.image.lock().unwrap().take();
        let meanwhile = self.stage.enqueued.lock().unwrap().take();
        let stage = Arc::clone(&self.stage);
        let mut after = match image {
            Some(image) => self.go_on_with(Some(image)),
            None => self,
        };
        after.enqueued_meanwhile = meanwhile;
        after.stage_before = stage;
        (after, ran)
    }
}

// ---- side by side ------------------------------------------------------------------------------

fn take(step: &Step, mut world: World, model: &mut Model) -> World {
    let control = |world: &World, model: &mut Model, pick, verb| {
        let id = model.pick(pick);
        assert_eq!(control(world.jobs(), id, verb), model.control(id, verb), "{verb:?} {id}");
    };
    match step {
        Step::Enqueue(new) => {
            let copies = if matches!(new.way, Way::Bulk) { 2 } else { 1 };
            let expected: Vec<Enqueue> = (0..copies).map(|_| model.enqueue(new)).collect();
            assert_eq!(world.enqueue(new), expected, "ids");
        }
        Step::RunOne(run) => {
            let (after, ran) = world.run_one(*run);
            world = after;
            assert_eq!(ran, model.next(), "the job that ran");
            if let Some(id) = ran {
                let stepped = std::mem::take(&mut *world.stage_before.stepped.lock().unwrap());
                assert_eq!(stepped, model.steps_of(id, run.steps), "the steps that ran");
                let expected = model.run(id, *run);
                assert_eq!(world.enqueued_meanwhile, expected, "what the job enqueued");
            }
        }
        Step::Cancel(pick) => control(&world, model, *pick, Verb::Cancel),
        Step::Retry(pick) => control(&world, model, *pick, Verb::Retry),
        Step::Delete(pick) => control(&world, model, *pick, Verb::Delete),
        Step::Pause(paused) => {
            world.jobs().pause(paused.scope()).unwrap();
            model.paused.insert(paused.scope());
        }
        Step::Resume(paused) => {
            world.jobs().resume(paused.scope()).unwrap();
            model.paused.remove(&paused.scope());
        }
        Step::CloseGate => {
            world.jobs().close_gate(GATE).unwrap();
            model.gate_closed = true;
        }
        Step::OpenGate => {
            world.jobs().open_gate(GATE).unwrap();
            model.gate_closed = false;
        }
        Step::Advance(by) => {
            world.engine.advance(seconds(*by));
            model.now += seconds(*by);
        }
        // Whether a period that was over is held again would depend on what is pruned by now.
        Step::SetBack(_) if model.period_over => {}
        Step::SetBack(by) => {
            model.now -= seconds(*by);
            world.jobs().clock().set(model.now);
        }
        Step::Reopen => world = world.go_on_with(None),
        Step::CrashIdle => {
            let image = image_of(&world.place.path);
            world = world.go_on_with(Some(image));
        }
    }
    model.turn();
    world
}

fn compare(world: &World, model: &Model) {
    // A verb is answered after all mail before it: after the look that turning the clock asks for.
    assert_eq!(control(world.jobs(), i64::MAX, Verb::Cancel), Answer::NotFound);
    let page = world.jobs().list(&Filter::new(), None, 10_000).unwrap();
    let mut real: Vec<_> =
        page.jobs.iter().map(|job| (job.id.0, job.state, job.attempts, job.run_at)).collect();
    real.sort_unstable_by_key(|job| job.0);
    let expected: Vec<_> = model
        .jobs
        .iter()
        .map(|(&id, job)| (id, model.shown(job), job.attempts, job.run_at))
        .collect();
    assert_eq!(real, expected);
}

/// Lifts every pause and runs everything to its end: nothing is lost and nothing is left over.
fn run_to_the_end(mut world: World, model: &mut Model) {
    let kinds = [Kind::Copy, Kind::Send].map(Paused::Kind);
    for paused in (0..QUEUES.len()).map(Paused::Queue).chain(kinds).chain([Paused::All]) {
        world = take(&Step::Resume(paused), world, model);
    }
    world = take(&Step::OpenGate, world, model);
    let served = |job: &Known| {
        model.pools.iter().flat_map(|pool| *pool).any(|&q| q == "*" || q == job.queue)
    };
    assert!(model.jobs.values().all(served), "every layout serves every queue");
    while model.jobs.values().any(|job| !job.state.is_finished()) {
        if model.next().is_none() {
            world = take(&Step::Advance(86_400), world, model);
        }
        world = take(&Step::RunOne(DONE), world, model);
    }
    compare(&world, model);
    for (&id, job) in &model.jobs {
        let attempts = world.jobs().attempts(JobId(id)).unwrap();
        let counted = attempts.iter().filter(|attempt| attempt.counted).count();
        assert_eq!((counted, attempts.len() - counted), job.recorded, "attempts of job {id}");
    }
}

proptest! {
    // Failures print their shortest sequence of steps; no file is kept of them.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_crashes_and_clock_moves_follows_the_rules(
        layout in 0..LAYOUTS.len(),
        steps in steps(),
    ) {
        let pools = LAYOUTS[layout];
        let clock = stopped_clock();
        let mut model = Model {
            pools,
            now: clock.now(),
            last_id: 0,
            jobs: BTreeMap::new(),
            paused: HashSet::new(),
            gate_closed: false,
            keys: [Slots::default(), Slots::default()],
            period_over: false,
        };
        let mut world = World::open(place(), clock, pools);
        for step in &steps {
            world = take(step, world, &mut model);
            compare(&world, &model);
        }
        run_to_the_end(world, &mut model);
    }
}
