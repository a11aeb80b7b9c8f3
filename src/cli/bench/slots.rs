//! What limits cost besides the rate of jobs: from the end of one to the start of the next, and how often
//! an engine wakes up whose jobs wait.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::child::{Child, Role, nanos_now, say};
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::percentile;
use super::resident::{has_proc, switches};
use super::work::LONG;
use crate::context::Context;
use crate::engine::{Engine, Pool};
use crate::job::{Job, JobResult, Outcome};
use crate::jobs::Jobs;
use crate::new_job::NewJob;

const WORKERS: usize = 4;
const HERE: &str = "here";
const THERE: &str = "there";
const KEY: &str = "key";
/// How long a job holds its slot.
const HELD: Duration = Duration::from_millis(5);
/// A slot that is free for longer was not used at once.
const MOST: f64 = 10.0;
const RATE: usize = 10;

/// A job that tells when it began and when it ended.
#[derive(Serialize, Deserialize)]
struct Holds {}

impl Job for Holds {
    const KIND: &'static str = "bench_holds";
    type State = Sender<Held>;

    fn perform(&self, cx: &Context<Sender<Held>>) -> JobResult {
        let began = nanos_now();
        thread::sleep(HELD);
        // Nobody listens any more once the experiment has been given up.
        let _ = cx.state().send(Held { began, ended: nanos_now() });
        Ok(Outcome::Done)
    }
}

/// A job that tells nobody, which would be a wake-up more.
#[derive(Serialize, Deserialize)]
struct Quiet {}

impl Job for Quiet {
    const KIND: &'static str = "bench_quiet";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// The time for which a job held its slot, in nanoseconds since 1970.
struct Held {
    began: u128,
    ended: u128,
}

fn engine(jobs: &Jobs, queue: &str) -> Result<(Engine, Receiver<Held>)> {
    let (tell, told) = unbounded();
    let pool = Pool::new([queue]).workers(WORKERS);
    let engine = Engine::builder(jobs)
        .register_with::<Holds>(tell)
        .register_with::<Quiet>(())
        .pool(pool)
        .start()?;
    Ok((engine, told))
}

/// The other process.
pub(super) fn run_limited(jobs: Jobs) -> Result<()> {
    let (engine, told) = engine(&jobs, THERE)?;
    let teller = thread::spawn(move || {
        told.iter().try_for_each(|held| say(&format!("{} {}", held.began, held.ended)))
    });
    say("ready")?;
    std::io::stdin().read_line(&mut String::new())?;
    engine.stop(LONG)?;
    drop(engine);
    teller.join().map_err(|_| Error::Missed("the teller panicked".to_owned()))?
}

fn job(queue: &str) -> NewJob {
    NewJob::new(Holds {}).queue(queue)
}

/// From the last line of a job to the first line of the next one with its key, of which one may run at
/// once: in one process, out of many that wait; and from one process to another.
pub(super) fn freed(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = told("freed slot to start", &within(bench)?).to_vec();
    figures.extend(told("the same, to another process", &between(bench)?));
    Ok(figures)
}

fn told(measure: &str, gaps: &[f64]) -> [Figure; 2] {
    let figure = |name: &str, share| {
        let gap = percentile(gaps, share);
        Figure::alone(format!("{measure}, {name}"), "ms", gap, Reach::AtMost(MOST))
    };
    [figure("p50", 0.5), figure("p99", 0.99)]
}

fn within(bench: &Bench) -> Result<Vec<f64>> {
    let count = bench.amount(2_000, 50);
    let scratch = bench.scratch()?;
    let jobs = Jobs::open(scratch.file())?;
    jobs.enqueue_many((0..count).map(|_| job(HERE).limit(KEY, 1)))?;
    let (engine, told) = engine(&jobs, HERE)?;
    let held: Vec<Held> = (0..count).map(|_| next(&told)).collect::<Result<_>>()?;
    engine.stop(LONG)?;
    Ok(held.windows(2).map(|two| gap(&two[0], &two[1])).collect())
}

/// One holds the slot here while the other one is enqueued there.
fn between(bench: &Bench) -> Result<Vec<f64>> {
    let count = bench.amount(1_000, 20);
    let scratch = bench.scratch()?;
    let jobs = Jobs::open(scratch.file())?;
    let (engine, told) = engine(&jobs, HERE)?;
    let mut there = Child::start(Role::Limited, &scratch.file())?;
    there.line()?;
    let mut gaps = Vec::with_capacity(count);
    for _ in 0..count {
        jobs.enqueue(job(HERE).limit(KEY, 1))?;
        jobs.enqueue(job(THERE).limit(KEY, 1))?;
        let held = next(&told)?;
        let line = there.line()?;
        gaps.push(gap(&held, &parsed(&line)?));
    }
    there.tell("end")?;
    there.end()?;
    engine.stop(LONG)?;
    Ok(gaps)
}

fn next(told: &Receiver<Held>) -> Result<Held> {
    told.recv_timeout(LONG).map_err(|_| Error::Missed(format!("a job did not start in {LONG:?}")))
}

fn parsed(line: &str) -> Result<Held> {
    let held = line.split_once(' ').and_then(|(began, ended)| {
        Some(Held { began: began.parse().ok()?, ended: ended.parse().ok()? })
    });
    held.ok_or_else(|| Error::Missed("a child process said no times".to_owned()))
}

/// In milliseconds; what begins before the other has ended says that the slot was not kept.
fn gap(before: &Held, after: &Held) -> f64 {
    (after.began as f64 - before.ended as f64) / 1e6
}

/// Wake-ups of all threads of an engine whose jobs wait for a rate: of one alone, and of each of four.
pub(super) fn wake_ups(bench: &Bench) -> Result<Vec<Figure>> {
    if !has_proc("limits") {
        return Ok(Vec::new());
    }
    let (alone, four) = (woken(bench, 1)?, woken(bench, 4)?);
    let figure = |who: &str, woken, reach| {
        Figure::alone(format!("wake-ups at {RATE} starts a second, {who}"), "1/s", woken, reach)
    };
    Ok(vec![
        figure("alone", alone, Reach::Told)
            .note("of all threads: the alarm, the worker, the job's end"),
        figure("each of 4", four, Reach::AtMost(20.0)),
    ])
}

/// Of the process that woke up most.
fn woken(bench: &Bench, processes: usize) -> Result<f64> {
    let window = Duration::from_secs(bench.amount(20, 2));
    let scratch = bench.scratch()?;
    let jobs = Jobs::open(scratch.file())?;
    let enough = RATE * (window.as_secs() as usize + 60);
    let per = Duration::from_secs(1);
    let job = || NewJob::new(Quiet {}).queue(THERE);
    jobs.enqueue_many((0..enough).map(|_| job().rate(KEY, RATE as u32, per)))?;
    let start = || {
        let child = Child::start(Role::Limited, &scratch.file())?;
        child.line().map(|_| child)
    };
    let mut children = (0..processes).map(|_| start()).collect::<Result<Vec<Child>>>()?;
    thread::sleep(Duration::from_secs(1));
    let count = |children: &[Child]| {
        children.iter().map(|child| switches(child.id())).collect::<Result<Vec<_>>>()
    };
    let before = count(&children)?;
    thread::sleep(window);
    let after = count(&children)?;
    for child in &mut children {
        child.tell("end")?;
    }
    children.into_iter().try_for_each(Child::end)?;
    let most = after.iter().zip(&before).map(|(after, before)| after - before).max().unwrap_or(0);
    Ok(most as f64 / window.as_secs_f64())
}
