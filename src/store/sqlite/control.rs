//! Changes asked for from outside an attempt: retry, cancel, delete, pause, resume, close and open
//! gates.

use rusqlite::{OptionalExtension, params};

use super::book::Book;
use super::errors::storing;
use super::lanes::Key;
use super::unique;
use crate::clock::{Micros, micros_of};
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::{Overrides, Retention};
use crate::record::Scope;
use crate::rules::state::{Change, next};
use crate::state::State;
use crate::store::{ClaimRef, Control, Controlled};

const READ_LIVE: &str = "
SELECT state, lane, priority, options, instance, token, unique_key, unique_hold,
       attempts = 0 AND first_started_at IS NULL, waits_on FROM legwork_jobs WHERE id = ?1";
const READ_FINISHED: &str = "
SELECT state, lane, priority, unique_key, unique_hold FROM legwork_history WHERE id = ?1";

const REVIVE: &str = "
INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args, options, tags, meta,
       unique_key, unique_hold, limits)
SELECT id, lane, 3, priority, ?2, enqueued_at, args, options, tags, meta,  -- ready
       unique_key, unique_hold, limits
  FROM legwork_history WHERE id = ?1";
const FORGET: &str = "DELETE FROM legwork_history WHERE id = ?1";
const RUN_NOW: &str = "
UPDATE legwork_jobs
   SET state = 3, run_at = ?2, attempts = 0, first_started_at = NULL, crashes = NULL WHERE id = ?1";
const ASK_TO_STOP: &str = "UPDATE legwork_jobs SET cancel_requested = 1 WHERE id = ?1";
pub(super) const CANCEL_WAITING: &str = "
INSERT INTO legwork_history
       (id, lane, state, priority, run_at, enqueued_at, attempts, started_at, finished_at, prune_at,
        args, options, tags, meta, progress_done, progress_total, message, reason, unique_key,
        unique_hold, limits)
SELECT id, lane, 8, priority, run_at, enqueued_at, attempts, NULL, ?2, ?3,  -- cancelled
       args, options, tags, meta, progress_done, progress_total, message, ?4,
       unique_key, unique_hold, limits
  FROM legwork_jobs WHERE id = ?1";
const PAUSE: &str = "INSERT OR IGNORE INTO legwork_pauses (scope, name, at) VALUES (?1, ?2, ?3)";
const RESUME: &str = "DELETE FROM legwork_pauses WHERE scope = ?1 AND name = ?2";

/// Everything that belongs to a job beside its row.
pub(super) const FORGET_PARTS: [&str; 3] = [
    "DELETE FROM legwork_attempts WHERE job = ?1",
    "DELETE FROM legwork_logs WHERE job = ?1",
    super::steps::FORGET,
];

pub(super) struct Live {
    state: State,
    lane: i64,
    priority: i64,
    options: Option<String>,
    claim: Option<(i64, i64)>,
    pub(super) unique: Option<unique::Held>,
    pub(super) never_started: bool,
    /// The line in which it waits for a limit.
    pub(super) waits_on: Option<String>,
}

struct Finished {
    state: State,
    lane: i64,
    priority: i64,
    unique: Option<unique::Held>,
}

impl Book {
    /// Does what is asked. Jobs in a state in which it makes no sense are left alone and named.
    pub(super) fn control(
        &mut self,
        control: &Control,
        now: Micros,
        keep: Retention,
    ) -> Result<Controlled> {
        let mut done = Controlled::default();
        match control {
            Control::Retry(ids) => {
                for &id in ids {
                    self.retry(id, false, now, &mut done)?;
                }
            }
            Control::RetryAnew(ids) => {
                for &id in ids {
                    self.retry(id, true, now, &mut done)?;
                }
            }
            Control::Cancel { ids, reason } => {
                for &id in ids {
                    self.cancel(id, now, reason, keep, &mut done)?;
                }
            }
            Control::Delete(ids) => {
                for &id in ids {
                    self.delete(id, now, &mut done)?;
                }
            }
            Control::Pause(scope) => self.set_pause(PAUSE, scope, Some(now))?,
            Control::Resume(scope) => self.set_pause(RESUME, scope, None)?,
            Control::CloseGate(name) => self.set_gate(name, Some(now))?,
            Control::OpenGate(name) => self.set_gate(name, None)?,
            #[cfg(feature = "cron")]
            Control::Cron(order) => done.cron = self.cron(order, now)?,
        }
        Ok(done)
    }

    pub(super) fn live(&self, id: JobId) -> Result<Option<Live>> {
        self.conn
            .prepare_cached(READ_LIVE)
            .and_then(|mut ask| {
                ask.query_row([id.0], |row| {
                    let claim: (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
                    Ok(Live {
                        state: State::from_code(row.get(0)?).unwrap_or(State::Blocked),
                        lane: row.get(1)?,
                        priority: row.get(2)?,
                        options: row.get(3)?,
                        claim: claim.0.zip(claim.1),
                        unique: unique::Held::from_columns(row.get(6)?, row.get(7)?),
                        never_started: row.get(8)?,
                        waits_on: row.get(9)?,
                    })
                })
                .optional()
            })
            .map_err(storing)
    }

    fn finished(&self, id: JobId) -> Result<Option<Finished>> {
        self.conn
            .prepare_cached(READ_FINISHED)
            .and_then(|mut ask| {
                ask.query_row([id.0], |row| {
                    let state = State::from_code(row.get(0)?).unwrap_or(State::Failed);
                    Ok(Finished {
                        state,
                        lane: row.get(1)?,
                        priority: row.get(2)?,
                        unique: unique::Held::from_columns(row.get(3)?, row.get(4)?),
                    })
                })
                .optional()
            })
            .map_err(storing)
    }

    fn on_job(&self, sql: &str, id: JobId) -> Result<()> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([id.0]))
            .map(drop)
            .map_err(storing)
    }

    fn retry(&mut self, id: JobId, anew: bool, now: Micros, done: &mut Controlled) -> Result<()> {
        let live = self.live(id)?;
        let finished = if live.is_none() { self.finished(id)? } else { None };
        let (state, lane, priority) = match (&live, &finished) {
            (Some(live), _) => (live.state, live.lane, live.priority),
            (None, Some(finished)) => (finished.state, finished.lane, finished.priority),
            (None, None) => {
                done.skipped.push((id, None));
                return Ok(());
            }
        };
        if next(state, Change::RunAgain).is_none() {
            done.skipped.push((id, Some(self.shown(state, lane)?)));
            return Ok(());
        }
        let mut becomes = State::Ready;
        if let Some(held) = finished.as_ref().and_then(|finished| finished.unique.as_ref()) {
            match unique::revive(&self.conn, id.0, held, now)? {
                Ok(state) => becomes = state,
                Err(holder) => {
                    done.not_unique.push((held.key.clone(), holder));
                    return Ok(());
                }
            }
        }
        let sql = if live.is_some() { RUN_NOW } else { REVIVE };
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params![id.0, now]))
            .map_err(storing)?;
        if live.is_none() {
            self.on_job(FORGET, id)?;
        }
        // One that has completed begins a new life.
        if anew || state == State::Completed {
            self.on_job(super::steps::FORGET, id)?;
        }
        if becomes == State::Blocked {
            // Until the one that runs with its key has ended.
            self.on_job(unique::BLOCK, id)?;
        } else {
            self.ready(lane, Key { priority, run_at: now, id: id.0 });
        }
        done.changed.push(id);
        Ok(())
    }

    fn cancel(
        &mut self,
        id: JobId,
        now: Micros,
        reason: &str,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        let Some(live) = self.live(id)? else {
            done.skipped.push((id, self.finished(id)?.map(|finished| finished.state)));
            return Ok(());
        };
        match live.claim {
            // One that is claimed ahead may have been started; whoever holds it will know.
            Some((instance, token)) => {
                self.on_job(ASK_TO_STOP, id)?;
                self.ask_other(instance);
                done.asked.push(ClaimRef { id, instance, token });
            }
            None => {
                let keep = keep_of(live.options.as_deref()).unwrap_or(keep);
                let prune_at = now.saturating_add(micros_of(keep.of(State::Cancelled)));
                self.conn
                    .prepare_cached(CANCEL_WAITING)
                    .and_then(|mut cancel| cancel.execute(params![id.0, now, prune_at, reason]))
                    .map_err(storing)?;
                self.on_job(super::finish::REMOVE, id)?;
                self.prune_at(prune_at);
                self.free_key(id, live.unique.as_ref(), live.never_started, now)?;
                live.waits_on.into_iter().for_each(|line| self.moves_on(line));
                // Somebody there may wait for its end.
                self.news_for_others();
                done.changed.push(id);
            }
        }
        Ok(())
    }

    /// A job that was to stop when its process died, or that a newer one has taken the place of, is
    /// not started again.
    pub(super) fn cancel_given_back(
        &mut self,
        id: i64,
        reason: &str,
        now: Micros,
        keep: Retention,
    ) -> Result<()> {
        let mut done = Controlled::default();
        self.cancel(JobId(id), now, reason, keep, &mut done)
    }

    fn delete(&mut self, id: JobId, now: Micros, done: &mut Controlled) -> Result<()> {
        let live = self.live(id)?;
        match live {
            Some(Live { claim: Some(_), .. }) => {
                done.skipped.push((id, Some(State::Running)));
                return Ok(());
            }
            Some(live) => {
                self.on_job(super::finish::REMOVE, id)?;
                self.free_key(id, live.unique.as_ref(), live.never_started, now)?;
                live.waits_on.into_iter().for_each(|line| self.moves_on(line));
            }
            None if self.finished(id)?.is_some() => self.on_job(FORGET, id)?,
            None => {
                done.skipped.push((id, None));
                return Ok(());
            }
        }
        for sql in FORGET_PARTS {
            self.on_job(sql, id)?;
        }
        self.news_for_others();
        done.changed.push(id);
        Ok(())
    }

    fn set_pause(&mut self, sql: &str, scope: &Scope, at: Option<Micros>) -> Result<()> {
        let (word, name) = match scope {
            Scope::All => ("all", ""),
            Scope::Queue(name) => ("queue", name.as_str()),
            Scope::Kind(name) => ("kind", name.as_str()),
        };
        let mut statement = self.conn.prepare_cached(sql).map_err(storing)?;
        match at {
            Some(at) => statement.execute(params![word, name, at]),
            None => statement.execute(params![word, name]),
        }
        .map_err(storing)?;
        drop(statement);
        self.rules_changed();
        self.read_pauses()
    }
}

/// The retention that one job has of its own.
pub(super) fn keep_of(options: Option<&str>) -> Option<Retention> {
    // Options that another version wrote and this one cannot read fall back to the defaults.
    serde_json::from_str::<Overrides>(options?).ok()?.keep
}
