//! How fast jobs start that wait for one key, with many in the line and with few.

use std::time::Duration;

use super::Bench;
use super::backlog::{Amounts, out_of_ready, ready};
use super::error::Result;
use super::figure::Figure;
use super::slots;

/// Rates with 100,000 that wait for one key, against heaps of 100.
pub(super) fn limits(bench: &Bench) -> Result<Vec<Figure>> {
    let (many, few, round, rounds) = bench.amount((100_000, 100, 5_000, 5), (2_000, 50, 500, 1));
    let amounts = Amounts { many, few, round, rounds };
    // As many may start as anybody could: what is measured is the line.
    let most = 1_000_000;
    let mut figures = vec![
        out_of_ready(bench, &amounts, "one key, 1 at once", 0.5, &|n| ready(n).limit("key", 1))?,
        out_of_ready(bench, &amounts, "one key, 4 at once", 0.5, &|n| ready(n).limit("key", 4))?,
        out_of_ready(bench, &amounts, "one rate", 0.5, &|n| {
            ready(n).rate("key", most, Duration::from_secs(1))
        })?,
    ];
    figures.extend(slots::freed(bench)?);
    figures.extend(slots::wake_ups(bench)?);
    Ok(figures)
}
