//! The cron entry and its ticks.

use std::collections::HashSet;

use time::OffsetDateTime;

use super::Model;
use crate::model::steps::*;

/// The cron entry; its times are seconds since 1970.
pub(super) struct Ticks {
    settled: i64,
    fired: HashSet<i64>,
    paused: bool,
    asked: usize,
}

impl Ticks {
    pub(super) fn from(now: OffsetDateTime) -> Ticks {
        Ticks { settled: now.unix_timestamp(), fired: HashSet::new(), paused: false, asked: 0 }
    }
}

impl Model {
    pub fn ask_cron(&mut self) {
        self.cron.asked += 1;
    }

    pub fn pause_cron(&mut self, paused: bool) {
        if !paused && self.cron.paused {
            self.cron.settled = self.now.unix_timestamp();
        }
        self.cron.paused = paused;
    }

    /// The engine looks at its entry.
    fn look_at_cron(&mut self) {
        for _ in 0..std::mem::take(&mut self.cron.asked) {
            self.insert(&New::plain(0, Kind::Copy), None).unwrap();
        }
        if self.cron.paused {
            return;
        }
        let now = self.now.unix_timestamp();
        if self.cron.settled - now >= 60 {
            self.cron.settled = now;
        }
        while self.next_tick(self.cron.settled) <= now {
            self.cron.settled = self.next_tick(self.cron.settled);
            if self.cron.fired.insert(self.cron.settled) {
                self.insert(&New::plain(0, Kind::Copy), None).unwrap();
            }
        }
    }

    fn next_tick(&self, after: i64) -> i64 {
        (after.div_euclid(TICK as i64) + 1) * TICK as i64
    }

    /// The clock goes forward, and the entry fires on the way.
    pub fn advance(&mut self, by: u64) {
        let end = self.now + seconds(by);
        loop {
            self.look_at_cron();
            let next = self.next_tick(self.cron.settled);
            if self.cron.paused || next > end.unix_timestamp() {
                break;
            }
            self.now = OffsetDateTime::from_unix_timestamp(next).unwrap();
            self.turn();
        }
        self.now = end;
        self.turn();
    }
}
