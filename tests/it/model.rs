//! Any sequence of operations, crashes and clock moves against a small in-memory model of the rules.
//!
//! The engine is a manual one on a stopped clock, so the model can foretell everything: which job
//! runs next, and what every job and flow looks like after each step. `PROPTEST_CASES` asks for more cases.

mod processes;
mod rules;
mod steps;
mod world;

use legwork::{Filter, FlowId, JobId, Jobs, State};
use proptest::prelude::*;

use self::rules::{Answer, Known, Model, Verb};
use self::steps::{DONE, GATE, LAYOUTS, Paused, Run, Step, Way, seconds, step};
use self::world::{Enqueue, World, control, enqueue_flow, image_of};
use crate::common::{place, stopped_clock};

fn take(step: &Step, mut world: World, model: &mut Model) -> World {
    let control = |world: &World, model: &mut Model, pick, verb| {
        let id = model.pick(pick);
        let answer = control(world.jobs(), id, verb).blurred();
        assert_eq!(answer, model.control(id, verb).blurred(), "{verb:?} {id}");
    };
    match step {
        Step::Enqueue(new) => {
            let new = new.resolved(model);
            let copies = if new.way == Way::Bulk { 2 } else { 1 };
            let expected: Vec<Enqueue> = (0..copies).map(|_| model.enqueue(&new)).collect();
            assert_eq!(world.enqueue(&new), expected, "ids");
        }
        Step::Flow(plan) => {
            assert_eq!(enqueue_flow(world.jobs(), plan), model.enqueue_flow(plan), "ids");
        }
        Step::RunOne(run) => world = run_one(run.resolved(model), world, model).0,
        Step::Cancel(pick) => control(&world, model, *pick, Verb::Cancel),
        Step::Retry(pick) => control(&world, model, *pick, Verb::Retry),
        Step::Delete(pick) => control(&world, model, *pick, Verb::Delete),
        Step::Reschedule(pick, by) => control(&world, model, *pick, Verb::Reschedule(*by)),
        Step::RunNow(pick) => control(&world, model, *pick, Verb::RunNow),
        Step::Edit(pick, edited) => control(&world, model, *pick, Verb::Edit(*edited)),
        Step::Clone(pick) => control(&world, model, *pick, Verb::Clone),
        Step::Pause(paused) => {
            world.jobs().pause(paused.scope()).unwrap();
            model.paused.insert(paused.scope());
        }
        Step::Resume(paused) => {
            world.jobs().resume(paused.scope()).unwrap();
            model.paused.remove(&paused.scope());
        }
        Step::CloseGate => {
            world.jobs().close_gate(GATE).unwrap();
            model.gate_closed = true;
        }
        Step::OpenGate => {
            world.jobs().open_gate(GATE).unwrap();
            model.gate_closed = false;
        }
        Step::Advance(by) => {
            world.engine.advance(seconds(*by));
            model.advance(*by);
        }
        // What is over may have been pruned, or not: that goes by real time.
        Step::SetBack(_) if model.forgets() => {}
        Step::SetBack(by) => {
            model.now -= seconds(*by);
            world.jobs().clock().set(model.now);
        }
        Step::PauseCron => {
            world.jobs().pause_cron("ticks").unwrap();
            model.pause_cron(true);
        }
        Step::ResumeCron => {
            world.jobs().resume_cron("ticks").unwrap();
            model.pause_cron(false);
        }
        Step::AskCron => {
            world.jobs().run_cron("ticks").unwrap();
            model.ask_cron();
        }
        Step::Reopen => world = world.go_on_with(None),
        Step::CrashIdle => {
            let image = image_of(&world.place.path);
            world = world.go_on_with(Some(image));
        }
    }
    model.turn();
    world
}

/// Runs a job, if there is one to run; whether there was.
fn run_one(run: Run, world: World, model: &mut Model) -> (World, bool) {
    let (world, ran) = world.run_one(run);
    assert_eq!(ran, model.claim(), "the job that ran");
    if let Some(id) = ran {
        let stepped = std::mem::take(&mut *world.stage_before.stepped.lock().unwrap());
        assert_eq!(stepped, model.steps_of(id, run.steps), "the steps that ran");
        let expected = model.run(id, run);
        assert_eq!(world.enqueued_meanwhile, expected, "what the job enqueued");
    }
    (world, ran.is_some())
}

/// What a job is seen as: its state, attempts, start time, and for how many parents it waits.
type Seen = (i64, State, u32, time::OffsetDateTime, u64);

/// All jobs as they are listed. Of a limited one that could run but for its limit, `ready` and `blocked` are one.
fn seen(jobs: &Jobs, model: &Model) -> Vec<Seen> {
    let page = jobs.list(&Filter::new(), None, 10_000).unwrap();
    let mut seen: Vec<Seen> = page
        .jobs
        .iter()
        .map(|job| {
            let known = model.jobs.get(&job.id.0);
            let limited = known.is_some_and(|job| job.limit.is_some() && job.state == State::Ready);
            let state = match job.state {
                State::Blocked if limited => State::Ready,
                state => state,
            };
            (job.id.0, state, job.attempts, job.run_at, job.parents_left)
        })
        .collect();
    seen.sort_unstable_by_key(|job| job.0);
    seen
}

fn foretold(model: &Model) -> Vec<Seen> {
    let shown = |job: &Known| match job.limit {
        Some(_) if job.state == State::Ready => State::Ready,
        _ => model.shown(job),
    };
    let each =
        |(&id, job): (&i64, &Known)| (id, shown(job), job.attempts, job.run_at, job.parents_left());
    model.jobs.iter().map(each).collect()
}

fn compare(jobs: &Jobs, model: &Model) {
    // A verb is answered after all mail before it: after the look that turning the clock asks for.
    assert_eq!(control(jobs, i64::MAX, Verb::Cancel), Answer::NotFound);
    assert_eq!(seen(jobs, model), foretold(model));
    for (&id, flow) in &model.flows {
        let real = jobs.flow(FlowId(id)).unwrap();
        let counts = [real.pending, real.failed, real.cancelled];
        assert_eq!((real.state, counts), (flow.state(), flow.counts()), "flow {id}");
    }
}

/// Lifts every pause and runs everything to its end: nothing is lost and nothing is left over.
fn run_to_the_end(mut world: World, model: &mut Model) {
    world = take(&Step::PauseCron, world, model);
    for paused in Paused::everything() {
        world = take(&Step::Resume(paused), world, model);
    }
    world = take(&Step::OpenGate, world, model);
    let served = |job: &Known| {
        model.pools.iter().flat_map(|pool| *pool).any(|&q| q == "*" || q == job.queue)
    };
    assert!(model.jobs.values().all(served), "every layout serves every queue");
    let mut idle = 0;
    while model.jobs.values().any(|job| !job.state.is_finished()) {
        let (after, ran) = run_one(DONE, world, model);
        world = after;
        idle = if ran { 0 } else { idle + 1 };
        assert!(idle < 100, "jobs are left over: {:?}", foretold(model));
        if !ran {
            world = take(&Step::Advance(86_400), world, model);
        }
        model.turn();
    }
    compare(world.jobs(), model);
    for (&id, job) in &model.jobs {
        let attempts = world.jobs().attempts(JobId(id)).unwrap();
        let counted = attempts.iter().filter(|attempt| attempt.counted).count();
        assert_eq!((counted, attempts.len() - counted), job.recorded, "attempts of job {id}");
    }
}

proptest! {
    // Failures print their shortest sequence of steps; no file is kept of them.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_crashes_and_clock_moves_follows_the_rules(
        layout in 0..LAYOUTS.len(),
        steps in prop::collection::vec(step(), 1..75),
    ) {
        let pools = LAYOUTS[layout];
        let clock = stopped_clock();
        let mut model = Model::new(pools, clock.now());
        let mut world = World::open(place(), clock, pools);
        for step in &steps {
            world = take(step, world, &mut model);
            compare(world.jobs(), &model);
        }
        run_to_the_end(world, &mut model);
    }
}
