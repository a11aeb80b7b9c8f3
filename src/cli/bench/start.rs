//! From the call of enqueue to the first line of the job, when nothing was going on before.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::child::{Child, Role, nanos_now};
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
const GAP: Duration = Duration::from_millis(5);
/// So much later a job of another process may start than one of this process.
const ACROSS: f64 = 150.0;
/// A job of another process that has not started by then never will.
const PATIENCE: Duration = Duration::from_secs(2);

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
    nanos: u128,
}

/// An engine whose workers wait. The file goes last.
struct Waiting {
    engine: Engine,
    jobs: Jobs,
    started: Receiver<Started>,
    scratch: Scratch,
}

impl Waiting {
    /// With a WAL as warm as so many commits make it.
    fn start(bench: &Bench, warm: usize) -> Result<Waiting> {
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

    fn next(&self) -> Result<Started> {
        self.started
            .recv_timeout(LONG)
            .map_err(|_| Error::Missed(format!("a job did not start within {LONG:?}")))
    }

    fn sample(&self) -> Result<f64> {
        thread::sleep(GAP);
        let called = Instant::now();
        self.jobs.enqueue(Stamp {})?;
        Ok(as_micros(self.next()?.at.duration_since(called)))
    }

    fn stop(self) -> Result<()> {
        self.engine.stop(LONG)?;
        Ok(())
    }
}

/// How a run is divided: rounds, samples in each, commits that warm the WAL.
fn parts(bench: &Bench) -> (usize, usize, usize) {
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

/// Against the same within one process, on a file of its own.
pub(super) fn across(bench: &Bench) -> Result<Vec<Figure>> {
    let (rounds, samples, warm) = parts(bench);
    let within = Waiting::start(bench, warm)?;
    let here = Waiting::start(bench, warm)?;
    let mut there = Child::start(Role::Enqueuer, &here.scratch.file())?;
    there.line()?;
    if sample_across(&mut there, &here)?.is_none() {
        return never(&within, samples).map(|figure| vec![figure]);
    }
    let (inside, across) = in_turn(
        rounds,
        || (0..samples).map(|_| within.sample()).collect::<Result<Vec<_>>>(),
        || {
            let sample = |_| {
                sample_across(&mut there, &here)?
                    .ok_or_else(|| Error::Missed(format!("one did not start in {PATIENCE:?}")))
            };
            (0..samples).map(sample).collect()
        },
    )?;
    there.end()?;
    within.stop()?;
    here.stop()?;
    let (inside, across) = (inside.concat(), across.concat());
    let figure = |measure, share, reach: &dyn Fn(f64) -> Reach| {
        let (inside, across) = (percentile(&inside, share), percentile(&across, share));
        Figure::new(measure, "µs", inside, across, reach(inside))
    };
    Ok(vec![
        figure("p50", 0.5, &|inside| Reach::AtMost(inside + ACROSS))
            .note(format!("raw: within one process; reach: {ACROSS} µs more")),
        figure("p99", 0.99, &|_| Reach::Told),
    ])
}

/// What is said if jobs of another process do not start here by themselves.
fn never(within: &Waiting, samples: usize) -> Result<Figure> {
    let inside = (0..samples).map(|_| within.sample()).collect::<Result<Vec<_>>>()?;
    let inside = percentile(&inside, 0.5);
    let figure = Figure::new("p50", "µs", inside, 0.0, Reach::AtMost(inside + ACROSS));
    Ok(Figure { legwork: None, ..figure }.note(format!(
        "a job of another process did not start within {PATIENCE:?}; raw: within one process"
    )))
}

/// The child idles, takes the time and enqueues; the job here tells when it started. `None`: it
/// did not.
fn sample_across(there: &mut Child, here: &Waiting) -> Result<Option<f64>> {
    there.tell(&GAP.as_micros().to_string())?;
    let called: u128 = there
        .line()?
        .parse()
        .map_err(|_| Error::Missed("a child process said no time".to_owned()))?;
    let started = here.started.recv_timeout(PATIENCE).ok();
    Ok(started.map(|started| started.nanos.saturating_sub(called) as f64 / 1e3))
}
