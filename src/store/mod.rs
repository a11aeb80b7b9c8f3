//! The store: the file, and the narrow set of verbs by which the rest of legwork uses it.
//!
//! It keeps kinds and JSON and never sees a job's type. Writes are posted to one writer thread
//! (see [`sqlite::writer`]) and answered after their commit; reads go to a pool of read-only
//! connections.

#[cfg(feature = "cron")]
pub(crate) mod cron;
mod orders;
#[cfg(test)]
mod protocol_tests;
mod sqlite;
pub(crate) mod tray;
mod waiters;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::clock::{Clock, Micros, Random};
use crate::error::{Error, Result};
use crate::flow::FlowState;
use crate::id::{FlowId, JobId};
use crate::kinds::KindOptions;
use crate::limit::Limits;
use crate::new_job::{NewRow, Retention};
use crate::record::{LogLine, PoolRecord, Progress};
use crate::rules::queues::Queues;
use crate::rules::steps::Named;
use crate::state::State;
use crate::unique::Enqueued;

pub(crate) use orders::{
    ClonedJob, Control, Controlled, Import, ImportDone, ImportMark, Upkeep, Upkept,
};
pub use sqlite::SqliteInfo;
pub(crate) use sqlite::{
    Ear, Examined, Held, InstanceLock, Mouth, Said, Store, app_commit_error, app_error, examine,
    schema,
};

/// What a group of writes must survive before it is acknowledged.
///
/// | | kill -9 | power cut |
/// |---|---|---|
/// | `Strict` | everything | everything acknowledged, finishes included |
/// | `Synced` (default) | everything | every enqueue, control action and step; a job that had just finished may run again |
/// | `Relaxed` | everything | the last moments may be lost; the file stays sound |
///
/// The [durability page](crate::guide::durability) says what is synced when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Every group is synced, finishes too.
    Strict,
    /// Groups with an enqueue, a control action or the result of a step are synced; claims, progress and finishes alone
    /// are not.
    #[default]
    Synced,
    /// Nothing is synced before its acknowledgement.
    Relaxed,
}

/// How a file is opened; the values of [`JobsBuilder`](crate::JobsBuilder). All handles of a process
/// share them, save `busy_timeout`, which is that of the first one.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) busy_timeout: Duration,
    /// Whether what is not there is made.
    pub(crate) create: bool,
    pub(crate) allow_network_fs: bool,
    pub(crate) retention: Retention,
    pub(crate) history_rows: u64,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    /// How often to look for what other programs have written with plain SQL; `None`: never.
    pub(crate) sweep: Option<Duration>,
    /// Whether the last connection that closes empties the WAL and removes it.
    pub(crate) checkpoint_on_close: bool,
    pub(crate) observer: Arc<dyn Fn(Notice) + Send + Sync>,
}

/// Asks whether pools have nothing to do.
pub(crate) struct Emptiness {
    pub(crate) instance: InstanceId,
    pub(crate) pools: Vec<PoolId>,
    pub(crate) tell: Sender<bool>,
    pub(crate) answer: EmptyAnswer,
}

/// Which answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EmptyAnswer {
    /// `true`, once it is so.
    Once,
    /// Whether it is so now.
    Now,
    /// Whether nothing could be started now: what waits for room under a limit is nothing.
    NowToStart,
}

/// What the writer has to tell that is nobody's answer.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// Another connection has held the write lock for this long.
    Busy { waited: Duration },
    /// Finishes, or claims, could not be written for want of space or for an I/O error.
    Held { error: String },
    /// Everything can be written again, and what was held is recorded.
    Recovered,
    /// Jobs were taken over from a process that died beside this one.
    Taken(Taken),
    /// Another process has asked a job that runs here to stop.
    Asked(ClaimRef),
    /// Another process has cancelled a job that was claimed here and had not started.
    Cancelled(JobId),
    /// SQLite has found the file damaged.
    Damaged { error: String },
    /// The WAL has grown beyond its bound, and somebody who reads old parts of it keeps it from being
    /// restarted.
    WalPinned { bytes: u64, pinned: Duration },
    /// A kind that no engine here knows has jobs waiting.
    UnknownKind { kind: String },
    /// Cron entries have been changed, here or elsewhere.
    #[cfg(feature = "cron")]
    CronChanged,
    /// The last member of a flow has finished.
    FlowEnded(FlowId, FlowState),
    /// Somebody has begun to listen, or has ended.
    Ears,
    /// The file is gone, and the writer with it.
    Gone { error: String },
}

/// Which instance, in the file's numbering.
pub(crate) type InstanceId = i64;

/// Which pool, in the writer's numbering.
pub(crate) type PoolId = u64;

/// The jobs that the workers of one pool may claim.
#[derive(Clone, Debug)]
pub(crate) struct PoolSpec {
    pub(crate) instance: InstanceId,
    pub(crate) queues: Queues,
    pub(crate) kinds: Arc<HashSet<String>>,
}

/// Who holds a job: a finish counts only with the row's current claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClaimRef {
    pub(crate) id: JobId,
    pub(crate) instance: InstanceId,
    pub(crate) token: i64,
}

/// A lane (a queue, a kind and a gate), in the file's numbering.
pub(crate) type LaneId = i64;

/// A claimed job, with what an attempt needs.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) claim: ClaimRef,
    pub(crate) lane: LaneId,
    pub(crate) priority: i64,
    pub(crate) run_at: Micros,
    pub(crate) kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) args: String,
    pub(crate) options: Option<String>,
    pub(crate) meta: Option<String>,
    /// Its unique key, if it has one.
    pub(crate) unique: Option<Held>,
    pub(crate) limits: Option<Arc<Limits>>,
    /// The flow whose member it is.
    pub(crate) flow: Option<i64>,
    /// The file may have steps of it.
    pub(crate) has_steps: bool,
    pub(crate) attempts: u32,
    pub(crate) started_at: Micros,
    pub(crate) first_started_at: Option<Micros>,
}

/// How an attempt ended, decided by the rules before it is posted.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Complete {
        output: Option<String>,
    },
    Fail {
        error: String,
    },
    Retry {
        run_at: Micros,
        error: String,
    },
    Cancel {
        reason: String,
        error: Option<String>,
    },
    Snooze {
        run_at: Micros,
        /// Nothing was begun: it clears no suspect.
        untried: bool,
    },
    /// `None`: it had not started, and nothing is to be told.
    GiveBack {
        why: Option<String>,
    },
}

/// The end of an attempt, ready to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    pub(crate) claim: ClaimRef,
    pub(crate) verdict: Verdict,
    pub(crate) attempt: u32,
    pub(crate) worker: Arc<str>,
    pub(crate) started_at: Micros,
    pub(crate) ended_at: Micros,
    pub(crate) keep: Option<Retention>,
    pub(crate) progress: Option<Progress>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) children: Vec<NewRow>,
    /// The job's unique key, if it has one.
    pub(crate) unique: Option<Held>,
    pub(crate) limits: Option<Arc<Limits>>,
    /// The flow whose member it is.
    pub(crate) flow: Option<i64>,
    /// The attempt was abandoned: its thread goes on, and what it takes up of limits is not free.
    pub(crate) keeps_slots: bool,
    /// The job may have steps in the file, which go when it completes.
    pub(crate) has_steps: bool,
    /// The job called `finish_in`: if its transaction has committed, the row is gone and that is
    /// the finish; the verdict counts only while the claim still stands.
    pub(crate) settle: bool,
}

impl Finish {
    /// Of a job of which nothing else is known: it said nothing, and its claim is all that it held.
    pub(crate) fn bare(claim: ClaimRef, verdict: Verdict, worker: &str, at: Micros) -> Finish {
        Finish {
            claim,
            verdict,
            attempt: 1,
            worker: Arc::from(worker),
            started_at: at,
            ended_at: at,
            keep: None,
            progress: None,
            logs: Vec::new(),
            children: Vec::new(),
            unique: None,
            limits: None,
            flow: None,
            keeps_slots: false,
            has_steps: false,
            settle: false,
        }
    }

    /// The same end as a visible failure: the file refuses to record it as it is.
    pub(crate) fn refused(&self, why: &Error) -> Finish {
        Finish {
            verdict: Verdict::Fail { error: format!("its end could not be recorded: {why}") },
            progress: None,
            logs: Vec::new(),
            children: Vec::new(),
            ..self.clone()
        }
    }
}

/// A finish on its way to the writer, and who is told what became of it.
#[derive(Clone)]
pub(crate) struct Ending {
    pub(crate) finish: Finish,
    pub(crate) told: Option<Arc<dyn Told>>,
}

/// Is told once what became of a finish, after its commit, in the writer's thread.
pub(crate) trait Told: Send + Sync {
    fn told(&self, finish: &Finish, recorded: &Result<Finished>);
}

/// What became of a finish.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finished {
    /// Recorded; the job is now in this state, and this became of the children.
    Recorded { state: State, children: Vec<Enqueued> },
    /// The job was finished by `finish_in`, in the app's own transaction.
    Settled,
    /// The claim no longer stands; nothing was changed.
    Stale,
}

/// Progress and log lines of a running attempt: written when it suits, never waited for.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) claim: ClaimRef,
    pub(crate) progress: Option<Progress>,
    pub(crate) logs: Vec<LogLine>,
}

/// The result of a step or the position of a cursor, kept for the job's later attempts.
#[derive(Clone, Debug)]
pub(crate) struct Save {
    pub(crate) claim: ClaimRef,
    pub(crate) place: usize,
    pub(crate) named: Named,
    /// The last place inside it.
    pub(crate) last: usize,
    /// Other places that so far have no entry at all.
    pub(crate) names: Vec<(usize, Named)>,
    /// JSON.
    pub(crate) value: String,
    pub(crate) at: Micros,
    /// It must survive a power cut once it is acknowledged.
    pub(crate) synced: bool,
}

/// What a worker hands over and asks for in one go: the end of its last attempt, the next job.
/// Both are answered.
pub(crate) struct Work {
    pub(crate) finish: Option<Ending>,
    pub(crate) claim: Option<ClaimRequest>,
    pub(crate) to: Sender<WorkerMail>,
}

/// A request for one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimRequest {
    pub(crate) pool: PoolId,
    /// Of the pool, when the worker last looked whether it should go on.
    pub(crate) epoch: u64,
    /// Wait with the writer until there is one; otherwise the answer is [`WorkerMail::Nothing`].
    pub(crate) park: bool,
}

/// What a worker gets back: the fate of its finish, and its next job or none. In this order,
/// unless the finish is held or the claim was called off.
pub(crate) enum WorkerMail {
    /// The finish was recorded or refused, and whoever is told has been.
    Finished,
    Claimed(Box<Claimed>),
    /// No job, or the pool's parked claims were called off.
    Nothing,
}

/// An engine that wants to take part.
pub(crate) struct Joining {
    pub(crate) lock: Arc<InstanceLock>,
    /// See [`EngineBuilder::crash_limit`](crate::EngineBuilder::crash_limit).
    pub(crate) crash_limit: u32,
    /// What its jobs' kinds are enqueued with.
    pub(crate) kinds: KindOptions,
    /// For those who look.
    pub(crate) pools: Vec<PoolRecord>,
}

/// What an engine has become, and what was taken over from dead instances.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) instance: InstanceId,
    pub(crate) taken: Taken,
}

/// What was taken over from instances that are gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// Given back, or cancelled if they were to stop.
    pub(crate) rescued: Vec<JobId>,
    pub(crate) quarantined: Vec<Quarantined>,
}

impl Taken {
    /// All jobs that were taken over.
    pub(crate) fn ids(&self) -> impl Iterator<Item = JobId> {
        let quarantined = self.quarantined.iter().map(|job| job.id);
        self.rescued.iter().copied().chain(quarantined)
    }
}

/// A job that has taken too many processes with it.
#[derive(Clone, Debug)]
pub(crate) struct Quarantined {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    /// The deaths counted against it.
    pub(crate) deaths: u32,
    /// As it stands in the history.
    pub(crate) reason: String,
}
