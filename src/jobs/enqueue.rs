//! Enqueueing: alone, in bulk, in the app's own transaction, or performed at once.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::context::{Attempt, Context, Said, Signals};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::JobId;
use crate::job::{Job, JobResult};
use crate::middleware::Middleware;
use crate::new_job::{NewJob, NewRow};
use crate::perform;
use crate::unique::Enqueued;

use super::Jobs;
#[cfg(doc)]
use crate::store::Durability;

thread_local! {
    /// The files inside whose `transaction` this thread is.
    static IN_TRANSACTION: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
}

impl Jobs {
    /// Enqueues a job. When it returns, the job is committed, and durable as far as the
    /// [`Durability`] says. If its unique key is taken the id is that of the job that has it;
    /// [`enqueue_each`](Jobs::enqueue_each) tells which it was.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, start time or policy; [`Error::NotUnique`] if another job
    /// has its unique key and it was to be refused then; [`Error::Busy`] if the write lock
    /// was not free in time (the job will not appear later); [`Error::InTransaction`] inside
    /// [`transaction`](Jobs::transaction); [`Error::Full`], [`Error::Io`].
    pub fn enqueue(&self, job: impl Into<NewJob>) -> Result<JobId> {
        self.refuse_inside_transaction("enqueue")?;
        let done = self.insert(vec![self.prepare(job.into())?])?;
        done.first().map(Enqueued::id).ok_or(Error::Poisoned)
    }

    /// Enqueues all jobs in one transaction, all or none. Ids come in the order of the jobs; where a
    /// unique key was taken it is that of the job that has it.
    ///
    /// # Errors
    /// As [`enqueue`](Jobs::enqueue); if any job is refused none is enqueued.
    /// [`enqueue_each`](Jobs::enqueue_each) tells what became of each instead.
    pub fn enqueue_many<J: Into<NewJob>>(
        &self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<JobId>> {
        self.refuse_inside_transaction("enqueue_many")?;
        let rows = self.prepare_all(jobs)?;
        Ok(self.insert(rows)?.iter().map(Enqueued::id).collect())
    }

    /// Enqueues all jobs in one transaction and tells what became of each whose unique key was
    /// taken. A job that is refused for that ([`Conflict::Reject`](crate::Conflict::Reject)) stops none of the others.
    ///
    /// # Errors
    /// As [`enqueue`](Jobs::enqueue), save [`Error::NotUnique`]; then none is enqueued.
    pub fn enqueue_each<J: Into<NewJob>>(
        &self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<Enqueued>> {
        self.refuse_inside_transaction("enqueue_each")?;
        let mut rows = self.prepare_all(jobs)?;
        rows.iter_mut().for_each(NewRow::report_conflict);
        self.insert(rows)
    }

    fn prepare_all<J: Into<NewJob>>(
        &self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<NewRow>> {
        jobs.into_iter().map(|job| self.prepare(job.into())).collect()
    }

    pub(super) fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<Enqueued>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        // Names for the events and log lines, if anybody wants them.
        let told = self.0.shared.events.is_watched() || log::log_enabled!(log::Level::Debug);
        let names: Vec<(String, String)> = if told {
            rows.iter().map(|row| (row.kind.clone(), row.queue.clone())).collect()
        } else {
            Vec::new()
        };
        let done = self.0.store.insert(rows)?;
        for (&done, names) in done.iter().zip(names) {
            self.tell_inserted(done, || names);
        }
        Ok(done)
    }

    /// Tells of a job that was inserted, or refused.
    pub(crate) fn tell_inserted(&self, done: Enqueued, names: impl FnOnce() -> (String, String)) {
        match done {
            Enqueued::New(id) => {
                let (kind, queue) = names();
                self.tell_enqueued(id, kind, queue);
            }
            Enqueued::Rejected { holder } => {
                let (kind, _) = names();
                log::warn!(kind = kind.as_str(); "legwork: not enqueued: job {holder} has its unique key");
                self.tell(|| Event::NotUnique { holder, kind });
            }
            Enqueued::Replaced(id) => {
                let (kind, queue) = names();
                log::debug!(job = id.0, kind = kind.as_str(), queue = queue.as_str(); "legwork: replaced");
                self.tell(|| Event::Replaced { id, kind, queue });
            }
            Enqueued::Existing(_) => {}
        }
    }

    pub(crate) fn tell_enqueued(&self, id: JobId, kind: String, queue: String) {
        log::debug!(job = id.0, kind = kind.as_str(), queue = queue.as_str(); "legwork: enqueued");
        self.tell(|| Event::Enqueued { id, kind, queue });
    }

    /// Checks a job and fixes its times.
    pub(crate) fn prepare(&self, job: NewJob) -> Result<NewRow> {
        self.looked_at(job)?.into_row(self.clock().micros(), self.0.max_args)
    }

    /// The job as the middleware for enqueues leaves it.
    pub(crate) fn looked_at(&self, job: NewJob) -> Result<NewJob> {
        self.0.on_enqueue.iter().try_fold(job, |job, look| look(job))
    }

    /// Enqueues a job on the app's own connection to the same file, in its open transaction: the
    /// job exists if and only if that commits, and starts soon after. Without an open transaction
    /// it is committed when this returns.
    ///
    /// Its durability is that connection's (`PRAGMA synchronous`, FULL by default). The
    /// transaction should be `IMMEDIATE`; a deferred one can fail with [`Error::Busy`] here,
    /// whatever its busy time-out. It inserts rows, so it changes the connection's
    /// `last_insert_rowid`: read that before.
    ///
    /// # Errors
    /// [`Error::Foreign`] if the connection is open on another file; [`Error::Invalid`];
    /// [`Error::Busy`]. The app's transaction stays open, without the job.
    pub fn enqueue_in(&self, conn: &Connection, job: impl Into<NewJob>) -> Result<JobId> {
        let row = self.prepare(job.into())?;
        self.0.store.insert_in(conn, &row).map(|done| done.id())
    }

    /// Runs `work` in an immediate transaction on the app's connection and commits it if it
    /// returns `Ok`; jobs enqueued in it with [`enqueue_in`](Jobs::enqueue_in) start at once.
    /// Inside, the plain verbs are refused with [`Error::InTransaction`], since they would wait
    /// for this very transaction.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("app.db");
    /// # let jobs = Jobs::open(&path)?;
    /// let mut conn = rusqlite::Connection::open(&path)?;
    /// conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)")?;
    /// let order = jobs.transaction(&mut conn, |tx| {
    ///     tx.execute("INSERT INTO orders (total) VALUES (?1)", [1999])?;
    ///     let order = tx.last_insert_rowid();
    ///     jobs.enqueue_in(tx, NewJob::of_kind("receipt", serde_json::json!({ "order": order })))?;
    ///     Ok::<_, Box<dyn std::error::Error>>(order)
    /// })?;
    /// # assert_eq!(order, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of `work`, or of the transaction itself; nothing was committed then. The exception is
    /// [`Error::OutcomeUnknown`]: an I/O error struck at the commit.
    pub fn transaction<T, E: From<Error>>(
        &self,
        conn: &mut Connection,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.refuse_inside_transaction("transaction")?;
        self.store().check_alive()?;
        let sqlite = |error| E::from(crate::store::app_error(error));
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let inside = Inside::enter(self.path());
        let done = work(&tx)?;
        drop(inside);
        tx.commit().map_err(|error| E::from(crate::store::app_commit_error(error)))?;
        // Committed is committed, even if the writer has died meanwhile.
        let _ = self.wake();
        Ok(done)
    }

    pub(crate) fn refuse_inside_transaction(&self, verb: &'static str) -> Result<()> {
        let inside =
            IN_TRANSACTION.with_borrow(|files| files.iter().any(|file| file == self.path()));
        if inside { Err(Error::InTransaction { verb }) } else { Ok(()) }
    }

    /// Makes the engines of this process look for new work in the file now. Needed only after other programs
    /// have written to the file with plain SQL.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Gone`], [`Error::Forked`].
    pub fn wake(&self) -> Result<()> {
        self.0.store.look()
    }

    /// Runs a job at once in the calling thread, through the handle's middleware, without storing
    /// it. Its panic is a failure too. An engine's own state and middleware:
    /// [`Engine::perform_now`](crate::Engine::perform_now).
    ///
    /// # Errors
    /// The job's failure; there is no retry.
    pub fn perform_now<J: Job>(&self, job: &J, state: J::State) -> JobResult {
        self.perform_here(job, Arc::new(state), self.middleware())
    }

    pub(crate) fn perform_here<J: Job>(
        &self,
        job: &J,
        state: Arc<J::State>,
        chain: &[Arc<dyn Middleware>],
    ) -> JobResult {
        let options = J::options();
        let args = serde_json::to_string(job)?;
        let attempt = Arc::new(Attempt {
            jobs: self.clone(),
            claim: None,
            unique: None,
            limits: None,
            flow: None,
            had_steps: false,
            kind: Arc::from(J::KIND),
            queue: Arc::from(options.queue.as_deref().unwrap_or(crate::new_job::DEFAULT_QUEUE)),
            number: 1,
            meta: std::collections::BTreeMap::new(),
            worker: Arc::from("perform_now"),
            args,
            first_started_at: self.clock().micros(),
            started_at: self.clock().micros(),
            tally: Arc::default(),
            slow_after: None,
            started_awake: self.clock().awake(),
            timeout: options.timeout,
            overdue: options.overdue,
            retry: None,
            attempts: None,
            keep: None,
            signals: Signals::default(),
            said: Mutex::new(Said::default()),
            steps: Mutex::default(),
            settle: AtomicBool::new(false),
        });
        let cx = Context::new(Arc::clone(&attempt), state);
        let result = perform::perform(&attempt, &attempt.args, chain, &|| job.perform(&cx));
        if matches!(result, Ok(crate::job::Outcome::Done)) {
            let children = std::mem::take(&mut attempt.said().children);
            if !children.is_empty() {
                self.refuse_inside_transaction("perform_now")?;
                self.insert(children)?;
            }
        }
        result
    }
}

/// Marks the thread as being inside a `transaction`, for as long as the value lives.
struct Inside;

impl Inside {
    fn enter(path: &Path) -> Inside {
        IN_TRANSACTION.with_borrow_mut(|files| files.push(path.to_owned()));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        IN_TRANSACTION.with_borrow_mut(Vec::pop);
    }
}
