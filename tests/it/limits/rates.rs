//! How many start in a time: evenly, in bursts, by weight, and by a clock that was wrong.

use std::time::Duration;

use legwork::{Event, JobId, Limit, Outcome, State};

use super::{DAY, Ran, SECOND, act, state};
use crate::common::{SOON, place};
use crate::scripted::acting;

#[test]
fn a_rate_lets_them_start_evenly_and_in_order() {
    let place = place();
    let ran = Ran::at(&place);
    for n in 0..20 {
        ran.jobs().enqueue(act(n).rate("api", 10, SECOND)).unwrap();
    }
    let mut at = Vec::new();
    for tick in 0..200 {
        ran.engine.run_due().unwrap();
        at.extend(ran.take().into_iter().map(|n| (n, tick)));
        ran.engine.advance(Duration::from_millis(10));
    }
    assert_eq!(at.iter().map(|&(n, _)| n).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    // One in 100 ms, the second a little sooner: what comes late is made up for.
    assert!(at.windows(2).skip(1).all(|two| (9..=11).contains(&(two[1].1 - two[0].1))), "{at:?}");
}

#[test]
fn a_burst_starts_together_and_then_waits_for_its_window() {
    let place = place();
    let ran = Ran::at(&place);
    let burst = |n| act(n).limited(Limit::rate("api", 5, SECOND).burst());
    for n in 0..12 {
        ran.jobs().enqueue(burst(n)).unwrap();
    }
    assert_eq!(ran.engine.run_due().unwrap(), 5);
    ran.engine.advance(Duration::from_millis(900));
    assert_eq!(ran.engine.run_due().unwrap(), 0);
    ran.engine.advance(Duration::from_millis(120));
    assert_eq!(ran.engine.run_due().unwrap(), 5);
    assert_eq!(ran.take(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_rate_holds_over_all_kinds_and_queues_and_weights_count() {
    let place = place();
    let ran = Ran::at(&place);
    let rate = || Limit::rate("api", 10, SECOND).burst();
    ran.jobs().enqueue(act(1).queue("a").limited(rate().weight(6))).unwrap();
    ran.jobs().enqueue(act(2).queue("b").limited(rate().weight(6))).unwrap();
    ran.jobs().enqueue(act(3).queue("b").limited(rate().weight(4))).unwrap();
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [1, 3]);
    ran.engine.advance(Duration::from_millis(1_020));
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [2]);
}

#[test]
fn a_limited_engine_sleeps_until_the_next_may_start() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let ids: Vec<JobId> = (0..4)
        .map(|n| jobs.enqueue(act(n).rate("api", 1, Duration::from_millis(50))).unwrap())
        .collect();
    engine.run_until_empty().unwrap();
    assert!(ids.iter().all(|&id| state(&jobs, id) == State::Completed));
    engine.stop(SOON).unwrap();
    let mut started = Vec::new();
    while let Some(event) = events.try_recv() {
        if let Event::Started { id, .. } = event {
            started.push(id);
        }
    }
    assert_eq!(started, ids);
}

#[test]
fn who_comes_when_there_is_room_stands_behind_those_who_wait() {
    let place = place();
    let ran = Ran::at(&place);
    let limited = |n| act(n).rate("api", 1, Duration::from_millis(50));
    for n in 0..3 {
        ran.jobs().enqueue(limited(n)).unwrap();
    }
    ran.engine.run_due().unwrap();
    ran.engine.advance(Duration::from_millis(200));
    ran.jobs().enqueue(limited(3)).unwrap();
    for _ in 0..4 {
        ran.engine.run_due().unwrap();
        ran.engine.advance(Duration::from_millis(50));
    }
    assert_eq!(ran.take(), [0, 1, 2, 3]);
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_lets_no_key_stand_still() {
    for burst in [false, true] {
        for restarted in [false, true] {
            let place = place();
            let ran = Ran::at(&place);
            let minutely = |n| {
                let rate = Limit::rate("api", 1, Duration::from_secs(60));
                act(n).limited(if burst { rate.burst() } else { rate })
            };
            let clock = ran.jobs().clock().clone();
            let start = clock.now();
            clock.set(start + 3_650 * DAY);
            for n in 1..=2 {
                ran.jobs().enqueue(minutely(n)).unwrap();
            }
            assert_eq!(ran.engine.run_due().unwrap(), 1);
            clock.set(start);
            let ran = match restarted {
                false => ran,
                true => {
                    drop(ran);
                    Ran::at(&place)
                }
            };
            let clock = ran.jobs().clock().clone();
            clock.advance(Duration::from_secs(61));
            ran.engine.run_due().unwrap();
            clock.advance(Duration::from_secs(61));
            ran.engine.run_due().unwrap();
            assert_eq!(ran.take().last(), Some(&2), "burst: {burst}, restarted: {restarted}");
            ran.jobs().enqueue(minutely(3)).unwrap();
            clock.advance(Duration::from_secs(61));
            assert_eq!(ran.engine.run_due().unwrap(), 1);
        }
    }
}
