//! How many run at once by a key, and who is next when a slot is free.

use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use legwork::{
    Context, Engine, Event, Job, JobId, JobOptions, JobResult, Jobs, Limit, Outcome, Overdue, Pool,
    Scope, State, Unique,
};
use rusqlite::TransactionBehavior;
use serde::{Deserialize, Serialize};

use super::{DAY, Held, PASSES, Ran, SECOND, act, state};
use crate::common::{SOON, place, stopped_clock, until, wait_for};
use crate::scripted::{Act, Acts, acting};

#[test]
fn as_many_run_at_once_as_the_limit_says_and_a_freed_slot_starts_the_next_in_order() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 4);
    let limited = |n| act(n).limit("account:7", 2);
    for n in [1, 2, 3] {
        jobs.enqueue(limited(n)).unwrap();
    }
    let urgent = jobs.enqueue(limited(4).priority(-1)).unwrap();
    jobs.enqueue(act(PASSES)).unwrap();
    let mut first = [held.next(), held.next(), held.next()];
    first.sort_unstable();
    assert_eq!(first, [1, 2, PASSES], "the others of its lane are not held up");
    assert_eq!(state(&jobs, urgent), State::Blocked);
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 4, "in claim order");
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 3);
    held.end(2);
}

#[test]
fn a_job_with_several_keys_starts_when_all_of_them_let_it() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 4);
    jobs.enqueue(act(1).limit("a", 1)).unwrap();
    jobs.enqueue(act(2).limit("b", 1)).unwrap();
    let mut first = [held.next(), held.next()];
    first.sort_unstable();
    assert_eq!(first, [1, 2]);
    let both = jobs.enqueue(act(3).limit("a", 1).limit("b", 1)).unwrap();
    jobs.enqueue(act(4).limit("b", 1)).unwrap();
    jobs.enqueue(act(5).limit("a", 1)).unwrap();
    assert_eq!(state(&jobs, both), State::Blocked);
    // One of the two ends. The third job is next by its key, cannot start for the other one, and
    // lets the one behind it go first.
    held.go_on.send(()).unwrap();
    let next = held.next();
    assert!(next == 4 || next == 5, "{next}");
    assert_eq!(state(&jobs, both), State::Blocked);
    (0..3).for_each(|_| held.go_on.send(()).unwrap());
    let rest = [held.next(), held.next()];
    assert!(rest.contains(&3), "{rest:?}");
    held.end(1);
}

#[test]
fn jobs_that_name_different_numbers_for_a_key_go_by_their_own() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 4);
    jobs.enqueue(act(1).limit("k", 1)).unwrap();
    assert_eq!(held.next(), 1);
    let one = jobs.enqueue(act(2).limit("k", 1)).unwrap();
    jobs.enqueue(act(3).limit("k", 3)).unwrap();
    assert_eq!(held.next(), 3);
    held.go_on.send(()).unwrap();
    until("it runs", || jobs.count(&legwork::Filter::new().state(State::Running)).unwrap() == 1);
    assert_eq!(state(&jobs, one), State::Blocked, "one still runs");
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 2);
    held.end(1);
}

#[test]
fn what_is_next_in_a_paused_queue_does_not_keep_the_others_from_going_on() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 2);
    jobs.enqueue(act(1).limit("k", 1)).unwrap();
    assert_eq!(held.next(), 1);
    for n in [2, 3] {
        jobs.enqueue(act(n).queue("paused").limit("k", 1)).unwrap();
    }
    jobs.enqueue(act(4).limit("k", 1)).unwrap();
    jobs.pause(Scope::Queue("paused".into())).unwrap();
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 4);
    jobs.resume(Scope::Queue("paused".into())).unwrap();
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 2);
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 3);
    held.end(1);
}

#[test]
fn one_that_was_next_and_is_taken_away_lets_the_one_behind_it_go_on() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    // Nothing runs: the first is next, the others wait behind it.
    let limited = |n| act(n).limit("k", 1);
    let ids: Vec<JobId> = (1..=4).map(|n| jobs.enqueue(limited(n)).unwrap()).collect();
    let states =
        || ids.iter().map(|&id| jobs.get(id).map(|job| job.state).ok()).collect::<Vec<_>>();
    use State::{Blocked, Cancelled, Ready};
    assert_eq!(states(), [Some(Ready), Some(Blocked), Some(Blocked), Some(Blocked)]);
    jobs.cancel(ids[0]).unwrap();
    assert_eq!(states(), [Some(Cancelled), Some(Ready), Some(Blocked), Some(Blocked)]);
    jobs.delete(ids[1]).unwrap();
    assert_eq!(states(), [Some(Cancelled), None, Some(Ready), Some(Blocked)]);
    // A waiting one that goes makes no difference.
    jobs.cancel(ids[3]).unwrap();
    ran.engine.drain().unwrap();
    assert_eq!(ran.take(), [3]);
}

#[test]
fn one_that_was_next_and_expires_or_is_replaced_lets_the_one_behind_it_go_on() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let unique = || Unique::by_key("u").on_conflict(legwork::Conflict::Replace);
    jobs.enqueue(act(1).limit("k", 1).expires_after(SECOND)).unwrap();
    jobs.enqueue(act(2).limit("k", 1).unique(unique())).unwrap();
    let third = jobs.enqueue(act(3).limit("k", 1)).unwrap();
    ran.engine.advance(2 * SECOND);
    // The second one is next now, and is put off.
    jobs.enqueue(act(4).unique(unique()).delay(DAY)).unwrap();
    assert_eq!(state(jobs, third), State::Ready);
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [3]);
    ran.engine.drain().unwrap();
    assert_eq!(ran.take(), [4]);
}

#[test]
fn a_limit_for_very_many_is_used_to_the_full() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let limited = |n| act(n).limit("k", 200);
    let ids = jobs.enqueue_many((0..300).map(limited)).unwrap();
    let waiting = legwork::Filter::new().state(State::Blocked);
    assert!(jobs.count(&waiting).unwrap() > 0);
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), (0..300).collect::<Vec<_>>());
    assert!(ids.iter().all(|&id| state(jobs, id) == State::Completed));
}

#[test]
fn a_retry_takes_its_slot_anew_and_a_snooze_frees_it() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let script = |act: &Act, _: &Context<Acts>| match act.n {
        1 => Ok(Outcome::snooze(DAY)),
        2 => Err(legwork::Failure::msg("no")),
        _ => Ok(Outcome::Done),
    };
    let engine = acting(&jobs, script).manual().unwrap();
    for n in [1, 2, 3] {
        jobs.enqueue(act(n).limit("k", 1)).unwrap();
    }
    assert_eq!(engine.run_due().unwrap(), 3);
    let slots: i64 = place
        .connect()
        .query_row("SELECT count(*) FROM legwork_slots", [], |row| row.get(0))
        .unwrap();
    assert_eq!(slots, 0);
}

#[test]
fn a_finish_in_the_apps_transaction_frees_the_slot_if_it_commits() {
    let place = place();
    let path = place.path.clone();
    let jobs = place.open();
    let script = move |act: &Act, cx: &Context<Acts>| {
        let mut conn = rusqlite::Connection::open(&path)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if act.n == 1 {
            cx.finish_in(&tx)?;
            tx.commit()?;
        }
        Ok(Outcome::Done)
    };
    let engine = acting(&jobs, script).pool(Pool::new(["*"]).workers(1)).start().unwrap();
    let ids: Vec<JobId> = (1..=2).map(|n| jobs.enqueue(act(n).limit("k", 1)).unwrap()).collect();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn jobs_that_an_app_enqueues_in_its_own_transaction_wait_in_line_too() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let mut conn = place.connect();
    let tx = conn.transaction().unwrap();
    let ids: Vec<JobId> =
        (1..=3).map(|n| jobs.enqueue_in(&tx, act(n).limit("k", 1)).unwrap()).collect();
    tx.commit().unwrap();
    assert_eq!((state(jobs, ids[0]), state(jobs, ids[1])), (State::Ready, State::Blocked));
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [1, 2, 3]);
}

#[test]
fn in_a_backup_nobody_holds_a_slot() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 2);
    for n in [1, 2, 3] {
        jobs.enqueue(act(n).limit("k", 1)).unwrap();
    }
    assert_eq!(held.next(), 1);
    let copy = place.path.with_file_name("copy.db");
    jobs.backup(&copy).unwrap();
    held.go_on.send(()).unwrap();
    held.next();
    held.go_on.send(()).unwrap();
    held.next();
    held.end(1);
    let jobs = Jobs::open(&copy).unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
    let completed = legwork::Filter::new().state(State::Completed);
    assert_eq!(jobs.count(&completed).unwrap(), 3);
}

#[test]
fn an_abandoned_attempt_keeps_its_slot_until_its_thread_ends() {
    #[derive(Serialize, Deserialize)]
    struct Long;
    impl Job for Long {
        const KIND: &'static str = "long";
        type State = (crossbeam_channel::Sender<u32>, crossbeam_channel::Receiver<()>);
        fn options() -> JobOptions {
            JobOptions::new()
                .limit(Limit::at_once("k", 1))
                .timeout(Duration::from_millis(20))
                .overdue(Overdue::Abandon)
                .retry(legwork::Retry::fixed(Duration::from_millis(1)).jitter(0.0).attempts(2))
        }
        fn perform(&self, cx: &Context<Self::State>) -> JobResult {
            cx.state().0.send(cx.attempt()).unwrap();
            if cx.attempt() == 1 {
                cx.state().1.recv_timeout(SOON).unwrap();
            }
            Ok(Outcome::Done)
        }
    }
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let (say, begun) = unbounded();
    let (go_on, told) = bounded(1);
    let engine = Engine::builder(&jobs)
        .state((say, told))
        .register::<Long>()
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Long).unwrap();
    assert_eq!(begun.recv_timeout(SOON).unwrap(), 1);
    wait_for(&events, |event| matches!(event, Event::Retrying { .. }));
    // Due again, and kept waiting by what its own thread still does.
    until("it is blocked", || state(&jobs, id) == State::Blocked);
    go_on.send(()).unwrap();
    assert_eq!(begun.recv_timeout(SOON).unwrap(), 2);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}
