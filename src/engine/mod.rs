//! The running part: pools of worker threads in this process.

mod attempt;
mod builder;
mod check;
#[cfg(feature = "cron")]
mod cron;
mod empty;
mod gates;
mod hold;
mod manual;
mod pool;
mod registry;
mod supervisor;
mod worker;

use std::any::Any;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::builder::EngineBuilder;
use self::builder::Hook;
use self::gates::{Gates, Probe, Prober};
pub use self::hold::AtWork;
pub use self::manual::ManualEngine;
pub use self::pool::Pool;
use self::pool::{CheckedPool, RunningPool};
use self::registry::Registry;
use self::supervisor::{Bell, Supervisor, Watcher};
use self::worker::Live;
use crate::context::Attempt;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::JobId;
use crate::job::{Job, JobResult};
use crate::jobs::Jobs;
use crate::middleware::Middleware;
use crate::store::{InstanceId, InstanceLock, PoolSpec};
use crate::tally::{Tally, Tallying};

/// How long jobs that were asked to stop get before they are given up, beyond the grace.
const LITTLE: Duration = Duration::from_secs(1);

/// A running engine: pools of worker threads that run the jobs of one handle.
///
/// Stopped by [`stop`](Engine::stop), or with no grace when it is dropped.
pub struct Engine {
    core: Arc<Core>,
    supervisor: Mutex<Option<Watcher>>,
    prober: Mutex<Option<Prober>>,
}

/// What an engine and its threads share. Lives until the last of them is gone: a job that will
/// not stop keeps its claim and the process's lock with it.
pub(crate) struct Core {
    jobs: Jobs,
    instance: InstanceId,
    // Let go after the row is taken away; see `Drop`.
    _lock: Arc<InstanceLock>,
    registry: Registry,
    state: Arc<dyn Any + Send + Sync>,
    middleware: Vec<Arc<dyn Middleware>>,
    pools: Vec<Arc<RunningPool>>,
    slow_after: Option<Duration>,
    tally: Arc<Tallying>,
    supervisor: Supervisor,
    gates: Arc<Gates>,
    live: Live,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Attempts whose finish is void and whose thread is still at it.
    abandoned: Mutex<Vec<Arc<Attempt>>>,
    phase: AtomicU8,
    #[cfg(feature = "cron")]
    crons: cron::Crons,
    #[cfg(feature = "cron")]
    cron_thread: cron::thread::Thread,
    on_stopping: Vec<Hook>,
    on_stopped: Vec<Hook>,
}

/// What a builder sets beside pools and jobs.
pub(crate) struct Settings {
    middleware: Vec<Arc<dyn Middleware>>,
    slow_after: Option<Duration>,
    stuck_grace: Duration,
    crash_limit: u32,
    probes: Vec<Probe>,
    #[cfg(feature = "cron")]
    crons: Vec<cron::Planned>,
    #[cfg(feature = "cron")]
    cron_off: bool,
    on_started: Vec<Hook>,
    on_stopping: Vec<Hook>,
    on_stopped: Vec<Hook>,
}

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
const STOPPED: u8 = 2;

impl Engine {
    /// Puts an engine together.
    pub fn builder(jobs: &Jobs) -> EngineBuilder {
        EngineBuilder::new(jobs)
    }

    fn start<S: Any + Send + Sync>(
        jobs: Jobs,
        registry: Registry,
        state: Arc<S>,
        pools: Vec<CheckedPool>,
        settings: Settings,
    ) -> Result<Engine> {
        let on_started = settings.on_started.clone();
        let (core, bell) = Core::join(jobs, registry, state, pools, settings)?;
        let supervisor = Mutex::new(Some(supervisor::start(&core, bell)?));
        let engine = Engine { core, supervisor, prober: Mutex::new(None) };
        // Before the first claim.
        let prober = gates::start(&engine.core.gates, engine.jobs())?;
        *engine.prober.lock().unwrap_or_else(PoisonError::into_inner) = prober;
        for pool in &engine.core.pools {
            worker::start_missing(&engine.core, pool)?;
        }
        #[cfg(feature = "cron")]
        engine.core.serve_crons()?;
        log::info!(
            "legwork: engine {} started on {}",
            engine.core.instance,
            engine.jobs().path().display()
        );
        on_started.iter().for_each(|hook| hook());
        Ok(engine)
    }

    /// The handle it works on.
    pub fn jobs(&self) -> &Jobs {
        &self.core.jobs
    }

    /// The names of its pools, for [`resize`](Engine::resize).
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.core.pools.iter().map(|pool| pool.name.as_str())
    }

    /// The kinds that it runs, by name, former names included.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.core.registry.kinds().into_iter().collect();
        kinds.sort_unstable();
        kinds
    }

    /// How the attempts of this engine have ended so far.
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let engine = Engine::builder(&jobs).start()?;
    /// engine.run_until_empty()?;
    /// assert_eq!(engine.tally().failed, 0);
    /// # Ok(()) }
    /// ```
    pub fn tally(&self) -> Tally {
        self.core.tally.read()
    }

    /// Changes the number of a pool's workers while it runs. Workers that are one too many end
    /// after their current job. [`Jobs::workers`] tells the new number soon after.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no pool of that name; [`Error::Stopped`]; [`Error::Io`] if a
    /// thread cannot be started.
    pub fn resize(&self, pool: &str, workers: usize) -> Result<()> {
        if self.core.is_stopping() {
            return Err(Error::Stopped("the engine"));
        }
        let Some(pool) = self.core.pools.iter().find(|running| running.name == pool) else {
            return Err(Error::invalid("pool name", format!("there is no pool {pool:?}")));
        };
        let epoch = pool.resize(workers);
        // Those that wait for a job must look at the new number.
        self.jobs().store().unpark(pool.id, epoch)?;
        worker::start_missing(&self.core, pool)?;
        self.tell_pools()
    }

    /// Writes down how many workers its pools have now, for those who look.
    fn tell_pools(&self) -> Result<()> {
        let pools = self.core.pools.iter().map(|pool| pool.record()).collect();
        self.jobs().store().set_pools(self.core.instance, pools)
    }

    /// Runs a job at once in the calling thread, with the engine's state and middleware, without
    /// storing it.
    ///
    /// # Errors
    /// The job's failure. A job whose state is not the engine's fails with [`Error::Invalid`];
    /// use [`Jobs::perform_now`].
    pub fn perform_now<J: Job>(&self, job: &J) -> JobResult {
        let state = Arc::clone(&self.core.state)
            .downcast::<J::State>()
            .map_err(|_| Error::invalid("job", format!("{} has a state of its own", J::KIND)))?;
        self.jobs().perform_here(job, state, &self.core.middleware)
    }

    /// Stops: claims nothing more, waits up to `grace` for the jobs under way, then asks them to
    /// stop through their [`Context`](crate::Context), and waits a second more.
    ///
    /// Jobs that stopped when asked go back to their queue, the attempt uncounted. Returned are
    /// those that would not stop: a thread cannot be killed, so such a job stays claimed by this
    /// process until its thread or the process ends. Stopping again returns the same way.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Gone`]; the threads are stopped all the same.
    /// [`Error::Forked`]: the threads are those of the parent process.
    pub fn stop(&self, grace: Duration) -> Result<Vec<JobId>> {
        let core = &self.core;
        core.jobs.store().check_process()?;
        let was_running = core.phase.swap(STOPPING, Ordering::AcqRel) == RUNNING;
        if was_running {
            core.on_stopping.iter().for_each(|hook| hook());
        }
        core.gates.stop();
        #[cfg(feature = "cron")]
        core.cron_thread.stop(LITTLE);
        let mut told = Ok(());
        for pool in &core.pools {
            pool.close();
            told = told.and(self.jobs().store().close_pool(pool.id));
        }
        // It may take long to end what runs, and serves no queue meanwhile.
        if was_running && let Err(error) = self.tell_pools() {
            log::debug!("legwork: telling that it stops: {error}");
        }
        let asked_at = Instant::now();
        if !core.live.wait_for_none(grace) {
            for attempt in core.at_work() {
                attempt.signals.set(|asked| asked.stop = true);
            }
            let more = LITTLE.max(grace.saturating_sub(asked_at.elapsed()));
            core.live.wait_for_none(more);
        }
        core.join_ended();
        self.end_prober();
        self.end_supervisor();
        let left = core.at_work();
        for attempt in &left {
            log::warn!(job = attempt.id().0, kind = &*attempt.kind; "legwork: would not stop");
        }
        told.map(|()| left.iter().map(|attempt| attempt.id()).collect())
    }

    fn end_prober(&self) {
        let prober = self.prober.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(prober) = prober {
            prober.end(LITTLE);
        }
    }

    fn end_supervisor(&self) {
        let mut thread = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else { return };
        self.core.phase.store(STOPPED, Ordering::Release);
        self.core.supervisor.ring();
        thread.end(LITTLE);
        log::info!("legwork: engine {} stopped", self.core.instance);
        self.core.on_stopped.iter().for_each(|hook| hook());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.jobs().store().is_forked() {
            // The threads are the parent's; here there is none to let go of.
            std::mem::forget(self.supervisor.get_mut().map(Option::take));
            std::mem::forget(self.prober.get_mut().map(Option::take));
            #[cfg(feature = "cron")]
            self.core.cron_thread.forget();
            return;
        }
        if let Err(error) = self.stop(Duration::ZERO) {
            log::debug!("legwork: stopping: {error}");
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("instance", &self.core.instance).finish_non_exhaustive()
    }
}

impl Core {
    /// Registers this process, rescues what dead ones held, and opens the pools.
    fn join<S: Any + Send + Sync>(
        jobs: Jobs,
        registry: Registry,
        state: Arc<S>,
        pools: Vec<CheckedPool>,
        settings: Settings,
    ) -> Result<(Arc<Core>, Bell)> {
        #[cfg(feature = "cron")]
        let crons = cron::Crons::new(settings.crons, settings.cron_off)?;
        let lock = Arc::new(InstanceLock::create(jobs.path())?);
        let records = pools.iter().map(CheckedPool::record).collect();
        let joined =
            jobs.store().join(&lock, settings.crash_limit, registry.options()?, records)?;
        jobs.attempts_here().joined(joined.instance);
        // Before anything happens: those who listen hear it from the beginning.
        jobs.tell_ears();
        jobs.tell_taken(&joined.taken);
        let (supervisor, bell) = Supervisor::new(settings.stuck_grace);
        #[cfg(feature = "cron")]
        let cron_thread = cron::thread::Thread::new(supervisor.ringer());
        let mut core = Core {
            jobs,
            instance: joined.instance,
            _lock: lock,
            registry,
            state,
            middleware: settings.middleware,
            pools: Vec::new(),
            slow_after: settings.slow_after,
            tally: Arc::default(),
            supervisor,
            gates: Arc::new(Gates::new(settings.probes)),
            live: Live::default(),
            threads: Mutex::new(Vec::new()),
            abandoned: Mutex::new(Vec::new()),
            phase: AtomicU8::new(RUNNING),
            #[cfg(feature = "cron")]
            crons,
            #[cfg(feature = "cron")]
            cron_thread,
            on_stopping: settings.on_stopping,
            on_stopped: settings.on_stopped,
        };
        // Before the pools: with the first of them the writer looks at the entries.
        #[cfg(feature = "cron")]
        core.jobs.on_cron_change(core.cron_thread.bell());
        let kinds = Arc::new(core.registry.kinds());
        for pool in pools {
            let spec = PoolSpec {
                instance: core.instance,
                queues: pool.queues.clone(),
                kinds: Arc::clone(&kinds),
            };
            let (id, tray) = core.jobs.store().open_pool(spec)?;
            core.pools.push(Arc::new(RunningPool::new(id, tray, pool)));
        }
        #[cfg(feature = "cron")]
        core.crons.register(&core.jobs)?;
        Ok((Arc::new(core), bell))
    }

    /// Starts the thread that fires cron ticks, if there are any to fire.
    #[cfg(feature = "cron")]
    fn serve_crons(self: &Arc<Core>) -> Result<()> {
        let turned = Arc::downgrade(self);
        self.jobs.clock().on_turn(move || {
            if let Some(core) = turned.upgrade() {
                core.cron_thread.ring();
            }
        });
        if self.crons.has_own() {
            self.cron_thread.ring();
        }
        self.cron_thread.start_if_rung(self)
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<Arc<Attempt>>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempts whose threads are at work, abandoned ones included.
    fn at_work(&self) -> Vec<Arc<Attempt>> {
        let mut attempts = self.jobs.attempts_here().of(self.instance);
        // The end of one that has ended may still be on its way into the file.
        attempts.retain(|attempt| !attempt.signals.get().ended);
        attempts.extend(self.abandoned().iter().cloned());
        attempts
    }

    /// Takes a worker's thread into the list of those to be joined.
    fn keep_thread(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Joins the workers that have ended, or, if all are about to, all; the others are left alone.
    fn join_ended(&self) {
        let all = self.live.wait_for_none(Duration::ZERO);
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if (all || thread.is_finished()) && thread.join().is_err() {
                log::error!("legwork: a worker thread had panicked");
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Acquire) != RUNNING
    }

    fn is_stopped(&self) -> bool {
        self.phase.load(Ordering::Acquire) == STOPPED
    }
}

impl Drop for Core {
    /// The last thread is gone: the process no longer takes part.
    fn drop(&mut self) {
        if self.jobs.store().is_forked() {
            return;
        }
        for pool in &self.pools {
            // Closed already if the engine was stopped; a manual engine closes them here.
            let _ = self.jobs.store().close_pool(pool.id);
        }
        self.jobs.attempts_here().left(self.instance);
        match self.jobs.store().leave(self.instance) {
            Ok(held) => {
                for id in held {
                    self.jobs.tell(|| Event::Rescued { id });
                }
            }
            // The row stays and is found dead by its lock.
            Err(error) => log::debug!("legwork: leaving: {error}"),
        }
    }
}
