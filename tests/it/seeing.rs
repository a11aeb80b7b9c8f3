//! Seeing all at once: how jobs have failed, what is ready, who runs what.

use std::time::Duration;

use legwork::{Engine, Failure, Filter, JobId, NewJob, Outcome, Pool, Scope, State};
use serde_json::json;

use crate::common::{SOON, place, stopped_clock, until};
use crate::scripted::{Act, RateLimited, acting, holding};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn failures_that_differ_in_numbers_alone_are_one_group() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let start = jobs.clock().now();
    let engine = acting(&jobs, |act, _| match act.n {
        0 => Err(RateLimited.into()),
        n if n > 100 => Err(Failure::msg("no \"disk\"").into_fatal()),
        n => Err(Failure::msg(format!("timed out after {n}s")).into_fatal()),
    });
    let engine = engine.manual().unwrap();
    for n in [12, 13, 101, 14, 15, 16, 17, 0] {
        jobs.enqueue(NewJob::new(Act { n }).queue(format!("q{}", n % 2))).unwrap();
        engine.run_due().unwrap();
        engine.advance(Duration::from_secs(1));
    }
    let groups = jobs.failures(&Filter::new(), 10).unwrap();
    assert_eq!(groups.len(), 2, "one that will be tried again is not asked for: {groups:?}");
    let group = &groups[0];
    assert_eq!((&*group.kind, &*group.error), ("act", "timed out after #s"));
    assert_eq!((group.count, &*group.example), (6, "timed out after 17s"));
    assert_eq!((group.first, group.last), (start, start + Duration::from_secs(6)));
    assert_eq!(group.newest, [7, 6, 5, 4, 2].map(JobId));
    assert_eq!((&*groups[1].error, groups[1].count), ("no \"…\"", 1));

    assert_eq!(jobs.failures(&Filter::new(), 1).unwrap(), groups[..1]);
    let retrying = Filter::new().state(State::Retrying);
    let found = jobs.failures(&retrying, 10).unwrap();
    assert_eq!((&*found[0].error, found[0].count, found.len()), ("rate limited", 1, 1));
    let both = retrying.state(State::Failed).state(State::Ready);
    assert_eq!(jobs.failures(&both, 10).unwrap().len(), 3);
    let other = Filter::new().state(State::Completed);
    assert_eq!(jobs.failures(&other, 10).unwrap(), []);
    let some = Filter::new().queue("q1").failed_since(start + Duration::from_secs(2));
    assert_eq!(jobs.failures(&some, 10).unwrap()[0].newest, [7, 5].map(JobId));
}

#[test]
fn failures_are_counted_to_the_last_of_many() {
    let place = place();
    let jobs = place.open();
    jobs.enqueue(Act { n: 1 }).unwrap();
    // By hand, for the sake of time.
    place
        .connect()
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 3509)
             INSERT INTO legwork_history (id, lane, state, priority, run_at, enqueued_at, attempts,
                                          finished_at, prune_at, args, reason)
             SELECT i, 1, 7, 0, i, i, 1, i, 9e15, '{}', 'failed at ' || i FROM n",
        )
        .unwrap();
    let groups = jobs.failures(&Filter::new(), 10).unwrap();
    assert_eq!((groups.len(), groups[0].count), (1, 3_500));
    assert_eq!(groups[0].newest[0], JobId(3_509));
}

#[test]
fn the_backlog_is_what_waits_for_a_worker_and_for_nothing_else() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let mail = |queue: &str| NewJob::of_kind("mail", json!({})).queue(queue);
    jobs.enqueue(mail("high")).unwrap();
    jobs.clock().advance(MINUTE);
    jobs.enqueue_many([mail("high"), mail("low").delay(MINUTE), mail("low").gate("online")])
        .unwrap();
    jobs.enqueue(NewJob::of_kind("digest", json!({})).queue("high").gate("online")).unwrap();
    jobs.close_gate("online").unwrap();
    let waits = jobs.backlog().unwrap();
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!((&*waits[0].queue, &*waits[0].kind, waits[0].ready), ("high", "mail", 2));
    assert_eq!((waits[0].oldest, waits[0].paused), (MINUTE, false));
    let stats = jobs.stats().unwrap();
    assert_eq!(stats.queues["high"].gates["online"], 1);
    assert_eq!(stats.queues["high"].states[&State::Blocked], 1);
    assert_eq!(stats.queues["high"].oldest_ready, Some(MINUTE));
    assert_eq!(stats.queues["low"].gates["online"], 1);

    jobs.open_gate("online").unwrap();
    assert_eq!(jobs.stats().unwrap().queues["high"].gates.len(), 0);
    jobs.pause(Scope::Kind("digest".into())).unwrap();
    let waits = jobs.backlog().unwrap();
    let shown: Vec<_> = waits.iter().map(|w| (&*w.queue, &*w.kind, w.ready, w.paused)).collect();
    let expected =
        [("high", "digest", 1, true), ("high", "mail", 2, false), ("low", "mail", 1, false)];
    assert_eq!(shown, expected);
}

#[test]
fn workers_tell_the_pools_of_each_engine_and_what_it_runs() {
    let place = place();
    let jobs = place.open();
    let (engine, started, go) = holding(&jobs);
    let engine = engine
        .pool(Pool::new(["mail", "default", "-slow"]).workers(2).name("fast"))
        .pool(Pool::weighted([("slow", 3), ("tmp*", 1)]).workers(0).every(MINUTE))
        .start()
        .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    started.recv_timeout(SOON).unwrap();
    let workers = jobs.workers().unwrap();
    assert_eq!(workers.len(), 1);
    let worker = &workers[0];
    assert_eq!((worker.instance.pid, worker.instance.alive), (std::process::id(), true));
    let [fast, slow] = &worker.instance.pools[..] else { panic!("{worker:?}") };
    assert_eq!((&*fast.name, fast.workers, fast.every), ("fast", 2, None));
    assert_eq!(fast.queues, ["mail", "default", "-slow"]);
    assert_eq!((&*slow.name, slow.workers, slow.every), ("slow,tmp*", 0, Some(MINUTE)));
    assert_eq!((slow.queues.len(), &slow.weights[..]), (2, &[3, 1][..]));
    assert!(worker.instance.serves("mail") && !worker.instance.serves("slow"));
    let [job] = &worker.running[..] else { panic!("{worker:?}") };
    assert_eq!((job.id, &*job.kind, &*job.queue, job.attempt), (id, "act", "default", 1));
    assert_eq!((worker.held, job.progress.clone(), job.cancel_requested), (1, None, false));
    assert_eq!(jobs.instances().unwrap()[0], worker.instance);

    engine.resize("slow,tmp*", 5).unwrap();
    until("the new number is written", || jobs.workers().unwrap()[0].instance.serves("slow"));
    assert_eq!(jobs.workers().unwrap()[0].instance.workers(), 7);
    go.send(()).unwrap();
    jobs.wait(id, SOON).unwrap();
    engine.stop(SOON).unwrap();
    drop(engine);
    assert_eq!(jobs.workers().unwrap(), []);
}

#[test]
fn a_manual_engine_has_no_workers_and_broken_pools_show_as_none() {
    let place = place();
    let jobs = place.open();
    let _engine = Engine::builder(&jobs).pool(Pool::new(["*"]).workers(3)).manual().unwrap();
    let instance = &jobs.instances().unwrap()[0];
    assert_eq!((instance.pools.len(), instance.workers()), (1, 0));
    assert!(!instance.serves("mail") && instance.pools[0].serves("mail"));
    let set = "UPDATE legwork_instances SET pools = '[{\"name\": 7}]'";
    place.connect().execute(set, []).unwrap();
    assert_eq!(jobs.instances().unwrap()[0].pools, []);
}

#[test]
fn a_job_that_reports_is_seen_with_its_progress_and_attempt() {
    let place = place();
    let jobs = place.open();
    let (said, has_said) = crossbeam_channel::bounded(1);
    let (go, gone) = crossbeam_channel::bounded::<()>(1);
    let engine = acting(&jobs, move |_, cx| {
        cx.progress(3, 4);
        cx.message("nearly");
        said.send(()).unwrap();
        gone.recv_timeout(SOON)?;
        Ok(Outcome::Done)
    });
    let engine = engine.pool(Pool::new(["*"]).workers(1)).start().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    has_said.recv_timeout(SOON).unwrap();
    let mut written = None;
    until("the progress is written", || {
        written = jobs.workers().unwrap()[0].running[0].progress.clone();
        written.is_some()
    });
    let progress = written.unwrap();
    assert_eq!((progress.done, progress.total), (3, 4));
    jobs.cancel(id).unwrap();
    assert!(jobs.workers().unwrap()[0].running[0].cancel_requested);
    go.send(()).unwrap();
    jobs.wait(id, SOON).unwrap();
    drop(engine);
}
