//! From the call of enqueue to the first line of the job, when nothing was going on before.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::child::nanos_now;
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{as_micros, in_turn, micros, percentile};
use super::place::Scratch;
use super::raw::{Raw, WARM};
use super::work::LONG;
use crate::context::Context;
use crate::engine::{Engine, Pool};
use crate::job::{Job, JobResult, Outcome};
use crate::jobs::Jobs;

const WORKERS: usize = 4;
/// How long nothing goes on before each sample.
pub(super) const GAP: Duration = Duration::from_millis(5);

/// A job that tells when it started.
#[derive(Serialize, Deserialize)]
pub(super) struct Stamp {}

impl Job for Stamp {
    const KIND: &'static str = "bench_stamp";
    type State = Sender<Started>;

    fn perform(&self, cx: &Context<Sender<Started>>) -> JobResult {
        let started = Started { at: Instant::now(), nanos: nanos_now() };
        // Nobody listens any more once the experiment has been given up.
        let _ = cx.state().send(started);
        Ok(Outcome::Done)
    }
}

/// When a job started, by both clocks.
pub(super) struct Started {
    at: Instant,
    pub(super) nanos: u128,
}

/// An engine whose workers wait. The file goes last.
pub(super) struct Waiting {
    engine: Engine,
    jobs: Jobs,
    started: Receiver<Started>,
    scratch: Scratch,
}

impl Waiting {
    /// With a WAL as warm as so many commits make it.
    pub(super) fn start(bench: &Bench, warm: usize) -> Result<Waiting> {
        let scratch = bench.scratch()?;
        let jobs = Jobs::open(scratch.file())?;
        let (tell, started) = unbounded();
        let engine = Engine::builder(&jobs)
            .register_with::<Stamp>(tell)
            .pool(Pool::new(["*"]).workers(WORKERS))
            .start()?;
        let waiting = Waiting { engine, jobs, started, scratch };
        for _ in 0..warm {
            waiting.jobs.enqueue(Stamp {})?;
            waiting.next()?;
        }
        Ok(waiting)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.scratch.file()
    }

    /// The next start, if there is one by then.
    pub(super) fn next_within(&self, patience: Duration) -> Option<Started> {
        self.started.recv_timeout(patience).ok()
    }

    fn next(&self) -> Result<Started> {
        self.next_within(LONG)
            .ok_or_else(|| Error::Missed(format!("a job did not start within {LONG:?}")))
    }

    pub(super) fn sample(&self) -> Result<f64> {
        thread::sleep(GAP);
        let called = Instant::now();
        self.jobs.enqueue(Stamp {})?;
        Ok(as_micros(self.next()?.at.duration_since(called)))
    }

    pub(super) fn stop(self) -> Result<()> {
        self.engine.stop(LONG)?;
        Ok(())
    }
}

/// How a run is divided: rounds, samples in each, commits that warm the WAL.
pub(super) fn parts(bench: &Bench) -> (usize, usize, usize) {
    bench.amount((20, 30, WARM), (2, 10, 20))
}

/// Against one synced commit of a row after the same gap.
pub(super) fn start(bench: &Bench) -> Result<Vec<Figure>> {
    let (rounds, samples, warm) = parts(bench);
    let scratch = bench.scratch()?;
    let mut raw = Raw::open(&scratch.file())?;
    raw.warm_up(warm)?;
    let waiting = Waiting::start(bench, warm)?;
    let (raw, legwork) = in_turn(
        rounds,
        || {
            let sample = |_| {
                thread::sleep(GAP);
                micros(|| raw.insert(1))
            };
            (0..samples).map(sample).collect::<Result<Vec<_>>>()
        },
        || (0..samples).map(|_| waiting.sample()).collect(),
    )?;
    waiting.stop()?;
    let (raw, legwork) = (raw.concat(), legwork.concat());
    let figure = |measure, share, reach| {
        Figure::new(measure, "µs", percentile(&raw, share), percentile(&legwork, share), reach)
    };
    Ok(vec![
        figure("p50", 0.5, Reach::RatioAtMost(1.35)),
        figure("p99", 0.99, Reach::RatioAtMost(2.5)),
    ])
}
