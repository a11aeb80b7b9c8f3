//! Parents, children and flows.

use legwork::{FlowState, State};

use super::{Known, Model};
use crate::model::steps::*;

/// A flow, as its members count in it.
pub struct Flow {
    pending: usize,
    failed: usize,
    cancelled: usize,
    called_back: bool,
}

impl Flow {
    pub fn counts(&self) -> [u64; 3] {
        [self.pending, self.failed, self.cancelled].map(|count| count as u64)
    }

    pub fn state(&self) -> FlowState {
        match (self.pending, self.failed, self.cancelled) {
            (1.., ..) => FlowState::Running,
            (_, 1.., _) => FlowState::Failed,
            (_, _, 1..) => FlowState::Cancelled,
            _ => FlowState::Completed,
        }
    }

    fn count(&mut self, state: State, by: isize) {
        let counter = match state {
            State::Failed => &mut self.failed,
            State::Cancelled => &mut self.cancelled,
            _ => return,
        };
        *counter = counter.strict_add_signed(by);
    }
}

/// A parent, for the child that waits for it.
pub(super) struct Edge {
    pub(super) parent: i64,
    pub(super) anyway: bool,
    pub(super) done: bool,
}

/// How a parent stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Standing {
    Unfinished,
    Finished(State),
    Gone,
}

pub(super) enum Fate {
    Wait,
    Go,
    Cancel,
}

pub(super) fn fate(parent: Standing, anyway: bool) -> Fate {
    match parent {
        Standing::Unfinished => Fate::Wait,
        Standing::Finished(State::Completed) => Fate::Go,
        _ if anyway => Fate::Go,
        _ => Fate::Cancel,
    }
}

impl Model {
    /// Enqueues a flow; its id, and those of its members.
    pub fn enqueue_flow(&mut self, plan: &Plan) -> (i64, Vec<i64>) {
        self.last_id += 1;
        let flow = self.last_id;
        let counts =
            Flow { pending: plan.members.len(), failed: 0, cancelled: 0, called_back: false };
        self.flows.insert(flow, counts);
        let mut members = Vec::new();
        for &(queue, kind) in &plan.members {
            let mut new = New::plain(queue, kind);
            if plan.chained
                && let Some(&parent) = members.last()
            {
                new.after = Some(After { parent: parent as usize, anyway: plan.anyway });
            }
            members.push(self.insert(&new, Some(flow)).unwrap());
        }
        if members.is_empty() {
            self.call_back(flow);
        }
        (flow, members)
    }

    pub(super) fn standing(&self, parent: i64) -> Standing {
        match self.jobs.get(&parent) {
            None => Standing::Gone,
            Some(job) if job.state.is_finished() => Standing::Finished(job.state),
            Some(_) => Standing::Unfinished,
        }
    }

    /// Lets children hear how their parents stand.
    pub fn settle(&mut self) {
        while let Some(parent) = self.unsettled.pop_first() {
            let stands = self.standing(parent);
            let waits = |job: &Known| job.parents.iter().any(|it| it.parent == parent && !it.done);
            let children: Vec<i64> =
                self.jobs.iter().filter(|(_, job)| waits(job)).map(|(&id, _)| id).collect();
            for child in children {
                self.tell_child(child, parent, stands);
            }
            if stands == Standing::Gone {
                self.forget_parent(parent);
            }
        }
    }

    pub(super) fn forget_parent(&mut self, parent: i64) {
        self.jobs.values_mut().for_each(|job| job.parents.retain(|edge| edge.parent != parent));
    }

    fn tell_child(&mut self, child: i64, parent: i64, stands: Standing) {
        let now = self.now;
        let job = self.jobs.get_mut(&child).unwrap();
        let edge = job.parents.iter_mut().find(|edge| edge.parent == parent).unwrap();
        match fate(stands, edge.anyway) {
            Fate::Wait => self.come_back(child, parent),
            Fate::Go => {
                edge.done = true;
                if !job.state.is_finished() && job.parents_left() == 0 {
                    job.state = if job.run_at > now { State::Scheduled } else { State::Ready };
                }
            }
            Fate::Cancel if !job.state.is_finished() => self.end_waiting(child, Some(parent)),
            Fate::Cancel => {
                if stands == Standing::Gone && job.cause.is_some() {
                    job.cause = Some(parent);
                }
            }
        }
    }

    /// The parent for which a job waits in vain.
    pub(super) fn waits_in_vain_for(&self, child: i64) -> Option<i64> {
        let in_vain = |edge: &&Edge| match self.standing(edge.parent) {
            Standing::Finished(State::Failed | State::Cancelled) | Standing::Gone => {
                !edge.done && !edge.anyway
            }
            _ => false,
        };
        self.jobs[&child].parents.iter().find(in_vain).map(|edge| edge.parent)
    }

    fn come_back(&mut self, child: i64, parent: i64) {
        let job = &self.jobs[&child];
        if job.state != State::Cancelled || job.cause != Some(parent) {
            return;
        }
        if let Some(other) = self.waits_in_vain_for(child) {
            self.jobs.get_mut(&child).unwrap().cause = Some(other);
            return;
        }
        if self.revive(child).is_ok() {
            self.run_again(child, State::Blocked);
        }
    }

    /// A finished job is to run again.
    pub(super) fn run_again(&mut self, id: i64, state: State) {
        let job = self.jobs.get_mut(&id).unwrap();
        if let Some(flow) = job.flow {
            let flow = self.flows.get_mut(&flow).unwrap();
            flow.pending += 1;
            flow.count(job.state, -1);
        }
        if job.state == State::Completed {
            job.steps = 0;
        }
        (job.state, job.attempts, job.run_at) = (state, 0, self.now);
        (job.expires_at, job.cause, job.told_to_stop) = (None, None, false);
        self.unsettled.insert(id);
    }

    /// A job that waits ends.
    pub(super) fn end_waiting(&mut self, id: i64, cause: Option<i64>) {
        let job = self.jobs.get_mut(&id).unwrap();
        let (key, never_started) = (job.key, job.attempts == 0);
        (job.state, job.cause) = (State::Cancelled, cause);
        self.free(id, key, never_started);
        let flow = self.jobs[&id].flow;
        self.ended(id, flow, State::Cancelled);
    }

    pub(super) fn ended(&mut self, id: i64, flow: Option<i64>, state: State) {
        self.unsettled.insert(id);
        let Some(flow) = flow else { return };
        let counts = self.flows.get_mut(&flow).unwrap();
        counts.pending -= 1;
        counts.count(state, 1);
        if counts.pending == 0 {
            self.call_back(flow);
        }
    }

    fn call_back(&mut self, flow: i64) {
        let called = &mut self.flows.get_mut(&flow).unwrap().called_back;
        if !std::mem::replace(called, true) {
            self.insert(&New::plain(0, Kind::Copy), None).unwrap();
        }
    }
}
