//! Putting an engine together; the user's state type ends here.

use std::sync::Arc;
use std::time::Duration;

use super::gates::{self, Probe};
use super::pool::{CheckedPool, Pool};
use super::registry::Registry;
use super::{Engine, ManualEngine, Settings, check, manual};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::jobs::{CheckReport, Jobs};
use crate::middleware::Middleware;
use crate::new_job::NewJob;

/// Called when an engine starts, begins to stop, or has stopped.
pub(super) type Hook = Arc<dyn Fn() + Send + Sync>;

/// Puts an [`Engine`] together. `S` is what the app hands to its jobs.
///
/// Registering a job whose [`State`](Job::State) is another type does not compile:
/// ```compile_fail
/// # use legwork::*;
/// # use serde::{Serialize, Deserialize};
/// # #[derive(Serialize, Deserialize)] struct Mail;
/// # struct App;
/// # impl Job for Mail {
/// #     const KIND: &'static str = "mail";
/// #     type State = App;
/// #     fn perform(&self, _: &Context<App>) -> JobResult { Ok(Outcome::Done) }
/// # }
/// # fn f(jobs: &Jobs) {
/// Engine::builder(jobs).register::<Mail>();   // Mail wants an App, this engine has ()
/// # }
/// ```
pub struct EngineBuilder<S = ()> {
    jobs: Jobs,
    state: Arc<S>,
    registry: Registry,
    wrong: Option<Error>,
    pools: Vec<Pool>,
    settings: Settings,
}

impl EngineBuilder<()> {
    pub(super) fn new(jobs: &Jobs) -> EngineBuilder<()> {
        EngineBuilder {
            jobs: jobs.clone(),
            state: Arc::new(()),
            registry: Registry::default(),
            wrong: None,
            pools: Vec::new(),
            settings: Settings {
                middleware: jobs.middleware().to_vec(),
                slow_after: None,
                stuck_grace: Duration::from_secs(5),
                crash_limit: 3,
                probes: Vec::new(),
                #[cfg(feature = "cron")]
                crons: Vec::new(),
                #[cfg(feature = "cron")]
                cron_off: false,
                on_started: Vec::new(),
                on_stopping: Vec::new(),
                on_stopped: Vec::new(),
            },
        }
    }

    /// What the jobs registered from here on get as [`Context::state`](crate::Context::state).
    pub fn state<S: Send + Sync + 'static>(self, state: S) -> EngineBuilder<S> {
        EngineBuilder {
            jobs: self.jobs,
            state: Arc::new(state),
            registry: self.registry,
            wrong: self.wrong,
            pools: self.pools,
            settings: self.settings,
        }
    }
}

impl<S: Send + Sync + 'static> EngineBuilder<S> {
    /// Lets the engine run jobs of this type, under its kind and its aliases.
    pub fn register<J: Job<State = S>>(mut self) -> EngineBuilder<S> {
        let state = Arc::clone(&self.state);
        self.add::<J>(&state);
        self
    }

    /// The same for a job with a state of its own, `()` included.
    pub fn register_with<J: Job>(mut self, state: J::State) -> EngineBuilder<S> {
        self.add::<J>(&Arc::new(state));
        self
    }

    fn add<J: Job>(&mut self, state: &Arc<J::State>) {
        if let Err(error) = self.registry.add::<J>(state) {
            self.wrong.get_or_insert(error);
        }
    }

    /// Adds a pool. Without any there is one: all queues, as many workers as cores.
    pub fn pool(mut self, pool: Pool) -> EngineBuilder<S> {
        self.pools.push(pool);
        self
    }

    /// These pools in place of those added before. For a program whose command line may name others than
    /// the program does; with none it is as if no pool had been added.
    pub fn pools(mut self, pools: impl IntoIterator<Item = Pool>) -> EngineBuilder<S> {
        self.pools = pools.into_iter().collect();
        self
    }

    /// Code around every attempt of this engine, inside the handle's middleware.
    pub fn middleware(mut self, middleware: impl Middleware) -> EngineBuilder<S> {
        self.settings.middleware.push(Arc::new(middleware));
        self
    }

    /// Tells [`Event::Slow`](crate::Event::Slow) of attempts that take longer. Default: never.
    pub fn slow_after(mut self, threshold: Duration) -> EngineBuilder<S> {
        self.settings.slow_after = Some(threshold);
        self
    }

    /// How long after its time-out an attempt that goes on counts as stuck. Default: 5 seconds.
    pub fn stuck_grace(mut self, grace: Duration) -> EngineBuilder<S> {
        self.settings.stuck_grace = grace;
        self
    }

    /// How many deaths of its process a job may cause within 72 hours: at so many it is quarantined,
    /// that is `failed` with the reason. Default: 3; 0 is never.
    ///
    /// Jobs that were running when their process died become suspects, which uses no attempt. A
    /// process runs one suspect at a time, beside other jobs: if it dies meanwhile, that counts
    /// against this suspect and against nobody else. An attempt that ends in any other way clears
    /// its job. A restart of the machine is nobody's fault, and a panic is a failed attempt.
    ///
    /// A death is a death: whoever kills processes on purpose, as a test does, sets 0. Then nobody is
    /// suspected either. The engine that joined last decides for its handle.
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let engine = Engine::builder(&jobs).crash_limit(1).start()?;
    /// # Ok(()) }
    /// ```
    pub fn crash_limit(mut self, deaths: u32) -> EngineBuilder<S> {
        self.settings.crash_limit = deaths;
        self
    }

    /// Lets a probe open and close a gate: it is asked before the first claim, in the starting thread,
    /// and then at this interval, in a thread of the engine's own for all probes. The gate follows
    /// whenever the answer changes: `true` opens it, `false` closes it. A probe that panics is
    /// logged, and the gate left as it is. When the engine stops the gate stays as it was.
    ///
    /// A probe should answer within its interval: while it does not return no other is asked, and the
    /// first time the engine does not start. Give one that asks a network a time-out of its own. Under a
    /// stopped clock probes are asked as it is turned, by a manual engine with each
    /// [`run_due`](ManualEngine::run_due).
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # use std::time::Duration;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let engine = Engine::builder(&jobs)
    ///     .gate("mounted", Duration::from_secs(10), || std::path::Path::new("/mnt/backup").exists())
    ///     .start()?;
    /// # Ok(()) }
    /// ```
    pub fn gate(
        mut self,
        name: impl Into<String>,
        every: Duration,
        probe: impl Fn() -> bool + Send + Sync + 'static,
    ) -> EngineBuilder<S> {
        self.settings.probes.push(Probe::new(name.into(), every, Arc::new(probe)));
        self
    }

    /// A cron entry of the program: at each tick the closure makes a job and it is enqueued, once over
    /// all processes whose engines have the entry, in the file under this name.
    ///
    /// The entry is durable, the closure is not: ticks are fired while an engine with it runs, and
    /// what was missed meanwhile is up to [`Missed`](crate::Missed). The closure may be called
    /// for a tick that another process is first with, so it should do no more than make the job.
    /// If it panics, or the job is refused, the tick is left out
    /// ([`Event::CronFailed`](crate::Event::CronFailed)). The job's meta has the entry's name as
    /// `cron`, and the tick's time in RFC 3339 as `cron_tick`.
    ///
    /// A new build may change the expression: it takes the entry over, counted from its start, and
    /// engines with the old one no longer serve it.
    ///
    /// ```
    /// # use legwork::{Cron, Engine, Jobs, Missed, NewJob};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let engine = Engine::builder(&jobs)
    ///     .cron("digest", "0 7 * * 1-5", || NewJob::of_kind("digest", serde_json::json!({})))
    ///     .cron(
    ///         "report",
    ///         Cron::new("30 17 * * 5").zone("Europe/Berlin").missed(Missed::All { at_most: 4 }),
    ///         || NewJob::of_kind("report", serde_json::json!({})),
    ///     )
    ///     .start()?;
    /// # Ok(()) }
    /// ```
    ///
    /// A bad name, expression or zone is [`Error::Invalid`] at [`start`](EngineBuilder::start).
    #[cfg(feature = "cron")]
    pub fn cron<J: Into<crate::new_job::NewJob>>(
        mut self,
        name: impl Into<String>,
        cron: impl Into<crate::cron::Cron>,
        job: impl Fn() -> J + Send + Sync + 'static,
    ) -> EngineBuilder<S> {
        self.settings.crons.push(super::cron::Planned {
            name: name.into(),
            cron: cron.into(),
            make: Arc::new(move || job().into()),
        });
        self
    }

    /// Serves no cron entries, neither the builder's nor those of [`schedule`](Jobs::schedule).
    #[cfg(feature = "cron")]
    pub fn without_cron(mut self) -> EngineBuilder<S> {
        self.settings.cron_off = true;
        self
    }

    /// Called in the starting thread once the workers run.
    pub fn on_started(mut self, hook: impl Fn() + Send + Sync + 'static) -> EngineBuilder<S> {
        self.settings.on_started.push(Arc::new(hook));
        self
    }

    /// Called in the stopping thread before workers are asked to stop.
    pub fn on_stopping(mut self, hook: impl Fn() + Send + Sync + 'static) -> EngineBuilder<S> {
        self.settings.on_stopping.push(Arc::new(hook));
        self
    }

    /// Called in the stopping thread once the engine has stopped.
    pub fn on_stopped(mut self, hook: impl Fn() + Send + Sync + 'static) -> EngineBuilder<S> {
        self.settings.on_stopped.push(Arc::new(hook));
        self
    }

    /// Registers this process with the file, takes over what dead processes held, and starts the
    /// workers.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad queue list, a kind registered twice, two pools of one name, a bad
    /// gate or two probes of one;
    /// [`Error::ReadOnly`] if the lock file cannot be made; [`Error::Busy`]; [`Error::Io`] if a
    /// thread cannot be started.
    pub fn start(self) -> Result<Engine> {
        let pools = self.checked_pools()?;
        Engine::start(self.jobs, self.registry, Arc::clone(&self.state), pools, self.settings)
    }

    /// An engine without threads, for tests: jobs run in the calling thread when it is told to.
    /// Its queues are those of all pools; workers and cadences count for nothing.
    ///
    /// # Errors
    /// As [`start`](EngineBuilder::start).
    pub fn manual(self) -> Result<ManualEngine> {
        let pools = self.checked_pools()?;
        manual::start(self.jobs, self.registry, Arc::clone(&self.state), pools, self.settings)
    }

    /// Looks, without starting anything, for jobs that this engine could not run: of kinds that are not
    /// registered here, and with arguments that do not decode as their kind's type. For a deploy: run
    /// it in the new build on the file in use, before the old one is stopped.
    ///
    /// It decodes every job that is not finished, some at a time, and keeps only counts and a few ids.
    /// Jobs of kinds that only other programs run are among the unknown ones.
    ///
    /// ```
    /// # use legwork::{Context, Engine, Job, JobResult, Jobs, NewJob, Outcome};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Mail { to: i64 }
    /// impl Job for Mail {
    ///     const KIND: &'static str = "mail";
    ///     type State = ();
    ///     fn perform(&self, _: &Context) -> JobResult { Ok(Outcome::Done) }
    /// }
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// jobs.enqueue(NewJob::of_kind("mail", serde_json::json!({ "to": "Anna" })))?;
    /// let report = Engine::builder(&jobs).register::<Mail>().check()?;
    /// assert!(!report.is_ok());
    /// assert_eq!(report.undecodable[0].count, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a registration that is wrong; those of reading.
    pub fn check(&self) -> Result<CheckReport> {
        self.checked_registration()?;
        check::check(&self.jobs, &self.registry)
    }

    /// A job of a kind that is registered here, from its arguments as JSON: as the program makes it of the
    /// kind's type, with the kind's options, which no engine has to have recorded in the file. `None`: the
    /// kind is not registered. A [former kind](Job::ALIASES) gives a job of the present one.
    ///
    /// ```
    /// # use legwork::{Context, Engine, Job, JobOptions, JobResult, Jobs, Outcome};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Mail { to: i64 }
    /// impl Job for Mail {
    ///     const KIND: &'static str = "mail";
    ///     type State = ();
    ///     fn options() -> JobOptions { JobOptions::new().queue("post") }
    ///     fn perform(&self, _: &Context) -> JobResult { Ok(Outcome::Done) }
    /// }
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let builder = Engine::builder(&jobs).register::<Mail>();
    /// let mail = builder.new_job("mail", r#"{"to": 7}"#)?.unwrap();
    /// assert_eq!(mail.queue_name(), "post");
    /// assert!(builder.new_job("mail", r#"{"to": "Anna"}"#).is_err());
    /// assert!(builder.new_job("letter", "{}")?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a registration that is wrong; [`Error::Json`] for arguments that do not decode
    /// as the kind's type.
    pub fn new_job(&self, kind: &str, args: &str) -> Result<Option<NewJob>> {
        self.checked_registration()?;
        let Some(handler) = self.registry.get(kind) else { return Ok(None) };
        let job = (handler.new_job)(args);
        job.map(Some).map_err(|source| Error::Json { what: "arguments", source })
    }

    fn checked_registration(&self) -> Result<()> {
        match &self.wrong {
            Some(error) => Err(Error::invalid("registration", error.to_string())),
            None => Ok(()),
        }
    }

    fn checked_pools(&self) -> Result<Vec<CheckedPool>> {
        gates::check(&self.settings.probes)?;
        self.checked_registration()?;
        let mut pools = self.pools.clone();
        if pools.is_empty() {
            pools.push(Pool::new(["*"]));
        }
        let pools = pools.into_iter().map(Pool::check).collect::<Result<Vec<_>>>()?;
        for (at, pool) in pools.iter().enumerate() {
            if pools[..at].iter().any(|other| other.name == pool.name) {
                let why = format!("two pools are called {:?}; give one another name", pool.name);
                return Err(Error::invalid("pool name", why));
            }
        }
        Ok(pools)
    }
}
