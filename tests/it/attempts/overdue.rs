//! Attempts that run out of time: they fail, are reported, or are abandoned.

use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use legwork::{
    Context, Event, Interrupt, Job, JobOptions, JobResult, NewJob, Outcome, Overdue, Pool, Retry,
    State,
};
use serde::{Deserialize, Serialize};

use super::S;
use crate::common::{SOON, place, stopped_clock, wait_for};
use crate::scripted::{Act, acting};

#[test]
fn an_attempt_out_of_time_fails_at_its_checkpoint() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, cx| {
        assert_eq!(cx.remaining(), Some(30 * S));
        cx.checkpoint()?;
        cx.jobs().clock().advance(31 * S);
        assert_eq!(cx.remaining(), Some(Duration::ZERO));
        assert_eq!(cx.checkpoint(), Err(Interrupt::TimedOut));
        cx.checkpoint()?;
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).timeout(30 * S)).unwrap();
    engine.run_due().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Retrying, 1));
    assert_eq!(jobs.attempts(id).unwrap()[0].error, "the attempt ran out of time");
}

#[test]
fn an_attempt_that_goes_on_after_its_time_out_is_reported_as_stuck() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let events = jobs.events();
    let (go, gone) = bounded::<()>(1);
    let engine = acting(&jobs, move |_, _| {
        gone.recv_timeout(SOON)?;
        Ok(Outcome::Done)
    })
    .stuck_grace(5 * S)
    .start()
    .unwrap();
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).timeout(30 * S)).unwrap();
    wait_for(&events, |event| matches!(event, Event::Started { .. }));
    clock.advance(36 * S);
    let stuck = wait_for(&events, |event| matches!(event, Event::Stuck { .. }));
    let expected = Event::Stuck { id, kind: "act".into(), running: 36 * S, abandoned: false };
    assert_eq!(stuck, expected);
    go.send(()).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed, "waiting for it paid");
    engine.stop(SOON).unwrap();
}

/// A job whose overdue attempts are abandoned.
#[derive(Serialize, Deserialize)]
struct Endless;

struct Hold {
    started: crossbeam_channel::Sender<u32>,
    go: crossbeam_channel::Receiver<()>,
}

impl Job for Endless {
    const KIND: &'static str = "endless";
    type State = Hold;

    fn options() -> JobOptions {
        JobOptions::new()
            .timeout(30 * S)
            .overdue(Overdue::Abandon)
            .retry(Retry::fixed(Duration::ZERO).attempts(2))
    }

    fn perform(&self, cx: &Context<Hold>) -> JobResult {
        cx.state().started.send(cx.attempt())?;
        if cx.attempt() == 1 {
            cx.state().go.recv_timeout(SOON)?;
            assert_eq!(cx.checkpoint(), Err(Interrupt::TimedOut));
        }
        Ok(Outcome::Done)
    }
}

#[test]
fn an_abandoned_attempt_counts_as_failed_is_fenced_and_its_worker_replaced() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let (started, starts) = unbounded();
    let (go, gone) = bounded::<()>(1);
    let engine = legwork::Engine::builder(&jobs)
        .register_with::<Endless>(Hold { started, go: gone })
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Endless).unwrap();
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 1);
    clock.advance(60 * S);
    // The one worker is held up; the second attempt runs in its replacement.
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 2);
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 2));
    let attempts = jobs.attempts(id).unwrap();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].error.starts_with("abandoned: still running"), "{}", attempts[0].error);

    // The late finish of the first attempt changes nothing, and its thread is not one too many.
    go.send(()).unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!(engine.stop(SOON).unwrap(), []);
    assert_eq!(jobs.get(id).unwrap(), job);
    assert_eq!(jobs.health().unwrap().workers, 0);
}

#[test]
fn an_abandoned_worker_is_replaced_in_its_own_pool_whatever_the_pools_are_called() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let (started, starts) = unbounded();
    let (go, gone) = bounded::<()>(1);
    let engine = legwork::Engine::builder(&jobs)
        .register_with::<Endless>(Hold { started, go: gone })
        .pool(Pool::new(["mail"]).workers(1))
        .pool(Pool::new(["mail-slow"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(NewJob::new(Endless).queue("mail-slow")).unwrap();
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 1);
    clock.advance(60 * S);
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 2, "in the replacement");
    jobs.wait(id, SOON).unwrap();
    assert_eq!(engine.stop(Duration::ZERO).unwrap(), [id], "its first thread is still at it");
    go.send(()).unwrap();
}
