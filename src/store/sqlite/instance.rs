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

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::params;

use super::book::Book;
use super::errors::storing;
use super::rescue::Why;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::Retention;
use crate::store::{InstanceId, Joined, Joining, Taken};

/// The lock that says: this process lives. Freed by the kernel when the last thread that holds
/// the value, or the process, is gone.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    // Held for its lock alone.
    _file: File,
    path: PathBuf,
    identity: Identity,
}

/// What tells an instance from all others.
#[derive(Clone, Debug, PartialEq)]
struct Identity {
    lock_file: String,
    lock_inode: i64,
    db_path: String,
    db_inode: i64,
    boot_id: String,
    pid: i64,
    pid_start: i64,
    pid_space: String,
}

/// `<db>-legwork`, beside the database.
pub(crate) fn side_directory(db: &Path) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push("-legwork");
    PathBuf::from(name)
}

impl InstanceLock {
    /// Makes a lock file that is locked before anybody can know of it.
    pub(crate) fn create(db: &Path) -> Result<InstanceLock> {
        let side = side_directory(db);
        let made = make_private_dir(&side).and_then(|()| {
            // The name is unique in time: a process, and a count of its locks.
            static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let pid = std::process::id();
            let (file, name) = loop_for_free_name(&side, pid, number)?;
            file.lock()?;
            Ok((file, name))
        });
        let (file, lock_file) = made.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::Full(Box::new(error))
            }
            _ => Error::ReadOnly {
                path: side.clone(),
                why: format!("the lock file of this process cannot be made: {error}"),
            },
        })?;
        let path = side.join(&lock_file);
        let inode = inode_of(&path).unwrap_or(0);
        Ok(InstanceLock {
            _file: file,
            identity: Identity {
                lock_file,
                lock_inode: inode,
                db_path: canonical(db),
                db_inode: inode_of(db).unwrap_or(0),
                boot_id: boot_id(),
                pid: i64::from(std::process::id()),
                pid_start: start_of(std::process::id()).unwrap_or(0),
                pid_space: pid_space(),
            },
            path,
        })
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // A child made by fork has a copy of the value; the lock is its parent's.
        if self.identity.pid != i64::from(std::process::id()) {
            return;
        }
        // Left behind it would only be litter: it is unlocked when the process ends.
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("legwork: removing {}: {error}", self.path.display());
        }
    }
}

fn loop_for_free_name(side: &Path, pid: u32, number: u64) -> io::Result<(File, String)> {
    for retry in 0u32.. {
        let name = format!("{pid}-{number}-{retry}.lock");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        private(&mut options);
        match options.open(side.join(&name)) {
            Ok(file) => return Ok((file, name)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && retry < 10_000 => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

const ADD: &str = "
INSERT INTO legwork_instances
       (id, lock_file, lock_inode, db_path, db_inode, boot_id, pid, pid_start, pid_space, started_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const OTHERS: &str = "
SELECT id, lock_file, lock_inode, db_path, db_inode, boot_id, pid, pid_start, pid_space
  FROM legwork_instances WHERE id <> ?1";
const REMOVE: &str = "DELETE FROM legwork_instances WHERE id = ?1";

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
        let me = &lock.identity;
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
                    now
                ],
            )
            .map_err(storing)?;
        let side = lock.path.parent().unwrap_or(Path::new("")).to_owned();
        let mut taken = Taken::default();
        for (other, identity) in self.other_instances(id)? {
            // The lock is held until the rescue is written, so that only one process does it.
            if let Some(proof) = proof_of_death(&identity, me, &side) {
                self.take_over(other, proof.says(), now, keep, &mut taken)?;
                self.conn.execute(REMOVE, [other]).map_err(storing)?;
                let _ = fs::remove_file(side.join(&identity.lock_file));
            }
        }
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
        Ok(taken.rescued)
    }

    fn other_instances(&self, id: InstanceId) -> Result<Vec<(InstanceId, Identity)>> {
        let mut ask = self.conn.prepare_cached(OTHERS).map_err(storing)?;
        ask.query_map([id], |row| {
            Ok((
                row.get(0)?,
                Identity {
                    lock_file: row.get(1)?,
                    lock_inode: row.get(2)?,
                    db_path: row.get(3)?,
                    db_inode: row.get(4)?,
                    boot_id: row.get(5)?,
                    pid: row.get(6)?,
                    pid_start: row.get(7)?,
                    pid_space: row.get(8)?,
                },
            ))
        })
        .and_then(Iterator::collect)
        .map_err(storing)
    }
}

/// A lock on the dead instance's file, or other proof that its process is gone.
enum Proof {
    Locked(#[expect(dead_code, reason = "held for its lock")] File),
    /// The process is gone while the machine has been running.
    Gone,
    /// The machine was started since, or the file is a copy: no process has died of itself.
    Elsewhere,
}

impl Proof {
    fn says(&self) -> Why {
        match self {
            Proof::Locked(_) | Proof::Gone => Why::Died,
            Proof::Elsewhere => Why::Lost,
        }
    }
}

fn proof_of_death(them: &Identity, me: &Identity, side: &Path) -> Option<Proof> {
    if them.boot_id != me.boot_id {
        return Some(Proof::Elsewhere);
    }
    // The row came here by copying the file: whoever it was never held jobs of this one. A file
    // that was only moved keeps its inode.
    if them.db_inode != me.db_inode && them.db_path != me.db_path {
        return Some(Proof::Elsewhere);
    }
    // The lock decides where there is one: a process may be hidden from us and live.
    let path = side.join(&them.lock_file);
    let file = OpenOptions::new().write(true).open(&path).ok();
    // Another file under the same name is nobody's proof.
    let file = file.filter(|_| inode_of(&path) == Some(them.lock_inode));
    let Some(file) = file else {
        let gone = them.pid_space == me.pid_space
            && u32::try_from(them.pid).is_ok_and(|pid| start_of(pid) != Some(them.pid_start));
        return gone.then_some(Proof::Gone);
    };
    match file.try_lock() {
        Ok(()) => Some(Proof::Locked(file)),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => {
            log::warn!("legwork: cannot probe {}: {error}", path.display());
            None
        }
    }
}

fn canonical(path: &Path) -> String {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

fn pid_space() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` if
/// there is no such process. Where there is no `/proc` every process seems to start at 0, so that
/// only the lock decides.
fn start_of(pid: u32) -> Option<i64> {
    if !Path::new("/proc/self/stat").exists() {
        return Some(0);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything; the fields count from its last one.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(unix)]
fn inode_of(path: &Path) -> Option<i64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|meta| meta.ino().cast_signed())
}

#[cfg(not(unix))]
fn inode_of(path: &Path) -> Option<i64> {
    fs::metadata(path).ok().map(|_| 0)
}

#[cfg(unix)]
fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
pub(super) fn private(_: &mut OpenOptions) {}
