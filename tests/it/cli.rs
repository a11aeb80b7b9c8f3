//! The command line, by its real binary: what it prints, how it exits, what shell jobs do.

mod answers;
mod care;
mod changes;
mod check;
#[cfg(feature = "cron")]
mod cron;
mod doctor;
mod drain;
mod embedded;
mod events;
mod everywhere;
mod flows;
mod hostile;
mod logs;
mod outputs;
mod seeing;
mod sessions;
mod set_up;
mod shell;
mod tmux;
#[cfg(feature = "tui")]
mod top;
mod transfer;
mod upload;
mod working;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use legwork::JobId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Place, until};

const LEGWORK: &str = env!("CARGO_BIN_EXE_legwork");

/// How a command has ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: Output) -> Ended {
        let signal = output.status.signal();
        Ended {
            code: output.status.code().unwrap_or_else(|| -signal.unwrap()),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn coded(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Its stdout after a success.
    #[track_caller]
    fn good(self) -> String {
        self.coded(0).stdout
    }

    /// The one line of JSON, whose version is checked.
    #[track_caller]
    fn json(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(value["v"], 1);
        value
    }

    #[track_caller]
    fn id(self) -> JobId {
        let text = self.good();
        text.strip_suffix('\n').unwrap().parse().unwrap()
    }
}

impl Place {
    fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(LEGWORK);
        command
            .args(args)
            .env("LEGWORK_DB", &self.path)
            .env_remove("NO_COLOR")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command line, split at blanks.
    fn line(&self, line: &str) -> Ended {
        self.args(line.split_whitespace())
    }

    fn args<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    fn with_stdin(&self, line: &str, stdin: &str) -> Ended {
        let mut command = self.command(line.split_whitespace());
        feed(command.stdin(Stdio::piped()), stdin)
    }

    /// The same on a terminal of 100 columns, whose user types `typed`.
    fn on_terminal(&self, line: &str, typed: &str) -> Ended {
        self.on_terminal_with("", line, typed)
    }

    /// With these variables set (`NAME=VALUE ...`).
    fn on_terminal_with(&self, variables: &str, line: &str, typed: &str) -> Ended {
        let shell = format!("stty cols 100; exec env {variables} {LEGWORK} {line}");
        let mut command = Command::new("script");
        command
            .args(["-qec", &shell, "/dev/null"])
            .env("LEGWORK_DB", &self.path)
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .current_dir(self.dir.path())
            .stdin(Stdio::piped());
        feed(&mut command, typed)
    }

    /// Runs all shell jobs that are there.
    fn work(&self) -> Ended {
        self.line("work --until-empty --workers 2")
    }

    /// Starts a worker process.
    fn worker(&self, line: &str) -> Worker {
        let mut command = self.command(line.split_whitespace());
        let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Worker { process: Some(process) }
    }

    /// `run --shell` of a script.
    fn script(&self, options: &str, script: &str) -> JobId {
        let args = ["run", "--shell"].into_iter().chain(options.split_whitespace());
        self.args(args.chain(["--", script])).id()
    }

    fn show(&self, id: JobId) -> Value {
        self.line(&format!("show {id} --json")).json()
    }

    fn state(&self, id: JobId) -> String {
        self.show(id)["job"]["state"].as_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

fn feed(command: &mut Command, stdin: &str) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    Ended::of(child.wait_with_output().unwrap())
}

/// `legwork work` in the background.
struct Worker {
    process: Option<Child>,
}

impl Worker {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.process.as_ref().unwrap()), signal).unwrap();
    }

    fn end(mut self) -> Ended {
        Ended::of(self.process.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Of no use if it is dead already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The process ids that a script has written, one a line, once it has written so many.
fn pids(file: &Path, count: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    until("the script writes its process ids", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pids = text.lines().filter_map(|line| line.parse().ok()).collect();
        pids.len() == count && text.ends_with('\n')
    });
    pids
}

/// Whether a process is there and not just waiting to be reaped.
fn lives(pid: &u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}
