//! Steps and cursors: a job goes on where its last attempt was.

mod killed;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use legwork::{
    Context, Error, Event, Failure, Job, JobId, JobOptions, JobResult, Jobs, Outcome, Overdue,
    Pool, ResultExt, Retention, Retry, State,
};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

use crate::common::{Place, SOON, place, stopped_clock, wait_for};
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

// ---- steps that have changed -------------------------------------------------------------

/// The first attempt comes to `charge` and `mail`, and fails; the next one to these.
fn changed(next: &'static [&'static str]) -> (Place, Jobs, JobId, Effects) {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let effects = Effects::default();
    for names in [&["charge", "mail"][..], next] {
        effects.take();
        let in_job = effects.clone();
        attempts(&jobs, id, move |cx| {
            names.iter().try_for_each(|name| in_job.step(cx, name).map(drop))?;
            Err(Failure::msg("the end"))
        });
    }
    (place, jobs, id, effects)
}

#[test]
fn a_renamed_step_fails_the_attempt_by_both_names_and_nothing_is_run() {
    let (_place, jobs, id, effects) = changed(&["pay", "mail", "more"]);
    assert_eq!(effects.take(), [""; 0]);
    let error = last_error(&jobs, id);
    assert!(error.contains("step `pay` as number 1"), "{error}");
    assert!(error.contains("had step `charge`"), "{error}");
    assert!(error.contains("--from-scratch"), "{error}");
    assert_eq!(jobs.get(id).unwrap().state, State::Retrying);
    // With the old names it goes on.
    let in_job = effects.clone();
    attempts(&jobs, id, move |cx| {
        ["charge", "mail", "more"].iter().try_for_each(|name| in_job.step(cx, name).map(drop))?;
        Ok(Outcome::Done)
    });
    assert_eq!(effects.take(), ["more"]);
}

#[test]
fn steps_in_another_order_one_more_or_one_less_fail_the_attempt_unless_they_come_at_the_end() {
    let cases: [(&[&str], &[&str], &str); 5] = [
        (&["mail", "charge"], &[], "step `mail` as number 1"),
        (&["charge", "check", "mail"], &[], "step `check` as number 2"),
        (&["mail"], &[], "step `mail` as number 1"),
        (&["charge", "mail", "more"], &["more"], "the end"),
        (&["charge"], &[], "the end"),
    ];
    for (next, run, error) in cases {
        let (_place, jobs, id, effects) = changed(next);
        assert_eq!(effects.take(), run, "{next:?}");
        let said = last_error(&jobs, id);
        assert!(said.contains(error), "{next:?}: {said}");
    }
}

#[test]
fn a_change_is_a_typed_failure_that_is_told_and_lets_no_later_step_run() {
    let (_place, jobs, id, _) = changed(&["charge", "mail"]);
    let events = jobs.events();
    let seen = Arc::new(Mutex::new(None));
    let told = Arc::clone(&seen);
    attempts(&jobs, id, move |cx| {
        let failure = cx.step("pay", || -> Result<(), _> { panic!("it was run") }).unwrap_err();
        if let Some(Error::StepChanged { place, stored, visited, .. }) = failure.find::<Error>() {
            *told.lock().unwrap() = Some((*place, stored.clone(), visited.clone()));
        }
        // It cannot be helped by going on.
        let next = cx.step("mail", || -> Result<(), _> { panic!("it was run") });
        assert!(next.is_err());
        assert!(matches!(cx.cursor::<u32>("rows"), Err(Error::StepChanged { .. })));
        Err(failure)
    });
    let expected = (1, "step `charge`".to_owned(), "step `pay`".to_owned());
    assert_eq!(*seen.lock().unwrap(), Some(expected));
    wait_for(&events, |event| match event {
        Event::Failed { error, .. } => error.contains("charge") && error.contains("pay"),
        _ => false,
    });
}

#[test]
fn a_cursor_in_the_place_of_a_step_is_a_change() {
    let (_place, jobs, id, _) = changed(&["charge"]);
    attempts(&jobs, id, |cx| {
        cx.cursor::<u32>("charge")?;
        Ok(Outcome::Done)
    });
    let error = last_error(&jobs, id);
    assert!(error.contains("cursor `charge`") && error.contains("step `charge`"), "{error}");
}

#[test]
fn retry_from_scratch_forgets_the_steps_and_retry_goes_on_after_them() {
    let (_place, jobs, id, effects) = changed(&["charge", "mail"]);
    for (from_scratch, expected) in [(false, &[][..]), (true, &["pay"][..])] {
        jobs.cancel(id).unwrap();
        if from_scratch {
            jobs.retry_from_scratch(id).unwrap();
            assert_eq!(jobs.steps(id).unwrap(), []);
        } else {
            jobs.retry(id).unwrap();
            assert_eq!(jobs.steps(id).unwrap().len(), 2);
        }
        effects.take();
        let in_job = effects.clone();
        attempts(&jobs, id, move |cx| {
            in_job.step(cx, if from_scratch { "pay" } else { "charge" })?;
            Err(Failure::msg("as told"))
        });
        assert_eq!(effects.take(), expected);
    }
}

#[test]
fn a_name_that_is_used_twice_or_is_none_fails_the_attempt() {
    let place = place();
    let jobs = stopped(&place);
    for (name, why) in [("charge", "`charge` is used for the second time"), ("", "it is empty")] {
        let id = jobs.enqueue(Act { n: 1 }).unwrap();
        let effects = Effects::default();
        let in_job = effects.clone();
        attempts(&jobs, id, move |cx| {
            in_job.step(cx, "charge")?;
            in_job.step(cx, name)?;
            Ok(Outcome::Done)
        });
        assert_eq!(effects.take(), ["charge"]);
        let error = last_error(&jobs, id);
        assert!(error.contains("invalid step name") && error.contains(why), "{error}");
        jobs.cancel(id).unwrap();
    }
}

#[test]
fn a_step_in_another_thread_is_refused_while_one_is_under_way() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    attempts(&jobs, id, |cx| {
        cx.step("a", || {
            std::thread::scope(|scope| scope.spawn(|| cx.step("b", || Ok(1))).join().unwrap())
        })?;
        Ok(Outcome::Done)
    });
    let error = last_error(&jobs, id);
    assert!(error.contains("`b` is begun while another step is under way"), "{error}");
}

#[test]
fn a_value_that_no_longer_decodes_fails_the_attempt_by_the_steps_name_and_is_kept() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    attempts(&jobs, id, |cx| {
        cx.step("charge", || Ok("r1".to_owned()))?;
        Err(Failure::msg("as told"))
    });
    attempts(&jobs, id, |cx| {
        cx.step("charge", || -> Result<u32, _> { panic!("it was run") })?;
        Ok(Outcome::Done)
    });
    let error = last_error(&jobs, id);
    assert!(error.contains("step `charge` does not decode"), "{error}");
    attempts(&jobs, id, |cx| {
        assert_eq!(cx.step("charge", || Ok(String::new()))?, "r1");
        Ok(Outcome::Done)
    });
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
}

#[test]
fn a_value_that_cannot_be_stored_fails_the_job_for_good() {
    let place = place();
    let jobs = stopped(&place);
    type Script = fn(&Context<Acts>) -> JobResult;
    let scripts: [(Script, &str); 2] = [
        (
            |cx| {
                cx.step("large", || Ok("x".repeat(1024 * 1024)))?;
                Ok(Outcome::Done)
            },
            "result of a step: it has 1048578 bytes of JSON",
        ),
        (
            |cx| {
                cx.step("no json", || Ok(std::collections::BTreeMap::from([((1, 2), 3)])))?;
                Ok(Outcome::Done)
            },
            "key must be a string",
        ),
    ];
    for (script, why) in scripts {
        let id = jobs.enqueue(Act { n: 1 }).unwrap();
        attempts(&jobs, id, script);
        let job = jobs.get(id).unwrap();
        assert_eq!((job.state, job.attempts), (State::Failed, 1));
        assert!(job.reason.as_ref().unwrap().contains(why), "{:?}", job.reason);
        assert_eq!(rows(&place), 0);
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
    engine.run_due().unwrap();
    assert!(matches!(jobs.get(ids[1]), Err(Error::NotFound(_))), "it was to be pruned");
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

// ---- whose they are ----------------------------------------------------------------------

/// The first attempt is abandoned inside a step, while the second one runs.
#[derive(Serialize, Deserialize)]
struct Late;

type Gate = (crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>);

struct LateState {
    db: std::path::PathBuf,
    first_is_in_a_step: Gate,
    second_runs: Gate,
    first_is_done: Gate,
    begun_too_late: AtomicUsize,
}

impl Job for Late {
    const KIND: &'static str = "late";
    type State = Arc<LateState>;

    fn options() -> JobOptions {
        JobOptions::new()
            .timeout(Duration::from_secs(1))
            .overdue(Overdue::Abandon)
            .retry(Retry::fixed(Duration::ZERO).attempts(2))
    }

    fn perform(&self, cx: &Context<Arc<LateState>>) -> JobResult {
        let state = cx.state();
        let cursor = cx.cursor::<u32>("rows")?;
        if cx.attempt() == 2 {
            state.second_runs.0.send(())?;
            state.first_is_done.1.recv_timeout(SOON)?;
            cx.step("a", || Ok(2))?;
            return Err(Failure::msg("as told"));
        }
        let late = cx.step("a", || {
            state.first_is_in_a_step.0.send(())?;
            Ok(state.second_runs.1.recv_timeout(SOON).map(|()| 1)?)
        });
        let lost = |error: Option<&Error>| matches!(error, Some(Error::LostClaim(_)));
        assert!(lost(late.as_ref().unwrap_err().find()), "{late:?}");
        assert!(lost(cursor.save(&7).as_ref().err()));
        let mut conn = Connection::open(&state.db)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        assert!(lost(cursor.save_in(&tx, &7).as_ref().err()));
        tx.commit()?;
        let begun = cx.step("b", || {
            state.begun_too_late.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        assert!(begun.unwrap_err().interrupt().is_some());
        state.first_is_done.0.send(())?;
        Ok(Outcome::Done)
    }
}

#[test]
fn an_attempt_that_has_lost_its_claim_stores_nothing_and_begins_no_step() {
    let place = place();
    let jobs = stopped(&place);
    let state = Arc::new(LateState {
        db: place.path.clone(),
        first_is_in_a_step: unbounded(),
        second_runs: unbounded(),
        first_is_done: unbounded(),
        begun_too_late: AtomicUsize::new(0),
    });
    let engine = legwork::Engine::builder(&jobs)
        .register_with::<Late>(Arc::clone(&state))
        .stuck_grace(Duration::ZERO)
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Late).unwrap();
    state.first_is_in_a_step.1.recv_timeout(SOON).unwrap();
    jobs.clock().advance(Duration::from_secs(1));
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.reason.as_deref()), (State::Failed, Some("as told")));
    engine.stop(SOON).unwrap();
    assert_eq!(state.begun_too_late.load(Ordering::SeqCst), 0);
    let stored: String = place
        .connect()
        .query_row(
            "SELECT group_concat(name || '=' || coalesce(value, ''), ' ') FROM legwork_steps",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(stored, "rows= a=2");
}

#[test]
fn a_result_is_stored_although_the_file_was_locked_when_its_work_was_done() {
    let place = place();
    let jobs = place.builder().busy_timeout(Duration::from_millis(50)).open().unwrap();
    let (done, told) = unbounded();
    let engine = acting(&jobs, move |_, cx| {
        let (go_on, locked) = crossbeam_channel::bounded(0);
        cx.step("charge", || {
            done.send(go_on)?;
            Ok(locked.recv_timeout(SOON)?)
        })?;
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(1))
    .start()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let go_on: crossbeam_channel::Sender<()> = told.recv_timeout(SOON).unwrap();
    let mut conn = place.connect();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    go_on.send(()).unwrap();
    // Each waits as long as the step does, and comes after it.
    for _ in 0..3 {
        assert!(matches!(jobs.enqueue(Act { n: 2 }), Err(Error::Busy { .. })));
    }
    drop(tx);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    assert_eq!(jobs.attempts(id).unwrap(), []);
    engine.stop(SOON).unwrap();
}

#[test]
fn inside_a_transaction_of_the_handle_steps_are_refused_and_a_position_is_saved_in_it() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    attempts(&jobs, id, |cx| {
        let cursor = cx.cursor::<u32>("rows")?;
        let outside = Connection::open(cx.jobs().path())?;
        assert!(matches!(cursor.save_in(&outside, &1), Err(Error::Invalid { .. })));
        let mut conn = Connection::open(cx.jobs().path())?;
        cx.jobs().transaction(&mut conn, |tx| {
            let refused = cx.step("a", || Ok(1)).unwrap_err();
            assert!(matches!(refused.find(), Some(Error::InTransaction { verb: "step" })));
            assert!(matches!(cursor.save(&1), Err(Error::InTransaction { verb: "save" })));
            cursor.save_in(tx, &1)
        })?;
        Err(Failure::msg("as told"))
    });
    assert_eq!(last_error(&jobs, id), "as told");
    assert_eq!(jobs.steps(id).unwrap()[0].bytes, Some(1));
}

#[test]
fn a_position_that_is_saved_in_a_transaction_exists_only_if_that_commits() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    place.connect().execute_batch("CREATE TABLE effects (row INTEGER NOT NULL)").unwrap();
    let path = place.path.clone();
    let engine = acting(&jobs, move |_, cx| {
        let cursor = cx.cursor::<u32>("rows")?;
        cx.step("prepare", || Ok(()))?;
        let mut conn = Connection::open(&path)?;
        for row in cursor.get().map_or(0, |last| last + 1)..9 {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute("INSERT INTO effects VALUES (?1)", [row])?;
            cursor.save_in(&tx, &row)?;
            if row == 3 * cx.attempt() {
                return Err(Failure::msg("as told"));
            }
            tx.commit()?;
        }
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    for _ in 0..3 {
        engine.run_due().unwrap();
        engine.advance(LONG);
    }
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    let conn = place.connect();
    let all: String =
        conn.query_row("SELECT group_concat(row) FROM effects", [], |row| row.get(0)).unwrap();
    assert_eq!(all, "0,1,2,3,4,5,6,7,8");
}

#[test]
fn many_jobs_store_their_steps_side_by_side() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |act, cx| {
        for step in 0..20 {
            let value = cx.step(&format!("step {step}"), || Ok(act.n * 100 + step))?;
            assert_eq!(value, act.n * 100 + step);
        }
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(8))
    .start()
    .unwrap();
    let ids = jobs.enqueue_many((0..40).map(|n| Act { n })).unwrap();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
    assert_eq!(rows(&place), 0);
}

#[test]
fn retry_from_scratch_lets_a_job_that_waits_forget_its_steps_and_wait_on() {
    let (_place, jobs, id, _) = changed(&["charge"]);
    jobs.retry(id).unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Ready);
    assert_eq!(jobs.retry_from_scratch(id).unwrap().changed, 1);
    assert_eq!(jobs.steps(id).unwrap(), []);
    assert_eq!(jobs.get(id).unwrap().state, State::Ready);
    // Without steps there is nothing to start over.
    assert!(matches!(jobs.retry_from_scratch(id), Err(Error::WrongState { .. })));
}
