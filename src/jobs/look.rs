//! Looking: one job, lists, counts, statistics, waiting, events, health.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::event::Events;
use crate::id::JobId;
use crate::record::{
    AttemptRecord, Backlog, FailureGroup, Filter, Health, InstanceRecord, JobRecord, LogLine, Page,
    Stats, StepRecord, WorkerRecord,
};

use super::{Jobs, lock};
#[cfg(doc)]
use crate::context::Context;

/// How often to look for an end that no engine of this process tells.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Jobs {
    /// One job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get(&self, id: JobId) -> Result<JobRecord> {
        self.0.store.get(id)?.ok_or(Error::NotFound(id))
    }

    /// A page of the jobs that match, newest first: at most `limit` (1 to 10,000) with ids below
    /// `before`.
    ///
    /// ```
    /// # use legwork::{Filter, Jobs, State};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let failed = Filter::new().state(State::Failed);
    /// let mut before = None;
    /// loop {
    ///     let page = jobs.list(&failed, before, 100)?;
    ///     for job in &page.jobs {
    ///         println!("{} {} {:?}", job.id, job.kind, job.reason);
    ///     }
    ///     before = page.next;
    ///     if before.is_none() { break }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// It costs what lies between the first and the last job of the page: a page of common jobs is there at
    /// once, one of rare jobs may take a tenth of a second for each million jobs in the file.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a filter that is too large; those of reading.
    pub fn list(&self, filter: &Filter, before: Option<JobId>, limit: usize) -> Result<Page> {
        filter.check()?;
        self.0.store.list(filter, before, limit)
    }

    /// How many jobs match. Reads them all: for exact numbers, not for every second.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a filter that is too large; those of reading.
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        filter.check()?;
        self.0.store.count(filter)
    }

    /// Counts by state and queue, and how fast each kind runs.
    ///
    /// # Errors
    /// Those of reading.
    pub fn stats(&self) -> Result<Stats> {
        self.0.store.stats()
    }

    /// What is ready, by queue and kind: what waits for a worker and for nothing else, unless it is
    /// [paused](Backlog::paused). Quicker than [`stats`](Jobs::stats), for a probe.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// jobs.enqueue(NewJob::of_kind("mail", serde_json::json!({})).queue("high"))?;
    /// let waits = &jobs.backlog()?[0];
    /// assert_eq!((&*waits.queue, &*waits.kind, waits.ready), ("high", "mail", 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading.
    pub fn backlog(&self) -> Result<Vec<Backlog>> {
        self.0.store.backlog()
    }

    /// How the jobs that match have failed: those that gave up, grouped by their kind and by what their
    /// errors have in common, the most frequent first, at most `limit` groups. If the filter names states
    /// only `failed` and `retrying` count; of a retrying job it is its last failed attempt.
    ///
    /// It reads all failed jobs that match, some at a time, by their index. 5,000 groups are told apart; what
    /// is like none of them is counted by its kind alone.
    ///
    /// ```
    /// # use legwork::{Filter, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let hour = jobs.clock().now() - time::Duration::HOUR;
    /// for group in jobs.failures(&Filter::new().failed_since(hour), 20)? {
    ///     println!("{} x {}: {}", group.count, group.kind, group.error);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a filter that is too large; those of reading.
    pub fn failures(&self, filter: &Filter, limit: usize) -> Result<Vec<FailureGroup>> {
        filter.check()?;
        self.0.store.failures(filter, limit)
    }

    /// The attempts of a job that did not complete it, oldest first; the last 100 are kept.
    ///
    /// # Errors
    /// Those of reading.
    pub fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>> {
        self.0.store.attempts(id)
    }

    /// The lines that a job wrote with [`Context::log`], oldest first.
    ///
    /// # Errors
    /// Those of reading.
    pub fn logs(&self, id: JobId) -> Result<Vec<LogLine>> {
        self.logs_after(id, 0)
    }

    /// The same, those alone whose [`number`](LogLine::number) is larger than `number`: for following a
    /// job while it writes.
    ///
    /// ```
    /// # use legwork::{JobId, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// # let (id, mut seen) = (JobId(1), 0);
    /// for line in jobs.logs_after(id, seen)? {
    ///     println!("{}", line.line);
    ///     seen = seen.max(line.number);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading.
    pub fn logs_after(&self, id: JobId, number: i64) -> Result<Vec<LogLine>> {
        self.0.store.logs(id, number)
    }

    /// What is stored of a job's [steps](Context::step) and [cursors](Context::cursor), in the order in
    /// which it comes to them. They go when it completes.
    ///
    /// # Errors
    /// Those of reading.
    pub fn steps(&self, id: JobId) -> Result<Vec<StepRecord>> {
        self.0.store.steps(id)
    }

    /// What a completed job has put out with [`Context::output`]; `None` if nothing, or not yet.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Json`] if it does not fit `T`.
    pub fn output<T: DeserializeOwned>(&self, id: JobId) -> Result<Option<T>> {
        match self.get(id)?.output {
            None => Ok(None),
            Some(json) => serde_json::from_str(&json)
                .map(Some)
                .map_err(|source| Error::Json { what: "output", source }),
        }
    }

    /// Waits until the job is finished, wherever it runs, and returns it.
    ///
    /// In a process that alone runs the jobs of this file it does not poll: its engine tells when
    /// the end is recorded. While other processes run jobs too, or no engine runs here, it looks
    /// each 100 ms as well.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it is not finished within `timeout` of real time;
    /// [`Error::NotFound`], also if it was deleted meanwhile; [`Error::Poisoned`].
    pub fn wait(&self, id: JobId, timeout: Duration) -> Result<JobRecord> {
        self.0.store.check_process()?;
        let started = Instant::now();
        loop {
            let watch = self.0.store.watch(id);
            let job = match self.get(id) {
                Ok(job) if !job.state.is_finished() => job,
                done => {
                    self.0.store.leave_watch(watch);
                    return done;
                }
            };
            // After the watch has begun: whoever joins later rings, which ends it.
            let instances = match self.0.store.instance_numbers() {
                Ok(instances) => instances,
                Err(error) => {
                    self.0.store.leave_watch(watch);
                    return Err(error);
                }
            };
            let left = timeout.saturating_sub(started.elapsed());
            let alone = self.0.shared.attempts.are_ours(&instances);
            let _ = watch.told.recv_timeout(if alone { left } else { left.min(LOOK_EVERY) });
            self.0.store.leave_watch(watch);
            let waited = started.elapsed();
            if waited >= timeout && !self.get(id)?.state.is_finished() {
                return Err(Error::Timeout { id, waited, state: job.state });
            }
        }
    }

    /// The engines that run jobs of this file, in all processes, each with whether its process
    /// lives. Those that are dead are there until an engine takes over what they held.
    ///
    /// To tell, it tries the lock of each for a moment; it waits for nobody and writes nothing.
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// # let engine = Engine::builder(&jobs).start()?;
    /// for instance in jobs.instances()?.iter().filter(|instance| instance.alive) {
    ///     println!("process {} since {}", instance.pid, instance.started_at);
    /// }
    /// # assert!(jobs.instances()?[0].alive);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading.
    pub fn instances(&self) -> Result<Vec<InstanceRecord>> {
        self.0.store.instances()
    }

    /// As [`instances`](Jobs::instances), each with the jobs that it runs. A dead one still holds what it
    /// had in hand when it died.
    ///
    /// ```
    /// # use legwork::{Engine, Jobs, Pool};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// # let engine = Engine::builder(&jobs).pool(Pool::new(["mail"]).workers(2)).start()?;
    /// for worker in jobs.workers()? {
    ///     for job in &worker.running {
    ///         println!("{}: {} since {}", worker.instance.pid, job.kind, job.started_at);
    ///     }
    /// }
    /// assert!(jobs.workers()?[0].instance.serves("mail"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading.
    pub fn workers(&self) -> Result<Vec<WorkerRecord>> {
        self.0.store.workers()
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        self.0.shared.events.subscribe()
    }

    /// What a health probe wants to know, in one call.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the handle is dead; those of reading.
    pub fn health(&self) -> Result<Health> {
        let oldest_ready = self.0.store.oldest_ready()?;
        let shared = &self.0.shared;
        Ok(Health {
            workers: shared.workers.load(Ordering::Acquire),
            running: shared.attempts.count(),
            oldest_ready,
            last_error: lock(&shared.trouble).clone(),
        })
    }
}
