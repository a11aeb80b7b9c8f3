//! Cron entries from outside an engine: make, remove, look, pause, resume, run now.

use time::OffsetDateTime;

use crate::clock::{Micros, from_micros};
use crate::cron::{self, Cron, CronRecord};
use crate::error::{Error, Result};
use crate::new_job::NewJob;
use crate::rules::cron::Schedule;
use crate::rules::name;
use crate::store::Control;
use crate::store::cron::{CronDone, CronEntry, CronOrder, CronRow};

use super::Jobs;

impl Jobs {
    /// Makes a durable cron entry, or replaces the one of this name: at each tick a copy of the job is
    /// enqueued, by whichever engine in whichever process is first. A delay of the job counts from
    /// the tick's firing. The first tick is the first one from now on; an entry whose expression
    /// and zone stay the same goes on where it was.
    ///
    /// ```
    /// # use legwork::{Cron, Jobs, NewJob};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let sweep = NewJob::of_kind("sweep", serde_json::json!({ "depth": 2 })).queue("night");
    /// jobs.schedule("sweep", Cron::new("30 3 * * *").zone("Europe/Berlin"), sweep)?;
    /// assert_eq!(jobs.crons()?[0].words, jobs.cron("sweep")?.words);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, expression, zone or job, for a job with a fixed start time, and
    /// if an engine's builder has an entry of this name; [`Error::Busy`].
    pub fn schedule(
        &self,
        name: &str,
        cron: impl Into<Cron>,
        job: impl Into<NewJob>,
    ) -> Result<()> {
        let cron = cron.into();
        let job = job.into();
        if job.has_start_time() {
            let why = "a job that is enqueued again and again cannot have one; give it a delay";
            return Err(Error::invalid("start time", why));
        }
        // What is refused now would be refused at each tick.
        let row = job.clone().into_row(self.clock().micros(), self.0.max_args)?;
        if !row.parents.is_empty() {
            let why = "a job that is enqueued again and again has none: one day they are gone";
            return Err(Error::invalid("parents", why));
        }
        let stored = serde_json::to_string(&job)
            .map_err(|source| Error::Json { what: "job of a cron entry", source })?;
        self.put_crons("schedule", vec![entry(name, &cron, Some(stored))?])?;
        log::info!(cron = name, expression = cron.expression.as_str(); "legwork: scheduled");
        Ok(())
    }

    pub(crate) fn put_crons(&self, verb: &'static str, entries: Vec<CronEntry>) -> Result<()> {
        self.cron_order(verb, CronOrder::Put(entries)).map(drop)
    }

    /// Removes a cron entry; jobs that it has enqueued stay. One of an engine's builder comes back
    /// when that engine is started again.
    ///
    /// # Errors
    /// [`Error::UnknownCron`], [`Error::Busy`].
    pub fn unschedule(&self, name: &str) -> Result<()> {
        self.named_order("unschedule", name, CronOrder::Remove)
    }

    /// Keeps an entry from firing, durably, in all processes. What falls into the pause is left out:
    /// no tick of it is missed.
    ///
    /// # Errors
    /// [`Error::UnknownCron`], [`Error::Busy`].
    pub fn pause_cron(&self, name: &str) -> Result<()> {
        self.named_order("pause_cron", name, CronOrder::Pause)
    }

    /// Lets a paused entry fire again, from its next tick on. What had not been fired until then is left
    /// out, missed ticks from before the pause included.
    ///
    /// # Errors
    /// [`Error::UnknownCron`], [`Error::Busy`].
    pub fn resume_cron(&self, name: &str) -> Result<()> {
        self.named_order("resume_cron", name, CronOrder::Resume)
    }

    /// Asks for one run of an entry now, whatever its schedule, pause and overlap say. The request is
    /// durable: an engine that has the entry enqueues one job for it, at once if it runs, in
    /// whatever process, and otherwise when it starts.
    ///
    /// # Errors
    /// [`Error::UnknownCron`], [`Error::Busy`].
    pub fn run_cron(&self, name: &str) -> Result<()> {
        self.named_order("run_cron", name, CronOrder::Ask)
    }

    fn named_order(
        &self,
        verb: &'static str,
        name: &str,
        order: fn(String) -> CronOrder,
    ) -> Result<()> {
        match self.cron_order(verb, order(name.to_owned()))? {
            CronDone::Unknown => Err(Error::UnknownCron(name.to_owned())),
            _ => {
                log::info!(cron = name; "legwork: {verb}");
                Ok(())
            }
        }
    }

    pub(crate) fn cron_order(&self, verb: &'static str, order: CronOrder) -> Result<CronDone> {
        self.refuse_inside_transaction(verb)?;
        Ok(self.0.store.control(Control::Cron(order))?.cron)
    }

    /// All cron entries, by name: those of engines' builders, live or not, and the scheduled ones.
    ///
    /// # Errors
    /// Those of reading.
    pub fn crons(&self) -> Result<Vec<CronRecord>> {
        let now = self.clock().micros();
        Ok(self.0.store.crons()?.into_iter().map(|row| record(row, now)).collect())
    }

    /// One cron entry.
    ///
    /// # Errors
    /// [`Error::UnknownCron`].
    pub fn cron(&self, name: &str) -> Result<CronRecord> {
        Ok(record(self.cron_row(name)?, self.clock().micros()))
    }

    /// The next `count` ticks of an entry, in UTC, as if it were not paused.
    ///
    /// # Errors
    /// [`Error::UnknownCron`].
    pub fn cron_next(&self, name: &str, count: usize) -> Result<Vec<OffsetDateTime>> {
        let row = self.cron_row(name)?;
        let schedule = Schedule::parse(&row.expression, &row.zone)?;
        Ok(cron::ticks(&schedule, row.anchor, self.clock().micros(), count))
    }

    fn cron_row(&self, name: &str) -> Result<CronRow> {
        self.0.store.cron(name)?.ok_or_else(|| Error::UnknownCron(name.to_owned()))
    }
}

/// A checked entry, for the file.
pub(crate) fn entry(name: &str, cron: &Cron, job: Option<String>) -> Result<CronEntry> {
    name::check("cron name", name)?;
    let schedule = cron.schedule()?;
    Ok(CronEntry {
        name: name.to_owned(),
        expression: schedule.expression().to_owned(),
        zone: schedule.zone().to_owned(),
        missed: cron.missed,
        overlap: cron.overlap,
        job,
    })
}

fn record(row: CronRow, now: Micros) -> CronRecord {
    // Another version may know expressions that this one does not; and a zone may have gone.
    let schedule = Schedule::parse(&row.expression, &row.zone);
    let next = schedule.as_ref().ok().filter(|_| !row.paused);
    let kind = row.job.as_deref().map(|job| {
        let job: Result<NewJob, _> = serde_json::from_str(job);
        job.map_or_else(|_| String::new(), |job| job.kind().to_owned())
    });
    CronRecord {
        words: match &schedule {
            Ok(schedule) => schedule.words(),
            Err(error) => error.to_string(),
        },
        next: next.and_then(|schedule| schedule.next_from(row.anchor, now)).map(from_micros),
        name: row.name,
        expression: row.expression,
        zone: row.zone,
        missed: row.missed,
        overlap: row.overlap,
        kind,
        paused: row.paused,
        last_tick: row.last_tick.map(from_micros),
        last_job: row.last_job,
        runs_asked: row.runs_asked.unsigned_abs(),
    }
}
