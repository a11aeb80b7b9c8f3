//! What is enqueued when a flow ends.

use std::sync::{Arc, Mutex};

use legwork::{Batch, Error, Filter, FlowState, NewJob, Outcome, State};

use super::{DAY, Ran, act};
use crate::common::{place, stopped_clock};
use crate::scripted::acting;

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
