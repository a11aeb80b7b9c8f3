//! What the writer does when a transaction fails: nothing acknowledged is lost, and it goes on by
//! itself once writing works again.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::Writer;
use super::group::{Failed, FinishOperation, Group, Operation};
use crate::error::Error;
use crate::store::Notice;

impl Writer {
    /// A full disk or an I/O error has undone the whole group: its operations are tried one by
    /// one, notes and finishes first, so that one that cannot be written does not take the others along. Nor
    /// does a claim: those are left out, and tried again with the next look.
    pub(super) fn recover(&mut self, group: Group, failed: Failed) {
        if failed.at_commit {
            // The commit may have taken effect after all; a stale give-back changes nothing.
            failed.claims.into_iter().for_each(|claim| self.give_back(claim));
            if let Error::Io(error) = &failed.error {
                let unknown = Error::OutcomeUnknown(error.to_string());
                return self.fail_all(group, unknown);
            }
        }
        if group.operations() == 0 {
            return self.fail_all(group, failed.error);
        }
        let (ring, rescue) = (group.ring, group.rescue);
        let mut ones = group.split();
        while let Some(mut one) = ones.next() {
            self.defer_leaves(&mut one);
            if one.operations() == 0 {
                continue;
            }
            if !self.begin_at_once(&one) {
                // Somebody else writes. What is left waits for him together, each until its deadline.
                self.leave_over(one);
                ones.by_ref().for_each(|one| self.leave_over(one));
                break;
            }
            match self.record_alone(&one) {
                Ok(answers) => self.answer(one, answers),
                Err(failed) => self.fail_alone(one, failed),
            }
        }
        // Claims and looks come back with the alarm; others must be rung all the same.
        if ring || rescue {
            self.leave_over(Group { look: true, ring, rescue, ..Group::default() });
        }
        self.back_off();
    }

    fn fail_alone(&mut self, group: Group, failed: Failed) {
        let error = match failed.error {
            Error::Io(error) if failed.at_commit => Error::OutcomeUnknown(error.to_string()),
            error => error,
        };
        self.fail_all(group, error);
    }

    /// Answers everything in the group with the error; finishes are held and tried again.
    pub(super) fn fail_all(&mut self, group: Group, error: Error) {
        self.back_off();
        self.tell_damage(&error);
        if group.operations() == 0 {
            // Nobody is answered: it was about claims, or about nothing but a look.
            self.tell_trouble(&error);
        }
        for op in group.inserts {
            let _ = op.answer.try_send(Err(again(&error)));
        }
        for op in group.controls {
            let _ = op.answer.try_send(Err(again(&error)));
        }
        for op in group.saves {
            let _ = op.answer.try_send(Err(again(&error)));
        }
        for op in group.joins {
            let _ = op.answer.try_send(Err(again(&error)));
        }
        for op in group.leaves {
            // Whoever posted it does not come back, and its row stands for a process that lives.
            self.leaving.push(op.what);
            let _ = op.answer.try_send(Err(again(&error)));
        }
        if !group.finishes.is_empty() {
            self.hold(group.finishes, &error);
        }
    }

    fn hold(&mut self, finishes: Vec<FinishOperation>, error: &Error) {
        self.held.extend(finishes);
        log::debug!("legwork: {} finishes are held: {error}", self.held.len());
        self.tell_trouble(error);
    }

    /// Puts what is held into a group, to be tried again.
    pub(super) fn take_up_held(&mut self, group: &mut Group) {
        group.finishes.append(&mut self.held);
        for what in self.leaving.drain(..) {
            let (answer, _nobody) = bounded(1);
            group.leaves.push(Operation { what, posted: Instant::now(), deadline: None, answer });
        }
    }

    /// An engine leaves the file after its last finish: its jobs go back to the queue then, and
    /// those that have ended would run again.
    pub(super) fn defer_leaves(&mut self, group: &mut Group) {
        if self.held.is_empty() || group.leaves.is_empty() {
            return;
        }
        let held = &self.held;
        let holds = |instance| held.iter().any(|op| op.finish.claim.instance == instance);
        let (later, now): (Vec<_>, Vec<_>) =
            std::mem::take(&mut group.leaves).into_iter().partition(|op| holds(op.what));
        group.leaves = now;
        for op in later {
            self.leaving.push(op.what);
            let _ = op.answer.try_send(Err(Error::Busy { waited: op.posted.elapsed() }));
        }
    }

    /// All that there was to do has been written: the trouble is over, if nothing is held.
    pub(super) fn recovered(&mut self) {
        if !self.held.is_empty() || !self.leaving.is_empty() {
            return;
        }
        self.trouble = None;
        if std::mem::take(&mut self.trouble_told) {
            (self.settings.observer)(Notice::Recovered);
        }
    }

    fn tell_trouble(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.trouble_told, true) {
            (self.settings.observer)(Notice::Held { error: error.to_string() });
        }
    }

    pub(super) fn tell_damage(&mut self, error: &Error) {
        if matches!(error, Error::Corrupt(_)) && !std::mem::replace(&mut self.damage_told, true) {
            (self.settings.observer)(Notice::Damaged { error: error.to_string() });
        }
    }

    /// Sets the alarm for another try: after 50 ms, then ever later up to 5 s, with jitter so
    /// that several processes do not come back together. An alarm that is set stands.
    pub(super) fn back_off(&mut self) {
        let now = Instant::now();
        if self.trouble.is_some_and(|(at, _)| at > now) {
            return;
        }
        let pause = self.trouble.map_or(Duration::from_millis(50), |(_, pause)| {
            (pause * 2).min(Duration::from_secs(5))
        });
        let wait = pause.mul_f64(1.0 + 0.2 * self.settings.random.fraction());
        self.trouble = Some((now + wait, pause));
    }
}

/// The same error for one more of those who wait.
fn again(error: &Error) -> Error {
    match error {
        Error::Full(why) => Error::Full(why.to_string().into()),
        Error::Io(why) => Error::Io(why.to_string().into()),
        Error::Busy { waited } => Error::Busy { waited: *waited },
        Error::Corrupt(what) => Error::Corrupt(what.clone()),
        Error::OutcomeUnknown(what) => Error::OutcomeUnknown(what.clone()),
        Error::ReadOnly { path, why } => Error::ReadOnly { path: path.clone(), why: why.clone() },
        other => Error::Sqlite(other.to_string().into()),
    }
}
