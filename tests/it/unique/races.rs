//! Many threads and processes want the same key at once; some of them die.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use legwork::{
    Conflict, Context, Durability, Engine, Filter, Job, JobResult, Jobs, NewJob, Outcome, Pool,
    State, Unique,
};
use serde::{Deserialize, Serialize};

use super::{DAY, state};
use crate::common::{self, Child, Place, SOON, place, say};
use crate::scripted::acting;

#[derive(Serialize, Deserialize)]
struct Noted {
    n: u64,
}

fn ledger(db: &Path) -> std::path::PathBuf {
    db.with_extension("ledger")
}

fn note(db: &Path, line: &str) {
    let ledger = OpenOptions::new().create(true).append(true).open(ledger(db)).unwrap();
    (&ledger).write_all(format!("{line}\n").as_bytes()).unwrap();
}

impl Job for Noted {
    const KIND: &'static str = "noted";
    type State = std::path::PathBuf;

    fn perform(&self, cx: &Context<Self::State>) -> JobResult {
        note(cx.state(), &format!("start {}", self.n));
        if self.n == HANG {
            say(&format!("start {}", cx.id()));
            cx.wait(SOON)?;
        }
        note(cx.state(), &format!("end {}", self.n));
        Ok(Outcome::Done)
    }
}

const HANG: u64 = u64::MAX;
const THREADS: usize = 4;
const PROCESSES: u64 = 4;

fn conflict(word: &str) -> Conflict {
    match word {
        "ignore" => Conflict::Ignore,
        "replace" => Conflict::Replace,
        "reject" => Conflict::Reject,
        _ => Conflict::KeepLast,
    }
}

fn window(word: &str, unique: Unique) -> Unique {
    match word {
        "started" => unique.until_started(),
        "period" => unique.for_period(DAY),
        _ => unique,
    }
}

/// Enqueues as told by lines "conflict window key count", with all its threads at once; with
/// "engine" in its role it runs the jobs, too.
#[test]
#[ignore = "child process of the tests of unique jobs"]
fn enqueuer() {
    let Some(db) = common::child_file() else { return };
    let jobs =
        Jobs::builder(&db).durability(Durability::Relaxed).busy_timeout(SOON).open().unwrap();
    let engine = common::child_role().contains("engine").then(|| {
        Engine::builder(&jobs)
            .state(db.clone())
            .register::<Noted>()
            .pool(Pool::new(["*"]).workers(3))
            .crash_limit(0)
            .start()
            .unwrap()
    });
    say("ready");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let [how, held, key, from, count] = words[..] else { break };
        let (from, count): (u64, u64) = (from.parse().unwrap(), count.parse().unwrap());
        let new = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let (jobs, new) = (&jobs, &new);
                scope.spawn(move || {
                    for n in 0..count {
                        let n = from + thread * count + n;
                        let unique = window(held, Unique::by_key(key)).on_conflict(conflict(how));
                        let done =
                            jobs.enqueue_each([NewJob::new(Noted { n }).unique(unique)]).unwrap();
                        new.fetch_add(u64::from(done[0].is_new()), Ordering::Relaxed);
                    }
                });
            }
        });
        say(&format!("new {}", new.into_inner()));
    }
    if let Some(engine) = engine {
        engine.stop(SOON).unwrap();
    }
    say("ended");
}

fn children(place: &Place, role: &str) -> Vec<Child> {
    let children: Vec<Child> = (0..PROCESSES)
        .map(|_| Child::start("unique::races::enqueuer", &place.path, role))
        .collect();
    children.iter().for_each(|child| drop(child.wait_for("ready")));
    children
}

/// All of them at once; how many jobs are new.
fn storm(children: &mut [Child], what: &str, from: u64, count: u64) -> u64 {
    for (child, process) in children.iter_mut().zip(0..) {
        let from = from + process * THREADS as u64 * count;
        child.tell(&format!("{what} {from} {count}"));
    }
    let new = |child: &Child| -> u64 {
        child.wait_for("new").rsplit(' ').next().unwrap().parse().unwrap()
    };
    children.iter().map(new).sum()
}

#[test]
fn sixteen_threads_in_four_processes_enqueue_a_key_once_in_every_mode_and_window() {
    let place = place();
    let jobs = place.open();
    let mut children = children(&place, "");
    let mut asked = 0;
    for how in ["ignore", "replace", "reject", "keep_last"] {
        for held in ["started", "finished", "period"] {
            let key = format!("{how}-{held}");
            let count = 53;
            asked += PROCESSES * THREADS as u64 * count;
            assert_eq!(storm(&mut children, &format!("{how} {held} {key}"), 0, count), 1, "{key}");
            let rows: i64 = place
                .connect()
                .query_row(
                    "SELECT count(*) FROM legwork_jobs WHERE unique_key = ?1",
                    [&key],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(rows, 1, "{key}");
        }
    }
    assert!(asked > 10_000, "{asked}");
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 12);
    for mut child in children {
        child.tell("end");
        child.end();
    }
}

#[test]
fn keep_last_never_runs_two_at_once_and_ends_with_the_newest_arguments() {
    let place = place();
    let jobs = place.open();
    let mut children = children(&place, "engine");
    let mut new = 0;
    for round in 0..10 {
        new += storm(&mut children, "keep_last finished k", round * 1_000, 20);
    }
    let last = Unique::by_key("k").on_conflict(Conflict::KeepLast);
    let newest = jobs.enqueue(NewJob::new(Noted { n: 77_777 }).unique(last)).unwrap();
    assert_eq!(jobs.wait(newest, SOON).unwrap().state, State::Completed);
    for mut child in children {
        child.tell("end");
        child.end();
    }
    let text = std::fs::read_to_string(ledger(&place.path)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [start, end] = pair else { panic!("a start without its end") };
        assert_eq!(start.replace("start", "end"), *end, "two ran at once");
    }
    assert_eq!(lines.last(), Some(&"end 77777"));
    assert!(new > 2, "{new} were enqueued, that was no race");
    eprintln!("{} ran of {new} new and 3200 asked for", lines.len() / 2);
}

#[test]
fn a_rescued_job_takes_its_key_again_or_is_superseded() {
    for (how, held) in [("ignore", "started"), ("keep_last", "finished"), ("ignore", "finished")] {
        for newer in [false, true] {
            let place = place();
            let jobs = place.open();
            let unique = || window(held, Unique::by_key("k")).on_conflict(conflict(how));
            let child = Child::start("unique::races::enqueuer", &place.path, "engine");
            child.wait_for("ready");
            let first = jobs.enqueue(NewJob::new(Noted { n: HANG }).unique(unique())).unwrap();
            child.wait_for("start");
            // Not now: the dying process must not be the one that runs it.
            let later = NewJob::new(Noted { n: 2 }).unique(unique()).delay(DAY);
            let second = newer.then(|| jobs.enqueue(later).unwrap());
            child.kill();
            // Whoever comes next takes over what the dead one held.
            let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).crash_limit(0).manual().unwrap();
            let record = jobs.get(first).unwrap();
            match second.filter(|second| *second != first) {
                Some(second) => {
                    assert_eq!(record.state, State::Cancelled, "{how} {held}");
                    assert_eq!(record.reason.unwrap(), format!("superseded by job {second}"));
                    assert_eq!(state(&jobs, second), State::Scheduled);
                }
                None => {
                    assert_eq!(record.state, State::Ready, "{how} {held}");
                    let third = jobs.enqueue(NewJob::new(Noted { n: 3 }).unique(unique())).unwrap();
                    assert_eq!(third, first);
                }
            }
            drop(engine);
        }
    }
}
