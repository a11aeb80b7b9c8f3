//! This program again, as another process: what it does there, and the lines it talks by.
//!
//! It is started with the very arguments of this run, so that `bench` is reached wherever a program
//! has put it among its own commands; a variable of the environment says that it is a child.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, unbounded};

use super::error::{Error, Result};
use super::start::Stamp;
use super::work::{Crew, LONG, Noop};
use crate::jobs::Jobs;

const ROLE: &str = "LEGWORK_BENCH_CHILD";
const FILE: &str = "LEGWORK_BENCH_FILE";
/// Jobs that an idle engine has run before.
const BEFORE_IDLE: usize = 50;
const IDLE_WORKERS: usize = 8;

/// What a child process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Ends at once.
    Nothing,
    /// Opens the file, enqueues one job, ends.
    EnqueueOne,
    /// Enqueues a job for each line, which says how long to idle before, in microseconds; answers
    /// with the time just before the call, in nanoseconds since 1970.
    Enqueuer,
    /// Claims a job with bare SQLite for each datagram, and says when the thread that would run it
    /// was awake, in nanoseconds since 1970.
    BareTaker,
    /// Runs an engine of four workers for the queues of `limits`, says when each job of it began and
    /// ended, and leaves when it is told to.
    Limited,
    /// Runs an engine of eight workers, lets it work a little, and then leaves it alone until it
    /// is told a line.
    Engine,
}

const ROLES: [(Role, &str); 6] = [
    (Role::Nothing, "nothing"),
    (Role::EnqueueOne, "enqueue-one"),
    (Role::Enqueuer, "enqueuer"),
    (Role::BareTaker, "bare-taker"),
    (Role::Limited, "limited"),
    (Role::Engine, "engine"),
];

/// The role of this process; `None`: it is nobody's child.
pub(super) fn role() -> Option<Role> {
    let asked = env::var(ROLE).ok()?;
    ROLES.iter().find(|(_, name)| *name == asked).map(|(role, _)| *role)
}

impl Role {
    pub(super) fn play(self) -> ExitCode {
        match self.try_play() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("legwork bench, {self:?}: {error}");
                ExitCode::from(5)
            }
        }
    }

    fn try_play(self) -> Result<()> {
        let file = PathBuf::from(env::var_os(FILE).unwrap_or_default());
        match self {
            Role::Nothing => Ok(()),
            Role::EnqueueOne => say(&Jobs::open(file)?.enqueue(Noop::new())?.to_string()),
            Role::Enqueuer => enqueuer(&Jobs::open(file)?),
            Role::BareTaker => super::across::take_bare(&file),
            Role::Limited => super::slots::run_limited(Jobs::open(file)?),
            Role::Engine => engine(Jobs::open(file)?),
        }
    }
}

fn enqueuer(jobs: &Jobs) -> Result<()> {
    say("ready")?;
    for line in std::io::stdin().lines() {
        let gap = line?.parse().map_err(|_| Error::Missed("no gap was told".to_owned()))?;
        std::thread::sleep(Duration::from_micros(gap));
        let called = nanos_now();
        jobs.enqueue(Stamp {})?;
        say(&called.to_string())?;
    }
    Ok(())
}

fn engine(jobs: Jobs) -> Result<()> {
    let crew = Crew::start(jobs, IDLE_WORKERS)?;
    crew.jobs.enqueue_many((0..BEFORE_IDLE).map(|_| Noop::new()))?;
    crew.engine.run_until_empty()?;
    say("settled")?;
    std::io::stdin().read_line(&mut String::new())?;
    crew.stop()
}

/// Comparable between processes; the system clock is not turned within a sample.
pub(super) fn nanos_now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}

/// One write a line: the parent reads lines.
pub(super) fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// This program with that role.
pub(super) fn command(role: Role, file: &Path) -> Result<Command> {
    let name = ROLES.iter().find(|(listed, _)| *listed == role).map_or("", |(_, name)| *name);
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).env(ROLE, name).env(FILE, file);
    Ok(command)
}

/// This program with other arguments after those that lead to `bench`: another of the commands
/// that stand beside it.
pub(super) fn sibling(arguments: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let before = env::args_os().skip(1).take_while(|argument| argument != "bench");
    let mut command = Command::new(env::current_exe()?);
    command.args(before).args(arguments);
    Ok(command)
}

/// A running child that talks by lines. Killed with the value, unless it has ended.
pub(super) struct Child {
    process: std::process::Child,
    to: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Child {
    pub(super) fn start(role: Role, file: &Path) -> Result<Child> {
        let mut process =
            command(role, file)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = process.stdin.take();
        let from = process.stdout.take();
        let (tell, lines) = unbounded();
        std::thread::Builder::new().name("legwork-bench-child".into()).spawn(move || {
            let lines = from.into_iter().flat_map(|from| BufReader::new(from).lines());
            for line in lines.map_while(std::result::Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Child { process, to, lines })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its next line.
    pub(super) fn line(&self) -> Result<String> {
        self.lines
            .recv_timeout(LONG)
            .map_err(|_| Error::Missed("a child process ended, or said nothing".to_owned()))
    }

    /// Says a line to it.
    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        match &mut self.to {
            Some(to) => Ok(to.write_all(format!("{line}\n").as_bytes())?),
            None => Err(Error::Missed("a child process does not listen".to_owned())),
        }
    }

    /// Lets it end by itself.
    pub(super) fn end(mut self) -> Result<()> {
        self.to = None;
        if self.process.wait()?.success() {
            return Ok(());
        }
        Err(Error::Missed("a child process failed".to_owned()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Of no use if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
