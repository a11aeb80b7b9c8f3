//! Seeing: records, pages, counts, statistics, health; and what is kept for how long.

use std::time::Duration;

use legwork::{Error, Failure, Filter, JobId, NewJob, Outcome, Retention, Retry, State};

use crate::common::{place, run_until, stopped_clock};
use crate::scripted::{Act, acting};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_record_tells_all_about_a_job() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let start = jobs.clock().now();
    let new = NewJob::new(Act { n: 7 })
        .queue("mail")
        .priority(3)
        .delay(Duration::from_secs(5))
        .tag("b")
        .tag("a")
        .meta("trace", "t1");
    let id = jobs.enqueue(new).unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.kind.as_str(), job.queue.as_str(), job.priority), ("act", "mail", 3));
    assert_eq!((job.state, job.attempts), (State::Scheduled, 0));
    assert_eq!((job.enqueued_at, job.run_at), (start, start + Duration::from_secs(5)));
    assert_eq!(job.args_as::<Act>().unwrap(), Act { n: 7 });
    assert_eq!(job.tags, ["a", "b"]);
    assert_eq!(job.meta["trace"], "t1");

    let engine = acting(&jobs, |_, cx| {
        cx.jobs().clock().advance(Duration::from_secs(2));
        assert_eq!(cx.jobs().get(cx.id()).unwrap().state, State::Running);
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    engine.drain().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    assert_eq!(job.started_at, Some(start + Duration::from_secs(5)));
    assert_eq!(job.finished_at, Some(start + Duration::from_secs(7)));
    assert!(matches!(jobs.get(JobId(99)), Err(Error::NotFound(JobId(99)))));
    assert!(serde_json::to_string(&job).unwrap().contains(r#""state":"completed""#));
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat_over_both_tables() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let ids = jobs.enqueue_many((0..25).map(|n| NewJob::new(Act { n }).priority(n % 3))).unwrap();
    for _ in 0..12 {
        engine.run_one().unwrap();
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = jobs.list(&Filter::new(), before, 4).unwrap();
        assert!(page.jobs.len() <= 4);
        seen.extend(page.jobs.iter().map(|job| job.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert!(seen.iter().eq(ids.iter().rev()));
}

#[test]
fn filters_find_by_state_kind_queue_tag_and_time() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let engine = acting(&jobs, |act, _| {
        if act.n == 1 { Err(Failure::msg("no").into_fatal()) } else { Ok(Outcome::Done) }
    })
    .manual()
    .unwrap();
    let failed = jobs.enqueue(NewJob::new(Act { n: 1 }).tag("x").tag("y")).unwrap();
    let done = jobs.enqueue(NewJob::new(Act { n: 2 }).tag("x").queue("mail")).unwrap();
    engine.run_due().unwrap();
    let noon = clock.now();
    clock.advance(DAY / 2);
    let other = jobs.enqueue(NewJob::of_kind("other", serde_json::json!([]))).unwrap();
    let later = jobs.enqueue(NewJob::new(Act { n: 3 }).delay(DAY)).unwrap();

    let found = |filter: Filter| {
        let page = jobs.list(&filter, None, 100).unwrap();
        let ids: Vec<_> = page.jobs.iter().map(|job| job.id).collect();
        assert_eq!(jobs.count(&filter).unwrap(), ids.len() as u64);
        ids
    };
    assert_eq!(found(Filter::new()), [later, other, done, failed]);
    assert_eq!(found(Filter::new().state(State::Failed)), [failed]);
    assert_eq!(found(Filter::new().state(State::Failed).state(State::Ready)), [other, failed]);
    assert_eq!(found(Filter::new().state(State::Scheduled)), [later]);
    assert_eq!(found(Filter::new().kind("act").queue("default")), [later, failed]);
    assert_eq!(found(Filter::new().kind("other").kind("act").queue("mail")), [done]);
    assert_eq!(found(Filter::new().tag("x")), [done, failed]);
    assert_eq!(found(Filter::new().tag("x").tag("y")), [failed]);
    assert_eq!(found(Filter::new().since(noon + DAY / 4)), [later, other]);
    assert_eq!(found(Filter::new().until(noon + DAY / 4)), [done, failed]);
    assert_eq!(found(Filter::new().queue("'; DROP TABLE legwork_jobs; --")), []);
}

#[test]
fn stats_count_by_state_and_queue_and_time_each_kind() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let engine = acting(&jobs, |act, cx| {
        cx.jobs().clock().advance(Duration::from_millis(act.n.unsigned_abs()));
        if act.n == 50 { Err(Failure::msg("no").into_fatal()) } else { Ok(Outcome::Done) }
    })
    .manual()
    .unwrap();
    for n in 1..=100 {
        jobs.enqueue(Act { n }).unwrap();
        engine.run_due().unwrap();
    }
    jobs.enqueue(NewJob::new(Act { n: 0 }).queue("mail")).unwrap();
    jobs.enqueue(NewJob::new(Act { n: 0 }).queue("mail").delay(DAY)).unwrap();
    clock.advance(Duration::from_secs(30));

    let stats = jobs.stats().unwrap();
    assert_eq!(stats.count(State::Completed), 99);
    assert_eq!(stats.count(State::Failed), 1);
    assert_eq!((stats.count(State::Ready), stats.count(State::Scheduled)), (1, 1));
    let mail = &stats.queues["mail"];
    assert_eq!(mail.states[&State::Ready], 1);
    assert_eq!(mail.oldest_ready, Some(Duration::from_secs(30)));
    let kind = &stats.kinds["act"];
    assert_eq!((kind.finished, kind.failed), (100, 1));
    assert_eq!(kind.run.p50, Duration::from_millis(50));
    assert_eq!(kind.run.p99, Duration::from_millis(99));
    assert_eq!(kind.wait.p99, Duration::ZERO);
    // 100 jobs end over the 5,049 ms between the first end and the last.
    assert!((kind.per_minute - 100.0 / (5.049 / 60.0)).abs() < 1.0, "{}", kind.per_minute);
    assert_eq!(jobs.health().unwrap().oldest_ready, Some(Duration::from_secs(30)));
}

#[test]
fn finished_jobs_are_pruned_after_their_retention_with_all_that_is_kept_of_them() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let engine = acting(&jobs, |act, cx| {
        cx.log("line");
        match act.n {
            1 => Ok(Outcome::Done),
            2 => Ok(Outcome::cancel("no")),
            _ => Err(Failure::msg("no").into_fatal()),
        }
    })
    .manual()
    .unwrap();
    let done = jobs.enqueue(Act { n: 1 }).unwrap();
    let cancelled = jobs.enqueue(Act { n: 2 }).unwrap();
    let failed = jobs.enqueue(Act { n: 3 }).unwrap();
    let kept = jobs.enqueue(NewJob::new(Act { n: 1 }).retention(Retention::all(5 * DAY))).unwrap();
    engine.run_due().unwrap();
    let there = |id| jobs.get(id).is_ok();

    clock.advance(DAY - Duration::from_secs(1));
    engine.run_due().unwrap();
    assert!(there(done) && there(cancelled) && there(failed) && there(kept));
    clock.advance(Duration::from_secs(1));
    run_until(&engine, "they are pruned", || !there(done) && !there(cancelled));
    assert!(there(failed) && there(kept));
    assert!(jobs.logs(done).unwrap().is_empty());
    assert_eq!(jobs.logs(failed).unwrap().len(), 1);
}

#[test]
fn history_beyond_its_cap_is_pruned_oldest_first() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).history_rows(10).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let ids = jobs.enqueue_many((0..300).map(|n| Act { n })).unwrap();
    for _ in &ids {
        engine.advance(Duration::from_micros(1));
        engine.run_one().unwrap();
    }
    run_until(&engine, "it is pruned", || jobs.count(&Filter::new()).unwrap() <= 10);
    assert!(jobs.get(*ids.last().unwrap()).is_ok());
}

#[test]
fn a_job_that_fails_for_ever_keeps_its_last_hundred_attempts() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Err(Failure::msg("no"))).manual().unwrap();
    let retry = Retry::fixed(Duration::ZERO).attempts(150);
    let id = jobs.enqueue(NewJob::new(Act { n: 1 }).retry(retry)).unwrap();
    assert_eq!(engine.run_due().unwrap(), 150);
    let attempts = jobs.attempts(id).unwrap();
    assert_eq!(attempts.len(), 100);
    assert_eq!((attempts[0].attempt, attempts[99].attempt), (51, 150));
}

#[test]
fn the_view_shows_every_job_in_words() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    jobs.enqueue(NewJob::new(Act { n: 2 }).queue("mail")).unwrap();
    let conn = place.connect();
    let mut ask = conn
        .prepare("SELECT kind, queue, state, enqueued_at FROM legwork_all_jobs ORDER BY id")
        .unwrap();
    let rows: Vec<[String; 4]> = ask
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(rows[0], ["act", "default", "completed", "2026-01-01T00:00:00.000Z"]);
    assert_eq!(rows[1], ["act", "mail", "ready", "2026-01-01T00:00:00.000Z"]);
}

#[test]
fn what_was_deleted_or_retried_does_not_count_for_the_cap() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).history_rows(100).open().unwrap();
    let engine = acting(&jobs, |act, _| {
        if act.n < 0 { Err(Failure::msg("bad").into_fatal()) } else { Ok(Outcome::Done) }
    })
    .manual()
    .unwrap();
    let turns = || (0..5).for_each(|_| assert_eq!(engine.run_due().unwrap(), 0));
    jobs.enqueue_many((0..100).map(|n| Act { n })).unwrap();
    engine.run_due().unwrap();
    jobs.delete(Filter::new()).unwrap();
    jobs.enqueue_many((0..10).map(|_| Act { n: -1 })).unwrap();
    engine.run_due().unwrap();
    for _ in 0..12 {
        jobs.retry(Filter::new()).unwrap();
        engine.run_due().unwrap();
    }
    turns();
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 10);
    // Those that are cancelled while they wait do.
    let later = |n| NewJob::new(Act { n }).delay(Duration::from_secs(86_400));
    jobs.enqueue_many((0..300).map(later)).unwrap();
    jobs.cancel(Filter::new()).unwrap();
    turns();
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 100);
}
