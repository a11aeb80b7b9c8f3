//! Pools, queues and order; starting, resizing, emptying and stopping.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use legwork::{Engine, Error, Event, Jobs, ManualEngine, NewJob, Outcome, Pool, State};

use crate::common::{SOON, place, stopped_clock, wait_for};
use crate::scripted::{Act, acting};

fn noting(jobs: &Jobs, pool: Pool) -> (ManualEngine, Arc<Mutex<Vec<i64>>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let engine = acting(jobs, move |act, _| {
        noted.lock().unwrap().push(act.n);
        Ok(Outcome::Done)
    })
    .pool(pool)
    .manual()
    .unwrap();
    (engine, order)
}

fn job(n: i64, queue: &str, priority: i64) -> NewJob {
    NewJob::new(Act { n }).queue(queue).priority(priority)
}

#[test]
fn inside_a_queue_priority_then_start_time_then_id_decide() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let (engine, order) = noting(&jobs, Pool::new(["a"]));
    let now = jobs.clock().now();
    jobs.enqueue(job(4, "a", 0)).unwrap();
    jobs.enqueue(job(5, "a", 0)).unwrap();
    jobs.enqueue(job(3, "a", 0).run_at(now - Duration::from_secs(9))).unwrap();
    jobs.enqueue(job(6, "a", 7)).unwrap();
    jobs.enqueue(job(1, "a", -5)).unwrap();
    jobs.enqueue(job(2, "a", -5)).unwrap();
    engine.run_due().unwrap();
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_list_is_strict_in_its_order_and_a_star_orders_over_all_queues() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    {
        let (engine, order) = noting(&jobs, Pool::new(["high", "default"]));
        for (n, queue, priority) in [(4, "default", -9), (1, "high", 9), (9, "other", 0)] {
            jobs.enqueue(job(n, queue, priority)).unwrap();
        }
        engine.run_due().unwrap();
        assert_eq!(*order.lock().unwrap(), [1, 4], "and what is not listed is not served");
    }
    let (engine, order) = noting(&jobs, Pool::new(["*", "-never*"]));
    for (n, queue, priority) in [(3, "x", 5), (1, "y", -5), (2, "z", 0), (7, "never_a", -99)] {
        jobs.enqueue(job(n, queue, priority)).unwrap();
    }
    engine.run_due().unwrap();
    assert_eq!(*order.lock().unwrap(), [1, 9, 2, 3], "9 was left in `other`, at 0 before 2");
}

#[test]
fn a_prefix_serves_its_queues_in_one_order() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let (engine, order) = noting(&jobs, Pool::new(["mail*", "default"]));
    for (n, queue, priority) in [(3, "default", -9), (2, "mail_slow", 1), (1, "mail", 0)] {
        jobs.enqueue(job(n, queue, priority)).unwrap();
    }
    engine.run_due().unwrap();
    assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn weights_share_out_the_claims() {
    let place = place();
    let jobs =
        place.builder().clock(stopped_clock()).random(legwork::Random::seeded(5)).open().unwrap();
    let (engine, order) = noting(&jobs, Pool::weighted([("a", 3), ("b", 1)]));
    for queue in ["a", "b"] {
        jobs.enqueue_many((0..400).map(|_| job(i64::from(queue == "a"), queue, 0))).unwrap();
    }
    for _ in 0..400 {
        engine.run_one().unwrap();
    }
    let of_a: i64 = order.lock().unwrap().iter().sum();
    assert!((260..340).contains(&of_a), "{of_a} of 400 from the queue of weight 3 of 4");
}

#[test]
fn ten_thousand_queues_are_served_in_one_order() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let (engine, order) = noting(&jobs, Pool::new(["*"]));
    jobs.enqueue_many((0..10_000).map(|n| job(n, &format!("q{n}"), -n))).unwrap();
    for _ in 0..100 {
        engine.run_one().unwrap();
    }
    assert!(order.lock().unwrap().iter().copied().eq((9_900..10_000).rev()));
}

#[test]
fn pools_isolate_their_work() {
    let place = place();
    let jobs = place.open();
    let (go, gone) = bounded::<()>(0);
    let engine = acting(&jobs, move |act, _| {
        if act.n < 0 {
            gone.recv_timeout(SOON)?;
        }
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["slow"]).workers(1))
    .pool(Pool::new(["fast"]).workers(1))
    .start()
    .unwrap();
    let slow = jobs.enqueue(job(-1, "slow", 0)).unwrap();
    for n in 0..20 {
        let fast = jobs.enqueue(job(n, "fast", 0)).unwrap();
        assert_eq!(jobs.wait(fast, SOON).unwrap().state, State::Completed);
    }
    assert_eq!(jobs.get(slow).unwrap().state, State::Running);
    go.send(()).unwrap();
    engine.stop(SOON).unwrap();
}

#[test]
fn a_pool_is_resized_while_it_runs() {
    let place = place();
    let jobs = place.open();
    let (started, starts) = unbounded();
    let (go, gone) = unbounded::<()>();
    let engine = acting(&jobs, move |act, _| {
        started.send(act.n).unwrap();
        gone.recv_timeout(SOON)?;
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).name("main").workers(0))
    .start()
    .unwrap();
    jobs.enqueue_many((0..3).map(|n| Act { n })).unwrap();
    assert_eq!(jobs.health().unwrap().workers, 0);
    engine.resize("main", 3).unwrap();
    for _ in 0..3 {
        starts.recv_timeout(SOON).unwrap();
    }
    engine.resize("main", 1).unwrap();
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    engine.run_until_empty().unwrap();
    // One worker is left: of two jobs the second starts only when the first has ended.
    jobs.enqueue_many((3..5).map(|n| Act { n })).unwrap();
    starts.recv_timeout(SOON).unwrap();
    while jobs.health().unwrap().workers > 1 {
        std::thread::yield_now();
    }
    assert!(starts.try_recv().is_err());
    go.send(()).unwrap();
    starts.recv_timeout(SOON).unwrap();
    go.send(()).unwrap();
    assert!(matches!(engine.resize("other", 1), Err(Error::Invalid { .. })));
    engine.stop(SOON).unwrap();
    assert!(matches!(engine.resize("main", 1), Err(Error::Stopped(_))));
}

#[test]
fn run_until_empty_waits_for_retries_that_are_due_but_not_for_future_jobs() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, cx| {
        if cx.attempt() < 3 { Err(legwork::Failure::msg("again")) } else { Ok(Outcome::Done) }
    })
    .pool(Pool::new(["*"]).workers(2))
    .start()
    .unwrap();
    let retry = legwork::Retry::fixed(Duration::ZERO).attempts(3);
    let now =
        jobs.enqueue_many((0..50).map(|n| NewJob::new(Act { n }).retry(retry.clone()))).unwrap();
    let later = jobs.enqueue(NewJob::new(Act { n: 99 }).delay(Duration::from_secs(3600))).unwrap();
    engine.run_until_empty().unwrap();
    for id in now {
        assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    }
    assert_eq!(jobs.get(later).unwrap().state, State::Scheduled);
    engine.stop(SOON).unwrap();
}

#[test]
fn an_engine_tells_whether_it_is_empty_or_idle() {
    let place = place();
    let jobs = place.open();
    let (starting, starts) = unbounded();
    let (go, gate) = bounded::<()>(0);
    let engine = acting(&jobs, move |_, _| {
        starting.send(()).unwrap();
        gate.recv().unwrap();
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).name("main").workers(0))
    .start()
    .unwrap();
    let told = || (engine.is_empty().unwrap(), engine.is_idle().unwrap());
    jobs.enqueue(NewJob::new(Act { n: 0 }).delay(Duration::from_secs(3600))).unwrap();
    jobs.enqueue(NewJob::of_kind_json("another", "{}")).unwrap();
    assert_eq!(told(), (true, true), "nothing that it could run now");
    let limited = |n| NewJob::new(Act { n }).rate("calls", 1, Duration::from_secs(86_400));
    let first = jobs.enqueue_many([limited(1), limited(2)]).unwrap()[0];
    assert_eq!(told(), (false, false), "ready, though nobody is there to run it");
    engine.resize("main", 1).unwrap();
    starts.recv_timeout(SOON).unwrap();
    assert_eq!(told(), (false, false), "it runs");
    engine.quiet().unwrap();
    assert_eq!(told(), (false, false), "it runs still");
    go.send(()).unwrap();
    jobs.wait(first, SOON).unwrap();
    assert_eq!(told(), (false, true), "the second waits for the rate");
    jobs.pause(legwork::Scope::All).unwrap();
    assert_eq!(told(), (true, true), "what is paused is none");
    engine.stop(SOON).unwrap();
    assert!(matches!(engine.is_empty(), Err(Error::Stopped(_))));
    assert!(matches!(engine.is_idle(), Err(Error::Stopped(_))));
}

#[test]
fn delayed_jobs_start_when_the_clock_reaches_them_in_a_running_engine() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).delay(Duration::from_secs(60))).unwrap();
    clock.advance(Duration::from_secs(59));
    engine.run_until_empty().unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Scheduled);
    clock.advance(Duration::from_secs(1));
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn delayed_jobs_start_by_the_real_clock_without_any_call() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).delay(Duration::from_millis(50))).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert!(job.started_at.unwrap() >= job.run_at);
    engine.stop(SOON).unwrap();
}

#[test]
fn many_jobs_due_at_once_do_not_hold_up_a_more_urgent_one() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let (engine, order) = noting(&jobs, Pool::new(["urgent", "bulk"]));
    let delay = Duration::from_secs(60);
    jobs.enqueue_many((0..20_000).map(|n| job(n, "bulk", 0).delay(delay))).unwrap();
    clock.advance(delay);
    engine.run_one().unwrap();
    jobs.enqueue(job(-1, "urgent", 0)).unwrap();
    engine.run_one().unwrap();
    assert_eq!(*order.lock().unwrap(), [0, -1]);
}

#[test]
fn a_pool_on_a_cadence_drains_at_each_tick_only() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .pool(Pool::new(["*"]).workers(1).every(Duration::from_secs(3600)))
        .start()
        .unwrap();
    // Asked to empty itself it looks at once, however long its period is.
    let first = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!(jobs.get(first).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();

    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .pool(Pool::new(["*"]).workers(1).every(Duration::from_millis(20)))
        .start()
        .unwrap();
    let second = jobs.enqueue(Act { n: 2 }).unwrap();
    assert_eq!(jobs.wait(second, SOON).unwrap().state, State::Completed, "at its next tick");
    engine.stop(SOON).unwrap();
}

#[test]
fn hooks_tell_of_start_and_stop() {
    let place = place();
    let jobs = place.open();
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let told = Arc::clone(&told);
        move || told.lock().unwrap().push(what)
    };
    let engine = Engine::builder(&jobs)
        .on_started(note("started"))
        .on_stopping(note("stopping"))
        .on_stopped(note("stopped"))
        .start()
        .unwrap();
    engine.stop(SOON).unwrap();
    engine.stop(SOON).unwrap();
    drop(engine);
    assert_eq!(*told.lock().unwrap(), ["started", "stopping", "stopped"]);
}

#[test]
fn dropping_an_engine_stops_it_and_a_new_one_can_start() {
    let place = place();
    let jobs = place.open();
    for n in 0..5 {
        let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
        let id = jobs.enqueue(Act { n }).unwrap();
        jobs.wait(id, SOON).unwrap();
        drop(engine);
        assert_eq!(jobs.health().unwrap().workers, 0);
    }
    let side = std::path::PathBuf::from(format!("{}-legwork", jobs.path().display()));
    assert_eq!(std::fs::read_dir(side).unwrap().count(), 0, "no lock file is left");
}

#[test]
fn bad_registrations_and_pools_are_refused_at_the_start() {
    let place = place();
    let jobs = place.open();
    let twice = acting(&jobs, |_, _| Ok(Outcome::Done)).register::<Act>().start();
    assert!(matches!(twice, Err(Error::Invalid { .. })));
    for pools in [
        vec![Pool::new([""])],
        vec![Pool::new(["a"]), Pool::new(["a"])],
        vec![Pool::weighted([("a", 0)])],
        vec![Pool::new(["a"]).every(Duration::ZERO)],
        vec![Pool::new(["a"]).name("x\0y")],
    ] {
        let builder =
            pools.into_iter().fold(Engine::builder(&jobs), |builder, pool| builder.pool(pool));
        assert!(matches!(builder.start(), Err(Error::Invalid { .. })));
    }
}

#[test]
fn a_slow_attempt_is_told() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock).open().unwrap();
    let events = jobs.events();
    let engine = acting(&jobs, |act, cx| {
        cx.jobs().clock().advance(Duration::from_secs(act.n.unsigned_abs()));
        Ok(Outcome::Done)
    })
    .slow_after(Duration::from_secs(10))
    .manual()
    .unwrap();
    jobs.enqueue(Act { n: 5 }).unwrap();
    let slow = jobs.enqueue(Act { n: 11 }).unwrap();
    engine.run_due().unwrap();
    let event = wait_for(&events, |event| matches!(event, Event::Slow { .. }));
    let took = Duration::from_secs(11);
    assert_eq!(event, Event::Slow { id: slow, kind: "act".into(), took });
}

#[test]
fn drain_goes_past_jobs_that_nobody_here_runs() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let (engine, order) = noting(&jobs, Pool::new(["a"]));
    let hours = |n: u64| Duration::from_secs(n * 3600);
    jobs.enqueue(job(1, "elsewhere", 0).delay(hours(1))).unwrap();
    jobs.enqueue(job(2, "a", 0).delay(hours(2))).unwrap();
    assert_eq!(engine.drain().unwrap(), 1);
    assert_eq!(*order.lock().unwrap(), [2]);
}

#[test]
fn a_quiet_engine_ends_what_it_does_and_starts_nothing_until_it_resumes() {
    let place = place();
    let jobs = place.open();
    let (tell, told) = unbounded();
    let (go, gone) = bounded::<()>(0);
    let engine = acting(&jobs, move |act, _| {
        tell.send(act.n).unwrap();
        if act.n == 1 {
            let _ = gone.recv();
        }
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["a"]).workers(2))
    .start()
    .unwrap();
    let first = jobs.enqueue(job(1, "a", 0)).unwrap();
    assert_eq!(told.recv_timeout(SOON).unwrap(), 1);
    let at_work = engine.at_work();
    assert_eq!(at_work.len(), 1);
    assert_eq!((at_work[0].id, at_work[0].attempt), (first, 1));
    assert!(at_work[0].worker.starts_with("a-") && !at_work[0].asked_to_stop, "{at_work:?}");

    engine.quiet().unwrap();
    let second = jobs.enqueue(job(2, "a", 0)).unwrap();
    drop(go);
    assert_eq!(jobs.wait(first, SOON).unwrap().state, State::Completed);
    // Those who look do not count on it.
    assert_eq!(jobs.instances().unwrap()[0].workers(), 0);
    // A pool that is resized meanwhile stays quiet.
    engine.resize("a", 1).unwrap();
    assert!(engine.at_work().is_empty() && told.is_empty());
    assert_eq!(jobs.get(second).unwrap().state, State::Ready);

    engine.resume().unwrap();
    assert_eq!(jobs.wait(second, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
    assert!(matches!(engine.quiet(), Err(Error::Stopped(_))));
}
