//! Expiry: a job that could not start in time ends as cancelled.

use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use legwork::{Error, Event, Failure, Filter, JobId, Jobs, NewJob, Outcome, Pool, Scope, State};
use serde_json::json;

use crate::common::{Child, SOON, child_file, place, say, stopped_clock, wait_for};
use crate::scripted::{Act, acting};

const MINUTE: Duration = Duration::from_secs(60);
const REASON: &str = "expired: it could not start in time";

fn within(time: Duration, n: i64) -> NewJob {
    NewJob::new(Act { n }).expires_after(time)
}

#[track_caller]
fn assert_expired(jobs: &Jobs, id: JobId) {
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.reason.as_deref()), (State::Cancelled, Some(REASON)));
    assert_eq!((job.attempts, job.started_at), (0, None));
}

#[test]
fn a_job_that_starts_in_time_runs_and_one_that_does_not_is_cancelled() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let in_time = jobs.enqueue(within(2 * MINUTE, 1)).unwrap();
    let late = jobs.enqueue(within(MINUTE, 2)).unwrap();
    let job = jobs.get(late).unwrap();
    assert_eq!(job.expires_at, Some(job.run_at + MINUTE));
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 1);
    let job = jobs.get(in_time).unwrap();
    assert_eq!((job.state, job.expires_at), (State::Completed, None));
    assert_expired(&jobs, late);
}

#[test]
fn the_time_counts_from_the_time_it_may_run() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let id = jobs.enqueue(within(MINUTE, 1).delay(10 * MINUTE)).unwrap();
    engine.advance(10 * MINUTE + MINUTE / 2);
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn what_keeps_a_job_from_starting_does_not_keep_it_from_expiring() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let events = jobs.events();
    let _engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    jobs.pause(Scope::Queue("paused".into())).unwrap();
    jobs.close_gate("online").unwrap();
    let ids = [
        jobs.enqueue(within(MINUTE, 1).queue("paused")).unwrap(),
        jobs.enqueue(within(MINUTE, 2).gate("online")).unwrap(),
        jobs.enqueue(NewJob::of_kind("unknown", json!({})).expires_after(MINUTE)).unwrap(),
    ];
    clock.advance(MINUTE);
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Cancelled);
        assert_expired(&jobs, id);
    }
    let mut told: Vec<JobId> = Vec::new();
    wait_for(&events, |event| {
        if let Event::Finished { id, state: State::Cancelled, took: None, .. } = event {
            told.push(*id);
        }
        told.len() == 3
    });
    told.sort_unstable();
    assert_eq!(told, ids);
}

#[test]
fn by_the_systems_clock_the_alarm_comes_by_itself() {
    let place = place();
    let jobs = place.open();
    let _engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    jobs.close_gate("online").unwrap();
    let id = jobs.enqueue(within(Duration::from_millis(20), 1).gate("online")).unwrap();
    jobs.wait(id, SOON).unwrap();
    assert_expired(&jobs, id);
}

#[test]
fn retries_and_snoozes_never_expire() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, cx| match (act.n, cx.attempt()) {
        (1, 1) => Err(Failure::msg("later")),
        (2, 1) if cx.jobs().clock().now() < time::macros::datetime!(2026-01-01 0:01 UTC) => {
            Ok(Outcome::snooze(2 * MINUTE))
        }
        _ => Ok(Outcome::Done),
    })
    .manual()
    .unwrap();
    let ids = jobs.enqueue_many((1..=2).map(|n| within(Duration::from_secs(1), n))).unwrap();
    assert_eq!(engine.run_due().unwrap(), 2);
    engine.advance(10 * MINUTE);
    assert_eq!(engine.run_due().unwrap(), 2);
    for id in ids {
        assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    }
}

#[test]
fn an_expired_job_that_is_retried_runs_without_expiry() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let id = jobs.enqueue(within(MINUTE, 1)).unwrap();
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 0);
    jobs.retry(id).unwrap();
    assert_eq!(jobs.get(id).unwrap().expires_at, None);
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn however_many_expire_at_once_a_job_behind_them_runs() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    jobs.enqueue_many((0..2_000).map(|n| within(MINUTE, n))).unwrap();
    let last = jobs.enqueue(Act { n: -1 }).unwrap();
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(last).unwrap().state, State::Completed);
    engine.run_due().unwrap();
    assert_eq!(jobs.count(&Filter::new().state(State::Cancelled)).unwrap(), 2_000);
}

#[test]
fn jobs_with_an_expiry_run_in_their_turn_among_those_without() {
    let place = place();
    let jobs = place.open();
    let (tell, told) = unbounded();
    let engine = acting(&jobs, move |act, _| {
        tell.send(act.n).unwrap();
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(1))
    .start()
    .unwrap();
    jobs.pause(Scope::All).unwrap();
    let job = |n: i64| if n % 7 == 3 { within(600 * MINUTE, n) } else { NewJob::new(Act { n }) };
    jobs.enqueue_many((0..2_000).map(job)).unwrap();
    jobs.resume(Scope::All).unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn one_that_had_started_and_was_given_back_does_not_expire() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let id = jobs.enqueue(within(MINUTE, 1)).unwrap();
    let (tell, told) = bounded(1);
    let engine = acting(&jobs, move |_, cx| {
        tell.send(()).unwrap();
        loop {
            cx.checkpoint()?;
            std::thread::yield_now();
        }
    })
    .start()
    .unwrap();
    told.recv_timeout(SOON).unwrap();
    engine.stop(Duration::ZERO).unwrap();
    drop(engine);
    assert_eq!(jobs.get(id).unwrap().state, State::Ready);
    clock.advance(MINUTE);
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn an_expiry_must_be_longer_than_zero() {
    let place = place();
    let jobs = place.open();
    let refused = jobs.enqueue(within(Duration::ZERO, 1));
    assert!(matches!(refused, Err(Error::Invalid { what: "expiry", .. })));
    let never = jobs.enqueue(within(Duration::MAX, 1)).unwrap();
    assert_eq!(jobs.get(never).unwrap().expires_at, None);
}

#[test]
fn on_the_apps_own_connection_a_job_expires_too() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let _engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    jobs.pause(Scope::All).unwrap();
    let id = jobs.enqueue_in(&place.connect(), within(MINUTE, 1)).unwrap();
    clock.advance(MINUTE);
    jobs.wait(id, SOON).unwrap();
    assert_expired(&jobs, id);
}

/// Runs an engine until told otherwise.
#[test]
#[ignore = "a child process of the tests here"]
fn child() {
    let Some(file) = child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    say("runs");
    std::io::stdin().lines().next();
    drop(engine);
}

#[test]
fn an_engine_in_another_process_sees_to_what_expires() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    jobs.pause(Scope::All).unwrap();
    let other = Child::start("expiry::child", &place.path, "");
    other.wait_for("runs");
    let id = jobs.enqueue(within(Duration::from_millis(20), 1)).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().reason.as_deref(), Some(REASON));
}
