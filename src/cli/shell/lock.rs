//! One command of a job at a time, also after its worker was killed.
//!
//! A run holds the lock of a file, and the command inherits the descriptor. Such a lock belongs to the
//! open file and not to a process: a worker that is alive lets it go for all when the command has ended,
//! also for what the command has left in the background. A worker that is killed lets nothing go, and
//! then the lock is free when the last process has ended that has the descriptor. In the file stands the
//! command's process group, for whoever wants to end it then.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::capture::{guarded, private_directory};
use super::kept::{directory, kept_jobs};
use crate::id::JobId;

/// Its name in the job's directory.
pub(super) const LOCK: &str = "lock";

/// How often a run tries to get it, since others lock the file for a moment to look whether it is held.
const LOOKS: u32 = 2;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Held while a command runs.
pub(super) struct RunLock {
    file: File,
    path: PathBuf,
    /// An earlier run has left the file, so its worker was killed.
    pub(super) after_a_kill: bool,
}

impl RunLock {
    /// `None`: the command of an earlier run still lives.
    pub(super) fn take(db: &Path, id: JobId) -> io::Result<Option<RunLock>> {
        let directory = directory(db, id);
        let path = path_of(db, id);
        let mut looks = 1;
        loop {
            private_directory(&directory)?;
            let after_a_kill = fs::symlink_metadata(&path).is_ok();
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(guarded()).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if looks < LOOKS => {
                    looks += 1;
                    thread::sleep(BETWEEN_LOOKS);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had it before has removed the file, perhaps after it was opened here.
            if fs::metadata(&path).is_ok_and(|there| Some(there.ino()) == inode(&file)) {
                // The group of the earlier run.
                file.set_len(0)?;
                return Ok(Some(RunLock { file, path, after_a_kill }));
            }
        }
    }

    /// The longest text in the file, in bytes.
    pub(super) const LONGEST: u64 = 16;

    /// Notes the group of the command, as a line.
    pub(super) fn is_for(&self, group: Pid) -> io::Result<()> {
        self.file.write_all_at(format!("{}\n", group.as_raw_nonzero()).as_bytes(), 0)
    }

    /// For the command.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// The jobs with a run under way, or one whose worker was killed.
pub(super) fn locked_jobs(db: &Path) -> impl Iterator<Item = JobId> {
    kept_jobs(db).filter(|id| fs::symlink_metadata(path_of(db, *id)).is_ok())
}

/// The file of such a run, to be looked at.
pub(super) fn open_lock(db: &Path, id: JobId) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(guarded()).open(path_of(db, id))
}

/// Whether the command of an earlier run lives, or has left a process that does.
pub(super) fn is_held(db: &Path, id: JobId) -> bool {
    let held = open_lock(db, id).map(|file| file.try_lock_shared());
    matches!(held, Ok(Err(TryLockError::WouldBlock)))
}

fn path_of(db: &Path, id: JobId) -> PathBuf {
    directory(db, id).join(LOCK)
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|file| file.ino())
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // While it is locked: nobody else's file can be meant.
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("legwork: removing {}: {error}", self.path.display());
        }
        if let Err(error) = self.file.unlock() {
            log::debug!("legwork: unlocking {}: {error}", self.path.display());
        }
        // Empty if the command has said nothing; otherwise it stays.
        if let Some(directory) = self.path.parent() {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_again_for_all_copies_when_its_run_ends_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let take = || RunLock::take(&db, JobId(1)).unwrap();
        let first = take().unwrap();
        assert!(!first.after_a_kill);
        let copy = first.descriptor().unwrap();
        assert!(take().is_none());
        drop(first);
        assert!(!directory(&db, JobId(1)).exists());
        let second = take().unwrap();
        drop((copy, second));
        assert!(take().is_some());
    }
}
