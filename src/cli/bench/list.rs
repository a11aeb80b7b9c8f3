//! The first page of `legwork list`, as a whole process, beside a million jobs.

use std::process::Stdio;

use super::Bench;
use super::backlog::{FAR, spread};
use super::child;
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{median, micros};
use super::raw;
use super::work::enqueue;
use crate::jobs::Jobs;

/// What is asked for; each is found at once, and far more of it than a page holds.
const QUERIES: [&str; 5] = ["", "state:ready", "state:completed", "queue:a", "since:1h"];

/// Half of the jobs have finished, the others wait in four queues, half of them for their time.
pub(super) fn list(bench: &Bench) -> Result<Vec<Figure>> {
    let scratch = bench.scratch()?;
    let half = bench.amount(500_000, 1_000);
    let jobs = Jobs::builder(scratch.file()).history_rows(u64::MAX / 2).open()?;
    raw::add_completed(&scratch.file(), half, jobs.clock().micros())?;
    enqueue(&jobs, half, |n| match n % 2 {
        0 => spread(n / 2),
        _ => spread(n / 2).delay(FAR),
    })?;
    drop(jobs);
    QUERIES
        .into_iter()
        .map(|query| {
            let took: Result<Vec<f64>> = (0..bench.amount(21, 2))
                .map(|_| {
                    micros(|| {
                        let db = scratch.file().into_os_string();
                        let mut command = child::sibling([
                            "--db".into(),
                            db,
                            "--quiet".into(),
                            "list".into(),
                            query.into(),
                        ])?;
                        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
                        if status.success() {
                            return Ok(());
                        }
                        Err(Error::Missed(format!("`list {query}` failed: {status}")))
                    })
                })
                .collect();
            let measure = if query.is_empty() { "all" } else { query };
            let reach = Reach::AtMost(50.0);
            Ok(Figure::alone(measure, "ms", median(&took?) / 1e3, reach)
                .note(format!("{} jobs, half of them finished; a whole process", 2 * half)))
        })
        .collect()
}
