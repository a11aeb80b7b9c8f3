//! The legal transitions, in one place. The guide's diagram shows them, the store's set-wise SQL
//! is tested against them.

use crate::state::State;
use State::*;

/// What can happen to a job after it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "set-wise SQL makes some changes; tests hold it to this table")
)]
pub(crate) enum Change {
    /// Its `run_at` has come.
    Due,
    /// A worker took it and starts it.
    Start,
    /// The attempt succeeded.
    Complete,
    /// The attempt failed and the job is tried again later.
    Retry,
    /// The attempt failed and the job gave up.
    Fail,
    /// Cancelled, by somebody or by the job itself.
    Cancel,
    /// The job asked to run again later without using up an attempt.
    Snooze,
    /// The attempt was interrupted or its process died; the job is claimable again.
    GiveBack,
    /// Its process died once too often while it was the only suspect under way.
    Quarantine,
    /// Somebody asked for a finished or retrying job to run again now.
    RunAgain,
    /// Another job with its key runs, and both may not.
    Block,
    /// What it waited for has ended.
    Unblock,
    /// The same, and its `run_at` lies ahead.
    UnblockLater,
    /// A new job with its key has put itself in its place.
    Replace,
    /// The same, with a `run_at` that lies ahead.
    ReplaceLater,
    /// Somebody has given it a time that has come.
    Reschedule,
    /// Somebody has given it a time that lies ahead.
    RescheduleLater,
    /// Somebody wants it not to wait for its time.
    RunNow,
}

impl Change {
    #[cfg(test)]
    pub(crate) const ALL: [Change; 18] = [
        Change::Due,
        Change::Start,
        Change::Complete,
        Change::Retry,
        Change::Fail,
        Change::Cancel,
        Change::Snooze,
        Change::GiveBack,
        Change::Quarantine,
        Change::RunAgain,
        Change::Block,
        Change::Unblock,
        Change::UnblockLater,
        Change::Replace,
        Change::ReplaceLater,
        Change::Reschedule,
        Change::RescheduleLater,
        Change::RunNow,
    ];
}

/// The state after `change`, or `None` if a job in `from` cannot undergo it.
pub(crate) const fn next(from: State, change: Change) -> Option<State> {
    match (from, change) {
        (Scheduled | Retrying, Change::Due) => Some(Ready),
        (Ready, Change::Block) => Some(Blocked),
        (Blocked, Change::Unblock) | (Scheduled | Ready | Retrying, Change::Replace) => Some(Ready),
        (Blocked, Change::UnblockLater) | (Scheduled | Ready | Retrying, Change::ReplaceLater) => {
            Some(Scheduled)
        }
        (Ready, Change::Start) => Some(Running),
        (Running, Change::Complete) => Some(Completed),
        (Running, Change::Retry) => Some(Retrying),
        (Running, Change::Fail | Change::Quarantine) => Some(Failed),
        (Running, Change::Snooze) => Some(Scheduled),
        (Running, Change::GiveBack) => Some(Ready),
        // A running job is asked first; `Running` is left when its attempt ends.
        (Scheduled | Blocked | Ready | Retrying | Running, Change::Cancel) => Some(Cancelled),
        (Retrying | Completed | Failed | Cancelled, Change::RunAgain) => Some(Ready),
        (Scheduled | Ready | Retrying, Change::Reschedule)
        | (Scheduled | Retrying, Change::RunNow) => Some(Ready),
        (Scheduled | Ready, Change::RescheduleLater) => Some(Scheduled),
        (Retrying, Change::RescheduleLater) => Some(Retrying),
        // It waits on for what else it waits for.
        (Blocked, Change::Reschedule | Change::RescheduleLater | Change::RunNow) => Some(Blocked),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_lists_exactly_the_legal_transitions() {
        let page = include_str!("../guide/lifecycle.md");
        let mut listed: Vec<(String, String, String)> = page
            .lines()
            .filter_map(|line| {
                let (from, rest) = line.split_once(" --")?;
                let (change, to) = rest.split_once("-->")?;
                Some((from.trim().to_owned(), change.replace(' ', ""), to.trim().to_owned()))
            })
            .collect();
        let mut legal = Vec::new();
        for from in State::ALL {
            for change in Change::ALL {
                if let Some(to) = next(from, change) {
                    let change = format!("{change:?}").to_lowercase();
                    legal.push((from.to_string(), change, to.to_string()));
                }
            }
        }
        listed.sort();
        legal.sort();
        assert_eq!(listed, legal);
    }

    #[test]
    fn finished_jobs_only_run_again() {
        for from in State::ALL.into_iter().filter(|state| state.is_finished()) {
            for change in Change::ALL {
                let legal = next(from, change).is_some();
                assert_eq!(legal, change == Change::RunAgain, "{from} {change:?}");
            }
        }
    }

    #[test]
    fn only_running_jobs_end_an_attempt() {
        use Change::{Complete, Fail, GiveBack, Quarantine, Retry, Snooze};
        for from in State::ALL {
            for change in Change::ALL {
                let ends =
                    matches!(change, Complete | Retry | Fail | Snooze | GiveBack | Quarantine);
                if ends {
                    assert_eq!(next(from, change).is_some(), from == Running, "{from} {change:?}");
                }
            }
        }
    }

    #[test]
    fn every_state_but_the_finished_ones_can_be_left_and_every_state_can_be_reached() {
        // `blocked` is reached at enqueue and by the rules of later layers.
        for to in [Ready, Running, Retrying, Completed, Failed, Cancelled, Scheduled] {
            let reachable = State::ALL
                .iter()
                .any(|&from| Change::ALL.iter().any(|&change| next(from, change) == Some(to)));
            assert!(reachable, "{to}");
        }
    }
}
