//! Pause, cancel and delete by one process, of what another one works on. Here the parent is the
//! process that asks.

use super::*;
use crate::common::place;

const BULK: &str = "bulk";
const WORKERS: usize = 2;

/// Whether a line tells of a start of one of these jobs.
fn starts_one_of(line: &str, ids: &BTreeSet<JobId>) -> bool {
    line.strip_prefix("start ").is_some_and(|id| ids.contains(&id.parse().unwrap()))
}

/// Jobs that are so short that they are claimed ahead.
fn bulk(jobs: &Jobs, count: usize) -> BTreeSet<JobId> {
    let short = (0..count).map(|_| work(100).queue(BULK));
    jobs.enqueue_many(short).unwrap().into_iter().collect()
}

#[test]
fn what_another_process_pauses_is_not_started_any_more() {
    let place = place();
    let mut busy = process(&place, &format!("sweep 0 workers {WORKERS}"));
    let jobs = place.open();
    let ids = bulk(&jobs, 30_000);
    (0..100).for_each(|_| drop(busy.wait_for("start")));
    jobs.pause(Scope::Queue(BULK.into())).unwrap();
    // A job that was enqueued after the pause: when it starts there the pause is known there.
    let told = busy.enqueued("enqueue");
    busy.hear(&format!("start {told}"));
    // What a worker had in its hands comes to its end, and nothing lies in the tray.
    let claimed = "SELECT count(*) FROM legwork_jobs WHERE instance IS NOT NULL";
    until("all that was started ends", || ask::<i64>(&place, claimed) == 0);
    let left: i64 = ask(&place, "SELECT count(*) FROM legwork_jobs");
    assert!(left > 0, "all were done before the pause, the test shows nothing");
    let before = busy.said.len();
    let again = busy.enqueued("enqueue");
    busy.hear(&format!("start {again}"));
    let late = busy.said.split_off(before);
    let late: Vec<_> = late.iter().filter(|line| starts_one_of(line, &ids)).collect();
    // The start of one that a worker held may have been said last.
    assert!(late.len() <= WORKERS, "started after the pause: {late:?}");
    let others = format!("{claimed} AND id <> {again}");
    assert_eq!(ask::<i64>(&place, &others), 0);
    let rest = busy.end().split_off(before);
    assert!(!rest.iter().any(|line| starts_one_of(line, &ids)));
    assert_eq!(ask::<i64>(&place, "SELECT count(*) FROM legwork_jobs"), left);
    eprintln!("{left} jobs are paused");
}

#[test]
fn a_cancel_reaches_the_running_attempt_in_another_process() {
    let place = place();
    let mut busy = process(&place, "sweep 0 workers 1");
    let id = busy.enqueued("hold");
    busy.hear(&format!("start {id}"));
    let jobs = place.open();
    let since = Instant::now();
    jobs.cancel(id).unwrap();
    busy.hear(&format!("interrupted {id}"));
    eprintln!("interrupted {:?} after the cancel", since.elapsed());
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Cancelled);
    busy.end();
}

#[test]
fn a_cancel_of_what_was_claimed_ahead_elsewhere_cancels_it_or_reaches_it() {
    let place = place();
    let mut busy = process(&place, &format!("sweep 0 workers {WORKERS}"));
    let jobs = place.builder().busy_timeout(SOON).open().unwrap();
    let ids = bulk(&jobs, 60_000);
    let mut cancelled = BTreeSet::new();
    for _ in 0..20 {
        // Stopped, it keeps what lies in its tray; stopped for long, the tray is cleared after it.
        (0..100).for_each(|_| busy.read());
        busy.stop(&place);
        let ahead = claimed_ahead(&place);
        jobs.cancel(ahead.clone()).unwrap();
        cancelled.extend(ahead);
        busy.go_on();
    }
    assert!(!cancelled.is_empty(), "nothing was claimed ahead, the test shows nothing");
    let marked = "SELECT count(*) FROM legwork_jobs WHERE cancel_requested = 1";
    until("all that was asked to stop ends", || ask::<i64>(&place, marked) == 0);
    jobs.pause(Scope::All).unwrap();
    let lines = busy.end();
    let started: BTreeSet<JobId> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("start ")?.parse().ok())
        .filter(|id| ids.contains(id))
        .collect();
    let mut unstarted = 0;
    for &id in &cancelled {
        let state = jobs.get(id).unwrap().state;
        if !started.contains(&id) {
            unstarted += 1;
            assert_eq!(state, State::Cancelled, "job {id} was never started");
        }
        assert!(state.is_finished(), "job {id} is {state}");
    }
    assert!(unstarted > 0, "all were started, the test shows nothing");
    eprintln!("{} cancelled, {unstarted} of them before they started", cancelled.len());
}

/// What is claimed and not started, as far as the file knows.
fn claimed_ahead(place: &Place) -> Vec<JobId> {
    let conn = place.connect();
    let mut ask = conn
        .prepare("SELECT id FROM legwork_jobs WHERE instance IS NOT NULL AND started_at IS NULL")
        .unwrap();
    let ids = ask.query_map([], |row| row.get(0).map(JobId)).unwrap();
    ids.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_job_that_another_process_holds_is_not_deleted() {
    let place = place();
    let mut busy = process(&place, "sweep 0 workers 1");
    let id = busy.enqueued("hold");
    busy.hear(&format!("start {id}"));
    let jobs = place.open();
    let refused = jobs.delete(id).unwrap_err();
    assert!(matches!(refused, legwork::Error::WrongState { state: State::Running, .. }));
    busy.tell(&format!("release {id}"));
    completed_undisturbed(&jobs, id);
    jobs.delete(id).unwrap();
    busy.end();
}
