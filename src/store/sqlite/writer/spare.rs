//! What the writer does between groups: pruning, and leaving the lock alone.

use std::time::{Duration, Instant};

use super::Writer;
use super::group::Group;
use crate::clock::Micros;
use crate::error::Result;
use crate::rules::trust::Trust;
use crate::store::sqlite::prune::Pruned;

/// Pause between bites of pruning and between looks for something to prune.
const PRUNE_PAUSE: Duration = Duration::from_millis(20);
const PRUNE_EVERY: Duration = Duration::from_secs(10);

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
        let mut cutoff = now;
        let mut turned = false;
        if self.book.next_prune.is_some_and(|at| at <= now) {
            // The clock says so; whether it is believed is another question.
            let before = self.trust;
            let trust = match self.believe(now) {
                Ok(trust) => trust,
                Err(error) => return log::warn!("legwork: pruning: {error}"),
            };
            turned = before.is_none_or(|before| before.has_turned(&trust));
            cutoff = trust.cutoff();
            if trust.doubts() && turned {
                log::warn!("legwork: the clock has leapt ahead; nothing is pruned by it for a day");
            }
        }
        let expired = self.book.next_prune.is_some_and(|at| at <= cutoff);
        let mut over_cap = self.over_cap();
        if over_cap > 0 {
            // Deleted and retried jobs were not counted out of the history.
            self.history_rows = None;
            over_cap = self.over_cap();
        }
        if !expired && !turned && over_cap == 0 {
            return;
        }
        let mut group = Group::default();
        if !self.lock(&mut group) {
            return;
        }
        let pruned = self
            .book
            .prune(cutoff, over_cap)
            .and_then(|pruned| self.keep_trust().map(|()| pruned))
            .and_then(|pruned| self.book.commit().map(|_| pruned))
            .unwrap_or_else(|error| {
                self.book.roll_back();
                self.back_off();
                self.tell_damage(&error);
                log::warn!("legwork: pruning: {error}");
                Pruned::default()
            });
        if let Some(count) = &mut self.history_rows {
            *count = count.saturating_sub(pruned.jobs);
        }
        self.prune_not_before =
            Some(Instant::now() + if pruned.more { PRUNE_PAUSE } else { PRUNE_EVERY });
        if !pruned.more && self.book.give_pages_back().unwrap_or(false) {
            self.prune_not_before = Some(Instant::now() + PRUNE_PAUSE);
        }
        // What came in while waiting for the lock, claims included.
        self.record(group);
    }

    /// How far the clock, which shows `now`, is believed.
    fn believe(&mut self, now: Micros) -> Result<Trust> {
        let awake = self.settings.clock.awake();
        let (opened, before) = self.looked;
        let last = match self.trust {
            Some(trust) => trust,
            None => match self.book.read_trust()? {
                // Another process has looked since.
                Some(kept) if kept.is_after(opened) => kept,
                Some(kept) => kept.look(opened, Duration::ZERO),
                None => Trust::new(opened),
            },
        };
        let trust = last.look(now, awake.saturating_sub(before));
        self.looked = (now, awake);
        self.trust = Some(trust);
        Ok(trust)
    }

    /// Keeps for later runs how far the clock is believed.
    pub(super) fn keep_trust(&mut self) -> Result<()> {
        let trust = self.believe(self.settings.clock.micros())?;
        self.book.keep_trust(trust)
    }

    /// The time by which to prune; kept like that for later runs.
    pub(super) fn believed(&mut self) -> Result<Micros> {
        let trust = self.believe(self.settings.clock.micros())?;
        self.book.keep_trust(trust)?;
        Ok(trust.cutoff())
    }

    pub(super) fn over_cap(&mut self) -> u64 {
        if self.history_rows.is_none() {
            self.history_rows = self.book.count_history().ok();
        }
        self.history_rows.unwrap_or(0).saturating_sub(self.settings.history_rows)
    }

    /// Leaves the lock to others for a moment, if it was held for long.
    pub(super) fn leave_a_gap(&mut self) {
        if !self.stopping
            && let Some(gap) = self.gaps.owed(Instant::now())
        {
            std::thread::sleep(gap);
        }
    }

    /// Whether the group is as large as a transaction should be.
    pub(super) fn is_large(&self, group: &Group) -> bool {
        let (operations, rows) =
            if self.gaps.has_neighbour(Instant::now()) { (256, 1_000) } else { (2_048, 50_000) };
        group.operations() >= operations || group.rows >= rows
    }
}
