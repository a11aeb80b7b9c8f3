//! A full disk: a small file system, filled by somebody else's file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use legwork::{Engine, Error, Event, JobId, Jobs, NewJob, Outcome, Pool, State};
use serde_json::json;

use super::{Ledger, Small, all, assert_sound, pass};
use crate::common::{SOON, wait_for};
use crate::scripted::{Act, acting};

/// A file that takes all the space that is left.
struct Filler(PathBuf);

impl Filler {
    fn fill(small: &Small) -> Filler {
        let path = small.dir.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [4096, 512, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        Filler(path)
    }

    /// Leaves so much space to others.
    fn leave(&self, bytes: u64) {
        let file = File::options().write(true).open(&self.0).unwrap();
        let all = file.metadata().unwrap().len();
        file.set_len(all - bytes).unwrap();
    }

    fn remove(self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// What says that a job is large.
const LARGE: i64 = -1;
/// From here on jobs are as quick as any, and bring much output.
const BULKY: i64 = 10_000;

fn padded(n: i64) -> NewJob {
    // The pad is no field of the job's, and takes space all the same.
    NewJob::of_kind("act", json!({ "n": n, "pad": "x".repeat(300) }))
}

/// Enqueues until it was refused for want of space so many times; the ids acknowledged.
fn enqueue_until_full(jobs: &Jobs, refusals: u32) -> Vec<JobId> {
    let (mut acked, mut refused) = (Vec::new(), 0);
    while refused < refusals {
        match jobs.enqueue(padded(1)) {
            Ok(id) => acked.push(id),
            Err(Error::Full(_)) => {
                refused += 1;
                pass(Duration::from_millis(5));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    acked
}

/// Runs jobs on four workers. Large ones wait until they are let go, and bring more output than
/// fits anywhere on a full disk; the others just end.
fn start(jobs: &Jobs, ledger: &Ledger) -> (Engine, Receiver<()>, Sender<()>) {
    let (started, has_started) = bounded(4);
    let (go_on, may_go_on) = bounded::<()>(0);
    let ledger = ledger.clone();
    let engine = acting(jobs, move |act, cx| {
        ledger.ran(cx);
        if act.n == LARGE {
            started.send(()).unwrap();
            let _ = may_go_on.recv();
            cx.output(&"y".repeat(200_000))?;
        } else if act.n >= BULKY {
            cx.output(&"z".repeat(20_000))?;
        }
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(4))
    .start()
    .unwrap();
    (engine, has_started, go_on)
}

/// So many large jobs, which have started and wait.
fn start_large(count: usize, jobs: &Jobs, has_started: &Receiver<()>) -> Vec<JobId> {
    let ids = jobs.enqueue_many((0..count).map(|_| Act { n: LARGE })).unwrap();
    (0..count).for_each(|_| has_started.recv_timeout(SOON).unwrap());
    ids
}

fn wait_for_all(jobs: &Jobs, ids: &[JobId]) {
    for &id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
}

fn once(ids: &[JobId]) -> BTreeMap<i64, u32> {
    ids.iter().map(|id| (id.0, 1)).collect()
}

#[test]
fn a_disk_that_fills_up_loses_no_acknowledged_job_and_no_finished_work() {
    let Some(small) = Small::mount("4m") else { return };
    let jobs = Jobs::open(small.db()).unwrap();
    let ledger = Ledger::default();
    let (engine, has_started, go_on) = start(&jobs, &ledger);
    // Two workers have nothing to do.
    let mut acked = start_large(2, &jobs, &has_started);
    let events = jobs.events();
    let filler = Filler::fill(&small);
    let callers = || -> Vec<_> {
        let enqueue = |_| {
            let jobs = jobs.clone();
            thread::spawn(move || enqueue_until_full(&jobs, 10))
        };
        (0..3).map(enqueue).collect()
    };
    let first = callers();
    first.into_iter().for_each(|caller| acked.extend(caller.join().unwrap()));
    // Two jobs end, and their ends fit nowhere.
    drop(go_on);
    wait_for(&events, |event| matches!(event, Event::WriteFailed { .. }));
    // Space for small jobs, and not for those ends.
    filler.leave(150_000);
    let second = callers();
    let before = acked.len();
    second.into_iter().for_each(|caller| acked.extend(caller.join().unwrap()));
    assert!(acked.len() > before);
    let ran = ledger.runs();
    assert!(
        !acked[before..].iter().any(|id| ran.contains_key(&id.0)),
        "claimed while ends are held"
    );
    assert!(acked[..2].iter().all(|&id| jobs.get(id).unwrap().state == State::Running));
    let mut said = std::iter::from_fn(|| events.try_recv());
    assert!(said.all(|event| event != Event::Recovered), "recovered while the disk is full");

    filler.remove();
    wait_for(&events, |event| *event == Event::Recovered);
    acked.push(jobs.enqueue(Act { n: 2 }).unwrap());
    wait_for_all(&jobs, &acked);
    // No job that was refused is there, and none has run twice: its end was held.
    assert_eq!(all(&jobs).len(), acked.len());
    assert_eq!(ledger.runs(), once(&acked));
    assert_eq!(engine.stop(SOON).unwrap(), []);
    drop((engine, jobs));
    assert_sound(&small.db());
}

#[test]
fn a_disk_that_is_full_again_and_again_leaves_no_job_stuck_and_runs_none_twice() {
    let Some(small) = Small::mount("24m") else { return };
    let jobs = Jobs::open(small.db()).unwrap();
    let events = jobs.events();
    let ledger = Ledger::default();
    // Quick ones, so that they are claimed ahead.
    let acked = jobs.enqueue_many((0..8000).map(|n| Act { n })).unwrap();
    let (engine, ..) = start(&jobs, &ledger);
    let mut fills = 0;
    loop {
        let filler = Filler::fill(&small);
        let failed = loop {
            match events.recv_timeout(Duration::from_millis(500)) {
                Some(Event::WriteFailed { .. }) => break true,
                Some(_) => {}
                None => break false,
            }
        };
        filler.remove();
        if !failed {
            // Nothing is left to be written.
            break;
        }
        fills += 1;
        wait_for(&events, |event| *event == Event::Recovered);
    }
    assert!(fills > 0);
    wait_for_all(&jobs, &acked);
    assert_eq!(ledger.runs(), once(&acked));
    engine.stop(SOON).unwrap();
}

#[test]
fn jobs_claimed_ahead_by_an_engine_that_stops_on_a_full_disk_run_once_all_the_same() {
    let Some(small) = Small::mount("48m") else { return };
    let jobs = Jobs::open(small.db()).unwrap();
    let ledger = Ledger::default();
    // Quick ones, so that they are claimed ahead; the ends of the later ones take much space, and
    // those of the engine little.
    let acked = jobs.enqueue_many((0..200).chain(BULKY..BULKY + 800).map(|n| Act { n })).unwrap();
    let events = jobs.events();
    let (engine, ..) = start(&jobs, &ledger);
    let mut finished = 0;
    wait_for(&events, |event| {
        finished += u32::from(matches!(event, Event::Finished { .. }));
        finished == 150
    });
    let filler = Filler::fill(&small);
    wait_for(&events, |event| matches!(event, Event::WriteFailed { .. }));
    // Space for the engine's leaving, and not for all ends.
    filler.leave(50_000);
    engine.stop(Duration::ZERO).unwrap();
    drop(engine);
    filler.remove();
    wait_for(&events, |event| *event == Event::Recovered);
    let (engine, ..) = start(&jobs, &ledger);
    wait_for_all(&jobs, &acked);
    assert_eq!(ledger.runs(), once(&acked));
    engine.stop(SOON).unwrap();
}

#[test]
fn on_a_full_disk_an_engine_does_not_start_and_says_why() {
    let Some(small) = Small::mount("3m") else { return };
    let jobs = Jobs::open(small.db()).unwrap();
    let filler = Filler::fill(&small);
    let acked = enqueue_until_full(&jobs, 3);
    let engine = || acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["*"]).workers(2));
    let error = engine().start().expect_err("an engine has started without space");
    assert!(matches!(error, Error::Full(_)), "{error:?}");
    filler.remove();
    let engine = engine().start().unwrap();
    wait_for_all(&jobs, &acked);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_new_file_on_a_full_disk_is_refused_and_can_be_made_later() {
    let Some(small) = Small::mount("2m") else { return };
    let filler = Filler::fill(&small);
    match Jobs::open(small.db()) {
        Err(Error::Full(_) | Error::Io(_)) => {}
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("opened without space"),
    }
    filler.remove();
    Jobs::open(small.db()).unwrap().enqueue(Act { n: 1 }).unwrap();
}

#[test]
fn an_engine_that_stops_on_a_full_disk_leaves_nothing_claimed_once_there_is_space() {
    let Some(small) = Small::mount("4m") else { return };
    let jobs = Jobs::open(small.db()).unwrap();
    let events = jobs.events();
    let ledger = Ledger::default();
    let (engine, has_started, go_on) = start(&jobs, &ledger);
    let mut acked = start_large(4, &jobs, &has_started);
    let filler = Filler::fill(&small);
    acked.extend(enqueue_until_full(&jobs, 10));
    drop(go_on);
    wait_for(&events, |event| matches!(event, Event::WriteFailed { .. }));
    engine.stop(Duration::ZERO).unwrap();
    drop(engine);
    filler.remove();
    wait_for(&events, |event| *event == Event::Recovered);
    let (engine, ..) = start(&jobs, &ledger);
    acked.push(jobs.enqueue(Act { n: 2 }).unwrap());
    wait_for_all(&jobs, &acked);
    assert_eq!(ledger.runs(), once(&acked));
    engine.stop(SOON).unwrap();
    drop((engine, jobs));
    let rows = |table: &str| -> i64 {
        let conn = rusqlite::Connection::open(small.db()).unwrap();
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((rows("legwork_instances"), rows("legwork_jobs")), (0, 0));
}
