//! Answering a group after its commit, and what else follows from it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Writer;
use super::group::{Answers, FinishOperation, Group, Parked};
use crate::error::Result;
use crate::store::tray::Place;
use crate::store::{
    ClaimRef, Claimed, Control, EmptyAnswer, Finish, Finished, Notice, PoolId, Verdict, WorkerMail,
};

impl Writer {
    pub(super) fn answer(&mut self, group: Group, mut answers: Answers) {
        if answers.ring {
            self.ring_others();
        }
        if self.tripwire.after_commit(self.book.is_synced()).is_err() {
            // Nothing is acknowledged; the thread ends with this group.
            return;
        }
        for (op, done) in group.finishes.into_iter().zip(answers.finishes) {
            self.finished(op, done);
        }
        if answers.whole {
            self.recovered();
        }
        // An answer that nobody waits for any more is of no interest; and none may hold the writer up.
        for (op, ids) in group.inserts.into_iter().zip(answers.inserts) {
            let _ = op.answer.try_send(ids);
        }
        for (op, done) in group.controls.into_iter().zip(answers.controls) {
            if let (Control::Cancel { .. }, Ok(done)) = (&op.what, &done) {
                self.counted_into_history(done.changed.len() as u64);
            }
            for id in done.iter().flat_map(|done| &done.changed) {
                self.waiters.tell(*id);
            }
            let _ = op.answer.try_send(done);
        }
        for (op, done) in group.saves.into_iter().zip(answers.saves) {
            let _ = op.answer.try_send(done);
        }
        for (op, done) in group.leaves.into_iter().zip(answers.leaves) {
            self.running.remove(&op.what);
            self.neighbours.left(op.what);
            // Perhaps nobody here tells of ends any more.
            self.waiters.look_again();
            // One that was to stop has been cancelled; telling the others too does no harm.
            done.iter().flatten().for_each(|id| self.waiters.tell(*id));
            let _ = op.answer.try_send(done);
        }
        for (op, done) in group.joins.into_iter().zip(answers.joins) {
            done.iter().flat_map(|done| done.taken.ids()).for_each(|id| self.waiters.tell(id));
            if let Ok(joined) = &done {
                self.neighbours.joined(joined.instance, &op.what.lock);
            }
            let _ = op.answer.try_send(done);
        }
        let by_parents = std::mem::take(&mut self.book.flows.cancelled);
        answers.cancelled.extend(by_parents);
        self.forget_reclaimed(&answers.unclaimed);
        self.tell_of_others(answers.taken, answers.asked, answers.cancelled);
        for (flow, state) in std::mem::take(&mut self.book.flows.ended) {
            self.waiters.tell_flow(flow);
            (self.settings.observer)(Notice::FlowEnded(flow, state));
        }
        for (pool, started) in &group.starts {
            if let Some(tray) = self.trays.get(pool) {
                tray.known(started);
            }
        }
        for (pool, parked, claimed) in answers.claims {
            self.hand_over(pool, parked, claimed);
        }
        for (pool, jobs) in answers.ahead {
            self.put_ahead(pool, jobs);
        }
        #[cfg(feature = "cron")]
        if self.book.take_cron_news() {
            (self.settings.observer)(Notice::CronChanged);
        }
    }

    pub(super) fn finished(&mut self, op: FinishOperation, done: Result<Finished>) {
        if let Some(running) = self.running.get_mut(&op.finish.claim.instance) {
            running.remove(&op.finish.claim.token);
        }
        let into_history = match &done {
            Ok(Finished::Recorded { state, .. }) => state.is_finished(),
            Ok(Finished::Settled) => true,
            Ok(Finished::Stale) | Err(_) => false,
        };
        if into_history {
            self.counted_into_history(1);
            self.waiters.tell(op.finish.claim.id);
        }
        if let Some(told) = &op.told {
            told.told(&op.finish, &done);
        }
        if let Some(to) = op.to {
            let _ = to.send(WorkerMail::Finished);
        }
    }

    /// The claims of jobs that were taken out of the trays are gone from the file.
    fn forget_reclaimed(&mut self, unclaimed: &[ClaimRef]) {
        if unclaimed.is_empty() {
            return;
        }
        for claim in unclaimed {
            if let Some(running) = self.running.get_mut(&claim.instance) {
                running.remove(&claim.token);
            }
        }
        self.reclaimed.retain(|job| !unclaimed.contains(&job.claim));
    }

    fn put_ahead(&mut self, pool: PoolId, jobs: Vec<(Place, Claimed)>) {
        for (_, claimed) in &jobs {
            let claim = claimed.claim;
            self.running.entry(claim.instance).or_default().insert(claim.token);
        }
        match self.trays.get(&pool) {
            Some(tray) => self.reclaimed.extend(tray.put(jobs)),
            None => self.reclaimed.extend(jobs.into_iter().map(|(_, claimed)| claimed)),
        }
    }

    fn hand_over(&mut self, pool: PoolId, parked: Parked, claimed: Claimed) {
        let claim = claimed.claim;
        self.running.entry(claim.instance).or_default().insert(claim.token);
        if let Some(tray) = self.trays.get(&pool) {
            tray.began(&claimed);
        }
        if parked.to.send(WorkerMail::Claimed(Box::new(claimed))).is_err() {
            self.give_back(claim);
        }
    }

    /// Returns a job that was claimed for nobody, with the next group.
    pub(super) fn give_back(&mut self, claim: ClaimRef) {
        let (back, now) = (Verdict::GiveBack { why: None }, self.settings.clock.micros());
        // The store frees by the claim what limits it may have taken up.
        let finish = Finish::bare(claim, back, "legwork-writer", now);
        self.held.push(FinishOperation { finish, told: None, to: None });
        self.trouble.get_or_insert((Instant::now(), Duration::from_millis(10)));
    }

    /// Claims that may not park go away with nothing; whoever waits for emptiness is told.
    pub(super) fn answer_empty_handed(&mut self) {
        // What expires holds claims up for a moment, not for good.
        let due = self.is_due();
        for parked in self.parked.values_mut().filter(|_| !due) {
            parked.retain(|claim| {
                if claim.at_once {
                    let _ = claim.to.send(WorkerMail::Nothing);
                }
                !claim.at_once
            });
        }
        if self.when_empty.is_empty() {
            return;
        }
        // After a failed write nothing is known of the lanes until the next look.
        let is_known = self.trouble.is_none() && !self.is_due();
        for asked in std::mem::take(&mut self.when_empty) {
            let idle = is_known
                && self.running.get(&asked.instance).is_none_or(HashSet::is_empty)
                && asked.pools.iter().all(|&pool| self.has_nothing(pool, asked.answer));
            if idle || asked.answer != EmptyAnswer::Once {
                let _ = asked.tell.send(idle);
            } else {
                self.when_empty.push(asked);
            }
        }
    }

    fn has_nothing(&mut self, pool: PoolId, answer: EmptyAnswer) -> bool {
        let something = match answer {
            EmptyAnswer::Once | EmptyAnswer::Now => self.book.has_ready(pool),
            EmptyAnswer::NowToStart => self.book.has_claimable(pool),
        };
        !something.unwrap_or(true)
    }

    pub(super) fn report_unknown_kinds(&mut self) {
        if !self.book.lanes.has_pools() {
            return;
        }
        for (lane, kind) in self.book.lanes.take_strange() {
            if self.reported_kinds.contains(&kind) {
                continue;
            }
            if self.book.lane_has_ready(lane).unwrap_or(false) {
                self.reported_kinds.insert(kind.clone());
                (self.settings.observer)(Notice::UnknownKind { kind });
            }
        }
    }
}
