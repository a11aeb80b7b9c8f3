//! `legwork logs`: what jobs have written, and what they are writing.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc;

use legwork::{Context, Engine, Job, JobResult, Outcome};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Place, Worker, until};
use crate::common::{SOON, place};

/// A command in the background, whose lines are read as they come.
pub(super) struct Live {
    process: std::process::Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
}

impl Live {
    pub(super) fn start(place: &Place, line: &str) -> Live {
        let mut command = place.command(line.split_whitespace());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(process.stdout.take().unwrap());
        let errors = lines_of(process.stderr.take().unwrap());
        Live { process, lines, errors }
    }

    /// The next line of its stderr.
    pub(super) fn error_line(&self) -> String {
        self.errors.recv_timeout(SOON).expect("no line came in time")
    }

    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("no line came in time")
    }

    /// The next line of its stderr with this in it.
    #[track_caller]
    pub(super) fn error_with(&self, text: &str) -> String {
        std::iter::repeat_with(|| self.error_line()).find(|line| line.contains(text)).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.line()).unwrap();
        assert_eq!(value["v"], 1);
        value
    }

    pub(super) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal)
            .unwrap();
    }

    /// Its exit code, what it had still to say, and its stderr.
    pub(super) fn end(mut self) -> (i32, Vec<String>, String) {
        let rest = self.lines.iter().collect();
        let stderr = self.errors.iter().collect::<Vec<_>>().join("\n");
        (self.process.wait().unwrap().code().unwrap(), rest, stderr)
    }
}

fn lines_of(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (to, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| to.send(line))
    });
    lines
}

impl Drop for Live {
    fn drop(&mut self) {
        // Of no use if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const WAIT_FOR_GO: &str = "while [ ! -e go ]; do sleep 0.02; done";

impl Place {
    /// Lets the scripts go on that wait for it.
    fn go(&self) {
        std::fs::write(self.file("go"), "").unwrap();
    }

    /// A worker that lives, so that a follower does not give up.
    pub(super) fn live_worker(&self, line: &str) -> Worker {
        let worker = self.worker(line);
        until("the worker lives", || self.line("status --json").json()["instances"] != 0);
        worker
    }
}

#[test]
fn what_a_command_has_written_is_shown_by_stream() {
    let place = place();
    let id = place.script("", "printf 'out\\033[31m\\n\\377'; echo err >&2");
    assert_eq!(place.line(&format!("logs {id}")).good(), "");
    place.work().good();
    let output = place.command(["logs", &id.to_string()]).output().unwrap();
    assert_eq!(output.stdout, b"out\x1b[31m\n\xfferr\n", "byte for byte");
    assert_eq!(place.line(&format!("logs {id} --stream stderr")).good(), "err\n");
    assert_eq!(place.line(&format!("logs {id} --stream log")).good(), "");

    let text = place.line(&format!("logs {id} --json")).good();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |stream: &str, line: &str| json!({ "v": 1, "stream": stream, "attempt": 1, "at": null, "line": line });
    let expected =
        [line("stdout", "out\u{1b}[31m"), line("stderr", "err"), line("stdout", "\u{fffd}")];
    assert_eq!(lines, expected);

    let shown = place.on_terminal(&format!("logs {id}"), "").good();
    assert_eq!(
        shown.replace('\r', ""),
        "--- stdout of attempt 1\nout\\u{1b}[31m\n\u{fffd}\n\n--- stderr of attempt 1\nerr\n"
    );
    place.line("logs 999").coded(3);
}

#[test]
fn a_follower_sees_lines_as_they_are_written_and_ends_with_the_job() {
    let place = place();
    let id = place.script("", &format!("echo one; {WAIT_FOR_GO}; echo two; exit $(cat go)"));
    let _worker = place.live_worker("work");
    let follower = Live::start(&place, &format!("logs {id} -f"));
    assert_eq!(follower.line(), "one");
    place.go();
    assert_eq!(follower.end(), (0, vec!["two".to_owned()], String::new()));

    let id = place.script("", "echo three; exit 3");
    let (code, lines, _) = Live::start(&place, &format!("logs {id} -f")).end();
    assert_eq!((code, lines), (1, vec!["three".to_owned()]));
}

#[test]
fn a_follower_goes_with_a_job_through_its_retries() {
    let place = place();
    let script = "echo x >> tries; echo try $(wc -l < tries); [ $(wc -l < tries) = 2 ]";
    let id = place.script("--attempts 2", script);
    let _worker = place.live_worker("work");
    let follower = Live::start(&place, &format!("logs {id} -f --json --stream stdout"));
    let first = follower.json();
    assert_eq!(first["line"], "try 1");
    assert!(first["at"].is_string());
    until("the first attempt has failed", || place.state(id) == "retrying");
    place.line(&format!("retry {id}")).good();
    assert_eq!(follower.json()["line"], "try 2");
    assert_eq!(follower.end().0, 0);
}

#[test]
fn following_a_job_that_nobody_runs_says_so() {
    let place = place();
    let id = place.script("", &format!("echo begun; {WAIT_FOR_GO}"));
    let nobody = place.line(&format!("logs {id} -f")).coded(69);
    assert!(nobody.stderr.contains("legwork work"), "{nobody:?}");

    let worker = place.live_worker("work");
    let follower = Live::start(&place, &format!("logs {id} -f"));
    assert_eq!(follower.line(), "begun");
    worker.signal(Signal::KILL);
    assert_eq!(follower.end().0, 69);
    place.go();
}

#[test]
fn a_follower_of_more_than_is_kept_gets_each_byte_once_or_is_told_of_it() {
    let place = place();
    let script = format!("{WAIT_FOR_GO}; seq 1 400000");
    let id = place.script("", &script);
    let _worker = place.live_worker("work");
    let follower = Live::start(&place, &format!("logs {id} -f --json"));
    place.go();
    let (code, lines, _) = follower.end();
    assert_eq!(code, 0);
    let (mut bytes, mut missing) = (0, 0);
    for line in lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        match &line["line"] {
            Value::String(text) => bytes += text.len() as u64 + 1,
            _ => missing += line["missing"].as_u64().unwrap(),
        }
    }
    let all: u64 = (1..=400_000_u64).map(|number| number.to_string().len() as u64 + 1).sum();
    // Lines that a gap has cut have no end of their own.
    let gaps = lines.iter().filter(|line| line.contains("\"missing\"")).count() as u64;
    assert!((all..=all + gaps).contains(&(bytes + missing)), "{bytes} + {missing} of {all}");
    assert!(lines.last().unwrap().contains("\"400000\""));
}

/// Says something about itself when it is told to.
#[derive(Serialize, Deserialize)]
struct Talking;

impl Job for Talking {
    const KIND: &'static str = "talking";
    type State = mpsc::Sender<mpsc::Sender<()>>;

    fn perform(&self, cx: &Context<Self::State>) -> JobResult {
        cx.log("first\u{1b}");
        let (go, gone) = mpsc::channel();
        cx.state().send(go).unwrap();
        let _ = gone.recv();
        cx.log("second");
        Ok(Outcome::Done)
    }
}

#[test]
fn the_log_lines_of_a_programs_own_job_are_followed_too() {
    let place = place();
    let jobs = place.open();
    let (to, from) = mpsc::channel();
    let _engine = Engine::builder(&jobs).state(to).register::<Talking>().start().unwrap();
    let id = jobs.enqueue(Talking).unwrap();
    let go = from.recv_timeout(SOON).unwrap();
    let follower = Live::start(&place, &format!("logs {id} -f --json"));
    let first = follower.json();
    assert_eq!((&first["stream"], &first["line"]), (&json!("log"), &json!("first\u{1b}")));
    drop(go);
    let (code, rest, _) = follower.end();
    assert!(code == 0 && rest.len() == 1 && rest[0].contains("\"second\""), "{rest:?}");

    let shown = place.on_terminal(&format!("logs {id}"), "").good();
    assert!(shown.contains("--- log of attempt 1") && shown.contains("first\\u{1b}"), "{shown}");
    assert_eq!(place.line(&format!("logs {id}")).good(), "first\u{1b}\nsecond\n");
}
