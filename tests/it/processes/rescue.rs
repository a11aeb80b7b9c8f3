//! What a dead process ran is taken over at once; what a stopped one runs is not.

use super::*;
use crate::common::place;

#[test]
fn what_a_killed_process_ran_starts_in_another_that_lives() {
    let place = place();
    let mut doomed = process(&place, "sweep 0 workers 1");
    let id = doomed.enqueued("hold");
    doomed.hear(&format!("start {id}"));
    let mut other = process(&place, "sweep 0 workers 1");
    let since = Instant::now();
    doomed.kill();
    other.hear(&format!("start {id}"));
    let took = since.elapsed();
    eprintln!("started again {took:?} after the kill");
    assert!(took < Duration::from_secs(5), "{took:?}");
    other.tell(&format!("release {id}"));
    let jobs = place.open();
    assert_eq!(jobs.wait(id, SOON).unwrap().attempts, 1);
    assert_eq!(jobs.attempts(id).unwrap()[0].error, "interrupted: its process died");
    other.end();
}

#[test]
fn what_a_killed_process_ran_starts_at_once_in_a_new_one() {
    let place = place();
    let mut doomed = process(&place, "sweep 0 workers 1");
    let id = doomed.enqueued("hold");
    doomed.hear(&format!("start {id}"));
    doomed.kill();
    // Alone it watches nobody: only its own start can have taken the job over.
    let mut other = process(&place, "sweep 0 workers 1");
    other.hear(&format!("start {id}"));
    other.kill();
}

/// Stops a process for so long while another one works beside it.
fn stopped_for(time: Duration) {
    let place = place();
    let mut stopped = process(&place, "sweep 200 workers 1");
    let id = stopped.enqueued("hold");
    stopped.hear(&format!("start {id}"));
    let mut other = process(&place, "sweep 200 workers 1");
    stopped.stop(&place);
    let own = other.enqueued("enqueue");
    other.hear(&format!("end {own}"));
    // How long it is stopped is what is tested.
    std::thread::sleep(time);
    let jobs = place.open();
    assert_eq!(jobs.get(id).unwrap().state, State::Running);
    stopped.go_on();
    stopped.tell(&format!("release {id}"));
    stopped.hear(&format!("end {id}"));
    completed_undisturbed(&jobs, id);
    assert!(!other.end().contains(&format!("start {id}")));
    stopped.end();
}

#[test]
fn a_stopped_process_keeps_its_job_and_finishes_it() {
    stopped_for(Duration::from_secs(3));
}

#[test]
#[ignore = "soak: half a minute"]
fn soak_a_process_that_is_stopped_for_half_a_minute_keeps_its_job() {
    stopped_for(Duration::from_secs(30));
}
