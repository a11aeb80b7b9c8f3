//! `legwork work`: runs shell jobs until it is stopped.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::globals::Globals;
use super::shell::{self, ShellJob, Worker};
use super::trouble::{DATABASE, FAILED, SIGNALLED, Trouble};
use super::{Done, times};
use crate::engine::{Engine, Pool};
use crate::error::Result;
use crate::id::JobId;
use crate::job::JobResult;
use crate::jobs::Jobs;
use crate::middleware::{Middleware, Next, Running};

/// Longer than a command gets between TERM and KILL, so that only one that resists both is told of
/// as stuck.
const STUCK_GRACE: Duration = Duration::from_secs(15);
/// How long the last commands get to die.
const LAST: Duration = Duration::from_secs(2);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A pool: its queues in strict order, then its workers (high,default:2). `*` matches all,
    /// `mail*` a prefix, `-name` excludes. May be given several times; default: all queues.
    #[arg(short, long = "queues", value_name = "QUEUES[:WORKERS]", allow_hyphen_values = true)]
    queues: Vec<String>,
    /// Workers of each pool that names no number. Default: as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Look for work only this often, and then work until there is none left.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    every: Option<Duration>,
    /// Fire no cron entries.
    #[cfg(feature = "cron")]
    #[arg(long)]
    no_cron: bool,
    /// Stop once nothing is ready, running or due (exit code 1 if a job has failed).
    #[arg(long)]
    until_empty: bool,
    /// Stop once nothing has run for this long.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    idle_exit: Option<Duration>,
    /// Start no more jobs after N; with several workers a few more may have been claimed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_jobs: Option<u64>,
    /// Quarantine a job at the Nth death of its worker's process within 24 hours; 0: never.
    #[arg(long, value_name = "N", default_value_t = 3)]
    crash_limit: u32,
    /// How long running jobs get after the first INT or TERM before they are given back.
    #[arg(long, value_name = "SPAN", value_parser = times::span, default_value = "30s")]
    pub(super) grace: Duration,
    /// Say only what went wrong.
    // Here -q names queues.
    #[arg(long)]
    quiet: bool,
}

/// What ends the work.
enum Notice {
    Signal(u8),
    /// `--until-empty`.
    Empty(Result<()>),
    /// `--max-jobs`.
    Enough,
    Stopped(Result<Vec<JobId>>),
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.create()?;
    let (tell, told) = unbounded();
    // Before the engine: from its first moment on a signal stops it in an orderly way.
    let listening = listen(tell.clone())?;
    let ended = Work::start(&jobs, arguments, tell, told).and_then(|work| work.run());
    listening.close();
    ended
}

/// Passes INT and TERM on.
fn listen(tell: Sender<Notice>) -> Result<signal_hook::iterator::Handle, Trouble> {
    let failed = |error| Trouble::new(DATABASE, format_args!("listening to signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();
    thread::Builder::new()
        .name("legwork-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                // Nobody listens any more: the work has ended.
                let _ = tell.send(Notice::Signal(u8::try_from(signal).unwrap_or_default()));
            }
        })
        .map_err(failed)?;
    Ok(handle)
}

/// A pool as it was asked for.
struct Asked {
    name: String,
    queues: Vec<String>,
    workers: usize,
}

/// `high,default:2`. What follows the last colon is a number of workers or part of a name.
fn asked(text: &str, workers: usize) -> Asked {
    let number = |text: &str| text.parse::<u16>().ok().map(usize::from);
    let (queues, workers) = match text.rsplit_once(':') {
        Some((queues, count)) if number(count).is_some() => {
            (queues, number(count).unwrap_or(workers))
        }
        _ => (text, workers),
    };
    let queues = queues.split(',').map(|queue| queue.trim().to_owned()).collect();
    Asked { name: text.to_owned(), queues, workers }
}

fn pools(arguments: &Arguments) -> Vec<Asked> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let workers = arguments.workers.map_or_else(cores, usize::from);
    let mut pools: Vec<Asked> = arguments.queues.iter().map(|text| asked(text, workers)).collect();
    if pools.is_empty() {
        pools.push(asked("*", workers));
    }
    if let Some(most) = arguments.max_jobs {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        pools.iter_mut().for_each(|pool| pool.workers = pool.workers.min(most));
    }
    pools
}

struct Work {
    engine: Arc<Engine>,
    shell: Arc<Worker>,
    busy: Arc<Busy>,
    told: Receiver<Notice>,
    tell: Sender<Notice>,
    idle_exit: Option<Duration>,
    until_empty: bool,
    grace: Duration,
}

impl Work {
    fn start(
        jobs: &Jobs,
        arguments: &Arguments,
        tell: Sender<Notice>,
        told: Receiver<Notice>,
    ) -> Result<Work, Trouble> {
        shell::sweep(jobs);
        let shell = Arc::new(Worker::new(jobs.path()));
        let pools = pools(arguments);
        let names = pools.iter().map(|pool| pool.name.clone()).collect();
        let busy = Arc::new(Busy::new(arguments.max_jobs, names, tell.clone()));
        let mut builder = Engine::builder(jobs)
            .state(Arc::clone(&shell))
            .register::<ShellJob>()
            .middleware(Counting(Arc::clone(&busy)))
            .stuck_grace(STUCK_GRACE)
            .crash_limit(arguments.crash_limit);
        #[cfg(feature = "cron")]
        if arguments.no_cron {
            builder = builder.without_cron();
        }
        for asked in &pools {
            // None before the engine is known where jobs are counted.
            let mut pool = Pool::new(asked.queues.clone()).name(&asked.name).workers(0);
            if let Some(every) = arguments.every {
                pool = pool.every(every);
            }
            builder = builder.pool(pool);
        }
        let engine = Arc::new(builder.start()?);
        busy.knows(&engine);
        for pool in &pools {
            engine.resize(&pool.name, pool.workers)?;
        }
        Ok(Work {
            engine,
            shell,
            busy,
            told,
            tell,
            idle_exit: arguments.idle_exit,
            until_empty: arguments.until_empty,
            grace: arguments.grace,
        })
    }

    fn run(self) -> Done {
        if self.until_empty {
            let (engine, tell) = (Arc::clone(&self.engine), self.tell.clone());
            thread::spawn(move || tell.send(Notice::Empty(engine.run_until_empty())));
        }
        let signal = match self.wait() {
            Notice::Signal(signal) => Some(signal),
            Notice::Empty(done) => {
                done?;
                None
            }
            Notice::Enough | Notice::Stopped(_) => None,
        };
        let stopped = self.stop(signal)?;
        match stopped {
            Some(signal) => Ok(ExitCode::from(SIGNALLED + signal)),
            None if signal.is_none() && self.shell.gave_up() > 0 => Ok(ExitCode::from(FAILED)),
            None => Ok(ExitCode::SUCCESS),
        }
    }

    /// Waits for what ends the work.
    fn wait(&self) -> Notice {
        loop {
            let notice = match self.idle_exit {
                None => self.told.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(limit) => self.told.recv_timeout(self.busy.left(limit)),
            };
            match notice {
                Ok(notice) => return notice,
                Err(RecvTimeoutError::Disconnected) => return Notice::Enough,
                Err(RecvTimeoutError::Timeout) => {
                    if self.idle_exit.is_some_and(|limit| self.busy.left(limit).is_zero()) {
                        return Notice::Enough;
                    }
                }
            }
        }
    }

    /// Stops in an orderly way, or at once after a second signal. The signal to answer with: jobs
    /// were interrupted for it.
    fn stop(&self, first: Option<u8>) -> Result<Option<u8>, Trouble> {
        if first.is_some() {
            log::info!(
                "legwork: stopping once the running jobs are done; a second signal stops at once"
            );
        }
        let (engine, tell) = (Arc::clone(&self.engine), self.tell.clone());
        let grace = if first.is_some() { self.grace } else { Duration::MAX };
        // A signal must find this thread listening.
        thread::spawn(move || tell.send(Notice::Stopped(engine.stop(within(grace)))));
        let mut signal = first;
        let mut left = loop {
            match self.told.recv() {
                Ok(Notice::Stopped(left)) => break left?,
                Ok(Notice::Signal(again)) if signal.is_some() => {
                    signal = Some(again);
                    self.shell.hurry();
                    break self.engine.stop(Duration::ZERO)?;
                }
                Ok(Notice::Signal(again)) => signal = Some(again),
                Ok(_) => {}
                Err(_) => break Vec::new(),
            }
        };
        if !left.is_empty() {
            self.shell.hurry();
            left = self.engine.stop(LAST)?;
        }
        for id in &left {
            log::warn!("legwork: job {id} does not stop");
        }
        Ok(signal.filter(|_| !left.is_empty() || self.shell.given_back() > 0))
    }
}

/// A grace that the clocks can count.
fn within(grace: Duration) -> Duration {
    grace.min(Duration::from_secs(365 * 86_400))
}

/// What runs at the moment, since when nothing has, and how much has been started.
struct Busy {
    now: Mutex<Now>,
    started: AtomicU64,
    most: Option<u64>,
    pools: Vec<String>,
    engine: OnceLock<Weak<Engine>>,
    tell: Sender<Notice>,
}

struct Now {
    running: usize,
    idle_since: Instant,
}

impl Busy {
    fn new(most: Option<u64>, pools: Vec<String>, tell: Sender<Notice>) -> Busy {
        Busy {
            now: Mutex::new(Now { running: 0, idle_since: Instant::now() }),
            started: AtomicU64::new(0),
            most,
            pools,
            engine: OnceLock::new(),
            tell,
        }
    }

    fn knows(&self, engine: &Arc<Engine>) {
        let _ = self.engine.set(Arc::downgrade(engine));
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is left of an idle time; all of it while something runs.
    fn left(&self, limit: Duration) -> Duration {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.running > 0 { limit } else { limit.saturating_sub(now.idle_since.elapsed()) }
    }

    fn begin(&self) {
        self.change(|now| now.running += 1);
        if self.most == Some(self.started.fetch_add(1, Ordering::AcqRel) + 1) {
            self.let_go();
        }
    }

    /// Claims nothing more: this very worker ends after its job.
    fn let_go(&self) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        for pool in &self.pools {
            if let Err(error) = engine.resize(pool, 0) {
                log::debug!("legwork: {pool}: {error}");
            }
        }
        let _ = self.tell.send(Notice::Enough);
    }

    fn end(&self) {
        self.change(|now| {
            now.running -= 1;
            now.idle_since = Instant::now();
        });
    }
}

/// Counts every attempt.
struct Counting(Arc<Busy>);

impl Middleware for Counting {
    fn call(&self, _: &Running<'_>, next: Next<'_>) -> JobResult {
        self.0.begin();
        let _ends = Ends(&self.0);
        next.run()
    }
}

struct Ends<'a>(&'a Busy);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
