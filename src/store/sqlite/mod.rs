//! The store on SQLite.

mod backup;
mod book;
mod claim;
mod clones;
mod contents;
mod control;
mod counter;
#[cfg(feature = "cron")]
mod cron;
mod demand;
mod doorbell;
mod ears;
mod edges;
mod ends;
mod enqueue;
mod errors;
mod examine;
mod expiry;
mod finish;
mod flows;
mod gates;
mod instance;
mod kinds;
mod lanes;
mod limits;
mod lock_file;
mod migrate;
mod news;
mod open;
mod prune;
mod query;
mod readers;
mod reading;
mod related;
mod rescue;
mod steps;
mod suspects;
mod text;
mod transfer;
mod tripwire;
mod unique;
mod upkeep;
mod version;
mod waiting;
pub(crate) mod writer;

#[cfg(test)]
mod flows_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod waiting_tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rusqlite::Connection;

use self::book::Book;
pub(crate) use self::ears::{Ear, Mouth, Said};
pub(crate) use self::errors::{committing as app_commit_error, storing as app_error};
pub(crate) use self::examine::{Examined, examine};
pub(crate) use self::lock_file::InstanceLock;
use self::readers::Readers;
use self::tripwire::Tripwire;
pub(crate) use self::unique::Held;
pub(crate) use self::upkeep::schema;
pub use self::version::SqliteInfo;
use self::writer::{Desk, Mail, Operation, Writer, deadline};
use super::tray::Tray;
use super::waiters::{Waiters, Watch};
use super::{
    Control, Controlled, Emptiness, Finish, InstanceId, Joined, Joining, Note, PoolId, PoolSpec,
    Settings, Work,
};
use crate::error::{Error, Result};
use crate::id::{FlowId, JobId};
use crate::kinds::KindOptions;
use crate::new_job::NewRow;
use crate::record::PoolRecord;
use crate::unique::Enqueued;

/// An open file as one handle sees it: all handles of the process share the file, each has its own
/// patience. A child made by fork can do nothing with it.
#[derive(Clone)]
pub(crate) struct Store {
    file: Arc<OpenFile>,
    busy_timeout: Duration,
}

/// What belongs to the file in this process: its writer thread and its readers.
struct OpenFile {
    path: PathBuf,
    settings: Settings,
    mail: Sender<Mail>,
    desk: Arc<Desk>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Closes when the writer's thread has ended and its connection is closed.
    ended: Receiver<()>,
    readers: Readers,
    waiters: Arc<Waiters>,
    next_pool: AtomicU64,
    tripwire: Arc<Tripwire>,
    /// Somebody has seen that the writer is gone, while its thread may still be unwinding.
    seen_dead: AtomicBool,
    /// The process that has the connections and the threads.
    process: u32,
}

impl Store {
    /// Opens or creates the file and starts its writer.
    pub(crate) fn open(settings: Settings) -> Result<Store> {
        let (conn, path) = open::open_writer(&settings)?;
        let settings = Settings { path: path.clone(), ..settings };
        let (mail, mailbox) = unbounded();
        let waiters = Arc::new(Waiters::default());
        let tripwire = Arc::new(Tripwire::new(&path));
        let desk = Desk::new(mail.clone(), |desk| {
            Writer::new(
                Book::new(conn),
                mailbox.clone(),
                desk,
                settings.clone(),
                Arc::clone(&waiters),
                Arc::clone(&tripwire),
            )
        });
        let at_desk = Arc::clone(&desk);
        let for_writer = Arc::clone(&waiters);
        let (alive, ended) = bounded(0);
        let thread = thread::Builder::new()
            .name("legwork-writer".into())
            .spawn(move || {
                let _alive: Sender<()> = alive;
                // However the thread ends, whoever waits for a finish must learn of it.
                let _guard = TellAll(for_writer);
                at_desk.work(mailbox);
            })
            .map_err(|error| Error::Io(Box::new(error)))?;
        let turned = mail.clone();
        settings.clock.on_turn(move || {
            // A writer that is gone needs no waking.
            let _ = turned.send(Mail::Look);
        });
        let busy_timeout = settings.busy_timeout;
        let file = OpenFile {
            readers: Readers::new(path.clone()),
            path,
            settings,
            mail,
            desk,
            writer: Mutex::new(Some(thread)),
            ended,
            waiters,
            next_pool: AtomicU64::new(1),
            tripwire,
            seen_dead: AtomicBool::new(false),
            process: std::process::id(),
        };
        Ok(Store { file: Arc::new(file), busy_timeout })
    }

    /// The same file, for a handle with this patience.
    pub(crate) fn with_patience(&self, busy_timeout: Duration) -> Store {
        Store { file: Arc::clone(&self.file), busy_timeout }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.file.settings
    }

    // ---- living --------------------------------------------------------------------------

    /// # Errors
    /// [`Error::Forked`] in a child of the process that opened the file. Asked before any lock is
    /// taken or channel used: the thread at its other end does not exist there.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.file.process != std::process::id()
    }

    /// # Errors
    /// [`Error::Forked`]; [`Error::Gone`] if the file is; [`Error::Poisoned`] if the writer has
    /// panicked.
    pub(crate) fn check_alive(&self) -> Result<()> {
        self.check_process()?;
        if let Some(gone) = self.file.tripwire.sprung() {
            return Err(gone);
        }
        if self.file.is_dead() { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// The same after a look whether the file is still where it was. If it is not, its writer is
    /// told: what it would write now could mix with another file of the same name.
    ///
    /// # Errors
    /// As [`check_alive`](Store::check_alive).
    pub(crate) fn check_in_place(&self) -> Result<()> {
        // The connection of a writer that has panicked takes the `-wal` along, and nobody else did.
        self.check_alive()?;
        if self.file.tripwire.check().is_err() {
            // If it is gone already it needs no telling.
            let _ = self.file.mail.send(Mail::Look);
        }
        self.check_alive()
    }

    /// Closes the connections to a file that is gone: the database may still be there and only its
    /// `-wal` be another, and then old and new connections must not meet in one `-shm`.
    ///
    /// # Errors
    /// [`Error::Busy`] if the writer has not ended within the busy time-out.
    pub(crate) fn close_gone(&self) -> Result<()> {
        self.file.readers.close();
        match self.file.ended.recv_timeout(self.busy_timeout) {
            Err(RecvTimeoutError::Timeout) => Err(Error::Busy { waited: self.busy_timeout }),
            _ => Ok(()),
        }
    }

    /// Why the writer no longer answers.
    pub(crate) fn dead(&self) -> Error {
        self.file.tripwire.sprung().unwrap_or_else(|| {
            self.file.seen_dead.store(true, Ordering::Release);
            Error::Poisoned
        })
    }

    /// Closes when the writer has ended.
    #[cfg(feature = "cli")]
    pub(crate) fn ended(&self) -> Receiver<()> {
        self.file.ended.clone()
    }

    /// For a thread whose panic is to poison the handle.
    pub(crate) fn fuse(&self) -> Fuse {
        Fuse(self.file.mail.clone())
    }

    // ---- writing -------------------------------------------------------------------------

    /// Posts mail, unless the writer is known to be gone.
    fn post(&self, mail: Mail) -> Result<()> {
        self.check_process()?;
        if let Some(gone) = self.file.tripwire.sprung() {
            return Err(gone);
        }
        self.file.mail.send(mail).map_err(|_| self.dead())
    }

    /// Posts an operation and waits for the answer that follows its commit.
    fn ask<T, A>(&self, what: T, envelope: impl FnOnce(Operation<T, A>) -> Mail) -> Result<A> {
        self.ask_by(what, envelope, |mail| self.post(mail))
    }

    fn ask_by<T, A>(
        &self,
        what: T,
        envelope: impl FnOnce(Operation<T, A>) -> Mail,
        hand_in: impl FnOnce(Mail) -> Result<()>,
    ) -> Result<A> {
        let (answer, answered) = bounded(1);
        let (posted, until) = deadline(self.busy_timeout);
        hand_in(envelope(Operation { what, posted, deadline: until, answer }))?;
        answered.recv().map_err(|_| self.dead())?
    }

    /// The same, recorded in this thread if the writer has nothing else to do.
    fn ask_at_once<T, A>(
        &self,
        what: T,
        envelope: impl FnOnce(Operation<T, A>) -> Mail,
    ) -> Result<A> {
        self.check_alive()?;
        self.ask_by(what, envelope, |mail| match self.file.desk.serve(mail) {
            Ok(()) => Ok(()),
            Err(mail) => self.post(mail),
        })
    }

    /// Inserts all rows or none; durable when it returns, as far as the durability level says.
    pub(crate) fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<Enqueued>> {
        self.ask_at_once(rows, Mail::Insert)
    }

    pub(crate) fn control(&self, control: Control) -> Result<Controlled> {
        self.ask_at_once(control, Mail::Control)
    }

    /// Inserts one job on a connection of the app, in its transaction if it has one open.
    pub(crate) fn insert_in(&self, conn: &Connection, row: &NewRow) -> Result<Enqueued> {
        self.check_alive()?;
        self.check_same_file(conn)?;
        let done = enqueue::insert_on(conn, row, self.settings().retention)?;
        // The writer takes the write lock to look: when it has it, this transaction has ended. If
        // it has died meanwhile the job is in the transaction all the same.
        let _ = self.post(Mail::LookAndRing);
        Ok(done)
    }

    /// Completes a job in the app's transaction on `conn`.
    pub(crate) fn finish_in(&self, conn: &Connection, finish: &Finish) -> Result<()> {
        self.check_alive()?;
        self.check_same_file(conn)?;
        if conn.is_autocommit() {
            return Err(Error::invalid("connection", "`finish_in` needs an open transaction"));
        }
        finish::finish_on(conn, finish, self.settings().retention)
    }

    /// Makes the writer look for what another connection may have committed, and tell others of it.
    pub(crate) fn look(&self) -> Result<()> {
        // A writer that has panicked may take mail for a moment more.
        self.check_alive()?;
        self.post(Mail::LookAndRing)
    }

    fn check_same_file(&self, conn: &Connection) -> Result<()> {
        let other = conn.path().unwrap_or_default();
        // SQLite keeps the name as it resolved it; equal names are the common case.
        if Path::new(other) == self.path()
            || (!other.is_empty() && fs::canonicalize(other).is_ok_and(|path| path == self.path()))
        {
            return Ok(());
        }
        Err(Error::Foreign {
            path: PathBuf::from(other),
            why: format!("the connection is not open on {}", self.path().display()),
        })
    }

    // ---- running -------------------------------------------------------------------------

    /// Registers an engine, once what dead instances held has been given back.
    pub(crate) fn join(
        &self,
        lock: &Arc<InstanceLock>,
        crash_limit: u32,
        kinds: KindOptions,
        pools: Vec<PoolRecord>,
    ) -> Result<Joined> {
        let joining = Joining { lock: Arc::clone(lock), crash_limit, kinds, pools };
        self.ask(joining, Mail::Join)
    }

    /// Takes an engine's row away.
    pub(crate) fn leave(&self, instance: InstanceId) -> Result<Vec<JobId>> {
        self.ask(instance, Mail::Leave)
    }

    /// Writes down what pools an engine has now. Nobody waits for it; whoever holds the write lock for
    /// longer than the busy time-out keeps it from being known.
    pub(crate) fn set_pools(&self, instance: InstanceId, pools: Vec<PoolRecord>) -> Result<()> {
        let (answer, _) = bounded(1);
        let (posted, deadline) = deadline(self.busy_timeout);
        let what = Control::SetPools(instance, pools);
        self.post(Mail::Control(Operation { what, posted, deadline, answer }))
    }

    /// Opens a pool, with an empty tray for its workers.
    pub(crate) fn open_pool(&self, spec: PoolSpec) -> Result<(PoolId, Arc<Tray>)> {
        let pool = self.file.next_pool.fetch_add(1, Ordering::Relaxed);
        let tray = Arc::new(Tray::default());
        self.post(Mail::OpenPool(pool, spec, Arc::clone(&tray)))?;
        Ok((pool, tray))
    }

    pub(crate) fn close_pool(&self, pool: PoolId) -> Result<()> {
        self.post(Mail::ClosePool(pool))
    }

    /// Calls off the parked claims of a pool, and those of workers that looked at it before this
    /// epoch.
    pub(crate) fn unpark(&self, pool: PoolId, epoch: u64) -> Result<()> {
        self.post(Mail::Unpark(pool, epoch))
    }

    /// Makes the writer come to the trays now.
    pub(crate) fn call(&self) -> Result<()> {
        self.post(Mail::Call)
    }

    pub(crate) fn submit(&self, work: Work) -> Result<()> {
        self.post(Mail::Work(Box::new(work)))
    }

    /// Writes progress when it suits; losing it to a dead writer loses nothing that counts.
    pub(crate) fn note(&self, note: Note) {
        let _ = self.post(Mail::Note(note));
    }

    /// Tells whether nothing is ready, due or running for these pools: once that is so, or at once.
    pub(crate) fn when_empty(&self, asked: Emptiness) -> Result<()> {
        self.post(Mail::WhenEmpty(asked))
    }

    // ---- watching and copying ------------------------------------------------------------

    fn reader(&self) -> Result<r2d2::PooledConnection<readers::Manager>> {
        self.check_alive()?;
        let reader = self.file.readers.get(self.busy_timeout);
        // A connection to a file that has lost its name cannot be opened.
        reader.map_err(|error| {
            self.check_alive().and_then(|()| self.file.tripwire.check()).err().unwrap_or(error)
        })
    }

    /// Is told when `id` finishes from now on, or the writer ends.
    pub(crate) fn watch(&self, id: JobId) -> Watch {
        self.file.waiters.watch(id)
    }

    /// Is told when the flow ends from now on, or the writer ends.
    pub(crate) fn watch_flow(&self, id: FlowId) -> Watch {
        self.file.waiters.watch_flow(id)
    }

    pub(crate) fn leave_watch(&self, watch: Watch) {
        self.file.waiters.leave(watch);
    }

    /// A compact copy of the file as it is now, without claims. `to` must not exist.
    pub(crate) fn backup(&self, to: &Path) -> Result<()> {
        self.check_alive()?;
        backup::backup(self.path(), self.busy_timeout, to)
    }
}

impl OpenFile {
    fn is_dead(&self) -> bool {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen_dead.load(Ordering::Acquire)
            || writer.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for OpenFile {
    /// Never reached in a child made by fork: its handles are leaked there.
    fn drop(&mut self) {
        // First, so that the writer's is the last connection: one that can only read would leave the
        // `-wal` behind.
        self.readers.close();
        // If the writer is gone there is nothing to stop.
        let _ = self.mail.send(Mail::Stop);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go with the end of an attempt, in the writer's own thread.
        if let Some(writer) = writer
            && writer.thread().id() != thread::current().id()
            && writer.join().is_err()
        {
            log::error!("legwork: the writer thread had panicked");
        }
    }
}

/// Poisons the handle if its thread panics: what that thread is there for would no longer be done, and
/// nobody would know. It keeps nothing open.
pub(crate) struct Fuse(Sender<Mail>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if thread::panicking() {
            // A writer that is gone is as good as poisoned.
            let _ = self.0.send(Mail::Panicked);
        }
    }
}

struct TellAll(Arc<Waiters>);

impl Drop for TellAll {
    fn drop(&mut self) {
        self.0.tell_all();
    }
}
