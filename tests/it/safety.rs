//! Safety lines that no other promise would miss: each of these tests fails when one line of the
//! library is broken (`.ci/break_safety_lines.py` breaks them one by one).

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use legwork::{
    Context, Engine, Filter, Job, JobOptions, JobResult, Jobs, NewJob, Outcome, Overdue, Pool,
    Retry, State,
};
use serde::{Deserialize, Serialize};

use crate::common::{self, Child, SOON, place, say, stopped_clock, until};
use crate::scripted::{Act, acting};

/// A job whose first attempt is abandoned, and whose attempts complete it when they are let go.
#[derive(Serialize, Deserialize)]
struct Slow;

struct Gates {
    started: Sender<u32>,
    go: [Receiver<()>; 2],
}

impl Job for Slow {
    const KIND: &'static str = "slow";
    type State = Gates;

    fn options() -> JobOptions {
        let minute = Duration::from_secs(60);
        let retry = Retry::fixed(Duration::ZERO).attempts(2);
        JobOptions::new().timeout(minute).overdue(Overdue::Abandon).retry(retry)
    }

    fn perform(&self, cx: &Context<Gates>) -> JobResult {
        let attempt = cx.attempt();
        cx.state().started.send(attempt)?;
        let _ = cx.state().go[attempt as usize - 1].recv_timeout(SOON);
        Ok(Outcome::Done)
    }
}

#[test]
fn a_late_end_of_an_abandoned_attempt_does_not_finish_the_next_one() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let (started, starts) = unbounded();
    let ((first, first_goes), (second, second_goes)) = (bounded(1), bounded(1));
    let engine = Engine::builder(&jobs)
        .register_with::<Slow>(Gates { started, go: [first_goes, second_goes] })
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Slow).unwrap();
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 1);
    clock.advance(Duration::from_secs(90));
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 2);

    // Its worker is one too many and ends once its end has been dealt with.
    first.send(()).unwrap();
    until("the abandoned worker ends", || jobs.health().unwrap().workers <= 1);
    assert_eq!(jobs.get(id).unwrap().state, State::Running, "by the second attempt");

    second.send(()).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 2));
    engine.stop(SOON).unwrap();
}

/// Lets every insert be, and refuses what the writer writes last of all, at the commit.
const REFUSE_COMMITS: &str = "
CREATE TRIGGER refuse BEFORE UPDATE ON legwork_counter BEGIN SELECT RAISE(ABORT, 'refused'); END";

#[test]
fn an_enqueue_whose_commit_fails_is_not_acknowledged() {
    let place = place();
    let jobs = place.open();
    let app = place.connect();
    app.execute_batch(REFUSE_COMMITS).unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap_err();
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 0);
    app.execute_batch("DROP TRIGGER refuse").unwrap();
    jobs.enqueue(Act { n: 2 }).unwrap();
}

/// The lock files beside a database.
fn lock_files(place: &common::Place) -> Vec<PathBuf> {
    let side = place.dir.path().join("test.db-legwork");
    let files = fs::read_dir(side).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "lock")).collect()
}

#[test]
fn another_file_under_the_name_of_its_lock_file_does_not_prove_an_engine_dead() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    let (started, starts) = unbounded();
    let (go, gone) = bounded::<()>(0);
    let first = acting(&jobs, move |act, _| {
        started.send(act.n).unwrap();
        let _ = gone.recv_timeout(SOON);
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["held"]).workers(1))
    .start()
    .unwrap();
    let held = jobs.enqueue(NewJob::new(Act { n: 1 }).queue("held")).unwrap();
    assert_eq!(starts.recv_timeout(SOON).unwrap(), 1);
    let files = lock_files(&place);
    assert_eq!(files.len(), 1, "{files:?}");
    fs::remove_file(&files[0]).unwrap();
    fs::write(&files[0], "").unwrap();

    // It looks for dead ones when it joins, and could lock this file.
    let second = acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["held"])).start().unwrap();
    let own = jobs.enqueue(NewJob::new(Act { n: 2 }).queue("held")).unwrap();
    assert_eq!(jobs.wait(own, SOON).unwrap().state, State::Completed);
    let job = jobs.get(held).unwrap();
    assert_eq!((job.state, jobs.attempts(held).unwrap().len()), (State::Running, 0));

    go.send(()).unwrap();
    assert_eq!(jobs.wait(held, SOON).unwrap().attempts, 1);
    second.stop(SOON).unwrap();
    first.stop(SOON).unwrap();
}

#[test]
fn jobs_of_another_process_start_by_its_ring_alone() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    let (started, starts) = unbounded();
    let engine = acting(&jobs, move |act, _| {
        started.send(act.n).unwrap();
        Ok(Outcome::Done)
    })
    .start()
    .unwrap();
    engine.run_until_empty().unwrap();
    let mut child = Child::start("safety::enqueuing_child", &place.path, "");
    for n in 1..=3 {
        // Each finds the workers parked again.
        child.tell("enqueue");
        assert_eq!(starts.recv_timeout(SOON).unwrap(), n);
        engine.run_until_empty().unwrap();
    }
    child.end();
    engine.stop(SOON).unwrap();
}

#[test]
#[ignore = "child process of the test about its ring"]
fn enqueuing_child() {
    let Some(db) = common::child_file() else { return };
    let jobs = Jobs::open(&db).unwrap();
    for n in 1..=3 {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        jobs.enqueue(Act { n }).unwrap();
        say("enqueued");
    }
}
