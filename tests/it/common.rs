//! What the tests share: a fresh file, jobs that do as they are told, bounded waiting.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use legwork::{Clock, Event, Events, Jobs, JobsBuilder, ManualEngine};
use tempfile::TempDir;

/// Long enough for any event on a loaded machine; no test depends on its length.
pub const SOON: Duration = Duration::from_secs(60);

/// A directory of its own, and a database in it.
pub struct Place {
    pub dir: TempDir,
    pub path: PathBuf,
}

pub fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    Place { dir, path }
}

impl Place {
    pub fn open(&self) -> Jobs {
        Jobs::open(&self.path).unwrap()
    }

    pub fn builder(&self) -> JobsBuilder {
        Jobs::builder(&self.path)
    }

    /// A second connection, as the app's own.
    pub fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.path).unwrap()
    }
}

pub fn stopped_clock() -> Clock {
    Clock::stopped(time::macros::datetime!(2026-01-01 0:00 UTC))
}

/// Waits for something that tells nobody.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs what is due until it is so: the writer prunes after its groups, in bites, and behind its answers.
#[track_caller]
pub fn run_until(engine: &ManualEngine, what: &str, mut is: impl FnMut() -> bool) {
    until(what, || {
        engine.jobs().wake().unwrap();
        engine.run_due().unwrap();
        is()
    });
}

/// The first event for which `wanted` is true, within [`SOON`].
pub fn wait_for(events: &Events, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let deadline = Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).expect("the event did not come in time");
        if wanted(&event) {
            return event;
        }
    }
}

/// Whether strace is here. A test that needs it is skipped without, except in CI.
pub fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI must have strace");
        println!("skipped: there is no strace here");
    }
    found
}

/// The file that a child process is to open; `None` in an ordinary run of the tests.
pub fn child_file() -> Option<PathBuf> {
    std::env::var_os(CHILD_FILE).map(PathBuf::from)
}

const CHILD_FILE: &str = "LEGWORK_CHILD_FILE";
const CHILD_ROLE: &str = "LEGWORK_CHILD_ROLE";

/// What a child process is to do.
pub fn child_role() -> String {
    std::env::var(CHILD_ROLE).unwrap()
}

/// Tells the parent process a line; one write, so that a kill leaves no half of it.
pub fn say(line: &str) {
    // Not `println`, which the test harness may keep to itself. A parent that is gone kills us.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// This test binary again, running one ignored test that talks by lines.
pub struct Child {
    process: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Child {
    /// Starts `test` (with its module, `crash::child`) on a file.
    pub fn start(test: &str, file: &Path, role: &str) -> Child {
        let me = Command::new(std::env::current_exe().unwrap());
        Child::start_by(me, test, file, role)
    }

    /// The same under another program, which runs what it is given last.
    pub fn start_under(mut program: Command, test: &str, file: &Path, role: &str) -> Child {
        program.arg(std::env::current_exe().unwrap());
        Child::start_by(program, test, file, role)
    }

    fn start_by(mut command: Command, test: &str, file: &Path, role: &str) -> Child {
        let mut process = command
            .args(["--exact", test, "--ignored", "--nocapture", "--quiet", "--test-threads=1"])
            .env(CHILD_FILE, file)
            .env(CHILD_ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let from = BufReader::new(process.stdout.take().unwrap());
        let (to, lines) = mpsc::channel();
        std::thread::spawn(move || {
            from.lines().map_while(Result::ok).try_for_each(|line| to.send(line))
        });
        Child { process, lines }
    }

    /// Its next line; `None` if it has ended.
    pub fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(SOON) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("the child has said nothing for {SOON:?}")
            }
        }
    }

    /// The rest of its first line that begins with `word`.
    pub fn wait_for(&self, word: &str) -> String {
        loop {
            let line = self.line().expect("the child ended before it said the word");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Says a line to it.
    pub fn tell(&mut self, line: &str) {
        self.process.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// SIGKILL, and certainty that it is dead; what it had said before.
    pub fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.lines.iter().collect()
    }

    /// Waits until it ends by itself, which must be a success.
    pub fn end(self) -> Vec<String> {
        let (lines, success) = self.end_somehow();
        assert!(success);
        lines
    }

    /// Waits until it ends by itself; whether that was a success.
    pub fn end_somehow(mut self) -> (Vec<String>, bool) {
        let lines = std::iter::from_fn(|| self.line()).collect();
        (lines, self.process.wait().unwrap().success())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Of no use if it is dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
