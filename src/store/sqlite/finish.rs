//! Recording how attempts ended: by the writer, and inside a transaction of the app.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::book::Book;
use super::demand::Demand;
use super::ends::{self, Effects, WITH_ITS_FLOW};
use super::errors::storing;
use super::lanes::Key;
use super::{flows, limits, steps, unique};
use crate::clock::{Micros, micros_of, to_micros};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::Retention;
use crate::record::{LogLine, Progress};
use crate::rules::state::{Change, next};
use crate::state::State;
use crate::store::{ClaimRef, Finish, Finished, Note, Verdict};

/// Moves a job whose claim stands into the history.
pub(super) const MOVE_CLAIMED: &str = "
INSERT INTO legwork_history
       (id, lane, state, priority, run_at, enqueued_at, attempts, started_at, finished_at, prune_at,
        args, options, tags, meta, progress_done, progress_total, message, output, reason,
        unique_key, unique_hold, limits, flow)
SELECT id, lane, ?4, priority, run_at, enqueued_at, attempts + ?5, coalesce(started_at, ?13), ?6, ?7,
       args, options, tags, meta, coalesce(?8, progress_done), coalesce(?9, progress_total),
       coalesce(?10, message), ?11, ?12, unique_key, unique_hold, limits, flow
  FROM legwork_jobs
 WHERE id = ?1 AND instance = ?2 AND token = ?3";
pub(super) const REMOVE: &str = "DELETE FROM legwork_jobs WHERE id = ?1";

/// Gives a claimed job a new state and frees it. A recorded end of its attempt clears a suspect (`?10`:
/// it stays one, since it was only given back, or nothing of it was begun).
pub(super) const FREE_CLAIMED: &str = "
UPDATE legwork_jobs
   SET state = ?4, run_at = coalesce(?5, run_at), attempts = attempts + ?6,
       first_started_at = CASE ?6 WHEN 0 THEN first_started_at
                                  ELSE coalesce(first_started_at, started_at, ?11) END,
       instance = NULL, token = NULL, started_at = NULL,
       progress_done = coalesce(?7, progress_done), progress_total = coalesce(?8, progress_total),
       message = coalesce(?9, message), crashes = CASE ?10 WHEN 1 THEN crashes END
 WHERE id = ?1 AND instance = ?2 AND token = ?3";

const IS_COMPLETED: &str = "SELECT 1 FROM legwork_history WHERE id = ?1 AND state = 6";
pub(super) const READ_CLAIMED: &str = "
SELECT lane, priority, run_at, cancel_requested IS NOT NULL, crashes IS NOT NULL, unique_key,
       unique_hold, flow
  FROM legwork_jobs
 WHERE id = ?1 AND instance = ?2 AND token = ?3";
const ADD_ATTEMPT: &str = "
INSERT INTO legwork_attempts (job, attempt, started_at, ended_at, worker, error, counted)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
/// Of a job that fails for ever only the last attempts are kept.
const TRIM_ATTEMPTS: &str = "
DELETE FROM legwork_attempts
 WHERE job = ?1 AND seq <= (SELECT seq FROM legwork_attempts WHERE job = ?1
                             ORDER BY seq DESC LIMIT 1 OFFSET 100)";
const ADD_LOG: &str = "INSERT INTO legwork_logs (job, attempt, at, line) VALUES (?1, ?2, ?3, ?4)";
const WRITE_PROGRESS: &str = "
UPDATE legwork_jobs SET progress_done = ?4, progress_total = ?5, message = coalesce(?6, message)
 WHERE id = ?1 AND instance = ?2 AND token = ?3";

struct Held {
    lane: i64,
    priority: i64,
    run_at: Micros,
    cancel_requested: bool,
    suspect: bool,
    unique: Option<unique::Held>,
    flow: Option<i64>,
}

fn held(conn: &Connection, claim: ClaimRef) -> Result<Option<Held>> {
    conn.prepare_cached(READ_CLAIMED)
        .and_then(|mut ask| {
            ask.query_row(params![claim.id.0, claim.instance, claim.token], |row| {
                Ok(Held {
                    lane: row.get(0)?,
                    priority: row.get(1)?,
                    run_at: row.get(2)?,
                    cancel_requested: row.get(3)?,
                    suspect: row.get(4)?,
                    unique: unique::Held::from_columns(row.get(5)?, row.get(6)?),
                    flow: row.get(7)?,
                })
            })
            .optional()
        })
        .map_err(storing)
}

/// A move into the history.
pub(super) struct Move<'a> {
    pub(super) state: State,
    pub(super) counted: u32,
    /// When the attempt began, if the file does not know.
    pub(super) started_at: Micros,
    pub(super) at: Micros,
    pub(super) prune_at: Micros,
    pub(super) progress: Option<&'a Progress>,
    pub(super) output: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
}

impl<'a> Move<'a> {
    fn completion(finish: &'a Finish, keep: Retention, output: Option<&'a str>) -> Move<'a> {
        Move {
            state: State::Completed,
            counted: 1,
            started_at: finish.started_at,
            at: finish.ended_at,
            prune_at: prune_time(finish, finish.flow, keep, State::Completed),
            progress: finish.progress.as_ref(),
            output,
            reason: None,
        }
    }
}

/// Progress columns as SQL values; a total of 0 is unknown and stands as such.
fn columns(progress: Option<&Progress>) -> (Option<i64>, Option<i64>, Option<&str>) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match progress {
        None => (None, None, None),
        Some(progress) => {
            (Some(number(progress.done)), Some(number(progress.total)), progress.message.as_deref())
        }
    }
}

/// `false`: the claim no longer stands.
pub(super) fn move_claimed(conn: &Connection, claim: ClaimRef, to: &Move<'_>) -> Result<bool> {
    let (done, total, message) = columns(to.progress);
    let moved = conn
        .prepare_cached(MOVE_CLAIMED)
        .and_then(|mut statement| {
            statement.execute(params![
                claim.id.0,
                claim.instance,
                claim.token,
                to.state.code(),
                to.counted,
                to.at,
                to.prune_at,
                done,
                total,
                message,
                to.output,
                to.reason,
                to.started_at,
            ])
        })
        .map_err(storing)?;
    if moved == 1 {
        conn.prepare_cached(REMOVE)
            .and_then(|mut remove| remove.execute([claim.id.0]))
            .map_err(storing)?;
    }
    Ok(moved == 1)
}

fn add_logs(conn: &Connection, id: JobId, lines: &[LogLine]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut add = conn.prepare_cached(ADD_LOG).map_err(storing)?;
    for line in lines {
        add.execute(params![id.0, line.attempt, to_micros(line.at), line.line]).map_err(storing)?;
    }
    Ok(())
}

/// Adds an attempt that did not complete its job.
pub(super) struct AttemptRow<'a> {
    pub(super) job: i64,
    pub(super) attempt: u32,
    pub(super) started_at: Micros,
    pub(super) ended_at: Micros,
    pub(super) worker: Option<&'a str>,
    pub(super) error: &'a str,
    pub(super) counted: bool,
}

pub(super) fn add_attempt(conn: &Connection, row: &AttemptRow<'_>) -> Result<()> {
    let add = |mut statement: CachedStatement<'_>| {
        statement.execute(params![
            row.job,
            row.attempt,
            row.started_at,
            row.ended_at,
            row.worker,
            row.error,
            row.counted,
        ])
    };
    conn.prepare_cached(ADD_ATTEMPT).and_then(add).map_err(storing)?;
    conn.prepare_cached(TRIM_ATTEMPTS)
        .and_then(|mut trim| trim.execute([row.job]))
        .map(drop)
        .map_err(storing)
}

impl Book {
    /// Records the end of an attempt, if its claim still stands.
    pub(super) fn finish(
        &mut self,
        finish: &Finish,
        keep: Retention,
        demand: &mut Demand<'_>,
    ) -> Result<Finished> {
        let mut flow = finish.flow;
        let state = match &finish.verdict {
            Verdict::Complete { output } => {
                let to = Move::completion(finish, keep, output.as_deref());
                if move_claimed(&self.conn, finish.claim, &to)? {
                    self.prune_at(to.prune_at);
                    self.free_key(finish.claim.id, finish.unique.as_ref(), false, to.at)?;
                    Some(to.state)
                } else {
                    None
                }
            }
            verdict => match held(&self.conn, finish.claim)? {
                Some(held) => {
                    flow = held.flow;
                    Some(self.finish_uncompleted(finish, verdict, &held, keep)?)
                }
                None => None,
            },
        };
        let unstarted = matches!(finish.verdict, Verdict::GiveBack { why: None });
        self.claim_ended(finish.claim, !(unstarted && state == Some(State::Ready)))?;
        if !finish.keeps_slots {
            let unknown = unstarted && finish.limits.is_none();
            self.release(finish.claim, finish.limits.as_deref(), unknown)?;
        }
        let Some(state) = state else {
            let settled = finish.settle && self.is_completed(finish.claim.id)?;
            return Ok(if settled { Finished::Settled } else { Finished::Stale });
        };
        if finish.has_steps && state == State::Completed {
            steps::forget(&self.conn, finish.claim.id)?;
        }
        add_logs(&self.conn, finish.claim.id, &finish.logs)?;
        // Before its end is counted: they may be new members of its flow.
        let children = if finish.children.is_empty() {
            Vec::new()
        } else {
            self.insert(&finish.children, demand)?
        };
        if state.is_finished() {
            self.ended(finish.claim.id, flow, state, finish.ended_at, keep)?;
        }
        Ok(Finished::Recorded { state, children })
    }

    /// A job has ended: its key is free, and what has waited for that goes on.
    pub(super) fn free_key(
        &mut self,
        id: JobId,
        held: Option<&unique::Held>,
        never_started: bool,
        now: Micros,
    ) -> Result<()> {
        if let Some(held) = held {
            let waits = unique::free(&self.conn, id.0, held, never_started, now)?;
            self.goes_on(waits);
        }
        Ok(())
    }

    fn is_completed(&self, id: JobId) -> Result<bool> {
        self.conn
            .prepare_cached(IS_COMPLETED)
            .and_then(|mut ask| ask.exists([id.0]))
            .map_err(storing)
    }

    fn finish_uncompleted(
        &mut self,
        finish: &Finish,
        verdict: &Verdict,
        held: &Held,
        keep: Retention,
    ) -> Result<State> {
        let (change, error, counted, run_at, reason) = match verdict {
            Verdict::Complete { .. } => unreachable!("handled by the caller"),
            Verdict::Fail { error } => (Change::Fail, Some(error), 1, None, Some(error)),
            // A job that was asked to stop and failed at it is not tried again.
            Verdict::Retry { error, .. } if held.cancel_requested => {
                (Change::Cancel, Some(error), 1, None, Some(error))
            }
            Verdict::Retry { run_at, error } => {
                (Change::Retry, Some(error), 1, Some(*run_at), None)
            }
            Verdict::Cancel { reason, error } => {
                (Change::Cancel, error.as_ref(), u32::from(error.is_some()), None, Some(reason))
            }
            Verdict::Snooze { .. } | Verdict::GiveBack { .. } if held.cancel_requested => {
                (Change::Cancel, None, 0, None, None)
            }
            Verdict::Snooze { run_at, .. } => (Change::Snooze, None, 0, Some(*run_at), None),
            Verdict::GiveBack { why } => (Change::GiveBack, why.as_ref(), 0, None, None),
        };
        let mut state =
            next(State::Running, change).expect("a running job can undergo every verdict");
        let mut reason = reason.cloned();
        if !state.is_finished()
            && let Some(unique) = &held.unique
            && let Some(newer) =
                unique::wait_again(&self.conn, finish.claim.id.0, unique, finish.ended_at)?
        {
            state = State::Cancelled;
            reason = Some(unique::superseded(newer));
        }
        if let Some(error) = error {
            add_attempt(
                &self.conn,
                &AttemptRow {
                    job: finish.claim.id.0,
                    attempt: finish.attempt,
                    started_at: finish.started_at,
                    ended_at: finish.ended_at,
                    worker: Some(&finish.worker),
                    error,
                    counted: counted == 1,
                },
            )?;
        }
        if state.is_finished() {
            let to = Move {
                state,
                counted,
                started_at: finish.started_at,
                at: finish.ended_at,
                prune_at: prune_time(finish, held.flow, keep, state),
                progress: finish.progress.as_ref(),
                output: None,
                reason: Some(reason.as_deref().unwrap_or("cancelled while running")),
            };
            move_claimed(&self.conn, finish.claim, &to)?;
            self.prune_at(to.prune_at);
            self.free_key(finish.claim.id, held.unique.as_ref(), false, to.at)?;
        } else {
            let given_back = change == Change::GiveBack;
            let untried = matches!(verdict, Verdict::Snooze { untried: true, .. });
            self.free(finish, state, counted, run_at, given_back || untried)?;
            match run_at {
                Some(at) => self.due_at(at),
                None if held.suspect && given_back => self.suspect_ready(held.lane),
                None => self.ready(
                    held.lane,
                    Key { priority: held.priority, run_at: held.run_at, id: finish.claim.id.0 },
                ),
            }
        }
        Ok(state)
    }

    fn free(
        &self,
        finish: &Finish,
        state: State,
        counted: u32,
        run_at: Option<Micros>,
        still_suspect: bool,
    ) -> Result<()> {
        let (done, total, message) = columns(finish.progress.as_ref());
        let claim = finish.claim;
        self.conn
            .prepare_cached(FREE_CLAIMED)
            .and_then(|mut free| {
                free.execute(params![
                    claim.id.0,
                    claim.instance,
                    claim.token,
                    state.code(),
                    run_at,
                    counted,
                    done,
                    total,
                    message,
                    still_suspect,
                    finish.started_at,
                ])
            })
            .map(drop)
            .map_err(storing)
    }

    /// Writes progress and log lines of a running attempt. One that has ended meanwhile has
    /// brought its last progress; but `finish_in` may have overtaken lines that were on their way
    /// here, waiting for its very transaction.
    pub(super) fn note(&self, note: &Note) -> Result<()> {
        let claim = note.claim;
        let held = held(&self.conn, claim)?.is_some();
        if held || self.is_completed(claim.id)? {
            add_logs(&self.conn, claim.id, &note.logs)?;
        }
        if !held {
            return Ok(());
        }
        if let Some(progress) = &note.progress {
            let (done, total, message) = columns(Some(progress));
            self.conn
                .prepare_cached(WRITE_PROGRESS)
                .and_then(|mut write| {
                    write.execute(params![
                        claim.id.0,
                        claim.instance,
                        claim.token,
                        done,
                        total,
                        message
                    ])
                })
                .map_err(storing)?;
        }
        Ok(())
    }
}

fn prune_time(finish: &Finish, flow: Option<i64>, keep: Retention, state: State) -> Micros {
    if flow.is_some() {
        return WITH_ITS_FLOW;
    }
    finish.ended_at.saturating_add(micros_of(finish.keep.unwrap_or(keep).of(state)))
}

/// Completes a job inside the app's transaction on `conn`, with its children.
///
/// # Errors
/// [`Error::LostClaim`] if the claim no longer stands; the transaction must not commit.
pub(super) fn finish_on(conn: &Connection, finish: &Finish, keep: Retention) -> Result<()> {
    let Verdict::Complete { output } = &finish.verdict else {
        unreachable!("finish_in completes the job");
    };
    let to = Move::completion(finish, keep, output.as_deref());
    all_or_nothing(conn, || finish_whole(conn, finish, &to, keep))
}

/// Does something in a transaction of the app: all of it or nothing, even if the app commits in spite
/// of an error.
pub(super) fn all_or_nothing(conn: &Connection, work: impl FnOnce() -> Result<()>) -> Result<()> {
    conn.execute_batch("SAVEPOINT legwork_part").map_err(storing)?;
    let done = work().and_then(|()| conn.execute_batch("RELEASE legwork_part").map_err(storing));
    if done.is_err() {
        // After a full disk the whole transaction may be gone, and the savepoint with it.
        let undo = "ROLLBACK TO legwork_part; RELEASE legwork_part";
        if let Err(undoing) = conn.execute_batch(undo) {
            log::debug!("legwork: undoing a part of a transaction: {undoing}");
        }
    }
    done
}

fn finish_whole(conn: &Connection, finish: &Finish, to: &Move<'_>, keep: Retention) -> Result<()> {
    if !move_claimed(conn, finish.claim, to)? {
        return Err(Error::LostClaim(finish.claim.id));
    }
    let mut effects = Effects::default();
    if let Some(held) = &finish.unique {
        effects.waits.extend(unique::free(conn, finish.claim.id.0, held, false, to.at)?);
    }
    if let Some(limits) = &finish.limits {
        effects.lines = limits::release(conn, finish.claim, limits)?;
    }
    if finish.has_steps {
        steps::forget(conn, finish.claim.id)?;
    }
    add_logs(conn, finish.claim.id, &finish.logs)?;
    for child in &finish.children {
        super::enqueue::insert_on(conn, child, keep)?;
    }
    effects.unsettled.insert(finish.claim.id.0);
    if let Some(flow) = finish.flow {
        flows::member_ended(conn, flow, to.state, to.at, keep, &mut effects)?;
    }
    ends::carry_out_on(conn, effects, to.at, keep)
}
