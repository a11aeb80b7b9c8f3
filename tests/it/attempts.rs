//! Attempts: how they end, and what follows.

mod overdue;
mod stopped;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use legwork::{Event, Failure, Filter, NewJob, Outcome, Pool, ResultExt, Retry, State};

use crate::common::{SOON, place, stopped_clock, wait_for};
use crate::scripted::{Act, Gone, RateLimited, acting, acting_with_hook};

const S: Duration = Duration::from_secs(1);

#[test]
fn a_failed_attempt_is_retried_by_its_policy_until_it_gives_up() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let hook = Arc::new(AtomicU32::new(0));
    let in_hook = Arc::clone(&hook);
    let engine = acting_with_hook(
        &jobs,
        |_, cx| Err(Failure::msg(format!("no {}", cx.attempt()))),
        move |_, failure| {
            assert_eq!(failure.to_string(), "no 3");
            in_hook.fetch_add(1, Ordering::SeqCst);
        },
    )
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();

    assert_eq!(engine.run_due().unwrap(), 1);
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Retrying, 1));
    assert_eq!(job.run_at, jobs.clock().now() + 10 * S);

    engine.advance(9 * S);
    assert_eq!(engine.run_due().unwrap(), 0, "not before its time");
    engine.advance(S);
    assert_eq!(engine.run_due().unwrap(), 1);
    engine.advance(10 * S);
    assert_eq!(engine.run_due().unwrap(), 1);

    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Failed, 3));
    assert_eq!(job.reason.as_deref(), Some("no 3"));
    assert_eq!(hook.load(Ordering::SeqCst), 1, "the give-up hook is called once");
    let errors: Vec<_> =
        jobs.attempts(id).unwrap().into_iter().map(|a| (a.attempt, a.error, a.counted)).collect();
    let no = |n: u32| (n, format!("no {n}"), true);
    assert_eq!(errors, [no(1), no(2), no(3)]);
}

#[test]
fn a_fatal_error_fails_for_good_at_once() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| {
        "x".parse::<u32>().fatal()?;
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Failed, 1));
    assert_eq!(job.reason.as_deref(), Some("invalid digit found in string"));
}

#[test]
fn rules_for_error_types_decide_before_the_policy() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, _| if act.n == 1 { Err(RateLimited)? } else { Err(Gone)? })
        .manual()
        .unwrap();
    let limited = jobs.enqueue(Act { n: 1 }).unwrap();
    let gone = jobs.enqueue(Act { n: 2 }).unwrap();
    engine.run_due().unwrap();

    assert_eq!(jobs.get(limited).unwrap().run_at, jobs.clock().now() + 60 * S);
    let discarded = jobs.get(gone).unwrap();
    assert_eq!(discarded.state, State::Cancelled);
    assert_eq!(discarded.reason.as_deref(), Some("discarded: gone"));

    engine.advance(60 * S);
    engine.run_due().unwrap();
    assert_eq!(jobs.get(limited).unwrap().state, State::Failed, "two attempts by its rule");
}

#[test]
fn a_jobs_own_policy_wins_over_its_kinds() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Err(Failure::msg("no"))).manual().unwrap();
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).retry(Retry::none())).unwrap();
    engine.run_due().unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Failed);
}

#[test]
fn a_panic_is_a_failed_attempt_with_its_message_and_location() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = acting(&jobs, |act, _| {
        if act.n == 1 {
            panic!("out of cheese");
        }
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(1))
    .start()
    .unwrap();
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).retry(Retry::none())).unwrap();
    let next = jobs.enqueue(Act { n: 2 }).unwrap();
    wait_for(&events, |event| matches!(event, Event::Failed { id: failed, .. } if *failed == id));
    let reason = jobs.get(id).unwrap().reason.unwrap();
    assert!(reason.starts_with("panicked at tests/it/attempts.rs:"), "{reason}");
    assert!(reason.ends_with(": out of cheese"), "{reason}");
    assert_eq!(jobs.wait(next, SOON).unwrap().state, State::Completed, "the worker goes on");
    engine.stop(SOON).unwrap();
}

#[test]
fn a_snooze_runs_again_later_and_uses_up_no_attempt() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let engine = acting(&jobs, move |_, cx| {
        assert_eq!(cx.attempt(), 1);
        match counted.fetch_add(1, Ordering::SeqCst) {
            0..5 => Ok(Outcome::snooze(30 * S)),
            _ => Ok(Outcome::Done),
        }
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Scheduled, 0));
    assert_eq!(job.run_at, jobs.clock().now() + 30 * S);
    assert_eq!(engine.drain().unwrap(), 5);
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    assert!(jobs.attempts(id).unwrap().is_empty());
}

#[test]
fn a_job_can_cancel_itself_with_a_reason() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::cancel("not needed"))).manual().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.reason.as_deref()), (State::Cancelled, Some("not needed")));
}

#[test]
fn a_running_job_is_cancelled_through_its_context() {
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
    assert_eq!(jobs.cancel(id).unwrap().changed, 1);
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Cancelled, 0));
    engine.stop(SOON).unwrap();
}

#[test]
fn a_cancelled_job_that_fails_is_not_retried_and_one_that_completes_is_completed() {
    let place = place();
    let jobs = place.open();
    let (started, has_started) = unbounded();
    let engine = acting(&jobs, move |act, cx| {
        started.send(()).unwrap();
        let _ = cx.wait(SOON);
        if act.n == 1 { Err(Failure::msg("cut off")) } else { Ok(Outcome::Done) }
    })
    .pool(Pool::new(["*"]).workers(2))
    .start()
    .unwrap();
    let fails = jobs.enqueue(Act { n: 1 }).unwrap();
    let completes = jobs.enqueue(Act { n: 2 }).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    jobs.cancel(Filter::new().state(State::Running)).unwrap();
    assert_eq!(jobs.wait(fails, SOON).unwrap().state, State::Cancelled);
    assert_eq!(jobs.wait(completes, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn progress_message_log_and_output_are_kept_with_the_job() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = acting(&jobs, |_, cx| {
        for n in 1..=100 {
            cx.progress(n, 100);
        }
        cx.message("almost there");
        cx.log("first");
        cx.log(format!("second\0{}", "x".repeat(10_000)));
        cx.output(&vec![1, 2, 3])?;
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let progress = jobs.get(id).unwrap().progress.unwrap();
    assert_eq!((progress.done, progress.total), (100, 100));
    assert_eq!(progress.message.as_deref(), Some("almost there"));
    assert_eq!(jobs.output::<Vec<i32>>(id).unwrap(), Some(vec![1, 2, 3]));
    let lines: Vec<_> = jobs.logs(id).unwrap().into_iter().map(|line| line.line).collect();
    assert_eq!(lines[0], "first");
    assert!(lines[1].ends_with(" bytes cut)") && lines[1].len() <= 4096, "cut visibly");
    let told = std::iter::from_fn(|| events.try_recv())
        .filter(|event| matches!(event, Event::Progress { .. }))
        .count();
    assert_eq!(told, 101, "live in the process, every one");
}

#[test]
fn too_many_log_lines_and_too_large_outputs_are_bounded() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, cx| {
        for n in 0..5_000 {
            cx.log(n);
        }
        assert!(matches!(
            cx.output(&"x".repeat(2 << 20)),
            Err(legwork::Error::Invalid { what: "output", .. })
        ));
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let lines = jobs.logs(id).unwrap();
    assert_eq!(lines.len(), 1_000);
    assert!(lines[999].line.contains("no more lines"));
}

#[test]
fn middleware_stands_around_every_attempt_and_can_decide_in_its_place() {
    let place = place();
    let order = Arc::new(Mutex::new(Vec::new()));
    let noting = |name: &'static str| {
        let order = Arc::clone(&order);
        move |running: &legwork::Running<'_>, next: legwork::Next<'_>| {
            assert_eq!(running.meta.get("trace").map(String::as_str), Some("t1"));
            order.lock().unwrap().push(format!("{name} in"));
            let result =
                if running.args.contains('7') { Ok(Outcome::cancel("7")) } else { next.run() };
            order.lock().unwrap().push(format!("{name} out"));
            result
        }
    };
    let jobs = place.builder().middleware(noting("handle")).open().unwrap();
    let engine =
        acting(&jobs, |_, _| Ok(Outcome::Done)).middleware(noting("engine")).manual().unwrap();
    jobs.enqueue(NewJob::new(Act { n: 1 }).meta("trace", "t1")).unwrap();
    engine.run_due().unwrap();
    assert_eq!(*order.lock().unwrap(), ["handle in", "engine in", "engine out", "handle out"]);
    let id = jobs.enqueue(NewJob::new(Act { n: 7 }).meta("trace", "t1")).unwrap();
    engine.run_due().unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Cancelled);
}

#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("cannot be said")
    }
}

impl std::error::Error for Unspeakable {}

#[test]
fn an_error_that_panics_when_it_is_told_fails_its_job_and_nothing_else() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine =
        acting(&jobs, |act, _| if act.n == 1 { Err(Unspeakable)? } else { Ok(Outcome::Done) })
            .pool(Pool::new(["*"]).workers(1))
            .start()
            .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let next = jobs.enqueue(Act { n: 2 }).unwrap();
    wait_for(&events, |event| matches!(event, Event::Failed { .. }));
    assert!(jobs.get(id).unwrap().reason.unwrap().contains("cannot be said"));
    assert_eq!(jobs.wait(next, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn an_end_that_the_file_refuses_is_a_visible_failure() {
    let place = place();
    let jobs = place.open();
    place
        .connect()
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON legwork_history WHEN new.output IS NOT NULL
             BEGIN SELECT raise(ABORT, 'no outputs here'); END",
        )
        .unwrap();
    let engine = acting(&jobs, |_, cx| {
        cx.output(&1)?;
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!(job.state, State::Failed);
    assert!(job.reason.unwrap().contains("no outputs here"));
}
