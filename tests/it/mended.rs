//! What was once found broken between two parts that were each right, and stays mended.
#![cfg(unix)]

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use legwork::{Event, Jobs, Outcome, Pool, Scope};

use crate::common::{Child, SOON, child_file, child_role, place, say, wait_for};
use crate::scripted::{Act, acting};

fn short_jobs(jobs: &Jobs, count: i64) {
    jobs.enqueue_many((0..count).map(|n| Act { n })).unwrap();
}

/// Jobs whose end still lay in a tray were named.
#[test]
fn stop_names_only_jobs_that_would_not_stop() {
    for round in 0..30 {
        let place = place();
        let jobs = place.open();
        let events = jobs.events();
        // Each makes telling slower, so that ends are on their way for longer.
        let _more: Vec<_> = (0..20).map(|_| jobs.events()).collect();
        short_jobs(&jobs, 3_000);
        let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
            .pool(Pool::new(["*"]).workers(4))
            .start()
            .unwrap();
        for _ in 0..300 {
            wait_for(&events, |event| matches!(event, Event::Finished { .. }));
        }
        let left = engine.stop(SOON).unwrap();
        assert!(left.is_empty(), "round {round}: {} jobs that have ended: {left:?}", left.len());
    }
}

/// Jobs that were handed over by an insert in the same group as the pause started after it.
#[test]
fn nothing_starts_after_a_pause_is_acknowledged_beside_inserts() {
    let place = place();
    let jobs = place.open();
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let _engine = acting(&jobs, move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(1))
    .start()
    .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let inserters: Vec<_> = (0..3)
        .map(|_| {
            let (jobs, over) = (jobs.clone(), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    short_jobs(&jobs, 3);
                    pass(2);
                }
            })
        })
        .collect();
    let mut worst = 0;
    for _ in 0..400 {
        pass(7);
        jobs.pause(Scope::All).unwrap();
        let before = started.load(Ordering::SeqCst);
        // Long enough for what is in the tray to start, if anything does.
        pass(4);
        let more = started.load(Ordering::SeqCst) - before;
        worst = worst.max(more);
        jobs.resume(Scope::All).unwrap();
    }
    over.store(true, Ordering::Relaxed);
    inserters.into_iter().for_each(|thread| thread.join().unwrap());
    // One worker may have taken one job just before.
    assert!(worst <= 1, "{worst} jobs started after the pause");
}

/// An empty datagram ended the bell's thread for good, and nobody noticed.
#[test]
fn a_bell_outlives_an_empty_datagram() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(10);
    let _engine = acting(&jobs, move |_, _| {
        tell.send(()).unwrap();
        Ok(Outcome::Done)
    })
    .start()
    .unwrap();
    let side = place.dir.path().join("test.db-legwork");
    let bell = std::fs::read_dir(side)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ext| ext == "bell"))
        .unwrap();
    let enqueue = || drop(Child::start("mended::child", &place.path, "enqueue").end());
    enqueue();
    told.recv_timeout(SOON).expect("rung");
    UnixDatagram::unbound().unwrap().send_to(&[], bell).unwrap();
    enqueue();
    told.recv_timeout(Duration::from_secs(10)).expect("rung after an empty datagram");
}

#[test]
#[ignore = "started by other tests as a process of its own"]
fn child() {
    let Some(path) = child_file() else { return };
    assert_eq!(child_role(), "enqueue");
    let jobs = Jobs::builder(path).sweep(Duration::ZERO).open().unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap();
    say("done");
}

/// A container can have a boot id of its own beside its host's, on one file.
#[test]
fn a_held_lock_outweighs_another_boot_id() {
    let place = place();
    let jobs = place.open();
    let starts = Arc::new(AtomicUsize::new(0));
    let (go, wait) = crossbeam_channel::bounded::<()>(0);
    let (tell, told) = std::sync::mpsc::sync_channel(10);
    let count = Arc::clone(&starts);
    let run = move |_: &Act, _: &legwork::Context<_>| {
        count.fetch_add(1, Ordering::SeqCst);
        tell.send(()).unwrap();
        let _ = wait.recv();
        Ok(Outcome::Done)
    };
    let run = Arc::new(run);
    let again = Arc::clone(&run);
    let _first = acting(&jobs, move |act, cx| run(act, cx))
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap();
    told.recv_timeout(SOON).unwrap();
    place.connect().execute("UPDATE legwork_instances SET boot_id = 'of a container'", []).unwrap();
    let _second = acting(&jobs, move |act, cx| again(act, cx))
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let second_start = told.recv_timeout(Duration::from_secs(3));
    drop(go);
    assert!(second_start.is_err(), "started {} times", starts.load(Ordering::SeqCst));
}

/// A caller whose operation failed beside a good lock waited for the next lock past his deadline. That
/// lock has to be taken between the two, so this is tried several times.
#[test]
fn a_caller_whose_operation_fails_is_answered_in_time() {
    let place = place();
    let open = || place.builder().busy_timeout(Duration::from_millis(200)).open().unwrap();
    drop(open());
    place
        .connect()
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON legwork_jobs WHEN new.args LIKE '%bad%'
             BEGIN SELECT raise(ABORT, 'refused by the app'); END",
        )
        .unwrap();
    for _ in 0..8 {
        // A handle that has not met the other one yet.
        let jobs = open();
        let over = Arc::new(AtomicBool::new(false));
        let (until, raw) = (Arc::clone(&over), place.connect());
        raw.busy_timeout(Duration::ZERO).unwrap();
        let other = std::thread::spawn(move || {
            // Until the caller has the lock for his first pass; then it is taken when it is free.
            while !until.load(Ordering::Relaxed)
                && raw.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
            {
                pass(1);
            }
            while !until.load(Ordering::Relaxed) {
                if raw.execute_batch("BEGIN IMMEDIATE").is_ok() {
                    pass(2_000);
                    raw.execute_batch("ROLLBACK").unwrap();
                    return;
                }
            }
        });
        let mut rows: Vec<_> = (0..2_000).map(|n| Raw { x: serde_json::json!(n) }).collect();
        rows.push(Raw { x: serde_json::json!("bad") });
        let began = Instant::now();
        let done = jobs.enqueue_many(rows);
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        other.join().unwrap();
        assert!(done.is_err());
        assert!(took < Duration::from_millis(1_500), "answered after {took:?}");
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Raw {
    x: serde_json::Value,
}

impl legwork::Job for Raw {
    const KIND: &'static str = "raw";
    type State = ();
    fn perform(&self, _: &legwork::Context) -> legwork::JobResult {
        Ok(Outcome::Done)
    }
}

/// Lets time pass: here it is what is looked at.
fn pass(millis: u64) {
    let (_nobody, never) = std::sync::mpsc::channel::<()>();
    assert!(never.recv_timeout(Duration::from_millis(millis)).is_err());
}
