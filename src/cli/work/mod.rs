//! `legwork work`: runs jobs until it is stopped.

mod busy;
mod end;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use self::busy::Busy;
pub(super) use self::busy::Counting;
use super::app::Setup;
use super::globals::{self, Globals};
use super::shell::{self, Worker};
use super::trouble::{FAILED, SIGNALLED, TIMED_OUT, Trouble};
use super::{Done, ensure, times};
use crate::engine::{Engine, Pool};
use crate::error::Result;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::tally::Tally;

/// How long the last commands get to die.
const LAST: Duration = Duration::from_secs(2);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A pool: its queues in strict order, then its workers (high,default:2). `*` matches all,
    /// `mail*` a prefix, `-name` excludes. May be given several times; default: the program's own
    /// pools, or all queues.
    #[arg(short, long = "queues", value_name = "QUEUES[:WORKERS]", allow_hyphen_values = true, value_parser = Asked::parse)]
    queues: Vec<Asked>,
    /// Workers of each pool that names no number. Default: as many as there are cores. Without -q: of
    /// one pool for all queues.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Look for work only this often (5m, 1h), and then work until there is none left. Without -q: one
    /// pool for all queues.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    every: Option<Duration>,
    /// Fire no cron entries.
    #[cfg(feature = "cron")]
    #[arg(long)]
    no_cron: bool,
    /// Stop once nothing is ready, running or due (exit code 1 if a job has failed).
    #[arg(long)]
    until_empty: bool,
    /// Stop once nothing has run for this long (30s, 5m) and nothing is there to be started.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    idle_exit: Option<Duration>,
    /// Start no more jobs after N; with several workers a few more may have been claimed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_jobs: Option<u64>,
    /// Quarantine a job at the Nth death of its worker's process within 72 hours; 0: never.
    /// Default: the program's own limit, or 3.
    #[arg(long, value_name = "N")]
    crash_limit: Option<u32>,
    /// How long running jobs get after the first INT or TERM before they are given back.
    #[arg(long, value_name = "SPAN", value_parser = times::span, default_value = "30s")]
    pub(super) grace: Duration,
    /// Started by `--ensure-worker`.
    #[arg(long, hide = true)]
    ensured: bool,
    /// Say only what went wrong.
    // Here -q names queues.
    #[arg(long, help_heading = globals::HEADING)]
    quiet: bool,
}

/// What ends the work, or interrupts the wait for that.
enum Notice {
    /// INT, TERM or HUP.
    Signal(u8),
    /// TSTP: start no more jobs; CONT: start some again.
    Quiet(bool),
    /// USR1: say what every worker is doing.
    Tell,
    /// `--until-empty`.
    Empty(Result<()>),
    /// `--idle-exit`.
    Idle,
    /// `--max-jobs`.
    Enough,
    Stopped(Result<Vec<JobId>>),
    TimedOut,
    /// Nothing can be done any more: the file is gone, or legwork has panicked.
    Dead,
}

impl Arguments {
    /// Until there is nothing left to do.
    pub(super) fn drain(queues: &[Asked], workers: Option<u16>, grace: Duration) -> Arguments {
        Arguments {
            queues: queues.to_vec(),
            workers,
            every: None,
            #[cfg(feature = "cron")]
            no_cron: false,
            until_empty: true,
            idle_exit: None,
            max_jobs: None,
            crash_limit: None,
            grace,
            ensured: false,
            quiet: false,
        }
    }
}

/// How work has ended.
pub(super) struct Worked {
    pub(super) tally: Tally,
    /// Its time was over.
    pub(super) timed_out: bool,
    /// A signal has stopped it.
    pub(super) stopped: bool,
    /// The signal that has interrupted jobs.
    interrupted: Option<u8>,
}

impl Worked {
    pub(super) fn code(&self) -> ExitCode {
        match self.interrupted {
            Some(signal) => ExitCode::from(SIGNALLED + signal),
            None if self.timed_out => ExitCode::from(TIMED_OUT),
            None if !self.stopped && self.tally.failed > 0 => ExitCode::from(FAILED),
            None => ExitCode::SUCCESS,
        }
    }
}

/// Who looks on while jobs run.
pub(super) struct Watch<'a> {
    /// Is told how far it is; when to look again.
    pub(super) look: &'a mut dyn FnMut(Tally) -> Duration,
    /// When to stop, finished or not.
    pub(super) until: Option<Instant>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.create()?;
    Ok(work(globals, &jobs, arguments, None)?.code())
}

/// Runs jobs until something ends it.
pub(super) fn work(
    globals: &Globals,
    jobs: &Jobs,
    arguments: &Arguments,
    watch: Option<Watch<'_>>,
) -> Result<Worked, Trouble> {
    let (tell, told) = unbounded();
    // Before the engine: from its first moment on a signal stops it in an orderly way.
    let listening = signals::listen(tell.clone())?;
    if arguments.ensured {
        ensure::detach();
    }
    let ended = Work::start(globals, jobs, arguments, tell, told).and_then(|mut work| {
        if arguments.ensured {
            ensure::announce()?;
        }
        work.run(watch)
    });
    listening.close();
    ended
}

/// As many workers as a pool may be given here.
const MOST_WORKERS: usize = 1024;

/// A pool as it is typed: `high,default:2`.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    text: String,
    pub(super) queues: Vec<String>,
    workers: Option<usize>,
}

impl Asked {
    /// What follows the last colon is a number of workers, or part of a name if it is no number.
    pub(super) fn parse(text: &str) -> Result<Asked, String> {
        if text.starts_with("--") {
            return Err("an option is no queue; a queue that is left out is -name".to_owned());
        }
        let is_number = |count: &str| {
            count.strip_prefix('-').unwrap_or(count).bytes().all(|byte| byte.is_ascii_digit())
        };
        let (queues, workers) = match text.rsplit_once(':').filter(|(_, count)| is_number(count)) {
            None => (text, None),
            Some((queues, count)) => match count.parse() {
                Ok(workers @ 1..=MOST_WORKERS) => (queues, Some(workers)),
                _ => {
                    return Err(format!(
                        "{count:?} is no number of workers from 1 to {MOST_WORKERS}; after a queue's \
                         name that ends so write the number as well"
                    ));
                }
            },
        };
        let queues = queues.split(',').map(|queue| queue.trim().to_owned()).collect();
        Ok(Asked { text: text.to_owned(), queues, workers })
    }

    pub(super) fn serves(&self, queue: &str) -> bool {
        Pool::new(self.queues.clone()).serves(queue)
    }

    fn everything() -> Asked {
        Asked { text: "*".to_owned(), queues: vec!["*".to_owned()], workers: None }
    }

    /// With so many workers if it names no number, and no more than `most` in any case.
    fn pool(&self, workers: usize, most: usize) -> Pool {
        let workers = self.workers.unwrap_or(workers).min(most);
        Pool::new(self.queues.clone()).name(&self.text).workers(workers)
    }
}

/// The pools that were asked for; none: those of the program.
fn pools(arguments: &Arguments) -> Vec<Pool> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let workers = arguments.workers.map_or_else(cores, usize::from);
    // More would start more than may be.
    let most =
        arguments.max_jobs.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let is_asked = arguments.workers.is_some() || arguments.every.is_some() || most < usize::MAX;
    let everything = [Asked::everything()];
    let asked: &[Asked] = match arguments.queues.as_slice() {
        [] if is_asked => &everything,
        queues => queues,
    };
    let paced = |pool: Pool| match arguments.every {
        Some(every) => pool.every(every),
        None => pool,
    };
    asked.iter().map(|asked| paced(asked.pool(workers, most))).collect()
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
    /// A signal has told it to start no more jobs.
    held: bool,
    ensured: bool,
}

impl Work {
    fn start(
        globals: &Globals,
        jobs: &Jobs,
        arguments: &Arguments,
        tell: Sender<Notice>,
        told: Receiver<Notice>,
    ) -> Result<Work, Trouble> {
        shell::end_unwanted(jobs).wait_meanwhile();
        shell::sweep(jobs);
        let shell = Arc::new(Worker::new(jobs.path()));
        let busy = Arc::new(Busy::new(arguments.max_jobs, tell.clone()));
        let setup = Setup {
            shell: Arc::clone(&shell),
            pools: pools(arguments),
            crash_limit: arguments.crash_limit,
            #[cfg(feature = "cron")]
            no_cron: arguments.no_cron,
            counting: Counting(Arc::clone(&busy)),
        };
        let engine = globals.app.start(jobs, setup).map(Arc::new);
        busy.knows(engine.as_ref().ok());
        let engine = engine?;
        Ok(Work {
            engine,
            shell,
            busy,
            told,
            tell,
            idle_exit: arguments.idle_exit,
            until_empty: arguments.until_empty,
            grace: arguments.grace,
            held: false,
            ensured: arguments.ensured,
        })
    }

    fn run(&mut self, mut watch: Option<Watch<'_>>) -> Result<Worked, Trouble> {
        let (mut signal, mut timed_out) = (None, false);
        self.tell_when_dead();
        loop {
            if self.until_empty {
                self.tell_when_empty();
            }
            match self.wait(&mut watch) {
                Notice::Signal(number) => signal = Some(number),
                Notice::TimedOut => timed_out = true,
                Notice::Empty(done) => {
                    done?;
                    if !self.may_end_empty()? {
                        continue;
                    }
                }
                Notice::Idle if !self.may_end_idle()? => {
                    self.busy.begin_idle();
                    continue;
                }
                _ => {}
            }
            break;
        }
        let interrupted = self.stop(signal, timed_out)?;
        let tally = self.engine.tally();
        Ok(Worked { tally, timed_out, stopped: signal.is_some(), interrupted })
    }

    /// Whoever has started this process is to learn of it, and start another.
    fn tell_when_dead(&self) {
        let (ended, tell) = (self.engine.jobs().ended(), self.tell.clone());
        thread::spawn(move || {
            // It carries nothing: it closes.
            let _ = ended.recv();
            tell.send(Notice::Dead)
        });
    }

    fn tell_when_empty(&self) {
        let (engine, tell) = (Arc::clone(&self.engine), self.tell.clone());
        thread::spawn(move || {
            let done = engine.run_until_empty();
            drop(engine);
            tell.send(Notice::Empty(done))
        });
    }

    /// Waits for what ends the work.
    fn wait(&mut self, watch: &mut Option<Watch<'_>>) -> Notice {
        let mut look_at = watch.as_ref().map(|_| Instant::now());
        loop {
            if let Some(watch) = watch {
                if watch.until.is_some_and(|at| at <= Instant::now()) {
                    return Notice::TimedOut;
                }
                if look_at.is_some_and(|at| at <= Instant::now()) {
                    look_at = Instant::now().checked_add((watch.look)(self.engine.tally()));
                }
            }
            let until = watch.as_ref().and_then(|watch| watch.until);
            let alarm = look_at.into_iter().chain(until).min();
            let alarm = alarm.map(|at| at.saturating_duration_since(Instant::now()));
            let idle = self.idle_exit.map(|limit| self.busy.left(limit));
            let notice = match alarm.into_iter().chain(idle).min() {
                None => self.told.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => self.told.recv_timeout(wait),
            };
            match notice {
                Ok(Notice::Quiet(quiet)) => self.hold(quiet),
                Ok(Notice::Tell) => self.tell_what_it_does(),
                Ok(notice) => return notice,
                Err(RecvTimeoutError::Disconnected) => return Notice::Enough,
                Err(RecvTimeoutError::Timeout) => {
                    if self.idle_exit.is_some_and(|limit| self.busy.left(limit).is_zero()) {
                        return Notice::Idle;
                    }
                }
            }
        }
    }

    /// Stops in an orderly way, or at once after a second signal. The signal to answer with: jobs
    /// were interrupted for it. `over`: its time is, and running jobs get their grace.
    fn stop(&self, first: Option<u8>, over: bool) -> Result<Option<u8>, Trouble> {
        if first.is_some() {
            log::info!(
                "legwork: stopping once the running jobs are done; a second signal stops at once"
            );
        }
        let (engine, tell) = (Arc::clone(&self.engine), self.tell.clone());
        let grace = if first.is_some() || over { self.grace } else { Duration::MAX };
        // A signal must find this thread listening.
        thread::spawn(move || {
            let left = engine.stop(within(grace));
            // Whoever hears of it has the engine for himself: with his part it leaves the file.
            drop(engine);
            tell.send(Notice::Stopped(left))
        });
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
                Ok(Notice::Tell) => self.tell_what_it_does(),
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
