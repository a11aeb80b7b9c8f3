//! What the writer does when a transaction fails: nothing acknowledged is lost, and it goes on by
//! itself once writing works again.

use std::time::{Duration, Instant};

use super::Writer;
use super::group::{Failed, FinishOperation, Group};
use crate::error::Error;
use crate::store::Notice;

impl Writer {
    /// A full disk or an I/O error has undone the whole group: its operations are tried one by
    /// one, finishes first, so that one that cannot be written does not take the others along.
    pub(super) fn recover(&mut self, group: Group, failed: Failed) {
        if failed.at_commit {
            // The commit may have taken effect after all; a stale give-back changes nothing.
            failed.claims.into_iter().for_each(|claim| self.give_back(claim));
        }
        let unknown = failed.at_commit && matches!(failed.error, Error::Io(_));
        if unknown || group.operations() <= 1 {
            let error = if unknown {
                Error::OutcomeUnknown(failed.error.to_string())
            } else {
                failed.error
            };
            self.fail_all(group, error);
            return;
        }
        for mut one in group.split() {
            if self.lock(&mut one) {
                match self.record_alone(&one) {
                    Ok(answers) => self.answer(one, answers),
                    Err(failed) => self.recover(one, failed),
                }
            }
        }
        // Claims were left out; they are tried again with the next look.
        self.back_off();
    }

    /// Answers everything in the group with the error; finishes are held and tried again.
    pub(super) fn fail_all(&mut self, group: Group, error: Error) {
        self.back_off();
        let again = |error: &Error| match error {
            Error::Full(_) => Error::Full(error.to_string().into()),
            Error::Io(_) => Error::Io(error.to_string().into()),
            Error::Busy { waited } => Error::Busy { waited: *waited },
            Error::Corrupt(what) => Error::Corrupt(what.clone()),
            Error::OutcomeUnknown(what) => Error::OutcomeUnknown(what.clone()),
            other => Error::Sqlite(other.to_string().into()),
        };
        for op in group.inserts {
            let _ = op.answer.send(Err(again(&error)));
        }
        for op in group.controls {
            let _ = op.answer.send(Err(again(&error)));
        }
        for op in group.joins {
            let _ = op.answer.send(Err(again(&error)));
        }
        for op in group.leaves {
            let _ = op.answer.send(Err(again(&error)));
        }
        if !group.finishes.is_empty() {
            self.hold(group.finishes, &error);
        }
    }

    pub(super) fn hold(&mut self, finishes: Vec<FinishOperation>, error: &Error) {
        self.held.extend(finishes);
        log::warn!(
            "legwork: {} finishes are held until they can be recorded: {error}",
            self.held.len()
        );
        (self.settings.observer)(Notice::Held { error: error.to_string() });
    }

    /// Sets the alarm for another try: after 50 ms, then ever later up to 5 s, with jitter so
    /// that several processes do not come back together.
    pub(super) fn back_off(&mut self) {
        let pause = self.trouble.map_or(Duration::from_millis(50), |(_, pause)| {
            (pause * 2).min(Duration::from_secs(5))
        });
        let wait = pause.mul_f64(1.0 + 0.2 * self.settings.random.fraction());
        self.trouble = Some((Instant::now() + wait, pause));
    }
}
