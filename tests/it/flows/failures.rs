//! What a failure, a cancel or a delete means for children, and how they come back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use legwork::{AfterFailure, Chain, Error, Filter, FlowState, Retention, Scope, State};

use super::{DAY, Ran, act, diamond};
use crate::common::place;

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
