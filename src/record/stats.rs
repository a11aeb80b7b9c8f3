//! Numbers about many jobs at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::Scope;
use crate::id::JobId;
use crate::state::State;

/// Numbers about the whole file at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// How many jobs are in each state.
    pub states: BTreeMap<State, u64>,
    /// Per queue, by name.
    pub queues: BTreeMap<String, QueueStats>,
    /// Per kind, from its last finished jobs.
    pub kinds: BTreeMap<String, KindStats>,
    /// What is paused.
    pub paused: Vec<Scope>,
}

impl Stats {
    /// How many jobs are in `state`.
    pub fn count(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }
}

/// Numbers about one queue.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueueStats {
    /// How many unfinished jobs are in each state.
    pub states: BTreeMap<State, u64>,
    /// The closed gates that ready jobs of it wait for, by name, with how many; those jobs count as
    /// blocked.
    pub gates: BTreeMap<String, u64>,
    /// How long the job that has been ready longest has waited since its `run_at`.
    pub oldest_ready: Option<Duration>,
}

/// Numbers about one kind, taken from the most recent finished jobs of the file (at most 10,000
/// of all kinds together).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KindStats {
    /// Jobs of this kind in the sample.
    pub finished: u64,
    /// Those of them that gave up.
    pub failed: u64,
    /// Finished jobs a minute, over the time that the sample of this kind spans.
    pub per_minute: f64,
    /// From `run_at` to the start of the last attempt.
    pub wait: Percentiles,
    /// From the start of the last attempt to its end.
    pub run: Percentiles,
}

/// Three points of a distribution, by the nearest-rank method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: Duration,
    /// 95 % are at most this.
    pub p95: Duration,
    /// 99 % are at most this.
    pub p99: Duration,
}

impl Percentiles {
    /// Nearest rank: the smallest value such that at least p of all values are not larger.
    pub(crate) fn of(mut values: Vec<Duration>) -> Percentiles {
        if values.is_empty() {
            return Percentiles::default();
        }
        values.sort_unstable();
        let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Percentiles { p50: at(50), p95: at(95), p99: at(99) }
    }
}

/// What is ready of one queue and kind, behind no closed gate and not yet claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// The queue.
    pub queue: String,
    /// The kind.
    pub kind: String,
    /// How many jobs, at least 1.
    pub ready: u64,
    /// How long the one that has been ready longest has waited since its `run_at`.
    pub oldest: Duration,
    /// Whether they are paused: everything is, or the queue, or the kind.
    pub paused: bool,
}

/// Jobs of one kind that failed in one way: [`Jobs::failures`](crate::Jobs::failures).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FailureGroup {
    /// The kind.
    pub kind: String,
    /// What their errors have in common: the first line with numbers as `#` and what stands between
    /// quotation marks as `…`. Empty in a group that takes what was too different to be told apart.
    pub error: String,
    /// The first line of the newest one's error.
    pub example: String,
    /// How many jobs.
    pub count: u64,
    /// When the first of them failed.
    #[serde(with = "time::serde::rfc3339")]
    pub first: OffsetDateTime,
    /// When the last of them failed.
    #[serde(with = "time::serde::rfc3339")]
    pub last: OffsetDateTime,
    /// The jobs with the highest ids, at most 5, by falling id.
    pub newest: Vec<JobId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let ms = Duration::from_millis;
        let found = Percentiles::of((1..=100).rev().map(ms).collect());
        assert_eq!((found.p50, found.p95, found.p99), (ms(50), ms(95), ms(99)));
        let one = Percentiles::of(vec![ms(7)]);
        assert_eq!((one.p50, one.p99), (ms(7), ms(7)));
    }
}
