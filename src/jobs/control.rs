//! Control: retry, cancel, delete, pause, resume, backup. What changes jobs that wait stands in
//! [`waiting`](super::waiting).

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

    pub(super) fn change(
        &self,
        which: Selection,
        verb: &'static str,
        control: impl Fn(Vec<JobId>) -> Control,
    ) -> Result<Changed> {
        let mut changed = Changed::default();
        self.change_each(which, verb, control, |done| changed.add(done))?;
        Ok(changed)
    }

    /// Does something to the jobs, a bite of them a transaction, and tells of each.
    pub(super) fn change_each(
        &self,
        which: Selection,
        verb: &'static str,
        control: impl Fn(Vec<JobId>) -> Control,
        mut told: impl FnMut(&Controlled),
    ) -> Result<()> {
        self.refuse_inside_transaction(verb)?;
        // A bite of ids a transaction, so that a bulk holds nobody up.
        const BITE: usize = 500;
        match which {
            Selection::One(id) => {
                let done = self.apply(control(vec![id]))?;
                told(&done);
                done_to_one(done, verb)
            }
            Selection::Many(ids) => {
                for ids in ids.chunks(BITE) {
                    told(&self.apply(control(ids.to_vec()))?);
                }
                Ok(())
            }
            Selection::Matching(filter) => {
                let mut before = None;
                loop {
                    let page = self.list(&filter, before, BITE)?;
                    let ids = page.jobs.iter().map(|job| job.id).collect();
                    told(&self.apply(control(ids))?);
                    before = page.next;
                    if before.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn apply(&self, control: Control) -> Result<Controlled> {
        let cancels = matches!(control, Control::Cancel { .. });
        let done = self.0.store.control(control)?;
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
    /// everything runs on. `to` must not exist, nor a `-wal` that another file of this name has left. In the
    /// copy no job is claimed: those that were running here are ready there.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if `to` exists or cannot be made; [`Error::Invalid`] if SQLite would take it for
    /// a part of another file by its name, or what is left of another file for a part of it; [`Error::Full`], [`Error::Io`].
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        self.0.store.backup(to.as_ref())
    }
}

/// Why it could not be done to the only job that was named.
fn done_to_one(done: Controlled, verb: &'static str) -> Result<()> {
    if let Some((key, holder)) = done.not_unique.into_iter().next() {
        return Err(Error::NotUnique { key, holder });
    }
    if let Some(&(id, parent)) = done.held_by_parent.first() {
        return Err(Error::HeldByParent { id, parent });
    }
    if let Some((_, why)) = done.refused.into_iter().next() {
        return Err(why);
    }
    match done.skipped.first() {
        None => Ok(()),
        Some((id, None)) => Err(Error::NotFound(*id)),
        Some(&(id, Some(state))) => Err(Error::WrongState { id, state, verb }),
    }
}

impl Changed {
    pub(super) fn add(&mut self, done: &Controlled) {
        self.changed += (done.changed.len() + done.asked.len()) as u64;
        let (not_unique, held_by_parent) = (done.not_unique.len(), done.held_by_parent.len());
        let skipped = done.skipped.len() + done.refused.len();
        self.skipped += (skipped + not_unique + held_by_parent) as u64;
        self.held_by_parent += held_by_parent as u64;
        self.not_unique += not_unique as u64;
    }
}
