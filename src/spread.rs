//! Spreading the jobs of a bulk over a period.

use std::time::Duration;

use crate::new_job::NewJob;

/// Spreads jobs evenly over a period, so that a bulk does not start all at once: of *n* jobs, the first
/// runs when it would anyway, and each next one `over / n` later than that. In the order given, without
/// chance. Their own delays and start times stand; this comes on top.
///
/// ```
/// use std::time::Duration;
/// # use legwork::{Jobs, NewJob};
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let jobs = Jobs::open(dir.path().join("app.db"))?;
/// let newsletter = (1..=3600).map(|user| NewJob::of_kind("newsletter", serde_json::json!(user)));
/// // One a second.
/// jobs.enqueue_many(legwork::spread(newsletter, Duration::from_secs(3600)))?;
/// # Ok(()) }
/// ```
///
/// It counts the jobs first, so it takes them all into memory; they are not copied.
pub fn spread<J: Into<NewJob>>(
    jobs: impl IntoIterator<Item = J>,
    over: Duration,
) -> impl ExactSizeIterator<Item = NewJob> {
    let jobs: Vec<J> = jobs.into_iter().collect();
    let count = jobs.len() as u128;
    jobs.into_iter().enumerate().map(move |(at, job)| job.into().later(share(over, at, count)))
}

/// `over * at / count`, exact to the nanosecond however long the period.
fn share(over: Duration, at: usize, count: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let nanos = over.as_nanos().saturating_mul(at as u128) / count;
    let seconds = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    // Less than a second, so it fits.
    Duration::new(seconds, (nanos % SECOND) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_the_first_is_nothing() {
        let of = |over: u64, at, count| share(Duration::from_millis(over), at, count).as_millis();
        assert_eq!([0, 1, 2].map(|at| of(3000, at, 3)), [0, 1000, 2000]);
        assert_eq!([0, 1, 2].map(|at| of(1000, at, 3)), [0, 333, 666]);
        assert_eq!(of(0, 5, 10), 0);
        let century = Duration::from_secs(100 * 365 * 86_400);
        assert_eq!(share(century, 500_000, 1_000_000), century / 2);
    }
}
