//! Several processes under one limit, watched by files that legwork knows nothing of.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use legwork::{Context, Jobs, Limit, Outcome, Pool, State};

use super::{SECOND, act};
use crate::common::{self, Child, SOON, place, say, until};
use crate::scripted::{Act, Acts, acting};

/// The witness: each attempt appends a byte as it begins and one as it ends, to a file of its key,
/// while it holds a lock on one of `most` files; to find none free is a breach.
fn under_witness(dir: &Path, key: &str, most: usize) {
    let file = |n: usize| {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        options.open(dir.join(format!("{key}-{n}"))).unwrap()
    };
    // The kernel frees them with the process, as it must be with slots.
    let slot = (0..most).map(file).find(|file| file.try_lock().is_ok());
    if slot.is_none() {
        fs::write(dir.join("breach"), key).unwrap();
    }
    let mut done = OpenOptions::new().create(true).append(true).open(dir.join("done")).unwrap();
    std::hint::black_box((0..20_000_u64).sum::<u64>());
    done.write_all(b".").unwrap();
}

#[test]
#[ignore = "child process"]
fn child_works_under_limits() {
    let Some(path) = common::child_file() else { return };
    let jobs = Jobs::builder(&path).open().unwrap();
    let dir = path.parent().unwrap().to_owned();
    let script = move |act: &Act, _: &Context<Acts>| {
        match act.n % 3 {
            0 => under_witness(&dir, "one", 1),
            1 => under_witness(&dir, "three", 3),
            _ => {
                under_witness(&dir, "one", 1);
                under_witness(&dir, "three", 3);
            }
        }
        Ok(Outcome::Done)
    };
    let pool = Pool::new(["*"]).workers(3);
    let engine = acting(&jobs, script).pool(pool).start().unwrap();
    say("started");
    // It is killed, or works until nothing is left.
    if common::child_role() == "to the end" {
        engine.run_until_empty().unwrap();
        engine.stop(SOON).unwrap();
        return;
    }
    std::thread::park();
}

#[test]
fn never_more_run_at_once_than_the_limit_says_over_four_processes_that_are_killed() {
    let place = place();
    let jobs = place.open();
    const COUNT: i64 = 600;
    jobs.enqueue_many((0..COUNT).map(|n| match n % 3 {
        0 => act(n).limit("one", 1),
        1 => act(n).limit("three", 3),
        _ => act(n).limit("one", 1).limit("three", 3),
    }))
    .unwrap();
    let dir = place.path.parent().unwrap().to_owned();
    let start = |role: &str| {
        let child = Child::start("limits::witness::child_works_under_limits", &place.path, role);
        child.wait_for("started");
        child
    };
    let done = || fs::metadata(dir.join("done")).map_or(0, |file| file.len());
    let mut children: Vec<Child> = (0..4).map(|_| start("until killed")).collect();
    for round in 0..6 {
        let before = done();
        until("jobs are done", || done() > before + 5 || done() >= COUNT.unsigned_abs());
        children.remove(round % 4).kill();
        children.push(start("until killed"));
    }
    children.into_iter().for_each(|child| drop(child.kill()));
    drop(start("to the end").end());
    assert!(!dir.join("breach").exists(), "more ran at once than may");
    let stats = jobs.stats().unwrap();
    assert_eq!(
        stats.states.get(&State::Completed).copied(),
        Some(COUNT.unsigned_abs()),
        "{stats:?}"
    );
    let (slots, waiting): (i64, i64) = place
        .connect()
        .query_row(
            "SELECT (SELECT count(*) FROM legwork_slots), (SELECT count(*) FROM legwork_jobs)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((slots, waiting), (0, 0), "no slot is lost");
}

#[test]
#[ignore = "child process"]
fn child_calls_at_a_rate() {
    let Some(path) = common::child_file() else { return };
    let jobs = Jobs::builder(&path).open().unwrap();
    let calls = path.parent().unwrap().join("calls");
    let script = move |act: &Act, cx: &Context<Acts>| {
        let now = std::time::SystemTime::now();
        let micros = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let mut calls = OpenOptions::new().create(true).append(true).open(&calls).unwrap();
        calls.write_all(format!("{micros} {}\n", cx.id()).as_bytes()).unwrap();
        if act.n % 10 == 0 {
            say("still there");
        }
        Ok(Outcome::Done)
    };
    let engine = acting(&jobs, script).pool(Pool::new(["*"]).workers(3)).start().unwrap();
    let before = wake_ups();
    engine.run_until_empty().unwrap();
    let woken = wake_ups() - before;
    let woken_by = path.with_file_name(format!("woken-{}", std::process::id()));
    fs::write(woken_by, woken.to_string()).unwrap();
    engine.stop(SOON).unwrap();
}

/// Of this process so far, all its threads taken together.
fn wake_ups() -> u64 {
    #[cfg(target_os = "linux")]
    return crate::idle::switches(std::process::id());
    #[cfg(not(target_os = "linux"))]
    0
}

/// When calls began, in microseconds and in order.
struct Called {
    /// As each has taken the time in its first line, in its own process.
    by_witness: Vec<i64>,
    /// As the file has it, which is what rates go by.
    by_file: Vec<i64>,
    /// From the one to the other, the longest last.
    late: Vec<i64>,
    /// The wake-ups of the process that had most.
    woken: u64,
}

/// Four processes work off `count` calls at ten a second.
fn called_at(count: i64, rate: &Limit) -> Called {
    let place = place();
    let jobs = place.open();
    jobs.enqueue_many((0..count).map(|n| act(n).limited(rate.clone()))).unwrap();
    let start = |_| Child::start("limits::witness::child_calls_at_a_rate", &place.path, "");
    let children: Vec<Child> = (0..4).map(start).collect();
    let woken_by: Vec<_> = children
        .iter()
        .map(|child| place.path.with_file_name(format!("woken-{}", child.id())))
        .collect();
    children.into_iter().for_each(|child| drop(child.end()));
    let woken = |file: &PathBuf| fs::read_to_string(file).unwrap().parse::<u64>().unwrap();
    let woken = woken_by.iter().map(woken).max().unwrap();
    let calls = fs::read_to_string(place.path.parent().unwrap().join("calls")).unwrap();
    let mut called =
        Called { by_witness: Vec::new(), by_file: Vec::new(), late: Vec::new(), woken };
    let conn = place.connect();
    let mut ask = conn.prepare("SELECT started_at FROM legwork_history WHERE id = ?1").unwrap();
    for call in calls.lines() {
        let (micros, id) = call.split_once(' ').unwrap();
        let (began, id): (i64, i64) = (micros.parse().unwrap(), id.parse().unwrap());
        let started: i64 = ask.query_row([id], |row| row.get(0)).unwrap();
        called.by_witness.push(began);
        called.by_file.push(started);
        called.late.push(began - started);
    }
    let Called { by_witness, by_file, late, .. } = &mut called;
    [by_witness, by_file, late].into_iter().for_each(|times| times.sort_unstable());
    assert_eq!(called.by_file.len() as i64, count, "each has run once");
    called
}

fn ten_a_second() -> Limit {
    Limit::rate("api", 10, SECOND)
}

fn most_in_a_second(at: &[i64]) -> usize {
    let in_window =
        |from: &i64| at.iter().filter(|at| (*from..from + 1_000_000).contains(at)).count();
    at.iter().map(in_window).max().unwrap_or(0)
}

#[test]
fn a_rate_holds_over_four_processes() {
    let called = called_at(40, &ten_a_second());
    assert!(most_in_a_second(&called.by_file) <= 11, "{:?}", called.by_file);
    // On a machine that is busy a call may begin late and the next in time.
    assert!(most_in_a_second(&called.by_witness) <= 15, "{:?}", called.by_witness);
}

#[test]
fn a_burst_holds_over_four_processes() {
    let called = called_at(30, &ten_a_second().burst());
    assert!(most_in_a_second(&called.by_file) <= 10, "{:?}", called.by_file);
}

/// A minute at ten a second, `count` calls of it; the most that begin in a second.
fn soak(count: i64, rate: &Limit) -> usize {
    let called = called_at(count, rate);
    let Called { by_witness, by_file, late, woken } = &called;
    let took = by_witness[by_witness.len() - 1] - by_witness[0];
    let (seen, most) = (most_in_a_second(by_witness), most_in_a_second(by_file));
    let late = |share: usize| late[(late.len() - 1) * share / 1000];
    println!(
        "{rate}: {count} calls in {} ms; most in a second: {seen} by the witness, {most} by the file; \
         from the claim to the first line: p50 {} µs, p99 {} µs, longest {} µs; \
         wake-ups a second of a process: {:.1}",
        took / 1000,
        late(500),
        late(990),
        late(1000),
        *woken as f64 / (took as f64 / 1e6)
    );
    assert!(took <= 63_000_000, "more than 5 % went unused: {took}");
    assert!(*woken <= 20 * took.unsigned_abs() / 1_000_000, "{woken} wake-ups");
    seen
}

#[test]
#[ignore = "soak: a minute"]
fn soak_a_rate_holds_for_a_minute_and_hardly_any_of_it_goes_unused() {
    assert!(soak(600, &ten_a_second()) <= 11);
}

#[test]
#[ignore = "soak: a minute"]
fn soak_bursts_hold_for_a_minute_and_hardly_any_of_them_goes_unused() {
    assert!(soak(600, &ten_a_second().burst()) <= 10);
}
