//! An idle engine does nothing: no writes, no wake-ups to speak of. Counted from `/proc`.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use legwork::{Jobs, NewJob, Outcome, Pool};

use crate::common::{self, Child, SOON, place, say};
use crate::scripted::{Act, acting};

/// How long it is watched.
const WINDOW: Duration = Duration::from_secs(20);

/// An engine of eight workers that has worked, and then has nothing to do.
#[test]
#[ignore = "child process of the idle test"]
fn child() {
    let Some(file) = common::child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let engine =
        acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["*"]).workers(8)).start().unwrap();
    let ids = jobs.enqueue_many((0..50).map(|n| Act { n })).unwrap();
    for id in ids {
        jobs.wait(id, SOON).unwrap();
    }
    if common::child_role() == "scheduled" {
        jobs.enqueue(NewJob::new(Act { n: 99 }).delay(Duration::from_secs(3600))).unwrap();
    }
    if common::child_role() == "limited" {
        let rate = |n| NewJob::new(Act { n }).rate("calls", 1, Duration::from_secs(86_400));
        jobs.enqueue_many((0..100).map(rate)).unwrap();
        say("settled");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        engine.stop(SOON).unwrap();
        return;
    }
    #[cfg(feature = "cron")]
    if common::child_role() == "cron" {
        jobs.schedule("far", "@yearly", Act { n: 99 }).unwrap();
    }
    engine.run_until_empty().unwrap();
    say("settled");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    engine.stop(SOON).unwrap();
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(|c: char| c.is_whitespace()).next().unwrap().parse().unwrap()
}

/// Voluntary context switches of all threads.
pub fn switches(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .map(|status| field(&status, "voluntary_ctxt_switches:"))
        .sum()
}

/// The same, and bytes written: to storage, and in all.
fn counters(pid: u32) -> (u64, u64, u64) {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    (switches(pid), field(&io, "write_bytes:"), field(&io, "wchar:"))
}

#[test]
fn an_idle_engine_writes_nothing_and_hardly_wakes() {
    let places = [place(), place(), place(), place()];
    let roles = ["nothing", "scheduled", "limited", "cron"];
    let mut children: Vec<Child> = places
        .iter()
        .zip(roles)
        .map(|(place, role)| Child::start("idle::child", &place.path, role))
        .collect();
    children.iter().for_each(|child| drop(child.wait_for("settled")));
    // A moment for what follows the last commit; then the window that is measured.
    pass(Duration::from_secs(1));
    let before: Vec<_> = children.iter().map(|child| counters(child.id())).collect();
    pass(WINDOW);
    for ((child, before), role) in children.iter().zip(before).zip(roles) {
        let after = counters(child.id());
        let woken = after.0 - before.0;
        assert!(woken <= WINDOW.as_secs(), "{role}: {woken} wake-ups in {WINDOW:?}");
        assert_eq!((after.1, after.2), (before.1, before.2), "{role}: bytes written");
    }
    for child in &mut children {
        child.tell("end");
    }
    children.into_iter().for_each(|child| drop(child.end()));
}

#[test]
fn two_idle_engines_on_one_file_write_nothing_and_only_watch_each_other() {
    let place = place();
    let mut children: Vec<Child> =
        (0..2).map(|_| Child::start("idle::child", &place.path, "nothing")).collect();
    children.iter().for_each(|child| drop(child.wait_for("settled")));
    pass(Duration::from_secs(1));
    let before: Vec<_> = children.iter().map(|child| counters(child.id())).collect();
    pass(WINDOW);
    for (child, before) in children.iter().zip(before) {
        let after = counters(child.id());
        let woken = after.0 - before.0;
        eprintln!("{woken} wake-ups in {WINDOW:?}");
        assert!(woken <= 3 * WINDOW.as_secs(), "{woken} wake-ups in {WINDOW:?}");
        assert_eq!((after.1, after.2), (before.1, before.2), "bytes written");
    }
    for child in &mut children {
        child.tell("end");
    }
    children.into_iter().for_each(|child| drop(child.end()));
}

/// Lets time pass: here it is what is measured.
fn pass(time: Duration) {
    let (_nobody, never) = mpsc::channel::<()>();
    assert_eq!(never.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
}
