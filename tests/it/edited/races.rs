//! Edits against starts: a job runs as it was before, and the edit is refused; or as it is after it.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::common::{self, Child, say};

const JOBS: i64 = 2_000;
/// What an edit adds to the number of a job.
const EDITED: i64 = 1_000_000;

/// Edits all jobs from the last to the first, while somebody runs them from the first on; those that were.
fn edit_all(jobs: &Jobs, ids: &[JobId]) -> Vec<i64> {
    let mut edited = Vec::new();
    for (n, &id) in ids.iter().enumerate().rev() {
        let n = i64::try_from(n).unwrap();
        match jobs.edit(id, other(n + EDITED)) {
            Ok(_) => edited.push(n),
            Err(Error::WrongState { state, .. }) => assert_ne!(state, State::Ready),
            Err(error) => panic!("{error}"),
        }
    }
    edited
}

/// Each has run once, as it is told.
fn check(ran: impl IntoIterator<Item = i64>, edited: &[i64]) {
    let mut runs: HashMap<i64, Vec<i64>> = HashMap::new();
    ran.into_iter().for_each(|n| runs.entry(n % EDITED).or_default().push(n));
    for n in 0..JOBS {
        let expected = if edited.contains(&n) { n + EDITED } else { n };
        assert_eq!(runs.get(&n), Some(&vec![expected]));
    }
}

#[test]
fn beside_the_workers_of_this_process() {
    let place = place();
    let jobs = place.open();
    let (ran, runs) = crossbeam_channel::unbounded();
    let engine = acting(&jobs, move |act, _| {
        ran.send(act.n).unwrap();
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(2))
    .start()
    .unwrap();
    let ids = jobs.enqueue_many((0..JOBS).map(act)).unwrap();
    let edited = edit_all(&jobs, &ids);
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
    check(runs.try_iter(), &edited);
    assert!(!edited.is_empty());
}

#[test]
#[ignore = "child process of the races with edits"]
fn child() {
    let Some(file) = common::child_file() else { return };
    run_all(&file);
}

fn run_all(file: &Path) {
    // Only a ring can wake it.
    let jobs = Jobs::builder(file).sweep(Duration::ZERO).open().unwrap();
    let engine = acting(&jobs, |act, _| {
        say(&format!("ran {}", act.n));
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(2))
    .start()
    .unwrap();
    say("started");
    // Until the other end of the pipe is closed.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    engine.stop(SOON).unwrap();
}

#[test]
fn beside_the_workers_of_another_process() {
    let place = place();
    let jobs = place.open();
    let mut child = Child::start("edited::races::child", &place.path, "");
    child.wait_for("started");
    let ids = jobs.enqueue_many((0..JOBS).map(act)).unwrap();
    let edited = edit_all(&jobs, &ids);
    let ran: Vec<i64> = ids.iter().map(|_| child.wait_for("ran ").parse().unwrap()).collect();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    child.tell("");
    child.end();
    check(ran, &edited);
    assert!(!edited.is_empty());
}

#[test]
fn another_process_that_sleeps_wakes_for_what_becomes_ready() {
    let place = place();
    let jobs = place.open();
    let mut child = Child::start("edited::races::child", &place.path, "");
    child.wait_for("started");
    let later = |n| act(n).delay(HOUR);
    jobs.close_gate("g").unwrap();
    let ids = jobs.enqueue_many([later(0), later(1), later(2), act(3).gate("g")]).unwrap();
    jobs.run_now(ids[0]).unwrap();
    assert_eq!(child.wait_for("ran "), "0");
    jobs.reschedule(ids[1], jobs.clock().now()).unwrap();
    assert_eq!(child.wait_for("ran "), "1");
    jobs.reschedule(ids[2], jobs.clock().now() + Duration::from_millis(50)).unwrap();
    assert_eq!(child.wait_for("ran "), "2");
    jobs.edit(ids[3], Edit::new().without_gate()).unwrap();
    assert_eq!(child.wait_for("ran "), "3");
    let copy = jobs.clone_jobs(ids[2]).unwrap().ids[0];
    assert_eq!(child.wait_for("ran "), "2");
    assert_eq!(jobs.wait(copy, SOON).unwrap().state, State::Completed);
    child.tell("");
    child.end();
}
