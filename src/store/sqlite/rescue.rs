//! Rescue: what becomes of the jobs that an instance held when it went.
//!
//! All of them go back to where they were claimed, uncounted. If their process died, one of them may
//! have killed it; which one cannot be told when several ran. So all become suspects, and suspects
//! start one at a time (see [`suspects`](super::suspects)). When a process dies while it runs one,
//! that one is to blame; too often, and it is quarantined. The others are never blamed: a
//! job that is above suspicion becomes a suspect at most, and what ends a suspicion is any end of
//! an attempt that is recorded.

use rusqlite::{Row, params};

use super::book::Book;
use super::ends::{self, WITH_ITS_FLOW, keep_of};
use super::errors::storing;
use super::finish::{AttemptRow, Move, add_attempt, move_claimed};
use super::lanes::Key;
use super::unique;
use crate::clock::{Micros, micros_of};
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::Retention;
use crate::rules::state::{Change, next};
use crate::rules::suspect::{Fate, WINDOW, after_death, to_blame};
use crate::state::State;
use crate::store::{ClaimRef, InstanceId, Quarantined, Taken};

/// What an instance holds.
pub(super) const HELD: &str = "
SELECT job.id, job.lane, job.priority, job.run_at, job.attempts, job.started_at,
       job.cancel_requested IS NOT NULL, job.token, job.options, job.crashes, lane.kind,
       job.unique_key, job.unique_hold, job.flow
  FROM legwork_jobs AS job JOIN legwork_lanes AS lane ON lane.id = job.lane
 WHERE job.instance = ?1";

/// A running job becomes ready again, uncounted; one that was only claimed ahead just loses its claim.
pub(super) const GIVE_BACK: &str = "
UPDATE legwork_jobs
   SET state = 3, instance = NULL, token = NULL, started_at = NULL, crashes = ?2  -- ready
 WHERE id = ?1";

/// How an instance came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its process died while the machine ran.
    Died,
    /// Its process is gone with the machine, or never held jobs of this file.
    Lost,
    /// It was stopped.
    Stopped,
}

impl Why {
    const fn report(self) -> &'static str {
        match self {
            Why::Died | Why::Lost => "interrupted: its process died",
            Why::Stopped => "interrupted: its engine was stopped",
        }
    }
}

struct Held {
    key: Key,
    lane: i64,
    attempts: u32,
    started_at: Option<Micros>,
    cancel_requested: bool,
    token: i64,
    options: Option<String>,
    crashes: Option<String>,
    kind: String,
    unique: Option<unique::Held>,
    flow: Option<i64>,
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    Ok(Held {
        key: Key { id: row.get(0)?, priority: row.get(2)?, run_at: row.get(3)? },
        lane: row.get(1)?,
        attempts: row.get(4)?,
        started_at: row.get(5)?,
        cancel_requested: row.get(6)?,
        token: row.get(7)?,
        options: row.get(8)?,
        crashes: row.get(9)?,
        kind: row.get(10)?,
        unique: unique::Held::from_columns(row.get(11)?, row.get(12)?),
        flow: row.get(13)?,
    })
}

/// What another hand has broken counts as nothing.
fn times(crashes: Option<&str>) -> Vec<Micros> {
    crashes.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

impl Book {
    /// Frees everything that an instance held.
    pub(super) fn take_over(
        &mut self,
        instance: InstanceId,
        why: Why,
        now: Micros,
        keep: Retention,
        taken: &mut Taken,
    ) -> Result<()> {
        let held: Vec<Held> = self
            .conn
            .prepare_cached(HELD)
            .and_then(|mut ask| ask.query_map([instance], held)?.collect())
            .map_err(storing)?;
        let started_suspect = |job: &&Held| job.started_at.is_some() && job.crashes.is_some();
        let blamed = to_blame(held.iter().filter(started_suspect).map(|job| job.key.id));
        for job in &held {
            let fate = (why == Why::Died && self.crash_limit > 0).then(|| {
                let blamed = blamed == Some(job.key.id);
                after_death(times(job.crashes.as_deref()), blamed, now, self.crash_limit)
            });
            self.note_interrupted(job, why, now)?;
            match fate {
                Some(Fate::Quarantine { deaths }) if !job.cancel_requested => {
                    let claim = ClaimRef { id: JobId(job.key.id), instance, token: job.token };
                    taken.quarantined.push(self.quarantine(job, claim, deaths, now, keep)?);
                }
                Some(Fate::Suspect(crashes)) => {
                    let crashes = serde_json::to_string(&crashes).expect("numbers are JSON");
                    self.free_held(job, Some(&crashes), now, keep)?;
                    taken.rescued.push(JobId(job.key.id));
                }
                Some(Fate::Quarantine { .. }) | None => {
                    self.free_held(job, job.crashes.as_deref(), now, keep)?;
                    taken.rescued.push(JobId(job.key.id));
                }
            }
        }
        self.release_all(instance)?;
        self.advance(now)
    }

    fn note_interrupted(&self, job: &Held, why: Why, now: Micros) -> Result<()> {
        let Some(started_at) = job.started_at else { return Ok(()) };
        add_attempt(
            &self.conn,
            &AttemptRow {
                job: job.key.id,
                attempt: job.attempts.saturating_add(1),
                started_at,
                ended_at: now,
                worker: None,
                error: why.report(),
                counted: false,
            },
        )
    }

    fn free_held(
        &mut self,
        job: &Held,
        crashes: Option<&str>,
        now: Micros,
        keep: Retention,
    ) -> Result<()> {
        self.conn
            .prepare_cached(GIVE_BACK)
            .and_then(|mut give| give.execute(params![job.key.id, crashes]))
            .map_err(storing)?;
        match crashes {
            Some(_) => self.suspect_ready(job.lane),
            None => self.ready(job.lane, job.key),
        }
        if job.cancel_requested {
            return self.cancel_given_back(job, "cancelled while running", now, keep);
        }
        if job.started_at.is_some()
            && let Some(unique) = &job.unique
            && let Some(newer) = unique::wait_again(&self.conn, job.key.id, unique, now)?
        {
            let reason = unique::superseded(newer);
            self.cancel_given_back(job, &reason, now, keep)?;
        }
        Ok(())
    }

    /// A job that was to stop when its process died, or that a newer one has taken the place of, is
    /// not started again.
    fn cancel_given_back(
        &mut self,
        job: &Held,
        reason: &str,
        now: Micros,
        keep: Retention,
    ) -> Result<()> {
        let id = job.key.id;
        let Some(mut live) = ends::live(&self.conn, id)? else { return Ok(()) };
        // Though that attempt is not counted.
        live.never_started &= job.started_at.is_none();
        self.end_live(id, live, ends::Why::reason(reason), now, keep)
    }

    fn quarantine(
        &mut self,
        job: &Held,
        claim: ClaimRef,
        deaths: usize,
        now: Micros,
        keep: Retention,
    ) -> Result<Quarantined> {
        let hours = WINDOW.as_secs() / 3600;
        let reason =
            format!("quarantined: its process died {deaths} times within {hours} h while it ran");
        let state = next(State::Running, Change::Quarantine).expect("a suspect that ran");
        let own = keep_of(job.options.as_deref()).unwrap_or(keep);
        let prune_at = match job.flow {
            Some(_) => WITH_ITS_FLOW,
            None => now.saturating_add(micros_of(own.of(state))),
        };
        let to = Move {
            state,
            counted: 0,
            started_at: job.started_at.unwrap_or(now),
            at: now,
            prune_at,
            progress: None,
            output: None,
            reason: Some(&reason),
        };
        move_claimed(&self.conn, claim, &to)?;
        self.prune_at(to.prune_at);
        self.free_key(claim.id, job.unique.as_ref(), false, now)?;
        self.ended(claim.id, job.flow, state, now, keep)?;
        let deaths = u32::try_from(deaths).unwrap_or(u32::MAX);
        Ok(Quarantined { id: claim.id, kind: job.kind.clone(), deaths, reason })
    }
}
