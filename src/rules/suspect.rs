//! What the death of a process means for the jobs that it held.

use std::time::Duration;

use crate::clock::{Micros, micros_of};

/// For how long a death counts.
pub(crate) const WINDOW: Duration = Duration::from_secs(72 * 3600);

/// What becomes of a job whose process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is claimable again, under suspicion, with these deaths counted against it.
    Suspect(Vec<Micros>),
    /// It has taken this many processes with it and is not started again.
    Quarantine { deaths: usize },
}

/// Which of the jobs that had started is to blame for the death of their process: the only one
/// that was a suspect already. With none or several nobody is blamed.
pub(crate) fn to_blame(started_suspects: impl IntoIterator<Item = i64>) -> Option<i64> {
    let mut suspects = started_suspects.into_iter();
    let only = suspects.next()?;
    suspects.next().is_none().then_some(only)
}

/// What becomes of a job that a dead process held. `crashes` is what was counted against it so
/// far, `limit` at how many it is quarantined: at least 1, since with 0 nobody is suspected.
///
/// Times ahead of `now` count: a clock that was set back says nothing about when they were.
pub(crate) fn after_death(mut crashes: Vec<Micros>, blamed: bool, now: Micros, limit: u32) -> Fate {
    if !blamed {
        return Fate::Suspect(crashes);
    }
    crashes.push(now);
    crashes.retain(|&at| now.saturating_sub(at) <= micros_of(WINDOW));
    if u32::try_from(crashes.len()).is_ok_and(|deaths| deaths < limit) {
        return Fate::Suspect(crashes);
    }
    Fate::Quarantine { deaths: crashes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Micros = 3_600_000_000;

    #[test]
    fn only_a_suspect_that_ran_alone_among_suspects_is_to_blame() {
        assert_eq!(to_blame([]), None);
        assert_eq!(to_blame([7]), Some(7));
        assert_eq!(to_blame([7, 8]), None);
    }

    #[test]
    fn a_job_that_is_not_to_blame_is_a_suspect_with_nothing_more_against_it() {
        assert_eq!(after_death(vec![], false, HOUR, 1), Fate::Suspect(vec![]));
        assert_eq!(after_death(vec![1, 2], false, HOUR, 2), Fate::Suspect(vec![1, 2]));
    }

    #[test]
    fn the_death_that_reaches_the_limit_quarantines() {
        assert_eq!(after_death(vec![], true, 5, 3), Fate::Suspect(vec![5]));
        assert_eq!(after_death(vec![5], true, 6, 3), Fate::Suspect(vec![5, 6]));
        assert_eq!(after_death(vec![5, 6], true, 7, 3), Fate::Quarantine { deaths: 3 });
        assert_eq!(after_death(vec![], true, 5, 1), Fate::Quarantine { deaths: 1 });
        // The limit was lowered meanwhile.
        assert_eq!(after_death(vec![5, 6], true, 7, 2), Fate::Quarantine { deaths: 3 });
    }

    #[test]
    fn deaths_count_for_72_hours_and_not_longer() {
        let at = 100 * HOUR;
        let old = at - 72 * HOUR;
        assert_eq!(after_death(vec![old, old], true, at, 3), Fate::Quarantine { deaths: 3 });
        let kept = Fate::Suspect(vec![old, at]);
        assert_eq!(after_death(vec![old - 1, old], true, at, 3), kept);
        assert_eq!(after_death(vec![old - 1, old - 1], true, at, 3), Fate::Suspect(vec![at]));
    }

    #[test]
    fn after_the_clock_was_set_back_deaths_that_lie_ahead_count() {
        let ahead = 1_000 * HOUR;
        assert_eq!(after_death(vec![ahead], true, HOUR, 3), Fate::Suspect(vec![ahead, HOUR]));
        assert_eq!(after_death(vec![ahead, HOUR], true, HOUR, 3), Fate::Quarantine { deaths: 3 });
        assert_eq!(
            after_death(vec![Micros::MAX], true, Micros::MIN, 2),
            Fate::Quarantine { deaths: 2 }
        );
    }
}
