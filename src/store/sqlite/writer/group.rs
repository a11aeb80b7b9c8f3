//! What is posted to the writer, and what it records in one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::store::tray::{Place, Started, Tray};
use crate::store::{
    ClaimRef, Claimed, Control, Controlled, Emptiness, Ending, Finish, Finished, InstanceId,
    Joined, Joining, Note, PoolId, PoolSpec, Save, Taken, Told, Work, WorkerMail,
};
use crate::unique::Enqueued;

/// What can be posted to the writer.
pub(in crate::store::sqlite) enum Mail {
    Work(Box<Work>),
    Insert(Operation<Vec<NewRow>, Vec<Enqueued>>),
    Control(Operation<Control, Controlled>),
    Join(Operation<Joining, Joined>),
    Leave(Operation<InstanceId, Vec<JobId>>),
    Save(Operation<Box<Save>, ()>),
    Note(Note),
    OpenPool(PoolId, PoolSpec, Arc<Tray>),
    ClosePool(PoolId),
    /// Answer all parked claims of a pool with `Nothing`, and later ones of an earlier epoch.
    Unpark(PoolId, u64),
    /// Tell when nothing is ready, due or running for these pools.
    WhenEmpty(Emptiness),
    /// Come to the trays.
    Call,
    /// Something may have changed: the clock was turned, another connection may have committed.
    Look,
    /// A connection of the app may have committed; others must learn of it, too.
    LookAndRing,
    /// Another process has rung.
    Rung,
    /// Another thread of legwork has panicked: nothing is acknowledged any more.
    Panicked,
    Stop,
}

/// Something to do, until when it must have begun, and where the answer goes.
pub(in crate::store::sqlite) struct Operation<T, A> {
    pub(in crate::store::sqlite) what: T,
    pub(in crate::store::sqlite) posted: Instant,
    /// `None`: it waits as long as it takes.
    pub(in crate::store::sqlite) deadline: Option<Instant>,
    pub(in crate::store::sqlite) answer: Sender<Result<A>>,
}

pub(super) struct FinishOperation {
    pub(super) finish: Finish,
    pub(super) told: Option<Arc<dyn Told>>,
    /// Who waits for the answer.
    pub(super) to: Option<Sender<WorkerMail>>,
}

impl FinishOperation {
    pub(super) fn new(ending: Ending, to: Option<Sender<WorkerMail>>) -> FinishOperation {
        FinishOperation { finish: ending.finish, told: ending.told, to }
    }
}

pub(super) struct Parked {
    pub(super) to: Sender<WorkerMail>,
    /// Answer with `Nothing` instead of parking it.
    pub(super) at_once: bool,
}

/// What is recorded in one transaction.
#[derive(Default)]
pub(super) struct Group {
    pub(super) finishes: Vec<FinishOperation>,
    pub(super) inserts: Vec<Operation<Vec<NewRow>, Vec<Enqueued>>>,
    pub(super) controls: Vec<Operation<Control, Controlled>>,
    pub(super) joins: Vec<Operation<Joining, Joined>>,
    pub(super) leaves: Vec<Operation<InstanceId, Vec<JobId>>>,
    pub(super) saves: Vec<Operation<Box<Save>, ()>>,
    pub(super) notes: Vec<Note>,
    /// Starts of jobs that were claimed ahead.
    pub(super) starts: Vec<(PoolId, Vec<Started>)>,
    /// Rows in `inserts` and children, to bound the transaction.
    pub(super) rows: usize,
    /// Another connection may have committed: take the lock even if there is nothing to write.
    pub(super) look: bool,
    /// Others must look, too, once this group is recorded.
    pub(super) ring: bool,
    /// Other instances may be dead.
    pub(super) rescue: bool,
}

impl Group {
    pub(super) fn operations(&self) -> usize {
        self.finishes.len()
            + self.inserts.len()
            + self.controls.len()
            + self.joins.len()
            + self.leaves.len()
            + self.saves.len()
            + self.notes.len()
            + self.starts.len()
    }

    pub(super) fn add(&mut self, finish: FinishOperation) {
        self.rows += finish.finish.children.len();
        self.finishes.push(finish);
    }

    /// Drops operations that have waited for the lock past their deadline, unapplied.
    pub(super) fn drop_expired(&mut self, now: Instant) {
        fn keep<T, A>(operations: &mut Vec<Operation<T, A>>, now: Instant) {
            operations.retain(|operation| {
                let expired = operation.deadline.is_some_and(|deadline| now >= deadline);
                if expired {
                    let waited = now - operation.posted;
                    let _ = operation.answer.try_send(Err(Error::Busy { waited }));
                }
                !expired
            });
        }
        keep(&mut self.inserts, now);
        keep(&mut self.controls, now);
        keep(&mut self.joins, now);
        keep(&mut self.saves, now);
        // Whoever leaves does not wait any longer either, but leaves all the same: its row stands for
        // a process that lives.
        for leave in &mut self.leaves {
            if leave.deadline.is_some_and(|deadline| now >= deadline) {
                leave.deadline = None;
                let _ = leave.answer.try_send(Err(Error::Busy { waited: now - leave.posted }));
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let inserts = self.inserts.iter().filter_map(|operation| operation.deadline);
        let controls = self.controls.iter().filter_map(|operation| operation.deadline);
        let joins = self.joins.iter().filter_map(|operation| operation.deadline);
        let leaves = self.leaves.iter().filter_map(|operation| operation.deadline);
        let saves = self.saves.iter().filter_map(|operation| operation.deadline);
        inserts.chain(controls).chain(joins).chain(leaves).chain(saves).min()
    }

    /// Takes another group's operations in, behind its own.
    pub(super) fn absorb(&mut self, other: Group) {
        self.finishes.extend(other.finishes);
        self.inserts.extend(other.inserts);
        self.controls.extend(other.controls);
        self.joins.extend(other.joins);
        self.leaves.extend(other.leaves);
        self.saves.extend(other.saves);
        self.notes.extend(other.notes);
        self.rows += other.rows;
        self.look |= other.look;
        self.ring |= other.ring;
        self.rescue |= other.rescue;
    }

    /// The group split into its operations, in the order in which they are applied: after its finish
    /// an attempt's notes would find no claim. Finishes come before whatever makes the file grow.
    pub(super) fn split(self) -> impl Iterator<Item = Group> {
        let one = Group::default;
        let finishes =
            self.finishes.into_iter().map(move |op| Group { finishes: vec![op], ..one() });
        let inserts = self.inserts.into_iter().map(move |op| Group { inserts: vec![op], ..one() });
        let controls =
            self.controls.into_iter().map(move |op| Group { controls: vec![op], ..one() });
        let joins = self.joins.into_iter().map(move |op| Group { joins: vec![op], ..one() });
        let leaves = self.leaves.into_iter().map(move |op| Group { leaves: vec![op], ..one() });
        let saves = self.saves.into_iter().map(move |op| Group { saves: vec![op], ..one() });
        let notes = self.notes.into_iter().map(move |op| Group { notes: vec![op], ..one() });
        // Starts are collected again until they are known.
        let work = notes.chain(saves).chain(finishes).chain(inserts).chain(controls);
        work.chain(leaves).chain(joins)
    }
}

/// The answers of a group, sent after its commit; in the order of its operations.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) finishes: Vec<Result<Finished>>,
    pub(super) inserts: Vec<Result<Vec<Enqueued>>>,
    pub(super) controls: Vec<Result<Controlled>>,
    pub(super) joins: Vec<Result<Joined>>,
    pub(super) leaves: Vec<Result<Vec<JobId>>>,
    pub(super) saves: Vec<Result<()>>,
    pub(super) claims: Vec<(PoolId, Parked, Claimed)>,
    /// Jobs for the trays.
    pub(super) ahead: Vec<(PoolId, Vec<(Place, Claimed)>)>,
    /// Claims that were taken back.
    pub(super) unclaimed: Vec<ClaimRef>,
    pub(super) taken: Taken,
    /// Claims of running jobs that others have asked to stop.
    pub(super) asked: Vec<ClaimRef>,
    /// Jobs that had not started when others asked them to stop, or in their time.
    pub(super) cancelled: Vec<JobId>,
    /// Others have something to look at.
    pub(super) ring: bool,
    /// It was all that there was to do, claims included.
    pub(super) whole: bool,
}

impl Answers {
    pub(super) fn put_ahead(&mut self, pool: PoolId, place: Place, claimed: Claimed) {
        match self.ahead.iter_mut().find(|(of, _)| *of == pool) {
            Some((_, jobs)) => jobs.push((place, claimed)),
            None => self.ahead.push((pool, vec![(place, claimed)])),
        }
    }
}

/// How a transaction came to nothing.
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) at_commit: bool,
    /// What it had claimed.
    pub(super) claims: Vec<ClaimRef>,
}

/// How long one caller's operation may wait for the lock.
pub(in crate::store::sqlite) fn deadline(busy_timeout: Duration) -> (Instant, Option<Instant>) {
    let now = Instant::now();
    (now, now.checked_add(busy_timeout))
}
