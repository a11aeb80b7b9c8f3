//! Rounds in turn, medians and percentiles.

use std::time::{Duration, Instant};

use super::error::Result;

/// Lets raw and legwork work in turn, so that what else the machine does meets both alike.
/// Returns what each said, round by round: raw first.
pub(super) fn in_turn<T>(
    rounds: usize,
    mut raw: impl FnMut() -> Result<T>,
    mut legwork: impl FnMut() -> Result<T>,
) -> Result<(Vec<T>, Vec<T>)> {
    let mut said = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        said.0.push(raw()?);
        said.1.push(legwork()?);
    }
    Ok(said)
}

/// The smallest of the samples that is no smaller than a share of them (nearest rank).
///
/// # Panics
/// Without samples.
pub(super) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

pub(super) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

/// How long `work` takes, in microseconds.
pub(super) fn micros<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(as_micros(started.elapsed()))
}

pub(super) fn as_micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// So many a second.
pub(super) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median(&samples), 50.0);
        assert_eq!(percentile(&samples, 0.99), 99.0);
        assert_eq!(percentile(&samples, 1.0), 100.0);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(percentile(&[1.0, 2.0], 0.99), 2.0);
    }

    #[test]
    fn raw_and_legwork_work_in_turn() {
        let order = std::cell::RefCell::new(Vec::new());
        let push = |who| {
            order.borrow_mut().push(who);
            Ok(())
        };
        let said = in_turn(2, || push("raw"), || push("legwork"));
        assert_eq!(said.expect("neither fails").0.len(), 2);
        assert_eq!(*order.borrow(), ["raw", "legwork", "raw", "legwork"]);
    }
}
