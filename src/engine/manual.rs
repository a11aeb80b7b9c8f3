//! An engine without threads: the calling thread runs the jobs, in a fixed order.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::pool::CheckedPool;
use super::registry::Registry;
use super::{Core, Settings, worker};
use crate::error::Result;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::store::ClaimRequest;

/// An engine for tests, made by [`EngineBuilder::manual`](crate::EngineBuilder::manual): nothing
/// runs until it is told to, and then in the calling thread, in claim order. With
/// [`Clock::stopped`](crate::Clock::stopped) a test needs neither sleep nor thread.
///
/// ```
/// # use serde::{Serialize, Deserialize};
/// # use std::time::Duration;
/// use legwork::*;
/// # #[derive(Serialize, Deserialize)] struct Reminder;
/// # impl Job for Reminder {
/// #     const KIND: &'static str = "reminder";
/// #     type State = ();
/// #     fn perform(&self, _: &Context) -> JobResult { Ok(Outcome::Done) }
/// # }
/// # fn main() -> Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let clock = Clock::stopped(time::macros::datetime!(2026-01-01 0:00 UTC));
/// let jobs = Jobs::builder(dir.path().join("test.db")).clock(clock).open()?;
/// let engine = Engine::builder(&jobs).register::<Reminder>().manual()?;
///
/// jobs.enqueue(NewJob::new(Reminder).delay(Duration::from_secs(7 * 86_400)))?;
/// assert_eq!(engine.run_due()?, 0);
/// engine.advance(Duration::from_secs(7 * 86_400));
/// assert_eq!(engine.run_due()?, 1);
/// # Ok(()) }
/// ```
pub struct ManualEngine {
    core: Arc<Core>,
}

pub(super) fn start<S: Any + Send + Sync>(
    jobs: Jobs,
    registry: Registry,
    state: Arc<S>,
    mut pools: Vec<CheckedPool>,
    settings: Settings,
) -> Result<ManualEngine> {
    // Without threads there is nobody to claim ahead for, and nobody else need count on it.
    pools.iter_mut().for_each(|pool| pool.workers = 0);
    let (core, _bell) = Core::join(jobs, registry, state, pools, settings)?;
    core.gates.ask(&core.jobs, true);
    Ok(ManualEngine { core })
}

impl ManualEngine {
    /// Runs the next job that is ready or due; `None` if there is none.
    ///
    /// # Errors
    /// Those of claiming and recording; a failing job is none.
    pub fn run_one(&self) -> Result<Option<JobId>> {
        for pool in &self.core.pools {
            let request = ClaimRequest { pool: pool.id, epoch: 0, park: false };
            let Some(claimed) = worker::exchange(&self.core, None, Some(request))? else {
                continue;
            };
            let id = claimed.claim.id;
            let ended = self.core.run(claimed, &Arc::from("manual"));
            let ending = ended.into_ending();
            pool.tray.ended(ending.finish.claim);
            worker::exchange(&self.core, Some(ending), None)?;
            return Ok(Some(id));
        }
        Ok(None)
    }

    /// Asks the probes of the gates, then runs jobs until none is ready or due, those included that they enqueue or retry for now;
    /// how many attempts that were. Stands for [`Engine::run_until_empty`](crate::Engine::run_until_empty).
    ///
    /// # Errors
    /// As [`run_one`](ManualEngine::run_one).
    pub fn run_due(&self) -> Result<usize> {
        self.core.gates.ask(&self.core.jobs, true);
        let mut ran = 0;
        loop {
            self.fire_crons()?;
            let before = ran;
            while self.run_one()?.is_some() {
                ran += 1;
            }
            // A job may have asked for the run of a cron entry.
            if ran == before {
                return Ok(ran);
            }
        }
    }

    /// Turns the handle's stopped clock forward. Runs no job; the cron ticks on the way are fired
    /// one after the other, each at its time. Beyond 10,000 of them the clock is turned to the end
    /// at once, and the rest are missed ticks.
    ///
    /// To let ticks be missed, as by a machine that sleeps, turn the [`Clock`](crate::Clock) itself.
    ///
    /// # Panics
    /// If the handle's clock is not a stopped one.
    pub fn advance(&self, by: Duration) {
        let clock = self.core.jobs.clock();
        let end = clock.micros().saturating_add(crate::clock::micros_of(by));
        #[cfg(feature = "cron")]
        self.step_to(end);
        clock.advance(crate::clock::between(clock.micros(), end));
    }

    /// Fires one cron tick after the other, until the next one lies after `end`.
    #[cfg(feature = "cron")]
    fn step_to(&self, end: crate::clock::Micros) {
        const MOST: usize = 10_000;
        let clock = self.core.jobs.clock();
        for _ in 0..MOST {
            match self.fire_crons() {
                Ok(Some(next)) if next <= end => {
                    clock.advance(crate::clock::between(clock.micros(), next));
                }
                Ok(_) => return,
                Err(error) => return log::error!("legwork: cron ticks were not fired: {error}"),
            }
        }
    }

    /// Fires the cron ticks that are due; when the next one is.
    fn fire_crons(&self) -> Result<Option<crate::clock::Micros>> {
        #[cfg(feature = "cron")]
        return Ok(self.core.crons.pass(&self.core.jobs)?.next);
        #[cfg(not(feature = "cron"))]
        Ok(None)
    }

    /// Turns the clock to one waiting job after the other and runs it, until no job waits for a
    /// time or is ready; how many attempts that were.
    ///
    /// # Errors
    /// As [`run_one`](ManualEngine::run_one).
    ///
    /// # Panics
    /// If the handle's clock is not a stopped one and a job waits for a time.
    pub fn drain(&self) -> Result<usize> {
        let jobs = &self.core.jobs;
        let mut ran = self.run_due()?;
        while let Some(at) = jobs.store().next_due()? {
            let wait = Duration::from_micros(
                at.saturating_sub(jobs.clock().micros()).max(0).unsigned_abs(),
            );
            jobs.clock().advance(wait);
            let more = self.run_due()?;
            if more == 0 && jobs.store().next_due()?.is_some_and(|next| next <= at) {
                // What is due now is paused or of another engine's kinds.
                break;
            }
            ran += more;
        }
        Ok(ran)
    }

    /// The handle it works on.
    pub fn jobs(&self) -> &Jobs {
        &self.core.jobs
    }
}
