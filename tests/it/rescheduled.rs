//! Another time for jobs that wait, and none at all: whatever they wait for beside it, and whoever asks.

use std::time::Duration;

use legwork::{
    Clock, Conflict, Context, Error, Failure, Filter, JobId, JobResult, Jobs, ManualEngine, NewJob,
    Outcome, Pool, State, Unique,
};
use time::OffsetDateTime;

use crate::common::{Place, SOON, place, stopped_clock};
use crate::scripted::{Act, Acts, acting, holding};

const HOUR: Duration = Duration::from_secs(3600);

fn manual(
    place: &Place,
    clock: &Clock,
    script: impl Fn(&Act, &Context<Acts>) -> JobResult + Send + Sync + 'static,
) -> ManualEngine {
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    acting(&jobs, script).manual().unwrap()
}

fn done(place: &Place, clock: &Clock) -> ManualEngine {
    manual(place, clock, |_, _| Ok(Outcome::Done))
}

fn act(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

fn later(jobs: &Jobs, by: Duration) -> OffsetDateTime {
    jobs.clock().now() + by
}

fn state(jobs: &Jobs, id: JobId) -> State {
    jobs.get(id).unwrap().state
}

fn refused(done: legwork::Result<legwork::Changed>) -> State {
    match done {
        Err(Error::WrongState { state, .. }) => state,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_job_that_waits_runs_at_its_new_time_and_not_before() {
    let (place, clock) = (place(), stopped_clock());
    let engine = done(&place, &clock);
    let jobs = engine.jobs();
    let ready = jobs.enqueue(act(1)).unwrap();
    let scheduled = jobs.enqueue(act(2).delay(9 * HOUR)).unwrap();
    let at = later(jobs, HOUR);
    assert_eq!(jobs.reschedule(vec![ready, scheduled], at).unwrap().changed, 2);
    for id in [ready, scheduled] {
        let job = jobs.get(id).unwrap();
        assert_eq!((job.state, job.run_at), (State::Scheduled, at));
    }
    assert_eq!(engine.run_due().unwrap(), 0);
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(refused(jobs.reschedule(ready, at)), State::Completed);
    assert!(matches!(jobs.reschedule(JobId(99), at), Err(Error::NotFound(JobId(99)))));
}

#[test]
fn a_past_time_goes_before_the_others_in_claim_order() {
    let (place, clock) = (place(), stopped_clock());
    let engine = done(&place, &clock);
    let jobs = engine.jobs();
    let ids = jobs.enqueue_many((1..4).map(act)).unwrap();
    jobs.reschedule(ids[2], jobs.clock().now() - HOUR).unwrap();
    let order: Vec<JobId> = std::iter::from_fn(|| engine.run_one().unwrap()).collect();
    assert_eq!(order, [ids[2], ids[0], ids[1]]);
}

#[test]
fn run_now_keeps_the_attempts_and_retry_does_not() {
    let (place, clock) = (place(), stopped_clock());
    let engine = manual(&place, &clock, |_, _| Err(Failure::msg("no")));
    let jobs = engine.jobs();
    let id = jobs.enqueue(act(1)).unwrap();
    for attempts in 1..3 {
        engine.run_due().unwrap();
        assert_eq!(jobs.get(id).unwrap().attempts, attempts);
        jobs.run_now(id).unwrap();
        let job = jobs.get(id).unwrap();
        assert_eq!((job.state, job.attempts), (State::Ready, attempts));
        assert_eq!(refused(jobs.run_now(id)), State::Ready);
    }
    engine.run_due().unwrap();
    assert_eq!(state(jobs, id), State::Failed, "the third attempt was its last");
    assert_eq!(refused(jobs.run_now(id)), State::Failed);
    jobs.retry(id).unwrap();
    engine.run_due().unwrap();
    assert_eq!(jobs.get(id).unwrap().attempts, 1);
    jobs.reschedule(id, later(jobs, HOUR)).unwrap();
    assert_eq!(state(jobs, id), State::Retrying, "it has failed, and waits to be tried again");
}

#[test]
fn a_job_that_runs_is_left_alone() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.start().unwrap();
    let id = jobs.enqueue(act(1)).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    assert_eq!(refused(jobs.reschedule(id, later(&jobs, HOUR))), State::Running);
    assert_eq!(refused(jobs.run_now(id)), State::Running);
    let done = jobs.reschedule(Filter::new(), later(&jobs, HOUR)).unwrap();
    assert_eq!((done.changed, done.skipped), (0, 1));
    go.send(()).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_child_waits_for_its_parent_and_for_its_new_time() {
    let (place, clock) = (place(), stopped_clock());
    let engine = done(&place, &clock);
    let jobs = engine.jobs();
    let parent = jobs.enqueue(act(1).delay(HOUR)).unwrap();
    let children =
        jobs.enqueue_many([act(2).after([parent]), act(3).delay(9 * HOUR).after([parent])]);
    let children = children.unwrap();
    assert_eq!(refused(jobs.run_now(children[0])), State::Blocked);
    jobs.run_now(children[1]).unwrap();
    jobs.reschedule(children[0], later(jobs, 2 * HOUR)).unwrap();
    for id in &children {
        assert_eq!(state(jobs, *id), State::Blocked);
    }
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(state(jobs, children[0]), State::Scheduled);
    assert_eq!(state(jobs, children[1]), State::Completed);
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn who_waits_for_the_one_with_its_key_waits_on_and_then_for_its_time() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.start().unwrap();
    let last = || Unique::by_key("k").on_conflict(Conflict::KeepLast);
    let first = jobs.enqueue(act(1).unique(last())).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    let second = jobs.enqueue(act(2).unique(last())).unwrap();
    assert_eq!(state(&jobs, second), State::Blocked);
    jobs.reschedule(second, later(&jobs, HOUR)).unwrap();
    assert_eq!(state(&jobs, second), State::Blocked);
    go.send(()).unwrap();
    jobs.wait(first, SOON).unwrap();
    assert_eq!(state(&jobs, second), State::Scheduled);
    jobs.run_now(second).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    go.send(()).unwrap();
    assert_eq!(jobs.wait(second, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn one_in_the_line_of_a_limit_leaves_it_for_a_later_time_and_the_others_go_on() {
    let (place, clock) = (place(), stopped_clock());
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let ids = jobs.enqueue_many((1..5).map(|n| act(n).limit("k", 1))).unwrap();
    assert_eq!(state(&jobs, ids[1]), State::Blocked);
    // The one that is next, and one that waits.
    jobs.reschedule(vec![ids[0], ids[2]], later(&jobs, HOUR)).unwrap();
    assert_eq!([state(&jobs, ids[0]), state(&jobs, ids[2])], [State::Scheduled; 2]);
    assert_eq!(state(&jobs, ids[1]), State::Ready, "next in its place");
    // To the front of the line, before it.
    jobs.reschedule(ids[3], jobs.clock().now() - HOUR).unwrap();
    let engine = done(&place, &clock);
    let order: Vec<JobId> = std::iter::from_fn(|| engine.run_one().unwrap()).collect();
    assert_eq!(order, [ids[3], ids[1]]);
    jobs.run_now(ids[2]).unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn an_expiry_counts_from_the_new_time_and_what_has_expired_does_not_come_back() {
    let (place, clock) = (place(), stopped_clock());
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let id = jobs.enqueue(act(1).expires_after(HOUR)).unwrap();
    let unique = || act(2).unique_key("k").expires_after(HOUR / 2);
    let late = jobs.enqueue(unique()).unwrap();
    jobs.reschedule(id, later(&jobs, 5 * HOUR)).unwrap();
    assert_eq!(jobs.get(id).unwrap().expires_at, Some(later(&jobs, 6 * HOUR)));
    clock.advance(HOUR / 2);
    // Nobody has ended it yet, and another one takes its key.
    let holder = jobs.enqueue(unique()).unwrap();
    assert_ne!(holder, late);
    assert_eq!(refused(jobs.reschedule(late, later(&jobs, HOUR))), State::Cancelled);
    assert_eq!(state(&jobs, late), State::Cancelled);
    jobs.reschedule(id, jobs.clock().now() - 9 * HOUR).unwrap();
    assert_eq!(jobs.get(id).unwrap().expires_at, Some(later(&jobs, HOUR)), "from now");
    let engine = done(&place, &clock);
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 0);
    assert_eq!(state(&jobs, id), State::Cancelled);
}

#[test]
fn an_engine_that_sleeps_wakes_for_the_new_time() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let ids = jobs.enqueue_many((0..3).map(|n| act(n).delay(HOUR))).unwrap();
    jobs.reschedule(ids[0], later(&jobs, Duration::from_millis(20))).unwrap();
    jobs.reschedule(ids[1], later(&jobs, Duration::ZERO)).unwrap();
    jobs.run_now(ids[2]).unwrap();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn what_lies_ready_in_a_tray_is_taken_out_and_moved() {
    let place = place();
    let jobs = place.open();
    let engine =
        acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["*"]).workers(2)).start().unwrap();
    let ids = jobs.enqueue_many((0..3_000).map(act)).unwrap();
    let at = later(&jobs, HOUR);
    let mut moved = Vec::new();
    for &id in ids.iter().rev() {
        match jobs.reschedule(id, at) {
            Ok(_) => moved.push(id),
            Err(Error::WrongState { state, .. }) => assert_ne!(state, State::Ready),
            Err(error) => panic!("{error}"),
        }
    }
    for id in ids.into_iter().filter(|id| !moved.contains(id)) {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    for &id in &moved {
        let job = jobs.get(id).unwrap();
        assert_eq!(
            (job.state, job.run_at.unix_timestamp()),
            (State::Scheduled, at.unix_timestamp())
        );
    }
    engine.stop(SOON).unwrap();
}
