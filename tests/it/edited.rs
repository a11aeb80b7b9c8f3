//! What jobs that wait are made of, changed: what follows from it, and that no job runs half edited.

mod races;

use std::time::Duration;

use legwork::{
    Changed, Conflict, Context, Edit, Error, Failure, Filter, Job, JobId, JobOptions, JobResult,
    Jobs, Limit, NewJob, Outcome, Pool, State, Unique,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{SOON, place, stopped_clock};
use crate::scripted::{Act, acting, holding};

const HOUR: Duration = Duration::from_secs(3600);

fn act(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

fn other(n: i64) -> Edit {
    Edit::new().args(Act { n })
}

fn key(jobs: &Jobs, id: JobId) -> String {
    jobs.get(id).unwrap().unique_key.unwrap()
}

fn holder(done: legwork::Result<Changed>) -> JobId {
    match done {
        Err(Error::NotUnique { holder, .. }) => holder,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_job_runs_as_it_was_edited_and_keeps_the_rest() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, cx| {
        if act.n == 1 {
            return Err(Failure::msg("the wrong number"));
        }
        assert_eq!((act.n, cx.attempt()), (2, 2));
        assert!(cx.remaining().is_some());
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]))
    .manual()
    .unwrap();
    let id = jobs.enqueue(act(1).tag("a").meta("k", "v")).unwrap();
    engine.run_due().unwrap();
    let edit = other(2).queue("other").priority(-3).tag("b").meta("l", "w").timeout(HOUR);
    jobs.edit(id, edit).unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts, job.priority), (State::Retrying, 1, -3));
    assert_eq!(job.queue, "other");
    assert_eq!(job.tags, ["a", "b"]);
    assert_eq!((job.meta["k"].as_str(), job.meta["l"].as_str()), ("v", "w"));
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    assert!(matches!(
        jobs.edit(id, other(3)),
        Err(Error::WrongState { state: State::Completed, verb: "edit", .. })
    ));
    assert!(matches!(jobs.edit(JobId(99), other(3)), Err(Error::NotFound(_))));
    for bad in [Edit::new(), Edit::new().args_json("{"), Edit::new().queue("")] {
        assert!(matches!(jobs.edit(id, bad), Err(Error::Invalid { .. })));
    }
}

#[test]
fn another_number_of_attempts_holds_for_the_failures_to_come_and_keeps_the_delays() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Err(Failure::msg("no"))).pool(Pool::new(["*"]));
    let engine = engine.manual().unwrap();
    // The kind has three, ten seconds apart.
    let ids = jobs.enqueue_many([act(1), act(2), act(3).attempts(1)]).unwrap();
    engine.run_due().unwrap();
    let states = || ids.iter().map(|id| jobs.get(*id).unwrap().state).collect::<Vec<_>>();
    assert_eq!(states(), [State::Retrying, State::Retrying, State::Failed]);
    jobs.edit(ids[0], Edit::new().attempts(4)).unwrap();
    // As many as it has had: it runs once more.
    jobs.edit(ids[1], Edit::new().attempts(1)).unwrap();
    let seconds = Duration::from_secs(10);
    engine.advance(seconds);
    engine.run_due().unwrap();
    assert_eq!(states(), [State::Retrying, State::Failed, State::Failed]);
    assert_eq!(jobs.get(ids[1]).unwrap().attempts, 2);
    for _ in 0..2 {
        engine.advance(seconds);
        engine.run_due().unwrap();
    }
    let job = jobs.get(ids[0]).unwrap();
    assert_eq!((job.state, job.attempts), (State::Failed, 4));
}

#[test]
fn priority_and_queue_count_at_once() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let ids = jobs.enqueue_many((1..4).map(|n| act(n).queue("slow"))).unwrap();
    let engine =
        acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["fast", "slow"])).manual().unwrap();
    jobs.edit(ids[2], Edit::new().queue("fast").priority(9)).unwrap();
    jobs.edit(ids[1], Edit::new().priority(-1)).unwrap();
    let order: Vec<JobId> = std::iter::from_fn(|| engine.run_one().unwrap()).collect();
    assert_eq!(order, [ids[2], ids[1], ids[0]]);
}

#[test]
fn a_worker_that_waits_gets_a_job_that_comes_into_its_queue_or_loses_its_gate() {
    let place = place();
    let jobs = place.open();
    jobs.close_gate("g").unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["mine"])).start().unwrap();
    let foreign = jobs.enqueue(act(1).queue("foreign")).unwrap();
    let gated = jobs.enqueue(act(2).queue("mine").gate("g")).unwrap();
    jobs.edit(foreign, Edit::new().queue("mine")).unwrap();
    jobs.edit(gated, Edit::new().without_gate()).unwrap();
    for id in [foreign, gated] {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    let id = jobs.enqueue(act(3).queue("foreign")).unwrap();
    jobs.edit(id, Edit::new().queue("mine").gate("g")).unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Blocked);
    jobs.open_gate("g").unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_key_of_arguments_is_made_anew_and_refused_if_it_is_taken() {
    let place = place();
    let jobs = place.open();
    let by_args = |n| act(n).unique(Unique::by_args());
    let ids = [1, 2].map(|n| jobs.enqueue(by_args(n)).unwrap());
    let before = jobs.get(ids[0]).unwrap();
    assert_eq!(holder(jobs.edit(ids[0], other(2).priority(5))), ids[1]);
    assert_eq!(jobs.get(ids[0]).unwrap(), before, "nothing was changed");
    jobs.edit(ids[0], other(3)).unwrap();
    assert_eq!(jobs.enqueue(by_args(3)).unwrap(), ids[0], "it has the new key");
    let third = jobs.enqueue(by_args(1)).unwrap();
    assert!(!ids.contains(&third), "and not the old one");
    // The same arguments, written otherwise.
    jobs.edit(ids[0], Edit::new().args_json("{ \"n\":3 }")).unwrap();
    let done = jobs.edit(Filter::new(), other(4)).unwrap();
    assert_eq!((done.changed, done.skipped, done.not_unique), (1, 2, 2));
    let named = jobs.enqueue(act(9).unique_key("named")).unwrap();
    jobs.edit(named, other(10)).unwrap();
    assert_eq!(key(&jobs, named), "named");
}

/// Unique by a field.
#[derive(Serialize, Deserialize)]
struct Ruled {
    user: i64,
    note: String,
}

impl Job for Ruled {
    const KIND: &'static str = "ruled";
    type State = ();
    fn options() -> JobOptions {
        JobOptions::new().unique(Unique::by_fields(["user"]))
    }
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

#[test]
fn a_key_of_fields_is_made_by_the_rule_of_the_kind_or_the_edit_is_refused() {
    let place = place();
    let jobs = place.open();
    let ruled = |user| Ruled { user, note: "n".to_owned() };
    let id = jobs.enqueue(NewJob::new(ruled(1)).delay(HOUR)).unwrap();
    let unknown = |done| match done {
        Err(Error::Invalid { what: "edit", why }) => assert!(why.contains("fields"), "{why}"),
        other => panic!("not refused: {other:?}"),
    };
    unknown(jobs.edit(id, Edit::new().args(ruled(2))));
    assert_eq!(jobs.edit(vec![id], Edit::new().args(ruled(2))).unwrap().skipped, 1);
    // An engine that knows the kind records its rule.
    legwork::Engine::builder(&jobs).register::<Ruled>().manual().unwrap();
    jobs.edit(id, Edit::new().args(ruled(2))).unwrap();
    assert_eq!(jobs.enqueue(ruled(2)).unwrap(), id);
    assert_ne!(jobs.enqueue(ruled(1)).unwrap(), id);
    match jobs.edit(id, Edit::new().args(json!([1]))) {
        Err(Error::Invalid { what: "unique key", .. }) => {}
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_period_goes_on_with_the_new_key_and_frees_the_old_one_if_it_has_not_run() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, _| match act.n {
        1 => Err(Failure::msg("no")),
        _ => Ok(Outcome::Done),
    })
    .manual()
    .unwrap();
    let daily = |n| act(n).unique(Unique::by_args().for_period(HOUR));
    let fresh = jobs.enqueue(daily(5)).unwrap();
    jobs.edit(fresh, other(6)).unwrap();
    assert_ne!(jobs.enqueue(daily(5)).unwrap(), fresh);
    let tried = jobs.enqueue(daily(1)).unwrap();
    engine.run_due().unwrap();
    jobs.edit(tried, other(2)).unwrap();
    engine.advance(HOUR / 2);
    engine.run_due().unwrap();
    assert_eq!(jobs.get(tried).unwrap().state, State::Completed);
    assert_eq!(jobs.enqueue(daily(1)).unwrap(), tried, "work with these was begun");
    assert_eq!(jobs.enqueue(daily(2)).unwrap(), tried);
    assert_eq!(jobs.enqueue(daily(6)).unwrap(), fresh);
    engine.advance(HOUR / 2);
    assert_ne!(jobs.enqueue(daily(2)).unwrap(), tried, "for as long as the first one");
}

#[test]
fn one_that_waits_for_its_key_goes_on_with_another_and_the_other_way_round() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.start().unwrap();
    let last = |n| act(n).unique(Unique::by_args().on_conflict(Conflict::KeepLast));
    let first = jobs.enqueue(last(1)).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    let second = jobs.enqueue(last(1)).unwrap();
    assert_eq!(jobs.get(second).unwrap().state, State::Blocked);
    let third = jobs.enqueue(last(2).delay(HOUR)).unwrap();
    jobs.edit(second, other(3)).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    jobs.edit(third, other(1)).unwrap();
    jobs.run_now(third).unwrap();
    // Whichever is let go on first; the third starts once the key of the first is free.
    for _ in 0..3 {
        go.send_timeout((), SOON).unwrap();
    }
    for id in [first, second, third] {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn a_limit_by_fields_counts_by_the_new_arguments() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let paced = |n| act(n).limited(Limit::rate("account", 1, HOUR).by(["n"])).limit("all", 9);
    let ids = jobs.enqueue_many([1, 1, 1, 2].map(paced)).unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(jobs.get(ids[1]).unwrap().waits_on.as_deref(), Some("rate:account:1"));
    jobs.edit(ids[1], other(3)).unwrap();
    jobs.edit(ids[2], other(2)).unwrap();
    let job = jobs.get(ids[1]).unwrap();
    assert_eq!(job.state, State::Ready);
    let keys: Vec<&str> = job.limits.iter().map(Limit::key).collect();
    assert_eq!(keys, ["account:3", "all"]);
    assert_eq!(jobs.get(ids[2]).unwrap().waits_on.as_deref(), Some("rate:account:2"));
    assert_eq!(engine.run_due().unwrap(), 1);
    engine.advance(HOUR);
    assert_eq!(engine.run_due().unwrap(), 1);
    let id = jobs.enqueue(paced(7)).unwrap();
    let done = jobs.edit(id, Edit::new().args(7));
    assert!(matches!(done, Err(Error::Invalid { what: "limit key", .. })), "{done:?}");
}

#[test]
fn steps_stay_and_a_child_waits_on() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |act, cx| {
        let n: i64 = cx.step("note", || Ok(act.n))?;
        if act.n == 1 {
            return Err(Failure::msg("no"));
        }
        assert_eq!(n, 1, "what the old arguments have led to");
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    let parent = jobs.enqueue(act(1)).unwrap();
    let child = jobs.enqueue(act(1).after([parent])).unwrap();
    engine.run_one().unwrap();
    jobs.edit(parent, other(2)).unwrap();
    jobs.edit(child, Edit::new().priority(-9).queue("default")).unwrap();
    assert_eq!(jobs.get(child).unwrap().state, State::Blocked);
    engine.advance(HOUR);
    assert_eq!(engine.run_one().unwrap(), Some(parent));
    assert_eq!(engine.run_one().unwrap(), Some(child));
}
