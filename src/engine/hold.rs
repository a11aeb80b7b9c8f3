//! Holding an engine up without stopping it, and looking what it does.

use std::time::Duration;

use super::{Engine, worker};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::record::Progress;

/// An attempt under way, and the worker that it occupies: from [`Engine::at_work`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AtWork {
    /// The worker: its pool's name, and its number there.
    pub worker: String,
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// How long it has been running, in time that the machine was awake.
    pub running: Duration,
    /// What it has said of its progress.
    pub progress: Option<Progress>,
    /// Whether it was asked to stop: cancelled, out of time, or its engine stops.
    pub asked_to_stop: bool,
}

impl Engine {
    /// Starts no more jobs, for all pools: workers end after their current job. What is under way goes on,
    /// cron entries go on to enqueue, and whoever waits in
    /// [`run_until_empty`](Engine::run_until_empty) goes on waiting. Until [`resume`](Engine::resume).
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let engine = Engine::builder(&jobs).start()?;
    /// engine.quiet()?;                       // before something heavy
    /// engine.resume()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn quiet(&self) -> Result<()> {
        self.hold(true)
    }

    /// Starts jobs again after [`quiet`](Engine::quiet), with as many workers as each pool has now.
    ///
    /// # Errors
    /// [`Error::Stopped`]; [`Error::Io`] if a thread cannot be started.
    pub fn resume(&self) -> Result<()> {
        self.hold(false)
    }

    fn hold(&self, quiet: bool) -> Result<()> {
        if self.core.is_stopping() {
            return Err(Error::Stopped("the engine"));
        }
        for pool in &self.core.pools {
            let epoch = pool.hold(quiet);
            // Those that wait for a job must look again.
            self.jobs().store().unpark(pool.id, epoch)?;
            worker::start_missing(&self.core, pool)?;
        }
        self.tell_pools()
    }

    /// What its workers are doing at the moment, the longest first; those that do nothing are not among
    /// them.
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// # let engine = Engine::builder(&jobs).start()?;
    /// for attempt in engine.at_work() {
    ///     println!("{}: job {} for {:?}", attempt.worker, attempt.id, attempt.running);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn at_work(&self) -> Vec<AtWork> {
        let attempts = self.core.at_work();
        let mut at_work: Vec<AtWork> = attempts
            .iter()
            .map(|attempt| AtWork {
                worker: attempt.worker.to_string(),
                id: attempt.id(),
                kind: attempt.kind.to_string(),
                queue: attempt.queue.to_string(),
                attempt: attempt.number,
                running: attempt.elapsed(),
                progress: attempt.said().progress.clone(),
                asked_to_stop: attempt.interrupt().is_some(),
            })
            .collect();
        at_work.sort_by_key(|attempt| std::cmp::Reverse(attempt.running));
        at_work
    }
}
