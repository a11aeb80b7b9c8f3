//! Enqueueing and running at the same time.

use std::time::Instant;

use super::Bench;
use super::enqueue::all_at_once;
use super::error::Result;
use super::figure::{Figure, Reach};
use super::measure::{in_turn, median, rate};
use super::raw::Raw;
use super::work::{Crew, Noop};
use crate::jobs::Jobs;

const CALLERS: usize = 4;
const WORKERS: usize = 4;
const BATCH: usize = 100;

/// Four callers bring a hundred jobs a call while four workers run them, until all are recorded;
/// against the raw life cycle, a hundred jobs at a time: inserted and synced, claimed, finished.
pub(super) fn steady(bench: &Bench) -> Result<Vec<Figure>> {
    let calls = bench.amount(250, 10);
    let count = CALLERS * calls * BATCH;
    let (raw, legwork) = in_turn(
        bench.amount(5, 1),
        || {
            let scratch = bench.scratch()?;
            let mut raw = Raw::open(&scratch.file())?;
            let started = Instant::now();
            for _ in 0..count / BATCH {
                raw.insert(BATCH)?;
                let claimed = raw.claim(BATCH)?;
                raw.finish(&claimed)?;
            }
            Ok(rate(count, started.elapsed()))
        },
        || {
            let scratch = bench.scratch()?;
            let crew = Crew::start(Jobs::open(scratch.file())?, WORKERS)?;
            let started = Instant::now();
            all_at_once(CALLERS, || (0..calls).try_for_each(|_| call(&crew.jobs)))?;
            crew.engine.run_until_empty()?;
            let took = started.elapsed();
            crew.stop()?;
            Ok(rate(count, took))
        },
    )?;
    let measure = format!("{CALLERS} callers x {BATCH}, {WORKERS} workers");
    let reach = Reach::RatioAtLeast(0.7);
    Ok(vec![Figure::new(measure, "jobs/s", median(&raw), median(&legwork), reach)])
}

fn call(jobs: &Jobs) -> Result<()> {
    jobs.enqueue_many((0..BATCH).map(|_| Noop::new()))?;
    Ok(())
}
