//! The jobs that the experiments run, and an engine for them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use crate::context::Context;
use crate::engine::{Engine, Pool};
use crate::job::{Job, JobResult, Outcome};
use crate::jobs::Jobs;
use crate::new_job::NewJob;
use crate::record::Scope;

/// Longer than anything takes that an experiment waits for.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// How many jobs a call prepares a file with.
const PORTION: usize = 10_000;

/// A job that does nothing but count.
#[derive(Serialize, Deserialize)]
pub(super) struct Noop {
    user: i64,
}

/// Its arguments as they stand in the file.
pub(super) const ARGS: &str = r#"{"user":7}"#;

impl Noop {
    pub(super) const fn new() -> Noop {
        Noop { user: 7 }
    }
}

impl Job for Noop {
    const KIND: &'static str = "bench_noop";
    const ALIASES: &'static [&'static str] = &["bench_paused"];
    type State = Arc<Tally>;

    fn perform(&self, cx: &Context<Arc<Tally>>) -> JobResult {
        cx.state().count();
        Ok(Outcome::Done)
    }
}

/// Counts the jobs that have run, and tells when a number is reached.
pub(super) struct Tally {
    ran: AtomicUsize,
    goal: AtomicUsize,
    reached: Sender<Instant>,
}

impl Tally {
    fn count(&self) {
        // Nothing else is published by it; the channel orders what follows.
        let ran = self.ran.fetch_add(1, Ordering::Relaxed) + 1;
        if ran == self.goal.load(Ordering::Relaxed) {
            // Nobody listens any more once the experiment has been given up.
            let _ = self.reached.send(Instant::now());
        }
    }

    pub(super) fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }
}

/// An engine on all queues whose jobs do nothing.
pub(super) struct Crew {
    pub(super) jobs: Jobs,
    pub(super) engine: Engine,
    pub(super) tally: Arc<Tally>,
    reached: Receiver<Instant>,
}

impl Crew {
    pub(super) fn start(jobs: Jobs, workers: usize) -> Result<Crew> {
        let (tell, reached) = unbounded();
        let tally = Arc::new(Tally {
            ran: AtomicUsize::new(0),
            goal: AtomicUsize::new(usize::MAX),
            reached: tell,
        });
        let engine = Engine::builder(&jobs)
            .register_with::<Noop>(Arc::clone(&tally))
            .pool(Pool::new(["*"]).workers(workers))
            .start()?;
        Ok(Crew { jobs, engine, tally, reached })
    }

    /// How long it takes, from the lifted pause, until all that is ready has run and is recorded.
    pub(super) fn drain_paused(&self) -> Result<Duration> {
        let started = Instant::now();
        self.jobs.resume(Scope::All)?;
        self.engine.run_until_empty()?;
        Ok(started.elapsed())
    }

    /// How long it takes, from the lifted pause, until so many have run; then it is paused again.
    pub(super) fn run_some_of_paused(&self, count: usize) -> Result<Duration> {
        self.tally.goal.store(self.tally.ran() + count, Ordering::Relaxed);
        let started = Instant::now();
        self.jobs.resume(Scope::All)?;
        let reached = self.reached.recv_timeout(LONG);
        self.jobs.pause(Scope::All)?;
        self.engine.run_until_empty()?;
        match reached {
            Ok(reached) => Ok(reached.duration_since(started)),
            Err(_) => Err(Error::Missed(format!("{count} jobs did not run within {LONG:?}"))),
        }
    }

    pub(super) fn stop(self) -> Result<()> {
        self.engine.stop(LONG)?;
        Ok(())
    }
}

/// Enqueues jobs in portions.
pub(super) fn enqueue(jobs: &Jobs, count: usize, job: impl Fn(usize) -> NewJob) -> Result<()> {
    let mut done = 0;
    while done < count {
        let end = count.min(done + PORTION);
        jobs.enqueue_many((done..end).map(&job))?;
        done = end;
    }
    Ok(())
}

/// A new file with so many ready jobs, closed again: its WAL is gone, for raw and legwork alike.
pub(super) fn prepare(file: &Path, count: usize) -> Result<()> {
    enqueue(&Jobs::open(file)?, count, |_| NewJob::new(Noop::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_rows_have_the_arguments_of_legworks() {
        assert_eq!(NewJob::new(Noop::new()).args(), Some(ARGS));
    }
}
