//! Kinds that an engine does not know, knows by another name, or knows with other arguments.

use legwork::{Context, Engine, Error, Event, Job, JobResult, Jobs, NewJob, Outcome, Pool, State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Echo, any, echo, engine};
use crate::common::{SOON, place, wait_for};

#[test]
fn jobs_of_an_unknown_kind_are_left_alone_and_reported_once() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = engine(&jobs);
    let unknown = jobs.enqueue_many([any("unknown"), any("unknown").queue("other")]).unwrap();
    let known = jobs.enqueue(NewJob::new(echo("a")).priority(100)).unwrap();
    jobs.wait(known, SOON).unwrap();
    jobs.enqueue(any("unknown")).unwrap();
    jobs.enqueue(any("unknown, too")).unwrap();
    wait_for(&events, |event| *event == Event::UnknownKind { kind: "unknown".into() });
    let second = |event: &Event| {
        assert_ne!(*event, Event::UnknownKind { kind: "unknown".into() }, "told twice");
        *event == Event::UnknownKind { kind: "unknown, too".into() }
    };
    wait_for(&events, second);
    // Nothing to wait for: no engine here could run them.
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
    for id in unknown {
        assert_eq!(jobs.get(id).unwrap().state, State::Ready);
    }
}

#[test]
fn jobs_that_no_engine_knew_are_run_by_the_next_one_that_knows_them() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let first = engine(&jobs);
    let id = jobs.enqueue(any("fails")).unwrap();
    wait_for(&events, |event| matches!(event, Event::UnknownKind { .. }));
    // Beside the first one, and for another job after it.
    let knows = |jobs: &Jobs| {
        Engine::builder(jobs)
            .register_with::<Unit>(())
            .pool(Pool::new(["*"]).workers(1))
            .start()
            .unwrap()
    };
    let second = knows(&jobs);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    second.stop(SOON).unwrap();
    let id = jobs.enqueue(any("fails")).unwrap();
    first.stop(SOON).unwrap();
    let third = knows(&jobs);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    third.stop(SOON).unwrap();
}

#[test]
fn jobs_enqueued_while_no_engine_ran_are_run_by_the_next_engine_of_the_same_handle() {
    let place = place();
    let jobs = place.open();
    let first = engine(&jobs);
    let id = jobs.enqueue(echo("a")).unwrap();
    jobs.wait(id, SOON).unwrap();
    first.stop(SOON).unwrap();
    drop(first);
    // Another connection makes them, and this one looks at the file in between.
    let ids =
        [jobs.enqueue_in(&place.connect(), echo("b")).unwrap(), jobs.enqueue(any("k")).unwrap()];
    let second = engine(&jobs);
    jobs.wait(ids[0], SOON).unwrap();
    second.stop(SOON).unwrap();
}

/// Takes any arguments.
#[derive(Serialize, Deserialize)]
struct Unit {}

impl Job for Unit {
    const KIND: &'static str = "fails";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// What was once called "echo" and "shout".
#[derive(Serialize, Deserialize)]
struct Renamed {
    text: String,
}

impl Job for Renamed {
    const KIND: &'static str = "renamed";
    const ALIASES: &'static [&'static str] = &["echo", "shout"];
    type State = ();

    fn perform(&self, cx: &Context) -> JobResult {
        cx.output(&format!("renamed {}", self.text))?;
        Ok(Outcome::Done)
    }
}

#[test]
fn a_renamed_kind_runs_jobs_of_its_former_names() {
    let place = place();
    let jobs = place.open();
    let old = jobs.enqueue(echo("a")).unwrap();
    let older = jobs.enqueue(NewJob::of_kind("shout", json!({ "text": "b" }))).unwrap();
    let new = jobs.enqueue(Renamed { text: "c".into() }).unwrap();
    let engine = Engine::builder(&jobs).register::<Renamed>().start().unwrap();
    for (id, output) in [(old, "renamed a"), (older, "renamed b"), (new, "renamed c")] {
        jobs.wait(id, SOON).unwrap();
        assert_eq!(jobs.output::<String>(id).unwrap().as_deref(), Some(output));
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn a_kind_registered_twice_under_any_of_its_names_is_refused() {
    let place = place();
    let jobs = place.open();
    let twice = Engine::builder(&jobs).register::<Echo>().register::<Renamed>().start();
    assert!(matches!(twice, Err(Error::Invalid { what: "registration", .. })));
}

/// The kind of [`Echo`] as a later build has it.
#[derive(Serialize, Deserialize)]
struct NewerEcho {
    text: Option<String>,
    times: u32,
}

impl Job for NewerEcho {
    const KIND: &'static str = Echo::KIND;
    type State = ();

    fn perform(&self, cx: &Context) -> JobResult {
        cx.output(&self.times)?;
        Ok(Outcome::Done)
    }
}

#[test]
fn arguments_that_do_not_decode_fail_the_job_and_a_newer_build_can_run_it() {
    let place = place();
    let jobs = place.open();
    let args = r#"{"times":3,"text":null,"x":[1.50,"\u00fc"]}"#;
    let id = {
        let old = engine(&jobs);
        let id = jobs.enqueue(NewJob::of_kind_json("echo", args)).unwrap();
        let job = jobs.wait(id, SOON).unwrap();
        assert_eq!((job.state, job.attempts), (State::Failed, 1));
        let reason = job.reason.unwrap();
        assert!(reason.contains("do not decode as echo"), "{reason}");
        assert_eq!(job.args, args);
        old.stop(SOON).unwrap();
        id
    };
    let newer = Engine::builder(&jobs).register::<NewerEcho>().start().unwrap();
    jobs.retry(id).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    assert_eq!(jobs.output::<u32>(id).unwrap(), Some(3));
    newer.stop(SOON).unwrap();
}
