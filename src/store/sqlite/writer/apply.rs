//! One group, one transaction: what is written, in which order, and who gets a job of it.

use std::time::Instant;

use super::Writer;
use super::group::{Answers, Failed, Group};
use super::stock::seats;
use crate::error::Result;
use crate::store::sqlite::book::{Book, Undone};
use crate::store::sqlite::demand::Demand;
use crate::store::sqlite::errors;
use crate::store::{ClaimRef, Control};

/// How carefully a group is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Without a savepoint for each operation: nearly always nothing fails, and they would cost as
    /// much as a claim.
    Hopeful,
    /// With one: what fails leaves the rest alone.
    Careful,
}

impl Writer {
    pub(super) fn record_locked(&mut self, group: Group) {
        let began = Instant::now();
        if self.book.take_news() {
            self.gaps.saw_neighbour(began);
            // What they have committed may be what somebody waits for.
            self.waiters.look_again();
        }
        self.record_now(group);
        self.gaps.held(began, Instant::now());
    }

    fn record_now(&mut self, mut group: Group) {
        self.reclaim_for(&group);
        let failed = match self.transaction(&group, Care::Hopeful, true) {
            Ok(answers) => return self.answer(group, answers),
            Err(failed) => failed,
        };
        if failed.at_commit || errors::of_the_file(&failed.error) {
            return self.recover(group, failed);
        }
        // One operation is at fault; the others need not know of it.
        if !self.lock(&mut group) {
            return;
        }
        // Mail may have joined it meanwhile.
        self.reclaim_for(&group);
        match self.transaction(&group, Care::Careful, true) {
            Ok(answers) => self.answer(group, answers),
            Err(failed) => self.recover(group, failed),
        }
    }

    /// The transaction of a group that is tried alone, after it failed beside others.
    pub(super) fn record_alone(&mut self, group: &Group) -> Result<Answers, Failed> {
        self.reclaim_for(group);
        self.transaction(group, Care::Careful, false)
    }

    /// Applies the group, claims for whoever waits if it may, and commits. On failure everything is
    /// rolled back.
    fn transaction(
        &mut self,
        group: &Group,
        care: Care,
        may_claim: bool,
    ) -> Result<Answers, Failed> {
        let may_claim = may_claim && self.held.is_empty();
        let mut answers = Answers { whole: may_claim, ..Answers::default() };
        self.book.careful = care == Care::Careful;
        let applied = self.apply(group, care, may_claim, &mut answers);
        let committed = applied
            .map_err(|error| (error, false))
            .and_then(|()| self.book.commit().map_err(|error| (error, true)));
        match committed {
            Ok(ring) => {
                answers.ring = ring || group.ring;
                Ok(answers)
            }
            Err((error, at_commit)) => {
                self.book.roll_back();
                Err(Failed { error, at_commit, claims: self.take_claims(answers) })
            }
        }
    }

    /// What a transaction has claimed; workers that it had chosen wait again.
    fn take_claims(&mut self, answers: Answers) -> Vec<ClaimRef> {
        let mut claims = Vec::new();
        for (pool, parked, claimed) in answers.claims.into_iter().rev() {
            claims.push(claimed.claim);
            self.parked.entry(pool).or_default().push_front(parked);
        }
        let ahead = answers.ahead.into_iter().flat_map(|(_, jobs)| jobs);
        claims.extend(ahead.map(|(_, claimed)| claimed.claim));
        claims
    }

    fn apply(
        &mut self,
        group: &Group,
        care: Care,
        may_claim: bool,
        answers: &mut Answers,
    ) -> Result<()> {
        for job in &self.reclaimed {
            self.book.unclaim(job)?;
            answers.unclaimed.push(job.claim);
        }
        for (_, started) in &group.starts {
            started.iter().try_for_each(|started| self.book.start(started))?;
        }
        if !group.joins.is_empty() || !group.leaves.is_empty() {
            self.keep_trust()?;
        }
        let keep = self.settings.retention;
        let now = self.settings.clock.micros();
        let is_upkeep = |control: &Control| matches!(control, Control::Upkeep(_));
        let believed = match group.controls.iter().any(|op| is_upkeep(&op.what)) {
            true => self.believed()?,
            false => now,
        };
        // Before the inserts: what has expired holds no unique key against them.
        if may_claim && self.book.lanes.has_pools() {
            let over = self.book.next_expiry.is_some_and(|at| at <= now);
            if over {
                answers.cancelled.extend(self.book.expire_due(now, keep)?);
            }
        }
        let book = &mut self.book;
        // A job that is handed over in an operation that fails would have to be taken back.
        // Nor may a control of this very group come too late for it.
        let hands_over = may_claim && care == Care::Hopeful && group.controls.is_empty();
        let seats = if hands_over && !book.suspects {
            seats(book, &self.parked, &self.trays)
        } else {
            Vec::new()
        };
        let mut demand = Demand::new(seats, now);
        // Before the finishes: an attempt posts its notes first, and the claim that they name ends
        // with its finish.
        for note in &group.notes {
            if let Err(error) = attempt(book, care, |book| book.note(note))? {
                log::warn!("legwork: progress of job {} not written: {error}", note.claim.id);
            }
        }
        for op in &group.saves {
            answers.saves.push(attempt(book, care, |book| book.save(&op.what))?);
        }
        for op in &group.finishes {
            let mut done = attempt(book, care, |book| book.finish(&op.finish, keep, &mut demand))?;
            if let Err(error) = &done {
                let refused = op.finish.refused(error);
                done = attempt(book, care, |book| book.finish(&refused, keep, &mut demand))?;
            }
            answers.finishes.push(done);
        }
        for op in &group.inserts {
            let done = attempt(book, care, |book| book.insert(&op.what, &mut demand))?;
            answers.inserts.push(done);
        }
        for op in &group.controls {
            let at = if is_upkeep(&op.what) { believed } else { now };
            let done = attempt(book, Care::Careful, |book| book.control(&op.what, at, keep))?;
            if done.is_err() {
                // What was paused in memory may have been rolled back.
                book.read_pauses()?;
            }
            answers.controls.push(done);
        }
        for op in &group.leaves {
            answers
                .leaves
                .push(attempt(book, Care::Careful, |book| book.leave(op.what, now, keep))?);
        }
        for op in &group.joins {
            answers
                .joins
                .push(attempt(book, Care::Careful, |book| book.join(&op.what, now, keep))?);
        }
        if group.rescue
            && let Some(lock) = self.neighbours.lock()
        {
            match attempt(book, Care::Careful, |book| book.rescue(&lock, now, keep))? {
                Ok(taken) => answers.taken = taken,
                Err(error) => log::error!("legwork: a dead process is not cleared away: {error}"),
            }
        }
        let given = std::mem::take(&mut demand.given);
        drop(demand);
        self.seat(given, answers);
        self.stop_what_was_asked(answers)?;
        self.book.settle(now, keep)?;
        self.book.advance(now)?;
        if may_claim {
            self.claim_for_all(answers)?;
            // Some may have ended there, and their children hear of it.
            self.book.settle(now, keep)?;
            self.book.advance(now)?;
        }
        Ok(())
    }
}

/// Runs one operation. Its own failure is its answer; the loss of the transaction is everybody's.
fn attempt<T>(
    book: &mut Book,
    care: Care,
    work: impl FnOnce(&mut Book) -> Result<T>,
) -> Result<Result<T>> {
    if care == Care::Hopeful {
        return work(book).map(Ok);
    }
    match book.operation(work) {
        Ok(value) => Ok(Ok(value)),
        Err(Undone::Operation(error)) => Ok(Err(error)),
        Err(Undone::Everything(error)) => Err(error),
    }
}
