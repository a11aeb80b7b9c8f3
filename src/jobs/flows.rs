//! Flows: enqueueing them, looking at them, waiting for them.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::flow::{EnqueuedFlow, FlowPage, FlowRecord, FlowRow, FlowState, NewFlow};
use crate::id::{FlowId, JobId};
use crate::new_job::{NewJob, NewRow};
use crate::record::{Changed, Filter, JobRecord};
use crate::state::State;
use crate::store::Control;

use super::Jobs;
use super::look::LOOK_EVERY;

impl Jobs {
    /// Enqueues a [`Chain`](crate::Chain), a [`Batch`](crate::Batch) or a
    /// [`Workflow`](crate::Workflow) with all its members, in one transaction.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob, Workflow};
    /// # use serde_json::json;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let mut order = Workflow::new("order");
    /// let charge = order.add(NewJob::of_kind("charge", json!({})), []);
    /// let receipt = order.add(NewJob::of_kind("receipt", json!({})), [charge]);
    /// let order = jobs.enqueue_flow(order)?;
    /// println!("flow {}: the receipt is job {:?}", order.id, order.job(receipt));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`enqueue`](Jobs::enqueue), for any member or callback. A member is itself: if its unique key is
    /// taken the flow is refused with [`Error::NotUnique`], whatever its
    /// [`Conflict`](crate::Conflict).
    pub fn enqueue_flow(&self, flow: impl Into<NewFlow>) -> Result<EnqueuedFlow> {
        self.refuse_inside_transaction("enqueue_flow")?;
        let flow = self.flow_row(flow.into())?;
        let names: Vec<(String, String)> =
            flow.members.iter().map(|(row, _)| (row.kind.clone(), row.queue.clone())).collect();
        let done = self.store().control(Control::EnqueueFlow(Box::new(flow)))?;
        let flow = done.flow.ok_or(Error::Poisoned)?;
        log::debug!(flow = flow.id.0; "legwork: enqueued a flow of {}", flow.members.len());
        for (&id, (kind, queue)) in flow.members.iter().zip(names) {
            self.tell_enqueued(id, kind, queue);
        }
        Ok(flow)
    }

    /// The same on the app's own connection, in its open transaction: see
    /// [`enqueue_in`](Jobs::enqueue_in).
    ///
    /// # Errors
    /// As [`enqueue_in`](Jobs::enqueue_in) and [`enqueue_flow`](Jobs::enqueue_flow).
    pub fn enqueue_flow_in(
        &self,
        conn: &Connection,
        flow: impl Into<NewFlow>,
    ) -> Result<EnqueuedFlow> {
        let flow = self.flow_row(flow.into())?;
        self.store().insert_flow_in(conn, &flow)
    }

    /// Adds members to a flow that has not ended; their ids come in the order of the jobs. They may wait
    /// for others with [`NewJob::after`]. From within a member: see
    /// [`Context::enqueue_member`](crate::Context::enqueue_member).
    ///
    /// # Errors
    /// [`Error::NoFlow`], [`Error::FlowEnded`]; as [`enqueue_flow`](Jobs::enqueue_flow).
    pub fn add_to_flow<J: Into<NewJob>>(
        &self,
        flow: FlowId,
        jobs: impl IntoIterator<Item = J>,
    ) -> Result<Vec<JobId>> {
        self.refuse_inside_transaction("add_to_flow")?;
        let rows = jobs
            .into_iter()
            .map(|job| self.prepare_member(flow, job.into()))
            .collect::<Result<Vec<_>>>()?;
        Ok(self.insert(rows)?.iter().map(|done| done.id()).collect())
    }

    fn flow_row(&self, flow: NewFlow) -> Result<FlowRow> {
        let now = self.clock().micros();
        flow.into_row(|job| self.looked_at(job), |job| job.into_row(now, self.0.max_args))
    }

    pub(crate) fn prepare_member(&self, flow: FlowId, job: NewJob) -> Result<NewRow> {
        let mut row = self.prepare(job)?;
        row.join(flow);
        Ok(row)
    }

    /// One flow.
    ///
    /// # Errors
    /// [`Error::NoFlow`].
    pub fn flow(&self, id: FlowId) -> Result<FlowRecord> {
        self.store().flow(id)?.ok_or(Error::NoFlow(id))
    }

    /// A page of the flows, newest first: at most `limit` (1 to 10,000) with ids below `before`. The
    /// members of one are listed by [`Filter::flow`].
    ///
    /// # Errors
    /// Those of reading.
    pub fn flows(&self, before: Option<FlowId>, limit: usize) -> Result<FlowPage> {
        self.store().flows(before, limit)
    }

    /// Cancels all members of a flow that have not finished. Its callbacks for a failure and for any
    /// end are enqueued with the last of them.
    ///
    /// # Errors
    /// [`Error::NoFlow`].
    pub fn cancel_flow(&self, id: FlowId) -> Result<Changed> {
        self.flow(id)?;
        self.cancel(Filter::new().flow(id))
    }

    /// Runs the members of a flow again that have failed. Those come back that were cancelled for it; those that
    /// have expired, were discarded, or that somebody has cancelled do not.
    ///
    /// # Errors
    /// [`Error::NoFlow`].
    pub fn retry_flow(&self, id: FlowId) -> Result<Changed> {
        self.flow(id)?;
        self.retry(Filter::new().flow(id).state(State::Failed))
    }

    /// The jobs that this one waits for, or has waited for, as far as they are kept; by rising id.
    ///
    /// # Errors
    /// Those of reading.
    pub fn parents(&self, id: JobId) -> Result<Vec<JobRecord>> {
        self.store().parents(id)
    }

    /// The jobs that wait for this one, or have waited for it; by rising id.
    ///
    /// # Errors
    /// Those of reading.
    pub fn children(&self, id: JobId) -> Result<Vec<JobId>> {
        self.store().children(id)
    }

    /// Waits until a flow has ended, wherever it runs, and returns it. As
    /// [`wait`](Jobs::wait) it does not poll in a process that alone runs the jobs of this file.
    ///
    /// # Errors
    /// [`Error::FlowTimeout`] if it has not ended within `timeout` of real time; [`Error::NoFlow`],
    /// also if it was pruned meanwhile; [`Error::Poisoned`].
    pub fn wait_flow(&self, id: FlowId, timeout: Duration) -> Result<FlowRecord> {
        self.store().check_process()?;
        let started = Instant::now();
        loop {
            let watch = self.store().watch_flow(id);
            let seen = self.flow(id).and_then(|flow| {
                // After the watch has begun: whoever joins later rings, which ends it.
                Ok((flow, self.store().instance_numbers()?))
            });
            let instances = match seen {
                Ok((flow, instances)) if flow.state == FlowState::Running => instances,
                done => {
                    self.store().leave_watch(watch);
                    return done.map(|(flow, _)| flow);
                }
            };
            let left = timeout.saturating_sub(started.elapsed());
            let alone = self.attempts_here().are_ours(&instances);
            let _ = watch.told.recv_timeout(if alone { left } else { left.min(LOOK_EVERY) });
            self.store().leave_watch(watch);
            let waited = started.elapsed();
            if waited >= timeout {
                let flow = self.flow(id)?;
                return match flow.state {
                    FlowState::Running => {
                        Err(Error::FlowTimeout { id, waited, pending: flow.pending })
                    }
                    _ => Ok(flow),
                };
            }
        }
    }
}

/// A flow has ended.
pub(super) fn ended(id: FlowId, state: FlowState) -> Event {
    log::debug!(flow = id.0; "legwork: a flow is {state}");
    Event::FlowEnded { id, state }
}
