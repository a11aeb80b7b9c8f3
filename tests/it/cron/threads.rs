//! Engines that fire by themselves, in a thread of their own.

use std::sync::Arc;
use std::time::Duration;

use legwork::{Engine, Event, Filter, Jobs, State};
use time::macros::datetime;

use super::{HOUR, act, at, idle, ticks};
use crate::common::{SOON, place, stopped_clock, until, wait_for};

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

pub(super) fn count_threads(path: &std::path::Path) {
    let until_there_are = |count: usize| {
        until(&format!("{count} threads"), || threads("legwork-cron") == count);
    };
    let jobs = Jobs::open(path).unwrap();
    let engine = idle(&jobs).start().unwrap();
    engine.run_until_empty().unwrap();
    assert_eq!((threads("legwork-writer"), threads("legwork-cron")), (1, 0));
    jobs.schedule("x", "@yearly", act()).unwrap();
    until_there_are(1);
    jobs.unschedule("x").unwrap();
    until_there_are(0);
    jobs.schedule("x", "@yearly", act()).unwrap();
    until_there_are(1);
    engine.stop(SOON).unwrap();
    assert_eq!(threads("legwork-cron"), 0);
    // An engine that finds entries when it starts has the thread without a word of anybody's.
    let engine = idle(&jobs).start().unwrap();
    until_there_are(1);
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
