//! Flows in processes that are killed.

use legwork::{AfterFailure, Failure, Filter, Jobs, Outcome, Pool, State, Workflow};

use super::act;
use crate::common::{self, Child, SOON, place};
use crate::scripted::{Act, acting};

/// How many flows the tests of kills have, each of ten members in five rows.
const FLOWS: usize = 12;

/// Whether a member fails: a few do, wherever they stand.
fn is_bad(n: i64) -> bool {
    n % 17 == 3
}

/// Two rows of members side by side, each row after all of the one before. Every third flow goes on
/// after failures.
fn ladder(flow: i64) -> Workflow {
    let mut ladder = Workflow::new("ladder").on_finish(act(10_000 + flow));
    if flow % 3 == 0 {
        ladder = ladder.after_failure(AfterFailure::Continue);
    }
    let mut row = Vec::new();
    for rung in 0..5 {
        let next = (0..2).map(|at| ladder.add(act(flow * 100 + rung * 2 + at), row.clone()));
        row = next.collect();
    }
    ladder
}

/// The states that the members of such a flow end in.
fn ends(flow: i64) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for at in 0..10 {
        let row = at / 2;
        let parents = if row == 0 { &[][..] } else { &states[row * 2 - 2..row * 2] };
        let in_vain = flow % 3 != 0 && parents.iter().any(|&state| state != State::Completed);
        states.push(match is_bad(flow * 100 + at as i64) {
            _ if in_vain => State::Cancelled,
            true => State::Failed,
            false => State::Completed,
        });
    }
    states
}

/// Runs what there is until it is killed, and says what it starts.
#[test]
#[ignore = "child process of the tests of kills"]
fn child() {
    let Some(file) = common::child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let engine = acting(&jobs, |act, _| {
        common::say(&format!("start {}", act.n));
        if is_bad(act.n) { Err(Failure::msg("it is bad").into_fatal()) } else { Ok(Outcome::Done) }
    })
    .crash_limit(0)
    .pool(Pool::new(["*"]).workers(4))
    .start()
    .unwrap();
    if common::child_role() == "to the end" {
        for page in jobs.flows(None, 100).unwrap().flows {
            jobs.wait_flow(page.id, SOON).unwrap();
        }
        // The callbacks too.
        engine.run_until_empty().unwrap();
    } else {
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
}

#[test]
fn flows_of_processes_that_are_killed_two_hundred_times_end_as_they_must() {
    const KILLS: usize = 200;
    let mut random: u64 = 41;
    let place = place();
    let jobs = place.open();
    let mut flows = Vec::new();
    for kill in 0..KILLS {
        if kill * FLOWS / KILLS >= flows.len() {
            flows.push(jobs.enqueue_flow(ladder(flows.len() as i64)).unwrap());
        }
        let child = Child::start("flows::killed::child", &place.path, "");
        // Somewhere between two starts, or before any.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let starts = random >> 62;
        for _ in 0..starts {
            if jobs.count(&Filter::new().state(State::Blocked)).unwrap() == 0 {
                break;
            }
            child.wait_for("start");
        }
        child.kill();
    }
    Child::start("flows::killed::child", &place.path, "to the end").end();
    for (at, flow) in flows.iter().enumerate() {
        let states: Vec<State> =
            flow.members.iter().map(|&id| jobs.get(id).unwrap().state).collect();
        assert_eq!(states, ends(at as i64), "flow {at}");
        let record = jobs.flow(flow.id).unwrap();
        assert_eq!((record.members, record.pending), (10, 0));
        let failed = states.iter().filter(|state| **state == State::Failed).count() as u64;
        assert_eq!(record.failed, failed);
    }
    let all = jobs.list(&Filter::new(), None, 10_000).unwrap().jobs;
    let callbacks: Vec<i64> =
        all.iter().map(|job| job.args_as::<Act>().unwrap().n).filter(|&n| n >= 10_000).collect();
    let expected: Vec<i64> = (0..flows.len() as i64).rev().map(|flow| 10_000 + flow).collect();
    let mut sorted = callbacks.clone();
    sorted.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    assert_eq!(sorted, expected, "each called back once");
    assert!(all.iter().all(|job| job.state.is_finished()));
}
