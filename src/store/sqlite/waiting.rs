//! Jobs that wait, put elsewhere: at another time, at once, into another lane.
//!
//! None of it touches a job that somebody has claimed, be it only ahead: whoever has it may start it at
//! any moment, as it was when it was claimed. (Out of the trays of this process such jobs are taken first.)
//! A job that has left its line, or changed its place, enters it anew by the same rules as a new one.

use rusqlite::{Connection, OptionalExtension, params};

use super::book::Book;
use super::control::finished;
use super::ends::Why;
use super::errors::storing;
use super::expiry;
use super::lanes::{Key, LaneId};
use super::limits;
use super::text;
use super::unique::Held;
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;
use crate::limit::Limits;
use crate::new_job::{LATEST, Retention};
use crate::rules::state::{Change, next};
use crate::state::State;
use crate::store::Controlled;

pub(super) const READ: &str = "
SELECT instance IS NOT NULL, state, lane, priority, run_at, expires_at, unique_key, unique_hold, limits,
       waits_on, crashes IS NOT NULL, attempts = 0 AND first_started_at IS NULL, parents_left IS NOT NULL
  FROM legwork_jobs WHERE id = ?1";
pub(super) const STAND: &str = "
UPDATE legwork_jobs SET state = ?2, run_at = ?3, expires_at = ?4, waits_on = ?5, waits_as = ?6
 WHERE id = ?1 AND instance IS NULL";

/// A job that waits, and that nobody has claimed.
pub(super) struct Waiting {
    pub(super) id: i64,
    state: State,
    pub(super) lane: LaneId,
    pub(super) priority: i64,
    pub(super) run_at: Micros,
    expires_at: Option<Micros>,
    pub(super) unique: Option<Held>,
    pub(super) limits: Option<Limits>,
    /// The line that it is in: it waits there, or is next.
    waits_on: Option<String>,
    pub(super) suspect: bool,
    pub(super) never_started: bool,
    pub(super) has_parents: bool,
}

impl Waiting {
    /// Its state but for limits: in a line it is ready.
    pub(super) fn stands(&self) -> State {
        if self.waits_on.is_some() { State::Ready } else { self.state }
    }

    /// Gives it another time from which it may run; its expiry counts from then, or from now if that is
    /// later.
    fn move_to(&mut self, at: Micros, now: Micros) {
        let within = self.expires_at.map(|expires_at| expires_at.saturating_sub(self.run_at));
        let from = at.max(now);
        self.run_at = at;
        // Later than any time that can be told: never.
        self.expires_at =
            within.map(|within| from.saturating_add(within)).filter(|at| *at <= LATEST);
    }
}

/// `None`: it has finished or is not there. `Some(None)`: somebody has claimed it.
fn read(conn: &Connection, id: i64) -> Result<Option<Option<Waiting>>> {
    conn.prepare_cached(READ)
        .and_then(|mut ask| {
            ask.query_row([id], |row| {
                if row.get(0)? {
                    return Ok(None);
                }
                Ok(Some(Waiting {
                    id,
                    state: State::from_code(row.get(1)?).unwrap_or(State::Blocked),
                    lane: row.get(2)?,
                    priority: row.get(3)?,
                    run_at: row.get(4)?,
                    expires_at: row.get(5)?,
                    unique: Held::from_columns(text::shown(row, 6)?, row.get(7)?),
                    limits: limits::read(text::shown(row, 8)?.as_deref()),
                    waits_on: text::shown(row, 9)?,
                    suspect: row.get(10)?,
                    never_started: row.get(11)?,
                    has_parents: row.get(12)?,
                }))
            })
            .optional()
        })
        .map_err(storing)
}

impl Book {
    /// A job that waits. `None`: it does not, which is noted; one whose time to start is over ends here,
    /// since others may have its key already.
    pub(super) fn waiting(
        &mut self,
        id: JobId,
        now: Micros,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<Option<Waiting>> {
        let Some(live) = read(&self.conn, id.0)? else {
            let finished = finished(&self.conn, id)?;
            done.skipped.push((id, finished.map(|finished| finished.state)));
            return Ok(None);
        };
        let Some(job) = live else {
            done.skipped.push((id, Some(State::Running)));
            return Ok(None);
        };
        if job.expires_at.is_some_and(|at| at <= now) {
            self.end_waiting(id.0, Why::reason(expiry::REASON), now, keep)?;
            self.flows.cancelled.push(id);
            done.skipped.push((id, Some(State::Cancelled)));
            return Ok(None);
        }
        Ok(Some(job))
    }

    /// Gives a job another time from which it may run.
    pub(super) fn reschedule(
        &mut self,
        id: JobId,
        at: Micros,
        now: Micros,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        let Some(mut job) = self.waiting(id, now, keep, done)? else { return Ok(()) };
        let change = if at > now { Change::RescheduleLater } else { Change::Reschedule };
        let Some(to) = next(job.stands(), change) else {
            done.skipped.push((id, Some(job.state)));
            return Ok(());
        };
        job.move_to(at, now);
        self.stand(&job, to, now)?;
        done.changed.push(id);
        Ok(())
    }

    /// Lets a job that waits for its time wait no longer for that.
    pub(super) fn run_now(
        &mut self,
        id: JobId,
        now: Micros,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        let Some(mut job) = self.waiting(id, now, keep, done)? else { return Ok(()) };
        let waits_on_only = job.state == State::Blocked && job.run_at <= now;
        let Some(to) = next(job.stands(), Change::RunNow).filter(|_| !waits_on_only) else {
            done.skipped.push((id, Some(self.shown(job.state, job.lane)?)));
            return Ok(());
        };
        job.move_to(now, now);
        self.stand(&job, to, now)?;
        done.changed.push(id);
        Ok(())
    }

    /// Puts a job where it stands by its lane, its time and its limits: in `to`, or in the line of a limit
    /// if it could run but for that.
    pub(super) fn stand(&mut self, job: &Waiting, to: State, now: Micros) -> Result<()> {
        let place = Key { priority: job.priority, run_at: job.run_at, id: job.id };
        if let Some(line) = &job.waits_on {
            // Out of it first: it is not to count as one before itself.
            limits::leave_line(&self.conn, job.id)?;
            self.moves_on(line.clone());
        }
        let (state, line) = match &job.limits {
            // The claim looks at the limits of suspects, and at those whose keys it has to make.
            Some(limits) if to == State::Ready && !job.suspect && !limits.is_unresolved() => {
                limits::enter(&self.conn, job.lane, place, limits, now)?
            }
            _ => (to, None),
        };
        let (line, terms) = line.map(|at| (at.line, at.terms)).unzip();
        self.conn
            .prepare_cached(STAND)
            .and_then(|mut stand| {
                let code = state.code();
                stand.execute(params![job.id, code, job.run_at, job.expires_at, line, terms])
            })
            .map_err(storing)?;
        match state {
            State::Ready if job.suspect => self.suspect_ready(job.lane),
            State::Ready => self.ready(job.lane, place),
            State::Scheduled | State::Retrying => self.falls_due_at(job.run_at),
            _ => line.into_iter().for_each(|line| self.moves_on(line)),
        }
        if let Some(at) = job.expires_at {
            self.expires_at(at);
        }
        Ok(())
    }

    fn falls_due_at(&mut self, at: Micros) {
        self.due_at(at);
        if !self.lanes.has_pools() {
            // The alarm is for others to set.
            self.news_for_others();
        }
    }
}
