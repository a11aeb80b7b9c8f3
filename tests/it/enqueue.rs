//! Enqueueing: what a job may be, all or none, in the app's own transaction, and refusals.

mod kinds;
mod transactions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    Context, Engine, Error, Filter, Job, JobId, JobOptions, JobResult, Jobs, NewJob, Next, Outcome,
    Pool, Retention, Retry, Running, State,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{SOON, place, stopped_clock};

const HOUR: Duration = Duration::from_secs(3600);

/// Puts out what it was given.
#[derive(Serialize, Deserialize)]
struct Echo {
    text: String,
}

impl Job for Echo {
    const KIND: &'static str = "echo";
    type State = ();

    fn options() -> JobOptions {
        JobOptions::new().queue("kind's").priority(7).tag("kind's")
    }

    fn perform(&self, cx: &Context) -> JobResult {
        cx.output(&self.text)?;
        Ok(Outcome::Done)
    }
}

fn echo(text: &str) -> Echo {
    Echo { text: text.to_owned() }
}

fn any(kind: &str) -> NewJob {
    NewJob::of_kind(kind, json!({}))
}

/// An engine with one worker for `Echo`.
fn engine(jobs: &Jobs) -> Engine {
    Engine::builder(jobs).register::<Echo>().pool(Pool::new(["*"]).workers(1)).start().unwrap()
}

fn count(jobs: &Jobs) -> u64 {
    jobs.count(&Filter::new()).unwrap()
}

// ---- options -----------------------------------------------------------------------------

#[test]
fn what_the_call_says_wins_over_what_the_kind_says() {
    let place = place();
    let jobs = place.open();
    let plain = jobs.get(jobs.enqueue(echo("a")).unwrap()).unwrap();
    assert_eq!((plain.queue.as_str(), plain.priority), ("kind's", 7));
    assert_eq!(plain.tags, ["kind's"]);
    let called = NewJob::new(echo("a")).queue("call's").priority(-1).tag("call's");
    let called = jobs.get(jobs.enqueue(called).unwrap()).unwrap();
    assert_eq!((called.queue.as_str(), called.priority), ("call's", -1));
    assert_eq!(called.tags, ["call's", "kind's"]);
}

/// Fails each time.
#[derive(Serialize, Deserialize)]
struct Fails;

impl Job for Fails {
    const KIND: &'static str = "fails";
    type State = ();

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::fixed(Duration::ZERO).attempts(2))
    }

    fn perform(&self, cx: &Context) -> JobResult {
        Err(legwork::Failure::msg(format!("{:?}", cx.timeout())))
    }
}

#[test]
fn retry_and_timeout_of_the_call_win_over_those_of_the_kind() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = Engine::builder(&jobs).register::<Fails>().manual().unwrap();
    let kinds = jobs.enqueue(Fails).unwrap();
    let calls = NewJob::new(Fails).retry(Retry::none()).timeout(HOUR);
    let calls = jobs.enqueue(calls).unwrap();
    assert_eq!(engine.run_due().unwrap(), 3);
    let (kinds, calls) = (jobs.get(kinds).unwrap(), jobs.get(calls).unwrap());
    assert_eq!((kinds.attempts, kinds.reason.as_deref()), (2, Some("None")));
    assert_eq!((calls.attempts, calls.reason.as_deref()), (1, Some("Some(3600s)")));
}

#[test]
fn a_delayed_job_runs_at_its_time_and_not_before() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = Engine::builder(&jobs).register::<Echo>().manual().unwrap();
    let now = jobs.clock().now();
    let delayed = jobs.enqueue(NewJob::new(echo("a")).delay(HOUR)).unwrap();
    let dated = jobs.enqueue(NewJob::new(echo("b")).run_at(now + 2 * HOUR)).unwrap();
    let past = jobs.enqueue(NewJob::new(echo("c")).run_at(now - HOUR)).unwrap();
    assert_eq!(jobs.get(delayed).unwrap().run_at, now + HOUR);
    assert_eq!(jobs.get(delayed).unwrap().state, State::Scheduled);
    assert_eq!(jobs.get(past).unwrap().state, State::Ready);
    assert_eq!(engine.run_one().unwrap(), Some(past));
    engine.advance(HOUR - Duration::from_micros(1));
    assert_eq!(engine.run_one().unwrap(), None);
    engine.advance(Duration::from_micros(1));
    assert_eq!(engine.run_one().unwrap(), Some(delayed));
    assert_eq!(engine.run_one().unwrap(), None);
    engine.advance(HOUR);
    assert_eq!(engine.run_one().unwrap(), Some(dated));
}

#[test]
fn a_running_engine_starts_a_delayed_job_without_a_call() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let delay = Duration::from_millis(30);
    let id = jobs.enqueue(NewJob::new(echo("a")).delay(delay)).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert!(job.started_at.unwrap() >= job.enqueued_at + delay);
    engine.stop(SOON).unwrap();
}

#[test]
fn meta_and_tags_are_kept_shown_and_found() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let job = NewJob::new(echo("a")).meta("trace", "4bf9").meta("ü", "").tag("eu").tag("eu");
    let id = jobs.enqueue(job).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!(job.meta, [("trace".into(), "4bf9".into()), ("ü".into(), String::new())].into());
    assert_eq!(job.tags, ["eu", "kind's"]);
    assert_eq!(jobs.count(&Filter::new().tag("eu")).unwrap(), 1);
    assert_eq!(jobs.count(&Filter::new().tag("us")).unwrap(), 0);
    engine.stop(SOON).unwrap();
}

// ---- many --------------------------------------------------------------------------------

#[test]
fn many_are_enqueued_all_or_none_in_their_order() {
    let place = place();
    let jobs = place.open();
    let good = |at: i32| NewJob::of_kind("k", json!(at));
    let ids = jobs.enqueue_many((0..5).map(good)).unwrap();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(jobs.get(*id).unwrap().args, at.to_string());
    }
    assert!(ids.is_sorted());
    let one_bad = (0..5).map(|at| if at == 3 { good(at).queue("") } else { good(at) });
    match jobs.enqueue_many(one_bad) {
        Err(Error::Invalid { what: "queue name", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(count(&jobs), 5);
    assert_eq!(jobs.enqueue_many(Vec::<NewJob>::new()).unwrap(), []);
}

#[test]
fn a_hundred_thousand_jobs_are_enqueued_in_one_call() {
    const JOBS: usize = 100_000;
    let place = place();
    let jobs = place.open();
    let ids = jobs.enqueue_many((0..JOBS).map(|_| any("k"))).unwrap();
    assert_eq!(ids.len(), JOBS);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(count(&jobs), JOBS as u64);
}

// ---- limits ------------------------------------------------------------------------------

#[test]
fn names_and_arguments_beyond_their_limits_are_refused_by_name() {
    let place = place();
    let jobs = place.builder().max_args(1000).open().unwrap();
    let longest = "x".repeat(255);
    let fits = any(&longest).queue(&longest).tag(&longest).meta(&longest, "v".repeat(4096));
    let id = jobs.enqueue(fits).unwrap();
    assert_eq!(jobs.get(id).unwrap().kind, longest);
    let fits = NewJob::of_kind("k", json!("x".repeat(998)));
    jobs.enqueue(fits).unwrap();

    let long = "x".repeat(256);
    for (bad, named) in [
        (any(""), "kind"),
        (any(&long), "kind"),
        (any("a\nb"), "kind"),
        (any("k").queue("a\0b"), "queue name"),
        (any("k").tag("a\u{85}b"), "tag"),
        (any("k").meta("", "v"), "meta key"),
        (any("k").meta("k", "v".repeat(4097)), "meta value"),
        (NewJob::of_kind("k", json!("x".repeat(999))), "arguments"),
        (NewJob::of_kind_json("k", "{"), "arguments"),
        (any("k").delay(Duration::MAX), "start time"),
        (any("k").retry(Retry::custom(|_, _| None)), "retry policy"),
    ] {
        match jobs.enqueue(bad) {
            Err(Error::Invalid { what, .. }) => assert_eq!(what, named),
            other => panic!("{named}: {other:?}"),
        }
    }
    assert_eq!(count(&jobs), 2);
}

#[test]
fn arguments_of_16_mib_are_taken_and_no_more() {
    let place = place();
    let jobs = place.open();
    let of = |bytes: usize| NewJob::of_kind("k", json!("x".repeat(bytes - 2)));
    let id = jobs.enqueue(of(16 * 1024 * 1024)).unwrap();
    assert_eq!(jobs.get(id).unwrap().args.len(), 16 * 1024 * 1024);
    assert!(matches!(
        jobs.enqueue(of(16 * 1024 * 1024 + 1)),
        Err(Error::Invalid { what: "arguments", .. })
    ));
}

const HOSTILE: [&str; 8] = [
    "'; DROP TABLE legwork_jobs; --",
    "\"); DELETE FROM legwork_counter; --",
    "it's \"quoted\" `and` [more]",
    "?1 :a @b $c %s {} \\u0000 \\",
    "<script>alert(1)</script>",
    "$(rm -rf /) && `reboot` | cat",
    "🦀 \u{202e}rtl e\u{301} \u{fffd}",
    "* -* %_%",
];

#[test]
fn hostile_names_and_arguments_come_back_as_they_went_in() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    for text in HOSTILE {
        let id =
            jobs.enqueue(NewJob::new(echo(text)).queue(text).tag(text).meta(text, text)).unwrap();
        let job = jobs.wait(id, SOON).unwrap();
        assert_eq!(job.queue, text);
        assert!(job.tags.contains(&text.to_owned()));
        assert_eq!(job.meta[text], text);
        assert_eq!(jobs.output::<String>(id).unwrap().as_deref(), Some(text));
        for filter in [Filter::new().queue(text), Filter::new().tag(text)] {
            assert_eq!(jobs.count(&filter).unwrap(), 1, "{text}");
        }
        let other = jobs.enqueue(any(text)).unwrap();
        assert_eq!(jobs.list(&Filter::new().kind(text), None, 10).unwrap().jobs[0].id, other);
    }
    engine.stop(SOON).unwrap();
    let check: String =
        place.connect().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    assert_eq!(count(&jobs), 2 * HOSTILE.len() as u64);
}

// ---- perform_now and on_enqueue ----------------------------------------------------------

/// Tells what it sees.
#[derive(Serialize, Deserialize)]
struct Look {
    panics: bool,
}

impl Job for Look {
    const KIND: &'static str = "look";
    type State = Arc<Mutex<Vec<String>>>;

    fn perform(&self, cx: &Context<Self::State>) -> JobResult {
        cx.state().lock().unwrap().push(format!("job {} attempt {}", cx.id(), cx.attempt()));
        assert!(!self.panics, "as told");
        cx.enqueue_with_finish(any("child"))?;
        Ok(Outcome::Done)
    }
}

#[test]
fn perform_now_runs_in_the_caller_through_the_middleware_and_stores_nothing() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (outer, here) = (Arc::clone(&seen), std::thread::current().id());
    let place = place();
    let jobs = place
        .builder()
        .middleware(move |running: &Running<'_>, next: Next<'_>| {
            assert_eq!(std::thread::current().id(), here);
            outer.lock().unwrap().push(format!("before {} {}", running.kind, running.args));
            let result = next.run();
            outer.lock().unwrap().push(format!("after, {}", result.is_ok()));
            result
        })
        .open()
        .unwrap();
    let done = jobs.perform_now(&Look { panics: false }, Arc::clone(&seen)).unwrap();
    assert_eq!(done, Outcome::Done);
    assert_eq!(
        std::mem::take(&mut *seen.lock().unwrap()),
        [r#"before look {"panics":false}"#, "job 0 attempt 1", "after, true"]
    );
    // The job is not stored; what it enqueues is.
    let stored = jobs.list(&Filter::new(), None, 10).unwrap().jobs;
    assert_eq!(stored.iter().map(|job| job.kind.as_str()).collect::<Vec<_>>(), ["child"]);

    let failure = jobs.perform_now(&Look { panics: true }, Arc::clone(&seen)).unwrap_err();
    assert!(failure.is_panic());
    assert!(failure.to_string().ends_with("as told"), "{failure}");
    assert_eq!(count(&jobs), 1);
}

#[test]
fn on_enqueue_sees_changes_and_refuses_every_job_in_every_way_of_enqueueing() {
    let place = place();
    let jobs = place
        .builder()
        .on_enqueue(|job| {
            if job.kind() == "forbidden" {
                let why = "as told".to_owned();
                return Err(Error::Invalid { what: "kind", why });
            }
            Ok(job.meta("trace", "1"))
        })
        .on_enqueue(|job| Ok(job.meta("second", "2").queue("moved")))
        .open()
        .unwrap();
    let conn = place.connect();
    let mut ids = jobs.enqueue_many([any("a"), any("b")]).unwrap();
    ids.push(jobs.enqueue(any("c")).unwrap());
    ids.push(jobs.enqueue_in(&conn, any("d")).unwrap());
    for id in ids {
        let job = jobs.get(id).unwrap();
        assert_eq!((job.meta["trace"].as_str(), job.meta["second"].as_str()), ("1", "2"));
        assert_eq!(job.queue, "moved");
    }
    assert!(matches!(jobs.enqueue(any("forbidden")), Err(Error::Invalid { .. })));
    assert!(matches!(jobs.enqueue_in(&conn, any("forbidden")), Err(Error::Invalid { .. })));
    let one_of = [any("a"), any("forbidden")];
    assert!(matches!(jobs.enqueue_many(one_of), Err(Error::Invalid { .. })));
    assert_eq!(count(&jobs), 4);
}

// ---- ids ---------------------------------------------------------------------------------

#[test]
fn ids_rise_and_are_never_given_again() {
    let place = place();
    let mut last = JobId(0);
    let mut rises = |ids: Vec<JobId>| {
        for id in ids {
            assert!(id > last, "{id} after {last}");
            last = id;
        }
    };
    {
        let jobs = place.open();
        let ids = jobs.enqueue_many([any("k"), any("k"), any("k")]).unwrap();
        rises(ids.clone());
        jobs.delete(ids).unwrap();
        assert_eq!(count(&jobs), 0);
        rises(vec![jobs.enqueue(any("k")).unwrap()]);
        rises(vec![jobs.enqueue_in(&place.connect(), any("k")).unwrap()]);
        rises(jobs.enqueue_many([any("k"), any("k")]).unwrap());
        jobs.delete(Filter::new()).unwrap();
    }
    // The file remembers, not the process.
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock).retention(Retention::all(HOUR)).open().unwrap();
    let engine = Engine::builder(&jobs).register::<Echo>().manual().unwrap();
    rises(vec![jobs.enqueue(echo("a")).unwrap()]);
    engine.run_due().unwrap();
    assert_eq!(count(&jobs), 1);
    engine.advance(2 * HOUR);
    // Pruning follows the next thing that is written.
    rises(vec![jobs.enqueue(any("k")).unwrap()]);
    rises(vec![jobs.enqueue(any("k")).unwrap()]);
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 0);
    jobs.delete(Filter::new()).unwrap();
    rises(vec![jobs.enqueue(any("k")).unwrap()]);
}
