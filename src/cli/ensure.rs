//! `--ensure-worker`: a worker in the background, if none lives.
//!
//! It is this very program with the command `work`, in a session of its own, so that it outlives the
//! terminal. It stays for as long as anything waits that it could run, now or later, and then ends. A job that
//! is enqueued while a worker is about to end is not left alone: the command enqueues first and looks for a
//! worker then, and the worker says first that it starts nothing more and looks for jobs then.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::globals::Globals;
use super::trouble::{NO_WORKER, Trouble};
use super::{output, shell};
use crate::beside;
use crate::error::Error;
use crate::id::JobId;
use crate::jobs::Jobs;

/// How long it stays with nothing to do before it looks whether anything is left.
const IDLE: &str = "30s";
/// The hidden option by which it knows that it was started so.
const ENSURED: &str = "--ensured";
/// What it says once it takes part.
const READY: &str = "ready";
/// A log that is longer begins anew; the old one is kept beside it.
const LONG: u64 = 1 << 20;

/// Starts a worker unless one lives that could run this job, and waits until it takes part.
pub(super) fn worker(globals: &Globals, jobs: &Jobs, id: JobId) -> Result<(), Trouble> {
    let job = match jobs.get(id) {
        Ok(job) if !job.state.is_finished() => job,
        // Nothing is left to do: it was quick, or it is an earlier one whose key outlives it.
        Ok(_) | Err(Error::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let is_there = || -> Result<bool, Error> {
        Ok(jobs.instances()?.iter().any(|instance| instance.runs(&job.kind, &job.queue)))
    };
    if is_there()? {
        return Ok(());
    }
    // Of several commands at once the first starts one, and the others find it.
    let _turn = turn(jobs.path());
    if is_there()? {
        return Ok(());
    }
    let log = beside::side(jobs.path()).join("worker.log");
    start(globals, jobs.path(), &log).map_err(|error| {
        Trouble::new(NO_WORKER, format_args!("no worker could be started: {error}"))
            .hint(format_args!("see {}, or start `legwork work` yourself", log.display()))
    })
}

fn start(globals: &Globals, db: &Path, log: &Path) -> io::Result<()> {
    let stderr = open(log)?;
    // What this process was given to inherit (a script's lock, a pipe that somebody reads to its end) the
    // worker would keep open for as long as it lives.
    close_fds::set_fds_cloexec(3, &[]);
    let mut worker = Command::new(std::env::current_exe()?)
        // What leads to the commands in an app's own program.
        .args(globals.app.program.split(' ').skip(1))
        .arg("--db")
        .arg(db)
        .args(["work", "--idle-exit", IDLE, ENSURED])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()?;
    let mut said = String::new();
    if let Some(stdout) = worker.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    if said.trim_end() == READY {
        return Ok(());
    }
    let status = worker.wait()?;
    let why = last_line(log, &globals.app.program);
    Err(io::Error::other(why.unwrap_or_else(|| status.to_string())))
}

/// The worker's part: leaves the terminal to those who sit at it.
pub(super) fn detach() {
    if let Err(error) = rustix::process::setsid() {
        log::debug!("legwork: a session of its own: {error}");
    }
}

/// The worker's part: it takes part now.
pub(super) fn announce() -> io::Result<()> {
    output::print(format_args!("{READY}\n"))
}

/// Waits for those who are starting a worker. Without it there may be one too many, and that is all.
fn turn(db: &Path) -> Option<File> {
    let turn = open_private(&beside::side(db).join("worker.turn"))
        .and_then(|file| file.lock().map(|()| file));
    turn.inspect_err(|error| log::debug!("legwork: waiting for others: {error}")).ok()
}

fn open_private(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        shell::private_directory(directory)?;
    }
    let guarded = shell::guarded();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(guarded).open(path)
}

fn open(log: &Path) -> io::Result<File> {
    if log.metadata().is_ok_and(|log| log.len() > LONG) {
        std::fs::rename(log, log.with_extension("log.old"))?;
    }
    open_private(log)
}

/// Why it did not start.
fn last_line(log: &Path, program: &str) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let end = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(end.saturating_sub(4096))).ok()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let said = |line: &&str| !line.trim().is_empty();
    // A hint stands below what it is about, and is set off.
    let line = text.lines().rev().filter(said).find(|line| !line.starts_with(' '))?;
    let name = format!("{program}: ");
    Some(line.strip_prefix(&name).unwrap_or(line).to_owned())
}
