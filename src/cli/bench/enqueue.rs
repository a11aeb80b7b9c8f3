//! Enqueueing: one caller, many callers, one large call.

use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{in_turn, median, micros, percentile, rate};
use super::raw::{Raw, WARM};
use super::work::Noop;
use super::{Bench, raw};
use crate::jobs::Jobs;

/// One caller whose jobs are acknowledged when they are durable, on a warm WAL.
pub(super) fn one_caller(bench: &Bench) -> Result<Vec<Figure>> {
    let (warm, samples) = bench.amount((WARM, 400), (20, 20));
    let (raw, legwork) = in_turn(
        bench.amount(7, 2),
        || {
            let scratch = bench.scratch()?;
            let mut raw = Raw::open(&scratch.file())?;
            raw.warm_up(warm)?;
            (0..samples).map(|_| micros(|| raw.insert(1))).collect::<Result<Vec<_>>>()
        },
        || {
            let scratch = bench.scratch()?;
            let jobs = Jobs::open(scratch.file())?;
            let enqueue = || Ok(jobs.enqueue(Noop::new())?);
            (0..warm).try_for_each(|_| enqueue().map(drop))?;
            (0..samples).map(|_| micros(enqueue)).collect()
        },
    )?;
    let (raw, legwork) = (raw.concat(), legwork.concat());
    let figure = |measure, share, reach| {
        Figure::new(measure, "µs", percentile(&raw, share), percentile(&legwork, share), reach)
    };
    Ok(vec![figure("p50", 0.5, Reach::RatioAtMost(1.1)), figure("p99", 0.99, Reach::Told)])
}

/// Many callers at once, each of whom waits for its job before it brings the next; against one
/// after the other on a bare connection.
pub(super) fn many_callers(bench: &Bench) -> Result<Vec<Figure>> {
    [(16, 5.0), (64, 10.0)]
        .into_iter()
        .map(|(callers, reach)| {
            let (raw, legwork) = in_turn(
                bench.amount(5, 1),
                || one_after_the_other(bench),
                || together(bench, callers),
            )?;
            let measure = format!("{callers} callers");
            let reach = Reach::RatioAtLeast(reach);
            Ok(Figure::new(measure, "jobs/s", median(&raw), median(&legwork), reach))
        })
        .collect()
}

fn one_after_the_other(bench: &Bench) -> Result<f64> {
    let (warm, count) = bench.amount((WARM, 2000), (20, 50));
    let scratch = bench.scratch()?;
    let mut raw = Raw::open(&scratch.file())?;
    raw.warm_up(warm)?;
    let started = Instant::now();
    (0..count).try_for_each(|_| raw.insert(1))?;
    Ok(rate(count, started.elapsed()))
}

fn together(bench: &Bench, callers: usize) -> Result<f64> {
    let (warm, count) = bench.amount((WARM, 16_000 / callers), (20, 5));
    let scratch = bench.scratch()?;
    let jobs = Jobs::open(scratch.file())?;
    let enqueue = |count: usize| -> Result<()> {
        (0..count).try_for_each(|_| jobs.enqueue(Noop::new()).map(drop))?;
        Ok(())
    };
    enqueue(warm)?;
    let took = all_at_once(callers, || enqueue(count))?;
    Ok(rate(callers * count, took))
}

/// Lets so many threads do the same at once; from the first start to the last end.
pub(super) fn all_at_once(
    threads: usize,
    work: impl Fn() -> Result<()> + Sync,
) -> Result<Duration> {
    let barrier = std::sync::Barrier::new(threads + 1);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    work()
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        for thread in running {
            thread.join().map_err(|_| Error::Missed("a caller panicked".to_owned()))??;
        }
        Ok(started.elapsed())
    })
}

/// One call with many jobs, against raw inserts at 1000 a transaction. A fresh file each, whose
/// WAL still grows.
pub(super) fn bulk(bench: &Bench) -> Result<Vec<Figure>> {
    const BATCH: usize = 1000;
    let count = bench.amount(100_000, 2_000);
    let (raw, legwork) = in_turn(
        bench.amount(5, 1),
        || {
            let scratch = bench.scratch()?;
            let mut raw = raw::Raw::open(&scratch.file())?;
            let started = Instant::now();
            (0..count / BATCH).try_for_each(|_| raw.insert(BATCH))?;
            Ok(rate(count, started.elapsed()))
        },
        || {
            let scratch = bench.scratch()?;
            let jobs = Jobs::open(scratch.file())?;
            let started = Instant::now();
            jobs.enqueue_many((0..count).map(|_| Noop::new()))?;
            Ok(rate(count, started.elapsed()))
        },
    )?;
    let measure = format!("{count} in one call");
    let reach = Reach::RatioAtLeast(0.7);
    Ok(vec![Figure::new(measure, "jobs/s", median(&raw), median(&legwork), reach)])
}
