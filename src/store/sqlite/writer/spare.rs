//! What the writer does between groups: pruning, and leaving the lock to others.

use std::time::{Duration, Instant};

use super::Writer;
use super::group::Group;
use crate::store::sqlite::prune;

/// Pause between bites of pruning and between looks for something to prune.
const PRUNE_PAUSE: Duration = Duration::from_millis(20);
const PRUNE_EVERY: Duration = Duration::from_secs(10);

/// So long the lock may be held before others get a gap, while there are any.
const BUDGET: Duration = Duration::from_millis(3);
const LONGEST_GAP: Duration = Duration::from_millis(20);
/// The same while nobody else is known to write: short gaps, in which one may be seen.
const BUDGET_ALONE: Duration = Duration::from_millis(20);
/// So long a neighbour is remembered who has written, or has held the lock.
const REMEMBERED: Duration = Duration::from_secs(10);
const GAP_ALONE: Duration = Duration::from_micros(500);

impl Writer {
    pub(super) fn counted_into_history(&mut self, rows: u64) {
        if let Some(count) = &mut self.history_rows {
            *count += rows;
        }
    }

    /// Removes a bite of what has outlived its retention, when it is time for it.
    pub(super) fn prune_if_due(&mut self) {
        if !self.book.lanes.has_pools() || self.stopping || self.trouble.is_some() {
            return;
        }
        // Under a stopped clock nothing but the clock decides, so that tests see the same each time.
        let paused = self.prune_not_before.is_some_and(|at| Instant::now() < at);
        if paused && !self.settings.clock.is_stopped() {
            return;
        }
        let now = self.settings.clock.micros();
        let expired = self.book.next_prune.is_some_and(|at| at <= now);
        let over_cap = self.over_cap();
        if !expired && over_cap == 0 {
            return;
        }
        let mut group = Group::default();
        if !self.lock(&mut group) {
            return;
        }
        let removed = self
            .book
            .prune(now, over_cap)
            .and_then(|removed| self.book.commit().map(|_| removed))
            .unwrap_or_else(|error| {
                self.book.roll_back();
                self.back_off();
                self.tell_damage(&error);
                log::warn!("legwork: pruning: {error}");
                0
            });
        if let Some(count) = &mut self.history_rows {
            *count = count.saturating_sub(removed);
        }
        self.prune_not_before =
            Some(Instant::now() + if removed >= prune::BITE { PRUNE_PAUSE } else { PRUNE_EVERY });
        if removed < prune::BITE && self.book.give_pages_back().unwrap_or(false) {
            self.prune_not_before = Some(Instant::now() + PRUNE_PAUSE);
        }
        // What came in while waiting for the lock, claims included.
        self.record(group);
    }

    pub(super) fn over_cap(&mut self) -> u64 {
        if self.history_rows.is_none() {
            self.history_rows = self.book.count_history().ok();
        }
        self.history_rows.unwrap_or(0).saturating_sub(self.settings.history_rows)
    }

    /// Leaves the write lock free for a moment when it was held for a while: the app's own
    /// transactions find it by looking again and again (SQLite's busy handler, at 1, 3, 8, 18, 33 ms
    /// and so on), and would hardly ever find it free otherwise. While somebody else writes, the
    /// gaps are longer than the work, so that most looks find one.
    pub(super) fn leave_a_gap(&mut self) {
        if self.stopping {
            return;
        }
        if let Some(gap) = self.gap() {
            std::thread::sleep(gap);
            self.lock_held = Duration::ZERO;
        }
    }

    /// The gap that is due by now.
    fn gap(&self) -> Option<Duration> {
        if self.has_neighbour() {
            (self.lock_held >= BUDGET).then(|| self.fair_gap())
        } else {
            (self.lock_held >= BUDGET_ALONE).then_some(GAP_ALONE)
        }
    }

    fn fair_gap(&self) -> Duration {
        (self.lock_held * 3 / 2).min(LONGEST_GAP)
    }

    /// Whether others should have the lock before a caller does.
    pub(super) fn needs_a_gap(&self) -> bool {
        self.gap().is_some()
    }

    fn has_neighbour(&self) -> bool {
        self.neighbour_seen.is_some_and(|seen| seen.elapsed() < REMEMBERED)
    }

    /// The thread has slept: others could have had the lock.
    pub(super) fn had_a_gap(&mut self, slept: Duration) {
        // Unless a caller has used it meanwhile.
        let free = self.lock_held == self.held_before_sleep;
        if free && slept >= GAP_ALONE && (!self.has_neighbour() || slept >= self.fair_gap()) {
            self.lock_held = Duration::ZERO;
        }
    }

    /// Whether the group is as large as a transaction should be.
    pub(super) fn is_large(&self, group: &Group) -> bool {
        let (operations, rows) = if self.has_neighbour() { (256, 1_000) } else { (2_048, 50_000) };
        group.operations() >= operations || group.rows >= rows
    }
}
