//! The end of a job, and what it sets going: its key is free, its line moves on, its children hear
//! of it, its flow counts it.
//!
//! All of it works on any connection: the writer's, and one of the app in its own transaction. What
//! is left to do beyond the rows comes back as [`Effects`], since the two tell others in different ways.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::book::{Book, Undone};
use super::counter::Counter;
use super::demand::Demand;
use super::errors::storing;
use super::flows::{self, Callback};
use super::unique::{self, Waits};
use super::{edges, enqueue, errors, finish, limits};
use crate::clock::{Micros, micros_of};
use crate::error::{Error, Result};
use crate::flow::{FlowState, Upon};
use crate::id::{FlowId, JobId};
use crate::new_job::{Overrides, Retention};
use crate::state::State;
use crate::unique::Enqueued;

/// When a member of a flow may be pruned: with its flow only.
pub(super) const WITH_ITS_FLOW: Micros = Micros::MAX;

const READ_LIVE: &str = "
SELECT state, lane, priority, options, instance, token, unique_key, unique_hold,
       attempts = 0 AND first_started_at IS NULL, waits_on, flow FROM legwork_jobs WHERE id = ?1";
pub(super) const CANCEL_WAITING: &str = "
INSERT INTO legwork_history
       (id, lane, state, priority, run_at, enqueued_at, attempts, started_at, finished_at, prune_at,
        args, options, tags, meta, progress_done, progress_total, message, reason, unique_key,
        unique_hold, limits, flow, cause)
SELECT id, lane, 8, priority, run_at, enqueued_at, attempts, NULL, ?2, ?3,  -- cancelled
       args, options, tags, meta, progress_done, progress_total, message, ?4,
       unique_key, unique_hold, limits, flow, ?5
  FROM legwork_jobs WHERE id = ?1";

/// What a change has set going.
#[derive(Default)]
pub(super) struct Effects {
    /// Jobs that have become claimable, or wait for their time now.
    pub(super) waits: Vec<Waits>,
    /// Lines that move on.
    pub(super) lines: Vec<String>,
    /// When the first of what has finished may be pruned.
    pub(super) prune_at: Option<Micros>,
    /// Jobs that have finished or come back, and whose children have not heard of it.
    pub(super) unsettled: BTreeSet<i64>,
    /// Jobs that were cancelled by the end of a parent.
    pub(super) cancelled: Vec<JobId>,
    pub(super) ended: Vec<(FlowId, FlowState)>,
    pub(super) callbacks: Vec<Callback>,
}

impl Effects {
    pub(super) fn prune_at(&mut self, at: Micros) {
        self.prune_at = self.prune_at.into_iter().chain([at]).min();
    }
}

/// A job that has not finished.
pub(super) struct Live {
    pub(super) state: State,
    pub(super) lane: i64,
    pub(super) priority: i64,
    pub(super) options: Option<String>,
    /// Instance and token.
    pub(super) claim: Option<(i64, i64)>,
    pub(super) unique: Option<unique::Held>,
    pub(super) never_started: bool,
    /// The line in which it waits for a limit.
    pub(super) waits_on: Option<String>,
    pub(super) flow: Option<i64>,
}

pub(super) fn live(conn: &Connection, id: i64) -> Result<Option<Live>> {
    conn.prepare_cached(READ_LIVE)
        .and_then(|mut ask| {
            ask.query_row([id], |row| {
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
                    flow: row.get(10)?,
                })
            })
            .optional()
        })
        .map_err(storing)
}

/// The retention that one job has of its own.
pub(super) fn keep_of(options: Option<&str>) -> Option<Retention> {
    // Options that another version wrote and this one cannot read fall back to the defaults.
    serde_json::from_str::<Overrides>(options?).ok()?.keep
}

/// Why a job that waits ends.
#[derive(Clone, Copy)]
pub(super) struct Why<'a> {
    pub(super) reason: &'a str,
    /// The parent whose end it is.
    pub(super) cause: Option<i64>,
}

impl<'a> Why<'a> {
    pub(super) fn reason(reason: &'a str) -> Why<'a> {
        Why { reason, cause: None }
    }
}

/// Cancels a job that nobody holds.
pub(super) fn cancel_waiting(
    conn: &Connection,
    id: i64,
    job: Live,
    why: Why<'_>,
    now: Micros,
    keep: Retention,
    effects: &mut Effects,
) -> Result<()> {
    let own = keep_of(job.options.as_deref()).unwrap_or(keep);
    let prune_at = match job.flow {
        Some(_) => WITH_ITS_FLOW,
        None => now.saturating_add(micros_of(own.of(State::Cancelled))),
    };
    conn.prepare_cached(CANCEL_WAITING)
        .and_then(|mut cancel| cancel.execute(params![id, now, prune_at, why.reason, why.cause]))
        .map_err(storing)?;
    effects.prune_at(prune_at);
    remove_waiting(conn, id, job, now, keep, effects)
}

/// Takes a job that nobody holds out of those that are to run.
pub(super) fn remove_waiting(
    conn: &Connection,
    id: i64,
    job: Live,
    now: Micros,
    keep: Retention,
    effects: &mut Effects,
) -> Result<()> {
    conn.prepare_cached(finish::REMOVE)
        .and_then(|mut remove| remove.execute([id]))
        .map_err(storing)?;
    if let Some(held) = &job.unique {
        effects.waits.extend(unique::free(conn, id, held, job.never_started, now)?);
    }
    effects.lines.extend(job.waits_on);
    effects.unsettled.insert(id);
    if let Some(flow) = job.flow {
        flows::member_ended(conn, flow, State::Cancelled, now, keep, effects)?;
    }
    Ok(())
}

/// What the writer keeps in memory of parents, children and flows.
#[derive(Clone, Default)]
pub(super) struct Flows {
    /// There are edges; without any a job's end looks for no children.
    pub(super) any_edges: bool,
    /// Ends are left in the file of which children have still to hear.
    pub(super) settling: bool,
    /// The same, of this transaction.
    pub(super) unsettled: BTreeSet<i64>,
    /// This transaction has settled a bite.
    pub(super) bitten: bool,
    /// Jobs that were cancelled by the end of a parent, to be told after the commit.
    pub(super) cancelled: Vec<JobId>,
    /// Flows that have ended, to be told after the commit.
    pub(super) ended: Vec<(FlowId, FlowState)>,
}

impl Book {
    /// Reads whether there are parents and children at all.
    pub(super) fn read_edges(&mut self) -> Result<()> {
        (self.flows.any_edges, self.flows.settling) = edges::any(&self.conn)?;
        Ok(())
    }

    /// A job has parents now.
    pub(super) fn edges_came(&mut self) {
        if !self.flows.any_edges {
            self.flows.any_edges = true;
            self.rules_changed();
        }
    }

    /// A job has ended: its children are to hear of it, and its flow counts it.
    pub(super) fn ended(
        &mut self,
        id: JobId,
        flow: Option<i64>,
        state: State,
        now: Micros,
        keep: Retention,
    ) -> Result<()> {
        if self.flows.any_edges {
            self.flows.unsettled.insert(id.0);
        }
        if let Some(flow) = flow {
            let mut effects = Effects::default();
            flows::member_ended(&self.conn, flow, state, now, keep, &mut effects)?;
            self.carry_out(effects)?;
        }
        Ok(())
    }

    /// Does what is left to do, and remembers what is to be told after the commit.
    pub(super) fn carry_out(&mut self, effects: Effects) -> Result<()> {
        effects.waits.into_iter().for_each(|waits| self.goes_on(Some(waits)));
        effects.lines.into_iter().for_each(|line| self.moves_on(line));
        if let Some(at) = effects.prune_at {
            self.prune_at(at);
        }
        if self.flows.any_edges {
            self.flows.unsettled.extend(effects.unsettled);
        }
        if !effects.cancelled.is_empty() {
            // Somebody there may wait for their end.
            self.news_for_others();
        }
        self.flows.cancelled.extend(effects.cancelled);
        self.flows.ended.extend(effects.ended);
        for Callback { flow, upon, row } in effects.callbacks {
            let rows = std::slice::from_ref(&row);
            let done = self.operation(|book| {
                let done = book.insert(rows, &mut Demand::default())?;
                done.iter().try_for_each(|done| called_back(&book.conn, flow, upon, done))
            });
            match done {
                Ok(()) => {}
                Err(Undone::Everything(error)) => return Err(error),
                Err(Undone::Operation(error)) => not_called_back(flow, upon, &error),
            }
        }
        Ok(())
    }

    /// Cancels a job that nobody holds; its lane's bound may stay too low.
    pub(super) fn end_waiting(
        &mut self,
        id: i64,
        why: Why<'_>,
        now: Micros,
        keep: Retention,
    ) -> Result<()> {
        let Some(job) = live(&self.conn, id)? else { return Ok(()) };
        self.end_live(id, job, why, now, keep)
    }

    /// The same for a job that was read already.
    pub(super) fn end_live(
        &mut self,
        id: i64,
        job: Live,
        why: Why<'_>,
        now: Micros,
        keep: Retention,
    ) -> Result<()> {
        let mut effects = Effects::default();
        cancel_waiting(&self.conn, id, job, why, now, keep, &mut effects)?;
        // Somebody there may wait for its end.
        self.news_for_others();
        self.carry_out(effects)
    }

    /// Lets children hear of the ends of their parents: a bite of them, the rest in later transactions.
    pub(super) fn settle(&mut self, now: Micros, keep: Retention) -> Result<()> {
        while !self.flows.unsettled.is_empty() || (self.flows.settling && !self.flows.bitten) {
            let unsettled = std::mem::take(&mut self.flows.unsettled);
            let mut effects = Effects { unsettled, ..Effects::default() };
            let budget = if self.flows.bitten { 0 } else { edges::BITE };
            let more =
                edges::settle(&self.conn, &mut effects, budget, self.flows.settling, now, keep)?;
            // One bite a transaction, however often it comes by here.
            self.flows.bitten = true;
            if more && !self.flows.settling {
                self.rules_changed();
            }
            self.flows.settling = more;
            self.carry_out(effects)?;
        }
        Ok(())
    }
}

/// The same as [`Book::settle`] and [`Book::carry_out`] on a connection of the app.
pub(super) fn carry_out_on(
    conn: &Connection,
    mut effects: Effects,
    now: Micros,
    keep: Retention,
) -> Result<()> {
    let settled = !effects.unsettled.is_empty() && edges::any(conn)?.0;
    if settled {
        edges::settle(conn, &mut effects, edges::BITE, false, now, keep)?;
    }
    if settled
        || !effects.waits.is_empty()
        || !effects.lines.is_empty()
        || !effects.ended.is_empty()
    {
        let mut counter = Counter::read(conn)?;
        effects.waits.iter().for_each(|waits| counter.lane_changed(waits.lane));
        limits::advance_on(conn, effects.lines, now, &mut counter)?;
        counter.rules += 1;
        counter.write(conn)?;
    }
    for Callback { flow, upon, row } in effects.callbacks {
        match enqueue::insert_on(conn, &row, keep) {
            Ok(done) => called_back(conn, flow, upon, &done)?,
            Err(error) if errors::of_the_file(&error) => return Err(error),
            Err(error) => not_called_back(flow, upon, &error),
        }
    }
    Ok(())
}

fn called_back(conn: &Connection, flow: i64, upon: Upon, done: &Enqueued) -> Result<()> {
    match done {
        Enqueued::New(id) | Enqueued::Replaced(id) => flows::called_back(conn, flow, upon, *id),
        Enqueued::Existing(holder) | Enqueued::Rejected { holder } => {
            log::warn!(flow = flow; "legwork: the {} callback is not enqueued: job {holder} has its unique key", upon.word());
            Ok(())
        }
    }
}

/// The end of a member does not fail for it: the callback was checked with its flow.
fn not_called_back(flow: i64, upon: Upon, error: &Error) {
    log::error!(flow = flow; "legwork: the {} callback is not enqueued: {error}", upon.word());
}
