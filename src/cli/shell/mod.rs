//! Shell jobs: commands as jobs, of the kind `legwork.shell`.

mod capture;
mod child;
mod descriptors;
mod kept;
mod lock;
mod orphan;
mod progress;
mod text;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::capture::Capture;
pub(super) use self::capture::{guarded, private_directory};
use self::child::{Child, End};
use self::descriptors::Descriptors;
pub(super) use self::kept::{Follower, Next, Stream, cut, read, sweep};
use self::lock::RunLock;
pub(super) use self::orphan::end_unwanted;
pub(super) use self::text::Text;
use super::trouble::{SIGNALLED, TIMED_OUT};
use crate::context::Context;
use crate::failure::{Failure, Interrupt};
use crate::job::{Job, JobResult, Outcome};
use crate::new_job::JobOptions;
use crate::rules::amount;
use crate::rules::retry::Retry;

/// How long a command gets between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// The same when its worker stops: the engine waits no longer than a second.
const GRACE_AT_STOP: Duration = Duration::from_millis(500);
/// How long a job is put off whose earlier command still runs, without its worker.
const ORPHAN: Duration = Duration::from_secs(2);
/// After so many commands what was kept of jobs that are gone is removed.
const SWEEP_EVERY: u64 = 1_000;

/// What a shell could not find, and what it could not start: the usual codes.
const NOT_FOUND: i32 = 127;
const NOT_STARTED: i32 = 126;

/// A command with all that it needs to run; the arguments of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ShellJob {
    /// The program and its arguments; with `shell` a script and its `$1`, `$2`, ...
    pub(super) argv: Vec<Text>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) shell: bool,
    /// Default: the worker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<Text>,
    /// Beside the worker's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) env: BTreeMap<String, Text>,
    /// Exit codes that count as success beside 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ok_codes: Vec<i32>,
    /// The only exit codes that are retried; empty: all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) retry_codes: Vec<i32>,
}

/// What a completed command puts out.
#[derive(Serialize)]
struct Report {
    exit_code: i32,
}

/// What the shell jobs of one worker process share.
#[derive(Debug)]
pub(super) struct Worker {
    db: PathBuf,
    ran: AtomicU64,
    given_back: AtomicU64,
    hurry: AtomicBool,
    descriptors: Descriptors,
}

impl Worker {
    pub(super) fn new(db: &Path) -> Worker {
        Worker {
            db: db.to_owned(),
            ran: AtomicU64::new(0),
            given_back: AtomicU64::new(0),
            hurry: AtomicBool::new(false),
            descriptors: Descriptors::reserve(),
        }
    }

    /// Jobs that were interrupted by the stop.
    pub(super) fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::Acquire)
    }

    /// The process is about to end: commands get no long grace any more.
    pub(super) fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
    }
}

impl Job for ShellJob {
    const KIND: &'static str = "legwork.shell";
    type State = Arc<Worker>;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::none())
    }

    fn perform(&self, cx: &Context<Self::State>) -> JobResult {
        let worker = cx.state();
        if self.argv.is_empty() {
            return Err(Failure::msg("the job names no command").into_fatal());
        }
        if worker.ran.fetch_add(1, Ordering::AcqRel) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            sweep(cx.jobs());
        }
        // Until the end of the attempt, whatever that is.
        let lock = match RunLock::take(&worker.db, cx.id()) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => {
                cx.has_not_begun();
                cx.message(
                    "waits for its earlier command, which still runs though its worker was killed",
                );
                return Ok(Outcome::snooze(ORPHAN));
            }
            Err(error) => {
                log::warn!("legwork: job {} runs without its lock: {error}", cx.id());
                None
            }
        };
        if lock.as_ref().is_some_and(|lock| lock.after_a_kill) {
            cx.message("its earlier command, whose worker was killed, has ended");
        }
        let mut child = self.start(cx, lock.as_ref()).map_err(|error| self.not_started(&error))?;
        let stop = child.run(|reports| {
            reports.next().into_iter().for_each(|progress| cx.report(progress));
            cx.checkpoint().err()
        });
        let Some(why) = stop else {
            let End { status, said, progress } = child.finish()?;
            progress.into_iter().for_each(|progress| cx.report(progress));
            return self.ended(cx, status, said);
        };
        let grace = match why {
            Interrupt::Stopping => GRACE_AT_STOP,
            _ => GRACE,
        };
        let killed = child.terminate(|waited| {
            let hurry = worker.hurry.load(Ordering::Acquire);
            waited >= if hurry { GRACE_AT_STOP } else { grace }
        });
        child.finish()?;
        match why {
            Interrupt::TimedOut => Err(self.timed_out(cx, killed)),
            interrupt => {
                if interrupt == Interrupt::Stopping {
                    worker.given_back.fetch_add(1, Ordering::AcqRel);
                }
                Err(interrupt.into())
            }
        }
    }
}

impl ShellJob {
    /// The command for people.
    pub(super) fn line(&self) -> String {
        self.argv.iter().map(Text::lossy).collect::<Vec<_>>().join(" ")
    }

    fn start(&self, cx: &Context<Arc<Worker>>, lock: Option<&RunLock>) -> io::Result<Child> {
        let mut command = self.command(cx);
        let progress = cx.state().descriptors.pass(&mut command, lock)?;
        let now = cx.jobs().clock().micros();
        let captures = Capture::begin(&cx.state().db, cx.id(), cx.attempt(), now);
        let child = Child::start(command, captures, progress)?;
        if let Some(lock) = lock
            && let Err(error) = lock.is_for(child.group())
        {
            log::debug!("legwork: job {}: noting its group: {error}", cx.id());
        }
        Ok(child)
    }

    fn command(&self, cx: &Context<Arc<Worker>>) -> Command {
        let mut words: Vec<OsString> = self.argv.iter().map(Text::to_os).collect();
        if self.shell {
            // Arguments are never part of the script: they are its `$1`, `$2`, ...
            let script = words.remove(0);
            let shell = ["/bin/sh".into(), "-c".into(), script, "sh".into()];
            words.splice(0..0, shell);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd.to_os());
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value.to_os())));
        command.env("LEGWORK_JOB_ID", cx.id().to_string());
        command.env("LEGWORK_ATTEMPT", cx.attempt().to_string());
        command
    }

    fn ended(
        &self,
        cx: &Context<Arc<Worker>>,
        status: ExitStatus,
        last: Option<String>,
    ) -> JobResult {
        let code = code_of(status);
        if code == 0 || self.ok_codes.contains(&code) {
            cx.output(&Report { exit_code: code })?;
            return Ok(Outcome::Done);
        }
        let text = match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("exit code {code}"),
        };
        let text = last.into_iter().fold(text, |text, last| format!("{text}: {last}"));
        Err(self.failure(code, text))
    }

    fn timed_out(&self, cx: &Context<Arc<Worker>>, killed: bool) -> Failure {
        let after = cx.timeout().map(amount::set_span).unwrap_or_default();
        let how = if killed { "; it did not end by TERM and was killed" } else { "" };
        self.failure(i32::from(TIMED_OUT), format!("timed out after {after}{how}"))
    }

    fn not_started(&self, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED };
        let cwd = self.cwd.as_ref().filter(|cwd| !Path::new(&cwd.to_os()).is_dir());
        let text = match (cwd, self.argv.first()) {
            (Some(cwd), _) => format!("its directory {} is not there", cwd.lossy()),
            (None, program) => {
                let program = program.map(Text::lossy).unwrap_or_default();
                format!("cannot start {program}: {error}")
            }
        };
        self.failure(code, text)
    }

    /// Retried or not, by its exit code.
    fn failure(&self, code: i32, text: String) -> Failure {
        let failure = Failure::msg(text);
        if self.retry_codes.is_empty() || self.retry_codes.contains(&code) {
            failure
        } else {
            failure.into_fatal()
        }
    }
}

/// The exit code, or what a shell would say of a signal.
fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| i32::from(SIGNALLED) + signal))
        .unwrap_or(-1)
}
