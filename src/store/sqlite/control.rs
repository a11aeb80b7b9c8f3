//! Changes asked for from outside an attempt: retry, cancel, delete, pause, resume. What else there is
//! stands beside it: [`waiting`](super::waiting) jobs and their [`contents`](super::contents),
//! [`clones`](super::clones), [`gates`](super::gates).

use rusqlite::{Connection, OptionalExtension, params};

use super::book::Book;
use super::ends::{self, Effects, Live, Why};
use super::errors::storing;
use super::lanes::Key;
use super::{edges, flows, unique};
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::Retention;
use crate::record::Scope;
use crate::rules::state::{Change, next};
use crate::state::State;
use crate::store::{ClaimRef, Control, Controlled};

const READ_FINISHED: &str = "
SELECT state, lane, priority, unique_key, unique_hold, flow FROM legwork_history WHERE id = ?1";

pub(super) const REVIVE: &str = "
INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args, options, tags, meta,
       unique_key, unique_hold, limits, flow, parents_left, has_steps)
SELECT id, lane, ?3, priority, ?2, enqueued_at, args, options, tags, meta,
       unique_key, unique_hold, limits, flow, ?4,
       (SELECT 1 FROM legwork_steps WHERE job = ?1 LIMIT 1)
  FROM legwork_history WHERE id = ?1";
const FORGET: &str = "DELETE FROM legwork_history WHERE id = ?1";
const RUN_NOW: &str = "
UPDATE legwork_jobs
   SET state = 3, run_at = ?2, attempts = 0, first_started_at = NULL, crashes = NULL WHERE id = ?1";
const ASK_TO_STOP: &str = "UPDATE legwork_jobs SET cancel_requested = 1 WHERE id = ?1";
const PAUSE: &str = "INSERT OR IGNORE INTO legwork_pauses (scope, name, at) VALUES (?1, ?2, ?3)";
const RESUME: &str = "DELETE FROM legwork_pauses WHERE scope = ?1 AND name = ?2";

/// Everything that belongs to a job beside its row.
pub(super) const FORGET_PARTS: [&str; 3] = [
    "DELETE FROM legwork_attempts WHERE job = ?1",
    "DELETE FROM legwork_logs WHERE job = ?1",
    super::steps::FORGET,
];

/// A job that has finished.
pub(super) struct Finished {
    pub(super) state: State,
    pub(super) lane: i64,
    pub(super) priority: i64,
    pub(super) unique: Option<unique::Held>,
    pub(super) flow: Option<i64>,
}

pub(super) fn finished(conn: &Connection, id: JobId) -> Result<Option<Finished>> {
    conn.prepare_cached(READ_FINISHED)
        .and_then(|mut ask| {
            ask.query_row([id.0], |row| {
                let state = State::from_code(row.get(0)?).unwrap_or(State::Failed);
                Ok(Finished {
                    state,
                    lane: row.get(1)?,
                    priority: row.get(2)?,
                    unique: unique::Held::from_columns(row.get(3)?, row.get(4)?),
                    flow: row.get(5)?,
                })
            })
            .optional()
        })
        .map_err(storing)
}

/// Moves a finished job back among those that are to run, as ready or blocked.
pub(super) fn revive(
    conn: &Connection,
    id: JobId,
    state: State,
    parents_left: Option<i64>,
    now: Micros,
) -> Result<()> {
    conn.prepare_cached(REVIVE)
        .and_then(|mut revive| revive.execute(params![id.0, now, state.code(), parents_left]))
        .map_err(storing)?;
    conn.prepare_cached(FORGET).and_then(|mut forget| forget.execute([id.0])).map_err(storing)?;
    Ok(())
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
                    self.retry(id, false, now, keep, &mut done)?;
                }
            }
            Control::RetryAnew(ids) => {
                for &id in ids {
                    self.retry(id, true, now, keep, &mut done)?;
                }
            }
            Control::Cancel { ids, reason } => {
                for &id in ids {
                    self.cancel(id, now, reason, keep, &mut done)?;
                }
            }
            Control::Delete(ids) => {
                for &id in ids {
                    self.delete(id, now, keep, &mut done)?;
                }
            }
            Control::Reschedule(ids, at) => {
                for &id in ids {
                    self.reschedule(id, *at, now, keep, &mut done)?;
                }
            }
            Control::RunNow(ids) => {
                for &id in ids {
                    self.run_now(id, now, keep, &mut done)?;
                }
            }
            Control::Edit(ids, edit) => {
                for &id in ids {
                    self.edit(id, edit, now, keep, &mut done)?;
                }
            }
            Control::Clone(ids) => {
                for &id in ids {
                    self.clone_job(id, now, &mut done)?;
                }
            }
            Control::Pause(scope) => self.set_pause(PAUSE, scope, Some(now))?,
            Control::Resume(scope) => self.set_pause(RESUME, scope, None)?,
            Control::CloseGate(name) => done.gate_moved = self.set_gate(name, Some(now))?,
            Control::OpenGate(name) => done.gate_moved = self.set_gate(name, None)?,
            Control::SetPools(id, pools) => self.set_pools(*id, pools)?,
            Control::EnqueueFlow(flow) => done.flow = Some(self.enqueue_flow(flow, now, keep)?),
            Control::Import(import) => done.imported = self.import(import, now, keep)?,
            Control::EndImport(export) => self.end_import(export)?,
            Control::Upkeep(order) => done.upkept = self.upkeep(order, now)?,
            #[cfg(feature = "cron")]
            Control::Cron(order) => done.cron = self.cron(order, now)?,
        }
        Ok(done)
    }

    fn on_job(&self, sql: &str, id: JobId) -> Result<usize> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([id.0]))
            .map_err(storing)
    }

    fn retry(
        &mut self,
        id: JobId,
        anew: bool,
        now: Micros,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        let live = ends::live(&self.conn, id.0)?;
        let finished = if live.is_none() { finished(&self.conn, id)? } else { None };
        let (state, lane, priority) = match (&live, &finished) {
            (Some(live), _) => (live.state, live.lane, live.priority),
            (None, Some(finished)) => (finished.state, finished.lane, finished.priority),
            (None, None) => {
                done.skipped.push((id, None));
                return Ok(());
            }
        };
        if next(state, Change::RunAgain).is_none() {
            let waits = live.as_ref().is_some_and(|live| live.claim.is_none());
            if anew && waits && self.on_job(super::steps::FORGET, id)? > 0 {
                // It runs anyway, and now anew.
                done.changed.push(id);
                return Ok(());
            }
            done.skipped.push((id, Some(self.shown(state, lane)?)));
            return Ok(());
        }
        if let Some(flow) = finished.as_ref().and_then(|finished| finished.flow)
            && flows::is_going(&self.conn, flow)?
        {
            done.skipped.push((id, None));
            return Ok(());
        }
        // Those that its completion lets go on need not wait for what it does now.
        if state == State::Completed && !self.have_heard(id, now, keep)? {
            done.skipped.push((id, Some(state)));
            return Ok(());
        }
        let mut becomes = State::Ready;
        if let Some(finished) = &finished {
            match self.bring_back(id, finished, now, done)? {
                Some(state) => becomes = state,
                None => return Ok(()),
            }
        } else {
            self.conn
                .prepare_cached(RUN_NOW)
                .and_then(|mut statement| statement.execute(params![id.0, now]))
                .map_err(storing)?;
        }
        // One that has completed begins a new life.
        if anew || state == State::Completed {
            self.on_job(super::steps::FORGET, id)?;
        }
        if becomes == State::Ready {
            self.ready(lane, Key { priority, run_at: now, id: id.0 });
        }
        done.changed.push(id);
        Ok(())
    }

    /// Moves a finished job back, if its parents and its key let it: as ready, or as blocked until they
    /// do.
    fn bring_back(
        &mut self,
        id: JobId,
        job: &Finished,
        now: Micros,
        done: &mut Controlled,
    ) -> Result<Option<State>> {
        let left = if self.flows.any_edges { edges::left(&self.conn, id.0)? } else { 0 };
        if left > 0
            && let Some(parent) = edges::waits_in_vain_for(&self.conn, id.0)?
        {
            done.held_by_parent.push((id, JobId(parent)));
            return Ok(None);
        }
        let mut becomes = if left > 0 { State::Blocked } else { State::Ready };
        if let Some(held) = &job.unique {
            match unique::revive(&self.conn, id.0, held, now)? {
                // Until the one that runs with its key has ended.
                Ok(State::Blocked) => becomes = State::Blocked,
                Ok(_) => {}
                Err(holder) => {
                    done.not_unique.push((held.key.clone(), holder));
                    return Ok(None);
                }
            }
        }
        revive(&self.conn, id, becomes, (left > 0).then_some(left), now)?;
        if let Some(flow) = job.flow {
            flows::member_came_back(&self.conn, flow, job.state)?;
        }
        if self.flows.any_edges {
            self.flows.unsettled.insert(id.0);
        }
        Ok(Some(becomes))
    }

    fn cancel(
        &mut self,
        id: JobId,
        now: Micros,
        reason: &str,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        let Some(live) = ends::live(&self.conn, id.0)? else {
            let finished = finished(&self.conn, id)?;
            done.skipped.push((id, finished.map(|finished| finished.state)));
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
                self.end_waiting(id.0, Why::reason(reason), now, keep)?;
                done.changed.push(id);
            }
        }
        Ok(())
    }

    /// Whether all children of a finished job have heard how it has ended.
    fn have_heard(&mut self, id: JobId, now: Micros, keep: Retention) -> Result<bool> {
        if self.flows.unsettled.contains(&id.0) {
            self.settle(now, keep)?;
        }
        Ok(!(self.flows.settling && edges::is_settling(&self.conn, id.0)?))
    }

    fn delete(
        &mut self,
        id: JobId,
        now: Micros,
        keep: Retention,
        done: &mut Controlled,
    ) -> Result<()> {
        match ends::live(&self.conn, id.0)? {
            Some(Live { claim: Some(_), .. }) => {
                done.skipped.push((id, Some(State::Running)));
                return Ok(());
            }
            Some(live) => {
                let mut effects = Effects::default();
                ends::remove_waiting(&self.conn, id.0, live, now, keep, &mut effects)?;
                self.carry_out(effects)?;
            }
            None => {
                let Some(finished) = finished(&self.conn, id)? else {
                    done.skipped.push((id, None));
                    return Ok(());
                };
                if !self.have_heard(id, now, keep)? {
                    done.skipped.push((id, Some(finished.state)));
                    return Ok(());
                }
                if self.flows.any_edges {
                    edges::forget(&self.conn, id.0)?;
                }
                self.on_job(FORGET, id)?;
            }
        }
        for sql in FORGET_PARTS {
            self.on_job(sql, id)?;
        }
        self.news_for_others();
        done.changed.push(id);
        Ok(())
    }

    /// Removes a finished job with all that is kept of it.
    pub(super) fn forget_job(&self, id: i64) -> Result<()> {
        if self.flows.any_edges {
            edges::forget(&self.conn, id)?;
        }
        FORGET_PARTS
            .into_iter()
            .chain([FORGET])
            .try_for_each(|sql| self.on_job(sql, JobId(id)).map(drop))
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
