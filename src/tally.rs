//! How the attempts of one engine have ended, counted after each commit.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::State;

/// How the attempts of one engine have ended so far; from [`Engine::tally`](crate::Engine::tally).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Jobs that completed.
    pub completed: u64,
    /// Jobs that gave up.
    pub failed: u64,
    /// Jobs that ended as cancelled.
    pub cancelled: u64,
    /// Attempts after which the job goes on: it is retried, was snoozed or was given back.
    pub unfinished: u64,
}

impl Tally {
    /// Jobs that have finished, however.
    pub fn finished(&self) -> u64 {
        self.completed + self.failed + self.cancelled
    }
}

/// The counters of a [`Tally`].
#[derive(Debug, Default)]
pub(crate) struct Tallying {
    completed: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    unfinished: AtomicU64,
}

impl Tallying {
    /// An attempt was recorded, and its job is in this state now.
    pub(crate) fn count(&self, state: State) {
        let counter = match state {
            State::Completed => &self.completed,
            State::Failed => &self.failed,
            State::Cancelled => &self.cancelled,
            _ => &self.unfinished,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            completed: read(&self.completed),
            failed: read(&self.failed),
            cancelled: read(&self.cancelled),
            unfinished: read(&self.unfinished),
        }
    }
}
