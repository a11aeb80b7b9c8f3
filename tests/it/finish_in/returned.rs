//! What the row says, whatever the job returns.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use legwork::{
    Context, Engine, Error, Failure, Filter, Job, JobId, JobOptions, JobResult, Jobs, NewJob,
    Outcome, Pool, Retry, State,
};
use rusqlite::TransactionBehavior;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Said, connect, effects, made};
use crate::common::{Place, SOON, place};

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Then {
    Commit,
    RollBack,
    CommitAndFail,
    CommitAndFailForGood,
    CommitAndPanic,
    CommitAndSnooze,
    RollBackAndFail,
    FinishWithoutTransaction,
    FinishTwice,
}

/// Does as it is told; tells the test what `finish_in` has said.
#[derive(Serialize, Deserialize)]
struct Told {
    then: Then,
}

struct Test {
    db: PathBuf,
    tell: mpsc::Sender<Said>,
    gave_up: mpsc::Sender<JobId>,
}

impl Job for Told {
    const KIND: &'static str = "told";
    type State = Test;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::fixed(Duration::ZERO).attempts(1))
    }

    fn perform(&self, cx: &Context<Test>) -> JobResult {
        let mut conn = connect(&cx.state().db);
        if self.then == Then::FinishWithoutTransaction {
            cx.state().tell.send(cx.finish_in(&conn)).unwrap();
            return Ok(Outcome::Done);
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO effects (job) VALUES (?1)", [cx.id().0])?;
        cx.output("done")?;
        cx.enqueue_with_finish(NewJob::of_kind("child", json!({})))?;
        cx.state().tell.send(cx.finish_in(&tx)).unwrap();
        if self.then == Then::FinishTwice {
            cx.state().tell.send(cx.finish_in(&tx)).unwrap();
        }
        if matches!(self.then, Then::RollBack | Then::RollBackAndFail) {
            tx.rollback()?;
        } else {
            tx.commit()?;
        }
        match self.then {
            Then::CommitAndFail | Then::RollBackAndFail => Err(Failure::msg("as told")),
            Then::CommitAndFailForGood => Err(Failure::msg("as told").into_fatal()),
            Then::CommitAndPanic => panic!("as told"),
            Then::CommitAndSnooze => Ok(Outcome::snooze(Duration::ZERO)),
            _ => Ok(Outcome::Done),
        }
    }

    fn gave_up(&self, cx: &Context<Test>, _: &Failure) {
        cx.state().gave_up.send(cx.id()).unwrap();
    }
}

/// Runs one job to its end.
struct Ran {
    place: Place,
    jobs: Jobs,
    id: JobId,
    said: Vec<Said>,
    gave_up: bool,
}

fn run(then: Then) -> Ran {
    let (place, jobs) = made();
    let (tell, told) = mpsc::channel();
    let (gave_up, given_up) = mpsc::channel();
    let engine = Engine::builder(&jobs)
        .register_with::<Told>(Test { db: place.path.clone(), tell, gave_up })
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Told { then }).unwrap();
    jobs.wait(id, SOON).unwrap();
    engine.stop(SOON).unwrap();
    let gave_up = given_up.try_recv().is_ok();
    Ran { place, jobs, id, said: told.try_iter().collect(), gave_up }
}

impl Ran {
    fn children(&self) -> u64 {
        self.jobs.count(&Filter::new().kind("child")).unwrap()
    }

    fn completed(&self) {
        let job = self.jobs.get(self.id).unwrap();
        assert_eq!((job.state, job.attempts, job.reason), (State::Completed, 1, None));
        assert_eq!(job.output.as_deref(), Some("\"done\""));
        assert_eq!(self.jobs.attempts(self.id).unwrap(), []);
        assert_eq!(effects(&self.place, self.id), 1);
        assert_eq!(self.children(), 1);
        assert!(!self.gave_up, "a completed job has not given up");
    }

    fn failed(&self, reason: &str) {
        let job = self.jobs.get(self.id).unwrap();
        assert_eq!((job.state, job.attempts), (State::Failed, 1));
        assert!(job.reason.unwrap().contains(reason));
        assert_eq!(effects(&self.place, self.id), 0);
        assert_eq!(self.children(), 0);
        assert!(self.gave_up);
    }
}

#[test]
fn wait_returns_once_the_transaction_has_committed_with_effects_and_children() {
    let ran = run(Then::Commit);
    assert!(matches!(ran.said[..], [Ok(())]));
    ran.completed();
}

#[test]
fn a_transaction_that_rolls_back_is_a_failed_attempt_without_effects_and_children() {
    run(Then::RollBack).failed("not committed");
    run(Then::RollBackAndFail).failed("as told");
}

#[test]
fn a_job_whose_transaction_committed_is_completed_whatever_it_returns() {
    for then in [
        Then::CommitAndFail,
        Then::CommitAndFailForGood,
        Then::CommitAndPanic,
        Then::CommitAndSnooze,
    ] {
        run(then).completed();
    }
}

#[test]
fn finishing_without_an_open_transaction_is_refused() {
    let ran = run(Then::FinishWithoutTransaction);
    assert!(matches!(ran.said[..], [Err(Error::Invalid { what: "connection", .. })]));
    // And changes nothing: the job completes by its return.
    assert_eq!(ran.jobs.get(ran.id).unwrap().state, State::Completed);
}

#[test]
fn finishing_twice_in_one_transaction_is_a_lost_claim_the_second_time() {
    let ran = run(Then::FinishTwice);
    assert!(matches!(ran.said[..], [Ok(()), Err(Error::LostClaim(id))] if id == ran.id));
    ran.completed();
}

#[test]
fn finishing_on_another_file_is_foreign() {
    #[derive(Serialize, Deserialize)]
    struct Elsewhere;

    impl Job for Elsewhere {
        const KIND: &'static str = "elsewhere";
        type State = PathBuf;

        fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
            let mut conn = connect(cx.state());
            let tx = conn.transaction()?;
            match cx.finish_in(&tx) {
                Err(Error::Foreign { .. }) => Ok(Outcome::Done),
                other => panic!("{other:?}"),
            }
        }
    }

    let (here, there) = (place(), place());
    drop(there.open());
    let jobs = here.open();
    let engine =
        Engine::builder(&jobs).register_with::<Elsewhere>(there.path.clone()).start().unwrap();
    let id = jobs.enqueue(Elsewhere).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}
