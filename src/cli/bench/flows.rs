//! What it costs that jobs wait for each other.

use std::time::Instant;

use super::Bench;
use super::error::Result;
use super::figure::{Figure, Reach};
use super::measure::{in_turn, median};
use super::work::{Crew, LONG, Noop};
use crate::flow::{Chain, NewFlow, Workflow};
use crate::jobs::Jobs;
use crate::new_job::NewJob;

const WORKERS: usize = 4;
/// Ten thousand jobs that wait for one, and one that waits for them all, take no longer.
const MOST_SECONDS: f64 = 5.0;

/// A fan-out of 10,000 with a join, and a chain of 1,000: from the call until the flow has ended. Against as
/// many jobs of legwork's own that wait for nobody.
pub(super) fn flows(bench: &Bench) -> Result<Vec<Figure>> {
    let (wide, long) = bench.amount((10_000, 1_000), (500, 50));
    let reach = if bench.quick { Reach::Told } else { Reach::AtMost(MOST_SECONDS) };
    Ok(vec![
        figure(bench, format!("a fan-out of {wide} with a join"), wide + 2, reach, &|| fan(wide))?,
        figure(bench, format!("a chain of {long}"), long, Reach::Told, &|| chain(long))?,
    ])
}

fn job() -> NewJob {
    NewJob::new(Noop::new())
}

fn fan(wide: usize) -> NewFlow {
    let mut flow = Workflow::new("fan");
    let first = flow.add(job(), []);
    let all: Vec<_> = (0..wide).map(|_| flow.add(job(), [first])).collect();
    flow.add(job(), all);
    flow.into()
}

fn chain(long: usize) -> NewFlow {
    (0..long).fold(Chain::new("chain"), |chain, _| chain.then(job())).into()
}

fn figure(
    bench: &Bench,
    measure: String,
    count: usize,
    reach: Reach,
    flow: &dyn Fn() -> NewFlow,
) -> Result<Figure> {
    let (plain, flows) = in_turn(
        bench.amount(5, 1),
        || {
            seconds(bench, |crew| {
                crew.jobs.enqueue_many((0..count).map(|_| Noop::new()))?;
                crew.engine.run_until_empty()?;
                Ok(())
            })
        },
        || {
            seconds(bench, |crew| {
                let flow = crew.jobs.enqueue_flow(flow())?;
                crew.jobs.wait_flow(flow.id, LONG)?;
                Ok(())
            })
        },
    )?;
    let figure = Figure::new(measure, "s", median(&plain), median(&flows), reach);
    Ok(figure.note("against as many jobs that wait for nobody"))
}

fn seconds(bench: &Bench, work: impl FnOnce(&Crew) -> Result<()>) -> Result<f64> {
    let scratch = bench.scratch()?;
    let crew = Crew::start(Jobs::open(scratch.file())?, WORKERS)?;
    let started = Instant::now();
    work(&crew)?;
    let took = started.elapsed();
    crew.stop()?;
    Ok(took.as_secs_f64())
}
