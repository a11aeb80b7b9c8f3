//! Filters: by error, argument, text, id and time of failure; over both tables; whatever stands there.

use std::time::Duration;

use legwork::{Error, Failure, Filter, JobId, Jobs, ManualEngine, NewJob, Outcome, State};
use serde_json::json;

use crate::common::{Place, place, stopped_clock};
use crate::scripted::{Act, RateLimited, acting};

fn enqueue(jobs: &Jobs, kind: &str, args: serde_json::Value) -> JobId {
    jobs.enqueue(NewJob::of_kind(kind, args)).unwrap()
}

/// The ids of a page, newest first; the count must be the same.
#[track_caller]
fn found(jobs: &Jobs, filter: Filter) -> Vec<i64> {
    let page = jobs.list(&filter, None, 100).unwrap();
    assert_eq!(jobs.count(&filter).unwrap(), page.jobs.len() as u64, "{filter:?}");
    page.jobs.iter().map(|job| job.id.0).collect()
}

/// 1 has failed for good, 2 was rate limited and has completed since, 3 waits for its next attempt, 4 was
/// cancelled.
fn ended(place: &Place) -> (Jobs, ManualEngine) {
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, cx| match act.n {
        1 => Err(Failure::msg("Timed OUT at 100%").into_fatal()),
        3 if cx.attempt() > 1 => Ok(Outcome::Done),
        4 => Ok(Outcome::cancel("timed out by hand")),
        _ => Err(RateLimited.into()),
    });
    let engine = engine.manual().unwrap();
    for n in [1, 3] {
        jobs.enqueue(Act { n }).unwrap();
    }
    engine.run_due().unwrap();
    engine.advance(Duration::from_secs(60));
    for n in [2, 4] {
        jobs.enqueue(Act { n }).unwrap();
    }
    engine.run_due().unwrap();
    (jobs, engine)
}

#[test]
fn error_finds_by_the_reason_of_a_failed_job_and_by_the_last_failed_attempt() {
    let place = place();
    let (jobs, _engine) = ended(&place);
    let states: Vec<_> = (1..=4).map(|id| jobs.get(JobId(id)).unwrap().state).collect();
    assert_eq!(states, [State::Failed, State::Completed, State::Retrying, State::Cancelled]);
    let error = |text: &str| Filter::new().error(text);
    assert_eq!(found(&jobs, error("timed out")), [1], "a cancelled one has not failed");
    assert_eq!(found(&jobs, error("RATE")), [3, 2], "whatever became of it");
    assert_eq!(found(&jobs, error("rate").state(State::Retrying)), [3]);
    assert_eq!(found(&jobs, error("100%")), [1]);
    assert_eq!(found(&jobs, error("1%0")), [0; 0], "a per cent sign is one");
    assert_eq!(found(&jobs, error("t_med")), [0; 0]);
    assert_eq!(found(&jobs, error("timed").error("at 1")), [1]);
    assert_eq!(found(&jobs, error("timed").error("rate")), [0; 0], "all of them");
}

#[test]
fn failed_since_goes_by_the_time_of_the_failure() {
    let place = place();
    let (jobs, engine) = ended(&place);
    let since = |seconds: u64| {
        Filter::new().failed_since(jobs.clock().now() - Duration::from_secs(seconds))
    };
    assert_eq!(found(&jobs, since(1)), [3]);
    assert_eq!(found(&jobs, since(60)), [3, 2, 1]);
    assert_eq!(found(&jobs, since(60).state(State::Failed)), [1]);
    engine.advance(Duration::from_secs(30));
    assert_eq!(found(&jobs, since(31)), [3]);
}

#[test]
fn arg_finds_by_a_path_into_the_arguments() {
    let place = place();
    let jobs = place.open();
    let first = json!({ "user_id": 7, "to": { "name": "Anna B" }, "list": ["x", 1.5], "on": true });
    enqueue(&jobs, "mail", first);
    enqueue(&jobs, "mail", json!({ "user_id": "7", "on": "true", "none": null, "0": "x" }));
    enqueue(&jobs, "mail", json!(["x", { "a\"b'": "%" }]));
    enqueue(&jobs, "mail", json!(7));
    let arg = |path: &str, value: &str| found(&jobs, Filter::new().arg(path, value));
    assert_eq!(arg("user_id", "7"), [2, 1], "as a number and as a text");
    assert_eq!(arg("user_id", "7.0"), [1]);
    assert_eq!(arg("user_id", "07"), [1], "the same number");
    assert_eq!(arg("user_id", "70"), [0; 0]);
    assert_eq!(arg("to.name", "Anna B"), [1]);
    assert_eq!(arg("to.name", "anna b"), [0; 0], "the case counts");
    assert_eq!(arg("to.name", "Anna"), [0; 0], "the whole of it");
    assert_eq!(arg("to", "{\"name\":\"Anna B\"}"), [0; 0], "never an object");
    assert_eq!(arg("list.0", "x"), [1]);
    assert_eq!(arg("list.1", "1.5"), [1]);
    assert_eq!(arg("list.2", "x"), [0; 0]);
    assert_eq!(arg("0", "x"), [3, 2], "a position or a key");
    assert_eq!(arg("on", "true"), [2, 1]);
    assert_eq!(arg("on", "1"), [0; 0]);
    assert_eq!(arg("none", "null"), [2]);
    assert_eq!(arg("1.a\"b'", "%"), [3]);
    let both = Filter::new().arg("user_id", "7").arg("on", "true").arg("to.name", "Anna B");
    assert_eq!(found(&jobs, both), [1]);
}

#[test]
fn text_is_found_in_kind_queue_tags_arguments_and_reason() {
    let place = place();
    let (jobs, _engine) = ended(&place);
    jobs.enqueue(NewJob::of_kind("digest", json!({ "to": "ANNA 50%" })).queue("Slow")).unwrap();
    jobs.enqueue(NewJob::of_kind("digest", json!({})).tag("two words")).unwrap();
    let text = |text: &str| found(&jobs, Filter::new().text(text));
    assert_eq!(text("DIGEST"), [6, 5]);
    assert_eq!(text("slow"), [5]);
    assert_eq!(text("anna 50%"), [5]);
    assert_eq!(text("50_"), [0; 0], "nothing stands for anything but itself");
    assert_eq!(text("two WORDS"), [6]);
    assert_eq!(text("timed out"), [4, 1], "also why one was cancelled");
    assert_eq!(found(&jobs, Filter::new().text("digest").text("anna")), [5], "all of them");
    assert_eq!(text("\"; DROP TABLE legwork_jobs; --"), [0; 0]);
}

#[test]
fn several_ids_find_each_once() {
    let place = place();
    let (jobs, _engine) = ended(&place);
    let filter = Filter::new().id(JobId(3)).id(JobId(1)).id(JobId(3)).id(JobId(99));
    assert_eq!(found(&jobs, filter.clone()), [3, 1]);
    assert_eq!(found(&jobs, filter.clone().state(State::Failed)), [1]);
    let page = jobs.list(&filter, Some(JobId(3)), 10).unwrap();
    assert_eq!((page.jobs[0].id, page.next), (JobId(1), None));
}

#[test]
fn jobs_that_are_changed_by_a_filter_are_those_that_it_lists() {
    let place = place();
    let (jobs, _engine) = ended(&place);
    assert_eq!(jobs.retry(Filter::new().error("timed out")).unwrap().changed, 1);
    assert_eq!(jobs.get(JobId(1)).unwrap().state, State::Ready);
    let done = jobs.cancel(Filter::new().arg("n", "2").error("rate")).unwrap();
    assert_eq!((done.changed, jobs.get(JobId(3)).unwrap().state), (1, State::Cancelled));
    assert_eq!(jobs.delete(Filter::new().text("by hand")).unwrap().changed, 1);
    assert!(matches!(jobs.get(JobId(4)), Err(Error::NotFound(_))));
}

#[test]
fn what_another_hand_has_written_makes_no_filter_fail() {
    let place = place();
    let (jobs, _engine) = ended(&place);
    enqueue(&jobs, "mail", json!({ "n": 1 }));
    let conn = place.connect();
    conn.execute_batch(
        "PRAGMA ignore_check_constraints = ON;
         UPDATE legwork_jobs SET args = '{\"n\": 1', tags = 'eu' WHERE id = 5;
         UPDATE legwork_history SET args = CAST(x'7b226e22ff' AS TEXT), tags = '{' WHERE id = 1;",
    )
    .unwrap();
    assert_eq!(found(&jobs, Filter::new().arg("n", "2")), [3]);
    assert_eq!(found(&jobs, Filter::new().arg("n", "1")), [0; 0]);
    assert_eq!(found(&jobs, Filter::new().tag("eu")), [0; 0]);
    assert_eq!(found(&jobs, Filter::new().text("{\"n\"").error("timed")), [1]);
}

#[test]
fn a_filter_that_no_statement_holds_is_refused() {
    let place = place();
    let jobs = place.open();
    enqueue(&jobs, "mail", json!({}));
    let deep = vec!["a"; 17].join(".");
    let many = |count: usize| (0..count).fold(Filter::new(), |filter, n| filter.tag(n.to_string()));
    let names = |count: i64| (0..count).fold(Filter::new(), |filter, n| filter.id(JobId(n)));
    for bad in [Filter::new().arg(&deep, "1"), many(101), names(10_001)] {
        assert!(matches!(jobs.list(&bad, None, 1), Err(Error::Invalid { what: "filter", .. })));
        assert!(matches!(jobs.count(&bad), Err(Error::Invalid { what: "filter", .. })));
        assert!(matches!(jobs.cancel(bad.clone()), Err(Error::Invalid { what: "filter", .. })));
        assert!(matches!(jobs.failures(&bad, 1), Err(Error::Invalid { what: "filter", .. })));
    }
    assert_eq!(found(&jobs, names(10_000)), [1]);
    assert_eq!(found(&jobs, many(100)), [0; 0]);
    let all = (0..100).fold(Filter::new(), |filter, _| filter.arg(&deep[..31], "1"));
    assert_eq!(found(&jobs, all), [0; 0]);
}

#[test]
fn a_list_finds_what_lies_far_apart_in_both_tables() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, _| match act.n % 2 {
        0 => Ok(Outcome::Done),
        _ => Err(RateLimited.into()),
    });
    let engine = engine.manual().unwrap();
    let conn = place.connect();
    let mut expected = Vec::new();
    for n in 0..40_i64 {
        // Gaps as after a prune: short ones and long ones.
        conn.execute("UPDATE legwork_counter SET last_job = last_job + ?1", [n * n * 97]).unwrap();
        expected.insert(0, jobs.enqueue(Act { n }).unwrap());
        engine.run_due().unwrap();
        if n % 5 == 0 {
            enqueue(&jobs, "other", json!({}));
        }
    }
    for filter in [
        Filter::new().kind("act"),
        Filter::new().queue("default").arg("n", "39"),
        Filter::new().kind("act").state(State::Completed).state(State::Retrying),
    ] {
        let mut seen = Vec::new();
        let mut before = None;
        loop {
            let page = jobs.list(&filter, before, 3).unwrap();
            seen.extend(page.jobs.iter().map(|job| job.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let expected = if filter == Filter::new().queue("default").arg("n", "39") {
            &expected[..1]
        } else {
            &expected[..]
        };
        assert_eq!(seen, expected, "{filter:?}");
        assert_eq!(jobs.count(&filter).unwrap(), expected.len() as u64);
    }
    assert_eq!(found(&jobs, Filter::new().kind("none")), [0; 0]);
}

#[test]
fn a_file_with_one_job_teaches_sqlite_nothing() {
    let place = place();
    let learnt = || {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'";
        place.connect().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let jobs = place.open();
    enqueue(&jobs, "mail", json!({}));
    jobs.count(&Filter::new().kind("mail")).unwrap();
    drop(jobs);
    assert_eq!(learnt(), 0);
}
