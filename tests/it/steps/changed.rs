//! A program whose steps are not those that its job has stored, and steps that are refused.

use std::sync::{Arc, Mutex};

use legwork::{Context, Error, Event, Failure, JobId, JobResult, Jobs, Outcome, State};

use super::{Effects, attempts, last_error, rows, stopped};
use crate::common::{Place, place, wait_for};
use crate::scripted::{Act, Acts};

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
