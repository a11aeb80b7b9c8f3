//! Cron entries as an engine serves them: who makes the jobs, and the pass that fires what is due.
//!
//! Any engine that has an entry may fire it: the store settles who was first. So a pass reads the
//! entries, decides by the rules, and posts each with what it saw; whoever comes second finds the
//! entry changed and does nothing.

pub(super) mod thread;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use time::format_description::well_known::Rfc3339;

use crate::clock::{Micros, from_micros};
use crate::cron::Cron;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::failure::Failure;
use crate::jobs::Jobs;
use crate::jobs::cron::entry;
use crate::new_job::{NewJob, NewRow};
use crate::rules::cron::Schedule;
use crate::rules::cron::misfire::{self, Due, Settled};
use crate::store::cron::{CronDone, CronEntry, CronOrder, CronRow, Fire};

pub(super) type Make = Arc<dyn Fn() -> NewJob + Send + Sync>;

/// Ticks settled in one transaction.
const BITE: usize = 200;

/// An entry as the builder was given it.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) cron: Cron,
    pub(super) make: Make,
}

/// The entries that an engine has, and what it remembers of the others.
pub(super) struct Crons {
    own: HashMap<String, Planned>,
    /// By expression and zone; `None`: it is not understood here.
    parsed: Mutex<HashMap<(String, String), Option<Schedule>>>,
    /// Serves nothing at all.
    off: bool,
}

/// What a pass has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// There are entries to serve.
    pub(super) serves: bool,
    /// The next tick of one of them.
    pub(super) next: Option<Micros>,
}

impl Crons {
    /// # Errors
    /// [`Error::Invalid`] for a bad name, expression or zone, and for a name given twice.
    pub(super) fn new(planned: Vec<Planned>, off: bool) -> Result<Crons> {
        let mut own = HashMap::new();
        for mut planned in planned {
            let checked = entry(&planned.name, &planned.cron, None)
                .map_err(|error| of_entry(&planned.name, error))?;
            planned.cron = planned.cron.spelled(checked.expression, checked.zone);
            if let Some(twice) = own.insert(planned.name.clone(), planned) {
                let why = format!("there are two entries called {:?}", twice.name);
                return Err(Error::invalid("cron name", why));
            }
        }
        Ok(Crons { own, parsed: Mutex::default(), off })
    }

    pub(super) fn has_own(&self) -> bool {
        !self.own.is_empty() && !self.off
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    /// Writes the builder's entries to the file, where they differ.
    pub(super) fn register(&self, jobs: &Jobs) -> Result<()> {
        if !self.has_own() {
            return Ok(());
        }
        let mut entries = self
            .own
            .values()
            .map(|planned| entry(&planned.name, &planned.cron, None))
            .collect::<Result<Vec<CronEntry>>>()?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        jobs.put_crons("start", entries)
    }

    /// Fires what is due. The trouble of one entry keeps no other from its ticks.
    ///
    /// # Errors
    /// The first trouble.
    pub(super) fn pass(&self, jobs: &Jobs) -> Result<Passed> {
        let mut passed = Passed::default();
        if self.off {
            return Ok(passed);
        }
        let mut trouble = None;
        for row in jobs.store().crons()? {
            if let Err(error) = self.pass_entry(jobs, row, &mut passed) {
                trouble.get_or_insert(error);
            }
        }
        trouble.map_or(Ok(passed), Err)
    }

    fn pass_entry(&self, jobs: &Jobs, row: CronRow, passed: &mut Passed) -> Result<()> {
        let name = row.name.clone();
        let mut row = Some(row);
        while let Some(seen) = row {
            let Some(source) = self.source(&seen) else { break };
            passed.serves = true;
            match (Serving { jobs, crons: self, source }).serve(seen)? {
                Served::Until(next) => {
                    passed.next = passed.next.into_iter().chain(next).min();
                    break;
                }
                Served::Stale => row = jobs.store().cron(&name)?,
            }
        }
        Ok(())
    }

    /// Who makes the entry's jobs; `None`: nobody here. An entry of a builder whose expression has
    /// been changed by a newer build is that build's.
    fn source(&self, row: &CronRow) -> Option<Source> {
        if let Some(stored) = &row.job {
            return Some(Source::Stored(stored.clone()));
        }
        let own = self.own.get(&row.name)?;
        let same = own.cron.expression == row.expression && own.cron.zone == row.zone;
        same.then(|| Source::Made(Arc::clone(&own.make)))
    }

    /// The schedule of an entry, parsed once.
    fn schedule(&self, row: &CronRow) -> Option<Schedule> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (row.expression.clone(), row.zone.clone());
        let parse = || {
            Schedule::parse(&row.expression, &row.zone)
                .map_err(|error| log::error!(cron = row.name.as_str(); "legwork: {error}"))
                .ok()
        };
        parsed.entry(key).or_insert_with(parse).clone()
    }
}

/// Where an entry's jobs come from.
enum Source {
    Made(Make),
    Stored(String),
}

impl Source {
    fn make(&self) -> Result<NewJob, String> {
        match self {
            Source::Made(make) => Ok(make()),
            Source::Stored(stored) => serde_json::from_str(stored)
                .map_err(|error| format!("its stored job cannot be read: {error}")),
        }
    }
}

/// What came of serving an entry.
enum Served {
    /// All is settled until this tick; `None`: it has no next one.
    Until(Option<Micros>),
    /// Somebody else was first: it is no longer as it was seen.
    Stale,
}

/// One entry on its way through a pass.
struct Serving<'a> {
    jobs: &'a Jobs,
    crons: &'a Crons,
    source: Source,
}

impl Serving<'_> {
    /// Serves the runs that were asked for and the ticks that are due.
    fn serve(&self, mut row: CronRow) -> Result<Served> {
        let schedule = self.crons.schedule(&row);
        while row.runs_asked > 0 {
            match self.run(row)? {
                Some(now) => row = now,
                None => return Ok(Served::Stale),
            }
        }
        let Some(schedule) = schedule.filter(|_| !row.paused) else {
            return Ok(Served::Until(None));
        };
        let now = self.jobs.clock().micros();
        let due = misfire::due(&schedule, row.missed, row.settled, now, row.anchor);
        // A clock that was set back opens again what was settled ahead of it: that is to be kept too.
        if due.ticks.is_empty() && due.missed == 0 && due.settled == row.settled {
            return Ok(Served::Until(due.next));
        }
        self.settle(row, due)
    }

    /// Settles ticks, a bite at a time.
    fn settle(&self, mut row: CronRow, due: Due) -> Result<Served> {
        let name = row.name.clone();
        let mut ticks = due.ticks.as_slice();
        let mut missed = due.missed;
        loop {
            let (bite, rest) = ticks.split_at(ticks.len().min(BITE));
            let settled = match bite.last() {
                Some(&last) if !rest.is_empty() => Settled { until: last, ..due.settled },
                _ => due.settled,
            };
            let jobs = bite.iter().map(|&tick| (tick, self.job(&name, Some(tick)))).collect();
            match self.fire(Fire { seen: row, settled, ticks: jobs, runs: Vec::new() })? {
                Some(now) => row = now,
                None => return Ok(Served::Stale),
            }
            // Those that are left out are older than the first of the others.
            self.tell_missed(&name, std::mem::take(&mut missed));
            ticks = rest;
            if ticks.is_empty() {
                return Ok(Served::Until(due.next));
            }
        }
    }

    /// Serves runs that were asked for, a bite of them.
    fn run(&self, row: CronRow) -> Result<Option<CronRow>> {
        let asked = usize::try_from(row.runs_asked).unwrap_or(0);
        let runs = (0..asked.min(BITE)).map(|_| self.job(&row.name, None)).collect();
        self.fire(Fire { settled: row.settled, ticks: Vec::new(), runs, seen: row })
    }

    /// The entry as it is then; `None`: it was not as it was seen.
    fn fire(&self, fire: Fire) -> Result<Option<CronRow>> {
        let rows = fire.ticks.iter().map(|(_, row)| row).chain(&fire.runs);
        let names: Vec<Option<(String, String)>> =
            rows.map(|row| row.as_ref().map(|row| (row.kind.clone(), row.queue.clone()))).collect();
        let done = match self.post(&fire) {
            // The file refuses these jobs: then it would again.
            Err(error @ (Error::Invalid { .. } | Error::Json { .. } | Error::NotFound(_))) => {
                self.tell_failed(&fire.seen.name, error.to_string());
                self.post(&fire.without_jobs())?
            }
            done => done?,
        };
        let CronDone::Fired { jobs, overlapped, now } = done else { return Ok(None) };
        if overlapped > 0 {
            log::info!(cron = now.name.as_str(), ticks = overlapped; "legwork: left out, the last job is not finished");
        }
        for (done, names) in jobs.into_iter().zip(names).filter_map(|(done, names)| done.zip(names))
        {
            self.jobs.tell_inserted(done, || names);
        }
        Ok(Some(*now))
    }

    fn post(&self, fire: &Fire) -> Result<CronDone> {
        self.jobs.cron_order("fire", CronOrder::Fire(Box::new(fire.clone())))
    }

    /// A job for a tick, or for a run that was asked for; `None`, told: it cannot be made.
    fn job(&self, name: &str, tick: Option<Micros>) -> Option<NewRow> {
        let at = tick.and_then(|tick| from_micros(tick).format(&Rfc3339).ok());
        let make = || {
            let job = self.source.make()?.meta("cron", name);
            let job = at.into_iter().fold(job, |job, at| job.meta("cron_tick", at));
            self.jobs.prepare(job).map_err(|error| error.to_string())
        };
        // The app's code, its `on_enqueue` included: a panic must not end the thread.
        catch_unwind(AssertUnwindSafe(make))
            .unwrap_or_else(|panic| Err(Failure::panic(&*panic, None).to_string()))
            .map_err(|error| self.tell_failed(name, error))
            .ok()
    }

    fn tell_missed(&self, name: &str, missed: u64) {
        if missed > 0 {
            log::warn!(cron = name, missed; "legwork: ticks were missed");
            self.jobs.tell(|| Event::CronMissed { name: name.to_owned(), missed });
        }
    }

    fn tell_failed(&self, name: &str, error: String) {
        log::error!(cron = name; "legwork: its job was not enqueued: {error}");
        self.jobs.tell(|| Event::CronFailed { name: name.to_owned(), error });
    }
}

impl Fire {
    /// The same ticks, left out.
    fn without_jobs(&self) -> Fire {
        Fire {
            seen: self.seen.clone(),
            settled: self.settled,
            ticks: self.ticks.iter().map(|(tick, _)| (*tick, None)).collect(),
            runs: self.runs.iter().map(|_| None).collect(),
        }
    }
}

/// An error about an entry, with its name.
fn of_entry(name: &str, error: Error) -> Error {
    match error {
        Error::Invalid { what, why } => Error::invalid(what, format!("of {name:?}: {why}")),
        error => error,
    }
}
