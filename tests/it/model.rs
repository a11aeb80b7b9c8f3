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
    Clock, Context, Engine, Error, Failure, Filter, Job, JobId, JobOptions, JobResult, Jobs,
    ManualEngine, NewJob, Outcome, Pool, Random, ResultExt, Retention, Retry, Scope, State,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

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
    Advance(u64),
    SetBack(u64),
    Reopen,
    /// The process dies between two steps.
    CrashIdle,
}

#[derive(Clone, Debug)]
struct New {
    queue: usize,
    kind: Kind,
    priority: i64,
    delay: u64,
    way: Way,
}

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
    /// Somebody cancels it meanwhile.
    cancelled: bool,
    /// Somebody tries meanwhile what cannot be done to a running job.
    meddled_with: bool,
    /// Seconds.
    takes: u64,
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
    let new = (0..QUEUES.len(), kind.clone(), -1_i64..=1, seconds.clone(), way)
        .prop_map(|(queue, kind, priority, delay, way)| New { queue, kind, priority, delay, way });
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
    let run = (prop::bool::weighted(0.15), prop::bool::weighted(0.1), takes, end).prop_map(
        |(cancelled, meddled_with, takes, end)| Run { cancelled, meddled_with, takes, end },
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
        5 => (1..90_u64).prop_map(Step::Advance),
        1 => (1..90_u64).prop_map(Step::SetBack),
        1 => Just(Step::Reopen),
        1 => Just(Step::CrashIdle),
    ];
    prop::collection::vec(step, 1..75)
}

// ---- the rules ---------------------------------------------------------------------------------

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Copy => "copy",
            Kind::Send => "send",
        }
    }

    /// Attempts in all, and the seconds between them.
    fn retries(self) -> (u32, u64) {
        match self {
            Kind::Copy => (3, 7),
            Kind::Send => (2, 0),
        }
    }

    fn options(self) -> JobOptions {
        let (attempts, delay) = self.retries();
        JobOptions::new()
            .retry(Retry::fixed(Duration::from_secs(delay)).attempts(attempts).jitter(0.0))
    }
}

struct Model {
    pools: Pools,
    now: OffsetDateTime,
    last_id: i64,
    jobs: BTreeMap<i64, Known>,
    paused: HashSet<Scope>,
}

struct Known {
    queue: &'static str,
    kind: Kind,
    priority: i64,
    run_at: OffsetDateTime,
    state: State,
    attempts: u32,
    /// Attempts that were recorded as failed, and as interrupted.
    recorded: (usize, usize),
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Model {
    fn pick(&self, pick: Pick) -> i64 {
        // One past the last: no such job.
        1 + i64::try_from(pick).unwrap() % (self.last_id + 1)
    }

    fn enqueue(&mut self, new: &New) -> i64 {
        self.last_id += 1;
        let run_at = self.now + seconds(new.delay);
        self.jobs.insert(
            self.last_id,
            Known {
                queue: QUEUES[new.queue],
                kind: new.kind,
                priority: new.priority,
                run_at,
                state: if new.delay > 0 { State::Scheduled } else { State::Ready },
                attempts: 0,
                recorded: (0, 0),
            },
        );
        self.last_id
    }

    /// What has fallen due is ready, and stays so if the clock is set back.
    fn make_due_ready(&mut self) {
        for job in self.jobs.values_mut() {
            if matches!(job.state, State::Scheduled | State::Retrying) && job.run_at <= self.now {
                job.state = State::Ready;
            }
        }
    }

    fn is_paused(&self, job: &Known) -> bool {
        self.paused.contains(&Scope::All)
            || self.paused.contains(&Scope::Queue(job.queue.to_owned()))
            || self.paused.contains(&Scope::Kind(job.kind.name().to_owned()))
    }

    /// The job that runs next: of the first pool, of its first queue, that have any.
    fn next(&self) -> Option<i64> {
        self.pools.iter().find_map(|queues| {
            self.jobs
                .iter()
                .filter(|(_, job)| job.state == State::Ready && !self.is_paused(job))
                .filter_map(|(&id, job)| {
                    let rank =
                        queues.iter().position(|&queue| queue == "*" || queue == job.queue)?;
                    Some((rank, job.priority, job.run_at, id))
                })
                .min()
                .map(|(.., id)| id)
        })
    }

    fn run(&mut self, id: i64, run: Run) {
        self.now += seconds(run.takes);
        let now = self.now;
        let job = self.jobs.get_mut(&id).unwrap();
        let (attempts, delay) = job.kind.retries();
        let failed = match run.end {
            End::Fail | End::Panic | End::Fatal => 1,
            _ => 0,
        };
        job.state = match run.end {
            End::Done => State::Completed,
            End::Heed if !run.cancelled => State::Completed,
            // Cancelled meanwhile and not completed: it is not tried again, whatever it says.
            _ if run.cancelled => State::Cancelled,
            End::Heed | End::Cancel => State::Cancelled,
            End::Fatal => State::Failed,
            End::Fail | End::Panic if job.attempts + 1 >= attempts => State::Failed,
            End::Fail | End::Panic => {
                job.run_at = now + seconds(delay);
                State::Retrying
            }
            End::Snooze(delay) => {
                job.run_at = now + seconds(delay);
                State::Scheduled
            }
            // Nobody counts a crash against it.
            End::Crash => State::Ready,
        };
        job.attempts += failed + u32::from(job.state == State::Completed);
        job.recorded.0 += failed as usize;
        job.recorded.1 += usize::from(matches!(run.end, End::Crash));
    }

    /// What a verb answers: done, or why not.
    fn control(&mut self, id: i64, verb: Verb) -> Answer {
        let Some(job) = self.jobs.get_mut(&id) else { return Answer::NotFound };
        let state = job.state;
        match verb {
            Verb::Cancel if !state.is_finished() => job.state = State::Cancelled,
            Verb::Retry if state.is_finished() || state == State::Retrying => {
                (job.state, job.attempts, job.run_at) = (State::Ready, 0, self.now);
            }
            Verb::Delete => drop(self.jobs.remove(&id)),
            _ => return Answer::WrongState(state),
        }
        Answer::Done
    }
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Cancel,
    Retry,
    Delete,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    NotFound,
    WrongState(State),
}

// ---- the real thing ----------------------------------------------------------------------------

/// What the jobs are told to do, and where a crash leaves its image.
struct Stage {
    run: Mutex<Run>,
    image: Mutex<Option<Place>>,
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
    if run.meddled_with {
        assert_eq!(control(jobs, cx.id().0, Verb::Delete), Answer::WrongState(State::Running));
        assert_eq!(control(jobs, cx.id().0, Verb::Retry), Answer::WrongState(State::Running));
    }
    jobs.clock().advance(seconds(run.takes));
    if run.cancelled {
        assert_eq!(control(jobs, cx.id().0, Verb::Cancel), Answer::Done);
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
        Err(Error::WrongState { state, .. }) => Answer::WrongState(state),
        Err(error) => panic!("{verb:?}: {error}"),
    }
}

struct World {
    // Dropped in this order.
    engine: ManualEngine,
    app: rusqlite::Connection,
    place: Place,
    pools: Pools,
    stage: Arc<Stage>,
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
        let run = Run { cancelled: false, meddled_with: false, takes: 0, end: End::Done };
        let stage = Arc::new(Stage { run: Mutex::new(run), image: Mutex::new(None) });
        let engine = pools
            .iter()
            .fold(Engine::builder(&jobs).state(Arc::clone(&stage)), |builder, queues| {
                builder.pool(Pool::new(queues.iter().copied()))
            })
            .register::<CopyJob>()
            .register::<SendJob>()
            .manual()
            .unwrap();
        World { engine, app: place.connect(), place, pools, stage }
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

    fn enqueue(&self, new: &New) -> Vec<i64> {
        let job = match new.kind {
            Kind::Copy => NewJob::new(CopyJob),
            Kind::Send => NewJob::new(SendJob),
        };
        let job = job.queue(QUEUES[new.queue]).priority(new.priority).delay(seconds(new.delay));
        let ids = match new.way {
            Way::Handle => vec![self.jobs().enqueue(job).unwrap()],
            Way::Bulk => self.jobs().enqueue_many([job.clone(), job]).unwrap(),
            Way::App => vec![self.jobs().enqueue_in(&self.app, job).unwrap()],
        };
        ids.into_iter().map(|id| id.0).collect()
    }

    fn run_one(self, run: Run) -> (World, Option<i64>) {
        *self.stage.run.lock().unwrap() = run;
        let ran = self.engine.run_one().unwrap().map(|id| id.0);
        let image = self.stage.image.lock().unwrap().take();
        match image {
            Some(image) => (self.go_on_with(Some(image)), ran),
            None => (self, ran),
        }
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
            let expected: Vec<i64> = (0..copies).map(|_| model.enqueue(new)).collect();
            assert_eq!(world.enqueue(new), expected, "ids");
        }
        Step::RunOne(run) => {
            let (after, ran) = world.run_one(*run);
            world = after;
            assert_eq!(ran, model.next(), "the job that ran");
            if let Some(id) = ran {
                model.run(id, *run);
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
        Step::Advance(by) => {
            world.engine.advance(seconds(*by));
            model.now += seconds(*by);
        }
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
    model.make_due_ready();
    world
}

fn compare(world: &World, model: &Model) {
    // A verb is answered after all mail before it: after the look that turning the clock asks for.
    assert_eq!(control(world.jobs(), i64::MAX, Verb::Cancel), Answer::NotFound);
    let page = world.jobs().list(&Filter::new(), None, 10_000).unwrap();
    let mut real: Vec<_> =
        page.jobs.iter().map(|job| (job.id.0, job.state, job.attempts, job.run_at)).collect();
    real.sort_unstable_by_key(|job| job.0);
    let expected: Vec<_> =
        model.jobs.iter().map(|(&id, job)| (id, job.state, job.attempts, job.run_at)).collect();
    assert_eq!(real, expected);
}

/// Lifts every pause and runs everything to its end: nothing is lost and nothing is left over.
fn run_to_the_end(mut world: World, model: &mut Model) {
    let kinds = [Kind::Copy, Kind::Send].map(Paused::Kind);
    for paused in (0..QUEUES.len()).map(Paused::Queue).chain(kinds).chain([Paused::All]) {
        world = take(&Step::Resume(paused), world, model);
    }
    let run = Run { cancelled: false, meddled_with: false, takes: 0, end: End::Done };
    let served = |job: &Known| {
        model.pools.iter().flat_map(|pool| *pool).any(|&q| q == "*" || q == job.queue)
    };
    assert!(model.jobs.values().all(served), "every layout serves every queue");
    while model.jobs.values().any(|job| !job.state.is_finished()) {
        if model.next().is_none() {
            world = take(&Step::Advance(86_400), world, model);
        }
        world = take(&Step::RunOne(run), world, model);
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
        };
        let mut world = World::open(place(), clock, pools);
        for step in &steps {
            world = take(step, world, &mut model);
            compare(&world, &model);
        }
        run_to_the_end(world, &mut model);
    }
}
