//! A clock that leaps prunes nothing: what it says of old jobs is believed a day later.

use std::time::Duration;

use legwork::{Clock, Error, Filter, JobId, Jobs, ManualEngine, NewJob, Outcome, Retention};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::common::{Place, place, run_until};
use crate::scripted::{Act, acting};

const START: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const TEN_YEARS: Duration = Duration::from_secs(3_650 * 86_400);

/// The file, opened by a program that starts when the clock shows `now`.
fn open(place: &Place, now: OffsetDateTime) -> (Clock, Jobs, ManualEngine) {
    let clock = Clock::stopped(now);
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    (clock, jobs, engine)
}

/// Enqueues and finishes a job that is kept for so long.
fn finish_one(jobs: &Jobs, engine: &ManualEngine, keep: Duration) {
    jobs.enqueue(NewJob::new(Act { n: 1 }).retention(Retention::all(keep))).unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
}

/// Whether the job is still there when the writer has had its chance.
fn is_kept(jobs: &Jobs, engine: &ManualEngine) -> bool {
    // It prunes after it has answered; the next answer comes behind that.
    (0..3).for_each(|_| assert_eq!(engine.run_due().unwrap(), 0));
    jobs.count(&Filter::new()).unwrap() == 1
}

fn wait_until_pruned(jobs: &Jobs, engine: &ManualEngine) {
    let is_gone = || matches!(jobs.get(JobId(1)), Err(Error::NotFound(_)));
    run_until(engine, "it is pruned", is_gone);
}

#[test]
fn nothing_is_pruned_for_a_day_after_a_leap_and_then_it_is() {
    let place = place();
    let (clock, jobs, engine) = open(&place, START);
    finish_one(&jobs, &engine, 30 * DAY);
    clock.set(START + TEN_YEARS);
    assert!(is_kept(&jobs, &engine));
    engine.advance(23 * HOUR);
    assert!(is_kept(&jobs, &engine));
    engine.advance(2 * HOUR);
    wait_until_pruned(&jobs, &engine);
}

#[test]
fn a_leap_of_which_a_part_is_taken_back_prunes_nothing() {
    let place = place();
    let (clock, jobs, engine) = open(&place, START);
    finish_one(&jobs, &engine, 30 * DAY);
    clock.set(START + TEN_YEARS);
    assert!(is_kept(&jobs, &engine));
    clock.set(START + TEN_YEARS - HOUR);
    assert!(is_kept(&jobs, &engine));
    engine.advance(HOUR);
    assert!(is_kept(&jobs, &engine));
}

#[test]
fn what_another_process_has_doubted_since_the_file_was_opened_stays_in_doubt() {
    let place = place();
    let (_, jobs, engine) = open(&place, START);
    finish_one(&jobs, &engine, 30 * DAY);
    drop((jobs, engine));
    // A program opens the file under the wrong clock and runs nothing yet.
    let clock = Clock::stopped(START + TEN_YEARS);
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    // Another one looks two minutes later, as it would keep it.
    let micros = |at: OffsetDateTime| (at.unix_timestamp_nanos() / 1_000).to_string();
    let looked = micros(START + TEN_YEARS + HOUR / 30);
    let kept = format!("{looked} {} {looked}", micros(START));
    let sql = "UPDATE legwork_meta SET value = ?1 WHERE key = 'clock'";
    assert_eq!(place.connect().execute(sql, [kept]).unwrap(), 1);
    clock.advance(HOUR / 15);
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    assert!(is_kept(&jobs, &engine));
}

#[test]
fn a_leap_over_a_restart_and_back_has_pruned_nothing() {
    let place = place();
    let (_, jobs, engine) = open(&place, START);
    finish_one(&jobs, &engine, DAY);
    drop((engine, jobs));
    for now in [START + TEN_YEARS, START + TEN_YEARS + HOUR, START + HOUR] {
        let (_, jobs, engine) = open(&place, now);
        assert!(is_kept(&jobs, &engine), "at {now}");
    }
    // The right clock is believed at once, and the job is as old as it is.
    let (_, jobs, engine) = open(&place, START + HOUR);
    engine.advance(22 * HOUR);
    assert!(is_kept(&jobs, &engine));
    engine.advance(2 * HOUR);
    wait_until_pruned(&jobs, &engine);
}

#[test]
fn time_that_passes_while_awake_prunes_as_ever() {
    let place = place();
    let (_, jobs, engine) = open(&place, START);
    finish_one(&jobs, &engine, DAY);
    engine.advance(DAY - HOUR);
    assert!(is_kept(&jobs, &engine));
    engine.advance(2 * HOUR);
    wait_until_pruned(&jobs, &engine);
}

#[test]
fn a_program_that_is_run_once_a_week_prunes_in_the_end() {
    let place = place();
    let (_, jobs, engine) = open(&place, START);
    finish_one(&jobs, &engine, DAY);
    drop((engine, jobs));
    let (_, jobs, engine) = open(&place, START + 7 * DAY);
    assert!(is_kept(&jobs, &engine), "this may be a leap");
    drop((engine, jobs));
    let (_, jobs, engine) = open(&place, START + 14 * DAY);
    wait_until_pruned(&jobs, &engine);
}
