//! Flows: who waits for whom, what an end means for children, and when a flow has ended.

mod callbacks;
mod failures;
mod killed;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{
    AfterFailure, Batch, Chain, Conflict, Context, EnqueuedFlow, Error, Event, Failure, FlowId,
    FlowState, JobId, Jobs, ManualEngine, NewJob, Outcome, Retention, State, Unique, Workflow,
};
use serde_json::json;

use crate::common::{Place, SOON, place, run_until, stopped_clock, wait_for};
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
    run_until(&here.engine, "it is pruned", || matches!(jobs.get(alone), Err(Error::NotFound(_))));
    assert_eq!(here.states(&flow), [State::Completed, State::Completed]);
    for _ in 0..11 {
        here.engine.advance(DAY);
        // Something has to happen for the engine to look.
        jobs.enqueue(act(9)).unwrap();
        here.run();
    }
    run_until(&here.engine, "the flow is pruned", || {
        matches!(jobs.flow(flow.id), Err(Error::NoFlow(_)))
    });
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
