//! Cron: each tick enqueues once, missed ticks go by their policy, entries are durable and can be
//! changed from anywhere.

mod weeks;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use legwork::{
    Conflict, Cron, Engine, EngineBuilder, Error, Event, Filter, JobId, Jobs, Missed, NewJob,
    Outcome, Overlap, State, Unique,
};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::common::{SOON, place, stopped_clock, wait_for};
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
fn bad_entries_are_refused_at_start_and_named() {
    let place = place();
    let jobs = place.open();
    for (name, cron, what, word) in [
        ("x", Cron::new("0 0 30 2 *"), "cron expression", "\"x\""),
        ("x", Cron::new("nonsense"), "cron expression", "\"x\""),
        ("x", Cron::new("@daily").zone("Mars/Olympus"), "time zone", "\"x\""),
        ("", Cron::new("@daily"), "cron name", "empty"),
        ("double", Cron::new("@daily"), "cron name", "double"),
    ] {
        let builder = idle(&jobs).cron("double", "@daily", act).cron(name, cron, act);
        match builder.start().map(drop) {
            Err(Error::Invalid { what: named, why }) => {
                assert_eq!(named, what);
                assert!(why.contains(word), "{why}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(jobs.crons().unwrap(), []);
    assert_eq!(jobs.instances().unwrap(), [], "and no engine is left behind");
}

#[test]
fn a_scheduled_entry_is_durable_and_served_by_any_engine_with_all_its_options() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let job = act().queue("night").priority(3).delay(MINUTE).tag("t").meta("who", "me");
    jobs.schedule("sweep", Cron::new("30 3 * * *").missed(Missed::Skip), job).unwrap();
    drop(jobs);
    let jobs = place.builder().clock(clock).open().unwrap();
    let engine = idle(&jobs).manual().unwrap();
    engine.advance(DAY);
    let job = jobs.get(JobId(1)).unwrap();
    assert_eq!((job.queue.as_str(), job.priority), ("night", 3));
    assert_eq!((job.tags.as_slice(), job.meta["who"].as_str()), (&["t".to_owned()][..], "me"));
    assert_eq!(job.enqueued_at, datetime!(2026-01-01 3:30 UTC));
    assert_eq!(job.run_at, datetime!(2026-01-01 3:31 UTC));
    let entry = jobs.cron("sweep").unwrap();
    assert_eq!((entry.kind.as_deref(), entry.missed), (Some("act"), Missed::Skip));
    jobs.unschedule("sweep").unwrap();
    engine.advance(DAY);
    assert_eq!(ticks(&jobs).len(), 1, "it is gone, its job is not");
    assert_eq!(jobs.crons().unwrap(), []);
}

#[test]
fn bad_schedules_are_refused_and_unknown_names_are_said() {
    let place = place();
    let jobs = place.open();
    let what = |done: legwork::Result<()>| match done {
        Err(Error::Invalid { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(jobs.schedule("x", "61 * * * *", act())), "cron expression");
    assert_eq!(what(jobs.schedule("x", Cron::new("@daily").zone("X/Y"), act())), "time zone");
    assert_eq!(what(jobs.schedule("a\nb", "@daily", act())), "cron name");
    assert_eq!(what(jobs.schedule("x", "@daily", act().queue(""))), "queue name");
    let fixed = act().run_at(OffsetDateTime::UNIX_EPOCH);
    assert_eq!(what(jobs.schedule("x", "@daily", fixed)), "start time");
    let unknown =
        |done: legwork::Result<()>| matches!(done, Err(Error::UnknownCron(name)) if name == "x");
    assert!(unknown(jobs.unschedule("x")));
    assert!(unknown(jobs.pause_cron("x")));
    assert!(unknown(jobs.resume_cron("x")));
    assert!(unknown(jobs.run_cron("x")));
    assert!(unknown(jobs.cron_next("x", 1).map(drop)));
}

#[test]
fn a_builders_entry_keeps_its_name_from_schedules_and_takes_it_from_them() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    jobs.schedule("x", "0 5 * * *", act()).unwrap();
    let engine = idle(&jobs).cron("x", "0 * * * *", act).manual().unwrap();
    assert!(jobs.cron("x").unwrap().is_static());
    assert!(matches!(
        jobs.schedule("x", "@daily", act()),
        Err(Error::Invalid { what: "cron name", .. })
    ));
    engine.advance(HOUR);
    assert_eq!(ticks(&jobs), [at(1)]);
}

#[test]
fn a_new_build_takes_an_entry_over_and_the_old_one_serves_it_no_more() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let all = |expression: &str| Cron::new(expression).missed(Missed::All { at_most: 100 });
    let old = idle(&jobs).cron("x", all("0 * * * *"), act).manual().unwrap();
    old.advance(HOUR);
    clock.set(datetime!(2026-01-01 5:50 UTC));
    // Nothing of the four hours is caught up by an expression that was not there then.
    let new = idle(&jobs).cron("x", all("*/15 * * * *"), act).manual().unwrap();
    new.run_due().unwrap();
    clock.set(datetime!(2026-01-01 6:20 UTC));
    old.run_due().unwrap();
    assert_eq!(ticks(&jobs), [at(1)], "the old build leaves it alone");
    new.run_due().unwrap();
    assert_eq!(ticks(&jobs), [at(1), at(6), "2026-01-01T06:15:00Z".to_owned()]);
}

#[test]
fn the_same_entry_again_or_with_another_policy_goes_on_where_it_was() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    jobs.schedule("x", "@every 1h", act()).unwrap();
    clock.set(datetime!(2026-01-01 2:30 UTC));
    let all = Cron::new("@every 1h").missed(Missed::All { at_most: 9 });
    jobs.schedule("x", all, act().priority(1)).unwrap();
    idle(&jobs).manual().unwrap().run_due().unwrap();
    assert_eq!(ticks(&jobs), [at(1), at(2)]);
    assert_eq!(jobs.get(JobId(1)).unwrap().priority, 1);
}

#[test]
fn a_paused_entry_misses_nothing_and_goes_on_from_its_next_tick() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let all = Cron::new("0 * * * *").missed(Missed::All { at_most: 100 });
    let engine = idle(&jobs).cron("hourly", all, act).manual().unwrap();
    jobs.pause_cron("hourly").unwrap();
    assert!(jobs.cron("hourly").unwrap().paused);
    assert_eq!(jobs.cron("hourly").unwrap().next, None);
    engine.advance(5 * HOUR + MINUTE);
    jobs.resume_cron("hourly").unwrap();
    jobs.resume_cron("hourly").unwrap();
    engine.advance(HOUR);
    assert_eq!(ticks(&jobs), [at(6)]);
}

#[test]
fn a_run_that_is_asked_for_is_one_job_even_if_paused_or_asked_before_the_engine_starts() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let build = || idle(&jobs).cron("x", "@daily", act).manual().unwrap();
    drop(build());
    jobs.pause_cron("x").unwrap();
    jobs.run_cron("x").unwrap();
    jobs.run_cron("x").unwrap();
    assert_eq!(jobs.cron("x").unwrap().runs_asked, 2);
    let stranger = idle(&jobs).manual().unwrap();
    assert_eq!(stranger.run_due().unwrap(), 0, "it has no closure for it");
    assert_eq!(build().run_due().unwrap(), 2);
    assert_eq!(build().run_due().unwrap(), 0);
    let entry = jobs.cron("x").unwrap();
    assert_eq!((entry.runs_asked, entry.last_job, entry.last_tick), (0, Some(JobId(2)), None));
}

#[test]
fn the_next_ticks_are_listed_as_they_will_come() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    jobs.schedule("x", Cron::new("0 7 * * *").zone("America/New_York"), act()).unwrap();
    let next = jobs.cron_next("x", 2).unwrap();
    assert_eq!(next, [datetime!(2026-01-01 12:00 UTC), datetime!(2026-01-02 12:00 UTC)]);
    let listed = jobs.crons().unwrap();
    assert_eq!(listed[0].next, Some(next[0]));
    assert_eq!(listed[0].words, Cron::new("0 7 * * *").words().unwrap());
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

// ---- with threads ------------------------------------------------------------------------

/// The end of a job of this kind.
fn enqueued(name: &'static str) -> impl FnMut(&Event) -> bool {
    move |event| matches!(event, Event::Finished { kind: Some(kind), .. } if kind == name)
}

#[test]
fn a_running_engine_fires_by_itself_in_real_time() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = idle(&jobs).cron("x", "@every 1s", act).start().unwrap();
    wait_for(&events, enqueued("act"));
    wait_for(&events, enqueued("act"));
    engine.stop(SOON).unwrap();
}

#[test]
fn a_running_engine_sees_its_clock_turned_and_entries_come_and_go() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let events = jobs.events();
    let engine = idle(&jobs).start().unwrap();
    // No entry, no thread: this one has to be started for it.
    jobs.schedule("x", "@hourly", act()).unwrap();
    clock.advance(HOUR);
    wait_for(&events, enqueued("act"));
    jobs.run_cron("x").unwrap();
    wait_for(&events, enqueued("act"));
    jobs.unschedule("x").unwrap();
    clock.advance(HOUR);
    // The thread has ended, or ends; a new entry finds one all the same.
    jobs.schedule("y", "@daily", act()).unwrap();
    jobs.run_cron("y").unwrap();
    wait_for(&events, enqueued("act"));
    engine.stop(SOON).unwrap();
    assert_eq!(ticks(&jobs), [at(1)]);
}

#[test]
fn a_run_is_served_by_the_engine_of_another_process_at_once() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    let events = jobs.events();
    let engine = idle(&jobs).cron("x", "0 0 1 1 *", act).start().unwrap();
    let asker = crate::common::Child::start("cron::child", &place.path, "ask");
    wait_for(&events, enqueued("act"));
    asker.end();
    engine.stop(SOON).unwrap();
}

#[test]
fn a_tick_waits_for_a_locked_file_and_is_fired_when_it_is_free() {
    let place = place();
    let clock = stopped_clock();
    let builder = place.builder().clock(clock.clone()).busy_timeout(Duration::from_millis(20));
    let jobs = builder.open().unwrap();
    let events = jobs.events();
    let (made, tries) = crossbeam_channel::unbounded();
    let make = move || {
        made.send(()).unwrap();
        act()
    };
    let engine = idle(&jobs).cron("x", "@hourly", make).start().unwrap();
    let conn = place.connect();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    clock.advance(HOUR);
    // The second time it is made again, since the first was refused.
    tries.recv_timeout(SOON).unwrap();
    tries.recv_timeout(SOON).unwrap();
    conn.execute_batch("COMMIT").unwrap();
    wait_for(&events, enqueued("act"));
    engine.stop(SOON).unwrap();
    assert_eq!(ticks(&jobs), [at(1)]);
}

/// The threads of this process whose name begins so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map_while(Result::ok);
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

#[test]
fn there_is_a_cron_thread_only_while_there_are_entries() {
    // In a process of its own: the threads of other tests have the same names.
    let place = place();
    crate::common::Child::start("cron::child", &place.path, "threads").end();
}

fn count_threads(path: &std::path::Path) {
    let until = |count: usize| {
        let deadline = std::time::Instant::now() + SOON;
        while threads("legwork-cron") != count {
            assert!(std::time::Instant::now() < deadline, "in vain for {count} threads");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let jobs = Jobs::open(path).unwrap();
    let engine = idle(&jobs).start().unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!((threads("legwork-writer"), threads("legwork-cron")), (1, 0));
    jobs.schedule("x", "@yearly", act()).unwrap();
    until(1);
    jobs.unschedule("x").unwrap();
    until(0);
    jobs.schedule("x", "@yearly", act()).unwrap();
    until(1);
    engine.stop(SOON).unwrap();
    assert_eq!(threads("legwork-cron"), 0);
    // An engine that finds entries when it starts has the thread without a word of anybody's.
    let engine = idle(&jobs).start().unwrap();
    until(1);
    engine.stop(SOON).unwrap();
}

#[test]
fn running_until_empty_fires_what_is_due_first() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    jobs.schedule("x", "@hourly", act()).unwrap();
    jobs.run_cron("x").unwrap();
    clock.set(datetime!(2026-01-01 1:00 UTC));
    let engine = idle(&jobs).start().unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!(jobs.stats().unwrap().count(State::Completed), 2);
    engine.stop(SOON).unwrap();
}

#[test]
fn an_engine_is_stopped_while_it_makes_a_job() {
    let place = place();
    let jobs = place.open();
    let (began, begun) = crossbeam_channel::bounded(1);
    let make = move || {
        let _ = began.try_send(());
        act()
    };
    let engine = Arc::new(idle(&jobs).cron("x", "@every 1s", make).start().unwrap());
    begun.recv_timeout(SOON).unwrap();
    engine.stop(SOON).unwrap();
    let count = jobs.count(&Filter::new()).unwrap();
    assert!(count <= 1 + ticks(&jobs).len() as u64);
    assert!(Engine::builder(&jobs).start().is_ok());
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
fn a_run_that_was_asked_for_lets_no_tick_go_by_the_job_of_the_last_one() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let hourly = Cron::new("0 * * * *").overlap(Overlap::Skip);
    let engine = idle(&jobs).cron("hourly", hourly, act).manual().unwrap();
    engine.advance(HOUR + MINUTE);
    jobs.run_cron("hourly").unwrap();
    engine.advance(MINUTE);
    // The run ends, and the job of the last tick still waits.
    jobs.cancel(JobId(2)).unwrap();
    engine.advance(HOUR);
    assert_eq!(ticks(&jobs), [at(1)]);
    // Nor does one by the run while that waits.
    jobs.cancel(JobId(1)).unwrap();
    jobs.run_cron("hourly").unwrap();
    engine.advance(HOUR);
    assert_eq!(ticks(&jobs), [at(1)]);
    engine.run_due().unwrap();
    engine.advance(HOUR);
    assert_eq!(ticks(&jobs), [at(1), at(4)]);
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

#[test]
fn a_job_with_parents_is_none_for_an_entry_and_harms_no_other() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let events = jobs.events();
    let parent = jobs.enqueue(act()).unwrap();
    let refused = jobs.schedule("child", "0 * * * *", act().after([parent]));
    assert!(matches!(refused, Err(Error::Invalid { what: "parents", .. })));
    let engine = idle(&jobs)
        .cron("bad", "0 * * * *", || act().after([JobId(4_711)]))
        .cron("good", "0 * * * *", act)
        .manual()
        .unwrap();
    engine.advance(2 * HOUR);
    assert_eq!(ticks(&jobs), [at(1), at(2)]);
    let failed = std::iter::from_fn(|| events.try_recv())
        .filter(|event| matches!(event, Event::CronFailed { name, .. } if name == "bad"));
    assert_eq!(failed.count(), 2);
}
