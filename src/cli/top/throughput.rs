//! How many jobs finish in a second, from how many are finished at some moments.

use std::collections::VecDeque;
use std::time::Duration;

/// What is shown, and a little more.
const KEPT: Duration = Duration::from_secs(70);

/// The rate now is taken over at least this long: over less it would jump.
const SHORTEST: Duration = Duration::from_millis(900);

/// What has finished, at moments since the start of the view.
#[derive(Clone, Debug, Default)]
pub(super) struct Throughput {
    /// Growing in both: when, and how many have finished since the first look.
    points: VecDeque<(Duration, u64)>,
    /// How many finished jobs the file had at the last of them.
    counted: u64,
}

impl Throughput {
    /// So many finished jobs are in the file. Fewer than before: some were removed or run again, and what
    /// finished meanwhile is not known.
    pub(super) fn add(&mut self, at: Duration, finished: u64) {
        let sum = match self.points.back() {
            Some((_, sum)) => sum + finished.saturating_sub(self.counted),
            None => 0,
        };
        self.counted = finished;
        self.points.push_back((at, sum));
        // The last one before what is kept says where that begins.
        while self.points.get(1).is_some_and(|(second, _)| *second + KEPT < at) {
            self.points.pop_front();
        }
    }

    /// Jobs a second, now; `None` before there is anything to compare.
    pub(super) fn now(&self) -> Option<f64> {
        let (at, sum) = *self.points.back()?;
        let (before, then) = *self.points.iter().rev().find(|(p, _)| *p + SHORTEST <= at)?;
        Some((sum - then) as f64 / (at - before).as_secs_f64())
    }

    /// How many hundredths of a job have finished in each of the last seconds, oldest first.
    pub(super) fn last(&self, seconds: usize) -> Vec<u64> {
        let Some((end, _)) = self.points.back() else { return vec![0; seconds] };
        let end = end.as_secs_f64();
        let sums: Vec<f64> = (0..=seconds).rev().map(|ago| self.sum_at(end - ago as f64)).collect();
        sums.windows(2).map(|pair| ((pair[1] - pair[0]) * 100.0).round() as u64).collect()
    }

    /// On the straight line between the moments around it.
    fn sum_at(&self, at: f64) -> f64 {
        let mut before: Option<(f64, f64)> = None;
        for (point, sum) in &self.points {
            let (point, sum) = (point.as_secs_f64(), *sum as f64);
            if point >= at {
                return match before {
                    Some((from, low)) => low + (sum - low) * (at - from) / (point - from),
                    None => sum,
                };
            }
            before = Some((point, sum));
        }
        before.map_or(0.0, |(_, sum)| sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(points: &[(u64, u64)]) -> Throughput {
        let mut all = Throughput::default();
        for (ms, finished) in points {
            all.add(Duration::from_millis(*ms), *finished);
        }
        all
    }

    #[test]
    fn the_rate_is_that_of_the_last_second_or_more() {
        assert_eq!(counted(&[]).now(), None);
        assert_eq!(counted(&[(0, 1_000)]).now(), None);
        assert_eq!(counted(&[(0, 1_000), (2_000, 1_030)]).now(), Some(15.0));
        assert_eq!(counted(&[(0, 0), (1_000, 5), (1_500, 5), (2_000, 7)]).now(), Some(2.0));
    }

    #[test]
    fn each_second_has_its_share_of_what_lies_between_two_counts() {
        assert_eq!(counted(&[(0, 9), (4_000, 13)]).last(5), [0, 100, 100, 100, 100]);
        assert_eq!(counted(&[(0, 0), (1_000, 2), (2_000, 2)]).last(3), [0, 200, 0]);
        assert_eq!(counted(&[]).last(2), [0, 0]);
    }

    #[test]
    fn what_is_pruned_is_no_negative_rate() {
        let all = counted(&[(0, 100), (1_000, 40), (2_000, 50)]);
        assert_eq!((all.now(), all.last(2)), (Some(10.0), vec![0, 1_000]));
    }

    #[test]
    fn what_is_older_than_is_shown_is_forgotten() {
        let points: Vec<(u64, u64)> = (0..1_000).map(|second| (second * 1_000, second)).collect();
        let all = counted(&points);
        assert!(all.points.len() < 80);
        assert_eq!(all.last(60), vec![100; 60]);
    }
}
