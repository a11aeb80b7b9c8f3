//! EIO and ENOSPC at each of the first writes and syncs of a life cycle, injected by strace: once,
//! and from there on.
//!
//! strace counts the calls of each thread apart. So a *new* file meets the fault while it is being
//! made, in the thread that opens it, and an *old* one in the writer, while jobs go through.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use legwork::{
    Clock, Error, Event, Failure, JobId, Jobs, NewJob, Outcome, Pool, Retry, Scope, State,
};

use super::{Ledger, all, assert_sound};
use crate::common::{self, Child, place, say};
use crate::scripted::{Act, acting};

/// The job that fails once.
const FAILS: i64 = 2;
/// The first of the jobs that are enqueued in bulk.
const BULK: i64 = 10;
const BULK_SIZE: i64 = 30;
/// A job in the app's transaction.
const WITH_APP: i64 = 50;
/// A job that is cancelled before it is due.
const CANCELLED: i64 = 60;
/// How long nothing may happen before the child goes on; after a fault, nothing may happen at all.
const QUIET: Duration = Duration::from_millis(200);

/// What an error is called, the same word for all that say the same.
fn word(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
}

/// Says what became of jobs that were to be enqueued.
fn told(numbers: impl IntoIterator<Item = i64>, done: legwork::Result<Vec<JobId>>) -> bool {
    match done {
        Ok(ids) => {
            numbers.into_iter().zip(ids).for_each(|(n, id)| say(&format!("acked {n} {}", id.0)));
            true
        }
        Err(error) => {
            let why = word(&error);
            numbers.into_iter().for_each(|n| say(&format!("refused {n} {why}")));
            false
        }
    }
}

fn said(what: &str, done: legwork::Result<()>) {
    if let Err(error) = done {
        say(&format!("error {what} {}", word(&error)));
    }
}

/// A life cycle that goes on whatever fails, and says what was answered.
#[test]
#[ignore = "child process of the tests of injected faults"]
fn child() {
    let Some(file) = common::child_file() else { return };
    match common::child_role().as_str() {
        "steady" => return steady(&file),
        role @ ("one" | "one with the app") => {
            let jobs = Jobs::open(&file).unwrap();
            if role == "one" {
                told([1], jobs.enqueue(quick(1)).map(|id| vec![id]));
            } else {
                with_app(&jobs, &file);
            }
            // Never closed, as if it were killed now.
            return std::mem::forget(jobs);
        }
        _ => {}
    }
    match Jobs::builder(&file).busy_timeout(Duration::from_secs(5)).open() {
        Ok(jobs) => live(&jobs, &file),
        Err(error) => say(&format!("error open {}", word(&error))),
    }
    say("end");
}

fn live(jobs: &Jobs, file: &Path) {
    for n in 0..4 {
        told([n], jobs.enqueue(quick(n)).map(|id| vec![id]));
    }
    told(BULK..BULK + BULK_SIZE, jobs.enqueue_many((BULK..BULK + BULK_SIZE).map(quick)));
    let later = jobs.enqueue(quick(CANCELLED).delay(Duration::from_secs(600)));
    let later = told([CANCELLED], later.map(|id| vec![id])).then_some(());
    let events = jobs.events();
    let engine = acting(jobs, |act, cx| {
        say(&format!("ran {}", act.n));
        if act.n == FAILS && cx.attempt() == 1 {
            Err(Failure::msg("as told"))
        } else {
            Ok(Outcome::Done)
        }
    })
    .pool(Pool::new(["*"]).workers(2))
    .start();
    with_app(jobs, file);
    said("pause", jobs.pause(Scope::Queue("none".into())));
    if later.is_some() {
        let id = all_or_none(jobs);
        if let Some(id) = id {
            said("cancel", jobs.cancel(id).map(drop));
        }
    }
    match engine {
        Ok(engine) => {
            while let Some(event) = events.recv_timeout(QUIET) {
                if let Event::Finished { id, state: State::Completed, .. } = event {
                    say(&format!("finished {}", id.0));
                }
            }
            said("stop", engine.stop(QUIET).map(drop));
        }
        Err(error) => said("start", Err(error)),
    }
}

/// Enqueues and runs jobs until all have ended, in one process that meets faults again and again.
fn steady(file: &Path) {
    let jobs = Jobs::open(file).unwrap();
    let events = jobs.events();
    let ledger = Ledger::default();
    let engine = acting(&jobs, {
        let ledger = ledger.clone();
        move |_, cx| {
            ledger.ran(cx);
            Ok(Outcome::Done)
        }
    })
    .pool(Pool::new(["*"]).workers(4))
    .start();
    // A fault may hit this one, too.
    let Ok(engine) = engine else { return say("end") };
    let mut acked = Vec::new();
    for n in 0..200 {
        let done = if n % 4 == 0 {
            jobs.enqueue_many((0..25).map(quick))
        } else {
            jobs.enqueue(quick(n)).map(|id| vec![id])
        };
        match done {
            Ok(ids) => acked.extend(ids),
            Err(error) => say(&format!("refused {n} {}", word(&error))),
        }
    }
    for &id in &acked {
        assert_eq!(jobs.wait(id, common::SOON).unwrap().state, State::Completed);
    }
    let failed = std::iter::from_fn(|| events.try_recv())
        .filter(|event| matches!(event, Event::WriteFailed { .. }));
    say(&format!("faults {}", failed.count()));
    engine.run_until_empty().unwrap();
    // One whose enqueue has an unknown outcome may have run as well, and once.
    let runs = ledger.runs();
    assert!(runs.values().all(|&runs| runs == 1), "{runs:?}");
    assert!(acked.iter().all(|id| runs.contains_key(&id.0)));
    engine.stop(common::SOON).unwrap();
    say("end");
}

fn quick(n: i64) -> NewJob {
    NewJob::new(Act { n }).retry(Retry::fixed(Duration::ZERO).jitter(0.0).attempts(3))
}

/// The job that is to be cancelled, if it can be read.
fn all_or_none(jobs: &Jobs) -> Option<JobId> {
    let page = jobs.list(&legwork::Filter::new().state(State::Scheduled), None, 10).ok()?;
    page.jobs.first().map(|job| job.id)
}

/// An order of the app's, and a job for it: both or none.
fn with_app(jobs: &Jobs, file: &Path) {
    let made = rusqlite::Connection::open(file).and_then(|conn| {
        conn.execute_batch("CREATE TABLE IF NOT EXISTS orders (n INTEGER)").map(|()| conn)
    });
    // What the app does by itself is its own.
    let Ok(mut conn) = made else { return };
    let done = jobs.transaction(&mut conn, |tx| {
        let order = tx.execute("INSERT INTO orders (n) VALUES (?1)", [WITH_APP]);
        order.map_err(|_| Error::Stopped("the app"))?;
        jobs.enqueue_in(tx, quick(WITH_APP))
    });
    match done {
        Err(Error::Stopped("the app")) => {}
        done => drop(told([WITH_APP], done.map(|id| vec![id]))),
    }
}

// ---- the sweep -------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Fault {
    /// On a file that is there already, with two jobs in it.
    old: bool,
    call: &'static str,
    error: &'static str,
    at: u32,
    on: bool,
}

/// The answers of a child.
#[derive(Default)]
struct Answers {
    acked: BTreeMap<i64, i64>,
    refused: BTreeMap<i64, String>,
    errors: BTreeSet<String>,
    finished: BTreeSet<i64>,
    ended: bool,
}

impl Answers {
    fn of(lines: &[String]) -> Answers {
        let mut answers = Answers::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<i64>().unwrap();
            match words[0] {
                "acked" => drop(answers.acked.insert(number(1), number(2))),
                "refused" => {
                    answers.refused.insert(number(1), words[2].to_owned());
                    answers.errors.insert(words[2].to_owned());
                }
                "error" => drop(answers.errors.insert(words[2].to_owned())),
                "finished" => drop(answers.finished.insert(number(1))),
                "end" => answers.ended = true,
                // What the test harness says.
                _ => {}
            }
        }
        answers
    }
}

/// strace, for the calls on the files of one database alone.
fn tracing(path: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    for suffix in ["", "-wal", "-journal", "-shm"] {
        strace.arg("-P").arg(format!("{}{suffix}", path.display()));
    }
    strace.stderr(Stdio::null());
    strace
}

fn strace(path: &Path, fault: Fault) -> Command {
    let Fault { call, error, at, on, .. } = fault;
    let step = if on { "+" } else { "" };
    let mut strace = tracing(path);
    strace.args(["-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error={error}:when={at}{step}")]);
    strace
}

/// Runs a life cycle with the fault, and sees that every promise was kept; whether anything failed.
fn survive(fault: Fault) -> bool {
    let place = place();
    let before = if fault.old {
        let jobs = place.open();
        let ids = jobs.enqueue_many([100, 101].map(quick)).unwrap();
        ids.iter().zip([100, 101]).map(|(id, n)| (n, id.0)).collect()
    } else {
        BTreeMap::new()
    };
    let strace = strace(&place.path, fault);
    let child = Child::start_under(strace, "faults::inject::child", &place.path, "");
    let (lines, success) = child.end_somehow();
    let mut answers = Answers::of(&lines);
    assert!(success && answers.ended, "{fault:?}: the child died: {lines:?}");
    answers.acked.extend(before);
    let typed = ["Full", "Io", "OutcomeUnknown"];
    let untyped: Vec<_> =
        answers.errors.iter().filter(|error| !typed.contains(&&***error)).collect();
    assert!(untyped.is_empty(), "{fault:?}: {untyped:?}: {lines:?}");
    check(&place.path, fault, &answers, &lines);
    !answers.errors.is_empty()
}

fn check(path: &Path, fault: Fault, answers: &Answers, lines: &[String]) {
    let later = Clock::stopped(time::OffsetDateTime::now_utc() + Duration::from_secs(3600));
    let jobs = Jobs::builder(path).clock(later).open().unwrap();
    let found: BTreeMap<i64, (JobId, State)> = all(&jobs)
        .into_iter()
        .map(|job| (job.args_as::<Act>().unwrap().n, (job.id, job.state)))
        .collect();
    for (n, id) in &answers.acked {
        let job = found.get(n).map(|(id, _)| id.0);
        assert_eq!(job, Some(*id), "{fault:?}: job {n} was acknowledged and is lost: {lines:?}");
    }
    for (n, why) in answers.refused.iter().filter(|(_, why)| *why != "OutcomeUnknown") {
        assert!(!found.contains_key(n), "{fault:?}: job {n} is there, refused as {why}: {lines:?}");
    }
    for (n, (id, state)) in &found {
        let told = answers.finished.contains(&id.0);
        assert!(
            !told || *state == State::Completed,
            "{fault:?}: the end of {n} is lost: {lines:?}"
        );
    }
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    engine.run_due().unwrap();
    for job in all(&jobs) {
        let n = job.args_as::<Act>().unwrap().n;
        let over =
            job.state == State::Completed || (n == CANCELLED && job.state == State::Cancelled);
        assert!(over, "{fault:?}: job {n} is {:?} in the end: {lines:?}", job.state);
    }
    let conn = rusqlite::Connection::open(path).unwrap();
    let orders = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0));
    if let Ok(orders) = orders {
        let orders: i64 = orders;
        assert_eq!(orders == 1, found.contains_key(&WITH_APP), "{fault:?}: {lines:?}");
    }
    drop((engine, jobs, conn));
    assert_sound(path);
}

/// The faults at these numbers, of both kinds, on both files, once and from there on.
fn faults(call: &'static str, numbers: impl IntoIterator<Item = u32>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for at in numbers {
        for old in [false, true] {
            for error in ["EIO", "ENOSPC"] {
                faults.extend([false, true].map(|on| Fault { old, call, error, at, on }));
            }
        }
    }
    faults
}

/// Every fault, several at a time: a life cycle sleeps more than it works.
fn sweep(faults: &[Fault]) {
    if !common::has_strace() {
        return;
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if survive(fault) {
                        *failed.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    // Late calls are not made at all when an early fault has cut the life short.
    println!("{} life cycles, in {failed} of which a call failed", faults.len());
    let least =
        if faults[0].at == 1 && faults[0].call != "ftruncate" { faults.len() / 3 } else { 0 };
    assert!(failed > least, "only {failed} of {} faults were noticed", faults.len());
}

#[test]
fn an_io_error_or_a_full_disk_at_any_of_60_writes_loses_nothing_acknowledged() {
    sweep(&faults("pwrite64", 1..=60));
}

#[test]
fn an_io_error_or_a_full_disk_at_any_sync_loses_nothing_acknowledged() {
    // A life cycle has no more.
    sweep(&faults("fsync", 1..=12));
}

#[test]
fn an_engine_that_meets_faults_again_and_again_goes_on_and_runs_every_job_once() {
    if !common::has_strace() {
        return;
    }
    let mut told = 0;
    for call in ["pwrite64", "fsync"] {
        for error in ["EIO", "ENOSPC"] {
            let place = place();
            drop(place.open());
            let mut strace = tracing(&place.path);
            let step = if call == "fsync" { "9+7" } else { "80+61" };
            strace.args(["-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:error={error}:when={step}")]);
            let child = Child::start_under(strace, "faults::inject::child", &place.path, "steady");
            let (lines, success) = child.end_somehow();
            assert!(success && lines.iter().any(|line| line == "end"), "{call} {error}: {lines:?}");
            let refused = lines.iter().filter(|line| line.starts_with("refused"));
            let faults = lines.iter().filter_map(|line| line.strip_prefix("faults "));
            told += refused.count() + faults.map(|n| n.parse::<usize>().unwrap()).sum::<usize>();
            assert_sound(&place.path);
        }
    }
    assert!(told > 20, "only {told} faults were noticed");
}

#[test]
fn a_commit_whose_sync_fails_is_answered_as_unknown_and_may_be_found_later() {
    if !common::has_strace() {
        return;
    }
    for (role, n) in [("one", 1), ("one with the app", WITH_APP)] {
        let place = place();
        drop(place.open());
        place.connect().execute_batch("CREATE TABLE orders (n INTEGER)").unwrap();
        let mut strace = tracing(&place.path);
        // The first sync of a thread is that of the new WAL's header, the second that of the commit.
        strace.args(["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=2+"]);
        let child = Child::start_under(strace, "faults::inject::child", &place.path, role);
        let lines = child.end();
        assert!(lines.contains(&format!("refused {n} OutcomeUnknown")), "{role}: {lines:?}");
        // What was written to the WAL counts now.
        let found = all(&place.open());
        assert_eq!(found.len(), 1, "{role}");
        assert_eq!(found[0].args_as::<Act>().unwrap().n, n);
        assert_sound(&place.path);
    }
}

#[test]
#[ignore = "soak: some minutes"]
fn soak_faults_at_every_write_sync_and_truncation_of_a_life_cycle() {
    sweep(&faults("pwrite64", 61..=200));
    sweep(&faults("fsync", 13..=30));
    sweep(&faults("ftruncate", 1..=3));
}
