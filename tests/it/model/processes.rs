//! The same rules in several processes on one file: each has an engine, a job in one of them is under
//! way while others work, and processes are killed at any moment.

use std::io::BufRead;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use legwork::{Clock, JobId, Jobs, ManualEngine};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::rules::{Answer, Model, Verb};
use super::steps::{DONE, End, GATE, LAYOUTS, New, Paused, Plan, Run, Step, Way, seconds, step};
use super::world::{Enqueue, Stage, World, control, enqueue, enqueue_flow};
use super::{compare, foretold};
use crate::common::{self, Child, Place, place, say, stopped_clock};

/// How many processes there are.
const PROCESSES: usize = 3;

/// What a process is told to do.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Enqueue(New),
    Flow(Plan),
    Control(i64, Verb),
    Pause(Paused),
    Resume(Paused),
    CloseGate,
    OpenGate,
    /// Microseconds since 1970.
    Show(i64),
    /// Claim a job and begin it.
    Begin,
    /// Do this in the job that has begun, and end it.
    End(Run),
}

// ---- in the process ----------------------------------------------------------------------------

thread_local! {
    /// The orders are served by whoever has the thread: the process, or the job that it runs.
    static HERE: std::cell::RefCell<Option<Rc<Here>>> = const { std::cell::RefCell::new(None) };
}

struct Here {
    engine: ManualEngine,
    stage: Arc<Stage>,
    app: rusqlite::Connection,
}

#[test]
#[ignore = "child process of the model of several processes"]
fn child() {
    let Some(file) = common::child_file() else { return };
    work(&file);
}

fn work(file: &Path) {
    let (layout, now): (usize, i64) = serde_json::from_str(&common::child_role()).unwrap();
    let clock = Clock::stopped(at(now));
    let jobs = World::builder(Jobs::builder(file), clock).open().unwrap();
    let (engine, stage) = World::engine(
        &jobs,
        LAYOUTS[layout],
        |builder| builder.crash_limit(0).without_cron(),
        Box::new(|id| serve(Some(id))),
    );
    let app = rusqlite::Connection::open(file).unwrap();
    HERE.set(Some(Rc::new(Here { engine, stage, app })));
    say("started");
    serve(None);
}

fn at(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap()
}

/// Serves orders until there are no more, or until the job that has begun is to end.
fn serve(begun: Option<JobId>) {
    let here = HERE.with_borrow(|here| here.clone()).unwrap();
    if let Some(id) = begun {
        say(&format!("answer {}", json!(id.0)));
    }
    // The lock goes with the line: the job that an order begins reads the next ones.
    let next_line = || std::io::stdin().lock().lines().next();
    while let Some(line) = next_line() {
        let order: Order = serde_json::from_str(&line.unwrap()).unwrap();
        if let Order::End(run) = order {
            *here.stage.run.lock().unwrap() = run;
            return;
        }
        // The beginning of a job is an answer of its own.
        if let Some(answer) = here.obey(&order) {
            say(&format!("answer {answer}"));
        }
    }
    std::process::exit(0);
}

impl Here {
    fn obey(&self, order: &Order) -> Option<Value> {
        let jobs = self.engine.jobs();
        Some(match order {
            Order::Enqueue(new) => json!(enqueue(jobs, &self.app, new)),
            Order::Flow(plan) => json!(enqueue_flow(jobs, plan)),
            Order::Control(id, verb) => json!(control(jobs, *id, *verb)),
            Order::Pause(paused) => json!(jobs.pause(paused.scope()).unwrap()),
            Order::Resume(paused) => json!(jobs.resume(paused.scope()).unwrap()),
            Order::CloseGate => json!(jobs.close_gate(GATE).unwrap()),
            Order::OpenGate => json!(jobs.open_gate(GATE).unwrap()),
            Order::Show(now) => {
                jobs.clock().set(at(*now));
                // Answered after the look that this asks for.
                assert_eq!(control(jobs, i64::MAX, Verb::Cancel), Answer::NotFound);
                Value::Null
            }
            Order::Begin => match self.engine.run_one().unwrap() {
                None => Value::Null,
                Some(_) => {
                    let stepped = std::mem::take(&mut *self.stage.stepped.lock().unwrap());
                    json!((stepped, self.stage.enqueued.lock().unwrap().take()))
                }
            },
            Order::End(_) => unreachable!("the job takes it"),
        })
    }
}

// ---- side by side ------------------------------------------------------------------------------

/// A process, and the job that it runs.
struct Process {
    child: Child,
    running: Option<i64>,
}

struct Processes {
    place: Place,
    layout: usize,
    all: Vec<Process>,
    /// Looks at the file, and runs nothing.
    jobs: Jobs,
    model: Model,
}

fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap()
}

impl Processes {
    fn new(layout: usize) -> Processes {
        let place = place();
        let clock = stopped_clock();
        let model = Model::new(LAYOUTS[layout], clock.now());
        let jobs = World::builder(place.builder(), clock).open().unwrap();
        let mut processes = Processes { place, layout, all: Vec::new(), jobs, model };
        processes.all = (0..PROCESSES).map(|_| processes.start()).collect();
        processes
    }

    fn start(&self) -> Process {
        let role = json!((self.layout, micros(self.model.now))).to_string();
        let child = Child::start("model::processes::child", &self.place.path, &role);
        child.wait_for("started");
        Process { child, running: None }
    }

    /// Tells a process what to do; its answer.
    fn tell<T: serde::de::DeserializeOwned>(&mut self, process: usize, order: &Order) -> T {
        let child = &mut self.all[process].child;
        child.tell(&serde_json::to_string(order).unwrap());
        serde_json::from_str(&child.wait_for("answer ")).unwrap()
    }

    /// Shows all processes the time.
    fn show(&mut self) {
        let order = Order::Show(micros(self.model.now));
        for process in 0..PROCESSES {
            self.tell::<()>(process, &order);
        }
        self.jobs.clock().set(self.model.now);
        self.model.turn();
    }

    fn control(&mut self, process: usize, pick: usize, verb: Verb) {
        let id = self.model.pick(pick);
        let answer: Answer = self.tell(process, &Order::Control(id, verb));
        let expected = self.model.control(id, verb).blurred();
        assert_eq!(answer.blurred(), expected, "{verb:?} {id}");
    }

    /// A process dies, and comes back.
    fn kill(&mut self, process: usize) {
        let dead = self.all.remove(process);
        dead.child.kill();
        // Whoever is first gives back what it held; then it is done.
        let started = self.start();
        self.all.insert(process, started);
        if let Some(id) = dead.running {
            self.model.end(id, Run { end: End::Crash, ..DONE });
        }
    }

    fn take(&mut self, process: usize, step: &Step) {
        match step {
            Step::Enqueue(new) => {
                let new = new.resolved(&self.model);
                let copies = if new.way == Way::Bulk { 2 } else { 1 };
                let expected: Vec<Enqueue> =
                    (0..copies).map(|_| self.model.enqueue(&new)).collect();
                assert_eq!(self.tell::<Vec<Enqueue>>(process, &Order::Enqueue(new)), expected);
            }
            Step::Flow(plan) => {
                let expected = self.model.enqueue_flow(plan);
                let told: (i64, Vec<i64>) = self.tell(process, &Order::Flow(plan.clone()));
                assert_eq!(told, expected);
            }
            Step::RunOne(run) => self.run(process, *run),
            Step::Cancel(pick) => self.control(process, *pick, Verb::Cancel),
            Step::Retry(pick) => self.control(process, *pick, Verb::Retry),
            Step::Delete(pick) => self.control(process, *pick, Verb::Delete),
            Step::Reschedule(pick, by) => self.control(process, *pick, Verb::Reschedule(*by)),
            Step::RunNow(pick) => self.control(process, *pick, Verb::RunNow),
            Step::Edit(pick, edited) => self.control(process, *pick, Verb::Edit(*edited)),
            Step::Clone(pick) => self.control(process, *pick, Verb::Clone),
            Step::Pause(paused) => {
                self.tell::<()>(process, &Order::Pause(*paused));
                self.model.paused.insert(paused.scope());
            }
            Step::Resume(paused) => {
                self.tell::<()>(process, &Order::Resume(*paused));
                self.model.paused.remove(&paused.scope());
            }
            Step::CloseGate => {
                self.tell::<()>(process, &Order::CloseGate);
                self.model.gate_closed = true;
            }
            Step::OpenGate => {
                self.tell::<()>(process, &Order::OpenGate);
                self.model.gate_closed = false;
            }
            Step::Advance(by) => {
                self.model.now += seconds(*by);
                self.show();
            }
            Step::SetBack(_) if self.model.forgets() => {}
            Step::SetBack(by) => {
                self.model.now -= seconds(*by);
                self.show();
            }
            Step::Reopen | Step::CrashIdle => self.kill(process),
            Step::PauseCron | Step::ResumeCron | Step::AskCron => {}
        }
        self.model.turn();
    }

    /// A process that runs no job begins one; one that does ends it so.
    fn run(&mut self, process: usize, run: Run) {
        let Some(id) = self.all[process].running else {
            let began: Option<i64> = self.tell(process, &Order::Begin);
            assert_eq!(began, self.model.claim(), "the job that has begun");
            if let Some(id) = began {
                self.model.start(id);
            }
            self.all[process].running = began;
            return;
        };
        if run.end == End::Crash {
            return self.kill(process);
        }
        // When one learns of a cancel in another process, and how long that takes, is another test's matter.
        let end = if run.end == End::Heed { End::Done } else { run.end };
        let steps = if self.model.jobs[&id].told_to_stop { 0 } else { run.steps };
        let run = Run { end, steps, takes: 0, meddled_with: false, ..run }.resolved(&self.model);
        let steps = self.model.steps_of(id, run.steps);
        let expected = self.model.end(id, run);
        let (stepped, enqueued): (Vec<String>, Option<Enqueue>) =
            self.tell(process, &Order::End(run));
        assert_eq!((stepped.iter().map(String::as_str).collect(), enqueued), (steps, expected));
        self.all[process].running = None;
    }

    fn compare(&self) {
        compare(&self.jobs, &self.model);
    }

    fn run_to_the_end(mut self) {
        for paused in Paused::everything() {
            self.take(0, &Step::Resume(paused));
        }
        self.take(0, &Step::OpenGate);
        let mut idle = 0;
        while self.model.jobs.values().any(|job| !job.state.is_finished()) {
            for process in 0..PROCESSES {
                self.take(process, &Step::RunOne(DONE));
            }
            let busy = self.all.iter().any(|process| process.running.is_some());
            idle = if busy { 0 } else { idle + 1 };
            assert!(idle < 100, "jobs are left over: {:?}", foretold(&self.model));
            if !busy {
                self.take(0, &Step::Advance(86_400));
            }
        }
        self.compare();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases / 4,
        ..ProptestConfig::default()
    })]

    #[test]
    fn several_processes_that_are_killed_at_any_moment_follow_the_same_rules(
        layout in 0..LAYOUTS.len(),
        steps in prop::collection::vec((0..PROCESSES, step()), 1..75),
    ) {
        let mut processes = Processes::new(layout);
        for (process, step) in &steps {
            processes.take(*process, step);
            processes.compare();
        }
        processes.run_to_the_end();
    }
}
