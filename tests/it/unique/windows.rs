//! How long a key is held: until the start, until the end, for a period.

use legwork::{Conflict, Error, Failure, Filter, Outcome, Retention, State};

use super::{DAY, MINUTE, args_of, done, holder, key, keyed, manual, state};
use crate::common::{SOON, place, run_until, stopped_clock};
use crate::scripted::{Act, acting};

#[test]
fn until_finished_a_second_job_is_the_first_and_retries_keep_the_key() {
    let place = place();
    let engine =
        manual(
            &place,
            |act, _| if act.n == 1 { Err(Failure::msg("no")) } else { Ok(Outcome::Done) },
        );
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(1, key())).unwrap();
    assert_eq!(jobs.enqueue(keyed(2, key())).unwrap(), first);
    assert_eq!(jobs.get(first).unwrap().unique_key.as_deref(), Some("k"));
    engine.run_one().unwrap();
    assert_eq!(state(jobs, first), State::Retrying);
    assert_eq!(jobs.enqueue(keyed(2, key())).unwrap(), first);
    engine.drain().unwrap();
    assert_eq!(state(jobs, first), State::Failed);
    let second = jobs.enqueue(keyed(2, key())).unwrap();
    assert_ne!(second, first);
    assert_eq!(args_of(jobs, second), 2);
}

#[test]
fn the_end_in_the_apps_own_transaction_frees_the_key_if_it_commits() {
    let place = place();
    let path = place.path.clone();
    let engine = manual(&place, move |act, cx| {
        let mut conn = rusqlite::Connection::open(&path)?;
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        cx.finish_in(&tx)?;
        if act.n == 1 {
            tx.commit()?;
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(1, key())).unwrap();
    engine.run_one().unwrap();
    assert_eq!(state(jobs, first), State::Completed);
    let second = jobs.enqueue(keyed(2, key())).unwrap();
    assert_ne!(second, first);
    engine.run_one().unwrap();
    assert_eq!(state(jobs, second), State::Retrying);
    assert_eq!(jobs.enqueue(keyed(3, key())).unwrap(), second);
}

#[test]
fn a_period_stands_after_a_snooze_only_if_the_job_is_not_taken_away() {
    let place = place();
    let engine = manual(&place, |_, _| Ok(Outcome::snooze(DAY)));
    let jobs = engine.jobs();
    let unique = || key().for_period(7 * DAY);
    let first = jobs.enqueue(keyed(1, unique())).unwrap();
    engine.run_one().unwrap();
    assert_eq!((state(jobs, first), jobs.get(first).unwrap().attempts), (State::Scheduled, 0));
    assert_eq!(jobs.enqueue(keyed(2, unique())).unwrap(), first);
    // It has used up no attempt.
    jobs.cancel(first).unwrap();
    assert_ne!(jobs.enqueue(keyed(2, unique())).unwrap(), first);
}

#[test]
fn until_started_the_key_is_free_once_an_attempt_starts() {
    let place = place();
    let unique = || key().until_started();
    let engine = manual(&place, move |act, cx| {
        if act.n == 1 {
            let second = cx.jobs().enqueue(keyed(2, unique()))?;
            assert_ne!(second, cx.id());
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(1, unique())).unwrap();
    assert_eq!(jobs.enqueue(keyed(9, unique())).unwrap(), first);
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 2);
}

#[test]
fn until_started_a_retry_takes_the_key_again_or_is_superseded_by_a_newer_job() {
    for newer in [false, true] {
        let place = place();
        let unique = || key().until_started();
        let engine = manual(&place, move |act, cx| {
            if act.n != 1 {
                return Ok(Outcome::Done);
            }
            if newer && cx.attempt() == 1 {
                cx.jobs().enqueue(keyed(2, unique()))?;
            }
            Err(Failure::msg("no"))
        });
        let jobs = engine.jobs();
        let first = jobs.enqueue(keyed(1, unique())).unwrap();
        engine.run_one().unwrap();
        let record = jobs.get(first).unwrap();
        if newer {
            assert_eq!(record.state, State::Cancelled);
            let second = jobs.list(&Filter::new().state(State::Ready), None, 9).unwrap().jobs;
            assert_eq!(record.reason.unwrap(), format!("superseded by job {}", second[0].id));
        } else {
            assert_eq!(record.state, State::Retrying);
            assert_eq!(jobs.enqueue(keyed(3, unique())).unwrap(), first);
        }
        engine.drain().unwrap();
        assert_ne!(jobs.enqueue(keyed(4, unique())).unwrap(), first, "the key is free again");
    }
}

#[test]
fn a_window_of_seven_days_holds_after_its_job_was_pruned() {
    let place = place();
    let jobs =
        place.builder().clock(stopped_clock()).retention(Retention::all(MINUTE)).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let week = || key().for_period(7 * DAY);
    let first = jobs.enqueue(keyed(1, week())).unwrap();
    engine.run_due().unwrap();
    engine.advance(6 * DAY);
    run_until(&engine, "it is pruned", || matches!(jobs.get(first), Err(Error::NotFound(_))));
    assert_eq!(jobs.enqueue(keyed(2, week())).unwrap(), first);
    assert_eq!(holder(jobs.enqueue(keyed(2, week().on_conflict(Conflict::Reject)))), first);
    engine.advance(DAY);
    let second = jobs.enqueue(keyed(3, week())).unwrap();
    assert_ne!(second, first);
    engine.run_due().unwrap();
    // What is over is removed, too.
    engine.advance(8 * DAY);
    engine.run_due().unwrap();
    jobs.enqueue(Act { n: 4 }).unwrap();
    engine.run_due().unwrap();
    let conn = place.connect();
    let rows = || {
        let ask = "SELECT count(*) FROM legwork_unique";
        conn.query_row(ask, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    run_until(&engine, "its row is removed", || rows() == 0);
}

#[test]
fn a_period_is_freed_by_a_cancel_or_delete_before_the_first_attempt_and_not_later() {
    let place = place();
    let engine = manual(&place, |_, _| Err(Failure::msg("no")));
    let jobs = engine.jobs();
    let day = || key().for_period(DAY);
    let first = jobs.enqueue(keyed(1, day())).unwrap();
    jobs.cancel(first).unwrap();
    let second = jobs.enqueue(keyed(2, day())).unwrap();
    assert_ne!(second, first);
    jobs.delete(second).unwrap();
    let third = jobs.enqueue(keyed(3, day())).unwrap();
    assert_ne!(third, second);
    engine.run_one().unwrap();
    jobs.cancel(third).unwrap();
    assert_eq!(jobs.enqueue(keyed(4, day())).unwrap(), third);
}

#[test]
fn cancelled_and_deleted_jobs_free_their_key() {
    let place = place();
    let engine = done(&place);
    let jobs = engine.jobs();
    for unique in [key(), key().until_started(), key().on_conflict(Conflict::KeepLast)] {
        let first = jobs.enqueue(keyed(1, unique.clone())).unwrap();
        jobs.cancel(first).unwrap();
        let second = jobs.enqueue(keyed(2, unique.clone())).unwrap();
        assert_ne!(second, first, "{unique:?}");
        jobs.delete(second).unwrap();
        let third = jobs.enqueue(keyed(3, unique.clone())).unwrap();
        assert_ne!(third, second, "{unique:?}");
        engine.run_due().unwrap();
    }
}

#[test]
fn a_job_that_can_no_longer_start_holds_its_key_no_longer() {
    for conflict in [Conflict::Ignore, Conflict::Reject, Conflict::Replace, Conflict::KeepLast] {
        let place = place();
        // Nobody is there to end it.
        let clock = stopped_clock();
        let jobs = place.builder().clock(clock.clone()).open().unwrap();
        let unique = || key().on_conflict(conflict);
        let late = jobs.enqueue(keyed(1, unique()).expires_after(MINUTE)).unwrap();
        clock.advance(2 * MINUTE);
        let new = jobs.enqueue(keyed(2, unique())).unwrap();
        assert!(new > late, "{conflict:?}");
        let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
        jobs.wake().unwrap();
        assert_eq!(jobs.wait(late, SOON).unwrap().state, State::Cancelled);
        // It has had the key, and cannot have it again beside the new one.
        assert_eq!(holder(jobs.retry(late).map(|_| late)), new, "{conflict:?}");
        engine.drain().unwrap();
        assert_eq!((state(&jobs, late), state(&jobs, new)), (State::Cancelled, State::Completed));
    }
}

#[test]
fn a_period_that_a_wrong_clock_began_is_over_once_the_clock_is_right() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let hourly = || key().for_period(60 * MINUTE);
    clock.advance(3_650 * DAY);
    let wrong = jobs.enqueue(keyed(1, hourly())).unwrap();
    clock.set(clock.now() - 30 * MINUTE);
    assert_eq!(jobs.enqueue(keyed(2, hourly())).unwrap(), wrong, "a clock that is set a little");
    clock.set(clock.now() - 3_650 * DAY);
    let right = jobs.enqueue(keyed(2, hourly())).unwrap();
    assert!(right > wrong);
    assert_eq!(jobs.enqueue(keyed(3, hourly())).unwrap(), right);
}
