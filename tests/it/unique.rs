//! Unique jobs: one row a window, whoever asks, and what becomes of a second one.

mod conflicts;
mod races;
mod windows;

use std::time::Duration;

use legwork::{
    Conflict, Context, Error, Filter, JobId, JobResult, Jobs, NewJob, Outcome, Retention,
    Selection, State, Unique,
};

use crate::common::{Place, place, stopped_clock};
use crate::scripted::{Act, acting};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn keyed(n: i64, unique: Unique) -> NewJob {
    NewJob::new(Act { n }).unique(unique)
}

fn key() -> Unique {
    Unique::by_key("k")
}

/// Jobs on a stopped clock, and an engine whose jobs do as `script` says.
fn manual(
    place: &Place,
    script: impl Fn(&Act, &Context<crate::scripted::Acts>) -> JobResult + Send + Sync + 'static,
) -> legwork::ManualEngine {
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    acting(&jobs, script).manual().unwrap()
}

fn done(place: &Place) -> legwork::ManualEngine {
    manual(place, |_, _| Ok(Outcome::Done))
}

fn state(jobs: &Jobs, id: JobId) -> State {
    jobs.get(id).unwrap().state
}

fn args_of(jobs: &Jobs, id: JobId) -> i64 {
    serde_json::from_str::<Act>(&jobs.get(id).unwrap().args).unwrap().n
}

fn holder(result: legwork::Result<JobId>) -> JobId {
    match result {
        Err(Error::NotUnique { holder, .. }) => holder,
        other => panic!("not refused: {other:?}"),
    }
}

// ---- keys ------------------------------------------------------------------------------------

#[test]
fn by_arguments_and_by_fields() {
    let place = place();
    let jobs = place.open();
    let of = |args: serde_json::Value, unique| {
        jobs.enqueue(NewJob::of_kind("k", args).unique(unique)).unwrap()
    };
    let a = of(serde_json::json!({ "user": 1, "at": 1 }), Unique::by_args());
    assert_eq!(of(serde_json::json!({ "at": 1, "user": 1 }), Unique::by_args()), a);
    let b = of(serde_json::json!({ "user": 1, "at": 2 }), Unique::by_args());
    assert_ne!(b, a);
    let c = of(serde_json::json!({ "user": 1, "at": 3 }), Unique::by_fields(["user"]));
    assert_eq!(of(serde_json::json!({ "user": 1, "at": 4 }), Unique::by_fields(["user"])), c);
    assert_ne!(of(serde_json::json!({ "user": 2, "at": 4 }), Unique::by_fields(["user"])), c);
    let bad = NewJob::of_kind("k", serde_json::json!([1])).unique(Unique::by_fields(["user"]));
    assert!(matches!(jobs.enqueue(bad), Err(Error::Invalid { what: "unique key", .. })));
    let bad = NewJob::new(Act { n: 1 }).unique_key("a\nb");
    assert!(matches!(jobs.enqueue(bad), Err(Error::Invalid { what: "unique key", .. })));
}

// ---- running again ---------------------------------------------------------------------------

#[test]
fn retrying_a_finished_job_whose_key_is_taken_is_refused_and_in_bulk_skipped_and_reported() {
    let place = place();
    let jobs =
        place.builder().clock(stopped_clock()).retention(Retention::all(365 * DAY)).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let uniques = [
        key(),
        key().until_started(),
        key().for_period(DAY),
        key().on_conflict(Conflict::KeepLast),
    ];
    for unique in uniques {
        let first = jobs.enqueue(keyed(1, unique.clone())).unwrap();
        engine.run_due().unwrap();
        engine.advance(2 * DAY);
        let second = jobs.enqueue(keyed(2, unique.clone())).unwrap();
        assert_ne!(second, first);
        assert_eq!(
            match jobs.retry(first) {
                Err(Error::NotUnique { holder, key }) => {
                    assert_eq!(key, "k");
                    holder
                }
                other => panic!("{unique:?}: {other:?}"),
            },
            second
        );
        let other = jobs.enqueue(Act { n: 5 }).unwrap();
        jobs.cancel(other).unwrap();
        let changed = jobs.retry(Selection::from(vec![first, other])).unwrap();
        assert_eq!((changed.changed, changed.skipped, changed.not_unique), (1, 1, 1));
        engine.run_due().unwrap();
        if !matches!(unique, ref period if *period == key().for_period(DAY)) {
            // Free again: it runs, and has its key.
            jobs.retry(first).unwrap();
            assert_eq!(jobs.enqueue(keyed(3, unique.clone())).unwrap(), first, "{unique:?}");
        }
        engine.run_due().unwrap();
        engine.advance(2 * DAY);
        jobs.delete(Filter::new()).unwrap();
    }
}
