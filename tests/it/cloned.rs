//! New jobs after others.

use std::time::Duration;

use legwork::{
    Conflict, Error, Failure, Filter, JobId, Jobs, NewJob, Outcome, Retry, State, Unique,
};

use crate::common::{SOON, place, stopped_clock};
use crate::scripted::{Act, acting, holding};

const HOUR: Duration = Duration::from_secs(3600);

fn act(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

fn holder(jobs: &Jobs, id: JobId) -> JobId {
    match jobs.clone_jobs(id) {
        Err(Error::NotUnique { holder, .. }) => holder,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_clone_is_made_of_the_same_and_is_ready_now() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Err(Failure::msg("no"))).manual().unwrap();
    let job = act(7)
        .queue("q")
        .priority(3)
        .gate("g")
        .tag("t")
        .meta("trace", "x")
        .retry(Retry::none())
        .limit("k", 2)
        .delay(HOUR);
    let id = jobs.enqueue(job).unwrap();
    let of_waiting = jobs.clone_jobs(id).unwrap().ids[0];
    engine.advance(HOUR);
    engine.run_due().unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Failed);
    let of_failed = jobs.clone_jobs(id).unwrap().ids[0];
    let old = jobs.get(id).unwrap();
    for (new, of) in [(of_waiting, State::Failed), (of_failed, State::Ready)] {
        let new = jobs.get(new).unwrap();
        assert_eq!((new.state, new.attempts > 0), (of, of == State::Failed));
        let made_of = |job: &legwork::JobRecord| {
            (
                (job.kind.clone(), job.queue.clone(), job.args.clone(), job.priority),
                (job.tags.clone(), job.gate.clone(), job.meta["trace"].clone()),
                format!("{:?}", job.limits),
            )
        };
        assert_eq!(made_of(&new), made_of(&old));
        assert_eq!(new.meta["cloned_from"], id.to_string());
    }
    engine.run_due().unwrap();
    assert_eq!(jobs.get(of_failed).unwrap().state, State::Failed, "its policy is no retry");
    assert!(matches!(jobs.clone_jobs(JobId(99)), Err(Error::NotFound(JobId(99)))));
}

#[test]
fn a_running_job_is_cloned_beside_itself() {
    let place = place();
    let jobs = place.open();
    let (engine, has_started, go) = holding(&jobs);
    let engine = engine.start().unwrap();
    let id = jobs.enqueue(act(1)).unwrap();
    has_started.recv_timeout(SOON).unwrap();
    let copy = jobs.clone_jobs(id).unwrap().ids[0];
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    for id in [id, copy] {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn the_unique_rule_holds_for_a_clone_as_for_any_other_job() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let finished = jobs.enqueue(act(1).unique_key("a")).unwrap();
    let period = Unique::by_key("b").for_period(HOUR);
    let period = jobs.enqueue(act(2).unique(period)).unwrap();
    let last = Unique::by_key("c").on_conflict(Conflict::KeepLast);
    let last = jobs.enqueue(act(3).unique(last)).unwrap();
    for id in [finished, period, last] {
        assert_eq!(holder(&jobs, id), id);
    }
    let done = jobs.clone_jobs(vec![finished, period, JobId(99)]).unwrap();
    assert_eq!((done.ids.len(), done.skipped, done.not_unique), (0, 3, 2));
    engine.run_due().unwrap();
    assert_eq!(holder(&jobs, period), period);
    let clones = [finished, last].map(|id| jobs.clone_jobs(id).unwrap().ids[0]);
    for (old, new) in [finished, last].into_iter().zip(clones) {
        assert_eq!(holder(&jobs, old), new);
    }
    engine.advance(HOUR);
    assert_eq!(jobs.clone_jobs(period).unwrap().ids.len(), 1, "its period is over");
}

#[test]
fn a_clone_has_no_parents_and_is_in_no_flow() {
    let place = place();
    let jobs = place.open();
    let chain = legwork::Chain::new("c").then(act(1)).then(act(2));
    let flow = jobs.enqueue_flow(chain).unwrap();
    let copy = jobs.clone_jobs(flow.members[1]).unwrap().ids[0];
    let copy = jobs.get(copy).unwrap();
    assert_eq!((copy.state, copy.parents_left, copy.flow), (State::Ready, 0, None));
    assert_eq!(jobs.flow(flow.id).unwrap().members, 2);
}

#[test]
fn all_that_match_are_cloned_once_and_their_clones_are_not() {
    let place = place();
    let jobs = place.open();
    let ids = jobs.enqueue_many((0..1_200).map(|n| act(n).tag("t"))).unwrap();
    let done = jobs.clone_jobs(Filter::new().tag("t")).unwrap();
    assert_eq!((done.ids.len(), done.skipped), (ids.len(), 0));
    assert_eq!(jobs.count(&Filter::new().tag("t")).unwrap(), 2_400);
    let mut cloned: Vec<i64> = done
        .ids
        .iter()
        .map(|&id| jobs.get(id).unwrap().meta["cloned_from"].parse().unwrap())
        .collect();
    cloned.sort_unstable();
    assert!(cloned.iter().copied().eq(ids.iter().map(|id| id.0)));
}
