//! The engine that the commands work and check with: that of the bare program, or an app's own.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::BoxError;
use super::shell::{self, ShellJob};
use super::trouble::{REFUSED, Trouble};
use super::work::Counting;
use crate::engine::{Engine, EngineBuilder, Pool};
use crate::job::Job;
use crate::jobs::{CheckReport, Jobs, JobsBuilder};
use crate::new_job::NewJob;

/// Longer than a command gets between TERM and KILL, so that only one that resists both is told of
/// as stuck.
const STUCK_GRACE: Duration = Duration::from_secs(15);

type Starts = dyn Fn(&Jobs, Setup) -> Result<Engine, Trouble>;
type Checks = dyn Fn(&Jobs) -> Result<CheckReport, Trouble>;
type NewJobs = dyn Fn(&Jobs, &str, &str) -> Result<Option<NewJob>, Trouble>;

/// What an app brings to the commands.
pub(super) struct App {
    /// How it is called: `legwork`, or `myapp jobs`.
    pub(super) program: String,
    /// The file, if the command line names none.
    pub(super) database: Option<PathBuf>,
    pub(super) settings: Box<dyn Fn(JobsBuilder) -> JobsBuilder>,
    start: Box<Starts>,
    check: Box<Checks>,
    /// Jobs of the kinds that it registers; `None`: it registers none.
    new_job: Option<Box<NewJobs>>,
}

/// What the command line asks of an engine.
pub(super) struct Setup {
    pub(super) shell: Arc<shell::Worker>,
    /// Instead of the app's; empty: the app's.
    pub(super) pools: Vec<Pool>,
    /// Instead of the app's.
    pub(super) crash_limit: Option<u32>,
    #[cfg(feature = "cron")]
    pub(super) no_cron: bool,
    pub(super) counting: Counting,
}

impl Default for App {
    /// The bare program: it runs shell jobs, and knows of other kinds what the file tells.
    fn default() -> App {
        App {
            program: super::BARE.to_owned(),
            database: None,
            settings: Box::new(|builder| builder),
            start: Box::new(|jobs, setup| {
                setup.start(Engine::builder(jobs).stuck_grace(STUCK_GRACE))
            }),
            check: Box::new(|jobs| {
                let mut report = jobs.check()?;
                // A worker knows them, whether one has run on this file or not.
                report.unknown.retain(|found| found.kind != ShellJob::KIND);
                report.crons.retain(|found| found.unknown_kind.as_deref() != Some(ShellJob::KIND));
                Ok(report)
            }),
            new_job: None,
        }
    }
}

impl App {
    /// The same commands with this engine.
    pub(super) fn with<S: Send + Sync + 'static>(
        self,
        engine: impl Fn(&Jobs) -> Result<EngineBuilder<S>, BoxError> + 'static,
    ) -> App {
        let engine = Arc::new(move |jobs: &Jobs| {
            engine(jobs).map_err(|error| {
                Trouble::new(REFUSED, format_args!("the program's engine: {error}"))
            })
        });
        let for_start = Arc::clone(&engine);
        // With all kinds that its workers run.
        let whole = Arc::new(move |jobs: &Jobs| -> Result<EngineBuilder<S>, Trouble> {
            let shell = Arc::new(shell::Worker::new(jobs.path()));
            Ok(engine(jobs)?.register_with::<ShellJob>(shell))
        });
        let for_check = Arc::clone(&whole);
        App {
            start: Box::new(move |jobs, setup| setup.start(for_start(jobs)?)),
            check: Box::new(move |jobs| Ok(for_check(jobs)?.check()?)),
            new_job: Some(Box::new(move |jobs, kind, args| Ok(whole(jobs)?.new_job(kind, args)?))),
            ..self
        }
    }

    /// What is said of `legwork`, of this program.
    pub(super) fn named(&self, text: impl fmt::Display) -> String {
        text.to_string().replace("`legwork ", &format!("`{} ", self.program))
    }

    /// Starts the engine.
    pub(super) fn start(&self, jobs: &Jobs, setup: Setup) -> Result<Engine, Trouble> {
        (self.start)(jobs, setup)
    }

    /// Whether it has kinds of its own.
    pub(super) fn has_kinds(&self) -> bool {
        self.new_job.is_some()
    }

    /// A job of a kind that it registers.
    pub(super) fn new_job(
        &self,
        jobs: &Jobs,
        kind: &str,
        args: &str,
    ) -> Result<Option<NewJob>, Trouble> {
        self.new_job.as_ref().map_or(Ok(None), |new_job| new_job(jobs, kind, args))
    }

    /// What waits that nobody could run.
    pub(super) fn check(&self, jobs: &Jobs) -> Result<CheckReport, Trouble> {
        (self.check)(jobs)
    }
}

impl Setup {
    fn start<S: Send + Sync + 'static>(self, engine: EngineBuilder<S>) -> Result<Engine, Trouble> {
        let mut engine = engine.register_with::<ShellJob>(self.shell).middleware(self.counting);
        if !self.pools.is_empty() {
            engine = engine.pools(self.pools);
        }
        if let Some(limit) = self.crash_limit {
            engine = engine.crash_limit(limit);
        }
        #[cfg(feature = "cron")]
        if self.no_cron {
            engine = engine.without_cron();
        }
        Ok(engine.start()?)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("program", &self.program).finish_non_exhaustive()
    }
}
