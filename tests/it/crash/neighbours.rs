//! One process after the other, and beside it.

use std::io;
use std::process::Command;
use std::sync::mpsc;

use legwork::{
    Context, Engine, Event, Job, JobId, JobOptions, JobResult, Jobs, NewJob, Outcome, Pool, State,
};
use serde::{Deserialize, Serialize};

use crate::common::{self, Child, SOON, place, say};

/// Says that it has started and goes on when a line comes in; in the parent it ends at once.
#[derive(Serialize, Deserialize)]
struct Held;

impl Job for Held {
    const KIND: &'static str = "held";
    /// Whether to hold on.
    type State = bool;

    fn options() -> JobOptions {
        JobOptions::new().queue("held")
    }

    fn perform(&self, cx: &Context<bool>) -> JobResult {
        if *cx.state() {
            say(&format!("holding {}", cx.id()));
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
        }
        Ok(Outcome::Done)
    }
}

/// Does nothing.
#[derive(Serialize, Deserialize)]
struct Quick;

impl Job for Quick {
    const KIND: &'static str = "quick";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

#[test]
#[ignore = "child process of the tests about a predecessor's and a neighbour's job"]
fn holding_child() {
    let Some(db) = common::child_file() else {
        return;
    };
    let jobs = Jobs::open(&db).unwrap();
    let engine = Engine::builder(&jobs)
        .register_with::<Held>(true)
        .pool(Pool::new(["held"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Held).unwrap();
    jobs.wait(id, SOON).unwrap();
    engine.stop(SOON).unwrap();
}

fn id_from(line: &str) -> JobId {
    line.parse().unwrap()
}

fn engine_beside(jobs: &Jobs) -> Engine {
    Engine::builder(jobs)
        .register::<Quick>()
        .register_with::<Held>(false)
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap()
}

#[test]
fn a_restarted_program_takes_over_what_its_dead_predecessor_ran_before_its_first_claim() {
    let place = place();
    let child = Child::start("crash::neighbours::holding_child", &place.path, "");
    let held = id_from(&child.wait_for("holding"));
    child.kill();

    let jobs = place.open();
    assert_eq!(jobs.get(held).unwrap().state, State::Running);
    // Ready all the time, but behind the job that the dead process holds.
    let behind = jobs.enqueue(NewJob::new(Quick).priority(1)).unwrap();
    let events = jobs.events();
    let engine = engine_beside(&jobs);
    engine.run_until_empty().unwrap();

    let told: Vec<_> = std::iter::from_fn(|| events.try_recv())
        .filter_map(|event| match event {
            Event::Rescued { id } => Some(("rescued", id, 0)),
            Event::Started { id, attempt, .. } => Some(("started", id, attempt)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [("rescued", held, 0), ("started", held, 1), ("started", behind, 1)]);

    let job = jobs.get(held).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    let [interrupted] = &jobs.attempts(held).unwrap()[..] else {
        panic!("one attempt was cut off")
    };
    assert_eq!(interrupted.error, "interrupted: its process died");
    assert_eq!((interrupted.attempt, interrupted.counted), (1, false));
    assert_eq!(interrupted.worker, None);
}

/// Lets the child hold a job while an engine here starts, works and stops.
fn leave_it_alone(child: &Child, held: JobId, place: &common::Place) {
    let jobs = place.open();
    let events = jobs.events();
    let engine = engine_beside(&jobs);
    let own = jobs.enqueue(Quick).unwrap();
    jobs.wait(own, SOON).unwrap();
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
    let job = jobs.get(held).unwrap();
    assert_eq!(job.state, State::Running, "taken from process {}", child.id());
    assert!(
        std::iter::from_fn(|| events.try_recv())
            .all(|event| !matches!(event, Event::Rescued { .. }))
    );
}

fn completed_undisturbed(held: JobId, place: &common::Place) {
    let jobs = place.open();
    let job = jobs.get(held).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    assert_eq!(jobs.attempts(held).unwrap(), []);
}

#[test]
fn a_living_process_keeps_its_job_when_another_engine_starts() {
    let place = place();
    let mut child = Child::start("crash::neighbours::holding_child", &place.path, "");
    let held = id_from(&child.wait_for("holding"));
    leave_it_alone(&child, held, &place);
    child.tell("go on");
    child.end();
    completed_undisturbed(held, &place);
}

fn signal(name: &str, process: u32) {
    let done = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_stopped_process_keeps_its_job_however_long_it_sleeps() {
    let place = place();
    let mut child = Child::start("crash::neighbours::holding_child", &place.path, "");
    let held = id_from(&child.wait_for("holding"));
    signal("-STOP", child.id());
    leave_it_alone(&child, held, &place);
    signal("-CONT", child.id());
    child.tell("go on");
    child.end();
    completed_undisturbed(held, &place);
}

#[test]
fn an_engine_in_the_same_process_keeps_its_job_when_another_one_starts() {
    let place = place();
    let jobs = place.open();
    let (release, released) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let first = Engine::builder(&jobs)
        .register_with::<Gated>(Gate { tell, released: released.into() })
        .pool(Pool::new(["gated"]).workers(1))
        .start()
        .unwrap();
    let held = jobs.enqueue(Gated).unwrap();
    told.recv_timeout(SOON).unwrap();
    let second = engine_beside(&jobs);
    let own = jobs.enqueue(Quick).unwrap();
    jobs.wait(own, SOON).unwrap();
    assert_eq!(jobs.get(held).unwrap().state, State::Running);
    second.stop(SOON).unwrap();
    release.send(()).unwrap();
    assert_eq!(jobs.wait(held, SOON).unwrap().attempts, 1);
    assert_eq!(first.stop(SOON).unwrap(), []);
}

struct Gate {
    tell: mpsc::Sender<()>,
    released: std::sync::Mutex<mpsc::Receiver<()>>,
}

#[derive(Serialize, Deserialize)]
struct Gated;

impl Job for Gated {
    const KIND: &'static str = "gated";
    type State = Gate;

    fn options() -> JobOptions {
        JobOptions::new().queue("gated")
    }

    fn perform(&self, cx: &Context<Gate>) -> JobResult {
        cx.state().tell.send(())?;
        cx.state().released.lock().unwrap().recv_timeout(SOON)?;
        Ok(Outcome::Done)
    }
}
