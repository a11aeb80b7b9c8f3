//! Listening to what happens in all processes.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::Jobs;
use super::ears::LONGEST;
use crate::beside;
use crate::clock::from_micros;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::store::{Ear, Mouth, Said};

/// How often to look into the file for jobs of which no engine tells.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the engines get to say that they are heard.
const GREETING: Duration = Duration::from_secs(1);
/// How much that was said can wait to be taken in; each may be many events.
const WAITING: usize = 256;
/// Read of the file at a time.
const PAGE: i64 = 1_000;

/// An event, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Told {
    /// The process that it happened in; `None`: the job was found in the file, enqueued by a process
    /// without an engine, or it is this listener itself that has missed something.
    pub process: Option<u32>,
    /// When it was told, or the job enqueued.
    pub at: OffsetDateTime,
    /// The event as JSON, in the form that [`Event`] describes. Texts of a very large one are cut.
    pub json: Value,
}

impl Told {
    /// The event; `None` if this program does not know its sort, since its process is a newer one.
    pub fn event(&self) -> Option<Event> {
        serde_json::from_value(self.json.clone()).ok()
    }
}

/// A receiver of the events of all processes: see [`Jobs::listen`].
pub struct Listener {
    jobs: Jobs,
    ear: Ear,
    mouth: Mouth,
    from: Receiver<Heard>,
    /// What is to be told next.
    next: VecDeque<Told>,
    greeted: HashSet<u32>,
    /// Bells that were too busy to be rung.
    unrung: Vec<String>,
    looked: Instant,
    /// All jobs up to this one have been told of.
    last: i64,
    /// And these, which engines told of.
    told: BTreeSet<i64>,
}

/// What has come.
enum Heard {
    Said(Vec<u8>),
    /// So many events did not find room here.
    Missed(u64),
}

/// Why nobody can be listened to.
fn not_hung(db: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::ReadOnly {
            path: beside::side(db),
            why: format!("what listens there cannot be made: {error}"),
        },
        _ => Error::Io(Box::new(error)),
    }
}

/// Passes on what an ear hears, for as long as there is room.
fn post(to: Sender<Heard>) -> impl FnMut(&[u8]) + Send + 'static {
    let mut missed = 0;
    move |said| {
        if missed > 0 && to.try_send(Heard::Missed(missed)).is_ok() {
            missed = 0;
        }
        if missed > 0 || to.try_send(Heard::Said(said.to_vec())).is_err() {
            missed += said.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }
}

impl Jobs {
    /// Listens to what happens from now on to the jobs of this file, whatever the process.
    ///
    /// Every engine tells its [events](Jobs::events) by a socket in the side directory, as long as
    /// somebody listens; otherwise that costs nothing. Jobs that processes without an engine have
    /// enqueued are found in the file, within a quarter of a second, and told as [`Event::Enqueued`];
    /// each job once. What else such processes do (cancel, pause, delete) is not told, unless an engine
    /// sees it as an end or a change of its own; nor is a job that they enqueue and that is deleted
    /// before it is found. A listener that does not keep up misses some, which [`Event::Missed`] says. An
    /// engine that is killed may take its last events with it.
    ///
    /// When the call returns all engines that live tell this listener; one that does not answer
    /// within a second does so later.
    ///
    /// ```
    /// # use legwork::{Event, Jobs};
    /// # use std::time::Duration;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let mut listener = jobs.listen()?;
    /// while let Some(told) = listener.recv_timeout(Duration::from_millis(10))? {
    ///     if let Some(Event::Failed { id, error, .. }) = told.event() {
    ///         println!("{}: job {id} in process {:?}: {error}", told.at, told.process);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if the socket may not be made; [`Error::Io`] if it cannot, as where there are none
    /// (not on Unix); those of reading.
    pub fn listen(&self) -> Result<Listener> {
        self.0.store.check_process()?;
        let path = self.path();
        let (to, from) = bounded(WAITING);
        let ear = Ear::hang(path, 2 * LONGEST, post(to)).map_err(|error| not_hung(path, error))?;
        let mouth = Mouth::new(path).map_err(|error| Error::Io(Box::new(error)))?;
        let mut listener = Listener {
            // After the ear hangs: whoever joins later sees it.
            last: self.0.store.newest()?,
            jobs: self.clone(),
            ear,
            mouth,
            from,
            next: VecDeque::new(),
            greeted: HashSet::new(),
            unrung: Vec::new(),
            looked: Instant::now(),
            told: BTreeSet::new(),
        };
        listener.greet()?;
        Ok(listener)
    }
}

impl Listener {
    /// The next event within `timeout`; `None` if none came.
    ///
    /// # Errors
    /// Those of reading; [`Error::Stopped`] if the socket can no longer be read.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Told>> {
        let started = Instant::now();
        loop {
            if let Some(told) = self.next.pop_front() {
                return Ok(Some(told));
            }
            let look = LOOK_EVERY.saturating_sub(self.looked.elapsed());
            if look.is_zero() {
                self.look()?;
                continue;
            }
            let left = timeout.saturating_sub(started.elapsed());
            if !self.hear(left.min(look))? && left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Rings all engines, and waits until those that heard it have said so.
    fn greet(&mut self) -> Result<()> {
        let mut awaited = HashSet::new();
        for (process, bell) in self.jobs.0.store.bells()? {
            match self.mouth.ring(&bell) {
                Said::Heard => drop(awaited.insert(u32::try_from(process).unwrap_or(0))),
                Said::Full => self.unrung.push(bell),
                Said::Gone => {}
            }
        }
        let started = Instant::now();
        while started.elapsed() < GREETING && !awaited.is_subset(&self.greeted) {
            self.hear(GREETING.saturating_sub(started.elapsed()))?;
        }
        Ok(())
    }

    /// Whether something was said within this time.
    fn hear(&mut self, within: Duration) -> Result<bool> {
        match self.from.recv_timeout(within) {
            Ok(Heard::Said(said)) => {
                let lines = said.split(|byte| *byte == b'\n');
                // What is none of ours is nobody's: others may send to a socket, too.
                for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
                    self.take(line)?;
                }
                Ok(true)
            }
            Ok(Heard::Missed(count)) => {
                let at = self.jobs.clock().now();
                self.tell(None, at, &Event::Missed(count));
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Stopped("the listener")),
        }
    }

    fn tell(&mut self, process: Option<u32>, at: OffsetDateTime, event: &Event) {
        let json = serde_json::to_value(event).unwrap_or_default();
        self.next.push_back(Told { process, at, json });
    }

    fn take(&mut self, mut line: Map<String, Value>) -> Result<()> {
        let process = line.remove("process").and_then(|id| u32::try_from(id.as_u64()?).ok());
        let at = line.remove("at").and_then(|at| at.as_i64());
        if line.contains_key("hello") {
            self.greeted.extend(process);
            return Ok(());
        }
        let (Some(process), Some(at)) = (process, at) else { return Ok(()) };
        let job = line.get("job").and_then(Value::as_i64).filter(|job| *job > self.last);
        let is_new = line.get("event").is_some_and(|event| event == "enqueued");
        match (is_new, job) {
            // The file told of it before.
            (true, None) => return Ok(()),
            (true, Some(job)) if !self.told.insert(job) => return Ok(()),
            (true, Some(_)) | (false, None) => {}
            (false, Some(job)) if self.told.contains(&job) => {}
            // It was enqueued before this happened to it.
            (false, Some(_)) => self.look()?,
        }
        let json = Value::Object(line);
        self.next.push_back(Told { process: Some(process), at: from_micros(at), json });
        Ok(())
    }

    /// Finds the jobs in the file of which nobody has told.
    fn look(&mut self) -> Result<()> {
        self.looked = Instant::now();
        let mouth = &self.mouth;
        self.unrung.retain(|bell| mouth.ring(bell) == Said::Full);
        loop {
            let found = self.jobs.0.store.enqueued_after(self.last, PAGE)?;
            let is_all = (found.len() as i64) < PAGE;
            for job in found {
                self.last = job.id.0;
                if !self.told.remove(&job.id.0) {
                    let event = Event::Enqueued { id: job.id, kind: job.kind, queue: job.queue };
                    self.tell(None, from_micros(job.at), &event);
                }
            }
            if is_all {
                // Others below it were deleted.
                self.told = self.told.split_off(&(self.last + 1));
                return Ok(());
            }
        }
    }
}

impl Drop for Listener {
    /// The engines end what they do for it when they next have something to say; to those that are rung
    /// the ear must be gone already.
    fn drop(&mut self) {
        self.ear.take_down();
        for (_, bell) in self.jobs.0.store.bells().unwrap_or_default() {
            self.mouth.ring(&bell);
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}
