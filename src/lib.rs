//! legwork: a durable background-job queue that lives inside your program.
//!
//! Jobs go into one SQLite file; threads of the same program run them. No server, no polling, no
//! async runtime. An acknowledged job is never lost, an idle engine does nothing at all, and jobs
//! can be enqueued and finished in the app's own transactions.
//!
//! ```
//! use legwork::{Context, Engine, Job, JobResult, Jobs, Outcome};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Serialize, Deserialize)]
//! struct WelcomeEmail { user_id: i64 }
//!
//! impl Job for WelcomeEmail {
//!     const KIND: &'static str = "welcome_email";
//!     type State = ();
//!     fn perform(&self, _: &Context) -> JobResult {
//!         println!("welcome, user {}", self.user_id);
//!         Ok(Outcome::Done)
//!     }
//! }
//!
//! # fn main() -> legwork::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("app.db");
//! let jobs = Jobs::open(path)?;
//! let engine = Engine::builder(&jobs).register::<WelcomeEmail>().start()?;
//! let id = jobs.enqueue(WelcomeEmail { user_id: 7 })?;     // committed when it returns
//! jobs.wait(id, Duration::from_secs(30))?;
//! engine.stop(Duration::from_secs(30))?;
//! # Ok(()) }
//! ```
//!
//! The [`guide`] tells how it works and why.

mod beside;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod context;
#[cfg(feature = "cron")]
mod cron;
mod engine;
mod error;
mod event;
mod exported;
mod failure;
mod finding;
mod flow;
pub mod guide;
mod id;
mod job;
mod jobs;
mod kinds;
mod limit;
mod middleware;
mod new_job;
mod perform;
mod record;
mod rules;
mod spread;
mod state;
mod store;
mod tally;
mod unique;
mod upkeep;

pub use clock::{Clock, Random};
pub use context::{Context, Cursor};
#[cfg(feature = "cron")]
pub use cron::{Cron, CronRecord};
pub use engine::{AtWork, Engine, EngineBuilder, ManualEngine, Pool};
pub use error::{Error, Result};
pub use event::{Event, Events};
pub use exported::{ExportedJob, ExportedKey, Imported, ImportedLines};
pub use failure::{Failure, Interrupt, ResultExt};
pub use finding::{Finding, Report, Severity};
pub use flow::{
    AfterFailure, Batch, Chain, EnqueuedFlow, FlowPage, FlowRecord, FlowState, Member, NewFlow,
    Workflow,
};
pub use id::{FlowId, JobId};
pub use job::{Job, JobResult, Outcome};
pub use jobs::{
    CheckReport, CronTrouble, ImportRun, Jobs, JobsBuilder, KindTrouble, Listener, Told,
};
pub use limit::{Limit, OnBusy};
pub use middleware::{Middleware, Next, Running};
pub use new_job::{DEFAULT_QUEUE, Edit, JobOptions, NewJob, Overdue, Retention};
pub use record::{
    AttemptRecord, Backlog, Changed, Cloned, FailureGroup, Filter, GateRecord, Health,
    InstanceRecord, JobRecord, KindStats, LogLine, OwnOptions, Page, Percentiles, PoolRecord,
    Progress, QueueStats, RunningJob, Scope, Selection, Stats, StepRecord, WorkerRecord,
};
#[cfg(feature = "cron")]
pub use rules::cron::misfire::{Missed, Overlap};
pub use rules::retry::{CustomRetry, Retry};
pub use spread::spread;
pub use state::State;
pub use store::{Durability, SqliteInfo};
pub use tally::Tally;
pub use unique::{Conflict, Enqueued, Unique};
pub use upkeep::{Prune, Schema, Vacuumed};

/// The README's program is compiled as a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeDoctests;
