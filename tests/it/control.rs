//! Control from outside: pause, resume, cancel, retry, delete.

use std::time::Duration;

use crossbeam_channel::unbounded;
use legwork::{Error, Event, Failure, Filter, JobId, NewJob, Outcome, Pool, Scope, State};

use crate::common::{SOON, place, stopped_clock, wait_for};
use crate::scripted::{Act, acting, holding};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn waiting_jobs_are_cancelled_at_once() {
    let place = place();
    let jobs = place.open();
    let ready = jobs.enqueue(Act { n: 1 }).unwrap();
    let scheduled = jobs.enqueue(NewJob::new(Act { n: 2 }).delay(HOUR)).unwrap();
    for id in [ready, scheduled] {
        assert_eq!(jobs.cancel(id).unwrap().changed, 1);
        let job = jobs.get(id).unwrap();
        assert_eq!(job.state, State::Cancelled);
        assert_eq!(job.reason.as_deref(), Some("cancelled by request"));
        assert!(matches!(
            jobs.cancel(id),
            Err(Error::WrongState { state: State::Cancelled, verb: "cancel", .. })
        ));
    }
    let engine = acting(&jobs, |_, _| panic!("a cancelled job ran")).manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
}

#[test]
fn a_wait_for_a_job_ends_when_it_is_cancelled() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let waiting = jobs.clone();
    let waiter = std::thread::spawn(move || waiting.wait(id, SOON).unwrap().state);
    jobs.cancel(id).unwrap();
    assert_eq!(waiter.join().unwrap(), State::Cancelled);
}

#[test]
fn a_wait_has_its_time_out_and_names_the_state() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let waited = jobs.wait(id, Duration::from_millis(1));
    assert!(matches!(waited, Err(Error::Timeout { state: State::Ready, .. })));
    assert!(matches!(jobs.wait(JobId(99), SOON), Err(Error::NotFound(JobId(99)))));
}

#[test]
fn retry_runs_finished_and_retrying_jobs_again_with_counters_reset() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, _| match act.n {
        1 => Ok(Outcome::Done),
        2 => Err(Failure::msg("no").into_fatal()),
        3 => Ok(Outcome::cancel("no")),
        _ => Err(Failure::msg("later")),
    })
    .manual()
    .unwrap();
    let ids = jobs.enqueue_many((1..=4).map(|n| Act { n })).unwrap();
    engine.run_due().unwrap();
    for (&id, state) in
        ids.iter().zip([State::Completed, State::Failed, State::Cancelled, State::Retrying])
    {
        assert_eq!(jobs.get(id).unwrap().state, state);
        jobs.retry(id).unwrap();
        let job = jobs.get(id).unwrap();
        assert_eq!((job.state, job.attempts), (State::Ready, 0));
        assert!(matches!(
            jobs.retry(id),
            Err(Error::WrongState { state: State::Ready, verb: "retry", .. })
        ));
    }
    assert_eq!(engine.run_due().unwrap(), 4);
}

#[test]
fn verbs_by_filter_and_by_ids_skip_what_they_cannot_be_done_to() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Err(Failure::msg("no").into_fatal())).manual().unwrap();
    let failed = jobs.enqueue_many((0..1200).map(|n| NewJob::new(Act { n }).tag("bulk"))).unwrap();
    engine.run_due().unwrap();
    let ready = jobs.enqueue(Act { n: -1 }).unwrap();

    let done = jobs.retry(vec![failed[0], ready, JobId(99_999)]).unwrap();
    assert_eq!((done.changed, done.skipped), (1, 2));
    let all_failed = Filter::new().state(State::Failed).tag("bulk");
    assert_eq!(jobs.count(&all_failed).unwrap(), 1199);
    assert_eq!(jobs.retry(all_failed.clone()).unwrap().changed, 1199);
    assert_eq!(jobs.count(&all_failed).unwrap(), 0);
    assert_eq!(jobs.cancel(Filter::new().tag("bulk")).unwrap().changed, 1200);
    assert_eq!(jobs.delete(Filter::new()).unwrap().changed, 1201);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 0);
}

#[test]
fn delete_removes_a_job_with_all_that_is_kept_of_it_but_not_a_running_one() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |act, cx| {
        cx.log("a line");
        if act.n == 2 {
            assert!(matches!(
                cx.jobs().delete(cx.id()),
                Err(Error::WrongState { state: State::Running, .. })
            ));
        }
        Err(Failure::msg("no").into_fatal())
    })
    .manual()
    .unwrap();
    let first = jobs.enqueue(Act { n: 1 }).unwrap();
    let second = jobs.enqueue(Act { n: 2 }).unwrap();
    engine.run_due().unwrap();
    jobs.delete(first).unwrap();
    assert!(matches!(jobs.get(first), Err(Error::NotFound(_))));
    assert!(jobs.attempts(first).unwrap().is_empty() && jobs.logs(first).unwrap().is_empty());
    assert_eq!(jobs.attempts(second).unwrap().len(), 1);
    assert_eq!(jobs.logs(second).unwrap().len(), 1);
}

#[test]
fn what_is_paused_is_not_started_and_what_is_not_goes_on() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    jobs.pause(Scope::Queue("slow".into())).unwrap();
    let slow = jobs.enqueue(NewJob::new(Act { n: 1 }).queue("slow")).unwrap();
    let fast = jobs.enqueue(NewJob::new(Act { n: 2 }).queue("fast")).unwrap();
    engine.run_due().unwrap();
    assert_eq!(jobs.get(slow).unwrap().state, State::Ready);
    assert_eq!(jobs.get(fast).unwrap().state, State::Completed);

    jobs.pause(Scope::All).unwrap();
    jobs.resume(Scope::Queue("slow".into())).unwrap();
    assert_eq!(engine.run_due().unwrap(), 0, "everything is still paused");
    jobs.resume(Scope::All).unwrap();
    jobs.pause(Scope::Kind("act".into())).unwrap();
    assert_eq!(engine.run_due().unwrap(), 0, "now by its kind");
    assert_eq!(jobs.stats().unwrap().paused, [Scope::Kind("act".into())]);
    jobs.resume(Scope::Kind("act".into())).unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn a_pause_survives_reopening() {
    let place = place();
    let jobs = place.open();
    jobs.pause(Scope::Queue("default".into())).unwrap();
    drop(jobs);
    let jobs = place.open();
    jobs.enqueue(Act { n: 1 }).unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
}

#[test]
fn a_pause_by_another_handle_is_effective_before_its_next_claim() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap();
    let other = place.open();
    other.pause(Scope::All).unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
    other.resume(Scope::All).unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn resuming_starts_waiting_jobs_at_once_in_parked_workers() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    jobs.pause(Scope::All).unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    jobs.resume(Scope::All).unwrap();
    wait_for(&events, |event| *event == Event::Resumed(Scope::All));
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn pausing_lets_running_jobs_go_on() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.start().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    jobs.pause(Scope::All).unwrap();
    go.send(()).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn bad_scopes_are_named() {
    let place = place();
    let jobs = place.open();
    for scope in [Scope::Queue(String::new()), Scope::Kind("a\nb".into())] {
        assert!(matches!(jobs.pause(scope), Err(Error::Invalid { .. })));
    }
}

#[test]
fn cancel_reaches_every_job_however_it_races_with_its_start() {
    let place = place();
    let jobs = place.open();
    let (ran, runs) = unbounded();
    let engine = acting(&jobs, move |act, cx| {
        // Ends only by the cancel: one that gets lost is a job that never ends.
        let ended = cx.wait(SOON);
        ran.send(act.n).unwrap();
        ended?;
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(4))
    .start()
    .unwrap();
    for n in 0..200 {
        let id = jobs.enqueue(Act { n }).unwrap();
        jobs.cancel(id).unwrap();
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Cancelled);
    }
    engine.stop(SOON).unwrap();
    assert!(runs.try_iter().count() <= 200);
}

#[test]
fn a_job_enqueued_by_a_handle_without_an_engine_is_found_by_one_with() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    // The lane is known to the engine, and known to be empty.
    jobs.enqueue(Act { n: 0 }).unwrap();
    engine.run_due().unwrap();
    let other = place.open();
    for n in 1..4 {
        other.enqueue(Act { n }).unwrap();
        assert_eq!(engine.run_due().unwrap(), 1);
    }
}
