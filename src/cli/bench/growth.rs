//! What is left of jobs that have run.

use std::path::Path;

use super::Bench;
use super::error::Result;
use super::figure::{Figure, Reach};
use super::work::{Crew, Noop};
use crate::beside;
use crate::jobs::Jobs;

const WORKERS: usize = 4;
const CALL: usize = 1000;
const MIB: f64 = 1024.0 * 1024.0;

/// The file and its WAL after a million jobs under the default retention, with the file open.
pub(super) fn growth(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.amount(1_000_000, 20_000);
    let scratch = bench.scratch()?;
    let file = scratch.file();
    let crew = Crew::start(Jobs::open(&file)?, WORKERS)?;
    let mut largest: u64 = 0;
    for _ in 0..count / CALL {
        crew.jobs.enqueue_many((0..CALL).map(|_| Noop::new()))?;
        largest = largest.max(size(&beside::wal(&file))?);
    }
    crew.engine.run_until_empty()?;
    let (open, wal) = (size(&file)?, size(&beside::wal(&file))?);
    crew.stop()?;
    // Only now all that the WAL had is in it.
    let closed = size(&file)?;
    let after = |what: &str| format!("{what} after {count} jobs");
    let told = |measure: String, bytes: u64| {
        Figure::alone(measure, "MiB", bytes as f64 / MIB, Reach::Told)
    };
    Ok(vec![
        told(after("file"), open),
        told(after("WAL"), wal),
        told("largest WAL".to_owned(), largest.max(wal)),
        Figure::alone("file, closed", "bytes/job", closed as f64 / count as f64, Reach::Told),
    ])
}

fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}
