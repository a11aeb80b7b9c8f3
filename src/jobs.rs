//! The handle on a database file: enqueue, look, control.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::clock::{Clock, Random};
use crate::context::{Attempt, Context, Said, Signals};
use crate::error::{Error, Result};
use crate::event::{Event, Events, Hub};
use crate::id::JobId;
use crate::job::{Job, JobResult};
use crate::middleware::{Middleware, OnEnqueue};
use crate::new_job::{NewJob, NewRow, Retention};
use crate::perform;
use crate::record::{
    AttemptRecord, Changed, Filter, Health, JobRecord, LogLine, Page, Scope, Selection, Stats,
};
use crate::rules::name;
use crate::state::State;
use crate::store::{
    ClaimRef, Control, Controlled, Durability, InstanceId, Notice, Settings, Store,
};

/// The handle on a database file. Cheap to clone, `Send + Sync`; all clones share one writer
/// thread, which ends with the last of them.
///
/// ```
/// # use serde::{Serialize, Deserialize};
/// # use legwork::{Context, Job, JobResult, Jobs, NewJob, Outcome};
/// # #[derive(Serialize, Deserialize)] struct WelcomeEmail { user_id: i64 }
/// # impl Job for WelcomeEmail {
/// #     const KIND: &'static str = "welcome_email";
/// #     type State = ();
/// #     fn perform(&self, _: &Context) -> JobResult { Ok(Outcome::Done) }
/// # }
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.db");
/// let jobs = Jobs::open(path)?;
/// let id = jobs.enqueue(WelcomeEmail { user_id: 7 })?;   // committed when it returns
/// assert_eq!(jobs.get(id)?.kind, "welcome_email");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    store: Store,
    events: Arc<Hub>,
    trouble: Arc<Mutex<Option<(OffsetDateTime, String)>>>,
    attempts: Attempts,
    middleware: Vec<Arc<dyn Middleware>>,
    on_enqueue: Vec<OnEnqueue>,
    max_args: usize,
    workers: AtomicUsize,
}

/// How a file is opened.
///
/// Made by [`Jobs::builder`], ended by [`open`](JobsBuilder::open).
pub struct JobsBuilder {
    path: PathBuf,
    durability: Durability,
    busy_timeout: Duration,
    allow_network_fs: bool,
    retention: Retention,
    history_rows: u64,
    max_args: usize,
    clock: Clock,
    random: Random,
    middleware: Vec<Arc<dyn Middleware>>,
    on_enqueue: Vec<OnEnqueue>,
}

impl JobsBuilder {
    /// What is synced before it is acknowledged. Default: [`Durability::Synced`].
    pub fn durability(mut self, durability: Durability) -> JobsBuilder {
        self.durability = durability;
        self
    }

    /// How long a verb waits for a write lock that another connection holds before it returns
    /// [`Error::Busy`]. Default: 5 seconds; at most a day.
    pub fn busy_timeout(mut self, timeout: Duration) -> JobsBuilder {
        self.busy_timeout = timeout.min(Duration::from_secs(86_400));
        self
    }

    /// Opens files on network file systems too. WAL needs shared memory and working locks, which
    /// most of them do not have.
    pub fn allow_network_fs(mut self, allow: bool) -> JobsBuilder {
        self.allow_network_fs = allow;
        self
    }

    /// How long finished jobs are kept, unless their kind or the job says otherwise.
    pub fn retention(mut self, retention: Retention) -> JobsBuilder {
        self.retention = retention;
        self
    }

    /// How many finished jobs are kept at most; beyond it those that would be pruned next go
    /// first. Default: 1,000,000.
    pub fn history_rows(mut self, most: u64) -> JobsBuilder {
        self.history_rows = most;
        self
    }

    /// Longest arguments of a job, in bytes of JSON. Default: 16 MiB.
    pub fn max_args(mut self, bytes: usize) -> JobsBuilder {
        self.max_args = bytes;
        self
    }

    /// Where the time comes from. Default: [`Clock::system`].
    pub fn clock(mut self, clock: Clock) -> JobsBuilder {
        self.clock = clock;
        self
    }

    /// Where jitter and weighted choices come from. Default: [`Random::new`].
    pub fn random(mut self, random: Random) -> JobsBuilder {
        self.random = random;
        self
    }

    /// Code around every attempt on this handle, `perform_now` included; the first one added is
    /// the outermost.
    pub fn middleware(mut self, middleware: impl Middleware) -> JobsBuilder {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Code that every job passes before it is enqueued: it may change it (add a trace id to its
    /// `meta`, say) or refuse it with an error. It stands before, not around: a bulk is one
    /// transaction however many jobs it has.
    pub fn on_enqueue(
        mut self,
        look: impl Fn(NewJob) -> Result<NewJob> + Send + Sync + 'static,
    ) -> JobsBuilder {
        self.on_enqueue.push(Arc::new(look));
        self
    }

    /// Opens the file, or creates it, and brings legwork's tables in it up to date. A file that
    /// is created is readable by its owner alone.
    ///
    /// # Errors
    /// Before any write: [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`],
    /// [`Error::ReadOnly`], [`Error::NetworkFs`]. [`Error::Busy`] if another connection holds the
    /// write lock while the tables have to be made.
    pub fn open(self) -> Result<Jobs> {
        let events = Arc::new(Hub::default());
        let trouble = Arc::new(Mutex::new(None));
        let store = Store::open(Settings {
            path: self.path,
            durability: self.durability,
            busy_timeout: self.busy_timeout,
            allow_network_fs: self.allow_network_fs,
            retention: self.retention,
            history_rows: self.history_rows,
            clock: self.clock.clone(),
            random: self.random,
            observer: observer(Arc::clone(&events), Arc::clone(&trouble), self.clock),
        })?;
        Ok(Jobs(Arc::new(Inner {
            store,
            events,
            trouble,
            attempts: Attempts::default(),
            middleware: self.middleware,
            on_enqueue: self.on_enqueue,
            max_args: self.max_args,
            workers: AtomicUsize::new(0),
        })))
    }
}

/// Turns the store's notices into events and log lines.
fn observer(
    events: Arc<Hub>,
    trouble: Arc<Mutex<Option<(OffsetDateTime, String)>>>,
    clock: Clock,
) -> Arc<dyn Fn(Notice) + Send + Sync> {
    Arc::new(move |notice| {
        let note = |text: String| {
            log::warn!("legwork: {text}");
            *lock(&trouble) = Some((clock.now(), text));
        };
        match notice {
            Notice::Busy { waited } => {
                note(format!("another connection has held the write lock for {waited:?}"));
                events.tell(|| Event::DatabaseBusy { waited });
            }
            Notice::Held { error } => {
                note(format!("finished work is held until it can be recorded: {error}"));
                events.tell(|| Event::WriteFailed { error });
            }
            Notice::Recovered => {
                log::info!("legwork: writing works again");
                events.tell(|| Event::Recovered);
            }
            Notice::UnknownKind { kind } => {
                log::warn!(kind = kind.as_str(); "legwork: jobs of a kind that no engine here knows are waiting");
                events.tell(|| Event::UnknownKind { kind });
            }
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The values behind these locks are whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The files inside whose `transaction` this thread is.
    static IN_TRANSACTION: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
}

impl Jobs {
    /// Opens or creates a file with the default settings.
    ///
    /// # Errors
    /// As [`JobsBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Jobs> {
        Jobs::builder(path).open()
    }

    /// Settings for opening a file.
    pub fn builder(path: impl AsRef<Path>) -> JobsBuilder {
        JobsBuilder {
            path: path.as_ref().to_owned(),
            durability: Durability::default(),
            busy_timeout: Duration::from_secs(5),
            allow_network_fs: false,
            retention: Retention::default(),
            history_rows: 1_000_000,
            max_args: 16 * 1024 * 1024,
            clock: Clock::system(),
            random: Random::new(),
            middleware: Vec::new(),
            on_enqueue: Vec::new(),
        }
    }

    /// The file, by its canonical path.
    pub fn path(&self) -> &Path {
        self.0.store.path()
    }

    /// The clock that the handle goes by.
    pub fn clock(&self) -> &Clock {
        &self.0.store.settings().clock
    }

    pub(crate) fn random(&self) -> &Random {
        &self.0.store.settings().random
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn attempts_here(&self) -> &Attempts {
        &self.0.attempts
    }

    pub(crate) fn middleware(&self) -> &[Arc<dyn Middleware>] {
        &self.0.middleware
    }

    pub(crate) fn workers(&self) -> &AtomicUsize {
        &self.0.workers
    }

    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        self.0.events.tell(event);
    }

    // ---- enqueue -------------------------------------------------------------------------

    /// Enqueues a job. When it returns, the job is committed, and durable as far as the
    /// [`Durability`] says.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, start time or policy; [`Error::Busy`] if the write lock
    /// was not free in time (the job will not appear later); [`Error::InTransaction`] inside
    /// [`transaction`](Jobs::transaction); [`Error::Full`], [`Error::Io`].
    pub fn enqueue(&self, job: impl Into<NewJob>) -> Result<JobId> {
        self.refuse_inside_transaction("enqueue")?;
        let ids = self.insert(vec![self.prepare(job.into())?])?;
        ids.first().copied().ok_or(Error::Poisoned)
    }

    /// Enqueues all jobs in one transaction, all or none. Ids come in the order of the jobs.
    ///
    /// # Errors
    /// As [`enqueue`](Jobs::enqueue); if any job is refused none is enqueued.
    pub fn enqueue_many<J: Into<NewJob>>(
        &self,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<JobId>> {
        self.refuse_inside_transaction("enqueue_many")?;
        let rows =
            jobs.into_iter().map(|job| self.prepare(job.into())).collect::<Result<Vec<_>>>()?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.insert(rows)
    }

    fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<JobId>> {
        // Names for the events and log lines, if anybody wants them.
        let told = self.0.events.is_watched() || log::log_enabled!(log::Level::Debug);
        let names: Vec<(String, String)> = if told {
            rows.iter().map(|row| (row.kind.clone(), row.queue.clone())).collect()
        } else {
            Vec::new()
        };
        let ids = self.0.store.insert(rows)?;
        for (&id, (kind, queue)) in ids.iter().zip(names) {
            self.tell_enqueued(id, kind, queue);
        }
        Ok(ids)
    }

    pub(crate) fn tell_enqueued(&self, id: JobId, kind: String, queue: String) {
        log::debug!(job = id.0, kind = kind.as_str(), queue = queue.as_str(); "legwork: enqueued");
        self.tell(|| Event::Enqueued { id, kind, queue });
    }

    /// Checks a job and fixes its times.
    pub(crate) fn prepare(&self, job: NewJob) -> Result<NewRow> {
        let job = self.0.on_enqueue.iter().try_fold(job, |job, look| look(job))?;
        job.into_row(self.clock().micros(), self.0.max_args)
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
        self.0.store.insert_in(conn, &row)
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
    /// The error of `work`, or of the transaction itself; either way nothing was committed.
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
        tx.commit().map_err(sqlite)?;
        // Committed is committed, even if the writer has died meanwhile.
        let _ = self.wake();
        Ok(done)
    }

    fn refuse_inside_transaction(&self, verb: &'static str) -> Result<()> {
        let inside =
            IN_TRANSACTION.with_borrow(|files| files.iter().any(|file| file == self.path()));
        if inside { Err(Error::InTransaction { verb }) } else { Ok(()) }
    }

    /// Makes the engines of this handle look for new work now. Needed only after other programs
    /// have written to the file with plain SQL.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
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
            kind: J::KIND.to_owned(),
            queue: options.queue.unwrap_or_else(|| crate::new_job::DEFAULT_QUEUE.to_owned()),
            number: 1,
            meta: std::collections::BTreeMap::new(),
            worker: Arc::from("perform_now"),
            args,
            first_started_at: self.clock().micros(),
            started_awake: self.clock().awake(),
            timeout: options.timeout,
            overdue: options.overdue,
            retry: None,
            keep: None,
            signals: Signals::default(),
            said: Mutex::new(Said::default()),
            settle: AtomicBool::new(false),
        });
        let cx = Context::new(Arc::clone(&attempt), state);
        let result = perform::perform(&attempt, &attempt.args, chain, &|| job.perform(&cx));
        if matches!(result, Ok(crate::job::Outcome::Done)) {
            let children = std::mem::take(&mut attempt.said().children);
            if !children.is_empty() {
                self.insert(children)?;
            }
        }
        result
    }

    // ---- look ----------------------------------------------------------------------------

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
    /// # Errors
    /// Those of reading.
    pub fn list(&self, filter: &Filter, before: Option<JobId>, limit: usize) -> Result<Page> {
        self.0.store.list(filter, before, limit)
    }

    /// How many jobs match. Reads them all: for exact numbers, not for every second.
    ///
    /// # Errors
    /// Those of reading.
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        self.0.store.count(filter)
    }

    /// Counts by state and queue, and how fast each kind runs.
    ///
    /// # Errors
    /// Those of reading.
    pub fn stats(&self) -> Result<Stats> {
        self.0.store.stats()
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
        self.0.store.logs(id)
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

    /// Waits until the job is finished and returns it. Does not poll: an engine of this handle
    /// tells when it has recorded the end. (Ends recorded by other processes are not told.)
    ///
    /// # Errors
    /// [`Error::Timeout`] if it is not finished within `timeout` of real time;
    /// [`Error::NotFound`], also if it was deleted meanwhile; [`Error::Poisoned`].
    pub fn wait(&self, id: JobId, timeout: Duration) -> Result<JobRecord> {
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
            let told = watch.told.recv_timeout(timeout.saturating_sub(started.elapsed()));
            self.0.store.leave_watch(watch);
            if told == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                let waited = started.elapsed();
                return Err(Error::Timeout { id, waited, state: job.state });
            }
        }
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        self.0.events.subscribe()
    }

    /// What a health probe wants to know, in one call.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the handle is dead; those of reading.
    pub fn health(&self) -> Result<Health> {
        Ok(Health {
            workers: self.0.workers.load(Ordering::Acquire),
            running: self.0.attempts.count(),
            oldest_ready: self.0.store.oldest_ready()?,
            last_error: lock(&self.0.trouble).clone(),
        })
    }

    // ---- control -------------------------------------------------------------------------

    /// Runs finished or retrying jobs again, now, with their counters reset.
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it is scheduled, ready, blocked
    /// or running. Several and filters skip such jobs.
    pub fn retry(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "retry", Control::Retry)
    }

    /// Cancels jobs: waiting ones at once, running ones through their [`Context`].
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it is finished. Several and
    /// filters skip such jobs.
    pub fn cancel(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "cancel", |ids| Control::Cancel {
            ids,
            reason: "cancelled by request".to_owned(),
        })
    }

    /// Removes jobs that are not running, with all that is kept of them.
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it is running. Several and
    /// filters skip such jobs.
    pub fn delete(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "delete", Control::Delete)
    }

    fn change(
        &self,
        which: Selection,
        verb: &'static str,
        control: impl Fn(Vec<JobId>) -> Control,
    ) -> Result<Changed> {
        self.refuse_inside_transaction(verb)?;
        // A bite of ids a transaction, so that a bulk holds nobody up.
        const BITE: usize = 500;
        let mut total = Changed::default();
        match which {
            Selection::One(id) => {
                let done = self.apply(control(vec![id]), &mut total)?;
                match done.skipped.first() {
                    None => {}
                    Some((id, None)) => return Err(Error::NotFound(*id)),
                    Some(&(id, Some(state))) => return Err(Error::WrongState { id, state, verb }),
                }
            }
            Selection::Many(ids) => {
                for ids in ids.chunks(BITE) {
                    self.apply(control(ids.to_vec()), &mut total)?;
                }
            }
            Selection::Matching(filter) => {
                let mut before = None;
                loop {
                    let page = self.list(&filter, before, BITE)?;
                    self.apply(control(page.jobs.iter().map(|job| job.id).collect()), &mut total)?;
                    before = page.next;
                    if before.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(total)
    }

    fn apply(&self, control: Control, total: &mut Changed) -> Result<Controlled> {
        let cancels = matches!(control, Control::Cancel { .. });
        let done = self.0.store.control(control)?;
        total.changed += (done.changed.len() + done.asked.len()) as u64;
        total.skipped += done.skipped.len() as u64;
        for claim in &done.asked {
            self.0.attempts.cancel(*claim);
        }
        if cancels {
            for &id in &done.changed {
                log::debug!(job = id.0; "legwork: cancelled");
                self.tell(|| Event::Finished {
                    id,
                    kind: None,
                    state: State::Cancelled,
                    took: None,
                });
            }
        }
        Ok(done)
    }

    /// Keeps jobs from being started, durably, in all processes; running ones go on, and jobs can
    /// still be enqueued. Pausing what is paused changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name.
    pub fn pause(&self, scope: Scope) -> Result<()> {
        self.set_pause(scope, "pause", Control::Pause, Event::Paused)
    }

    /// Lets paused jobs be started again. Each pause is lifted by its own scope: a queue paused by
    /// name stays paused when `Scope::All` is resumed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name.
    pub fn resume(&self, scope: Scope) -> Result<()> {
        self.set_pause(scope, "resume", Control::Resume, Event::Resumed)
    }

    fn set_pause(
        &self,
        scope: Scope,
        verb: &'static str,
        control: fn(Scope) -> Control,
        event: fn(Scope) -> Event,
    ) -> Result<()> {
        self.refuse_inside_transaction(verb)?;
        match &scope {
            Scope::All => {}
            Scope::Queue(name) => name::check("queue name", name)?,
            Scope::Kind(name) => name::check("kind", name)?,
        }
        self.0.store.control(control(scope.clone()))?;
        log::info!("legwork: {verb} {scope:?}");
        self.tell(|| event(scope));
        Ok(())
    }

    /// Writes a compact, consistent copy of the whole file, the app's tables included, while
    /// everything runs on. `to` must not exist. In the copy no job is claimed: those that were
    /// running here are ready there.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if `to` exists or cannot be made; [`Error::Full`], [`Error::Io`].
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        self.0.store.backup(to.as_ref())
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Jobs").field(&self.path()).finish()
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

/// The attempts under way in this process, so that a cancel reaches them.
#[derive(Default)]
pub(crate) struct Attempts {
    inner: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    attempts: HashMap<JobId, Arc<Attempt>>,
    /// Cancels that came between a claim's commit and the start of its attempt here.
    early: HashSet<ClaimRef>,
    /// The instances of this process: other processes' claims are none of our business.
    instances: HashSet<InstanceId>,
}

impl Attempts {
    pub(crate) fn joined(&self, instance: InstanceId) {
        lock(&self.inner).instances.insert(instance);
    }

    pub(crate) fn left(&self, instance: InstanceId) {
        let mut running = lock(&self.inner);
        running.instances.remove(&instance);
        running.early.retain(|claim| claim.instance != instance);
    }

    /// The attempt starts; a cancel that was faster reaches it now.
    pub(crate) fn start(&self, attempt: &Arc<Attempt>) {
        let Some(claim) = attempt.claim else { return };
        let mut running = lock(&self.inner);
        if running.early.remove(&claim) {
            attempt.signals.set(|asked| asked.cancel = true);
        }
        running.attempts.insert(claim.id, Arc::clone(attempt));
    }

    pub(crate) fn end(&self, attempt: &Arc<Attempt>) {
        let mut running = lock(&self.inner);
        if let Some(claim) = &attempt.claim {
            // A cancel that came too late for it.
            running.early.remove(claim);
        }
        if running.attempts.get(&attempt.id()).is_some_and(|there| Arc::ptr_eq(there, attempt)) {
            running.attempts.remove(&attempt.id());
        }
    }

    fn cancel(&self, claim: ClaimRef) {
        let mut running = lock(&self.inner);
        match running.attempts.get(&claim.id) {
            Some(attempt) if attempt.claim == Some(claim) => {
                attempt.signals.set(|asked| asked.cancel = true);
            }
            _ if running.instances.contains(&claim.instance) => {
                running.early.insert(claim);
            }
            _ => {}
        }
    }

    /// The attempts of one instance.
    pub(crate) fn of(&self, instance: InstanceId) -> Vec<Arc<Attempt>> {
        lock(&self.inner)
            .attempts
            .values()
            .filter(|attempt| attempt.claim.is_some_and(|claim| claim.instance == instance))
            .cloned()
            .collect()
    }

    fn count(&self) -> usize {
        lock(&self.inner).attempts.len()
    }
}
