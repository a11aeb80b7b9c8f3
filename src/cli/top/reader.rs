//! The thread that reads the file, and changes it where its user has agreed to.
//!
//! It reads when the file has changed, which its metadata tell, and looks each time only whether the workers
//! live, whose deaths change no file. What takes long is done less often: after a reading there is a pause
//! of ten times as long as it took.

mod glance;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use time::OffsetDateTime;

use self::glance::{Glance, Standing};
use super::super::{list, queues, show};
use super::act::Action;
use super::keys::understood;
use super::model::{Failed, Running, Seen};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::record::{Filter, JobRecord, WorkerRecord};
use crate::state::State;

/// Rows of a panel of jobs: more than a terminal shows.
const ROWS: usize = 200;

/// A reading is followed by a pause of so many times the time it took.
const PAUSE: u32 = 10;

/// A file that is missing for longer does not come back.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// What the reader is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Read the jobs that match, from now on.
    Filter(String),
    /// Look no more, or again.
    Freeze(bool),
    Act(Action),
    Show(JobId),
    Stop,
}

/// What the reader tells.
#[derive(Debug)]
pub(super) enum Report {
    Seen(Box<Seen>),
    /// Reading failed; it is tried again.
    Trouble(String),
    /// The file is gone for good.
    Gone(String),
    Done(String),
    Refused(String),
    Shown(JobId, Vec<String>),
}

/// When an attempt failed, and why.
type Failure = (OffsetDateTime, String);

/// When something that may take long is to be done again.
#[derive(Default)]
struct Pace {
    not_before: Option<Instant>,
    /// The file has changed since.
    stale: bool,
}

impl Pace {
    fn is_due(&self) -> bool {
        self.stale && self.not_before.is_none_or(|at| at <= Instant::now())
    }

    fn done(&mut self, since: Instant) {
        let now = Instant::now();
        *self = Pace { not_before: Some(now + (now - since) * PAUSE), stale: false };
    }

    /// At the next look, whatever it has cost.
    fn hurry(&mut self) {
        *self = Pace { not_before: None, stale: true };
    }
}

pub(super) struct Reader<F> {
    jobs: Jobs,
    every: Duration,
    started: Instant,
    tell: F,
    filter: String,
    frozen: bool,
    glance: Glance,
    gone_since: Option<Instant>,
    counts: Pace,
    lists: Pace,
    seen: Seen,
    /// Of the jobs that will be tried again, by their attempts: it does not stand in their rows.
    failures: HashMap<(JobId, u32), Failure>,
}

impl<F: Fn(Report)> Reader<F> {
    pub(super) fn new(jobs: Jobs, every: Duration, started: Instant, tell: F) -> Reader<F> {
        let glance = Glance::of(jobs.path());
        let mut reader = Reader {
            jobs,
            every,
            started,
            tell,
            filter: String::new(),
            frozen: false,
            glance,
            gone_since: None,
            counts: Pace::default(),
            lists: Pace::default(),
            seen: Seen::default(),
            failures: HashMap::new(),
        };
        reader.hurry();
        reader
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let next = Instant::now() + self.every;
            if !self.frozen {
                self.look();
            }
            loop {
                match orders.recv_deadline(next) {
                    Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(order) => self.obey(order),
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    fn hurry(&mut self) {
        self.counts.hurry();
        self.lists.hurry();
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Filter(text) => {
                self.filter = text;
                self.lists.hurry();
            }
            Order::Freeze(true) => {
                self.frozen = true;
                return;
            }
            Order::Freeze(false) => self.frozen = false,
            Order::Act(action) => {
                (self.tell)(match action.apply(&self.jobs) {
                    Ok(done) => Report::Done(done),
                    Err(error) => Report::Refused(error.to_string()),
                });
                self.hurry();
            }
            Order::Show(id) => {
                (self.tell)(match show::lines(&self.jobs, id) {
                    Ok(lines) => Report::Shown(id, lines),
                    Err(error) => Report::Refused(error.to_string()),
                });
                return;
            }
            Order::Stop => return,
        }
        // A frozen view shows what it has done, and nothing else.
        self.look();
    }

    fn look(&mut self) {
        let glance = Glance::of(self.jobs.path());
        match glance.beside(&self.glance) {
            Standing::Gone(why) => return self.miss(why),
            Standing::Same => {}
            Standing::Changed => {
                self.counts.stale = true;
                self.lists.stale = true;
            }
        }
        (self.glance, self.gone_since) = (glance, None);
        let report = match self.read() {
            Ok(()) => Report::Seen(Box::new(self.seen.clone())),
            Err(error @ Error::Gone { .. }) => Report::Gone(error.to_string()),
            Err(error) => {
                self.hurry();
                Report::Trouble(error.to_string())
            }
        };
        (self.tell)(report);
    }

    /// It may be on its way back, as while somebody restores a backup.
    fn miss(&mut self, why: &str) {
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        let text = format!("{}: {why}", self.jobs.path().display());
        (self.tell)(match since.elapsed() > GONE_AFTER {
            true => Report::Gone(text),
            false => Report::Trouble(text),
        });
    }

    fn read(&mut self) -> Result<()> {
        let workers = self.jobs.workers()?;
        let live = || workers.iter().filter(|worker| worker.instance.alive);
        self.seen.processes = live().count();
        self.seen.workers = live().map(|worker| worker.instance.workers()).sum();
        self.seen.dead = workers.len() - self.seen.processes;
        if self.lists.is_due() {
            let since = Instant::now();
            self.read_jobs(&workers)?;
            self.lists.done(since);
        }
        if self.counts.is_due() {
            let since = Instant::now();
            self.count(&workers)?;
            self.counts.done(since);
        } else if !self.counts.stale {
            // Nothing has changed: it would be the same numbers.
            self.seen.counted_at = self.started.elapsed();
        }
        Ok(())
    }

    fn count(&mut self, workers: &[WorkerRecord]) -> Result<()> {
        let stats = self.jobs.stats()?;
        let instances: Vec<_> = workers.iter().map(|worker| worker.instance.clone()).collect();
        self.seen.read_at = self.started.elapsed();
        self.seen.counted_at = self.seen.read_at;
        self.seen.queues = queues::queues(&stats, &instances);
        self.seen.oldest_ready = stats.queues.values().filter_map(|queue| queue.oldest_ready).max();
        (self.seen.states, self.seen.paused) = (stats.states, stats.paused);
        Ok(())
    }

    fn read_jobs(&mut self, workers: &[WorkerRecord]) -> Result<()> {
        // Spans such as since:1h end now.
        let filter = understood(&self.filter, OffsetDateTime::now_utc()).unwrap_or_default();
        let running = self.jobs.list(&filter.clone().state(State::Running), None, ROWS)?.jobs;
        self.seen.running = running.into_iter().map(|job| as_running(job, workers)).collect();
        self.seen.running.sort_by_key(|job| job.started_at);
        self.read_failed(filter)
    }

    fn read_failed(&mut self, filter: Filter) -> Result<()> {
        let filter = filter.state(State::Failed).state(State::Retrying);
        let (mut failed, mut known) = (Vec::new(), HashMap::new());
        for job in self.jobs.list(&filter, None, ROWS)?.jobs {
            let (at, error) = match job.state {
                State::Retrying => {
                    let key = (job.id, job.attempts);
                    let failure = match self.failures.remove(&key) {
                        Some(failure) => failure,
                        None => self.last_failure(&job)?,
                    };
                    known.insert(key, failure.clone());
                    failure
                }
                _ => (job.finished_at.unwrap_or(job.run_at), job.reason.unwrap_or_default()),
            };
            failed.push(Failed { id: job.id, kind: job.kind, state: job.state, at, error });
        }
        failed.sort_by_key(|job| std::cmp::Reverse(job.at));
        (self.failures, self.seen.failed) = (known, failed);
        Ok(())
    }

    fn last_failure(&self, job: &JobRecord) -> Result<Failure> {
        let last = self.jobs.attempts(job.id)?.into_iter().rfind(|attempt| attempt.counted);
        Ok(last.map_or((job.enqueued_at, String::new()), |last| (last.ended_at, last.error)))
    }
}

fn as_running(job: JobRecord, workers: &[WorkerRecord]) -> Running {
    let has = |worker: &&WorkerRecord| worker.running.iter().any(|running| running.id == job.id);
    Running {
        id: job.id,
        about: list::about(&job),
        started_at: job.started_at.unwrap_or(job.run_at),
        attempt: job.attempts.saturating_add(1),
        process: workers.iter().find(has).map(|worker| worker.instance.pid),
        stopping: job.cancel_requested,
        progress: job.progress,
        kind: job.kind,
    }
}
