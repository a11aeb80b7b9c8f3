//! Control: retry, cancel, delete, pause, resume, backup.

use std::path::Path;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::JobId;
use crate::record::{Changed, Scope, Selection};
use crate::rules::name;
use crate::state::State;
use crate::store::{Control, Controlled};

use super::Jobs;
#[cfg(doc)]
use crate::context::Context;

impl Jobs {
    /// Runs finished or retrying jobs again, now, with their counters reset. A job with
    /// [steps](Context::step) that failed or was cancelled goes on where it was; one that completed
    /// begins anew.
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it is scheduled, ready, blocked
    /// or running, [`Error::NotUnique`] if another job has its unique key, [`Error::HeldByParent`] if a
    /// parent has failed or was cancelled: the retry of that one brings this one back. Several and
    /// filters skip such jobs.
    pub fn retry(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "retry", Control::Retry)
    }

    /// As [`retry`](Jobs::retry), and forgets what is stored of the jobs' steps and cursors, so that
    /// they begin anew: for jobs whose steps have changed since
    /// ([`Error::StepChanged`]), if it does no harm that they run twice. One that waits and has steps
    /// forgets them, too, and waits on.
    ///
    /// # Errors
    /// As [`retry`](Jobs::retry).
    pub fn retry_from_scratch(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "retry", Control::RetryAnew)
    }

    /// Cancels jobs: waiting ones at once, running ones through their [`Context`].
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it is finished. Several and
    /// filters skip such jobs.
    pub fn cancel(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "cancel", |ids| Control::Cancel {
            ids,
            reason: "cancelled by request".to_owned(),
        })
    }

    /// Removes jobs that are not running, with all that is kept of them.
    ///
    /// # Errors
    /// For one id: [`Error::NotFound`], [`Error::WrongState`] if it is running. Several and
    /// filters skip such jobs.
    pub fn delete(&self, which: impl Into<Selection>) -> Result<Changed> {
        self.change(which.into(), "delete", Control::Delete)
    }

    fn change(
        &self,
        which: Selection,
        verb: &'static str,
        control: impl Fn(Vec<JobId>) -> Control,
    ) -> Result<Changed> {
        self.refuse_inside_transaction(verb)?;
        // A bite of ids a transaction, so that a bulk holds nobody up.
        const BITE: usize = 500;
        let mut total = Changed::default();
        match which {
            Selection::One(id) => {
                let done = self.apply(control(vec![id]), &mut total)?;
                if let Some((key, holder)) = done.not_unique.first() {
                    return Err(Error::NotUnique { key: key.clone(), holder: *holder });
                }
                if let Some(&(id, parent)) = done.held_by_parent.first() {
                    return Err(Error::HeldByParent { id, parent });
                }
                match done.skipped.first() {
                    None => {}
                    Some((id, None)) => return Err(Error::NotFound(*id)),
                    Some(&(id, Some(state))) => return Err(Error::WrongState { id, state, verb }),
                }
            }
            Selection::Many(ids) => {
                for ids in ids.chunks(BITE) {
                    self.apply(control(ids.to_vec()), &mut total)?;
                }
            }
            Selection::Matching(filter) => {
                let mut before = None;
                loop {
                    let page = self.list(&filter, before, BITE)?;
                    self.apply(control(page.jobs.iter().map(|job| job.id).collect()), &mut total)?;
                    before = page.next;
                    if before.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(total)
    }

    fn apply(&self, control: Control, total: &mut Changed) -> Result<Controlled> {
        let cancels = matches!(control, Control::Cancel { .. });
        let done = self.0.store.control(control)?;
        total.changed += (done.changed.len() + done.asked.len()) as u64;
        let held_by_parent = done.held_by_parent.len();
        total.skipped += (done.skipped.len() + done.not_unique.len() + held_by_parent) as u64;
        total.held_by_parent += held_by_parent as u64;
        total.not_unique += done.not_unique.len() as u64;
        for claim in &done.asked {
            self.0.shared.attempts.cancel(*claim);
        }
        if cancels {
            for &id in &done.changed {
                log::debug!(job = id.0; "legwork: cancelled");
                self.tell(|| Event::Finished {
                    id,
                    kind: None,
                    state: State::Cancelled,
                    took: None,
                });
            }
        }
        Ok(done)
    }

    /// Keeps jobs from being started, durably, in all processes; running ones go on, and jobs can
    /// still be enqueued. Pausing what is paused changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name.
    pub fn pause(&self, scope: Scope) -> Result<()> {
        self.set_pause(scope, "pause", Control::Pause, Event::Paused)
    }

    /// Lets paused jobs be started again. Each pause is lifted by its own scope: a queue paused by
    /// name stays paused when `Scope::All` is resumed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name.
    pub fn resume(&self, scope: Scope) -> Result<()> {
        self.set_pause(scope, "resume", Control::Resume, Event::Resumed)
    }

    /// What is paused.
    ///
    /// # Errors
    /// Those of reading.
    pub fn paused(&self) -> Result<Vec<Scope>> {
        self.0.store.paused()
    }

    fn set_pause(
        &self,
        scope: Scope,
        verb: &'static str,
        control: fn(Scope) -> Control,
        event: fn(Scope) -> Event,
    ) -> Result<()> {
        self.refuse_inside_transaction(verb)?;
        match &scope {
            Scope::All => {}
            Scope::Queue(name) => name::check("queue name", name)?,
            Scope::Kind(name) => name::check("kind", name)?,
        }
        self.0.store.control(control(scope.clone()))?;
        log::info!("legwork: {verb} {scope:?}");
        self.tell(|| event(scope));
        Ok(())
    }

    /// Writes a compact, consistent copy of the whole file, the app's tables included, while
    /// everything runs on. `to` must not exist. In the copy no job is claimed: those that were
    /// running here are ready there.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if `to` exists or cannot be made; [`Error::Full`], [`Error::Io`].
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        self.0.store.backup(to.as_ref())
    }
}
