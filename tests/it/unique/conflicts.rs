//! What becomes of a second job whose key is taken: it is the first, takes its place, or is refused.

use legwork::{
    Conflict, Enqueued, Error, Event, Failure, Filter, Job, NewJob, Outcome, ResultExt, State,
    Unique,
};

use super::{DAY, MINUTE, args_of, done, holder, key, keyed, manual, state};
use crate::common::{place, stopped_clock};
use crate::scripted::{Act, acting};

// ---- conflicts -------------------------------------------------------------------------------

#[test]
fn events_tell_of_a_job_that_was_replaced_and_of_a_child_that_was_refused() {
    let place = place();
    let engine = manual(&place, |act, cx| {
        if act.n == 3 {
            cx.enqueue_with_finish(keyed(4, key().on_conflict(Conflict::Reject)))?;
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let events = jobs.events();
    let holder = jobs.enqueue(keyed(1, key()).delay(DAY)).unwrap();
    jobs.enqueue(keyed(2, key().on_conflict(Conflict::Replace)).delay(DAY)).unwrap();
    jobs.enqueue(Act { n: 3 }).unwrap();
    engine.drain().unwrap();
    let told: Vec<Event> = std::iter::from_fn(|| events.try_recv()).collect();
    let (kind, queue) = (Act::KIND.to_owned(), "default".to_owned());
    let replaced = Event::Replaced { id: holder, kind: kind.clone(), queue };
    assert!(told.contains(&replaced), "{told:?}");
    assert!(told.contains(&Event::NotUnique { holder, kind }), "{told:?}");
}

#[test]
fn each_job_of_a_bulk_is_told_apart_and_a_refusal_refuses_the_whole_of_enqueue_many() {
    let place = place();
    let jobs = place.open();
    let reject = || key().on_conflict(Conflict::Reject);
    let refused = jobs.enqueue_many([keyed(1, reject()), keyed(2, reject())]);
    assert!(matches!(refused, Err(Error::NotUnique { .. })));
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 0);
    let each = jobs
        .enqueue_each([
            keyed(1, reject()),
            keyed(2, reject()),
            keyed(3, key()),
            keyed(4, key().on_conflict(Conflict::Replace)),
            NewJob::new(Act { n: 5 }),
        ])
        .unwrap();
    let first = each[0].id();
    assert_eq!(
        each[..4],
        [
            Enqueued::New(first),
            Enqueued::Rejected { holder: first },
            Enqueued::Existing(first),
            Enqueued::Replaced(first),
        ]
    );
    assert!(each[4].is_new());
    assert_eq!(args_of(&jobs, first), 4);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 2);
}

#[test]
fn replace_gives_a_waiting_job_the_new_arguments_time_and_priority_and_leaves_a_running_one_alone()
{
    let place = place();
    let replace = || key().on_conflict(Conflict::Replace);
    let engine = manual(&place, move |act, cx| {
        if act.n == 3 {
            assert_eq!(cx.jobs().enqueue(keyed(4, replace()))?, cx.id());
            assert_eq!(args_of(cx.jobs(), cx.id()), 3);
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let id = jobs.enqueue(keyed(1, replace()).delay(MINUTE)).unwrap();
    assert_eq!(jobs.enqueue(keyed(2, replace()).priority(-3).delay(2 * MINUTE)).unwrap(), id);
    let record = jobs.get(id).unwrap();
    assert_eq!((record.state, record.priority), (State::Scheduled, -3));
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 0, "its old time is forgotten");
    // Earlier again, and in another queue.
    assert_eq!(jobs.enqueue(keyed(3, replace()).queue("other")).unwrap(), id);
    assert_eq!(jobs.get(id).unwrap().queue, "other");
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(state(jobs, id), State::Completed);
}

#[test]
fn the_apps_own_transaction_obeys_the_same_rules() {
    let place = place();
    let engine = done(&place);
    let jobs = engine.jobs();
    let mut conn = place.connect();
    let tx = conn.transaction().unwrap();
    let first = jobs.enqueue_in(&tx, keyed(1, key())).unwrap();
    assert_eq!(jobs.enqueue_in(&tx, keyed(2, key())).unwrap(), first);
    let reject = keyed(2, key().on_conflict(Conflict::Reject));
    assert_eq!(holder(jobs.enqueue_in(&tx, reject)), first);
    tx.rollback().unwrap();
    let second = jobs.enqueue(keyed(3, key())).unwrap();
    assert_eq!(args_of(jobs, second), 3);
    let tx = conn.transaction().unwrap();
    let replace = keyed(4, key().on_conflict(Conflict::Replace)).delay(MINUTE);
    assert_eq!(jobs.enqueue_in(&tx, replace).unwrap(), second);
    tx.commit().unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn a_child_whose_key_is_taken_does_not_harm_its_parents_end() {
    let place = place();
    let engine = manual(&place, |act, cx| {
        if act.n == 1 {
            cx.enqueue_with_finish(keyed(2, key().on_conflict(Conflict::Reject)))?;
            cx.enqueue_with_finish(keyed(3, Unique::by_key("free")))?;
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let other = jobs.enqueue(keyed(9, key()).delay(DAY)).unwrap();
    let parent = jobs.enqueue(Act { n: 1 }).unwrap();
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(state(jobs, parent), State::Completed);
    assert_eq!(state(jobs, other), State::Scheduled);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 3);
}

// ---- keep last -------------------------------------------------------------------------------

#[test]
fn keep_last_lets_one_run_and_one_wait_with_the_newest_arguments() {
    let place = place();
    let last = || key().on_conflict(Conflict::KeepLast);
    let engine = manual(&place, move |act, cx| {
        if act.n == 1 {
            let second = cx.jobs().enqueue(keyed(2, last()))?;
            assert_ne!(second, cx.id());
            assert_eq!(state(cx.jobs(), second), State::Blocked);
            assert_eq!(cx.jobs().enqueue(keyed(3, last()))?, second);
            assert_eq!((state(cx.jobs(), second), args_of(cx.jobs(), second)), (State::Blocked, 3));
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(0, last())).unwrap();
    assert_eq!(jobs.enqueue(keyed(1, last())).unwrap(), first);
    engine.run_one().unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 2);
}

#[test]
fn keep_last_supersedes_the_older_one_that_would_run_again() {
    for end in ["fail", "snooze"] {
        let place = place();
        let last = || key().on_conflict(Conflict::KeepLast);
        let engine = manual(&place, move |act, cx| {
            if act.n > 1 {
                return Ok(Outcome::Done);
            }
            cx.jobs().enqueue(keyed(2, last()).delay(MINUTE))?;
            if end == "fail" { Err(Failure::msg("no")) } else { Ok(Outcome::snooze(DAY)) }
        });
        let jobs = engine.jobs();
        let first = jobs.enqueue(keyed(1, last())).unwrap();
        engine.run_one().unwrap();
        let record = jobs.get(first).unwrap();
        assert_eq!(record.state, State::Cancelled, "{end}");
        assert!(record.reason.unwrap().starts_with("superseded by job "));
        // The newer one is no longer blocked, and has its own time.
        assert_eq!(engine.run_due().unwrap(), 0);
        engine.advance(MINUTE);
        assert_eq!(engine.run_due().unwrap(), 1);
    }
}

#[test]
fn keep_last_goes_on_however_the_running_one_ends() {
    for end in ["done", "fatal", "cancel", "finish_in"] {
        let place = place();
        let last = || key().on_conflict(Conflict::KeepLast);
        let path = place.path.clone();
        let engine = manual(&place, move |act, cx| {
            if act.n > 1 {
                return Ok(Outcome::Done);
            }
            cx.jobs().enqueue(keyed(2, last()))?;
            match end {
                "fatal" => Err(std::io::Error::other("no")).fatal(),
                "cancel" => Ok(Outcome::cancel("so")),
                "finish_in" => {
                    let mut conn = rusqlite::Connection::open(&path)?;
                    let tx = conn.transaction()?;
                    cx.finish_in(&tx)?;
                    tx.commit()?;
                    Ok(Outcome::Done)
                }
                _ => Ok(Outcome::Done),
            }
        });
        engine.jobs().enqueue(keyed(1, last())).unwrap();
        assert_eq!(engine.run_due().unwrap(), 2, "{end}");
        let left: i64 = place
            .connect()
            .query_row("SELECT count(*) FROM legwork_unique", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0, "{end}");
    }
}

// ---- new work --------------------------------------------------------------------------------

#[test]
fn a_job_that_gets_new_arguments_forgets_the_steps_of_the_old_ones() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let charged = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = std::sync::Arc::clone(&charged);
    let engine = acting(&jobs, move |act, cx| {
        let sum: i64 = cx.step("charge", || Ok(act.n))?;
        all.lock().unwrap().push((act.n, sum));
        if act.n == 1 { Err(Failure::msg("later")) } else { Ok(Outcome::Done) }
    })
    .manual()
    .unwrap();
    let job = |n| NewJob::new(Act { n }).unique(Unique::by_key("k").on_conflict(Conflict::Replace));
    let id = jobs.enqueue(job(1)).unwrap();
    engine.run_due().unwrap();
    assert_eq!(jobs.steps(id).unwrap().len(), 1);
    assert_eq!(jobs.enqueue(job(2)).unwrap(), id);
    engine.advance(MINUTE);
    engine.run_due().unwrap();
    assert_eq!(*charged.lock().unwrap(), [(1, 1), (2, 2)]);
}

#[test]
fn a_job_that_may_replace_another_has_no_parents_of_its_own() {
    let place = place();
    let jobs = place.open();
    let parent = jobs.enqueue(Act { n: 1 }).unwrap();
    for conflict in [Conflict::Replace, Conflict::KeepLast] {
        let job = keyed(2, key().on_conflict(conflict)).after([parent]);
        assert!(matches!(jobs.enqueue(job), Err(Error::Invalid { what: "parents", .. })));
    }
    jobs.enqueue(keyed(2, key()).after([parent])).unwrap();
}

#[test]
fn what_takes_the_place_of_another_job_is_new_work() {
    for conflict in [Conflict::Replace, Conflict::KeepLast] {
        let place = place();
        let engine = manual(&place, |act, cx| {
            cx.progress(1, 2);
            cx.step("a", || Ok(1))?;
            if act.n == 9 { Ok(Outcome::Done) } else { Err(Failure::msg("no")) }
        });
        let jobs = engine.jobs();
        let unique = || key().on_conflict(conflict);
        let id = jobs.enqueue(keyed(1, unique())).unwrap();
        engine.run_one().unwrap();
        assert_eq!(state(jobs, id), State::Retrying);
        // The wait for the retry is over, and the attempts are its own.
        assert_eq!(jobs.enqueue(keyed(2, unique()).delay(MINUTE)).unwrap(), id);
        let job = jobs.get(id).unwrap();
        assert_eq!((job.state, job.attempts, job.progress), (State::Scheduled, 0, None));
        assert_eq!(jobs.steps(id).unwrap(), []);
        engine.advance(MINUTE);
        engine.run_one().unwrap();
        assert_eq!((state(jobs, id), jobs.get(id).unwrap().attempts), (State::Retrying, 1));
        assert_eq!(jobs.enqueue(keyed(9, unique())).unwrap(), id);
        assert_eq!(engine.run_due().unwrap(), 1);
        assert_eq!(state(jobs, id), State::Completed);
    }
}

#[test]
fn the_same_work_asked_for_again_keeps_its_attempts_and_its_wait() {
    for conflict in [Conflict::Replace, Conflict::KeepLast] {
        let place = place();
        let engine = manual(&place, |_, _| Err(Failure::msg("no")));
        let jobs = engine.jobs();
        let unique = || key().on_conflict(conflict);
        let id = jobs.enqueue(keyed(1, unique())).unwrap();
        for attempt in 1..=3 {
            assert_eq!(engine.run_due().unwrap(), 1);
            assert_eq!(jobs.get(id).unwrap().attempts, attempt);
            if attempt < 3 {
                assert_eq!(jobs.enqueue(keyed(1, unique()).priority(-1)).unwrap(), id);
                assert_eq!(state(jobs, id), State::Retrying);
                assert_eq!(engine.run_due().unwrap(), 0, "its wait is not over");
            }
            engine.advance(MINUTE);
        }
        assert_eq!(state(jobs, id), State::Failed, "{conflict:?}");
    }
}
