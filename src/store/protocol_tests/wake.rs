//! The wake protocol: a job that becomes ready starts, and an end that is left is recorded, without
//! anybody looking again.

use super::process::Source::{App, Here, Other, There};
use super::process::{Break, Setup, Source};
use super::{assert_found, assert_holds};

fn setup(jobs: &[Source], workers: usize) -> Setup {
    Setup::of(jobs, workers)
}

fn broken(jobs: &[Source], workers: usize, broken: Break) -> Setup {
    Setup { broken: Some(broken), ..setup(jobs, workers) }
}

#[test]
fn jobs_of_this_process_wake_its_workers_and_no_end_stays_in_a_tray() {
    assert_holds(setup(&[There, Here], 2).start());
    assert_holds(setup(&[Here], 2).start());
}

#[test]
fn one_worker_empties_its_tray_whenever_jobs_come() {
    assert_holds(setup(&[Here, Here], 1).start());
}

#[test]
fn a_transaction_of_the_app_wakes_a_worker_once_it_has_committed() {
    assert_holds(setup(&[App], 2).start());
    assert_holds(setup(&[App, Here], 1).start());
}

#[test]
fn a_ring_after_the_commit_wakes_a_worker_in_another_process() {
    assert_holds(setup(&[Other], 2).start());
    assert_holds(setup(&[Other, Here], 1).start());
}

#[test]
fn what_a_killed_process_has_committed_and_not_rung_for_is_found_by_the_sweep() {
    assert_holds(Setup { sweep: true, ..setup(&[Other, Here], 1) }.start());
    assert_holds(Setup { sweep: true, ..setup(&[Other], 2) }.start());
}

#[test]
fn whoever_waits_for_emptiness_is_told() {
    assert_holds(Setup { waits: true, ..setup(&[There, Here], 1) }.start());
    assert_holds(Setup { waits: true, ..setup(&[App], 2) }.start());
}

#[test]
fn the_explorer_finds_the_lost_wake_up_if_the_ring_goes_before_the_commit() {
    assert_found(broken(&[Other], 1, Break::RingsTooEarly).start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_lost_wake_up_if_the_bells_flag_falls_after_the_look() {
    assert_found(broken(&[Other, Other], 1, Break::BellFallsAfterTheLook).start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_end_that_stays_if_the_writer_sleeps_on_a_used_tray() {
    assert_found(broken(&[Here, Here], 1, Break::SleepsOnAUsedTray).start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_lost_job_if_the_writer_looks_beside_the_lock() {
    assert_found(broken(&[App], 1, Break::LooksBesideTheLock).start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_lost_job_if_a_request_parks_beside_ready_jobs() {
    assert_found(broken(&[Here], 1, Break::ParksBesideReadyJobs).start(), "cannot settle");
}

#[test]
fn the_explorer_finds_who_is_told_too_early_to_be_empty() {
    let setup = broken(&[Here], 1, Break::TellsEmptyTooEarly);
    assert_found(Setup { waits: true, ..setup }.start(), "told to be empty");
}
