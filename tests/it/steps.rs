//! Steps and cursors: a job goes on where its last attempt was.

mod changed;
mod claims;
mod killed;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    Context, Error, Failure, JobId, JobResult, Jobs, Outcome, ResultExt, Retention, State,
};
use rusqlite::{Connection, TransactionBehavior};

use crate::common::{Place, place, run_until, stopped_clock};
use crate::scripted::{Act, Acts, acting};

const LONG: Duration = Duration::from_secs(100);

/// What the closures of steps have done, in their order.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<Vec<String>>>);

impl Effects {
    /// A step that has this effect, and its name as result.
    fn step(&self, cx: &Context<Acts>, name: &str) -> Result<String, Failure> {
        cx.step(name, || {
            self.add(name);
            Ok(format!("result of {name}"))
        })
    }

    fn add(&self, name: &str) {
        self.0.lock().unwrap().push(name.to_owned());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn stopped(place: &Place) -> Jobs {
    place.builder().clock(stopped_clock()).open().unwrap()
}

/// One job whose attempts are the given scripts, each run by a program of its own.
fn attempts(
    jobs: &Jobs,
    id: JobId,
    script: impl Fn(&Context<Acts>) -> JobResult + Send + Sync + 'static,
) {
    let engine = acting(jobs, move |_, cx| script(cx)).manual().unwrap();
    engine.advance(LONG);
    assert_eq!(engine.run_one().unwrap(), Some(id));
}

fn last_error(jobs: &Jobs, id: JobId) -> String {
    jobs.attempts(id).unwrap().last().expect("an attempt has failed").error.clone()
}

fn rows(place: &Place) -> i64 {
    place.connect().query_row("SELECT count(*) FROM legwork_steps", [], |row| row.get(0)).unwrap()
}

// ---- what is stored ----------------------------------------------------------------------

#[test]
fn a_later_attempt_gets_the_stored_value_and_does_not_run_the_step() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let effects = Effects::default();
    let script = {
        let effects = effects.clone();
        move |cx: &Context<Acts>| {
            assert_eq!(effects.step(cx, "charge")?, "result of charge");
            if cx.attempt() == 1 {
                return Err(Failure::msg("not yet"));
            }
            assert_eq!(effects.step(cx, "receipt")?, "result of receipt");
            Ok(Outcome::Done)
        }
    };
    attempts(&jobs, id, script.clone());
    assert_eq!(effects.take(), ["charge"]);
    attempts(&jobs, id, script);
    assert_eq!(effects.take(), ["receipt"]);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn an_error_of_a_step_is_passed_on_and_not_stored() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let script = |cx: &Context<Acts>| {
        let value: u32 = cx.step("fetch", || {
            if cx.attempt() == 1 { Err(Failure::msg("no answer")) } else { Ok(7) }
        })?;
        assert_eq!(value, 7);
        Ok(Outcome::Done)
    };
    attempts(&jobs, id, script);
    assert_eq!(last_error(&jobs, id), "no answer");
    assert_eq!(rows(&place), 0);
    attempts(&jobs, id, script);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn a_cursor_begins_where_the_attempts_before_have_saved_it() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let found = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&found);
    let script = move |cx: &Context<Acts>| {
        let cursor = cx.cursor::<u32>("rows")?;
        let first = cursor.get().copied().unwrap_or(0);
        told.lock().unwrap().push(first);
        if first < 6 {
            cursor.save(&(first + 1))?;
            cursor.save(&(first + 3))?;
            return Ok(Outcome::snooze(Duration::ZERO));
        }
        Ok(Outcome::Done)
    };
    let engine = acting(&jobs, move |_, cx| script(cx)).manual().unwrap();
    engine.run_due().unwrap();
    assert_eq!(*found.lock().unwrap(), [0, 3, 6]);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn steps_are_listed_with_their_size_in_the_order_of_the_job() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    attempts(&jobs, id, |cx| {
        cx.step("z", || Ok("ü".to_owned()))?;
        let failed = cx.step("optional", || -> Result<(), _> { Err(Failure::msg("never mind")) });
        assert!(failed.is_err());
        cx.cursor::<(u32, u32)>("a")?.save(&(1, 2))?;
        Err(Failure::msg("as told"))
    });
    let steps = jobs.steps(id).unwrap();
    let found: Vec<_> =
        steps.iter().map(|step| (step.name.as_str(), step.cursor, step.bytes)).collect();
    assert_eq!(found, [("z", false, Some(4)), ("optional", false, None), ("a", true, Some(5))]);
    assert_eq!(steps[0].stored_at, jobs.clock().now());
}

#[test]
fn perform_now_runs_every_step_and_stores_nothing() {
    let place = place();
    let jobs = stopped(&place);
    let effects = Effects::default();
    let script = {
        let effects = effects.clone();
        move |_: &Act, cx: &Context<Acts>| {
            effects.step(cx, "charge")?;
            let cursor = cx.cursor::<u32>("rows")?;
            assert_eq!(cursor.get(), None);
            cursor.save(&1)?;
            Ok(Outcome::Done)
        }
    };
    let engine = acting(&jobs, script).start().unwrap();
    for _ in 0..2 {
        engine.perform_now(&Act { n: 1 }).unwrap();
    }
    assert_eq!(effects.take(), ["charge", "charge"]);
    assert_eq!(rows(&place), 0);
}

#[test]
fn a_step_that_failed_and_was_passed_over_keeps_its_place_and_runs_again() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let effects = Effects::default();
    let script = {
        let effects = effects.clone();
        move |cx: &Context<Acts>, optional: &str| {
            let first = cx.attempt() == 1;
            let done = cx.step(optional, || {
                effects.add(optional);
                if first { Err(Failure::msg("never mind")) } else { Ok(()) }
            });
            if !first {
                done?;
            }
            effects.step(cx, "charge")?;
            Err(Failure::msg("as told"))
        }
    };
    let as_before = script.clone();
    attempts(&jobs, id, move |cx| as_before(cx, "optional"));
    assert_eq!(effects.take(), ["optional", "charge"]);
    // Its name is known all the same: otherwise one that ran could hide behind another.
    let renamed = script.clone();
    attempts(&jobs, id, move |cx| renamed(cx, "other"));
    assert_eq!(effects.take(), [""; 0]);
    attempts(&jobs, id, move |cx| script(cx, "optional"));
    assert_eq!(effects.take(), ["optional"]);
}

#[test]
fn steps_inside_a_step_are_stored_by_themselves_and_passed_by_once_it_is_done() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let effects = Effects::default();
    let script = {
        let effects = effects.clone();
        move |cx: &Context<Acts>| {
            cx.step("outer", || {
                effects.add("outer");
                effects.step(cx, "inner")?;
                cx.cursor::<u32>("never saved")?;
                if cx.attempt() == 1 { Err(Failure::msg("not yet")) } else { Ok(()) }
            })?;
            effects.step(cx, "after")?;
            Err(Failure::msg("as told"))
        }
    };
    for (expected, error) in [
        (&["outer", "inner"][..], "not yet"),
        (&["outer", "after"][..], "as told"),
        (&[][..], "as told"),
    ] {
        attempts(&jobs, id, script.clone());
        assert_eq!(effects.take(), expected);
        assert_eq!(last_error(&jobs, id), error);
    }
}

// ---- when they go ------------------------------------------------------------------------

#[test]
fn nothing_of_the_steps_stays_after_completion() {
    let place = place();
    let jobs = stopped(&place);
    let path = place.path.clone();
    let engine = acting(&jobs, move |act, cx| {
        // The last one finds in its second attempt that nothing is left to do.
        if act.n < 2 || cx.attempt() == 1 {
            cx.step("a", || Ok(1))?;
            cx.cursor::<u32>("b")?.save(&2)?;
        }
        match act.n {
            1 => {
                let mut conn = Connection::open(&path)?;
                let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
                cx.finish_in(&tx)?;
                tx.commit()?;
            }
            2 if cx.attempt() == 1 => return Err(Failure::msg("not yet")),
            _ => {}
        }
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let ids: Vec<_> = (0..3).map(|n| jobs.enqueue(Act { n }).unwrap()).collect();
    assert_eq!(engine.run_due().unwrap(), 3);
    assert_eq!(rows(&place), 2);
    engine.advance(LONG);
    engine.run_due().unwrap();
    for id in ids {
        assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    }
    assert_eq!(rows(&place), 0);
}

#[test]
fn steps_of_a_failed_job_are_kept_for_its_retry_and_go_with_it() {
    let place = place();
    let jobs = place
        .builder()
        .clock(stopped_clock())
        .retention(Retention::default().failed(Duration::from_secs(1_000)))
        .open()
        .unwrap();
    let engine = acting(&jobs, |_, cx| {
        cx.step("a", || Ok(1))?;
        Err(Failure::msg("never").into_fatal())
    })
    .manual()
    .unwrap();
    let ids: Vec<_> = (0..2).map(|n| jobs.enqueue(Act { n }).unwrap()).collect();
    engine.run_due().unwrap();
    assert_eq!(rows(&place), 2);
    jobs.delete(ids[0]).unwrap();
    assert_eq!(rows(&place), 1);
    engine.advance(Duration::from_secs(1_001));
    jobs.enqueue(Act { n: 2 }).unwrap();
    run_until(&engine, "it is pruned", || matches!(jobs.get(ids[1]), Err(Error::NotFound(_))));
    assert_eq!(rows(&place), 1, "of the new one");
}

#[test]
fn a_completed_job_that_is_run_again_begins_anew() {
    let place = place();
    let jobs = stopped(&place);
    let effects = Effects::default();
    let in_job = effects.clone();
    let turns = AtomicUsize::new(0);
    let engine = acting(&jobs, move |act, cx| {
        let turn = turns.fetch_add(1, Ordering::SeqCst);
        // One finds, after a nap, that nothing is left to do, and comes to no step.
        if act.n == 2 && turn % 3 == 1 {
            return Ok(Outcome::Done);
        }
        in_job.step(cx, "charge")?;
        let naps = act.n == 2 && turn.is_multiple_of(3);
        Ok(if naps { Outcome::snooze(Duration::ZERO) } else { Outcome::Done })
    })
    .manual()
    .unwrap();
    for (n, turns) in [(2, 2), (1, 1)] {
        let id = jobs.enqueue(Act { n }).unwrap();
        assert_eq!(engine.run_due().unwrap(), turns);
        jobs.retry(id).unwrap();
        assert_eq!(engine.run_due().unwrap(), 1);
        assert_eq!(effects.take(), ["charge", "charge"]);
        assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    }
}

#[test]
fn what_an_uncounted_attempt_has_stored_goes_with_the_completion_as_well() {
    let place = place();
    let jobs = stopped(&place);
    let turns = AtomicUsize::new(0);
    let engine = acting(&jobs, move |act, cx| {
        // The second turn comes to no step.
        if turns.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
            return Ok(Outcome::Done);
        }
        cx.step("a", || Ok(1))?;
        match act.n {
            1 => Ok(Outcome::snooze(Duration::ZERO)),
            _ => Err(Failure::msg("for good")).fatal(),
        }
    })
    .manual()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!((jobs.get(id).unwrap().state, rows(&place)), (State::Completed, 0));
    // A retry begins to count anew.
    let id = jobs.enqueue(Act { n: 2 }).unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(rows(&place), 1);
    jobs.retry(id).unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!((jobs.get(id).unwrap().state, rows(&place)), (State::Completed, 0));
}
