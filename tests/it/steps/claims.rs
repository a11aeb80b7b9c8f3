//! Steps belong to the attempt that has the claim: late ones, locked files, transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::unbounded;
use legwork::{
    Context, Error, Failure, Job, JobOptions, JobResult, Outcome, Overdue, Pool, Retry, State,
};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

use super::{LONG, attempts, last_error, rows, stopped};
use crate::common::{SOON, place};
use crate::scripted::{Act, acting};

/// The first attempt is abandoned inside a step, while the second one runs.
#[derive(Serialize, Deserialize)]
struct Late;

type Gate = (crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>);

struct LateState {
    db: std::path::PathBuf,
    first_is_in_a_step: Gate,
    second_runs: Gate,
    first_is_done: Gate,
    begun_too_late: AtomicUsize,
}

impl Job for Late {
    const KIND: &'static str = "late";
    type State = Arc<LateState>;

    fn options() -> JobOptions {
        JobOptions::new()
            .timeout(Duration::from_secs(1))
            .overdue(Overdue::Abandon)
            .retry(Retry::fixed(Duration::ZERO).attempts(2))
    }

    fn perform(&self, cx: &Context<Arc<LateState>>) -> JobResult {
        let state = cx.state();
        let cursor = cx.cursor::<u32>("rows")?;
        if cx.attempt() == 2 {
            state.second_runs.0.send(())?;
            state.first_is_done.1.recv_timeout(SOON)?;
            cx.step("a", || Ok(2))?;
            return Err(Failure::msg("as told"));
        }
        let late = cx.step("a", || {
            state.first_is_in_a_step.0.send(())?;
            Ok(state.second_runs.1.recv_timeout(SOON).map(|()| 1)?)
        });
        let lost = |error: Option<&Error>| matches!(error, Some(Error::LostClaim(_)));
        assert!(lost(late.as_ref().unwrap_err().find()), "{late:?}");
        assert!(lost(cursor.save(&7).as_ref().err()));
        let mut conn = Connection::open(&state.db)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        assert!(lost(cursor.save_in(&tx, &7).as_ref().err()));
        tx.commit()?;
        let begun = cx.step("b", || {
            state.begun_too_late.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        assert!(begun.unwrap_err().interrupt().is_some());
        state.first_is_done.0.send(())?;
        Ok(Outcome::Done)
    }
}

#[test]
fn an_attempt_that_has_lost_its_claim_stores_nothing_and_begins_no_step() {
    let place = place();
    let jobs = stopped(&place);
    let state = Arc::new(LateState {
        db: place.path.clone(),
        first_is_in_a_step: unbounded(),
        second_runs: unbounded(),
        first_is_done: unbounded(),
        begun_too_late: AtomicUsize::new(0),
    });
    let engine = legwork::Engine::builder(&jobs)
        .register_with::<Late>(Arc::clone(&state))
        .stuck_grace(Duration::ZERO)
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Late).unwrap();
    state.first_is_in_a_step.1.recv_timeout(SOON).unwrap();
    jobs.clock().advance(Duration::from_secs(1));
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.reason.as_deref()), (State::Failed, Some("as told")));
    engine.stop(SOON).unwrap();
    assert_eq!(state.begun_too_late.load(Ordering::SeqCst), 0);
    let stored: String = place
        .connect()
        .query_row(
            "SELECT group_concat(name || '=' || coalesce(value, ''), ' ') FROM legwork_steps",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(stored, "rows= a=2");
}

#[test]
fn a_result_is_stored_although_the_file_was_locked_when_its_work_was_done() {
    let place = place();
    let jobs = place.builder().busy_timeout(Duration::from_millis(50)).open().unwrap();
    let (done, told) = unbounded();
    let engine = acting(&jobs, move |_, cx| {
        let (go_on, locked) = crossbeam_channel::bounded(0);
        cx.step("charge", || {
            done.send(go_on)?;
            Ok(locked.recv_timeout(SOON)?)
        })?;
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(1))
    .start()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    let go_on: crossbeam_channel::Sender<()> = told.recv_timeout(SOON).unwrap();
    let mut conn = place.connect();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    go_on.send(()).unwrap();
    // Each waits as long as the step does, and comes after it.
    for _ in 0..3 {
        assert!(matches!(jobs.enqueue(Act { n: 2 }), Err(Error::Busy { .. })));
    }
    drop(tx);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    assert_eq!(jobs.attempts(id).unwrap(), []);
    engine.stop(SOON).unwrap();
}

#[test]
fn inside_a_transaction_of_the_handle_steps_are_refused_and_a_position_is_saved_in_it() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    attempts(&jobs, id, |cx| {
        let cursor = cx.cursor::<u32>("rows")?;
        let outside = Connection::open(cx.jobs().path())?;
        assert!(matches!(cursor.save_in(&outside, &1), Err(Error::Invalid { .. })));
        let mut conn = Connection::open(cx.jobs().path())?;
        cx.jobs().transaction(&mut conn, |tx| {
            let refused = cx.step("a", || Ok(1)).unwrap_err();
            assert!(matches!(refused.find(), Some(Error::InTransaction { verb: "step" })));
            assert!(matches!(cursor.save(&1), Err(Error::InTransaction { verb: "save" })));
            cursor.save_in(tx, &1)
        })?;
        Err(Failure::msg("as told"))
    });
    assert_eq!(last_error(&jobs, id), "as told");
    assert_eq!(jobs.steps(id).unwrap()[0].bytes, Some(1));
}

#[test]
fn a_position_that_is_saved_in_a_transaction_exists_only_if_that_commits() {
    let place = place();
    let jobs = stopped(&place);
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    place.connect().execute_batch("CREATE TABLE effects (row INTEGER NOT NULL)").unwrap();
    let path = place.path.clone();
    let engine = acting(&jobs, move |_, cx| {
        let cursor = cx.cursor::<u32>("rows")?;
        cx.step("prepare", || Ok(()))?;
        let mut conn = Connection::open(&path)?;
        for row in cursor.get().map_or(0, |last| last + 1)..9 {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute("INSERT INTO effects VALUES (?1)", [row])?;
            cursor.save_in(&tx, &row)?;
            if row == 3 * cx.attempt() {
                return Err(Failure::msg("as told"));
            }
            tx.commit()?;
        }
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    for _ in 0..3 {
        engine.run_due().unwrap();
        engine.advance(LONG);
    }
    assert_eq!(jobs.get(id).unwrap().state, State::Completed);
    let conn = place.connect();
    let all: String =
        conn.query_row("SELECT group_concat(row) FROM effects", [], |row| row.get(0)).unwrap();
    assert_eq!(all, "0,1,2,3,4,5,6,7,8");
}

#[test]
fn many_jobs_store_their_steps_side_by_side() {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |act, cx| {
        for step in 0..20 {
            let value = cx.step(&format!("step {step}"), || Ok(act.n * 100 + step))?;
            assert_eq!(value, act.n * 100 + step);
        }
        Ok(Outcome::Done)
    })
    .pool(Pool::new(["*"]).workers(8))
    .start()
    .unwrap();
    let ids = jobs.enqueue_many((0..40).map(|n| Act { n })).unwrap();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
    assert_eq!(rows(&place), 0);
}
