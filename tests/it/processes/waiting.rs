//! `Jobs::wait` for what other processes do, and `Jobs::instances`.

use super::*;
use crate::common::place;

/// Makes the child wait for a job.
fn waits_for(child: &mut Process, id: JobId) {
    child.tell(&format!("wait {id}"));
    child.wait_for("waiting");
}

#[test]
fn a_process_without_an_engine_waits_for_what_another_runs() {
    let place = place();
    let mut runs = process(&place, "sweep 0 workers 1");
    let id = runs.enqueued("hold");
    runs.hear(&format!("start {id}"));
    let mut waits = process(&place, "sweep 0");
    waits_for(&mut waits, id);
    runs.tell(&format!("release {id}"));
    assert_eq!(waits.wait_for("waited"), "completed");
    waits.end();
    runs.end();
}

#[test]
fn a_wait_that_began_alone_learns_of_an_end_in_a_process_that_joins_later() {
    let place = place();
    // It has an engine and no worker.
    let mut waits = process(&place, "sweep 0 workers 0");
    let id = waits.enqueued("hold");
    waits_for(&mut waits, id);
    let mut joins = process(&place, "sweep 0 workers 1");
    joins.hear(&format!("start {id}"));
    joins.tell(&format!("release {id}"));
    assert_eq!(waits.wait_for("waited"), "completed");
    joins.end();
    waits.end();
}

#[test]
fn a_wait_learns_of_a_cancel_and_of_a_delete_by_a_process_without_an_engine() {
    let place = place();
    let mut waits = process(&place, "sweep 0 workers 1");
    let jobs = place.open();
    let id = waits.enqueued("delay 3600000");
    waits_for(&mut waits, id);
    jobs.cancel(id).unwrap();
    assert_eq!(waits.wait_for("waited"), "cancelled");
    let id = waits.enqueued("delay 3600000");
    waits_for(&mut waits, id);
    jobs.delete(id).unwrap();
    assert!(waits.wait_for("waited").contains(&id.to_string()));
    waits.end();
}

#[test]
fn instances_are_told_with_their_processes_and_whether_they_live() {
    let place = place();
    let jobs = place.open();
    assert_eq!(jobs.instances().unwrap(), []);
    let doomed = process(&place, "sweep 0 workers 1");
    doomed.stop(&place);
    let found = jobs.instances().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].pid, found[0].alive), (doomed.id(), true), "a stopped one lives");
    assert!(found[0].started_at <= time::OffsetDateTime::now_utc());
    doomed.kill();
    let found = jobs.instances().unwrap();
    assert_eq!((found.len(), found[0].alive), (1, false));
    // Looking has not taken it away, and an engine that starts does.
    let other = process(&place, "sweep 0 workers 1");
    let found = jobs.instances().unwrap();
    assert_eq!((found.len(), found[0].pid, found[0].alive), (1, other.id(), true));
    other.end();
    assert_eq!(jobs.instances().unwrap(), []);
}
