//! Cron entries as the store keeps them, and what it can be told to do with them.

use crate::clock::Micros;
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::rules::cron::misfire::{Missed, Overlap, Settled};
use crate::unique::Enqueued;

/// An entry as it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CronRow {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) zone: String,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
    /// What to enqueue, as a `NewJob`'s stored form; `None`: an engine's builder makes it.
    pub(crate) job: Option<String>,
    pub(crate) paused: bool,
    /// Where its intervals start.
    pub(crate) anchor: Micros,
    pub(crate) settled: Settled,
    pub(crate) last_tick: Option<Micros>,
    pub(crate) last_job: Option<JobId>,
    /// Ticks written so far.
    pub(crate) fired: i64,
    /// Runs that were asked for and not yet served.
    pub(crate) runs_asked: i64,
}

/// An entry as an engine's builder or `schedule` gives it.
#[derive(Clone, Debug)]
pub(crate) struct CronEntry {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) zone: String,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
    pub(crate) job: Option<String>,
}

/// A change of cron entries.
#[derive(Clone, Debug)]
pub(crate) enum CronOrder {
    /// Creates or replaces entries. What does not differ is left alone.
    Put(Vec<CronEntry>),
    Remove(String),
    Pause(String),
    Resume(String),
    /// Asks for one run, now.
    Ask(String),
    Fire(Box<Fire>),
}

/// Ticks to settle, on the condition that the entry stands as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Fire {
    pub(crate) seen: CronRow,
    pub(crate) settled: Settled,
    /// Oldest first; `None`: its job could not be made, the tick is left out.
    pub(crate) ticks: Vec<(Micros, Option<NewRow>)>,
    /// Runs that were asked for, at most as many as stand in `seen`.
    pub(crate) runs: Vec<Option<NewRow>>,
}

/// What an order did.
#[derive(Clone, Debug, Default)]
pub(crate) enum CronDone {
    /// There was nothing to do it to.
    #[default]
    Unknown,
    Done,
    /// The entry no longer stands as it was seen; nothing was done.
    Stale,
    Fired {
        /// Of the ticks, then of the runs; `None`: left out, or fired before.
        jobs: Vec<Option<Enqueued>>,
        /// Ticks that were left out since the last job was not finished.
        overlapped: u64,
        now: Box<CronRow>,
    },
}
