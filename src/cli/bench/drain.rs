//! Working off what waits.

use std::time::Instant;

use super::Bench;
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{in_turn, median, rate};
use super::raw::Raw;
use super::work::{Crew, prepare};
use crate::jobs::Jobs;

const WORKERS: usize = 4;
const BATCH: usize = 1000;

/// An engine of four workers on a file full of jobs that do nothing, until each is recorded;
/// against raw claims and finishes of the same rows.
pub(super) fn drain(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.amount(200_000, 5_000);
    let full = || {
        let scratch = bench.scratch()?;
        prepare(&scratch.file(), count)?;
        Ok::<_, Error>(scratch)
    };
    let (raw, legwork) = in_turn(
        bench.amount(5, 1),
        || {
            let scratch = full()?;
            let mut raw = Raw::open(&scratch.file())?;
            let started = Instant::now();
            raw_drain(&mut raw)?;
            Ok(rate(count, started.elapsed()))
        },
        || {
            let scratch = full()?;
            let jobs = Jobs::open(scratch.file())?;
            let started = Instant::now();
            let crew = Crew::start(jobs, WORKERS)?;
            crew.engine.run_until_empty()?;
            let took = started.elapsed();
            crew.stop()?;
            Ok(rate(count, took))
        },
    )?;
    let measure = format!("{count} jobs, {WORKERS} workers");
    let reach = Reach::RatioAtLeast(0.7);
    Ok(vec![Figure::new(measure, "jobs/s", median(&raw), median(&legwork), reach)])
}

fn raw_drain(raw: &mut Raw) -> Result<()> {
    loop {
        let claimed = raw.claim(BATCH)?;
        if claimed.is_empty() {
            return Ok(());
        }
        raw.finish(&claimed)?;
    }
}
