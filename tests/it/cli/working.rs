//! `legwork work`: which jobs, how long, and how it stops.

use rustix::process::Signal;
use serde_json::json;

use super::logs::Live;
use super::{lives, pids, until};
use crate::common::place;

#[test]
fn work_runs_the_queues_it_is_told_to() {
    let place = place();
    let a = place.script("--queue a", "exit 0");
    let b = place.script("--queue b", "exit 0");
    let c = place.script("--queue c", "exit 0");
    place.line("work --until-empty -q a,nothing:1 -q c*:2").good();
    assert_eq!([a, b, c].map(|id| place.state(id)), ["completed", "ready", "completed"]);
    place.line("work --until-empty --every 1h -q -b").good();
    assert_eq!(place.state(b), "ready");
    place.line("work --until-empty --every 1h --quiet").good();
    assert_eq!(place.state(b), "completed");
}

#[test]
fn the_first_queue_of_a_pool_comes_first() {
    let place = place();
    for (queue, word) in [("low", "2"), ("high", "1"), ("low", "3")] {
        place.script(&format!("--queue {queue}"), &format!("echo {word} >> order"));
    }
    place.line("work --until-empty -q high,low:1").good();
    assert_eq!(std::fs::read_to_string(place.file("order")).unwrap(), "1\n2\n3\n");
}

#[test]
fn work_leaves_jobs_of_other_kinds_alone() {
    let place = place();
    let other = place.line("enqueue mail").id();
    let ended = place.work().coded(0);
    assert_eq!(place.state(other), "ready");
    assert!(ended.stderr.contains("kind=mail"), "and says so: {ended:?}");
}

#[test]
fn max_jobs_and_idle_exit_end_the_work() {
    let place = place();
    for _ in 0..4 {
        place.script("", "exit 0");
    }
    place.line("work --max-jobs 2 --workers 1").good();
    assert_eq!(place.line("list state:completed").good().lines().count(), 2);
    place.line("work --idle-exit 200ms").good();
    assert_eq!(place.line("list state:completed").good().lines().count(), 4);
}

#[test]
fn max_jobs_bounds_the_workers_of_a_pool_that_names_their_number() {
    let place = place();
    for _ in 0..4 {
        place.script("", "sleep 0.2");
    }
    place.line("work --max-jobs 1 -q *:4").good();
    assert_eq!(place.line("list state:completed").good().lines().count(), 1);
}

#[test]
fn a_worker_whose_file_is_gone_ends_by_itself() {
    let place = place();
    place.script("", "touch runs; while [ ! -e go ]; do sleep 0.02; done");
    let worker = place.worker("work --workers 1");
    until("it runs", || place.file("runs").exists());
    std::fs::rename(&place.path, place.file("elsewhere")).unwrap();
    std::fs::write(place.file("go"), "").unwrap();
    let ended = worker.end().coded(5);
    assert!(ended.stderr.contains("removed while it was open"), "{ended:?}");
}

#[test]
fn a_cont_without_a_tstp_is_nothing_to_speak_of() {
    let place = place();
    let id = place.script("", "echo $$ > pids; while [ ! -e go ]; do sleep 0.02; done");
    let worker = place.worker("work --workers 1");
    pids(&place.file("pids"), 1);
    worker.signal(Signal::CONT);
    worker.signal(Signal::USR1);
    std::fs::write(place.file("go"), "").unwrap();
    until("it completes", || place.state(id) == "completed");
    worker.signal(Signal::TERM);
    let ended = worker.end().coded(0);
    assert!(!ended.stderr.contains("starting jobs"), "{ended:?}");
}

#[test]
fn after_the_first_signal_a_running_command_gets_to_its_end() {
    let place = place();
    let id = place.script("", "echo $$ > pids; while [ ! -e go ]; do sleep 0.02; done; echo whole");
    let next = place.script("", "exit 0");
    let worker = place.worker("work --workers 1");
    pids(&place.file("pids"), 1);
    worker.signal(Signal::TERM);
    std::fs::write(place.file("go"), "").unwrap();
    worker.end().coded(0);
    let all = place.show(id);
    assert_eq!((&all["job"]["state"], &all["stdout"]), (&json!("completed"), &json!("whole\n")));
    // Whether the next one was claimed before the signal came is open; it was not torn.
    assert!(["ready", "completed"].contains(&place.state(next).as_str()));
}

#[test]
fn when_the_grace_is_over_a_running_command_is_given_back_uncounted() {
    let place = place();
    let id = place.script("", "sleep 1000 & echo $$ > pids; echo $! >> pids; wait");
    let worker = place.worker("work --grace 0s");
    let pids = pids(&place.file("pids"), 2);
    worker.signal(Signal::TERM);
    worker.end().coded(143);
    until("the whole group is gone", || !pids.iter().any(lives));
    let all = place.show(id);
    assert_eq!((&all["job"]["state"], &all["job"]["attempts"]), (&json!("ready"), &json!(0)));
    assert_eq!(all["attempts"][0]["counted"], false);
}

#[test]
fn the_second_signal_stops_at_once() {
    let place = place();
    // TERM does not end it.
    let id = place.script("", "trap '' TERM; echo $$ > pids; while :; do sleep 0.05; done");
    let worker = place.worker("work --grace 1h");
    let pids = pids(&place.file("pids"), 1);
    worker.signal(Signal::INT);
    worker.signal(Signal::TERM);
    let code = worker.end().code;
    // Two signals at one time come in the order of their numbers.
    assert!([130, 143].contains(&code), "{code}");
    until("it is gone", || !pids.iter().any(lives));
    assert_eq!(place.state(id), "ready");
}

#[test]
fn tstp_starts_no_more_jobs_until_cont_and_usr1_says_what_is_done() {
    let place = place();
    let first = place.script(
        "",
        "echo '3/12 three' >&3; echo $$ > pids; while [ ! -e go ]; do sleep 0.02; done",
    );
    let worker = Live::start(&place, "work --workers 2");
    pids(&place.file("pids"), 1);
    until("its progress has come", || place.show(first)["job"]["progress"]["total"] == 12);
    worker.signal(Signal::USR1);
    worker.error_with("1 jobs under way");
    let line = worker.error_line();
    assert!(line.contains(&format!(": job {first} legwork.shell, attempt 1, for ")), "{line}");
    assert!(line.ends_with(", 3/12, three"), "{line}");

    worker.signal(Signal::TSTP);
    worker.error_with("starting no more jobs");
    let second = place.script("", "exit 0");
    std::fs::write(place.file("go"), "").unwrap();
    place.line(&format!("wait {first} --timeout 60s")).good();
    worker.signal(Signal::USR1);
    worker.error_with("0 jobs under way");
    assert_eq!(place.state(second), "ready");

    worker.signal(Signal::CONT);
    worker.error_with("starting jobs");
    place.line(&format!("wait {second} --timeout 60s")).good();
    worker.signal(Signal::TSTP);
    worker.error_with("starting no more jobs");
    worker.signal(Signal::INT);
    assert_eq!(worker.end().0, 0);
}

#[test]
fn a_command_whose_worker_was_stopped_runs_again() {
    let place = place();
    let id = place.script("", "echo run >> runs; [ -e go ] || sleep 1000");
    let worker = place.worker("work --grace 0s");
    until("it runs", || place.file("runs").exists());
    worker.signal(Signal::INT);
    worker.end().coded(130);
    std::fs::write(place.file("go"), "").unwrap();
    place.work().good();
    assert_eq!(place.state(id), "completed");
    assert_eq!(std::fs::read_to_string(place.file("runs")).unwrap(), "run\nrun\n");
}

#[test]
fn the_crash_limit_is_the_workers() {
    let place = place();
    // Each attempt takes the worker's process with it.
    let id = place.script("", "kill -9 $PPID");
    place.worker("work --crash-limit 1").end().coded(-9);
    // Its process died: a suspect, not blamed yet; the next death is its own.
    place.worker("work --crash-limit 1").end().coded(-9);
    place.worker("work --crash-limit 1 --until-empty").end().coded(0);
    let job = &place.show(id)["job"];
    assert_eq!(job["state"], "failed");
    assert!(job["reason"].as_str().unwrap().starts_with("quarantined"), "{job}");
}

#[test]
fn a_command_after_another_waits_for_it_and_is_cancelled_with_it_unless_it_runs_anyway() {
    let place = place();
    let first = place.line("run -- false").id();
    let next = place.line(&format!("run --after {first} -- true")).id();
    let anyway = place.line(&format!("run --after {first} --anyway -- true")).id();
    assert_eq!(place.state(next), "blocked");
    place.line(&format!("cancel {first}")).good();
    assert_eq!(place.state(next), "cancelled");
    place.line("work --until-empty").good();
    assert_eq!(place.state(anyway), "completed");
    let refused = place.line("run --after 4711 -- true");
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("no job 4711"), "{refused:?}");
    place.line("run --anyway -- true").coded(2);
}

#[test]
fn a_hangup_stops_the_work_in_an_orderly_way_unless_it_is_ignored() {
    let place = place();
    let script = "echo $$ >> pids; sleep 0.3; echo end >> ends";
    let job = place.script("", script);
    let worker = place.worker("work");
    pids(&place.file("pids"), 1);
    worker.signal(Signal::HUP);
    worker.end().coded(0);
    assert_eq!(place.state(job), "completed");

    let job = place.script("", script);
    let mut command = std::process::Command::new("nohup");
    command.arg(super::LEGWORK).args(["work", "--idle-exit", "1s"]);
    command.env("LEGWORK_DB", &place.path).current_dir(place.dir.path());
    let output = std::process::Stdio::null;
    command.stdin(output()).stdout(output()).stderr(output());
    let mut process = command.spawn().unwrap();
    pids(&place.file("pids"), 2);
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), Signal::HUP).unwrap();
    assert_eq!(place.state(job), "running");
    assert!(process.wait().unwrap().success());
    assert_eq!(place.state(job), "completed");
}

#[test]
fn a_pool_that_makes_no_sense_is_refused_before_anything_is_made() {
    let place = place();
    for queues in ["a:0", "a:-1", "a:99999", "--yes"] {
        let ended = place.args(["work", "-q", queues]).coded(2);
        assert!(ended.stderr.contains(queues), "{ended:?}");
    }
    assert!(!place.path.exists());
}
