//! Instances: which processes run jobs of this file, and which of them are dead.
//!
//! A process that runs jobs holds an OS lock on a file of its own in the side directory
//! `<db>-legwork/`. The kernel frees the lock when the process dies, however it dies, and never
//! before: a stopped, sleeping or slow process keeps it. So rescue needs no time-out.
//!
//! A lock file that is missing proves nothing (somebody may have cleaned the directory), so the
//! row in `legwork_instances` carries other evidence: a reboot, a process id that is gone or was
//! given to a process started later, a database file that is a copy.
//!
//! What becomes of the jobs is told in [`rescue`](super::rescue).

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::book::Book;
use super::errors::storing;
use super::lock_file::{Identity, InstanceLock, is_dead, proof_of_death};
use super::query::in_snapshot;
use super::rescue::Why;
use crate::beside;
use crate::clock::{Micros, from_micros};
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::Retention;
use crate::record::{InstanceRecord, PoolRecord, Progress, RunningJob, WorkerRecord};
use crate::store::{ClaimRef, InstanceId, Joined, Joining, Taken};

const ADD: &str = "
INSERT INTO legwork_instances
       (id, lock_file, lock_inode, db_path, db_inode, boot_id, pid, pid_start, pid_space, started_at,
        pools, kinds)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
pub(super) const ALL: &str = "
SELECT id, lock_file, lock_inode, db_path, db_inode, boot_id, pid, pid_start, pid_space, started_at
  FROM legwork_instances";
const NUMBERS: &str = "SELECT id FROM legwork_instances";
const REMOVE: &str = "DELETE FROM legwork_instances WHERE id = ?1";
/// The same, with what only those who look want to know.
const RECORDS: &str = "
SELECT id, lock_file, lock_inode, db_path, db_inode, boot_id, pid, pid_start, pid_space, started_at,
       pools, kinds
  FROM legwork_instances ORDER BY id";
const SET_POOLS: &str = "UPDATE legwork_instances SET pools = ?2 WHERE id = ?1";
/// What all instances hold, in their order.
pub(super) const HELD_BY_ALL: &str = "
SELECT job.instance, job.id, lane.kind, lane.queue, job.attempts, job.started_at,
       job.progress_done, job.progress_total, job.message, job.cancel_requested IS NOT NULL
  FROM legwork_jobs AS job INDEXED BY legwork_held
  CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane
 WHERE job.instance IS NOT NULL ORDER BY job.instance, job.id";
const RENEW: &str = "UPDATE legwork_instances SET lock_file = ?2, lock_inode = ?3 WHERE id = ?1";
/// Claims of an instance whose jobs were asked to stop.
pub(super) const ASKED: &str = "
SELECT id, token FROM legwork_jobs INDEXED BY legwork_asked
 WHERE cancel_requested = 1 AND instance = ?1";
const FREE_AND_ASKED: &str =
    "SELECT 1 FROM legwork_jobs WHERE id = ?1 AND cancel_requested = 1 AND instance IS NULL";

/// An instance as its row tells it.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) identity: Identity,
    pub(super) started_at: Micros,
}

pub(super) fn instance(row: &Row<'_>) -> rusqlite::Result<Instance> {
    Ok(Instance {
        id: row.get(0)?,
        identity: Identity {
            lock_file: row.get(1)?,
            lock_inode: row.get(2)?,
            db_path: row.get(3)?,
            db_inode: row.get(4)?,
            boot_id: row.get(5)?,
            pid: row.get(6)?,
            pid_start: row.get(7)?,
            pid_space: row.get(8)?,
        },
        started_at: row.get(9)?,
    })
}

impl Book {
    /// Registers this process and gives back what dead ones held.
    pub(super) fn join(
        &mut self,
        joining: &Joining,
        now: Micros,
        keep: Retention,
    ) -> Result<Joined> {
        let lock = &joining.lock;
        self.crash_limit = joining.crash_limit;
        let id = self.next_instance()?;
        let me = lock.identity();
        self.conn
            .execute(
                ADD,
                params![
                    id,
                    me.lock_file,
                    me.lock_inode,
                    me.db_path,
                    me.db_inode,
                    me.boot_id,
                    me.pid,
                    me.pid_start,
                    me.pid_space,
                    now,
                    as_json(&joining.pools),
                    as_json(&joining.kinds.keys().collect::<Vec<_>>())
                ],
            )
            .map_err(storing)?;
        self.roster_moved();
        self.record_kinds(&joining.kinds, now)?;
        let taken = self.rescue(lock, now, keep)?;
        self.set_own(id, true);
        self.release_strays()?;
        // The clock may have been another one when somebody was here last.
        self.look_at_all_lines(now)?;
        self.advance(now)?;
        Ok(Joined { instance: id, taken })
    }

    /// Takes this process's row away; whatever it still held becomes claimable.
    pub(super) fn leave(
        &mut self,
        id: InstanceId,
        now: Micros,
        keep: Retention,
    ) -> Result<Vec<JobId>> {
        let mut taken = Taken::default();
        self.take_over(id, Why::Stopped, now, keep, &mut taken)?;
        self.conn.execute(REMOVE, [id]).map_err(storing)?;
        self.roster_moved();
        self.set_own(id, false);
        Ok(taken.rescued)
    }

    /// Gives back what dead instances held. The write lock is held, so that no two processes rescue
    /// at once, and none rescues what a renewed lock file still protects.
    pub(super) fn rescue(
        &mut self,
        me: &InstanceLock,
        now: Micros,
        keep: Retention,
    ) -> Result<Taken> {
        let identity = me.identity();
        let mut taken = Taken::default();
        for other in self.instances()? {
            if other.identity == identity {
                continue;
            }
            if let Some(proof) = proof_of_death(&other.identity, &identity, me.side()) {
                self.take_over(other.id, proof.says(), now, keep, &mut taken)?;
                self.conn.execute(REMOVE, [other.id]).map_err(storing)?;
                self.roster_moved();
                if !other.identity.is_usurped(me.side()) {
                    let left = [other.identity.bell(), other.identity.lock_file];
                    self.litter.extend(left.map(|left| me.side().join(left)));
                }
            }
        }
        Ok(taken)
    }

    /// All instances in the file.
    pub(super) fn instances(&self) -> Result<Vec<Instance>> {
        instances(&self.conn)
    }

    /// The row of an instance names its new lock file.
    pub(super) fn renew(&mut self, id: InstanceId, identity: &Identity) -> Result<()> {
        self.conn
            .execute(RENEW, params![id, identity.lock_file, identity.lock_inode])
            .map_err(storing)?;
        self.roster_moved();
        Ok(())
    }

    /// The pools of an instance have changed.
    pub(super) fn set_pools(&mut self, id: InstanceId, pools: &[PoolRecord]) -> Result<()> {
        self.conn.execute(SET_POOLS, params![id, as_json(pools)]).map(drop).map_err(storing)
    }

    /// What an instance holds and was asked to stop.
    pub(super) fn asked_to_stop(&self, instance: InstanceId) -> Result<Vec<ClaimRef>> {
        let mut ask = self.conn.prepare_cached(ASKED).map_err(storing)?;
        ask.query_map([instance], |row| {
            Ok(ClaimRef { id: JobId(row.get(0)?), instance, token: row.get(1)? })
        })
        .and_then(Iterator::collect)
        .map_err(storing)
    }

    /// Whether nobody holds a job that was asked to stop.
    pub(super) fn is_free_and_asked(&self, id: JobId) -> Result<bool> {
        let mut ask = self.conn.prepare_cached(FREE_AND_ASKED).map_err(storing)?;
        ask.exists([id.0]).map_err(storing)
    }
}

/// All instances in the file, on any connection.
pub(super) fn instances(conn: &Connection) -> Result<Vec<Instance>> {
    let mut ask = conn.prepare_cached(ALL).map_err(storing)?;
    ask.query_map([], instance).and_then(Iterator::collect).map_err(storing)
}

/// The numbers of all instances in the file.
pub(super) fn numbers(conn: &Connection) -> Result<Vec<InstanceId>> {
    let mut ask = conn.prepare_cached(NUMBERS).map_err(storing)?;
    ask.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(storing)
}

fn as_json<T: Serialize + ?Sized>(list: &T) -> String {
    // Names and numbers always have a form in JSON.
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

/// An instance as it stands in the file, with its pools and its kinds.
type Seen = (Instance, Vec<PoolRecord>, Vec<String>);

fn rows(conn: &Connection) -> rusqlite::Result<Vec<Seen>> {
    let mut ask = conn.prepare_cached(RECORDS)?;
    ask.query_map([], |row| {
        // What another hand has written there shows as none.
        let pools = serde_json::from_str(&row.get::<_, String>(10)?).unwrap_or_default();
        let kinds = serde_json::from_str(&row.get::<_, String>(11)?).unwrap_or_default();
        Ok((instance(row)?, pools, kinds))
    })?
    .collect()
}

/// Each with whether its process lives.
fn as_records(rows: Vec<Seen>, db: &Path) -> Vec<InstanceRecord> {
    let (me, side) = (Identity::without_lock(db), beside::side(db));
    let record = |(other, pools, kinds): Seen| InstanceRecord {
        id: other.id,
        pid: u32::try_from(other.identity.pid).unwrap_or(0),
        started_at: from_micros(other.started_at),
        alive: !is_dead(&other.identity, &me, &side),
        pools,
        kinds,
    };
    rows.into_iter().map(record).collect()
}

/// All instances in the file, each with whether its process lives, for those who look.
pub(super) fn records(conn: &Connection, db: &Path) -> Result<Vec<InstanceRecord>> {
    Ok(as_records(rows(conn).map_err(storing)?, db))
}

/// What an instance runs, and how much it holds in all.
type InHand = (Vec<RunningJob>, u64);

fn in_hand(conn: &Connection) -> rusqlite::Result<HashMap<InstanceId, InHand>> {
    let mut all: HashMap<InstanceId, InHand> = HashMap::new();
    let mut ask = conn.prepare_cached(HELD_BY_ALL)?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        let (running, held) = all.entry(row.get(0)?).or_default();
        *held += 1;
        // Otherwise it is only claimed ahead.
        if let Some(started_at) = row.get::<_, Option<Micros>>(5)? {
            running.push(RunningJob {
                id: JobId(row.get(1)?),
                kind: row.get(2)?,
                queue: row.get(3)?,
                attempt: row.get::<_, u32>(4)?.saturating_add(1),
                started_at: from_micros(started_at),
                progress: Progress::read(row.get(6)?, row.get(7)?, row.get(8)?),
                cancel_requested: row.get(9)?,
            });
        }
    }
    Ok(all)
}

/// All instances, each with what it has in hand.
pub(super) fn workers(conn: &Connection, db: &Path) -> Result<Vec<WorkerRecord>> {
    let (rows, mut in_hand) = in_snapshot(conn, |conn| Ok((rows(conn)?, in_hand(conn)?)))?;
    let worker = |instance: InstanceRecord| {
        let (running, held) = in_hand.remove(&instance.id).unwrap_or_default();
        WorkerRecord { instance, running, held }
    };
    Ok(as_records(rows, db).into_iter().map(worker).collect())
}
