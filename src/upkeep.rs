//! Looking after the file: which finished jobs to remove, what a vacuum gave back, what version it has.

use std::time::Duration;

use crate::clock::{Micros, micros_of};
use crate::state::State;

/// Which finished jobs [`Jobs::prune`](crate::Jobs::prune) removes.
///
/// ```
/// use legwork::Prune;
/// use std::time::Duration;
/// const DAY: Duration = Duration::from_secs(86_400);
/// // What engines would remove by now, had one been running.
/// let due = Prune::due();
/// // Jobs that completed a day ago or earlier, and those that failed a month ago or earlier.
/// let old = Prune::none().completed(DAY).failed(30 * DAY);
/// ```
///
/// The members of a [flow](crate::guide::flows) go with it, by its own state, once it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    pub(crate) due: bool,
    pub(crate) completed: Option<Duration>,
    pub(crate) failed: Option<Duration>,
    pub(crate) cancelled: Option<Duration>,
}

impl Prune {
    /// Those whose retention is over, as far as the clock is
    /// [believed](crate::guide::scheduling#nothing-is-pruned-by-a-leap).
    pub fn due() -> Prune {
        Prune { due: true, ..Prune::default() }
    }

    /// None, but for what is added.
    pub fn none() -> Prune {
        Prune::default()
    }

    /// All of them, however new.
    pub fn all() -> Prune {
        Prune::none().completed(Duration::ZERO).failed(Duration::ZERO).cancelled(Duration::ZERO)
    }

    /// Those too that completed so long ago or longer.
    pub fn completed(self, ago: Duration) -> Prune {
        Prune { completed: Some(ago), ..self }
    }

    /// Those too that failed so long ago or longer.
    pub fn failed(self, ago: Duration) -> Prune {
        Prune { failed: Some(ago), ..self }
    }

    /// Those too that were cancelled so long ago or longer.
    pub fn cancelled(self, ago: Duration) -> Prune {
        Prune { cancelled: Some(ago), ..self }
    }

    /// The latest ends of those that go, at `now`.
    pub(crate) fn ends(&self, now: Micros) -> Ends {
        let until = |ago: Option<Duration>| ago.map(|ago| now.saturating_sub(micros_of(ago)));
        Ends {
            completed: until(self.completed),
            failed: until(self.failed),
            cancelled: until(self.cancelled),
        }
    }

    pub(crate) fn has_ages(&self) -> bool {
        [self.completed, self.failed, self.cancelled].iter().any(Option::is_some)
    }
}

/// Jobs and flows that have ended by these times; `None`: none of that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) completed: Option<Micros>,
    pub(crate) failed: Option<Micros>,
    pub(crate) cancelled: Option<Micros>,
}

impl Ends {
    /// In the order of the states.
    pub(crate) fn each(&self) -> [Option<Micros>; 3] {
        debug_assert!(State::Completed < State::Failed && State::Failed < State::Cancelled);
        [self.completed, self.failed, self.cancelled]
    }
}

/// What [`Jobs::vacuum`](crate::Jobs::vacuum) has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vacuumed {
    /// The size of the database in bytes before, its free pages included.
    pub before: u64,
    /// The same afterwards.
    pub after: u64,
    /// Bytes in free pages that are left.
    pub free: u64,
    /// Whether the file gives pages back at all without being rewritten: whether it was made with
    /// `auto_vacuum`, as legwork makes files.
    pub incremental: bool,
}

/// Which version legwork's part of a file has; from [`Jobs::schema`](crate::Jobs::schema).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schema {
    /// The version in the file; 0 if legwork has nothing in it yet.
    pub found: i64,
    /// Whether it has no tables at all, of anybody.
    pub is_empty: bool,
    /// The newest version that this program knows, to which opening the file brings it.
    pub known: i64,
    /// What each step from one to the other does, in words.
    pub steps: Vec<&'static str>,
}

impl Schema {
    /// Whether the file was written by a newer legwork, and cannot be opened.
    pub fn is_newer(&self) -> bool {
        self.found > self.known
    }
}
