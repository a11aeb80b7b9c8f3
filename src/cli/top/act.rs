//! What changes something, and always asks first.

use super::super::{pause, shell};
use super::text;
use crate::error::Result;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::record::Scope;
use crate::state::State;

/// A job, as it was when its user chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) id: JobId,
    pub(super) state: State,
    pub(super) kind: String,
    /// What it is about, or its error.
    pub(super) about: String,
}

/// What can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Retry(Target),
    RunNow(Target),
    Cancel(Target),
    Delete(Target),
    Pause(Scope),
    Resume(Scope),
}

impl Action {
    fn word(&self) -> &'static str {
        match self {
            Action::Retry(_) => "retry",
            Action::RunNow(_) => "run now",
            Action::Cancel(_) => "cancel",
            Action::Delete(_) => "delete",
            Action::Pause(_) => "pause",
            Action::Resume(_) => "resume",
        }
    }

    /// What is asked before; what matters stands first.
    pub(super) fn question(&self) -> String {
        match self {
            Action::Retry(job)
            | Action::RunNow(job)
            | Action::Cancel(job)
            | Action::Delete(job) => {
                let (kind, about) = (text::one_line(&job.kind), text::one_line(&job.about));
                format!("{} job {}, {kind}: {about}", self.word(), job.id)
            }
            Action::Pause(scope) | Action::Resume(scope) => {
                format!("{} {}", self.word(), text::one_line(&pause::words(scope)))
            }
        }
    }

    /// Why it cannot be done to a job in this state; the verb itself looks again.
    pub(super) fn refusal(&self) -> Option<String> {
        let (job, can) = match self {
            Action::Retry(job) => (job, job.state.is_finished() || job.state == State::Retrying),
            Action::RunNow(job) => (job, job.state == State::Retrying),
            Action::Cancel(job) => (job, !job.state.is_finished()),
            Action::Delete(job) => (job, job.state != State::Running),
            Action::Pause(_) | Action::Resume(_) => return None,
        };
        (!can).then(|| format!("cannot {} job {}: it is {}", self.word(), job.id, job.state))
    }

    /// Does it; what to say of it then.
    pub(super) fn apply(&self, jobs: &Jobs) -> Result<String> {
        let done = match self {
            Action::Retry(job) => {
                jobs.retry(job.id)?;
                format!("job {} runs again", job.id)
            }
            Action::RunNow(job) => {
                jobs.run_now(job.id)?;
                format!("job {} runs now", job.id)
            }
            Action::Cancel(job) => {
                jobs.cancel(job.id)?;
                shell::end_unwanted(jobs).wait_meanwhile();
                let done = if job.state == State::Running { "asked to stop" } else { "cancelled" };
                format!("job {} was {done}", job.id)
            }
            Action::Delete(job) => {
                jobs.delete(job.id)?;
                shell::end_unwanted(jobs).wait_meanwhile();
                format!("job {} was deleted", job.id)
            }
            Action::Pause(scope) => {
                jobs.pause(scope.clone())?;
                format!("paused: {}", pause::words(scope))
            }
            Action::Resume(scope) => {
                jobs.resume(scope.clone())?;
                format!("resumed: {}", pause::words(scope))
            }
        };
        Ok(text::one_line(&done))
    }
}
