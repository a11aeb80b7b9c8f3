//! What is asked of the file from outside an attempt, and what comes of it.

use std::sync::Arc;

#[cfg(feature = "cron")]
use super::cron;
use super::{ClaimRef, InstanceId};
use crate::clock::Micros;
use crate::error::Error;
use crate::exported::{ImportRow, Imported, ImportedLines};
use crate::flow::{EnqueuedFlow, FlowRow};
use crate::id::JobId;
use crate::new_job::Edit;
use crate::record::{PoolRecord, Scope};
use crate::state::State;
use crate::upkeep::Ends;

/// A change asked for from outside an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    Retry(Vec<JobId>),
    /// The same, and what is stored of their steps is forgotten.
    RetryAnew(Vec<JobId>),
    Cancel {
        ids: Vec<JobId>,
        reason: String,
    },
    Delete(Vec<JobId>),
    /// Another time from which jobs may run.
    Reschedule(Vec<JobId>, Micros),
    RunNow(Vec<JobId>),
    Edit(Vec<JobId>, Arc<Edit>),
    Clone(Vec<JobId>),
    Pause(Scope),
    Resume(Scope),
    CloseGate(String),
    OpenGate(String),
    /// The pools of an engine, as they are now.
    SetPools(InstanceId, Vec<PoolRecord>),
    EnqueueFlow(Box<FlowRow>),
    Upkeep(Upkeep),
    Import(Box<Import>),
    /// This export is imported to its end.
    EndImport(String),
    #[cfg(feature = "cron")]
    Cron(cron::CronOrder),
}

/// One bite of looking after the file.
#[derive(Clone, Debug)]
pub(crate) enum Upkeep {
    /// Remove what has outlived its retention.
    PruneDue,
    /// Remove these finished jobs, if they still have ended by then.
    PruneJobs(Vec<i64>, Ends),
    /// Remove members of this flow, if it still has ended by then; with the last one the flow.
    PruneFlow(i64, Ends),
    /// Give free pages back.
    GivePagesBack,
}

/// Jobs to be made anew, and which line of which export they reach to.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    pub(crate) jobs: Vec<ImportRow>,
    pub(crate) mark: Option<ImportMark>,
}

/// How far an export has been imported.
#[derive(Clone, Debug)]
pub(crate) struct ImportMark {
    pub(crate) export: String,
    pub(crate) reached: ImportedLines,
    /// How far it has to be imported before; `None`: however far.
    pub(crate) after: Option<ImportedLines>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImportDone {
    pub(crate) imported: Imported,
    /// Old and new ids.
    pub(crate) ids: Vec<(JobId, JobId)>,
}

/// What a bite has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Upkept {
    /// Jobs that were removed.
    pub(crate) removed: u64,
    /// There may be more of it.
    pub(crate) more: bool,
}

/// What a control did.
#[derive(Debug, Default)]
pub(crate) struct Controlled {
    pub(crate) changed: Vec<JobId>,
    /// Jobs it could not be done to: `None` if there is no such job.
    pub(crate) skipped: Vec<(JobId, Option<State>)>,
    /// Jobs that cannot run again, since another one has their key.
    pub(crate) not_unique: Vec<(String, JobId)>,
    /// Jobs that cannot run again, since this parent of theirs has not completed.
    pub(crate) held_by_parent: Vec<(JobId, JobId)>,
    /// Jobs to which it could not be done, and why.
    pub(crate) refused: Vec<(JobId, Error)>,
    /// New jobs, made after others.
    pub(crate) cloned: Vec<ClonedJob>,
    pub(crate) flow: Option<EnqueuedFlow>,
    pub(crate) upkept: Upkept,
    pub(crate) imported: ImportDone,
    /// A gate was closed or opened that was not so before.
    pub(crate) gate_moved: bool,
    /// Running jobs that were marked; whoever holds them must be told.
    pub(crate) asked: Vec<ClaimRef>,
    #[cfg(feature = "cron")]
    pub(crate) cron: cron::CronDone,
}

/// A job that was made after another one.
#[derive(Debug)]
pub(crate) struct ClonedJob {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    pub(crate) queue: String,
}
