//! Cron entries: the rows, and firing, which settles ticks and inserts their jobs in one transaction.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::book::Book;
use super::demand::Demand;
use super::errors::storing;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::rules::cron::misfire::{Leap, Missed, Overlap, Settled};
use crate::store::cron::{CronDone, CronEntry, CronOrder, CronRow, Fire};
use crate::unique::Enqueued;

const ALL: &str = "
SELECT name, expression, zone, missed, at_most, overlap, job, paused_at, anchor, settled_until,
       leap_from, leap_to, last_tick, last_job, fired, runs_asked
  FROM legwork_cron ORDER BY name";
const ONE: &str = "
SELECT name, expression, zone, missed, at_most, overlap, job, paused_at, anchor, settled_until,
       leap_from, leap_to, last_tick, last_job, fired, runs_asked
  FROM legwork_cron WHERE name = ?1";
const CREATE: &str = "
INSERT INTO legwork_cron (name, expression, zone, missed, at_most, overlap, job, anchor, settled_until)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";
const REPLACE: &str = "
UPDATE legwork_cron
   SET expression = ?2, zone = ?3, missed = ?4, at_most = ?5, overlap = ?6, job = ?7 WHERE name = ?1";
/// Another expression: its ticks are counted from now on.
const ANCHOR: &str = "
UPDATE legwork_cron SET anchor = ?2, settled_until = ?2, leap_from = NULL, leap_to = NULL WHERE name = ?1";
const REMOVE: [&str; 2] =
    ["DELETE FROM legwork_cron WHERE name = ?1", "DELETE FROM legwork_ticks WHERE name = ?1"];
const PAUSE: &str = "UPDATE legwork_cron SET paused_at = coalesce(paused_at, ?2) WHERE name = ?1";
/// The ticks of the pause are settled.
const RESUME: &str = "
UPDATE legwork_cron SET paused_at = NULL, settled_until = ?2, leap_from = NULL, leap_to = NULL
 WHERE name = ?1 AND paused_at IS NOT NULL";
const ASK: &str = "UPDATE legwork_cron SET runs_asked = runs_asked + 1 WHERE name = ?1";
const SETTLE: &str = "
UPDATE legwork_cron
   SET settled_until = ?2, leap_from = ?3, leap_to = ?4, last_tick = ?5, last_job = ?6, fired = ?7,
       runs_asked = ?8
 WHERE name = ?1";
const WRITE_TICK: &str =
    "INSERT OR IGNORE INTO legwork_ticks (name, tick, job) VALUES (?1, ?2, ?3)";
/// Whether a tick was fired: as a row of its own, or within a run of them.
pub(super) const HAS_TICK: &str = "
SELECT coalesce(since, tick) <= ?2 FROM legwork_ticks
 WHERE name = ?1 AND tick >= ?2 ORDER BY tick LIMIT 1";
/// The ticks up to ?2, but for the newest of them. (Those beyond it were fired by a clock that was
/// wrong, and are not the oldest whatever their number.)
pub(super) const OLD_TICKS: &str = "
SELECT coalesce(since, tick), tick FROM legwork_ticks
 WHERE name = ?1
   AND tick < (SELECT tick FROM legwork_ticks WHERE name = ?1 AND tick <= ?2
                ORDER BY tick DESC LIMIT 1 OFFSET (?3+0))
 ORDER BY tick";
pub(super) const DELETE_TICKS: &str =
    "DELETE FROM legwork_ticks WHERE name = ?1 AND tick BETWEEN ?2 AND ?3";
const WRITE_RUN: &str = "INSERT INTO legwork_ticks (name, since, tick) VALUES (?1, ?2, ?3)";
/// The job of the newest tick that was not left out.
const LAST_TICKS_JOB: &str = "
SELECT job FROM legwork_ticks WHERE name = ?1 AND job IS NOT NULL ORDER BY tick DESC LIMIT 1";
const IS_LIVE: &str = "SELECT 1 FROM legwork_jobs WHERE id = ?1";

/// Raised by every change that engines must learn of; ticks are no such change.
const RAISE_STAMP: &str = "
INSERT INTO legwork_meta (key, value) VALUES ('cron_changes', 1)
ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value";
pub(super) const READ_STAMP: &str = "SELECT value FROM legwork_meta WHERE key = 'cron_changes'";

/// So many of an entry's newest ticks have rows of their own.
const TICKS_KEPT: i64 = 4_096;
/// The others are put together each time that so many have been fired.
const MERGE_EVERY: i64 = 64;
/// Old ticks that follow each other more closely than that are one run.
const ONE_RUN: Micros = 86_400_000_000;
/// So many runs are remembered. One begins when nothing was fired for a day.
const RUNS_KEPT: usize = 4_096;

/// All entries, by name.
pub(super) fn rows(conn: &Connection) -> Result<Vec<CronRow>> {
    let mut ask = conn.prepare_cached(ALL).map_err(storing)?;
    ask.query_map([], from_row).and_then(Iterator::collect).map_err(storing)
}

/// One entry.
pub(super) fn row(conn: &Connection, name: &str) -> Result<Option<CronRow>> {
    let mut ask = conn.prepare_cached(ONE).map_err(storing)?;
    ask.query_row([name], from_row).optional().map_err(storing)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<CronRow> {
    let missed: String = row.get(3)?;
    let overlap: String = row.get(5)?;
    let leap: (Option<Micros>, Option<Micros>) = (row.get(10)?, row.get(11)?);
    let leap = leap.0.zip(leap.1).map(|(from, to)| Leap { from, to });
    Ok(CronRow {
        name: row.get(0)?,
        expression: row.get(1)?,
        zone: row.get(2)?,
        missed: match missed.as_str() {
            "skip" => Missed::Skip,
            "all" => Missed::All { at_most: row.get(4)? },
            _ => Missed::Once,
        },
        overlap: if overlap == "skip" { Overlap::Skip } else { Overlap::Allow },
        job: row.get(6)?,
        paused: row.get::<_, Option<Micros>>(7)?.is_some(),
        anchor: row.get(8)?,
        settled: Settled { until: row.get(9)?, leap },
        last_tick: row.get(12)?,
        last_job: row.get::<_, Option<i64>>(13)?.map(JobId),
        fired: row.get(14)?,
        runs_asked: row.get(15)?,
    })
}

fn words(missed: Missed, overlap: Overlap) -> (&'static str, Option<u32>, &'static str) {
    let (missed, at_most) = match missed {
        Missed::Skip => ("skip", None),
        Missed::Once => ("once", None),
        Missed::All { at_most } => ("all", Some(at_most)),
    };
    let overlap = match overlap {
        Overlap::Allow => "allow",
        Overlap::Skip => "skip",
    };
    (missed, at_most, overlap)
}

impl Book {
    /// Does what is ordered.
    pub(super) fn cron(&mut self, order: &CronOrder, now: Micros) -> Result<CronDone> {
        let done = match order {
            CronOrder::Put(entries) => self.put_crons(entries, now),
            CronOrder::Remove(name) => self.remove_cron(name),
            CronOrder::Pause(name) => self.change_cron(PAUSE, name, Some(now)),
            CronOrder::Resume(name) => self.resume_cron(name, now),
            CronOrder::Ask(name) => self.change_cron(ASK, name, None),
            CronOrder::Fire(fire) => self.fire(fire, now),
        };
        if done.is_err() {
            // What was raised is rolled back: the next value seen is a new one.
            self.cron_stamp = -1;
        }
        done
    }

    fn put_crons(&mut self, entries: &[CronEntry], now: Micros) -> Result<CronDone> {
        let mut changed = false;
        for entry in entries {
            changed |= self.put_cron(entry, now)?;
        }
        if changed {
            self.crons_changed()?;
        }
        Ok(CronDone::Done)
    }

    /// `true`: something has changed.
    fn put_cron(&mut self, entry: &CronEntry, now: Micros) -> Result<bool> {
        let (missed, at_most, overlap) = words(entry.missed, entry.overlap);
        let CronEntry { name, expression, zone, job, .. } = entry;
        let Some(old) = row(&self.conn, name)? else {
            self.conn
                .execute(
                    CREATE,
                    params![name, expression, zone, missed, at_most, overlap, job, now],
                )
                .map_err(storing)?;
            return Ok(true);
        };
        match (&old.job, job) {
            (None, Some(_)) => {
                let why = format!("an engine's builder has an entry called {name:?}; take another");
                return Err(Error::invalid("cron name", why));
            }
            (Some(_), None) => {
                log::warn!(cron = name.as_str(); "legwork: an entry of the program takes the place of a scheduled one");
            }
            _ => {}
        }
        let same_times = (&old.expression, &old.zone) == (expression, zone);
        let same_policies = (old.missed, old.overlap) == (entry.missed, entry.overlap);
        if same_times && same_policies && old.job == *job {
            return Ok(false);
        }
        self.conn
            .execute(REPLACE, params![name, expression, zone, missed, at_most, overlap, job])
            .map_err(storing)?;
        if !same_times {
            self.conn.execute(ANCHOR, params![name, now]).map_err(storing)?;
        }
        Ok(true)
    }

    fn remove_cron(&mut self, name: &str) -> Result<CronDone> {
        let mut removed = 0;
        for sql in REMOVE {
            removed += self.conn.execute(sql, [name]).map_err(storing)?;
        }
        if removed == 0 {
            return Ok(CronDone::Unknown);
        }
        self.crons_changed()?;
        Ok(CronDone::Done)
    }

    fn change_cron(&mut self, sql: &str, name: &str, at: Option<Micros>) -> Result<CronDone> {
        let changed = match at {
            Some(at) => self.conn.execute(sql, params![name, at]),
            None => self.conn.execute(sql, [name]),
        };
        if changed.map_err(storing)? == 0 {
            return Ok(CronDone::Unknown);
        }
        self.crons_changed()?;
        Ok(CronDone::Done)
    }

    fn resume_cron(&mut self, name: &str, now: Micros) -> Result<CronDone> {
        match row(&self.conn, name)? {
            None => Ok(CronDone::Unknown),
            Some(row) if !row.paused => Ok(CronDone::Done),
            Some(_) => self.change_cron(RESUME, name, Some(now)),
        }
    }

    /// Settles ticks: writes each that nobody has written yet, with its job, and the entry as it is
    /// then. Whoever comes second finds the entry changed, and does nothing.
    fn fire(&mut self, fire: &Fire, now: Micros) -> Result<CronDone> {
        let Some(mut row) = row(&self.conn, &fire.seen.name)? else {
            return Ok(CronDone::Stale);
        };
        if row != fire.seen {
            return Ok(CronDone::Stale);
        }
        let (mut jobs, mut overlapped) = (Vec::new(), 0);
        for (tick, job) in &fire.ticks {
            if self.has_tick(&row.name, *tick)? {
                jobs.push(None);
                continue;
            }
            let overlaps = row.overlap == Overlap::Skip && self.overlaps(&row)?;
            let done = match job {
                Some(_) if overlaps => {
                    overlapped += 1;
                    None
                }
                Some(job) => self.insert_fired(job, now)?,
                None => None,
            };
            let id = done.as_ref().and_then(of_tick);
            self.write_tick(&row.name, *tick, id)?;
            jobs.push(done);
            row.last_job = id.or(row.last_job);
            row.last_tick = Some(*tick);
            row.fired += 1;
            if row.fired % MERGE_EVERY == 0 {
                self.merge_ticks(&row.name, *tick)?;
            }
        }
        for job in &fire.runs {
            let done = match job {
                Some(job) => self.insert_fired(job, now)?,
                None => None,
            };
            row.last_job = done.as_ref().and_then(of_tick).or(row.last_job);
            jobs.push(done);
        }
        row.runs_asked -= fire.runs.len() as i64;
        row.settled = fire.settled;
        self.settle_cron(&row)?;
        Ok(CronDone::Fired { jobs, overlapped, now: Box::new(row) })
    }

    /// Enqueues the job of a tick or of a run; a refusal for its unique key is an answer.
    fn insert_fired(&mut self, job: &NewRow, now: Micros) -> Result<Option<Enqueued>> {
        let mut nobody_waits = Demand::new(Vec::new(), now);
        let mut job = job.clone();
        job.report_conflict();
        let done = self.insert(std::slice::from_ref(&job), &mut nobody_waits)?;
        done.first().copied().ok_or(Error::Poisoned).map(Some)
    }

    /// Whether the job of the last tick has not finished, or that of a run that was asked for since.
    fn overlaps(&self, row: &CronRow) -> Result<bool> {
        if self.is_live(row.last_job)? {
            return Ok(true);
        }
        let mut ask = self.conn.prepare_cached(LAST_TICKS_JOB).map_err(storing)?;
        let job = ask.query_row([&row.name], |row| row.get(0)).optional().map_err(storing)?;
        self.is_live(job.map(JobId))
    }

    fn has_tick(&self, name: &str, tick: Micros) -> Result<bool> {
        let mut ask = self.conn.prepare_cached(HAS_TICK).map_err(storing)?;
        let fired = ask.query_row(params![name, tick], |row| row.get(0)).optional();
        Ok(fired.map_err(storing)?.unwrap_or(false))
    }

    fn is_live(&self, job: Option<JobId>) -> Result<bool> {
        let Some(job) = job else { return Ok(false) };
        let mut ask = self.conn.prepare_cached(IS_LIVE).map_err(storing)?;
        ask.exists([job.0]).map_err(storing)
    }

    fn write_tick(&self, name: &str, tick: Micros, job: Option<JobId>) -> Result<()> {
        self.conn
            .prepare_cached(WRITE_TICK)
            .and_then(|mut write| write.execute(params![name, tick, job.map(|job| job.0)]))
            .map(drop)
            .map_err(storing)
    }

    /// Puts the old ticks together: a row for each run of them. So it is known for good what was
    /// fired, however far back the clock is set, in rows that hardly grow.
    fn merge_ticks(&self, name: &str, newest: Micros) -> Result<()> {
        let mut ask = self.conn.prepare_cached(OLD_TICKS).map_err(storing)?;
        let old = ask
            .query_map(params![name, newest, TICKS_KEPT - 1], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(storing)?;
        let runs = runs_of(&old);
        let forgotten = runs.len().saturating_sub(RUNS_KEPT);
        let mut delete = self.conn.prepare_cached(DELETE_TICKS).map_err(storing)?;
        let mut write = self.conn.prepare_cached(WRITE_RUN).map_err(storing)?;
        for (at, run) in runs.iter().enumerate() {
            let is_forgotten = at < forgotten;
            if run.rows > 1 || is_forgotten {
                delete.execute(params![name, run.first, run.last]).map_err(storing)?;
            }
            if run.rows > 1 && !is_forgotten {
                write.execute(params![name, run.first, run.last]).map_err(storing)?;
            }
        }
        Ok(())
    }

    fn settle_cron(&self, row: &CronRow) -> Result<()> {
        self.conn
            .prepare_cached(SETTLE)
            .and_then(|mut settle| {
                settle.execute(params![
                    row.name,
                    row.settled.until,
                    row.settled.leap.map(|leap| leap.from),
                    row.settled.leap.map(|leap| leap.to),
                    row.last_tick,
                    row.last_job.map(|job| job.0),
                    row.fired,
                    row.runs_asked
                ])
            })
            .map(drop)
            .map_err(storing)
    }

    /// Engines, here and elsewhere, must look at the entries again.
    fn crons_changed(&mut self) -> Result<()> {
        let stamp = self.conn.query_row(RAISE_STAMP, [], |row| row.get(0)).map_err(storing)?;
        self.cron_stamp = stamp;
        self.cron_news = true;
        self.rules_changed();
        Ok(())
    }

    /// Looks whether others have changed entries. `anew`: somebody here has yet to hear of any.
    pub(super) fn read_cron_stamp(&mut self, anew: bool) -> Result<()> {
        let mut ask = self.conn.prepare_cached(READ_STAMP).map_err(storing)?;
        let stamp: Option<i64> = ask.query_row([], |row| row.get(0)).optional().map_err(storing)?;
        if let Some(stamp) = stamp {
            self.cron_news |= anew || stamp != self.cron_stamp;
            self.cron_stamp = stamp;
        }
        Ok(())
    }

    /// Whether entries have changed since the last call.
    pub(super) fn take_cron_news(&mut self) -> bool {
        std::mem::take(&mut self.cron_news)
    }
}

/// Ticks that followed each other, from the first to the last.
struct Run {
    first: Micros,
    last: Micros,
    /// How many rows they are.
    rows: usize,
}

/// Rows of ticks and runs, the oldest first, as runs.
fn runs_of(old: &[(Micros, Micros)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &(first, last) in old {
        match runs.last_mut() {
            Some(run) if first.saturating_sub(run.last) <= ONE_RUN => {
                run.last = last;
                run.rows += 1;
            }
            _ => runs.push(Run { first, last, rows: 1 }),
        }
    }
    runs
}

/// The job that a tick has, perhaps one that was there; `None`: it was refused.
fn of_tick(done: &Enqueued) -> Option<JobId> {
    match done {
        Enqueued::Rejected { .. } => None,
        done => Some(done.id()),
    }
}
