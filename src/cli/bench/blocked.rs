//! The drain rate beside much that is blocked or paused, and what opening a gate costs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::Bench;
use super::backlog::{Amounts, FAR, Site, compared, ready};
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{in_turn, micros};
use super::work::{Crew, Noop, enqueue};
use crate::job::Job;
use crate::jobs::Jobs;
use crate::new_job::NewJob;
use crate::record::Scope;

const GATE: &str = "bench";
/// The engine knows it, and it is paused.
const PAUSED_KIND: &str = Noop::ALIASES[0];

fn blocked(n: usize) -> NewJob {
    ready(n).gate(GATE)
}

/// Rates with a million that are blocked, against a thousand; then the opening of a gate.
pub(super) fn blocked_jobs(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = vec![beside_blocked(bench)?];
    figures.extend(opening(bench)?);
    Ok(figures)
}

/// The same number of ready jobs is drained beside few and beside many that may not start.
fn beside_blocked(bench: &Bench) -> Result<Figure> {
    let amounts = Amounts::of(bench);
    let with = |count: usize| {
        Site::make(bench, |scratch| {
            let jobs = Jobs::open(scratch.file())?;
            jobs.close_gate(GATE)?;
            jobs.pause(Scope::Kind(PAUSED_KIND.to_owned()))?;
            enqueue(&jobs, count, blocked)?;
            enqueue(&jobs, count / 10, |_| {
                NewJob::of_kind(PAUSED_KIND, serde_json::json!({ "user": 7 }))
            })?;
            Ok(jobs)
        })
    };
    let (few, many) = (with(amounts.few)?, with(amounts.many)?);
    let drained = |site: &Site| site.drain(amounts.round, &ready);
    let (few, many) = in_turn(amounts.rounds, || drained(&few), || drained(&many))?;
    Ok(compared("blocked", &amounts, &few, &many, 0.8).note(format!(
        "legwork: {} behind a closed gate, a tenth of that of a paused kind; raw: legwork with {}",
        amounts.many, amounts.few
    )))
}

/// How long the verb takes that opens a gate, and how long one enqueue has to wait at most while the
/// jobs behind it start.
fn opening(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.amount(100_000, 2_000);
    let scratch = bench.scratch()?;
    let jobs = Jobs::open(scratch.file())?;
    jobs.close_gate(GATE)?;
    enqueue(&jobs, count, blocked)?;
    let crew = Crew::start(jobs, 4)?;
    let done = AtomicBool::new(false);
    let (opened, longest) = thread::scope(|scope| {
        let beside = scope.spawn(|| longest_enqueue(&crew.jobs, &done));
        let opened = open_and_drain(&crew);
        done.store(true, Ordering::Release);
        let longest = beside.join().map_err(|_| Error::Missed("the caller panicked".to_owned()));
        Ok::<_, Error>((opened?, longest??))
    })?;
    crew.stop()?;
    let figure = |measure: String, micros: f64| {
        Figure::alone(measure, "ms", micros / 1e3, Reach::AtMost(50.0))
    };
    Ok(vec![
        figure(format!("opening for {count}"), opened),
        figure("longest enqueue meanwhile".to_owned(), longest)
            .note("one caller beside them; what the writer is held up for, and a sync"),
    ])
}

fn open_and_drain(crew: &Crew) -> Result<f64> {
    let opened = micros(|| Ok(crew.jobs.open_gate(GATE)?))?;
    crew.engine.run_until_empty()?;
    Ok(opened)
}

/// The longest of the enqueues that one caller makes until `done`, in microseconds.
fn longest_enqueue(jobs: &Jobs, done: &AtomicBool) -> Result<f64> {
    let mut longest: f64 = 0.0;
    while !done.load(Ordering::Acquire) {
        let started = Instant::now();
        jobs.enqueue(ready(0).delay(FAR))?;
        longest = longest.max(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(longest)
}
