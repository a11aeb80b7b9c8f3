//! Flows: who waits for whom, what an end means for children, and when a flow has ended.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    AfterFailure, Batch, Chain, Conflict, Context, EnqueuedFlow, Error, Event, Failure, Filter,
    FlowId, FlowState, JobId, Jobs, ManualEngine, NewJob, Outcome, Pool, Retention, Scope, State,
    Unique, Workflow,
};
use serde_json::json;

use crate::common::{self, Child, Place, SOON, place, stopped_clock, wait_for};
use crate::scripted::{Act, Acts, acting};

const DAY: Duration = Duration::from_secs(86_400);

fn act(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

/// Jobs on a stopped clock, and an engine that remembers what has run. A job puts out its number; it
/// gives up if that is in `bad`.
struct Ran {
    engine: ManualEngine,
    ran: Arc<Mutex<Vec<i64>>>,
    bad: Arc<Mutex<BTreeSet<i64>>>,
}

impl Ran {
    fn at(place: &Place) -> Ran {
        Ran::doing(place, |_, _| {})
    }

    fn doing(place: &Place, more: impl Fn(&Act, &Context<Acts>) + Send + Sync + 'static) -> Ran {
        let jobs = place.builder().clock(stopped_clock()).open().unwrap();
        let (ran, bad) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(BTreeSet::new())));
        let (all, bads) = (Arc::clone(&ran), Arc::clone(&bad));
        let script = move |act: &Act, cx: &Context<Acts>| {
            all.lock().unwrap().push(act.n);
            if bads.lock().unwrap().contains(&act.n) {
                return Err(Failure::msg("it is bad").into_fatal());
            }
            more(act, cx);
            cx.output(&act.n)?;
            Ok(Outcome::Done)
        };
        Ran { engine: acting(&jobs, script).manual().unwrap(), ran, bad }
    }

    fn jobs(&self) -> &Jobs {
        self.engine.jobs()
    }

    /// Runs what there is to run, and what has run since it was last asked.
    fn run(&self) -> Vec<i64> {
        self.engine.run_due().unwrap();
        std::mem::take(&mut self.ran.lock().unwrap())
    }

    fn set_bad(&self, bad: impl IntoIterator<Item = i64>) {
        *self.bad.lock().unwrap() = bad.into_iter().collect();
    }

    fn state(&self, id: JobId) -> State {
        self.jobs().get(id).unwrap().state
    }

    fn states(&self, flow: &EnqueuedFlow) -> Vec<State> {
        flow.members.iter().map(|&id| self.state(id)).collect()
    }

    fn flow(&self, id: FlowId) -> FlowState {
        self.jobs().flow(id).unwrap().state
    }
}

/// 1, then 2 and 3, then 4.
fn diamond() -> Workflow {
    let mut flow = Workflow::new("diamond");
    let top = flow.add(act(1), []);
    let left = flow.add(act(2), [top]);
    let right = flow.add(act(3), [top]);
    flow.add(act(4), [left, right]);
    flow
}

#[test]
fn a_diamond_runs_in_its_order_and_children_read_what_their_parents_have_put_out() {
    let place = place();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let outputs = Arc::clone(&seen);
    let here = Ran::doing(&place, move |act, cx| {
        let parents: Vec<String> =
            cx.parents().unwrap().into_iter().filter_map(|job| job.output).collect();
        let first: Option<i64> = cx.parent_output("act").unwrap();
        outputs.lock().unwrap().push((act.n, parents.join(","), first));
    });
    let flow = here.jobs().enqueue_flow(diamond().property("customer", 7)).unwrap();
    assert_eq!(here.states(&flow), [State::Ready, State::Blocked, State::Blocked, State::Blocked]);
    assert_eq!(here.jobs().get(flow.members[3]).unwrap().parents_left, 2);
    assert_eq!(here.run(), [1, 2, 3, 4]);
    let seen = seen.lock().unwrap().clone();
    let text = |text: &str| text.to_owned();
    assert_eq!(
        seen,
        [
            (1, text(""), None),
            (2, text("1"), Some(1)),
            (3, text("1"), Some(1)),
            (4, text("2,3"), Some(2))
        ]
    );
    let record = here.jobs().flow(flow.id).unwrap();
    assert_eq!((record.state, record.members, record.completed), (FlowState::Completed, 4, 4));
    assert_eq!((record.name.as_str(), &record.properties["customer"]), ("diamond", &json!(7)));
    assert_eq!(here.jobs().children(flow.members[0]).unwrap(), flow.members[1..3]);
    let parents = here.jobs().parents(flow.members[3]).unwrap();
    assert_eq!(parents.iter().map(|job| job.id).collect::<Vec<_>>(), flow.members[1..3]);
}

#[test]
fn a_chain_of_a_thousand_runs_one_after_the_other() {
    let place = place();
    let here = Ran::at(&place);
    let chain = (1..=1_000).fold(Chain::new("long"), |chain, n| chain.then(act(n)));
    let flow = here.jobs().enqueue_flow(chain).unwrap();
    assert_eq!(here.run(), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(here.flow(flow.id), FlowState::Completed);
}

#[test]
fn ten_thousand_wait_for_one_and_one_for_ten_thousand() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let mut flow = Workflow::new("wide");
    let first = flow.add(act(0), []);
    let wide: Vec<_> = (1..=10_000).map(|n| flow.add(act(n), [first])).collect();
    let join = flow.add(act(-1), wide);
    let flow = jobs.enqueue_flow(flow).unwrap();
    let record = jobs.wait_flow(flow.id, SOON).unwrap();
    assert_eq!((record.state, record.completed), (FlowState::Completed, 10_002));
    // The join was the last of all.
    let join = jobs.get(flow.job(join).unwrap()).unwrap();
    let others = jobs.get(flow.members[10_000]).unwrap();
    assert!(join.started_at >= others.finished_at);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_failure_cancels_all_that_come_after_it_and_names_the_parent() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([2]);
    let flow = here.jobs().enqueue_flow(diamond()).unwrap();
    assert_eq!(here.run(), [1, 2, 3]);
    let (left, last) = (flow.members[1], here.jobs().get(flow.members[3]).unwrap());
    assert_eq!((last.state, last.cause), (State::Cancelled, Some(left)));
    assert_eq!(last.reason.as_deref(), Some(&*format!("its parent {left} is failed")));
    let record = here.jobs().flow(flow.id).unwrap();
    assert_eq!((record.completed, record.failed, record.cancelled), (2, 1, 1));
    assert_eq!(record.state, FlowState::Failed);
    assert!(record.ended_at.is_some());
}

#[test]
fn a_cancel_goes_down_the_whole_chain() {
    let place = place();
    let here = Ran::at(&place);
    let chain = (1..=600).fold(Chain::new("c"), |chain, n| chain.then(act(n)));
    let flow = here.jobs().enqueue_flow(chain).unwrap();
    here.jobs().cancel(flow.members[0]).unwrap();
    assert!(here.run().is_empty());
    assert_eq!(here.flow(flow.id), FlowState::Cancelled);
    assert_eq!(here.jobs().flow(flow.id).unwrap().cancelled, 600);
}

#[test]
fn what_is_told_to_continue_runs_after_a_failure() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([1]);
    let chain = Chain::new("c").then(act(1)).then(act(2)).after_failure(AfterFailure::Continue);
    let flow = here.jobs().enqueue_flow(chain).unwrap();
    assert_eq!(here.run(), [1, 2]);
    assert_eq!(here.flow(flow.id), FlowState::Failed);
    // One member may say otherwise.
    let chain = Chain::new("c")
        .then(act(1))
        .then(act(2).after_failure(AfterFailure::Cancel))
        .then(act(3))
        .after_failure(AfterFailure::Continue);
    let flow = here.jobs().enqueue_flow(chain).unwrap();
    assert_eq!(here.run(), [1, 3]);
    assert_eq!(here.states(&flow), [State::Failed, State::Cancelled, State::Completed]);
}

#[test]
fn a_parent_retried_after_a_week_finishes_the_flow_with_its_outputs_there() {
    let place = place();
    let sum = Arc::new(Mutex::new(0));
    let total = Arc::clone(&sum);
    let here = Ran::doing(&place, move |act, cx| {
        if act.n == 4 {
            let parents = cx.parents().unwrap();
            let numbers = parents.iter().map(|job| job.output.as_ref().unwrap());
            *total.lock().unwrap() = numbers.map(|text| text.parse::<i64>().unwrap()).sum();
        }
    });
    here.set_bad([2]);
    let flow = diamond().on_success(act(10)).on_failure(act(11)).on_finish(act(12));
    let flow = here.jobs().enqueue_flow(flow.retention(Retention::all(30 * DAY))).unwrap();
    assert_eq!(here.run(), [1, 2, 3, 11, 12]);
    here.engine.advance(7 * DAY);
    assert!(here.run().is_empty());
    here.set_bad([]);
    assert_eq!(here.jobs().retry_flow(flow.id).unwrap().changed, 1);
    assert_eq!(here.flow(flow.id), FlowState::Running);
    // The callbacks that were enqueued before are not again.
    assert_eq!(here.run(), [2, 4, 10]);
    assert_eq!(*sum.lock().unwrap(), 5);
    assert_eq!(here.flow(flow.id), FlowState::Completed);
}

#[test]
fn what_two_failures_have_cancelled_comes_back_with_the_last_of_them() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([2, 3]);
    let flow = here.jobs().enqueue_flow(diamond()).unwrap();
    assert_eq!(here.run(), [1, 2, 3]);
    here.set_bad([]);
    here.jobs().retry(flow.members[1]).unwrap();
    assert_eq!(here.run(), [2]);
    assert_eq!(here.state(flow.members[3]), State::Cancelled);
    here.jobs().retry(flow.members[2]).unwrap();
    assert_eq!(here.run(), [3, 4]);
    assert_eq!(here.flow(flow.id), FlowState::Completed);
}

#[test]
fn what_was_cancelled_for_its_parent_is_not_retried_before_it() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([1]);
    let flow =
        here.jobs().enqueue_flow(Chain::new("c").then(act(1)).then(act(2)).then(act(3))).unwrap();
    assert_eq!(here.run(), [1]);
    let [first, second, _] = flow.members[..] else { panic!("three") };
    match here.jobs().retry(second) {
        Err(Error::HeldByParent { id, parent }) => assert_eq!((id, parent), (second, first)),
        other => panic!("{other:?}"),
    }
    // All at once, the newest first, as a filter does it.
    here.set_bad([]);
    let done = here.jobs().retry(Filter::new().flow(flow.id)).unwrap();
    assert_eq!((done.changed, done.held_by_parent), (1, 2));
    assert_eq!(here.run(), [1, 2, 3]);
}

#[test]
fn what_somebody_has_cancelled_stays_so_when_a_parent_comes_back() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([1]);
    let flow = here.jobs().enqueue_flow(Chain::new("c").then(act(1)).then(act(2))).unwrap();
    here.jobs().cancel(flow.members[1]).unwrap();
    assert_eq!(here.run(), [1]);
    here.set_bad([]);
    here.jobs().retry(flow.members[0]).unwrap();
    assert_eq!(here.run(), [1]);
    assert_eq!(here.flow(flow.id), FlowState::Cancelled);
}

#[test]
fn each_end_calls_back_once_and_an_empty_batch_does_at_once() {
    let place = place();
    let here = Ran::at(&place);
    let called = |batch: Batch| batch.on_success(act(101)).on_failure(act(102)).on_finish(act(103));
    here.jobs().enqueue_flow(called(Batch::new("empty"))).unwrap();
    assert_eq!(here.run(), [103, 101]);
    here.jobs().enqueue_flow(called(Batch::new("good").add(act(1)).add(act(2)))).unwrap();
    assert_eq!(here.run(), [1, 2, 103, 101]);
    here.set_bad([1]);
    here.jobs().enqueue_flow(called(Batch::new("bad").add(act(1)).add(act(2)))).unwrap();
    assert_eq!(here.run(), [1, 2, 102, 103]);
}

#[test]
fn a_callback_knows_its_flow() {
    let place = place();
    let named = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&named);
    let here = Ran::doing(&place, move |_, cx| names.lock().unwrap().push(cx.flow().unwrap()));
    let flow = here.jobs().enqueue_flow(Batch::new("b").add(act(1)).on_finish(act(2))).unwrap();
    here.jobs().enqueue(act(3)).unwrap();
    assert_eq!(here.run(), [1, 3, 2]);
    assert_eq!(*named.lock().unwrap(), [Some(flow.id), None, Some(flow.id)]);
}

#[test]
fn members_add_members_and_the_flow_ends_with_the_last_of_them() {
    let place = place();
    let here = Ran::doing(&place, |act, cx| {
        if act.n < 5 {
            cx.enqueue_member(self::act(act.n + 1)).unwrap();
        }
    });
    let flow = here.jobs().enqueue_flow(Batch::new("b").add(act(1)).on_success(act(9))).unwrap();
    assert_eq!(here.run(), [1, 2, 3, 4, 5, 9]);
    assert_eq!(here.jobs().flow(flow.id).unwrap().members, 5);
    // Nothing is added to what has ended, nor to what is not there.
    match here.jobs().add_to_flow(flow.id, [act(6)]) {
        Err(Error::FlowEnded(id)) => assert_eq!(id, flow.id),
        other => panic!("{other:?}"),
    }
    let nowhere = FlowId(flow.id.0 + 1_000);
    assert!(matches!(here.jobs().add_to_flow(nowhere, [act(6)]), Err(Error::NoFlow(_))));
}

#[test]
fn a_job_waits_for_others_that_it_names() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    let first = jobs.enqueue(act(1)).unwrap();
    let second = jobs.enqueue(act(2).after([first])).unwrap();
    jobs.enqueue(act(3).after([second, first]).priority(-5)).unwrap();
    assert_eq!(here.run(), [1, 2, 3]);
    // Those that have completed are waited for no more; those that have failed are in vain.
    here.set_bad([4]);
    let failed = jobs.enqueue(act(4)).unwrap();
    jobs.enqueue(act(5).after([first])).unwrap();
    assert_eq!(here.run(), [4, 5]);
    let vain = jobs.enqueue(act(6).after([failed, first])).unwrap();
    assert_eq!(here.state(vain), State::Cancelled);
    let anyway = act(7).after([failed]).after_failure(AfterFailure::Continue);
    jobs.enqueue(anyway).unwrap();
    assert_eq!(here.run(), [7]);
    here.set_bad([]);
    jobs.retry(failed).unwrap();
    assert_eq!(here.run(), [4, 6]);
    assert!(matches!(jobs.enqueue(act(8).after([JobId(4_711)])), Err(Error::NotFound(_))));
}

#[test]
fn deleting_a_parent_cancels_what_waits_for_it() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    let parent = jobs.enqueue(act(1)).unwrap();
    let child = jobs.enqueue(act(2).after([parent])).unwrap();
    jobs.delete(parent).unwrap();
    assert!(here.run().is_empty());
    let record = jobs.get(child).unwrap();
    assert_eq!(record.reason, Some(format!("its parent {parent} was deleted")));
    // There is nobody left to wait for.
    jobs.retry(child).unwrap();
    assert_eq!(here.run(), [2]);
}

#[test]
fn a_parent_that_expires_cancels_its_children() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    jobs.pause(Scope::All).unwrap();
    let late = act(1).expires_after(Duration::from_secs(60));
    let flow = jobs.enqueue_flow(Chain::new("c").then(late).then(act(2))).unwrap();
    here.engine.advance(Duration::from_secs(61));
    assert!(here.run().is_empty());
    assert_eq!(here.states(&flow), [State::Cancelled, State::Cancelled]);
    assert_eq!(here.flow(flow.id), FlowState::Cancelled);
}

#[test]
fn members_are_kept_until_the_flow_has_ended_and_its_retention_is_over() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    let chain = Chain::new("c").then(act(1)).then(act(2).delay(60 * DAY));
    let chain = chain.retention(Retention::all(10 * DAY));
    let flow = jobs.enqueue_flow(chain).unwrap();
    let alone = jobs.enqueue(act(9)).unwrap();
    assert_eq!(here.run(), [1, 9]);
    for _ in 0..61 {
        here.engine.advance(DAY);
        here.run();
    }
    assert!(matches!(jobs.get(alone), Err(Error::NotFound(_))), "pruned long ago");
    assert_eq!(here.states(&flow), [State::Completed, State::Completed]);
    for _ in 0..11 {
        here.engine.advance(DAY);
        // Something has to happen for the engine to look.
        jobs.enqueue(act(9)).unwrap();
        here.run();
    }
    assert!(matches!(jobs.flow(flow.id), Err(Error::NoFlow(_))));
    assert!(matches!(jobs.get(flow.members[0]), Err(Error::NotFound(_))));
    assert!(jobs.children(flow.members[0]).unwrap().is_empty());
}

#[test]
fn a_flow_is_enqueued_whole_or_not_at_all() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    let holder = jobs.enqueue(act(1).unique(Unique::by_key("k"))).unwrap();
    let flow = Chain::new("c").then(act(2)).then(act(3).unique(Unique::by_key("k")));
    match jobs.enqueue_flow(flow) {
        Err(Error::NotUnique { holder: by, .. }) => assert_eq!(by, holder),
        other => panic!("{other:?}"),
    }
    assert!(jobs.flows(None, 10).unwrap().flows.is_empty());
    assert_eq!(here.run(), [1]);
}

#[test]
fn a_flow_in_the_apps_transaction_comes_and_goes_with_it() {
    let place = place();
    let here = Ran::at(&place);
    let mut conn = place.connect();
    let tx = conn.transaction().unwrap();
    here.jobs().enqueue_flow_in(&tx, diamond().on_success(act(5))).unwrap();
    tx.rollback().unwrap();
    assert!(here.jobs().flows(None, 10).unwrap().flows.is_empty());
    let tx = conn.transaction().unwrap();
    let flow = here.jobs().enqueue_flow_in(&tx, diamond().on_success(act(5))).unwrap();
    here.jobs().enqueue_flow_in(&tx, Batch::new("empty").on_success(act(6))).unwrap();
    tx.commit().unwrap();
    assert_eq!(here.run(), [1, 2, 3, 4, 6, 5]);
    assert_eq!(here.flow(flow.id), FlowState::Completed);
}

#[test]
fn a_job_that_finishes_in_the_apps_transaction_lets_its_children_go() {
    let place = place();
    let path = place.path.clone();
    let here = Ran::doing(&place, move |_, cx| {
        let mut conn = rusqlite::Connection::open(&path).unwrap();
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        cx.finish_in(&tx).unwrap();
        tx.commit().unwrap();
    });
    let wide = (1..=300).fold(
        {
            let mut flow = Workflow::new("wide");
            let first = flow.add(act(0), []);
            (flow, first)
        },
        |(mut flow, first), n| {
            flow.add(act(n), [first]);
            (flow, first)
        },
    );
    let flow = here.jobs().enqueue_flow(wide.0.on_success(act(-1))).unwrap();
    assert_eq!(here.run().len(), 302);
    assert_eq!(here.flow(flow.id), FlowState::Completed);
}

#[test]
fn parents_limits_and_keys_are_all_waited_for() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    let last = Unique::by_key("k").on_conflict(Conflict::KeepLast);
    let chain = Chain::new("c").then(act(1)).then(act(2).unique(last.clone()));
    let [first, kept] = jobs.enqueue_flow(chain).unwrap().members[..] else { panic!() };
    // Its arguments are replaced, and it still waits for its parent.
    assert_eq!(jobs.enqueue(act(3).unique(last)).unwrap(), kept);
    assert_eq!(here.state(kept), State::Blocked);
    for n in 4..=6 {
        jobs.enqueue(act(n).after([first]).limit("one", 1)).unwrap();
    }
    assert_eq!(here.run(), [1, 3, 4, 5, 6]);
}

#[test]
fn who_runs_no_jobs_lets_children_hear_of_a_cancel_too() {
    let place = place();
    let jobs = place.open();
    let parent = jobs.enqueue(act(1)).unwrap();
    let child = jobs.enqueue(act(2).after([parent])).unwrap();
    drop(jobs);
    // As a command line does.
    let jobs = place.open();
    jobs.cancel(parent).unwrap();
    assert_eq!(jobs.get(child).unwrap().state, State::Cancelled);
}

#[test]
fn the_end_of_a_flow_and_of_its_cancelled_members_is_told() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([1]);
    let events = here.jobs().events();
    let flow = here.jobs().enqueue_flow(Chain::new("c").then(act(1)).then(act(2))).unwrap();
    here.run();
    wait_for(
        &events,
        |event| matches!(event, Event::Finished { id, state: State::Cancelled, .. } if *id == flow.members[1]),
    );
    wait_for(&events, |event| *event == Event::FlowEnded { id: flow.id, state: FlowState::Failed });
    assert_eq!(here.jobs().wait_flow(flow.id, SOON).unwrap().failed, 1);
}

#[test]
fn a_flow_that_does_not_end_in_time_is_told() {
    let place = place();
    let jobs = place.open();
    let flow = jobs.enqueue_flow(Batch::new("b").add(act(1))).unwrap();
    match jobs.wait_flow(flow.id, Duration::from_millis(1)) {
        Err(Error::FlowTimeout { pending, .. }) => assert_eq!(pending, 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(jobs.cancel_flow(flow.id).unwrap().changed, 1);
    assert_eq!(jobs.wait_flow(flow.id, SOON).unwrap().state, FlowState::Cancelled);
}

/// How many flows the tests of kills have, each of ten members in five rows.
const FLOWS: usize = 12;

/// Whether a member fails: a few do, wherever they stand.
fn is_bad(n: i64) -> bool {
    n % 17 == 3
}

/// Two rows of members side by side, each row after all of the one before. Every third flow goes on
/// after failures.
fn ladder(flow: i64) -> Workflow {
    let mut ladder = Workflow::new("ladder").on_finish(act(10_000 + flow));
    if flow % 3 == 0 {
        ladder = ladder.after_failure(AfterFailure::Continue);
    }
    let mut row = Vec::new();
    for rung in 0..5 {
        let next = (0..2).map(|at| ladder.add(act(flow * 100 + rung * 2 + at), row.clone()));
        row = next.collect();
    }
    ladder
}

/// The states that the members of such a flow end in.
fn ends(flow: i64) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for at in 0..10 {
        let row = at / 2;
        let parents = if row == 0 { &[][..] } else { &states[row * 2 - 2..row * 2] };
        let in_vain = flow % 3 != 0 && parents.iter().any(|&state| state != State::Completed);
        states.push(match is_bad(flow * 100 + at as i64) {
            _ if in_vain => State::Cancelled,
            true => State::Failed,
            false => State::Completed,
        });
    }
    states
}

/// Runs what there is until it is killed, and says what it starts.
#[test]
#[ignore = "child process of the tests of kills"]
fn child() {
    let Some(file) = common::child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let engine = acting(&jobs, |act, _| {
        common::say(&format!("start {}", act.n));
        if is_bad(act.n) { Err(Failure::msg("it is bad").into_fatal()) } else { Ok(Outcome::Done) }
    })
    .crash_limit(0)
    .pool(Pool::new(["*"]).workers(4))
    .start()
    .unwrap();
    if common::child_role() == "to the end" {
        for page in jobs.flows(None, 100).unwrap().flows {
            jobs.wait_flow(page.id, SOON).unwrap();
        }
        // The callbacks too.
        engine.run_until_empty().unwrap();
    } else {
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
}

#[test]
fn flows_of_processes_that_are_killed_two_hundred_times_end_as_they_must() {
    const KILLS: usize = 200;
    let mut random: u64 = 41;
    let place = place();
    let jobs = place.open();
    let mut flows = Vec::new();
    for kill in 0..KILLS {
        if kill * FLOWS / KILLS >= flows.len() {
            flows.push(jobs.enqueue_flow(ladder(flows.len() as i64)).unwrap());
        }
        let child = Child::start("flows::child", &place.path, "");
        // Somewhere between two starts, or before any.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let starts = random >> 62;
        for _ in 0..starts {
            if jobs.count(&Filter::new().state(State::Blocked)).unwrap() == 0 {
                break;
            }
            child.wait_for("start");
        }
        child.kill();
    }
    Child::start("flows::child", &place.path, "to the end").end();
    for (at, flow) in flows.iter().enumerate() {
        let states: Vec<State> =
            flow.members.iter().map(|&id| jobs.get(id).unwrap().state).collect();
        assert_eq!(states, ends(at as i64), "flow {at}");
        let record = jobs.flow(flow.id).unwrap();
        assert_eq!((record.members, record.pending), (10, 0));
        let failed = states.iter().filter(|state| **state == State::Failed).count() as u64;
        assert_eq!(record.failed, failed);
    }
    let all = jobs.list(&Filter::new(), None, 10_000).unwrap().jobs;
    let callbacks: Vec<i64> =
        all.iter().map(|job| job.args_as::<Act>().unwrap().n).filter(|&n| n >= 10_000).collect();
    let expected: Vec<i64> = (0..flows.len() as i64).rev().map(|flow| 10_000 + flow).collect();
    let mut sorted = callbacks.clone();
    sorted.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
    assert_eq!(sorted, expected, "each called back once");
    assert!(all.iter().all(|job| job.state.is_finished()));
}

#[test]
fn a_callback_names_no_parents_and_cannot_keep_a_member_from_its_end() {
    let place = place();
    let here = Ran::at(&place);
    let jobs = here.jobs();
    let parent = jobs.enqueue(act(1)).unwrap();
    let batch = || Batch::new("b").add(act(2));
    let refused = jobs.enqueue_flow(batch().on_finish(act(3).after([parent])));
    assert!(matches!(refused, Err(Error::Invalid { what: "parents", .. })));
    // Another hand makes one that cannot be enqueued.
    let flow = jobs.enqueue_flow(batch().on_finish(act(3))).unwrap();
    let spoil = "UPDATE legwork_callbacks SET job = json_set(job, '$.after', json('[4711]'))";
    assert_eq!(place.connect().execute(spoil, []).unwrap(), 1);
    assert_eq!(here.run(), [1, 2]);
    assert_eq!(here.flow(flow.id), FlowState::Completed);
    let flow = jobs.enqueue_flow(batch().on_finish(act(3))).unwrap();
    place.connect().execute(spoil, []).unwrap();
    jobs.cancel(flow.members[0]).unwrap();
    assert_eq!(here.flow(flow.id), FlowState::Cancelled);
}

#[test]
fn a_child_of_two_comes_back_only_if_neither_was_deleted() {
    let place = place();
    let here = Ran::at(&place);
    here.set_bad([1]);
    let first = here.jobs().enqueue(act(1)).unwrap();
    let second = here.jobs().enqueue(act(2).delay(DAY)).unwrap();
    let child = here.jobs().enqueue(act(3).after([first, second])).unwrap();
    assert_eq!(here.run(), [1]);
    assert_eq!(here.state(child), State::Cancelled);
    here.jobs().delete(second).unwrap();
    here.set_bad([]);
    here.jobs().retry(first).unwrap();
    assert_eq!(here.run(), [1]);
    assert_eq!(here.state(child), State::Cancelled, "its other parent never ran");
}

#[test]
fn a_callback_whose_key_is_taken_is_not_taken_for_the_one_that_has_it() {
    let place = place();
    let here = Ran::at(&place);
    let keyed = || act(9).unique_key("owner");
    let holder = here.jobs().enqueue(keyed().delay(DAY)).unwrap();
    let flow = here.jobs().enqueue_flow(Batch::new("b").add(act(1)).on_finish(keyed())).unwrap();
    assert_eq!(here.run(), [1]);
    assert_eq!(here.flow(flow.id), FlowState::Completed);
    let called: i64 = place
        .connect()
        .query_row("SELECT count(id) FROM legwork_callbacks", [], |row| row.get(0))
        .unwrap();
    assert_eq!((called, here.state(holder)), (0, State::Scheduled));
}

#[test]
fn middleware_for_enqueues_sees_members_and_callbacks() {
    let place = place();
    let clock = stopped_clock();
    let traced = |job: NewJob| Ok(job.meta("trace", "7"));
    let jobs = place.builder().clock(clock).on_enqueue(traced).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    jobs.enqueue_flow(Batch::new("b").add(act(1)).on_finish(act(2))).unwrap();
    engine.run_due().unwrap();
    let all = jobs.list(&Filter::new(), None, 10).unwrap().jobs;
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|job| job.meta.get("trace").is_some_and(|trace| trace == "7")));
}
