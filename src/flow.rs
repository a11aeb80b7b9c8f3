//! Flows: jobs that belong together, and the order in which they run.
//!
//! Chain, batch and workflow are one thing: members, and edges from parents to children.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::id::{FlowId, JobId};
use crate::new_job::{NewJob, NewRow, Retention};
use crate::rules::name;

/// What becomes of a job if one of its parents fails, is cancelled or is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AfterFailure {
    /// It is cancelled, and so are its own children. A retry of the parent brings them back. The
    /// default.
    #[default]
    Cancel,
    /// It runs once all its parents have finished, however.
    Continue,
}

/// Where a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FlowState {
    /// Some members have not finished.
    Running,
    /// All members have completed.
    Completed,
    /// All members have finished, and some have failed.
    Failed,
    /// All members have finished, none has failed, and some were cancelled.
    Cancelled,
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FlowState::Running => "running",
            FlowState::Completed => "completed",
            FlowState::Failed => "failed",
            FlowState::Cancelled => "cancelled",
        })
    }
}

/// After which end of a flow a callback is enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Upon {
    Success,
    Failure,
    Finish,
}

impl Upon {
    pub(crate) const ALL: [Upon; 3] = [Upon::Success, Upon::Failure, Upon::Finish];

    /// As it stands in the file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Upon::Success => "success",
            Upon::Failure => "failure",
            Upon::Finish => "finish",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Upon> {
        Upon::ALL.into_iter().find(|upon| upon.word() == word)
    }
}

/// A member of a [`Workflow`] that is being put together, to name as a parent of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    of: u64,
    at: usize,
}

/// What is common to all sorts of flows.
#[derive(Clone, Debug)]
struct Plan {
    sort: &'static str,
    name: String,
    properties: Map<String, Value>,
    after_failure: AfterFailure,
    keep: Option<Retention>,
    members: Vec<(NewJob, Vec<usize>)>,
    callbacks: BTreeMap<Upon, NewJob>,
    /// A parent was named that is no member.
    stranger: bool,
}

impl Plan {
    fn new(sort: &'static str, name: String) -> Plan {
        Plan {
            sort,
            name,
            properties: Map::new(),
            after_failure: AfterFailure::default(),
            keep: None,
            members: Vec::new(),
            callbacks: BTreeMap::new(),
            stranger: false,
        }
    }
}

/// A flow ready to be enqueued, made of a [`Chain`], a [`Batch`] or a [`Workflow`].
#[derive(Clone, Debug)]
pub struct NewFlow(Plan);

/// What all sorts of flows can be told.
macro_rules! flow_options {
    ($flow:ident) => {
        impl $flow {
            /// A free key and value, kept and shown with the flow; all of them at most 64 KiB of JSON.
            pub fn property(mut self, key: impl Into<String>, value: impl Into<Value>) -> $flow {
                self.plan.properties.insert(key.into(), value.into());
                self
            }

            /// What becomes of members whose parents fail, unless they say it themselves
            /// ([`NewJob::after_failure`]). Default: they are cancelled.
            pub fn after_failure(mut self, what: AfterFailure) -> $flow {
                self.plan.after_failure = what;
                self
            }

            /// How long the flow and its members are kept once it has ended, instead of the
            /// handle's retention; by the state of the flow.
            pub fn retention(mut self, keep: Retention) -> $flow {
                self.plan.keep = Some(keep);
                self
            }

            /// A job that is enqueued once, in the transaction in which the last member has
            /// finished, if all have completed. It is no member; [`Context::flow`](crate::Context::flow)
            /// names the flow to it.
            pub fn on_success(mut self, job: impl Into<NewJob>) -> $flow {
                self.plan.callbacks.insert(Upon::Success, job.into());
                self
            }

            /// The same if some have failed or were cancelled.
            pub fn on_failure(mut self, job: impl Into<NewJob>) -> $flow {
                self.plan.callbacks.insert(Upon::Failure, job.into());
                self
            }

            /// The same however they have finished.
            pub fn on_finish(mut self, job: impl Into<NewJob>) -> $flow {
                self.plan.callbacks.insert(Upon::Finish, job.into());
                self
            }
        }

        impl From<$flow> for NewFlow {
            fn from(flow: $flow) -> NewFlow {
                NewFlow(flow.plan)
            }
        }
    };
}

/// Jobs that run one after the other.
///
/// ```
/// # use legwork::{Chain, NewJob};
/// # use serde_json::json;
/// let release = Chain::new("release 7")
///     .then(NewJob::of_kind("build", json!({})))
///     .then(NewJob::of_kind("test", json!({})))
///     .then(NewJob::of_kind("publish", json!({})));
/// ```
#[derive(Clone, Debug)]
pub struct Chain {
    plan: Plan,
}

impl Chain {
    /// An empty chain with a name of 1 to 255 bytes without control characters, not necessarily its
    /// own.
    pub fn new(name: impl Into<String>) -> Chain {
        Chain { plan: Plan::new("chain", name.into()) }
    }

    /// Runs this job after those so far.
    pub fn then(mut self, job: impl Into<NewJob>) -> Chain {
        let parents = self.plan.members.len().checked_sub(1).into_iter().collect();
        self.plan.members.push((job.into(), parents));
        self
    }
}

flow_options!(Chain);

/// Jobs that run side by side, and callbacks for when all have finished.
///
/// ```
/// # use legwork::{Batch, NewJob};
/// # use serde_json::json;
/// let import = Batch::new("import")
///     .add_all((0..100).map(|part| NewJob::of_kind("import_part", json!({ "part": part }))))
///     .on_success(NewJob::of_kind("publish", json!({})))
///     .on_failure(NewJob::of_kind("tell_the_owner", json!({})));
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    plan: Plan,
}

impl Batch {
    /// An empty batch with a name of 1 to 255 bytes without control characters, not necessarily its
    /// own. One that stays empty has completed as soon as it is enqueued.
    pub fn new(name: impl Into<String>) -> Batch {
        Batch { plan: Plan::new("batch", name.into()) }
    }

    /// Adds a member. Members add others with [`Context::enqueue_member`](crate::Context::enqueue_member).
    // Named as in the sister types and in other libraries.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, job: impl Into<NewJob>) -> Batch {
        self.plan.members.push((job.into(), Vec::new()));
        self
    }

    /// Adds members.
    pub fn add_all<J: Into<NewJob>>(mut self, jobs: impl IntoIterator<Item = J>) -> Batch {
        self.plan.members.extend(jobs.into_iter().map(|job| (job.into(), Vec::new())));
        self
    }
}

flow_options!(Batch);

/// Jobs that run as soon as the ones that they name have completed.
///
/// A member can only name members that exist already, so there are no cycles.
///
/// ```
/// # use legwork::{NewJob, Workflow};
/// # use serde_json::json;
/// # let job = |kind: &str| NewJob::of_kind(kind, json!({}));
/// let mut order = Workflow::new("order").property("customer", 7);
/// let charge = order.add(job("charge"), []);
/// let receipt = order.add(job("receipt"), [charge]);
/// let pack = order.add(job("pack"), [charge]);
/// order.add(job("ship"), [receipt, pack]);
/// ```
#[derive(Clone, Debug)]
pub struct Workflow {
    plan: Plan,
    number: u64,
}

impl Workflow {
    /// An empty workflow with a name of 1 to 255 bytes without control characters, not necessarily
    /// its own.
    pub fn new(name: impl Into<String>) -> Workflow {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Workflow {
            plan: Plan::new("workflow", name.into()),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Adds a member that starts once all of `parents` have completed. A parent of another workflow
    /// makes [`Jobs::enqueue_flow`](crate::Jobs::enqueue_flow) refuse this one.
    pub fn add(
        &mut self,
        job: impl Into<NewJob>,
        parents: impl IntoIterator<Item = Member>,
    ) -> Member {
        let at = self.plan.members.len();
        let mut named = Vec::new();
        for parent in parents {
            // A clone of this workflow has its number and perhaps more members.
            self.plan.stranger |= parent.of != self.number || parent.at >= at;
            named.push(parent.at);
        }
        named.sort_unstable();
        named.dedup();
        self.plan.members.push((job.into(), named));
        Member { of: self.number, at }
    }
}

flow_options!(Workflow);

/// A flow that was enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnqueuedFlow {
    /// Its id.
    pub id: FlowId,
    /// The ids of its members, in the order in which they were added.
    pub members: Vec<JobId>,
}

impl EnqueuedFlow {
    /// The job that a member has become; `None` if it is of another workflow.
    pub fn job(&self, member: Member) -> Option<JobId> {
        self.members.get(member.at).copied()
    }
}

/// A flow as it stands in the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FlowRecord {
    /// Its id.
    pub id: FlowId,
    /// `chain`, `batch` or `workflow`.
    pub sort: String,
    /// Its name.
    pub name: String,
    /// Its free keys and values.
    pub properties: Map<String, Value>,
    /// Where it stands.
    pub state: FlowState,
    /// When it was enqueued.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its last member finished.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// How many members it has.
    pub members: u64,
    /// Those that have not finished.
    pub pending: u64,
    /// Those that have completed.
    pub completed: u64,
    /// Those that have failed.
    pub failed: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
}

/// One page of a listing of flows, newest first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FlowPage {
    /// The flows, by falling id.
    pub flows: Vec<FlowRecord>,
    /// Pass this as `before` to get the next page; `None` on the last one.
    pub next: Option<FlowId>,
}

/// A checked flow as the store takes it.
#[derive(Clone, Debug)]
pub(crate) struct FlowRow {
    pub(crate) sort: &'static str,
    pub(crate) name: String,
    /// JSON.
    pub(crate) properties: String,
    pub(crate) keep: Option<Retention>,
    /// Each with the places of its parents among those before it.
    pub(crate) members: Vec<(NewRow, Vec<usize>)>,
    /// As JSON of a [`NewJob`].
    pub(crate) callbacks: Vec<(Upon, String)>,
}

/// The most JSON that the properties of a flow may have.
const MOST_PROPERTIES: usize = 64 * 1024;

impl NewFlow {
    /// Checks everything. `look` is the middleware, `prepare` makes a row of a job.
    pub(crate) fn into_row(
        self,
        look: impl Fn(NewJob) -> Result<NewJob>,
        prepare: impl Fn(NewJob) -> Result<NewRow>,
    ) -> Result<FlowRow> {
        let plan = self.0;
        name::check("flow name", &plan.name)?;
        if plan.stranger {
            return Err(Error::invalid(
                "workflow",
                "a member names a parent that is not of this workflow",
            ));
        }
        for key in plan.properties.keys() {
            name::check("property", key)?;
        }
        let properties = Value::Object(plan.properties).to_string();
        if properties.len() > MOST_PROPERTIES {
            let why = format!("they have {} bytes, at most {MOST_PROPERTIES}", properties.len());
            return Err(Error::invalid("properties", why));
        }
        let mut members = Vec::with_capacity(plan.members.len());
        for (job, parents) in plan.members {
            let row = prepare(look(job.or_after_failure(plan.after_failure))?)?;
            members.push((row, parents));
        }
        let mut callbacks = Vec::new();
        for (upon, job) in plan.callbacks {
            // What is wrong with it is told now, and not when nobody is there.
            let job = look(job)?;
            if !prepare(job.clone())?.parents.is_empty() {
                let why = "a callback has no parents: by the time it is enqueued they may be gone";
                return Err(Error::invalid("parents", why));
            }
            let json = serde_json::to_string(&job)
                .map_err(|source| Error::Json { what: "callback", source })?;
            callbacks.push((upon, json));
        }
        let (sort, name, keep) = (plan.sort, plan.name, plan.keep);
        Ok(FlowRow { sort, name, properties, keep, members, callbacks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(flow: impl Into<NewFlow>) -> Result<FlowRow> {
        flow.into().into_row(Ok, |job| job.into_row(1_000, 3_000))
    }

    fn job() -> NewJob {
        NewJob::of_kind("k", Value::Null)
    }

    #[test]
    fn bad_input_is_named() {
        let mut other = Workflow::new("other");
        let stranger = other.add(job(), []);
        let mut order = Workflow::new("order");
        order.add(job(), [stranger]);
        for (bad, what) in [
            (NewFlow::from(Batch::new("")), "flow name"),
            (Batch::new("b").property("", 1).into(), "property"),
            (Batch::new("b").property("k", "x".repeat(70_000)).into(), "properties"),
            (Batch::new("b").add(job().queue("")).into(), "queue name"),
            (Batch::new("b").on_finish(job().queue("")).into(), "queue name"),
            (order.into(), "workflow"),
        ] {
            match row(bad) {
                Err(Error::Invalid { what: named, .. }) => assert_eq!(named, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_chain_is_a_workflow_in_which_each_names_the_one_before() {
        let chain = row(Chain::new("c").then(job()).then(job()).then(job())).unwrap();
        let parents: Vec<_> = chain.members.iter().map(|(_, parents)| parents.clone()).collect();
        assert_eq!(parents, [vec![], vec![0], vec![1]]);
    }

    #[test]
    fn a_member_of_a_longer_copy_is_no_parent() {
        let mut long = Workflow::new("order");
        let first = long.add(job(), []);
        let mut short = long.clone();
        let second = long.add(job(), [first]);
        short.add(job(), [second]);
        assert!(row(short).is_err());
        assert!(row(long).is_ok());
    }
}
