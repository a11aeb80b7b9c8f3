//! Leaving the write lock to others.
//!
//! The app's own transactions find the lock by looking again and again (SQLite's busy handler, at 1,
//! 3, 8, 18, 33 ms and so on), and beside a busy writer they would hardly ever find it free. So the
//! writer leaves it alone for a moment when it was held for a while: long enough for most looks while
//! somebody else is known to write, just long enough to notice one otherwise.

use std::time::{Duration, Instant};

/// So long the lock may be held before others get a gap, while there are any.
const BUDGET: Duration = Duration::from_millis(3);
const LONGEST_GAP: Duration = Duration::from_millis(20);
/// The same while nobody else is known to write: short gaps, in which one may be seen.
const BUDGET_ALONE: Duration = Duration::from_millis(20);
const GAP_ALONE: Duration = Duration::from_micros(500);
/// So long a neighbour is remembered who has written, or has held the lock.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How the lock was used of late, by whichever thread.
#[derive(Default)]
pub(super) struct Gaps {
    /// How long it was held since others could last have had it.
    held: Duration,
    freed_at: Option<Instant>,
    neighbour_seen: Option<Instant>,
}

impl Gaps {
    /// Somebody else holds the lock, or has written.
    pub(super) fn saw_neighbour(&mut self, now: Instant) {
        self.neighbour_seen = Some(now);
    }

    pub(super) fn has_neighbour(&self, now: Instant) -> bool {
        self.neighbour_seen.is_some_and(|seen| now - seen < REMEMBERED)
    }

    /// The lock was held from then on, and is free now.
    pub(super) fn held(&mut self, from: Instant, until: Instant) {
        if self.freed_at.is_some_and(|freed| from - freed >= self.gap(from)) {
            self.held = Duration::ZERO;
        }
        self.held += until - from;
        self.freed_at = Some(until);
    }

    /// How long the lock should still be left alone, if it should.
    pub(super) fn owed(&self, now: Instant) -> Option<Duration> {
        let budget = if self.has_neighbour(now) { BUDGET } else { BUDGET_ALONE };
        let idle = self.freed_at.map_or(Duration::MAX, |freed| now - freed);
        let rest = self.gap(now).saturating_sub(idle);
        (self.held >= budget && !rest.is_zero()).then_some(rest)
    }

    /// How long a gap has to be for others to find it.
    fn gap(&self, now: Instant) -> Duration {
        if self.has_neighbour(now) { (self.held * 3 / 2).min(LONGEST_GAP) } else { GAP_ALONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_neighbour_gets_half_as_much_again_as_was_held_and_idle_time_counts() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        gaps.saw_neighbour(start);
        gaps.held(start, start + 2 * MS);
        assert_eq!(gaps.owed(start + 2 * MS), None);
        gaps.held(start + 3 * MS, start + 5 * MS);
        assert_eq!(gaps.owed(start + 5 * MS), Some(6 * MS));
        assert_eq!(gaps.owed(start + 9 * MS), Some(2 * MS));
        assert_eq!(gaps.owed(start + 11 * MS), None);
        // That gap is over: what was held before it no longer counts.
        gaps.held(start + 11 * MS, start + 13 * MS);
        assert_eq!(gaps.owed(start + 13 * MS), None);
    }

    #[test]
    fn use_with_idle_time_between_owes_nothing() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        gaps.saw_neighbour(start);
        for turn in 0..50 {
            let from = start + turn * 7 * MS;
            assert_eq!(gaps.owed(from), None);
            gaps.held(from, from + 2 * MS);
        }
    }

    #[test]
    fn alone_it_is_free_for_a_moment_now_and_then() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        gaps.held(start, start + 19 * MS);
        assert_eq!(gaps.owed(start + 19 * MS), None);
        gaps.held(start + 19 * MS, start + 20 * MS);
        assert_eq!(gaps.owed(start + 20 * MS), Some(GAP_ALONE));
        assert_eq!(gaps.owed(start + 21 * MS), None);
    }

    #[test]
    fn no_gap_is_longer_than_the_longest_and_neighbours_are_forgotten() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        gaps.saw_neighbour(start);
        gaps.held(start, start + 100 * MS);
        assert_eq!(gaps.owed(start + 100 * MS), Some(LONGEST_GAP));
        assert!(!gaps.has_neighbour(start + REMEMBERED));
    }
}
