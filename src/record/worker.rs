//! The engines that run jobs, and what they run.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Progress;
use crate::clock::micros_of;
use crate::id::JobId;
use crate::rules::queues::Queues;

/// An engine that runs jobs of the file, in this process or another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceRecord {
    /// Its number, never given twice in the file.
    pub id: i64,
    /// Its process, as that process sees its own id; 0 if it cannot be told.
    pub pid: u32,
    /// When the engine was started.
    pub started_at: OffsetDateTime,
    /// Whether its process lives. A dead one stays until an engine takes over what it held.
    pub alive: bool,
    /// Its pools, with as many workers as they were last given.
    pub pools: Vec<PoolRecord>,
    /// The kinds that it runs, former names included, sorted.
    pub kinds: Vec<String>,
}

impl InstanceRecord {
    /// Whether its process lives and a pool with workers serves the queue.
    pub fn serves(&self, queue: &str) -> bool {
        self.alive && self.pools.iter().any(|pool| pool.workers > 0 && pool.serves(queue))
    }

    /// Whether it could run a job of this kind in this queue: it [serves](InstanceRecord::serves) the queue
    /// and knows the kind.
    pub fn runs(&self, kind: &str, queue: &str) -> bool {
        self.serves(queue) && self.kinds.iter().any(|known| known == kind)
    }

    /// How many workers its pools have, whether it lives or not.
    pub fn workers(&self) -> usize {
        self.pools.iter().map(|pool| pool.workers).sum()
    }
}

/// A pool of an engine: some workers that serve some queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolRecord {
    /// Its name.
    pub name: String,
    /// Its queues as they were given to [`Pool`](crate::Pool): names, `*`, prefixes (`mail*`) and
    /// exclusions (`-name`).
    pub queues: Vec<String>,
    /// The weights by which the next queue is drawn, one for each entry of `queues`. Empty: the order is
    /// strict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
    /// How many workers it was last given. Those of a [manual](crate::ManualEngine) engine are none.
    pub workers: usize,
    /// How often it looks for work, if on a cadence. In JSON, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "cadence")]
    pub every: Option<Duration>,
}

impl PoolRecord {
    /// Whether it serves a queue, by its patterns; the number of its workers does not matter.
    pub fn serves(&self, queue: &str) -> bool {
        let list: Vec<_> = self.queues.iter().map(|entry| (entry.clone(), None)).collect();
        Queues::serve(&list, queue)
    }
}

mod cadence {
    use super::{Deserialize, Duration, micros_of};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        every: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match every {
            Some(every) => to.serialize_some(&micros_of(*every)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_micros))
    }
}

/// An engine and what it has in hand: [`Jobs::workers`](crate::Jobs::workers).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerRecord {
    /// The engine and its pools.
    pub instance: InstanceRecord,
    /// What it runs, by rising id.
    pub running: Vec<RunningJob>,
    /// How many jobs it holds: those that it runs, and those that it has claimed ahead and not started.
    pub held: u64,
}

/// A job that is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunningJob {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// The attempt that is under way, from 1.
    pub attempt: u32,
    /// When that started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// What it has reported of its progress.
    pub progress: Option<Progress>,
    /// Whether it was asked to stop.
    pub cancel_requested: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_serves_what_its_patterns_say() {
        let pool = PoolRecord {
            name: "rest".into(),
            queues: vec!["mail*".into(), "*".into(), "-reports".into()],
            weights: vec![3, 1, 1],
            workers: 2,
            every: Some(Duration::from_secs(1)),
        };
        assert!(pool.serves("mail_slow") && pool.serves("x") && !pool.serves("reports"));
        let text = serde_json::to_string(&pool).unwrap();
        assert!(text.contains(r#""every":1000000"#), "{text}");
        assert_eq!(serde_json::from_str::<PoolRecord>(&text).unwrap(), pool);
    }

    #[test]
    fn a_dead_process_and_a_pool_without_workers_serve_nothing() {
        let pool = PoolRecord {
            name: "all".into(),
            queues: vec!["*".into()],
            weights: Vec::new(),
            workers: 1,
            every: None,
        };
        let instance = InstanceRecord {
            id: 1,
            pid: 7,
            started_at: OffsetDateTime::UNIX_EPOCH,
            alive: true,
            pools: vec![pool],
            kinds: vec!["welcome".into()],
        };
        assert!(instance.serves("mail"));
        assert!(instance.runs("welcome", "mail") && !instance.runs("farewell", "mail"));
        assert!(!InstanceRecord { alive: false, ..instance.clone() }.serves("mail"));
        let mut idle = instance;
        idle.pools[0].workers = 0;
        assert!(!idle.serves("mail"));
    }
}
