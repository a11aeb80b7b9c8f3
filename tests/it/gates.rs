//! Gates: jobs wait for a condition of the machine or the app.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded, unbounded};
use legwork::{Error, Event, Filter, JobId, Jobs, NewJob, Outcome, Pool, Scope, State};

use crate::common::{Child, SOON, child_file, place, say, stopped_clock, wait_for};
use crate::scripted::{Act, acting};

const MINUTE: Duration = Duration::from_secs(60);

fn behind(gate: &str, n: i64) -> NewJob {
    NewJob::new(Act { n }).gate(gate)
}

#[test]
fn jobs_behind_a_closed_gate_wait_and_those_behind_an_open_one_or_none_do_not() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    jobs.close_gate("online").unwrap();
    let waits = jobs.enqueue(behind("online", 1)).unwrap();
    let open = jobs.enqueue(behind("on_ac", 2)).unwrap();
    let free = jobs.enqueue(Act { n: 3 }).unwrap();
    assert_eq!(engine.run_due().unwrap(), 2);
    for (id, state) in [(waits, State::Blocked), (open, State::Completed), (free, State::Completed)]
    {
        assert_eq!(jobs.get(id).unwrap().state, state);
    }
    jobs.open_gate("online").unwrap();
    assert_eq!(jobs.get(waits).unwrap().state, State::Ready);
    assert_eq!(engine.run_due().unwrap(), 1);
    let job = jobs.get(waits).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1), "waiting used no attempt");
    assert_eq!(job.gate.as_deref(), Some("online"));
    assert_eq!(jobs.get(free).unwrap().gate, None);
}

#[test]
fn a_closed_gate_stays_closed_when_the_file_is_opened_again() {
    let place = place();
    place.open().close_gate("online").unwrap();
    let jobs = place.open();
    let id = jobs.enqueue(behind("online", 1)).unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
    assert_eq!(jobs.get(id).unwrap().state, State::Blocked);
}

#[test]
fn blocked_is_what_lists_counts_statistics_and_the_view_say() {
    let place = place();
    let jobs = place.open();
    jobs.close_gate("online").unwrap();
    let blocked = jobs.enqueue_many((0..3).map(|n| behind("online", n))).unwrap();
    let ready = jobs.enqueue(behind("on_ac", 9)).unwrap();
    let later = jobs.enqueue(behind("online", 4).delay(MINUTE)).unwrap();

    let ids = |filter: Filter| -> Vec<JobId> {
        jobs.list(&filter, None, 10).unwrap().jobs.iter().map(|job| job.id).rev().collect()
    };
    assert_eq!(ids(Filter::new().state(State::Blocked)), blocked);
    assert_eq!(ids(Filter::new().state(State::Ready)), [ready]);
    assert_eq!(ids(Filter::new().state(State::Scheduled)), [later]);
    assert_eq!(ids(Filter::new().state(State::Blocked).state(State::Ready)).len(), 4);
    assert_eq!(jobs.count(&Filter::new().state(State::Blocked)).unwrap(), 3);
    assert_eq!(jobs.count(&Filter::new().state(State::Ready)).unwrap(), 1);
    let stats = jobs.stats().unwrap();
    assert_eq!((stats.count(State::Blocked), stats.count(State::Ready)), (3, 1));
    let queue = &stats.queues["default"];
    assert_eq!((queue.states[&State::Blocked], queue.states[&State::Ready]), (3, 1));

    let view = |id: JobId| -> (String, Option<String>) {
        place
            .connect()
            .query_row("SELECT state, gate FROM legwork_all_jobs WHERE id = ?1", [id.0], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap()
    };
    assert_eq!(view(blocked[0]), ("blocked".to_owned(), Some("online".to_owned())));
    assert_eq!(view(ready), ("ready".to_owned(), Some("on_ac".to_owned())));
    assert!(matches!(
        jobs.retry(blocked[0]),
        Err(Error::WrongState { state: State::Blocked, verb: "retry", .. })
    ));
    assert_eq!(jobs.cancel(Filter::new().state(State::Blocked)).unwrap().changed, 3);
    assert_eq!(jobs.get(ready).unwrap().state, State::Ready);
}

#[test]
fn what_is_behind_a_closed_gate_is_not_what_has_been_ready_longest() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    jobs.enqueue(behind("online", 1)).unwrap();
    assert!(jobs.health().unwrap().oldest_ready.is_some());
    jobs.close_gate("online").unwrap();
    assert_eq!(jobs.health().unwrap().oldest_ready, None);
}

#[test]
fn gates_are_listed_closed_or_named() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let since = clock.now();
    jobs.close_gate("b").unwrap();
    clock.advance(MINUTE);
    jobs.close_gate("b").unwrap();
    jobs.enqueue(behind("a", 1)).unwrap();
    jobs.enqueue(behind("b", 1).queue("q")).unwrap();
    jobs.enqueue(behind("a", 1).queue("q")).unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap();
    let gates: Vec<_> =
        jobs.gates().unwrap().into_iter().map(|gate| (gate.name, gate.closed_since)).collect();
    assert_eq!(gates, [("a".to_owned(), None), ("b".to_owned(), Some(since))]);
    for bad in ["", "a\nb"] {
        assert!(matches!(jobs.close_gate(bad), Err(Error::Invalid { what: "gate name", .. })));
        assert!(matches!(
            jobs.enqueue(behind(bad, 1)),
            Err(Error::Invalid { what: "gate name", .. })
        ));
    }
}

#[test]
fn opening_a_gate_starts_all_that_waits() {
    let place = place();
    let jobs = place.open();
    let (tell, told) = unbounded();
    let engine = acting(&jobs, move |act, _| {
        tell.send(act.n).unwrap();
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(2))
    .start()
    .unwrap();
    let events = jobs.events();
    jobs.close_gate("online").unwrap();
    jobs.enqueue_many((0..1_000).map(|n| behind("online", n))).unwrap();
    engine.run_until_empty().unwrap();
    assert!(told.is_empty(), "jobs behind a closed gate do not count and do not run");

    jobs.pause(Scope::All).unwrap();
    let rows = |jobs: &Jobs| jobs.list(&Filter::new(), None, 1_000).unwrap().jobs;
    let before = rows(&jobs);
    jobs.open_gate("online").unwrap();
    let after = rows(&jobs);
    assert!(after.iter().all(|job| job.state == State::Ready));
    assert!(before.iter().zip(&after).all(|(one, other)| one.run_at == other.run_at));
    jobs.resume(Scope::All).unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!(told.try_iter().count(), 1_000);
    wait_for(&events, |event| matches!(event, Event::GateClosed { name } if name == "online"));
    wait_for(&events, |event| matches!(event, Event::GateOpened { name } if name == "online"));
    // What changes nothing is told to nobody.
    jobs.open_gate("online").unwrap();
    jobs.close_gate("other").unwrap();
    jobs.close_gate("other").unwrap();
    let told = std::iter::from_fn(|| events.try_recv())
        .filter(|event| matches!(event, Event::GateOpened { .. } | Event::GateClosed { .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn the_kinds_gate_counts_unless_the_call_names_another() {
    use legwork::{Context, Engine, Job, JobOptions, JobResult};
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Upload;
    impl Job for Upload {
        const KIND: &'static str = "upload";
        type State = ();
        fn options() -> JobOptions {
            JobOptions::new().gate("online")
        }
        fn perform(&self, _: &Context) -> JobResult {
            Ok(Outcome::Done)
        }
    }
    let place = place();
    let jobs = place.open();
    jobs.close_gate("online").unwrap();
    let waits = jobs.enqueue(Upload).unwrap();
    let other = jobs.enqueue(NewJob::new(Upload).gate("lan")).unwrap();
    let engine = Engine::builder(&jobs).register::<Upload>().manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(waits).unwrap().state, State::Blocked);
    assert_eq!(jobs.get(other).unwrap().state, State::Completed);
}

#[test]
fn a_gate_that_closes_lets_what_runs_go_on_and_starts_nothing_more() {
    let place = place();
    let jobs = place.open();
    let (tell, told) = unbounded();
    let (go, gone) = bounded::<()>(0);
    let engine = acting(&jobs, move |act, _| {
        tell.send(act.n).unwrap();
        let _ = gone.recv();
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(1))
    .start()
    .unwrap();
    let ids = jobs.enqueue_many((0..5).map(|n| behind("online", n))).unwrap();
    assert_eq!(told.recv_timeout(SOON), Ok(0));
    jobs.close_gate("online").unwrap();
    assert_eq!(jobs.get(ids[0]).unwrap().state, State::Running);
    drop(go);
    engine.run_until_empty().unwrap();
    assert!(told.is_empty());
    assert_eq!(jobs.get(ids[0]).unwrap().state, State::Completed);
    assert_eq!(jobs.count(&Filter::new().state(State::Blocked)).unwrap(), 4);
}

// ---- probes --------------------------------------------------------------------------------

#[test]
fn a_probe_closes_its_gate_before_the_first_claim_and_opens_it_when_the_answer_changes() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue(behind("online", 1)).unwrap();
    let online = Arc::new(AtomicBool::new(false));
    let (asked, asks) = unbounded();
    let probe = {
        let online = Arc::clone(&online);
        move || {
            let _ = asked.send(());
            online.load(Ordering::SeqCst)
        }
    };
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .gate("online", Duration::from_millis(1), probe)
        .start()
        .unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Blocked);
    for _ in 0..3 {
        asks.recv_timeout(SOON).unwrap();
    }
    online.store(true, Ordering::SeqCst);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    assert_eq!(engine.stop(SOON).unwrap(), []);
    assert_eq!(jobs.gates().unwrap()[0].closed_since, None);
    drop(engine);
    while asks.try_recv().is_ok() {}
    assert_eq!(
        asks.recv_timeout(SOON),
        Err(RecvTimeoutError::Disconnected),
        "nobody asks any more"
    );
}

#[test]
fn what_is_set_by_hand_stands_until_the_probe_changes_its_mind() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let online = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&online);
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .gate("online", MINUTE, move || says.load(Ordering::SeqCst))
        .manual()
        .unwrap();
    let id = jobs.enqueue(behind("online", 1)).unwrap();
    jobs.close_gate("online").unwrap();
    assert_eq!(engine.run_due().unwrap(), 0, "it says open as before");
    online.store(false, Ordering::SeqCst);
    assert_eq!(engine.run_due().unwrap(), 0);
    online.store(true, Ordering::SeqCst);
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn a_probe_that_panics_leaves_its_gate_as_it_is() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let answers = AtomicUsize::new(0);
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .gate("online", MINUTE, move || match answers.fetch_add(1, Ordering::SeqCst) {
            0 => false,
            1 => panic::panic_any("no route"),
            _ => true,
        })
        .manual()
        .unwrap();
    jobs.enqueue(behind("online", 1)).unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
    assert!(jobs.gates().unwrap()[0].closed_since.is_some());
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn under_a_stopped_clock_a_probe_is_asked_as_the_clock_is_turned() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let (asked, asks) = unbounded();
    let answers = AtomicUsize::new(0);
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .gate("online", MINUTE, move || {
            let _ = asked.send(());
            answers.fetch_add(1, Ordering::SeqCst) > 0
        })
        .start()
        .unwrap();
    asks.recv_timeout(SOON).unwrap();
    let id = jobs.enqueue(behind("online", 1)).unwrap();
    clock.advance(MINUTE);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    drop(engine);
}

#[test]
fn an_engine_stops_while_a_probe_does_not_return() {
    let place = place();
    let jobs = place.open();
    let (stuck, is_stuck) = bounded(1);
    let (go, gone) = bounded::<()>(0);
    let first = AtomicBool::new(true);
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
        .gate("online", Duration::from_millis(1), move || {
            if !first.swap(false, Ordering::SeqCst) {
                let _ = stuck.send(());
                let _ = gone.recv();
            }
            true
        })
        .start()
        .unwrap();
    is_stuck.recv_timeout(SOON).unwrap();
    assert_eq!(engine.stop(Duration::ZERO).unwrap(), []);
    assert_eq!(jobs.instances().unwrap().len(), 1);
    drop(engine);
    assert_eq!(jobs.instances().unwrap(), [], "it keeps no claim");
    drop(go);
}

#[test]
fn a_bad_probe_is_refused() {
    let place = place();
    let jobs = place.open();
    let engine = || acting(&jobs, |_, _| Ok(Outcome::Done));
    let bad = [
        (engine().gate("", MINUTE, || true), "gate name"),
        (engine().gate("a", Duration::ZERO, || true), "probe interval"),
        (engine().gate("a", MINUTE, || true).gate("a", MINUTE, || true), "gate name"),
    ];
    for (builder, named) in bad {
        match builder.start() {
            Err(Error::Invalid { what, .. }) => assert_eq!(what, named),
            other => panic!("{other:?}"),
        }
    }
}

// ---- two processes -------------------------------------------------------------------------

/// Runs jobs until told otherwise.
#[test]
#[ignore = "a child process of the tests here"]
fn child() {
    let Some(file) = child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let engine = acting(&jobs, |act, _| {
        say(&format!("ran {}", act.n));
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(2))
    .start()
    .unwrap();
    say("runs");
    std::io::stdin().lines().next();
    drop(engine);
}

#[test]
fn a_gate_that_one_process_closes_and_opens_is_closed_and_open_in_another() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    let other = Child::start("gates::child", &place.path, "");
    other.wait_for("runs");
    jobs.enqueue(behind("online", 0)).unwrap();
    other.wait_for("ran 0");
    jobs.close_gate("online").unwrap();
    let waits = jobs.enqueue(behind("online", 1)).unwrap();
    // What the other has run after the gate was closed it has seen closed.
    jobs.enqueue(Act { n: 2 }).unwrap();
    other.wait_for("ran 2");
    assert_eq!(jobs.get(waits).unwrap().state, State::Blocked);
    jobs.open_gate("online").unwrap();
    other.wait_for("ran 1");
    assert_eq!(jobs.wait(waits, SOON).unwrap().state, State::Completed);
}
