//! The commands that change jobs which wait, or make new ones after others.

use serde_json::json;

use crate::common::{SOON, place};
use crate::scripted::{Act, acting};
use legwork::{NewJob, Outcome, State};

#[test]
fn finished_jobs_are_deleted_and_waiting_ones_by_name() {
    let place = place();
    let finished = place.script("", "exit 0");
    place.work().good();
    let waiting = place.line("enqueue mail").id();
    assert_eq!(place.line("delete --filter queue:default --dry-run").good(), "1\t0\t0\n");
    assert_eq!(place.line("delete --filter queue:default").good(), "1\t1\t0\n");
    place.line(&format!("show {finished}")).coded(3);
    assert_eq!(place.line(&format!("delete {waiting} --json")).json()["changed"], 1);
    place.line(&format!("delete {waiting}")).coded(3);
    let shown = place.line("enqueue mail").id();
    let ended = place.on_terminal(&format!("delete {shown}"), "").good();
    assert!(ended.contains("deleted 1 job"), "{ended}");
}

#[test]
fn jobs_get_another_time_and_run_now() {
    let place = place();
    let id = place.line("enqueue mail").id();
    assert_eq!(place.line(&format!("reschedule {id} --in 2h")).good(), "1\t1\t0\n");
    assert_eq!(place.state(id), "scheduled");
    place.line(&format!("reschedule {id} --at 2031-05-01T10:00:00+02:00")).good();
    assert_eq!(place.show(id)["job"]["run_at"], "2031-05-01T08:00:00Z");
    let done = place.line("run-now --filter kind:mail --json").coded(0).json();
    assert_eq!((&done["matched"], &done["changed"]), (&json!(1), &json!(1)));
    assert_eq!(place.state(id), "ready");
    let ended = place.line(&format!("run-now {id}")).coded(4);
    assert!(ended.stderr.contains("cannot run now job 1: it is ready"), "{ended:?}");
    place.line("run-now --filter kind:mail").coded(3);
    for bad in ["", "--in x", "--at yesterday", "--in 1h --at 2031-05-01T08:00:00Z", "--in 99999y"]
    {
        place.line(&format!("reschedule {id} {bad}")).coded(2);
    }
    let finished = place.script("", "exit 0");
    place.work().good();
    let ended = place.line(&format!("reschedule {finished} --in 1h")).coded(4);
    assert!(ended.stderr.contains("legwork clone"), "{ended:?}");
}

#[test]
fn jobs_are_edited_option_by_option() {
    let place = place();
    let id = place.line("enqueue mail {\"to\":1} --tag a --gate g").id();
    let line = format!(
        "edit {id} --args - --queue high --priority -2 --tag b --meta k=v=w --no-gate --timeout 5s"
    );
    assert_eq!(place.with_stdin(&line, "{\"to\": 2}").good(), "1\t1\t0\n");
    let job = place.show(id)["job"].take();
    assert_eq!(job["args"], json!({ "to": 2 }));
    assert_eq!((&job["queue"], &job["priority"]), (&json!("high"), &json!(-2)));
    assert_eq!((&job["tags"], &job["meta"]), (&json!(["a", "b"]), &json!({ "k": "v=w" })));
    assert_eq!(job["gate"], json!(null));
    place.line(&format!("edit {id} --no-tags --tag c --gate h")).good();
    let job = place.show(id)["job"].take();
    assert_eq!((&job["tags"], &job["gate"]), (&json!(["c"]), &json!("h")));
    for bad in ["", "--args {", "--queue \u{7f}", "--meta x", "--gate g --no-gate"] {
        place.line(&format!("edit {id} {bad}")).coded(2);
    }
    place.line("edit 99 --priority 1").coded(3);
    place.line("enqueue mail").id();
    let ended = place.line("edit --filter kind:mail --priority 1").coded(4);
    assert!(ended.stderr.contains("this would edit 2 jobs"), "{ended:?}");
    let ended = place.on_terminal("edit --filter kind:mail --priority 1", "y\n").good();
    assert!(ended.contains("edited 2 jobs"), "{ended}");
}

#[test]
fn a_command_that_waits_is_given_more_attempts() {
    let place = place();
    let edited = place.script("", "exit 1");
    let left = place.script("", "exit 1");
    let enqueued = ["enqueue", "legwork.shell", r#"{"argv":["false"]}"#, "--attempts", "2"];
    let enqueued = place.args(enqueued).id();
    let late = ["enqueue", "legwork.shell", r#"{"argv":["sleep","60"]}"#, "--timeout", "100ms"];
    let late = place.args(late).id();
    place.line(&format!("edit {edited} --attempts 2")).good();
    place.line(&format!("edit {left} --attempts 0")).coded(2);
    place.work().coded(1);
    let states = [edited, left, enqueued, late].map(|id| place.state(id));
    assert_eq!(states, ["retrying", "failed", "retrying", "failed"]);
}

#[test]
fn clones_are_told_by_their_ids_a_line_each() {
    let place = place();
    let id = place.script("", "exit 0");
    let unique = place.line("enqueue mail --unique k").id();
    assert_eq!(place.line("clone --filter kind:mail").coded(3).stdout, "");
    assert_eq!(place.line("clone --filter kind:mail --json").json()["ids"], json!([]));
    assert_eq!(place.line("clone --filter kind:mail --dry-run").coded(3).stdout, "0\t0\t0\n");
    let copy = place.line(&format!("clone {id}")).id();
    assert_eq!(place.show(copy)["job"]["meta"]["cloned_from"], id.to_string());
    let ended = place.line(&format!("clone {unique}")).coded(4);
    assert!(ended.stderr.contains("held by job 2"), "{ended:?}");
    let ended = place.line(&format!("clone {id} {unique} --yes")).coded(4);
    assert_eq!(ended.stdout, "4\n");
    assert!(ended.stderr.contains("1 skipped"), "{ended:?}");
    place.line("work --until-empty").good();
    assert_eq!(
        place.line("clone --filter kind:legwork.shell --dry-run --json").json()["matched"],
        3
    );
    let done = place.line("clone --filter kind:legwork.shell --yes --json").json();
    assert_eq!((&done["ids"], &done["changed"]), (&json!([5, 6, 7]), &json!(3)));
    let ended = place.on_terminal("clone 5", "").good();
    assert_eq!(ended.trim(), "8");
}

#[test]
fn a_dry_run_tells_what_would_be_refused_of_those_named() {
    let place = place();
    for _ in 0..2 {
        place.line("enqueue mail").good();
    }
    place.line("cancel 1").good();
    assert_eq!(place.line("cancel 1 2 99 --dry-run").coded(4).stdout, "2\t0\t2\n");
    let ended = place.on_terminal("cancel 1 2 --dry-run", "").coded(4);
    assert!(ended.stdout.contains("would cancel 1 job; 1 skipped: gone, or in "), "{ended:?}");
    // One of them is left, and one alone needs no yes; nor is one that is named twice two.
    assert_eq!(place.line("cancel 1 2").coded(4).stdout, "2\t1\t1\n");
    assert_eq!(place.line("retry 2 2").good(), "1\t1\t0\n");
}

#[test]
fn what_a_command_makes_ready_a_program_that_sleeps_runs_at_once() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |act, _| {
        assert_eq!(act.n, 2);
        Ok(Outcome::Done)
    })
    .start()
    .unwrap();
    let later = || NewJob::new(Act { n: 1 }).delay(std::time::Duration::from_secs(3600));
    let ids = [jobs.enqueue(later()).unwrap(), jobs.enqueue(later()).unwrap()];
    for (id, verb) in ids.into_iter().zip(["run-now", "reschedule --in 10ms"]) {
        place.args(["edit", &id.to_string(), "--args", "{\"n\":2}"]).good();
        place.line(&format!("{verb} {id}")).good();
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    let copy = place.line(&format!("clone {}", ids[0])).id();
    assert_eq!(jobs.wait(copy, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}
