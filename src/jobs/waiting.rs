//! Changes of jobs that wait: reschedule, run now, edit; and new jobs after others.

use std::sync::Arc;

use time::OffsetDateTime;

use super::Jobs;
use crate::clock::to_micros;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::new_job::{Edit, check_start};
use crate::record::{Changed, Cloned, Selection};
use crate::store::Control;

impl Jobs {
    /// Gives jobs that wait another time from which they may run. One that lies ahead makes them wait for
    /// it: a retrying job goes on retrying, others become scheduled. One that has come makes them ready, in
    /// claim order before jobs with a later time. A blocked job gets the time and waits on for the rest. Attempts used up stay as they are, and an expiry
    /// counts from the new time (from now, if that is later). The
    /// [lifecycle page](crate::guide::lifecycle#reschedule-run-now) has it as a table.
    ///
    /// ```
    /// # use legwork::{Filter, Jobs, NewJob, State};
    /// # use serde_json::json;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let id = jobs.enqueue(NewJob::of_kind("report", json!({})))?;
    /// let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::DAY;
    /// jobs.reschedule(id, tomorrow)?;
    /// assert_eq!(jobs.get(id)?.state, State::Scheduled);
    /// // All that wait for a retry, in an hour.
    /// let later = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    /// jobs.reschedule(Filter::new().state(State::Retrying), later)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time after the year 9999. For one id: [`Error::NotFound`],
    /// [`Error::WrongState`] if it has finished, runs, or is in the hands of a process that may start it at
    /// any moment. Several and filters skip such jobs.
    pub fn reschedule(&self, which: impl Into<Selection>, at: OffsetDateTime) -> Result<Changed> {
        let at = to_micros(at);
        check_start(at)?;
        self.change(which.into(), "reschedule", |ids| Control::Reschedule(ids, at))
    }

    /// Lets jobs that wait for their time run now. Unlike [`retry`](Jobs::retry) it keeps the count: a job
    /// that has failed twice is at its third attempt, and pauses the longer if that fails, too. A blocked
    /// job whose time lies ahead no longer waits for that, but for the rest.
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it does not wait for its time: ready,
    /// running, blocked by something else, or finished (that is for [`retry`](Jobs::retry) and
    /// [`clone_jobs`](Jobs::clone_jobs)). Several and filters skip such jobs.
    pub fn run_now(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "run now", Control::RunNow)
    }

    /// Changes what jobs that wait are made of. Their state stays, save that they enter the lines of
    /// [limits](crate::guide::limits) anew if their place in the queue or their arguments are others.
    /// What is stored of their [steps](crate::guide::resumable) stays;
    /// [`retry_from_scratch`](Jobs::retry_from_scratch) forgets it.
    ///
    /// With the arguments the keys of limits that are made of them change, and so does a unique key that is.
    /// The arguments are not tried: [`EngineBuilder::check`](crate::EngineBuilder::check) does that.
    ///
    /// ```
    /// # use legwork::{Edit, Jobs, NewJob};
    /// # use serde_json::json;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let id = jobs.enqueue(NewJob::of_kind("mail", json!({ "to": "ann@exampel.org" })))?;
    /// jobs.edit(id, Edit::new().args(json!({ "to": "ann@example.org" })).priority(-1))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for an edit that changes nothing, a bad name, arguments that are no JSON or too
    /// large. For one id: [`Error::NotFound`]; [`Error::WrongState`] if it has finished, runs, or is in the
    /// hands of a process that may start it at any moment; [`Error::NotUnique`] if another job has the key
    /// that the new arguments make; [`Error::Invalid`] if nobody knows how its key was made of them, or if
    /// they make none. Several and filters skip such jobs.
    pub fn edit(&self, which: impl Into<Selection>, edit: Edit) -> Result<Changed> {
        edit.check(self.0.max_args)?;
        let edit = Arc::new(edit);
        self.change(which.into(), "edit", |ids| Control::Edit(ids, Arc::clone(&edit)))
    }

    /// Enqueues a new job for each of these, whatever their state: of the same kind, with the same
    /// arguments, queue, priority, tags, meta, gate, limits and options of its own, ready now. It has no
    /// parents, belongs to no flow and does not expire; its meta tells of which job it is a copy,
    /// as `cloned_from`. Middleware for enqueues is not asked.
    ///
    /// The unique rule holds for it, too: while another job has the key, be it the very job that is to be
    /// cloned, there is no clone. If the key is held for a period, and that is over, the clone takes no new one.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob};
    /// # use serde_json::json;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let id = jobs.enqueue(NewJob::of_kind("report", json!({ "month": 5 })))?;
    /// let copy = jobs.clone_jobs(id)?.ids[0];
    /// assert_eq!(jobs.get(copy)?.meta["cloned_from"], id.to_string());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::NotUnique`]. Several and filters skip such jobs. If a
    /// filter meets an error on the way, what it has cloned before is there.
    pub fn clone_jobs(&self, which: impl Into<Selection>) -> Result<Cloned> {
        let (mut cloned, mut changed) = (Cloned::default(), Changed::default());
        self.change_each(which.into(), "clone", Control::Clone, |done| {
            changed.add(done);
            for job in &done.cloned {
                cloned.ids.push(job.id);
                self.tell_enqueued(job.id, job.kind.clone(), job.queue.clone());
            }
        })?;
        Ok(Cloned { skipped: changed.skipped, not_unique: changed.not_unique, ..cloned })
    }
}
