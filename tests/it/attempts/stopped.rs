//! What becomes of attempts when their engine is stopped.

use std::time::Duration;

use crossbeam_channel::bounded;
use legwork::{Outcome, State};

use crate::common::{SOON, place};
use crate::scripted::{Act, acting, holding};

#[test]
fn stop_interrupts_jobs_that_listen_and_their_attempt_is_not_counted() {
    let place = place();
    let jobs = place.open();
    let (started, has_started) = bounded(1);
    let engine = acting(&jobs, move |_, cx| {
        started.send(()).unwrap();
        cx.wait(SOON)?;
        Ok(Outcome::Done)
    })
    .start()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    assert_eq!(engine.stop(Duration::ZERO).unwrap(), []);
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Ready, 0));
    let attempts = jobs.attempts(id).unwrap();
    assert_eq!(attempts[0].error, "interrupted: the engine was stopped");
    assert!(!attempts[0].counted);
}

#[test]
fn stop_waits_its_grace_for_jobs_to_complete() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.on_stopping(move || go.send(()).unwrap()).start().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    assert_eq!(engine.stop(SOON).unwrap(), []);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn stop_returns_the_jobs_that_will_not_stop_and_they_stay_claimed_until_they_end() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.start().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    assert_eq!(engine.stop(Duration::ZERO).unwrap(), [id]);
    drop(engine);

    // Another engine does not take it: its thread is still at it.
    let other = acting(&jobs, |_, _| panic!("run twice at once")).manual().unwrap();
    assert_eq!(other.run_due().unwrap(), 0);
    assert_eq!(jobs.get(id).unwrap().state, State::Running);

    go.send(()).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed, "its finish still counts");
}
