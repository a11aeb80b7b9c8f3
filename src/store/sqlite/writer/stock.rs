//! The writer's side of the trays: who gets a claimed job, what is taken back, and when to come by.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Writer;
use super::group::{Answers, FinishOperation, Group, Parked};
use crate::error::Result;
use crate::record::Scope;
use crate::store::sqlite::book::Book;
use crate::store::sqlite::demand::{Given, Seat};
use crate::store::tray::Tray;
use crate::store::{Claimed, Control, PoolId, WorkerMail};

/// Who may be given a job by the statement that inserts it: pools in which somebody waits, or whose
/// trays are in use. Not those that draw their queues by weight, for they have no order to keep.
pub(super) fn seats<'a>(
    book: &Book,
    parked: &HashMap<PoolId, VecDeque<Parked>>,
    trays: &'a HashMap<PoolId, Arc<Tray>>,
) -> Vec<Seat<'a>> {
    let seat = |(&pool, tray): (&PoolId, &'a Arc<Tray>)| {
        let spec = book.lanes.spec(pool).filter(|spec| !spec.queues.is_weighted())?;
        let waiting = parked.get(&pool).map_or(0, VecDeque::len);
        // Whoever waits gets what lies in the tray first.
        let waiting = if tray.last_place().is_some() { 0 } else { waiting };
        let tray = tray.in_use().then_some(&**tray);
        (waiting > 0 || tray.is_some()).then(|| Seat::new(pool, spec.instance, waiting, tray))
    };
    trays.iter().filter_map(seat).collect()
}

impl Writer {
    /// Takes what lies in the trays for the writer, and out of them what should not stay.
    pub(super) fn visit_trays(&mut self, group: &mut Group) {
        let mailed = std::mem::take(&mut group.finishes);
        for (&pool, tray) in &self.trays {
            for ending in tray.take_ends() {
                group.add(FinishOperation::new(ending, None));
            }
            let starts = tray.unknown_starts();
            if !starts.is_empty() && self.trouble.is_none() {
                group.starts.push((pool, starts));
            }
            self.reclaimed.extend(tray.take_stale());
        }
        // What was left in a tray ended before what a worker posted when it found the tray empty.
        group.finishes.extend(mailed);
    }

    /// Hands what lies in the trays to workers that came too early for it; those claims are in the
    /// file.
    pub(super) fn serve_from_trays(&mut self) {
        let now = self.settings.clock.micros();
        for (&pool, tray) in &self.trays {
            let Some(parked) = self.parked.get_mut(&pool) else { continue };
            while !parked.is_empty() {
                let Some(claimed) = tray.take(now) else { break };
                let Some(worker) = parked.pop_front() else { break };
                if let Err(lost) = worker.to.send(WorkerMail::Claimed(Box::new(claimed)))
                    && let WorkerMail::Claimed(claimed) = lost.into_inner()
                {
                    tray.ended(claimed.claim);
                    self.reclaimed.push(*claimed);
                }
            }
        }
    }

    /// When to come by again for the trays that are in use.
    pub(super) fn watch_trays(&self) -> Option<Duration> {
        self.trays.values().filter_map(|tray| tray.watch()).min()
    }

    /// Takes the tray of a pool that closes away; what workers left in it is recorded.
    pub(super) fn close_tray(&mut self, pool: PoolId, group: &mut Group) {
        let Some(tray) = self.trays.remove(&pool) else { return };
        self.reclaimed.extend(tray.close());
        for ending in tray.take_ends() {
            group.add(FinishOperation::new(ending, None));
        }
    }

    /// Takes jobs out of the trays that a control of the group is about: they have not started, and
    /// shall not any more.
    pub(super) fn reclaim_for(&mut self, group: &Group) {
        for control in group.controls.iter().map(|op| &op.what) {
            match control {
                Control::Cancel { ids, .. }
                | Control::Delete(ids)
                | Control::Reschedule(ids, _)
                | Control::Edit(ids, _) => {
                    self.reclaim(|job| ids.contains(&job.claim.id));
                }
                Control::Pause(scope) => self.reclaim(|job| covers(scope, job)),
                // What is behind a gate never lies in a tray, nor what waits for its time.
                Control::Retry(_)
                | Control::RetryAnew(_)
                | Control::RunNow(_)
                | Control::Clone(_)
                | Control::Resume(_)
                | Control::CloseGate(_)
                | Control::OpenGate(_)
                | Control::SetPools(..)
                | Control::EnqueueFlow(_)
                | Control::Import(_)
                | Control::EndImport(_)
                | Control::Upkeep(_) => {}
                #[cfg(feature = "cron")]
                Control::Cron(_) => {}
            }
        }
    }

    fn reclaim(&mut self, mut which: impl FnMut(&Claimed) -> bool) {
        for tray in self.trays.values() {
            self.reclaimed.extend(tray.take_back(&mut which));
        }
    }

    /// Seats what inserts have given out.
    pub(super) fn seat(&mut self, given: Vec<Given>, answers: &mut Answers) {
        for Given { pool, place, claimed } in given {
            match place {
                Some(place) => answers.put_ahead(pool, place, claimed),
                None => {
                    let parked = self.parked.get_mut(&pool).and_then(VecDeque::pop_front);
                    let parked = parked.expect("as many were given as wait");
                    answers.claims.push((pool, parked, claimed));
                }
            }
        }
    }

    /// Claims for whoever waits, then ahead for the trays that are in use.
    pub(super) fn claim_for_all(&mut self, answers: &mut Answers) -> Result<()> {
        let now = self.settings.clock.micros();
        if self.book.lanes.has_pools() && self.book.next_due.is_some_and(|at| at <= now) {
            self.book.make_due_ready(now)?;
        }
        if self.book.lanes.has_pools() && self.book.next_expiry.is_some_and(|at| at <= now) {
            answers.cancelled.extend(self.book.expire_due(now, self.settings.retention)?);
        }
        // Those that have expired may have been next in their lines.
        self.book.advance(now)?;
        self.take_back_paused(answers)?;
        self.book.passed_by = 0;
        let pools: Vec<PoolId> = self.trays.keys().copied().collect();
        for pool in pools {
            self.claim_for_parked(pool, answers)?;
            self.claim_ahead(pool, answers)?;
        }
        Ok(())
    }

    fn claim_for_parked(&mut self, pool: PoolId, answers: &mut Answers) -> Result<()> {
        let now = self.settings.clock.micros();
        let Some(parked) = self.parked.get_mut(&pool) else { return Ok(()) };
        while !parked.is_empty() {
            let (random, keep) = (&self.settings.random, self.settings.retention);
            let expired = &mut answers.cancelled;
            let Some(claimed) = self.book.claim(pool, now, random, keep, expired)? else { break };
            let Some(worker) = parked.pop_front() else { break };
            answers.claims.push((pool, worker, claimed));
        }
        Ok(())
    }

    fn claim_ahead(&mut self, pool: PoolId, answers: &mut Answers) -> Result<()> {
        let Some(tray) = self.trays.get(&pool) else { return Ok(()) };
        if !tray.in_use() || self.stopping {
            return Ok(());
        }
        if let Some(last) = tray.last_place()
            && let Some(first) = self.book.must_go_first(pool, tray, last)?
        {
            // It cannot lie among them, so whatever it goes before makes way.
            let back = tray.take_back_after(first);
            return self.unclaim(back, answers);
        }
        let ahead = self.book.claim_ahead(pool, tray, &self.settings.random)?;
        for (place, claimed) in ahead {
            answers.put_ahead(pool, place, claimed);
        }
        Ok(())
    }

    /// What others have paused must not be started from the trays.
    fn take_back_paused(&mut self, answers: &mut Answers) -> Result<()> {
        if !self.book.take_pauses_changed() {
            return Ok(());
        }
        let mut back = Vec::new();
        for (&pool, tray) in &self.trays {
            let lanes = &self.book.lanes;
            back.extend(tray.take_back(|job| lanes.rank(pool, job.lane).is_none()));
        }
        self.unclaim(back, answers)
    }

    /// Frees jobs that were taken out of a tray. If that fails they are still remembered.
    pub(super) fn unclaim(&mut self, back: Vec<Claimed>, answers: &mut Answers) -> Result<()> {
        let before = self.reclaimed.len();
        self.reclaimed.extend(back);
        for job in &self.reclaimed[before..] {
            self.book.unclaim(job)?;
            answers.unclaimed.push(job.claim);
        }
        Ok(())
    }
}

fn covers(scope: &Scope, job: &Claimed) -> bool {
    match scope {
        Scope::All => true,
        Scope::Queue(queue) => *queue == *job.queue,
        Scope::Kind(kind) => *kind == *job.kind,
    }
}
