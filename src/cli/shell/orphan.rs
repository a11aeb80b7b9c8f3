//! Commands that have outlived their worker, and whose job nobody wants any more.
//!
//! A cancel reaches a command through its worker. One whose worker was killed nobody looks after; so whoever
//! cancels or deletes jobs on the command line looks for such commands, and so does a worker that starts.
//! By its lock a command is known to live, and by the number of its group, which stands in the file, where
//! a signal has to go. That number may belong to others by now. So no group is signalled of which no process
//! has the lock open, and that the system tells on Linux alone.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgrp, kill_process_group};
use time::OffsetDateTime;

use super::GRACE;
use super::lock::{LOCK, RunLock, locked_jobs, open_lock};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::jobs::Jobs;

/// Between looks whether they have ended: they are no children, for which one could wait.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Sends TERM to the commands without a worker of jobs that have finished, are gone or were told to stop.
/// Their end is still to be seen to.
pub(in crate::cli) fn end_unwanted(jobs: &Jobs) -> Ending {
    let mut orphans = Vec::new();
    for id in locked_jobs(jobs.path()) {
        match Orphan::unwanted(jobs, id) {
            Ok(orphan) => orphans.extend(orphan),
            // What the job's user asked for is done all the same.
            Err(error) => log::warn!("legwork: whether job {id} has left a command: {error}"),
        }
    }
    for orphan in &orphans {
        log::info!("legwork: ending the command of job {}, which has no worker", orphan.id);
        orphan.signal(Signal::TERM);
        // One that is stopped hears of it only when it goes on.
        orphan.signal(Signal::CONT);
    }
    Ending(orphans)
}

/// Commands that have been told to end, if there were any.
#[must_use]
pub(in crate::cli) struct Ending(Vec<Orphan>);

impl Ending {
    /// Waits for them, and sends KILL to those that still live five seconds later.
    pub(in crate::cli) fn wait(self) {
        let since = Instant::now();
        while self.0.iter().any(Orphan::lives) && since.elapsed() < GRACE {
            thread::sleep(LOOK_EVERY);
        }
        let stubborn = self.0.iter().filter(|orphan| orphan.lives());
        stubborn.for_each(|orphan| orphan.signal(Signal::KILL));
    }

    /// The same beside what else there is to do. If the process ends before, the next one sees to it.
    pub(in crate::cli) fn wait_meanwhile(self) {
        if self.0.is_empty() {
            return;
        }
        let started =
            thread::Builder::new().name("legwork-orphans".into()).spawn(move || self.wait());
        if let Err(error) = started {
            log::warn!("legwork: no thread to wait for commands without a worker: {error}");
        }
    }
}

/// What the file says of a job that nobody is to run, and that no live worker runs.
#[derive(PartialEq)]
enum Unwanted {
    Gone,
    /// When its last attempt started.
    Since(Option<OffsetDateTime>),
}

impl Unwanted {
    fn read(jobs: &Jobs, id: JobId) -> Result<Option<Unwanted>> {
        let job = match jobs.get(id) {
            Ok(job) => job,
            Err(Error::NotFound(_)) => return Ok(Some(Unwanted::Gone)),
            Err(error) => return Err(error),
        };
        let is_unwanted = job.state.is_finished() || job.cancel_requested && !has_worker(jobs, id)?;
        Ok(is_unwanted.then_some(Unwanted::Since(job.started_at)))
    }
}

/// Whether a worker that is alive looks after it.
fn has_worker(jobs: &Jobs, id: JobId) -> Result<bool> {
    let workers = jobs.workers()?;
    let mut alive = workers.iter().filter(|worker| worker.instance.alive);
    Ok(alive.any(|worker| worker.running.iter().any(|running| running.id == id)))
}

/// A command whose lock somebody holds.
struct Orphan {
    id: JobId,
    group: Pid,
    /// Of the lock's file.
    lock: Metadata,
}

impl Orphan {
    /// The command of a job that nobody wants, if it lives without a worker and its group is known.
    fn unwanted(jobs: &Jobs, id: JobId) -> Result<Option<Orphan>> {
        let Some(before) = Unwanted::read(jobs, id)? else { return Ok(None) };
        // A worker lets go of the lock before it records the end.
        let Some(orphan) = Orphan::with_lock(jobs.path(), id) else { return Ok(None) };
        // Unless it has been started anew between these looks.
        if Unwanted::read(jobs, id)? != Some(before) {
            return Ok(None);
        }
        let lives = orphan.lives();
        if !lives {
            // In another container, or left by it for good.
            log::info!("legwork: job {id}: no process is seen that has its lock");
        }
        Ok(lives.then_some(orphan))
    }

    fn with_lock(db: &Path, id: JobId) -> Option<Orphan> {
        let mut file = open_lock(db, id).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            // It has ended. The lock goes with the file.
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        // Who cancels from within the command is not to end before he has said so.
        let group = group_in(&mut file).unwrap_or_default().filter(|group| *group != getpgrp())?;
        Some(Orphan { id, group, lock: file.metadata().ok()? })
    }

    /// Whether a process of the group has the lock open.
    fn lives(&self) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else { return false };
        let group = Some(self.group.as_raw_nonzero().get());
        let mut processes = processes.flatten().map(|entry| entry.path());
        processes.any(|process| group_of(&process) == group && self.is_open_in(&process))
    }

    fn is_open_in(&self, process: &Path) -> bool {
        let Ok(open) = fs::read_dir(process.join("fd")) else { return false };
        open.flatten().map(|entry| entry.path()).any(|open| {
            // Of other files not even that: one of a dead mount would not answer.
            let is_lock = |path: PathBuf| path.to_string_lossy().contains(LOCK);
            fs::read_link(&open).is_ok_and(is_lock)
                && fs::metadata(&open).is_ok_and(|file| {
                    (file.dev(), file.ino()) == (self.lock.dev(), self.lock.ino())
                })
        })
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.group, signal) {
            log::debug!("legwork: signalling the group {:?}: {error}", self.group);
        }
    }
}

/// The group of a process: the third field behind its name, which may have blanks and brackets. (`getpgid`
/// of rustix takes no 0, which is the group of the kernel's threads.)
fn group_of(process: &Path) -> Option<i32> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// What [`RunLock::is_for`] has written, if it was written whole.
fn group_in(file: &mut File) -> io::Result<Option<Pid>> {
    let mut text = String::new();
    file.take(RunLock::LONGEST).read_to_string(&mut text)?;
    let number = text.strip_suffix('\n').and_then(|number| number.parse().ok());
    // 0 and 1 mean other groups than one of that number.
    Ok(number.filter(|number| *number > 1).and_then(Pid::from_raw))
}
