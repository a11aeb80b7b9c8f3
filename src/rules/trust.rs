//! How far the wall clock is believed where something would be lost by it: pruning.
//!
//! A clock that is set ten years ahead must not prune what was finished yesterday. So pruning goes by
//! a *cutoff*: it follows the clock as long as the clock moves as time that the machine is awake
//! does. When the clock leaps ahead of that, the cutoff goes on from where it was, and the leap is
//! believed only once it is a day old: the clock has run on for a day since, or is seen again, later,
//! a day beyond it. A step back that takes only a part of a leap back leaves the doubt. A sleep looks the same as a leap, so a machine that sleeps each night prunes a
//! day late, and one that is used once a week what was due a week ago. A clock that goes back takes
//! the cutoff with it.

use std::time::Duration;

use crate::clock::{Micros, micros_of};

/// By so much the clock may move ahead of awake time unnoticed.
const SLACK: Micros = 60 * 1_000_000;
/// After so long a leap is believed.
const DAY: Micros = 86_400 * 1_000_000;

/// What is believed of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// The clock at the last look.
    seen: Micros,
    /// The believed time at the last look, at most `seen`.
    cutoff: Micros,
    /// The clock after the first leap that is not yet believed.
    leapt: Option<Micros>,
}

impl Trust {
    /// The clock is believed as it is found.
    pub(crate) fn new(now: Micros) -> Trust {
        Trust { seen: now, cutoff: now, leapt: None }
    }

    /// The time by which to prune.
    pub(crate) fn cutoff(&self) -> Micros {
        self.cutoff
    }

    /// Whether somebody has looked after the clock showed this.
    pub(crate) fn is_after(&self, at: Micros) -> bool {
        self.seen > at
    }

    /// Whether a leap is not yet believed.
    pub(crate) fn doubts(&self) -> bool {
        self.leapt.is_some()
    }

    /// The believed time, and the clock after the leap that is not yet believed, if there is one.
    pub(crate) fn leap(&self) -> Option<(Micros, Micros)> {
        self.leapt.map(|leapt| (self.cutoff, leapt))
    }

    /// When a leap is believed, if the clock runs on.
    pub(crate) fn believes_at(leapt: Micros) -> Micros {
        leapt.saturating_add(DAY)
    }

    /// What is believed when the clock shows `now`, after so much awake time since the last look. After
    /// a restart nothing is known of that: it is zero.
    pub(crate) fn look(self, now: Micros, awake: Duration) -> Trust {
        let awake = micros_of(awake);
        let step = now.saturating_sub(self.seen);
        if step < -SLACK {
            let cutoff = self.cutoff.saturating_add(awake.max(0)).min(now);
            // It may have taken back a part of a leap only.
            let ahead = now.saturating_sub(cutoff) > SLACK;
            return Trust { seen: now, cutoff, leapt: ahead.then_some(now) };
        }
        let leaps = step > awake.saturating_add(SLACK);
        let cutoff = match (self.leapt, leaps) {
            (None, false) => now,
            _ => self.cutoff.saturating_add(awake.max(0)).min(now),
        };
        let trust = Trust { seen: now.max(self.seen), cutoff, ..self };
        match (self.leapt, leaps) {
            (None, false) => trust,
            (None, true) => Trust { leapt: Some(now), ..trust },
            (Some(leapt), _) if now.saturating_sub(leapt) < DAY => trust,
            (Some(_), false) => Trust { cutoff: now, leapt: None, ..trust },
            // The old leap is seen from a day beyond it; the new one is not.
            (Some(leapt), true) => Trust { cutoff: cutoff.max(leapt), leapt: Some(now), ..trust },
        }
    }

    /// Whether `other` differs in more than the time that has passed.
    pub(crate) fn has_turned(&self, other: &Trust) -> bool {
        self.leapt != other.leapt || self.seen < other.seen
    }

    /// How long after the last look `at` will be believed to have come, if the clock runs on.
    pub(crate) fn wait_for(&self, at: Micros) -> Duration {
        let by_cutoff = at.saturating_sub(self.cutoff);
        let by_belief = match self.leapt {
            Some(leapt) => leapt.saturating_add(DAY).saturating_sub(self.seen),
            None => Micros::MAX,
        };
        Duration::from_micros(by_cutoff.min(by_belief).max(0).unsigned_abs())
    }

    /// As it is kept in the file.
    pub(crate) fn to_text(self) -> String {
        let leapt = self.leapt.map_or_else(|| "-".to_owned(), |leapt| leapt.to_string());
        format!("{} {} {leapt}", self.seen, self.cutoff)
    }

    /// `None`: it is not understood.
    pub(crate) fn from_text(text: &str) -> Option<Trust> {
        let mut words = text.split(' ');
        let (seen, cutoff, leapt) = (words.next()?, words.next()?, words.next()?);
        Some(Trust {
            seen: seen.parse().ok()?,
            cutoff: cutoff.parse().ok()?,
            leapt: if leapt == "-" { None } else { Some(leapt.parse().ok()?) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Micros = 3_600 * 1_000_000;
    const YEAR: Micros = 365 * DAY;
    const START: Micros = 50 * YEAR;

    fn awake(micros: Micros) -> Duration {
        Duration::from_micros(micros.unsigned_abs())
    }

    #[test]
    fn a_clock_that_moves_with_awake_time_is_followed() {
        let mut trust = Trust::new(START);
        for hour in 1..100 {
            // NTP may correct it a little.
            trust = trust.look(START + hour * HOUR + 10_000_000, awake(HOUR));
            assert_eq!(trust.cutoff(), START + hour * HOUR + 10_000_000);
        }
        assert!(!trust.doubts());
    }

    #[test]
    fn a_leap_is_believed_after_a_day_and_not_before() {
        for leap in [2 * HOUR, 30 * DAY, 10 * YEAR] {
            let mut trust = Trust::new(START).look(START + leap, Duration::ZERO);
            let mut passed = 0;
            while passed < 23 * HOUR {
                passed += HOUR;
                trust = trust.look(START + leap + passed, awake(HOUR));
                assert_eq!(trust.cutoff(), START + passed, "only the time that has passed");
                assert!(trust.doubts());
            }
            assert_eq!(trust.wait_for(START + leap + passed), awake(HOUR));
            trust = trust.look(START + leap + DAY, awake(HOUR));
            assert_eq!(trust.cutoff(), START + leap + DAY);
            assert!(!trust.doubts());
        }
    }

    #[test]
    fn a_leap_that_is_taken_back_has_changed_nothing() {
        let ahead = Trust::new(START).look(START + 10 * YEAR, Duration::ZERO);
        let ahead = ahead.look(START + 10 * YEAR + HOUR, awake(HOUR));
        let back = ahead.look(START + 2 * HOUR, awake(HOUR));
        assert_eq!((back.cutoff(), back.doubts()), (START + 2 * HOUR, false));
        assert_eq!(back.look(START + 3 * HOUR, awake(HOUR)).cutoff(), START + 3 * HOUR);
    }

    #[test]
    fn a_leap_that_is_partly_taken_back_is_a_leap() {
        let ahead = Trust::new(START).look(START + 10 * YEAR, Duration::ZERO);
        let back = ahead.look(START + 10 * YEAR - HOUR, awake(HOUR));
        assert_eq!((back.cutoff(), back.doubts()), (START + HOUR, true));
        let later = back.look(START + 10 * YEAR, awake(HOUR));
        assert_eq!((later.cutoff(), later.doubts()), (START + 2 * HOUR, true));
    }

    #[test]
    fn a_clock_that_goes_back_takes_the_cutoff_with_it() {
        let back = Trust::new(START).look(START - DAY, awake(HOUR));
        assert_eq!((back.cutoff(), back.doubts()), (START - DAY, false));
    }

    #[test]
    fn a_machine_that_sleeps_each_night_prunes_a_day_late() {
        let mut trust = Trust::new(START);
        for day in 0..30 {
            let morning = START + day * DAY;
            trust = trust.look(morning, Duration::ZERO);
            for hour in 1..=10 {
                trust = trust.look(morning + hour * HOUR, awake(HOUR));
            }
            assert!(trust.cutoff() >= morning - DAY, "day {day}: {trust:?}");
        }
    }

    #[test]
    fn a_program_that_is_run_for_a_moment_each_week_prunes_a_week_late() {
        let mut trust = Trust::new(START);
        for week in 1..10 {
            let now = START + week * 7 * DAY;
            // Kept in the file, and read again by the next run.
            trust = Trust::from_text(&trust.look(now, Duration::ZERO).to_text()).unwrap();
            assert_eq!(trust.cutoff(), now - 7 * DAY);
        }
    }

    #[test]
    fn a_leap_on_top_of_another_is_not_believed_with_it() {
        let first = Trust::new(START).look(START + 2 * DAY, Duration::ZERO);
        let second = first.look(START + 10 * YEAR, awake(HOUR));
        assert_eq!(second.cutoff(), START + 2 * DAY);
        assert!(second.doubts());
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_and_nonsense_is_none() {
        for trust in [Trust::new(-5), Trust::new(START).look(START + YEAR, Duration::ZERO)] {
            assert_eq!(Trust::from_text(&trust.to_text()), Some(trust));
        }
        for text in ["", "1 2", "x 2 -", "1 2 y"] {
            assert_eq!(Trust::from_text(text), None, "{text}");
        }
    }
}
