//! Cron: each tick enqueues once, missed ticks go by their policy, entries are durable and can be
//! changed from anywhere.

mod entries;
mod threads;
mod weeks;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use legwork::{
    Conflict, Cron, EngineBuilder, Event, Filter, JobId, Jobs, Missed, NewJob, Outcome, Overlap,
    State, Unique,
};
use serde_json::json;
use time::macros::datetime;

use self::threads::count_threads;
use crate::common::{place, stopped_clock};
use crate::scripted::{Act, Acts, acting};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// An engine builder whose jobs do nothing.
fn idle(jobs: &Jobs) -> EngineBuilder<Acts> {
    acting(jobs, |_, _| Ok(Outcome::Done))
}

fn act() -> NewJob {
    NewJob::new(Act { n: 1 })
}

/// The ticks for which there are jobs, in the order of the jobs.
fn ticks(jobs: &Jobs) -> Vec<String> {
    let mut ticks: Vec<String> = Vec::new();
    let page = jobs.list(&Filter::new(), None, 10_000).unwrap();
    ticks.extend(page.jobs.iter().rev().filter_map(|job| job.meta.get("cron_tick").cloned()));
    ticks
}

fn at(hours: u32) -> String {
    format!("2026-01-01T{hours:02}:00:00Z")
}

#[test]
fn a_tick_enqueues_what_the_closure_makes_at_its_time() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = idle(&jobs).cron("hourly", "0 * * * *", || Act { n: 7 }).manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 0, "nothing is due yet");
    engine.advance(2 * HOUR + 30 * MINUTE);
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(ticks(&jobs), [at(1), at(2)]);
    let job = jobs.get(JobId(2)).unwrap();
    assert_eq!((job.enqueued_at, job.state), (datetime!(2026-01-01 2:00 UTC), State::Completed));
    assert_eq!(job.meta["cron"], "hourly");
    assert_eq!(job.args, r#"{"n":7}"#);
    let entry = jobs.cron("hourly").unwrap();
    assert_eq!(entry.next, Some(datetime!(2026-01-01 3:00 UTC)));
    assert_eq!((entry.last_tick, entry.last_job), (Some(job.enqueued_at), Some(JobId(2))));
    assert!(entry.is_static());
}

#[test]
fn a_zone_and_its_summer_time_are_followed() {
    let place = place();
    let clock = legwork::Clock::stopped(datetime!(2026-03-27 12:00 UTC));
    let jobs = place.builder().clock(clock).open().unwrap();
    let seven = Cron::new("0 7 * * *").zone("Europe/Berlin");
    let engine = idle(&jobs).cron("seven", seven, act).manual().unwrap();
    engine.advance(3 * DAY);
    let expected = ["2026-03-28T06:00:00Z", "2026-03-29T05:00:00Z", "2026-03-30T05:00:00Z"];
    assert_eq!(ticks(&jobs), expected);
}

#[test]
fn true_intervals_count_from_the_previous_tick_whatever_a_restart_does() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let build = || idle(&jobs).cron("seven", "@every 7m", act).manual().unwrap();
    build().advance(10 * MINUTE);
    build().advance(10 * MINUTE);
    build().advance(10 * MINUTE);
    let minutes: Vec<_> = ticks(&jobs).iter().map(|tick| tick[14..16].to_owned()).collect();
    assert_eq!(minutes, ["07", "14", "21", "28"]);
}

#[test]
fn missed_ticks_go_by_their_policy_across_restart_and_sleep() {
    for (missed, expected, left_out) in [
        (Missed::Skip, vec![], 10),
        (Missed::Once, vec![at(10)], 9),
        (Missed::All { at_most: 3 }, vec![at(8), at(9), at(10)], 7),
        (Missed::All { at_most: 100 }, (1..=10).map(at).collect(), 0),
    ] {
        for restart in [false, true] {
            let place = place();
            let clock = stopped_clock();
            let jobs = place.builder().clock(clock.clone()).open().unwrap();
            let events = jobs.events();
            let build = || {
                let hourly = Cron::new("0 * * * *").missed(missed);
                idle(&jobs).cron("hourly", hourly, act).manual().unwrap()
            };
            let mut engine = build();
            engine.run_due().unwrap();
            // The clock moves, and nobody is there.
            clock.set(datetime!(2026-01-01 10:30 UTC));
            if restart {
                drop(engine);
                engine = build();
            }
            engine.run_due().unwrap();
            engine.run_due().unwrap();
            assert_eq!(ticks(&jobs), expected, "{missed:?}, restart: {restart}");
            let told = std::iter::from_fn(|| events.try_recv()).find_map(|event| match event {
                Event::CronMissed { name, missed } => Some((name, missed)),
                _ => None,
            });
            assert_eq!(told, (left_out > 0).then(|| ("hourly".to_owned(), left_out)));
            engine.advance(HOUR);
            assert_eq!(ticks(&jobs).last(), Some(&at(11)), "the next tick comes as usual");
        }
    }
}

#[test]
fn more_missed_ticks_than_one_transaction_takes_are_all_enqueued() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let all = Cron::new("* * * * *").missed(Missed::All { at_most: 10_000 });
    let engine = idle(&jobs).cron("minutely", all, act).manual().unwrap();
    engine.run_due().unwrap();
    clock.set(datetime!(2026-01-01 12:00 UTC));
    assert_eq!(engine.run_due().unwrap(), 720);
    let ticks = ticks(&jobs);
    assert!(ticks.is_sorted());
    assert_eq!((ticks.len(), ticks[719].as_str()), (720, "2026-01-01T12:00:00Z"));
}

#[test]
fn a_tick_is_left_out_while_the_last_job_is_not_finished() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let hourly = Cron::new("0 * * * *").overlap(Overlap::Skip);
    let engine = idle(&jobs).cron("hourly", hourly, act).manual().unwrap();
    engine.advance(3 * HOUR);
    assert_eq!(ticks(&jobs), [at(1)], "its job waits");
    engine.run_due().unwrap();
    engine.advance(HOUR);
    assert_eq!(ticks(&jobs), [at(1), at(4)]);
    // By default each tick has its job.
    let engine = idle(&jobs).cron("hourly", "0 * * * *", act).manual().unwrap();
    engine.advance(2 * HOUR);
    assert_eq!(ticks(&jobs).len(), 4);
}

#[test]
fn a_panic_or_a_refused_job_costs_one_tick_and_is_told() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let events = jobs.events();
    let calls = AtomicUsize::new(0);
    let make = move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("no paper"),
        1 => NewJob::of_kind("", json!({})),
        _ => act(),
    };
    let engine = idle(&jobs).cron("print", "0 * * * *", make).manual().unwrap();
    engine.advance(3 * HOUR);
    assert_eq!(ticks(&jobs), [at(3)]);
    let told: Vec<String> = std::iter::from_fn(|| events.try_recv())
        .filter_map(|event| match event {
            Event::CronFailed { name, error } => Some(format!("{name}: {error}")),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["print: panicked: no paper", "print: invalid kind: it is empty"]);
    assert_eq!(jobs.cron("print").unwrap().last_tick, Some(datetime!(2026-01-01 3:00 UTC)));
}

#[test]
fn nothing_fires_in_an_engine_without_cron() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    jobs.schedule("x", "@hourly", act()).unwrap();
    let engine = idle(&jobs).without_cron().manual().unwrap();
    engine.advance(3 * HOUR);
    assert_eq!(ticks(&jobs), Vec::<String>::new());
}

#[test]
#[ignore = "a child process of the others"]
fn child() {
    let Some(path) = crate::common::child_file() else { return };
    match crate::common::child_role().as_str() {
        "ask" => Jobs::open(path).unwrap().run_cron("x").unwrap(),
        "threads" => count_threads(&path),
        "weeks" => weeks::child(&path),
        role => panic!("{role}"),
    }
}

#[test]
fn a_tick_whose_key_is_taken_is_told_for_what_it_is() {
    for (conflict, told) in [
        (Conflict::Ignore, [1, 0, 0]),
        (Conflict::Replace, [1, 2, 0]),
        (Conflict::Reject, [1, 0, 2]),
    ] {
        let place = place();
        let jobs = place.builder().clock(stopped_clock()).open().unwrap();
        let events = jobs.events();
        let make = move || act().unique(Unique::by_key("k").on_conflict(conflict));
        let engine = idle(&jobs).cron("hourly", "0 * * * *", make).manual().unwrap();
        engine.advance(3 * HOUR);
        let mut seen = [0; 3];
        for event in std::iter::from_fn(|| events.try_recv()) {
            match event {
                Event::Enqueued { .. } => seen[0] += 1,
                Event::Replaced { .. } => seen[1] += 1,
                Event::NotUnique { .. } => seen[2] += 1,
                _ => {}
            }
        }
        assert_eq!(seen, told, "{conflict:?}");
    }
}

#[test]
fn ticks_of_days_ago_are_not_fired_again_by_a_clock_that_is_set_back() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let start = clock.now();
    let all = Cron::new("* * * * *").missed(Missed::All { at_most: 10_000 });
    let engine = idle(&jobs).cron("minutely", all, act).manual().unwrap();
    clock.set(start + 5 * DAY);
    assert_eq!(engine.run_due().unwrap(), 7_200);
    clock.set(start + 1 * DAY);
    assert_eq!(engine.run_due().unwrap(), 0);
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 0, "all of these were fired");
    clock.set(start + 5 * DAY + MINUTE);
    assert_eq!(engine.run_due().unwrap(), 1);
    let sql = "SELECT count(*) FROM legwork_ticks";
    let rows: i64 = place.connect().query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(rows < 4_200, "{rows}: old ticks are put together");
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_lets_the_entry_tick_on() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let engine = idle(&jobs).cron("hourly", "0 * * * *", act).manual().unwrap();
    let start = clock.now();
    clock.set(start + 20 * HOUR);
    engine.run_due().unwrap();
    clock.set(start);
    engine.advance(3 * HOUR);
    assert_eq!(ticks(&jobs), [at(20), at(1), at(2), at(3)]);
    engine.advance(18 * HOUR);
    let ticks = ticks(&jobs);
    assert_eq!(ticks[ticks.len() - 2..], [at(19), at(21)], "the twentieth was fired");
}
