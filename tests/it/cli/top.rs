//! `legwork top` on a terminal: what is seen there, what keys do to the file, and how it is left.

use std::time::Duration;

use legwork::{Context, Engine, Job, JobResult, Pool, State};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::tmux::{Tmux, compare};
use super::{LEGWORK, pids, until};
use crate::common::place;

/// A job that has done some of its work and then waits until it is cancelled.
#[derive(Serialize, Deserialize)]
struct Import {
    file: String,
}

impl Job for Import {
    const KIND: &'static str = "import";
    type State = ();

    fn perform(&self, cx: &Context<()>) -> JobResult {
        cx.progress(450, 1_000);
        loop {
            cx.checkpoint()?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The picture without what differs from run to run: what stands in the rows of a table between these two
/// of its headings.
fn without(picture: &str, from: &str, to: Option<&str>) -> String {
    let mut cut = None;
    let mut text = String::new();
    for line in picture.lines() {
        let end = to.map_or(Some(usize::MAX), |to| line.find(to));
        match (line.find(from), end) {
            (Some(start), Some(end)) => cut = Some((line.to_owned(), start..end)),
            _ if line.contains('─') || line.is_empty() => cut = None,
            _ => {}
        }
        let varies = |at: usize| {
            cut.as_ref().is_some_and(|(heading, range)| heading != line && range.contains(&at))
        };
        let kept: String =
            line.chars().enumerate().map(|(at, c)| if varies(at) { ' ' } else { c }).collect();
        text += kept.trim_end();
        text.push('\n');
    }
    text
}

#[test]
fn jobs_are_seen_running_and_cancelled_and_the_terminal_is_left_as_it_was() {
    let place = place();
    let Some(tmux) = Tmux::start(&place) else { return };
    let failed = place.script("", "echo no space left >&2; exit 1");
    place.work().coded(1);
    let shell = place.script("", "exec sleep 600");
    let worker = place.worker("work -q default --workers 2");
    until("the command runs", || place.state(shell) == "running");
    let jobs = place.open();
    let pool = Pool::new(["imports"]).workers(1);
    let engine = Engine::builder(&jobs).state(()).register::<Import>().pool(pool).start().unwrap();
    let import = legwork::NewJob::new(Import { file: "orders.csv".into() }).queue("imports");
    let import = jobs.enqueue(import).unwrap();

    tmux.line(&format!("{LEGWORK} top; echo \"code $?\""));
    let screen = tmux.until(&["45%", "sleep 600", "no space left", "0/s", "processes, 3 workers"]);
    let (head, rest) = screen.split_once('\n').unwrap();
    assert!(head.contains("test.db ") && head.ends_with("2 processes, 3 workers"), "{head}");
    let stable = without(rest, "   FOR", Some("PROGRESS"));
    let stable = without(&stable, "PROCESS", None);
    let stable = without(&stable, "WHEN", Some("ERROR"));
    compare("top_80x24.txt", &stable);

    // The command was started first, so the import is the second.
    tmux.key("Down");
    tmux.key("c");
    tmux.until(&[&format!("cancel job {import}, import: {{\"file\":\"orders.csv\"}}? y/n")]);
    tmux.key("Escape");
    tmux.until(&["nothing was changed"]);
    assert!(!jobs.get(import).unwrap().cancel_requested);
    tmux.key("c");
    tmux.until(&["? y/n"]);
    tmux.key("y");
    tmux.until(&["1 cancelled"]);
    assert_eq!(jobs.get(import).unwrap().state, State::Cancelled);

    tmux.key("3");
    tmux.key("Enter");
    tmux.until(&[&format!(" job {failed} "), "state      failed", "--- stderr"]);
    tmux.key("Escape");
    tmux.until(&["3 failed"]);
    assert_eq!(jobs.get(shell).unwrap().state, State::Running);
    tmux.key("q");
    let screen = tmux.until(&["code 0"]);
    assert!(!screen.contains("3 failed"), "{screen}");
    tmux.line("echo 'it is' echoed");
    tmux.until(&["echo 'it is' echoed", "\nit is echoed"]);

    worker.signal(Signal::INT);
    worker.signal(Signal::INT);
    worker.end();
    engine.stop(Duration::from_secs(30)).unwrap();
}

#[test]
fn signals_and_a_file_that_goes_away_end_it_in_good_order() {
    let place = place();
    let Some(tmux) = Tmux::start(&place) else { return };
    drop(place.open());
    let pid = place.file("pid");
    let start =
        format!("sh -c 'echo $$ > {}; exec {LEGWORK} top'; echo \"code $?\"", pid.display());

    tmux.line(&start);
    tmux.until(&["no worker is running; start `legwork work`"]);
    let process = pids(&pid, 1)[0];
    kill_process(Pid::from_raw(process as i32).unwrap(), Signal::TERM).unwrap();
    let screen = tmux.until(&["code 143"]);
    assert!(!screen.contains("2 running"), "{screen}");

    tmux.line(&format!("clear; {LEGWORK} top --read-only"));
    tmux.until(&["no job has failed"]);
    tmux.key("C-z");
    tmux.until(&["Stopped"]);
    tmux.line("clear; fg; echo \"code $?\"");
    tmux.until(&["2 running", "no job has failed"]);
    std::fs::remove_file(&place.path).unwrap();
    tmux.until(&["cannot be read now", "the file is gone"]);
    let screen = tmux.until(&["code 5"]);
    assert!(
        screen.contains("test.db: the file is gone") && !screen.contains("2 running"),
        "{screen}"
    );
}

#[test]
fn it_needs_a_terminal() {
    let place = place();
    drop(place.open());
    let ended = place.line("top").coded(2);
    assert!(ended.stderr.contains("needs a terminal") && ended.stderr.contains("`legwork status`"));
    assert_eq!(ended.stdout, "");
    place.line("top --json").coded(2);
    let ended = place.line("top --every 50ms").coded(2);
    assert!(ended.stderr.contains("at least 100ms"), "{ended:?}");
    let other = place.file("none.db");
    let ended = place.on_terminal(&format!("top --db {}", other.display()), "");
    assert!(ended.stdout.contains("there is no"), "{ended:?}");
}
