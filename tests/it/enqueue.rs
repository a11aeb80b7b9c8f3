//! Enqueueing: what a job may be, all or none, in the app's own transaction, and refusals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    Context, Engine, Error, Event, Filter, Job, JobId, JobOptions, JobResult, Jobs, NewJob, Next,
    Outcome, Pool, Retention, Retry, Running, State,
};
use rusqlite::TransactionBehavior;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{SOON, place, stopped_clock, wait_for};

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

// ---- kinds -------------------------------------------------------------------------------

#[test]
fn jobs_of_an_unknown_kind_are_left_alone_and_reported_once() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = engine(&jobs);
    let unknown = jobs.enqueue_many([any("unknown"), any("unknown").queue("other")]).unwrap();
    let known = jobs.enqueue(NewJob::new(echo("a")).priority(100)).unwrap();
    jobs.wait(known, SOON).unwrap();
    jobs.enqueue(any("unknown")).unwrap();
    jobs.enqueue(any("unknown, too")).unwrap();
    wait_for(&events, |event| *event == Event::UnknownKind { kind: "unknown".into() });
    let second = |event: &Event| {
        assert_ne!(*event, Event::UnknownKind { kind: "unknown".into() }, "told twice");
        *event == Event::UnknownKind { kind: "unknown, too".into() }
    };
    wait_for(&events, second);
    // Nothing to wait for: no engine here could run them.
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
    for id in unknown {
        assert_eq!(jobs.get(id).unwrap().state, State::Ready);
    }
}

#[test]
fn jobs_that_no_engine_knew_are_run_by_the_next_one_that_knows_them() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let first = engine(&jobs);
    let id = jobs.enqueue(any("fails")).unwrap();
    wait_for(&events, |event| matches!(event, Event::UnknownKind { .. }));
    // Beside the first one, and for another job after it.
    let knows = |jobs: &Jobs| {
        Engine::builder(jobs)
            .register_with::<Unit>(())
            .pool(Pool::new(["*"]).workers(1))
            .start()
            .unwrap()
    };
    let second = knows(&jobs);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    second.stop(SOON).unwrap();
    let id = jobs.enqueue(any("fails")).unwrap();
    first.stop(SOON).unwrap();
    let third = knows(&jobs);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    third.stop(SOON).unwrap();
}

#[test]
fn jobs_enqueued_while_no_engine_ran_are_run_by_the_next_engine_of_the_same_handle() {
    let place = place();
    let jobs = place.open();
    let first = engine(&jobs);
    let id = jobs.enqueue(echo("a")).unwrap();
    jobs.wait(id, SOON).unwrap();
    first.stop(SOON).unwrap();
    drop(first);
    // Another connection makes them, and this one looks at the file in between.
    let ids =
        [jobs.enqueue_in(&place.connect(), echo("b")).unwrap(), jobs.enqueue(any("k")).unwrap()];
    let second = engine(&jobs);
    jobs.wait(ids[0], SOON).unwrap();
    second.stop(SOON).unwrap();
}

/// Takes any arguments.
#[derive(Serialize, Deserialize)]
struct Unit {}

impl Job for Unit {
    const KIND: &'static str = "fails";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// What was once called "echo" and "shout".
#[derive(Serialize, Deserialize)]
struct Renamed {
    text: String,
}

impl Job for Renamed {
    const KIND: &'static str = "renamed";
    const ALIASES: &'static [&'static str] = &["echo", "shout"];
    type State = ();

    fn perform(&self, cx: &Context) -> JobResult {
        cx.output(&format!("renamed {}", self.text))?;
        Ok(Outcome::Done)
    }
}

#[test]
fn a_renamed_kind_runs_jobs_of_its_former_names() {
    let place = place();
    let jobs = place.open();
    let old = jobs.enqueue(echo("a")).unwrap();
    let older = jobs.enqueue(NewJob::of_kind("shout", json!({ "text": "b" }))).unwrap();
    let new = jobs.enqueue(Renamed { text: "c".into() }).unwrap();
    let engine = Engine::builder(&jobs).register::<Renamed>().start().unwrap();
    for (id, output) in [(old, "renamed a"), (older, "renamed b"), (new, "renamed c")] {
        jobs.wait(id, SOON).unwrap();
        assert_eq!(jobs.output::<String>(id).unwrap().as_deref(), Some(output));
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn a_kind_registered_twice_under_any_of_its_names_is_refused() {
    let place = place();
    let jobs = place.open();
    let twice = Engine::builder(&jobs).register::<Echo>().register::<Renamed>().start();
    assert!(matches!(twice, Err(Error::Invalid { what: "registration", .. })));
}

/// The kind of [`Echo`] as a later build has it.
#[derive(Serialize, Deserialize)]
struct NewerEcho {
    text: Option<String>,
    times: u32,
}

impl Job for NewerEcho {
    const KIND: &'static str = Echo::KIND;
    type State = ();

    fn perform(&self, cx: &Context) -> JobResult {
        cx.output(&self.times)?;
        Ok(Outcome::Done)
    }
}

#[test]
fn arguments_that_do_not_decode_fail_the_job_and_a_newer_build_can_run_it() {
    let place = place();
    let jobs = place.open();
    let args = r#"{"times":3,"text":null,"x":[1.50,"\u00fc"]}"#;
    let id = {
        let old = engine(&jobs);
        let id = jobs.enqueue(NewJob::of_kind_json("echo", args)).unwrap();
        let job = jobs.wait(id, SOON).unwrap();
        assert_eq!((job.state, job.attempts), (State::Failed, 1));
        let reason = job.reason.unwrap();
        assert!(reason.contains("do not decode as echo"), "{reason}");
        assert_eq!(job.args, args);
        old.stop(SOON).unwrap();
        id
    };
    let newer = Engine::builder(&jobs).register::<NewerEcho>().start().unwrap();
    jobs.retry(id).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    assert_eq!(jobs.output::<u32>(id).unwrap(), Some(3));
    newer.stop(SOON).unwrap();
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

// ---- in the app's own transaction --------------------------------------------------------

#[test]
fn a_job_enqueued_in_a_transaction_is_invisible_until_it_commits_and_then_starts_uncalled() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    for round in 1..=20 {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
        let id = jobs.enqueue_in(&tx, echo("a")).unwrap();
        assert!(matches!(jobs.get(id), Err(Error::NotFound(_))));
        assert_eq!(count(&jobs), round - 1);
        tx.commit().unwrap();
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn a_job_enqueued_in_a_transaction_that_rolls_back_never_was() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let tx = conn.transaction().unwrap();
    tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
    jobs.enqueue_in(&tx, NewJob::new(echo("gone")).queue("new with it")).unwrap();
    tx.rollback().unwrap();
    assert_eq!(count(&jobs), 0);
    let orders: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 0);
    // The lane that was rolled back with it is made again.
    let id = jobs.enqueue(NewJob::new(echo("there")).queue("new with it")).unwrap();
    jobs.wait(id, SOON).unwrap();
    assert_eq!(jobs.output::<String>(id).unwrap().as_deref(), Some("there"));
    assert_eq!(count(&jobs), 1);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_refused_job_leaves_the_apps_transaction_open_and_whole() {
    let place = place();
    let jobs = place.open();
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let tx = conn.transaction().unwrap();
    tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
    let good = jobs.enqueue_in(&tx, any("k")).unwrap();
    jobs.enqueue_in(&tx, any("")).unwrap_err();
    tx.commit().unwrap();
    assert_eq!(count(&jobs), 1);
    assert_eq!(jobs.get(good).unwrap().kind, "k");
    let orders: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 1);
}

#[test]
fn a_deferred_transaction_that_was_overtaken_is_busy_at_once_and_stays_without_the_job() {
    let place = place();
    let jobs = place.open();
    let mut conn = place.connect();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Deferred).unwrap();
    let seen = |tx: &rusqlite::Connection| {
        tx.query_row("SELECT count(*) FROM legwork_jobs", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(seen(&tx), 0);
    let overtaking = jobs.enqueue(any("k")).unwrap();
    assert!(matches!(jobs.enqueue_in(&tx, any("k")), Err(Error::Busy { .. })));
    assert_eq!(seen(&tx), 0);
    tx.commit().unwrap();
    let there = jobs.list(&Filter::new(), None, 10).unwrap().jobs;
    assert_eq!(there.iter().map(|job| job.id).collect::<Vec<_>>(), [overtaking]);
}

#[test]
fn without_a_transaction_the_job_is_committed_when_enqueue_in_returns() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue_in(&place.connect(), any("k")).unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Ready);
}

#[test]
fn transactions_of_several_threads_beside_plain_verbs_each_start_their_jobs() {
    const THREADS: usize = 4;
    const JOBS: usize = 25;
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let ids: Vec<JobId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (jobs, place) = (&jobs, &place);
                scope.spawn(move || {
                    let mut conn = place.connect();
                    conn.busy_timeout(SOON).unwrap();
                    let mut kept = Vec::new();
                    for round in 0..JOBS {
                        let tx =
                            conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
                        let queue = format!("{}", (thread + round) % 7);
                        let id =
                            jobs.enqueue_in(&tx, NewJob::new(echo("tx")).queue(queue)).unwrap();
                        if round % 3 == 0 {
                            tx.rollback().unwrap();
                        } else {
                            tx.commit().unwrap();
                            kept.push(id);
                        }
                        kept.push(jobs.enqueue(echo("plain")).unwrap());
                    }
                    kept
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for id in &ids {
        assert_eq!(jobs.wait(*id, SOON).unwrap().state, State::Completed);
    }
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
    assert_eq!(count(&jobs), ids.len() as u64);
    engine.stop(SOON).unwrap();
}

#[test]
fn enqueue_beside_the_threads_own_transaction_is_busy_in_time_and_never_happens() {
    let place = place();
    let patience = Duration::from_millis(100);
    let jobs = place.builder().busy_timeout(patience).open().unwrap();
    let mut conn = place.connect();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    match jobs.enqueue(any("never")) {
        // In time: at its time-out, not at the end of the transaction.
        Err(Error::Busy { waited }) => assert!(waited >= patience, "{waited:?}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(jobs.enqueue_many([any("never"), any("never")]), Err(Error::Busy { .. })));
    tx.commit().unwrap();
    let after = jobs.enqueue(any("after")).unwrap();
    let there = jobs.list(&Filter::new(), None, 10).unwrap().jobs;
    assert_eq!(there.iter().map(|job| job.id).collect::<Vec<_>>(), [after]);
}

#[test]
fn the_transaction_verb_commits_enqueues_and_wakes() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let id = jobs
        .transaction(&mut conn, |tx| {
            tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
            jobs.enqueue_in(tx, echo("a"))
        })
        .unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);

    let failed: Result<(), Error> = jobs.transaction(&mut conn, |tx| {
        tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
        jobs.enqueue_in(tx, echo("a"))?;
        Err(Error::Stopped("the test"))
    });
    assert!(matches!(failed, Err(Error::Stopped("the test"))));
    let orders: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!((orders, count(&jobs)), (1, 1));
    engine.stop(SOON).unwrap();
}

#[test]
fn plain_verbs_inside_the_transaction_verb_are_refused_at_once() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue(any("k")).unwrap();
    let mut conn = place.connect();
    let mut other = place.connect();
    jobs.transaction(&mut conn, |_| {
        let refused = |verb: &str, result: Result<(), Error>| match result {
            Err(Error::InTransaction { verb: named }) => assert_eq!(named, verb),
            other => panic!("{verb}: {other:?}"),
        };
        refused("enqueue", jobs.enqueue(any("k")).map(drop));
        refused("enqueue_many", jobs.enqueue_many([any("k")]).map(drop));
        refused("cancel", jobs.cancel(id).map(drop));
        refused("retry", jobs.retry(id).map(drop));
        refused("delete", jobs.delete(id).map(drop));
        refused("pause", jobs.pause(legwork::Scope::All));
        refused("resume", jobs.resume(legwork::Scope::All));
        refused("transaction", jobs.transaction(&mut other, |_| Ok(())));
        // Other threads only have to wait.
        std::thread::scope(|scope| scope.spawn(|| jobs.get(id)).join().unwrap())?;
        Ok::<_, Error>(())
    })
    .unwrap();
    // Afterwards, and after a panic in it, the thread may use them again.
    jobs.enqueue(any("k")).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        jobs.transaction(&mut conn, |_| -> Result<(), Error> { panic!("as told") })
    }));
    assert!(panicked.is_err());
    jobs.enqueue(any("k")).unwrap();
    assert_eq!(count(&jobs), 3);
}

#[test]
fn a_connection_to_another_file_is_foreign() {
    let (here, there) = (place(), place());
    let jobs = here.open();
    drop(there.open());
    for conn in [there.connect(), rusqlite::Connection::open_in_memory().unwrap()] {
        assert!(matches!(jobs.enqueue_in(&conn, any("k")), Err(Error::Foreign { .. })));
    }
    // The same file by another name is the same file.
    let link = there.dir.path().join("link.db");
    std::os::unix::fs::symlink(&here.path, &link).unwrap();
    let conn = rusqlite::Connection::open(&link).unwrap();
    jobs.enqueue_in(&conn, any("k")).unwrap();
    assert_eq!(count(&jobs), 1);
    assert_eq!(count(&there.open()), 0);
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
