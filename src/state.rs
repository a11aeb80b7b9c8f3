//! The states a job can be in. What may follow what stands in [`rules::state`](crate::rules::state).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands.
///
/// The [lifecycle page](crate::guide::lifecycle) has the diagram of what may follow what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// Its time to run lies ahead.
    Scheduled = 1,
    /// Waits for a dependency, a limit or a gate.
    Blocked = 2,
    /// Can be claimed; also a job that was claimed ahead and has not started.
    Ready = 3,
    /// An attempt is under way.
    Running = 4,
    /// An attempt failed; it runs again at its `run_at`.
    Retrying = 5,
    /// Finished: an attempt succeeded.
    Completed = 6,
    /// Finished: gave up.
    Failed = 7,
    /// Finished: cancelled before an attempt succeeded.
    Cancelled = 8,
}

impl State {
    /// Every state, in the order of the life cycle.
    pub const ALL: [State; 8] = [
        State::Scheduled,
        State::Blocked,
        State::Ready,
        State::Running,
        State::Retrying,
        State::Completed,
        State::Failed,
        State::Cancelled,
    ];

    /// The word for it, as in the command line, the SQL view and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Blocked => "blocked",
            State::Ready => "ready",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether the job is over: completed, failed or cancelled. Such a job stands in the history
    /// table and is pruned after its retention.
    pub fn is_finished(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Cancelled)
    }

    pub(crate) fn code(self) -> i64 {
        self as i64
    }

    pub(crate) fn from_code(code: i64) -> Option<State> {
        State::ALL.into_iter().find(|state| state.code() == code)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
