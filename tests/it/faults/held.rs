//! What others hold: the write lock, and a snapshot.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use legwork::{Error, Event, Jobs, NewJob, Outcome, Pool, Scope, State};
use serde_json::json;

use super::{Ledger, all, assert_sound, pass};
use crate::common::{self, Child, SOON, place, say, until, wait_for};
use crate::scripted::{Act, acting};

/// Another program with the file: holds what its role says until it is told to let go.
#[test]
#[ignore = "child process of the tests of held locks and snapshots"]
fn child() {
    let Some(file) = common::child_file() else { return };
    if common::child_role() == "descriptors" {
        return without_descriptors(&file);
    }
    let conn = rusqlite::Connection::open(file).unwrap();
    match common::child_role().as_str() {
        "lock" => {
            conn.execute_batch("BEGIN IMMEDIATE; UPDATE legwork_counter SET last_job = last_job")
        }
        _ => conn.execute_batch("BEGIN; SELECT count(*) FROM legwork_jobs"),
    }
    .unwrap();
    say("holding");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    conn.execute_batch("COMMIT").unwrap();
    drop(conn);
    say("let go");
}

/// Reads without and with a descriptor to be had.
fn without_descriptors(file: &Path) {
    let jobs = Jobs::builder(file).busy_timeout(Duration::from_millis(300)).open().unwrap();
    let all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let refused = jobs.stats();
    drop(all);
    say(&format!("said {refused:?}"));
    jobs.stats().unwrap();
}

#[test]
fn a_reader_that_cannot_be_opened_says_why_and_the_next_one_is() {
    let place = place();
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=60");
    let child = Child::start_under(limited, "faults::held::child", &place.path, "descriptors");
    let said = child.wait_for("said");
    assert!(said.starts_with("Err(Io("), "{said}");
    child.end();
}

fn hold(what: &str, path: &Path) -> Child {
    let child = Child::start("faults::held::child", path, what);
    child.wait_for("holding");
    child
}

fn let_go(mut child: Child) {
    child.tell("go");
    child.end();
}

/// How long the foreign lock is held.
const LOCKED: Duration = Duration::from_secs(20);

#[test]
fn a_lock_held_by_another_process_for_20_s_makes_callers_busy_and_loses_no_end() {
    let place = place();
    let patience = Duration::from_millis(700);
    let jobs = place.builder().busy_timeout(patience).open().unwrap();
    let ledger = Ledger::default();
    let (started, has_started) = bounded(4);
    let (go_on, may_go_on) = bounded::<()>(0);
    let engine = acting(&jobs, {
        let ledger = ledger.clone();
        move |act, cx| {
            ledger.ran(cx);
            if act.n == 0 {
                started.send(()).unwrap();
                let _ = may_go_on.recv();
            }
            Ok(Outcome::Done)
        }
    })
    .pool(Pool::new(["*"]).workers(4))
    .start()
    .unwrap();
    let mut acked = jobs.enqueue_many((0..4).map(|_| Act { n: 0 })).unwrap();
    (0..4).for_each(|_| has_started.recv_timeout(SOON).unwrap());
    let events = jobs.events();

    let holder = hold("lock", &place.path);
    let since = Instant::now();
    // Four jobs end while nothing can be recorded.
    drop(go_on);
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let jobs = jobs.clone();
            thread::spawn(move || {
                let mut refused = 0;
                while since.elapsed() + patience < LOCKED {
                    match jobs.enqueue(Act { n: 1 }) {
                        Err(Error::Busy { waited }) => assert!(waited >= patience),
                        other => panic!("{other:?}"),
                    }
                    refused += 1;
                }
                refused
            })
        })
        .collect();
    wait_for(&events, |event| matches!(event, Event::DatabaseBusy { .. }));
    let refused: u32 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert!(refused > 0);
    pass(LOCKED.saturating_sub(since.elapsed()));
    assert!(acked.iter().all(|&id| jobs.get(id).unwrap().state == State::Running));
    let_go(holder);

    acked.push(jobs.enqueue(Act { n: 2 }).unwrap());
    for &id in &acked {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.run_until_empty().unwrap();
    assert_eq!(all(&jobs).len(), acked.len(), "a job appeared although its enqueue was refused");
    assert_eq!(ledger.runs(), acked.iter().map(|id| (id.0, 1)).collect::<BTreeMap<_, _>>());
    engine.stop(SOON).unwrap();
}

#[test]
fn an_engine_that_stops_beside_a_foreign_lock_leaves_when_the_lock_is_free() {
    let place = place();
    let jobs = place.builder().busy_timeout(Duration::from_millis(300)).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let holder = hold("lock", &place.path);
    engine.stop(Duration::ZERO).unwrap();
    // Waits no longer than the busy time-out.
    drop(engine);
    let_go(holder);
    let conn = place.connect();
    let instances = || -> i64 {
        conn.query_row("SELECT count(*) FROM legwork_instances", [], |row| row.get(0)).unwrap()
    };
    until("its row is removed", || instances() == 0);
}

/// How long the snapshot is kept.
const PINNED: Duration = Duration::from_secs(30);

fn wal_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

/// The size of the `-wal`, without opening it.
fn size(wal: &Path) -> u64 {
    std::fs::metadata(wal).unwrap().len()
}

fn heavy(n: i64) -> NewJob {
    NewJob::of_kind("act", json!({ "n": n, "pad": "x".repeat(40_000) }))
}

fn light(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

/// Enqueues while jobs run, until told to stop.
fn load(jobs: &Jobs, stop: &mpsc::Receiver<()>) {
    let mut written = 0;
    while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
        // Enough to pass the bound; then on with little, which is load all the same.
        if written < 90 << 20 {
            jobs.enqueue_many((0..20).map(heavy)).unwrap();
            written += 20 * 40_000;
        } else {
            jobs.enqueue_many((0..20).map(light)).unwrap();
        }
    }
}

#[test]
fn a_snapshot_kept_for_30_s_under_load_is_told_and_the_wal_is_bounded_after_it() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine =
        acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["*"]).workers(2)).start().unwrap();
    jobs.enqueue(light(0)).unwrap();
    let reader = hold("snapshot", &place.path);
    let since = Instant::now();
    let (stop, stopped) = mpsc::channel();
    let loading = thread::spawn({
        let jobs = jobs.clone();
        move || load(&jobs, &stopped)
    });
    let told = wait_for(&events, |event| matches!(event, Event::WalPinned { .. }));
    let Event::WalPinned { bytes, .. } = told else { unreachable!() };
    assert!(bytes > 64 << 20, "{bytes}");
    pass(PINNED.saturating_sub(since.elapsed()));
    stop.send(()).unwrap();
    loading.join().unwrap();
    engine.run_until_empty().unwrap();
    let wal = wal_of(&place.path);
    assert!(size(&wal) > 64 << 20);

    // Nobody writes any more: it is the writer that looks again by itself.
    let_go(reader);
    let deadline = Instant::now() + SOON;
    while size(&wal) > 16 << 20 {
        assert!(Instant::now() < deadline, "the WAL is still {} bytes large", size(&wal));
        pass(Duration::from_millis(100));
    }
    engine.stop(SOON).unwrap();
    drop((engine, jobs));
    assert_sound(&place.path);
}

#[test]
fn a_job_whose_start_fails_ends_by_it_and_holds_up_nobody() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done));
    let engine = engine.pool(Pool::new(["*"]).workers(2)).start().unwrap();
    let spoiled = "CREATE TRIGGER app BEFORE UPDATE OF state ON legwork_jobs
                    WHEN NEW.state = 4 AND NEW.args = '{\"n\":7}'
                   BEGIN SELECT RAISE(ABORT, 'of the app'); END";
    place.connect().execute_batch(spoiled).unwrap();
    jobs.pause(Scope::All).unwrap();
    let of = |n| jobs.enqueue(Act { n }).unwrap();
    let ids: Vec<_> = [1, 7, 2, 7, 3].map(of).into();
    jobs.resume(Scope::All).unwrap();
    for (at, &id) in ids.iter().enumerate() {
        let job = jobs.wait(id, SOON).unwrap();
        if at % 2 == 0 {
            assert_eq!(job.state, State::Completed);
        } else {
            assert_eq!(job.state, State::Cancelled);
            assert!(job.reason.unwrap().contains("of the app"));
        }
    }
    engine.stop(SOON).unwrap();
}
