//! Entries: of the builder or durable, refused, taken over, paused, listed, run by hand.

use legwork::{Cron, Error, Event, JobId, Missed, Overlap};
use time::OffsetDateTime;
use time::macros::datetime;

use super::{DAY, HOUR, MINUTE, act, at, idle, ticks};
use crate::common::{place, stopped_clock};

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
