//! The real thing: a manual engine on a file, and what its jobs do.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    Batch, Chain, Clock, Context, Cron, Engine, EngineBuilder, Enqueued, Error, Failure, Job,
    JobId, JobOptions, JobResult, Jobs, JobsBuilder, ManualEngine, Missed, NewFlow, Outcome, Pool,
    Random, ResultExt, Retention,
};
use serde::{Deserialize, Serialize};

use super::rules::{Answer, Verb};
use super::steps::*;
use crate::common::{Place, place};

/// What the jobs are told to do, what came of what they enqueued, and where a crash leaves its image.
pub struct Stage {
    pub run: Mutex<Run>,
    pub enqueued: Mutex<Option<Enqueue>>,
    /// The steps that were not stored yet.
    pub stepped: Mutex<Vec<String>>,
    image: Mutex<Option<Place>>,
    /// Called as a job begins.
    begun: Box<dyn Fn(JobId) + Send + Sync>,
}

/// What an enqueue answers.
pub type Enqueue = Result<i64, Refused>;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refused {
    /// This job has the key.
    Taken(i64),
    /// SQL does not say which.
    TakenBySomebody,
    NoParent(i64),
}

fn enqueued(answer: legwork::Result<JobId>) -> Enqueue {
    match answer {
        Ok(id) => Ok(id.0),
        Err(Error::NotUnique { holder, .. }) => Err(Refused::Taken(holder.0)),
        Err(Error::NotFound(parent)) => Err(Refused::NoParent(parent.0)),
        Err(error) => panic!("not enqueued: {error}"),
    }
}

#[derive(Serialize, Deserialize)]
pub struct CopyJob;

#[derive(Serialize, Deserialize)]
pub struct SendJob;

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
    (cx.state().begun)(cx.id());
    let run = *cx.state().run.lock().unwrap();
    let jobs = cx.jobs();
    for (number, name) in STEPS.iter().copied().enumerate().take(run.steps) {
        let found = cx.step(name, || {
            cx.state().stepped.lock().unwrap().push(name.to_owned());
            Ok(number)
        })?;
        assert_eq!(found, number);
    }
    if run.meddled_with {
        let running = Answer::WrongState(legwork::State::Running);
        assert_eq!(control(jobs, cx.id().0, Verb::Delete), running);
        assert_eq!(control(jobs, cx.id().0, Verb::Retry), running);
        assert_eq!(control(jobs, cx.id().0, Verb::Reschedule(1)), running);
        assert_eq!(control(jobs, cx.id().0, Verb::RunNow), running);
        let edited = Edited { queue: 0, priority: 0, gated: false };
        assert_eq!(control(jobs, cx.id().0, Verb::Edit(edited)), running);
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
pub fn image_of(db: &Path) -> Place {
    let image = place();
    let all = db.parent().unwrap().join(".");
    let copied = Command::new("cp").arg("-r").arg(all).arg(image.dir.path()).status().unwrap();
    assert!(copied.success());
    image
}

pub fn control(jobs: &Jobs, id: i64, verb: Verb) -> Answer {
    let done = match verb {
        Verb::Cancel => jobs.cancel(JobId(id)),
        Verb::Retry => jobs.retry(JobId(id)),
        Verb::Delete => jobs.delete(JobId(id)),
        Verb::Reschedule(by) => {
            jobs.reschedule(JobId(id), jobs.clock().now() + time::Duration::seconds(by))
        }
        Verb::RunNow => jobs.run_now(JobId(id)),
        Verb::Edit(edited) => jobs.edit(JobId(id), edited.edit()),
        Verb::Clone => match jobs.clone_jobs(JobId(id)) {
            Ok(done) => return Answer::New(done.ids[0].0),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(changed) => {
            assert_eq!((changed.changed, changed.skipped), (1, 0));
            Answer::Done
        }
        Err(Error::NotFound(_)) => Answer::NotFound,
        Err(Error::NotUnique { holder, .. }) => Answer::NotUnique(holder.0),
        Err(Error::HeldByParent { parent, .. }) => Answer::HeldByParent(parent.0),
        Err(Error::WrongState { state, .. }) => Answer::WrongState(state),
        Err(error) => panic!("{verb:?}: {error}"),
    }
}

impl Plan {
    fn flow(&self) -> NewFlow {
        let anyway = legwork::AfterFailure::Continue;
        let callback = New::plain(0, Kind::Copy).job();
        let members = self.members.iter().map(|&(queue, kind)| New::plain(queue, kind).job());
        if self.chained {
            let chain = members.fold(Chain::new("chain"), Chain::then);
            let chain = if self.anyway { chain.after_failure(anyway) } else { chain };
            chain.on_finish(callback).into()
        } else {
            members.fold(Batch::new("batch"), Batch::add).on_finish(callback).into()
        }
    }
}

pub struct World {
    // Dropped in this order.
    pub engine: ManualEngine,
    app: rusqlite::Connection,
    pub place: Place,
    pools: Pools,
    pub stage: Arc<Stage>,
    pub enqueued_meanwhile: Option<Enqueue>,
    /// Of the process in which a job ran last, which has perhaps died by it.
    pub stage_before: Arc<Stage>,
}

impl World {
    pub fn open(place: Place, clock: Clock, pools: Pools) -> World {
        let jobs = World::builder(place.builder(), clock).open().unwrap();
        let ticks = |builder: EngineBuilder<Arc<Stage>>| {
            let all =
                Cron::new(format!("*/{TICK} * * * * *")).missed(Missed::All { at_most: 9_999 });
            builder.cron("ticks", all, || New::plain(0, Kind::Copy).job())
        };
        let (engine, stage) = World::engine(&jobs, pools, ticks, Box::new(|_| {}));
        let app = place.connect();
        let stage_before = Arc::clone(&stage);
        World { engine, app, place, pools, stage, enqueued_meanwhile: None, stage_before }
    }

    /// Pruning goes by real time too, and what is synced is another test's matter.
    pub fn builder(builder: JobsBuilder, clock: Clock) -> JobsBuilder {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
        builder
            .clock(clock)
            .random(Random::seeded(7))
            .retention(Retention::all(CENTURY))
            .durability(legwork::Durability::Relaxed)
    }

    /// A manual engine; `more` goes into its builder, `begun` is called as a job begins.
    pub fn engine(
        jobs: &Jobs,
        pools: Pools,
        more: impl FnOnce(EngineBuilder<Arc<Stage>>) -> EngineBuilder<Arc<Stage>>,
        begun: Box<dyn Fn(JobId) + Send + Sync>,
    ) -> (ManualEngine, Arc<Stage>) {
        let stage = Arc::new(Stage {
            run: Mutex::new(DONE),
            enqueued: Mutex::new(None),
            stepped: Mutex::new(Vec::new()),
            image: Mutex::new(None),
            begun,
        });
        let builder = pools
            .iter()
            .fold(Engine::builder(jobs).state(Arc::clone(&stage)), |builder, queues| {
                builder.pool(Pool::new(queues.iter().copied()))
            })
            .register::<CopyJob>()
            .register::<SendJob>();
        (more(builder).manual().unwrap(), stage)
    }

    pub fn jobs(&self) -> &Jobs {
        self.engine.jobs()
    }

    /// Goes on with another file, or with the same one after a restart.
    pub fn go_on_with(self, image: Option<Place>) -> World {
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

    pub fn enqueue(&self, new: &New) -> Vec<Enqueue> {
        enqueue(self.jobs(), &self.app, new)
    }

    pub fn run_one(self, run: Run) -> (World, Option<i64>) {
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

/// Enqueues in the way that the job asks for; `app` is a connection of the app.
pub fn enqueue(jobs: &Jobs, app: &rusqlite::Connection, new: &New) -> Vec<Enqueue> {
    match new.way {
        Way::Handle => vec![enqueued(jobs.enqueue(new.job()))],
        Way::Bulk => {
            let done = jobs.enqueue_each([new.job(), new.job()]).unwrap();
            let told = |done: &Enqueued| match done {
                Enqueued::Rejected { holder } => Err(Refused::Taken(holder.0)),
                done => Ok(done.id().0),
            };
            done.iter().map(told).collect()
        }
        Way::App => vec![enqueued(jobs.enqueue_in(app, new.job()))],
        Way::View => vec![by_sql(jobs, app, new)],
    }
}

/// What a program in another language does, by the clock of the test.
fn by_sql(jobs: &Jobs, app: &rusqlite::Connection, new: &New) -> Enqueue {
    let now = jobs.clock().now().unix_timestamp_nanos() / 1_000;
    app.execute_batch(&format!(
        "DROP VIEW legwork_now; CREATE VIEW legwork_now (micros) AS SELECT {now};"
    ))
    .unwrap();
    let inserted = app.execute(
        "INSERT INTO legwork_enqueue (kind, args, queue, priority, delay, gate, expires_after, unique_key)
         VALUES (?1, 'null', ?2, ?3, ?4, ?5, ?6, ?7)",
        rusqlite::params![
            new.kind.name(),
            QUEUES[new.queue],
            new.priority,
            new.delay as i64,
            new.gated.then_some(GATE),
            new.expires.map(|within| within as i64),
            new.unique.map(|rule| KEYS[rule.key])
        ],
    );
    match inserted {
        Ok(_) => {
            jobs.wake().unwrap();
            let last = "SELECT last_job FROM legwork_counter";
            Ok(app.query_row(last, [], |row| row.get(0)).unwrap())
        }
        Err(error) => {
            assert!(error.to_string().contains("legwork: unique key is taken"), "{error}");
            Err(Refused::TakenBySomebody)
        }
    }
}

/// Enqueues a flow; its id, and those of its members.
pub fn enqueue_flow(jobs: &Jobs, plan: &Plan) -> (i64, Vec<i64>) {
    let flow = jobs.enqueue_flow(plan.flow()).unwrap();
    (flow.id.0, flow.members.iter().map(|id| id.0).collect())
}
