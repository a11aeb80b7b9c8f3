//! The stop protocol: every worker ends, no claim stays behind, nobody waits for ever.

use super::process::Source::{self, There};
use super::process::{Break, Setup};
use super::{assert_found, assert_holds};

fn stopping(jobs: &[Source], workers: usize) -> Setup {
    Setup { stops: true, ..Setup::of(jobs, workers) }
}

fn resizing(jobs: &[Source], workers: usize) -> Setup {
    Setup { resizes: true, ..Setup::of(jobs, workers) }
}

#[test]
fn whenever_an_engine_stops_its_workers_end_and_every_claim_is_finished_or_given_back() {
    assert_holds(stopping(&[There, There], 1).start());
    assert_holds(stopping(&[There], 2).start());
}

#[test]
fn whoever_waits_for_emptiness_hears_of_the_stop() {
    assert_holds(Setup { waits: true, ..stopping(&[There], 1) }.start());
}

#[test]
fn a_pool_that_is_made_smaller_loses_its_worker_wherever_that_is() {
    assert_holds(resizing(&[There], 2).start());
}

#[test]
fn a_pool_is_made_smaller_while_its_engine_stops() {
    assert_holds(Setup { resizes: true, ..stopping(&[], 2) }.start());
}

#[test]
fn the_explorer_finds_the_worker_that_never_ends_if_late_requests_are_kept() {
    let setup = stopping(&[There], 1);
    let broken = Some(Break::KeepsLateRequests);
    assert_found(Setup { broken, ..setup }.start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_claim_that_stays_if_a_closing_pool_leaves_its_tray() {
    let setup = stopping(&[There, There], 1);
    let broken = Some(Break::LeavesTheTray);
    assert_found(Setup { broken, ..setup }.start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_lost_end_if_a_closing_pool_drops_what_was_left() {
    let setup = stopping(&[There, There], 1);
    let broken = Some(Break::DropsTheEnds);
    assert_found(Setup { broken, ..setup }.start(), "cannot settle");
}

#[test]
fn the_explorer_finds_the_worker_that_is_one_too_many_if_epochs_are_forgotten() {
    let setup = resizing(&[], 2);
    let broken = Some(Break::ForgetsEpochs);
    assert_found(Setup { broken, ..setup }.start(), "cannot settle");
}
