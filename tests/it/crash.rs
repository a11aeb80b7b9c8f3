//! Kill -9 at any moment loses no acknowledged job and runs none again without a reason.
//!
//! The child process is this test binary again (see [`Child`]). It enqueues, runs and keeps a
//! ledger of its own beside the database: one appending write per line, so that every line of a
//! killed child is whole and their order is the order in which things happened.

mod ledger;
mod neighbours;

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::Duration;

use legwork::{
    Context, Engine, Event, Events, Failure, Filter, Job, JobOptions, JobResult, Jobs, NewJob,
    Outcome, Pool, Retry, State,
};
use serde::{Deserialize, Serialize};

use self::ledger::{Account, Ledger};
use crate::common::{self, Child, SOON, place, say};

// ---- the child ---------------------------------------------------------------------------

const WORKERS: usize = 4;
/// Threads that enqueue, and how often each does: at least so many lines come from each child.
const THREADS: usize = 3;
const CALLS: usize = 40;
const LINES: usize = THREADS * CALLS;
/// How many processes work on the file.
const PROCESSES: usize = 3;

/// Notes its start and end, works for a moment in between, and fails as often as it is told.
#[derive(Serialize, Deserialize)]
struct Noted {
    work: Duration,
    fails: u32,
}

impl Job for Noted {
    const KIND: &'static str = "noted";
    type State = Ledger;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::fixed(Duration::ZERO))
    }

    fn perform(&self, cx: &Context<Ledger>) -> JobResult {
        let (id, attempt) = (cx.id(), cx.attempt());
        let me = std::process::id();
        cx.state().write_and_say(&format!("start {me} {id} {attempt}"));
        cx.wait(self.work)?;
        if attempt <= self.fails {
            cx.state().write_and_say(&format!("fail {me} {id}"));
            return Err(Failure::msg("as told"));
        }
        cx.state().write_and_say(&format!("end {me} {id}"));
        Ok(Outcome::Done)
    }
}

fn some_job(random: &mut fastrand::Rng) -> NewJob {
    let work = Duration::from_micros(random.u64(0..1500));
    let fails = if random.u8(..) < 50 { random.u32(1..3) } else { 0 };
    let job = NewJob::new(Noted { work, fails }).priority(random.i64(0..3));
    if random.u8(..) < 50 { job.delay(Duration::from_millis(random.u64(1..8))) } else { job }
}

/// Enqueues; every acknowledgement goes into the ledger.
fn enqueue_some(jobs: &Jobs, ledger: &Ledger) {
    let mut random = fastrand::Rng::new();
    let me = std::process::id();
    for _ in 0..CALLS {
        let acked = if random.bool() {
            vec![jobs.enqueue(some_job(&mut random)).unwrap()]
        } else {
            let count = random.usize(1..6);
            jobs.enqueue_many((0..count).map(|_| some_job(&mut random))).unwrap()
        };
        let lines: Vec<String> = acked.iter().map(|id| format!("acked {me} {id}")).collect();
        ledger.write_and_say(&lines.join("\n"));
    }
}

/// Runs what is there, and what it makes come, to the end.
fn run_to_the_end(engine: &Engine) {
    let jobs = engine.jobs();
    let waiting = [State::Scheduled, State::Ready, State::Retrying, State::Running]
        .into_iter()
        .fold(Filter::new(), Filter::state);
    loop {
        engine.run_until_empty().unwrap();
        let page = jobs.list(&waiting, None, 100).unwrap();
        if page.jobs.is_empty() {
            return;
        }
        for job in page.jobs {
            jobs.wait(job.id, SOON).unwrap();
        }
    }
}

/// What an event tells is committed.
fn note_what_is_recorded(events: Events, ledger: &Ledger) {
    let me = std::process::id();
    for event in events {
        match event {
            Event::Finished { id, .. } => ledger.write(&format!("recorded {me} {id}")),
            Event::Retrying { id, attempts, .. } => {
                ledger.write(&format!("recorded {me} {id} {attempts}"));
            }
            Event::Missed(missed) => panic!("{missed} events were missed"),
            _ => {}
        }
    }
}

#[test]
#[ignore = "child process of `after_kills_at_any_moment_...`"]
fn noting_child() {
    let Some(db) = common::child_file() else {
        return;
    };
    say("here");
    let jobs = Jobs::open(&db).unwrap();
    say("open");
    let (events, ledger) = (jobs.events(), Ledger::of(&db));
    thread::spawn(move || note_what_is_recorded(events, &ledger));
    let engine = Engine::builder(&jobs)
        .register_with::<Noted>(Ledger::of(&db))
        .pool(Pool::new(["*"]).workers(WORKERS))
        // Killed on purpose: in so many rounds chance would find somebody to blame.
        .crash_limit(0)
        .start()
        .unwrap();
    say("started");
    if common::child_role() == "to the end" {
        run_to_the_end(&engine);
        engine.stop(SOON).unwrap();
        return;
    }
    let ledger = Ledger::of(&db);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| enqueue_some(&jobs, &ledger));
        }
    });
    // Goes on running jobs until it is killed, or its parent is gone.
    io::stdin().read_line(&mut String::new()).unwrap();
}

// ---- the parent --------------------------------------------------------------------------

fn rounds() -> usize {
    std::env::var("LEGWORK_CRASH_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap())
}

#[test]
fn after_kills_at_any_moment_no_acknowledged_job_is_lost_and_every_second_start_is_explained() {
    let place = place();
    let ledger = Ledger::of(&place.path);
    let rounds = rounds();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut living: Vec<Child> = Vec::new();
    for _ in 0..rounds {
        // Three at a time, one of which may have taken over from one that died just now.
        while living.len() < PROCESSES {
            living.push(Child::start("crash::noting_child", &place.path, "on and on"));
        }
        // A short wait kills the newest while it opens the file or takes over a dead one's jobs.
        let short = random.u8(..) < 60;
        let lines = if short { random.usize(0..6) } else { random.usize(6..LINES) };
        for _ in 0..lines {
            living[PROCESSES - 1].line().expect("the child lives until it is killed");
        }
        let doomed = if short { PROCESSES - 1 } else { random.usize(0..PROCESSES) };
        let child = living.remove(doomed);
        let process = child.id();
        child.kill();
        ledger.write(&format!("killed {process}"));
    }
    for child in living {
        let process = child.id();
        child.kill();
        ledger.write(&format!("killed {process}"));
    }
    Child::start("crash::noting_child", &place.path, "to the end").end();

    let account = Account::of(&std::fs::read_to_string(Ledger::path(&place.path)).unwrap());
    assert_eq!(account.unexplained(), Vec::<String>::new());
    let lost: Vec<_> = account.acked.difference(&account.ended).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    // Otherwise the kills have come at harmless moments only, and nothing was tested.
    let again = account.started_again();
    assert!(again > rounds / 4, "only {again} jobs were cut off");
    eprintln!("{rounds} kills, {} acknowledged jobs, {again} started again", account.acked.len());
    check_the_file(&place, &account);
}

/// Every acknowledged job is completed and has used up only the attempts that failed or completed
/// it; nothing is left of the dead.
fn check_the_file(place: &common::Place, account: &Account) {
    let jobs = place.open();
    let mut seen = BTreeSet::new();
    let mut before = None;
    loop {
        let page = jobs.list(&Filter::new(), before, 1000).unwrap();
        for job in &page.jobs {
            assert_eq!(job.state, State::Completed, "job {}", job.id);
            let fails = job.args_as::<Noted>().unwrap().fails;
            assert_eq!(job.attempts, fails + 1, "job {}", job.id);
            seen.insert(job.id.0);
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert!(account.acked.is_subset(&seen));
    assert_eq!(seen, account.ended);
    let conn = place.connect();
    let ask = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(ask("PRAGMA integrity_check"), "ok");
    assert_eq!(ask("SELECT CAST(count(*) AS TEXT) FROM legwork_instances"), "0");
    assert_eq!(ask("SELECT CAST(count(*) AS TEXT) FROM legwork_jobs"), "0");
}
