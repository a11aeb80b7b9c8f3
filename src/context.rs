//! What a running job can see and say.

mod steps;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::{Micros, from_micros};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::failure::Interrupt;
use crate::id::{FlowId, JobId};
use crate::jobs::Jobs;
use crate::limit::Limits;
use crate::new_job::{NewJob, NewRow, Overdue, Retention};
use crate::record::{JobRecord, LogLine, Progress};
use crate::rules::retry::Plan;
use crate::rules::steps::Visits;
use crate::rules::text;
use crate::store::{ClaimRef, Finish, Held, Note, Verdict};
use crate::tally::Tallying;

pub use self::steps::Cursor;

/// Progress and log lines are written at most once in this time while an attempt runs.
const NOTE_EVERY: Duration = Duration::from_millis(250);

/// A running job's view of its attempt.
pub struct Context<S = ()> {
    attempt: Arc<Attempt>,
    state: Arc<S>,
}

/// One run of a job in this process, shared by its context and the engine.
pub(crate) struct Attempt {
    pub(crate) jobs: Jobs,
    /// `None` in `perform_now`.
    pub(crate) claim: Option<ClaimRef>,
    pub(crate) unique: Option<Held>,
    pub(crate) limits: Option<Arc<Limits>>,
    pub(crate) flow: Option<i64>,
    /// Attempts before this one may have left some in the file.
    pub(crate) had_steps: bool,
    pub(crate) kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) number: u32,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) worker: Arc<str>,
    pub(crate) args: String,
    /// When the job's first attempt started: what bounds by time count from.
    pub(crate) first_started_at: Micros,
    pub(crate) started_at: Micros,
    pub(crate) started_awake: Duration,
    /// Of its engine.
    pub(crate) tally: Arc<Tallying>,
    /// Attempts that take longer are told as slow.
    pub(crate) slow_after: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) overdue: Overdue,
    /// The job's own retry policy, if it has one.
    pub(crate) retry: Option<Plan>,
    /// How many attempts there are, if it has a number of its own.
    pub(crate) attempts: Option<u32>,
    pub(crate) keep: Option<Retention>,
    pub(crate) signals: Signals,
    pub(crate) said: Mutex<Said>,
    /// Its steps so far; `None` until the first.
    pub(crate) steps: Mutex<Option<Visits>>,
    /// `finish_in` was called: the row tells whether its transaction committed.
    pub(crate) settle: AtomicBool,
}

/// What the outside tells an attempt.
#[derive(Default)]
pub(crate) struct Signals {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) cancel: bool,
    pub(crate) stop: bool,
    /// Its finish is void; the thread is on its own.
    pub(crate) abandoned: bool,
    /// Its thread is done with it; it can no longer be abandoned.
    pub(crate) ended: bool,
    /// Another worker has taken the abandoned thread's place.
    pub(crate) replaced: bool,
    /// It was reported as stuck.
    pub(crate) reported: bool,
}

impl Signals {
    pub(crate) fn get(&self) -> Asked {
        *self.lock()
    }

    pub(crate) fn set<T>(&self, change: impl FnOnce(&mut Asked) -> T) -> T {
        let done = change(&mut self.lock());
        self.changed.notify_all();
        done
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt has said and not yet handed to the store.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) progress: Option<Progress>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) output: Option<String>,
    pub(crate) children: Vec<NewRow>,
    /// How long the attempt has run, once it has ended.
    pub(crate) took: Duration,
    /// Nothing of the job was done: a suspect stays one.
    pub(crate) untried: bool,
    lines: u32,
    noted: Option<Instant>,
}

impl Attempt {
    pub(crate) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> JobId {
        self.claim.map_or(JobId::UNSTORED, |claim| claim.id)
    }

    /// How long it has run, in time that the machine was awake.
    pub(crate) fn elapsed(&self) -> Duration {
        self.jobs.clock().awake().saturating_sub(self.started_awake)
    }

    fn remaining(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.saturating_sub(self.elapsed()))
    }

    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        let asked = self.signals.get();
        if asked.cancel {
            Some(Interrupt::Cancelled)
        } else if asked.abandoned || self.remaining() == Some(Duration::ZERO) {
            Some(Interrupt::TimedOut)
        } else if asked.stop {
            Some(Interrupt::Stopping)
        } else {
            None
        }
    }

    /// Hands progress and lines to the writer, unless that was done a moment ago.
    fn note(&self, said: &mut Said) {
        if said.noted.is_some_and(|at| at.elapsed() < NOTE_EVERY) {
            return;
        }
        let Some(claim) = self.claim else { return };
        said.noted = Some(Instant::now());
        let logs = std::mem::take(&mut said.logs);
        self.jobs.store().note(Note { claim, progress: said.progress.clone(), logs });
    }

    /// What is handed over with the end of the attempt. Children come into being with a completion
    /// only.
    pub(crate) fn finish(&self, verdict: Verdict) -> Option<Finish> {
        let said = self.said();
        let completes = matches!(verdict, Verdict::Complete { .. });
        Some(Finish {
            claim: self.claim?,
            verdict,
            attempt: self.number,
            worker: Arc::clone(&self.worker),
            started_at: self.started_at,
            ended_at: self.jobs.clock().micros(),
            keep: self.keep,
            progress: said.progress.clone(),
            logs: said.logs.clone(),
            children: if completes { said.children.clone() } else { Vec::new() },
            unique: self.unique.clone(),
            limits: self.limits.clone(),
            flow: self.flow,
            keeps_slots: false,
            has_steps: self.may_have_steps(),
            settle: self.settle.load(Ordering::Acquire),
        })
    }
}

impl<S> Context<S> {
    pub(crate) fn new(attempt: Arc<Attempt>, state: Arc<S>) -> Context<S> {
        Context { attempt, state }
    }

    /// What the app hands to its jobs.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The handle that the job came from.
    pub fn jobs(&self) -> &Jobs {
        &self.attempt.jobs
    }

    /// The job's id; [`JobId::UNSTORED`] in `perform_now`.
    pub fn id(&self) -> JobId {
        self.attempt.id()
    }

    /// The number of this attempt, from 1. Attempts that were interrupted by a stop or a crash,
    /// and snoozes, use up no number.
    pub fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// The job's free keys and values.
    pub fn meta(&self) -> &BTreeMap<String, String> {
        &self.attempt.meta
    }

    /// Goes on, or says why not: the job was cancelled, the attempt is out of time, the engine is
    /// stopping. Call it between steps of long work and pass the error on with `?`.
    ///
    /// # Errors
    /// The [`Interrupt`]; returned from `perform` it ends the job as cancelled, the attempt as
    /// failed, or gives the job back uncounted.
    pub fn checkpoint(&self) -> Result<(), Interrupt> {
        match self.attempt.interrupt() {
            Some(interrupt) => Err(interrupt),
            None => Ok(()),
        }
    }

    /// Whether the job should stop soon, for whatever reason [`checkpoint`](Context::checkpoint)
    /// would give.
    pub fn cancelled(&self) -> bool {
        self.attempt.interrupt().is_some()
    }

    /// The attempt's time-out; `None` if it has none.
    pub fn timeout(&self) -> Option<Duration> {
        self.attempt.timeout
    }

    /// What is left of the attempt's time-out, for the time-outs of calls that it makes; `None`
    /// if it has none. Counts only time that the machine is awake.
    pub fn remaining(&self) -> Option<Duration> {
        self.attempt.remaining()
    }

    /// Waits for `period`, or less if the job should stop.
    ///
    /// # Errors
    /// Like [`checkpoint`](Context::checkpoint), as soon as there is a reason.
    pub fn wait(&self, period: Duration) -> Result<(), Interrupt> {
        let until = Instant::now().checked_add(period);
        let signals = &self.attempt.signals;
        let mut asked = signals.lock();
        loop {
            if asked.cancel || asked.stop || asked.abandoned {
                drop(asked);
                return self.checkpoint();
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                drop(asked);
                return self.checkpoint();
            }
            let overdue = self.attempt.remaining();
            if overdue == Some(Duration::ZERO) {
                return Err(Interrupt::TimedOut);
            }
            let wait = left.into_iter().chain(overdue).min().unwrap_or(Duration::from_secs(3600));
            asked =
                signals.changed.wait_timeout(asked, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the job is there for was not begun: an attempt that snoozes then has proven nothing, and a
    /// suspect stays one.
    #[cfg(feature = "cli")]
    pub(crate) fn has_not_begun(&self) {
        self.attempt.said().untried = true;
    }

    /// Reports progress: `done` of `total` units (0: unknown). The last value wins; it is told to
    /// [`events`](Jobs::events) at once and written to the file at most four times a second, and
    /// at the end.
    pub fn progress(&self, done: u64, total: u64) {
        self.change_progress(|progress| {
            progress.done = done;
            progress.total = total;
        });
    }

    /// Says what the job is doing, beside its progress; at most 1 KiB is kept.
    pub fn message(&self, message: impl Display) {
        let message = text::cut(&message.to_string(), text::MESSAGE_BYTES);
        self.change_progress(|progress| progress.message = Some(message));
    }

    /// Reports progress and message in one, so that nobody sees the one without the other. Without a
    /// message the last one stays. Told and written as by [`progress`](Context::progress).
    ///
    /// ```no_run
    /// # use legwork::{Context, Progress};
    /// # fn perform(cx: &Context<()>) {
    /// cx.report(Progress { done: 3, total: 12, message: Some("chapter 3".to_owned()) });
    /// # }
    /// ```
    pub fn report(&self, report: Progress) {
        let message = report.message.map(|message| text::cut(&message, text::MESSAGE_BYTES));
        self.change_progress(|progress| {
            (progress.done, progress.total) = (report.done, report.total);
            progress.message = message.or_else(|| progress.message.take());
        });
    }

    fn change_progress(&self, change: impl FnOnce(&mut Progress)) {
        let mut said = self.attempt.said();
        change(said.progress.get_or_insert_default());
        let progress = said.progress.clone().unwrap_or_default();
        self.attempt.note(&mut said);
        drop(said);
        let id = self.id();
        self.attempt.jobs.tell(|| Event::Progress { id, progress });
    }

    /// Writes a line to the job's log, kept with the job: at most 4 KiB a line and 1,000 lines an
    /// attempt, cut visibly.
    pub fn log(&self, line: impl Display) {
        let mut said = self.attempt.said();
        said.lines += 1;
        let line = match said.lines {
            n if n < text::LOG_LINES => text::cut(&line.to_string(), text::LOG_LINE_BYTES),
            n if n == text::LOG_LINES => "… (no more lines are kept of this attempt)".to_owned(),
            _ => return,
        };
        let at = from_micros(self.attempt.jobs.clock().micros());
        // Its number is the file's to give.
        said.logs.push(LogLine { attempt: self.attempt.number, at, line, number: 0 });
        self.attempt.note(&mut said);
    }

    /// Puts out a value, kept with the job once it completes and read with
    /// [`Jobs::output`]. The last one wins.
    ///
    /// # Errors
    /// [`Error::Json`] if it cannot be serialized, [`Error::Invalid`] if it has more than 1 MiB.
    pub fn output<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let json = serde_json::to_string(value)
            .map_err(|source| Error::Json { what: "output", source })?;
        if json.len() > text::OUTPUT_BYTES {
            return Err(Error::invalid(
                "output",
                format!(
                    "it has {} bytes of JSON, at most {} are kept",
                    json.len(),
                    text::OUTPUT_BYTES
                ),
            ));
        }
        self.attempt.said().output = Some(json);
        Ok(())
    }

    /// Enqueues a job at once, whatever becomes of this one.
    ///
    /// # Errors
    /// As [`Jobs::enqueue`].
    pub fn enqueue(&self, job: impl Into<NewJob>) -> Result<JobId> {
        self.attempt.jobs.enqueue(job)
    }

    /// Enqueues a job in the same transaction as this one's end, if that end is a completion (by
    /// return or by [`finish_in`](Context::finish_in)): both or neither. A job that fails,
    /// snoozes or is interrupted enqueues nothing. One whose unique key is taken by then is not
    /// enqueued, or replaces the one that has it; the end is recorded all the same. If it was to be
    /// refused, a line of the log and [`Event::NotUnique`](crate::Event::NotUnique) say so. If a parent that
    /// it names is deleted before the end, the end cannot be recorded, and this job fails by that.
    ///
    /// # Errors
    /// As [`Jobs::enqueue`], for what can be known before the end.
    pub fn enqueue_with_finish(&self, job: impl Into<NewJob>) -> Result<()> {
        let row = self.attempt.jobs.prepare(job.into())?;
        self.with_finish(row)
    }

    /// The flow whose member the job is, or that it is a callback of.
    ///
    /// # Errors
    /// Those of reading.
    pub fn flow(&self) -> Result<Option<FlowId>> {
        match self.attempt.flow {
            Some(flow) => Ok(Some(FlowId(flow))),
            None => self.attempt.jobs.store().called_by(self.id()),
        }
    }

    /// Adds a job to the flow of this one, in the same transaction as this one's end, if that end is a
    /// completion; see [`enqueue_with_finish`](Context::enqueue_with_finish). To add it at once, whatever
    /// becomes of this one: [`Jobs::add_to_flow`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if this job is no member of a flow; as [`Jobs::enqueue`], for what can be known
    /// before the end.
    pub fn enqueue_member(&self, job: impl Into<NewJob>) -> Result<()> {
        let Some(flow) = self.attempt.flow else {
            return Err(Error::invalid("member", "this job is no member of a flow"));
        };
        let row = self.attempt.jobs.prepare_member(FlowId(flow), job.into())?;
        self.with_finish(row)
    }

    fn with_finish(&self, mut row: NewRow) -> Result<()> {
        for &parent in &row.parents {
            self.attempt.jobs.get(parent)?;
        }
        row.report_conflict();
        self.attempt.said().children.push(row);
        Ok(())
    }

    /// The jobs that this one has waited for, with what they have put out; by rising id. Those of a
    /// flow are kept as long as it is, others for their retention.
    ///
    /// # Errors
    /// Those of reading.
    pub fn parents(&self) -> Result<Vec<JobRecord>> {
        self.attempt.jobs.parents(self.id())
    }

    /// What the parent of this kind has put out; of several, the one that was enqueued first. `None`: no
    /// parent is of this kind, or it has put out nothing.
    ///
    /// ```no_run
    /// # use legwork::{Context, JobResult, Outcome};
    /// # fn perform(cx: &Context<()>) -> JobResult {
    /// let transaction: Option<String> = cx.parent_output("charge")?;
    /// # Ok(Outcome::Done) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Json`] if it does not fit `T`.
    pub fn parent_output<T: DeserializeOwned>(&self, kind: &str) -> Result<Option<T>> {
        let parents = self.parents()?;
        let output = parents.into_iter().find(|job| job.kind == kind).and_then(|job| job.output);
        output
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|source| Error::Json { what: "output", source })
    }

    /// Completes the job inside the app's transaction on the same file, so that its effects there
    /// happen exactly once: both or neither. Call it last, commit, and return
    /// [`Outcome::Done`](crate::Outcome::Done).
    ///
    /// Afterwards the file decides, not the return value: if the transaction committed the job is
    /// completed, whatever `perform` returns; if not, the attempt has failed.
    ///
    /// ```no_run
    /// # use legwork::{Context, JobResult, Outcome};
    /// # fn perform(cx: &Context<()>, mut conn: rusqlite::Connection) -> JobResult {
    /// let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    /// tx.execute("UPDATE orders SET paid = 1 WHERE id = ?1", [7])?;
    /// cx.finish_in(&tx)?;
    /// tx.commit()?;
    /// # Ok(Outcome::Done) }
    /// ```
    ///
    /// # Errors
    /// [`Error::LostClaim`] if the job is no longer this attempt's: do not commit.
    /// [`Error::Invalid`] if no transaction is open, [`Error::Foreign`] if the connection is on
    /// another file. In `perform_now` it does nothing.
    pub fn finish_in(&self, tx: &Connection) -> Result<()> {
        let attempt = &self.attempt;
        let output = attempt.said().output.clone();
        let Some(finish) = attempt.finish(Verdict::Complete { output }) else { return Ok(()) };
        attempt.jobs.store().finish_in(tx, &finish)?;
        attempt.settle.store(true, Ordering::Release);
        Ok(())
    }
}
