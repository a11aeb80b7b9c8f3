//! A job that finishes in the app's own transaction: its effects there happen exactly once.

mod killed;
mod returned;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use legwork::{
    Context, Engine, Error, Event, Failure, Filter, Job, JobId, JobOptions, JobResult, Jobs,
    NewJob, Outcome, Overdue, Pool, Retry, State,
};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{Place, SOON, place, say, stopped_clock, wait_for};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS effects (job INTEGER NOT NULL)";

/// What `finish_in` has said.
type Said = Result<(), Error>;

/// The app's own connection.
fn connect(db: &Path) -> Connection {
    let conn = Connection::open(db).unwrap();
    conn.busy_timeout(SOON).unwrap();
    conn
}

fn effects(place: &Place, job: JobId) -> i64 {
    let conn = place.connect();
    conn.query_row("SELECT count(*) FROM effects WHERE job = ?1", [job.0], |row| row.get(0))
        .unwrap()
}

fn made() -> (Place, Jobs) {
    let place = place();
    let jobs = place.open();
    connect(&place.path).execute_batch(TABLE).unwrap();
    (place, jobs)
}

/// Leaves one row in `effects`, in the transaction that finishes it.
#[derive(Serialize, Deserialize)]
struct Effect {}

impl Job for Effect {
    const KIND: &'static str = "effect";
    type State = PathBuf;

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let mut conn = connect(cx.state());
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO effects (job) VALUES (?1)", [cx.id().0])?;
        cx.finish_in(&tx)?;
        say(&format!("before {}", cx.id()));
        tx.commit()?;
        say(&format!("after {}", cx.id()));
        Ok(Outcome::Done)
    }
}

// ---- the last lines ----------------------------------------------------------------------

/// Says something and ends at once, by its return or in a transaction.
#[derive(Serialize, Deserialize)]
struct LastWords {
    finish_in: bool,
}

impl Job for LastWords {
    const KIND: &'static str = "last_words";
    type State = PathBuf;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::none())
    }

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        if !self.finish_in {
            cx.log("first");
            cx.log("second");
            return Err(Failure::msg("as told"));
        }
        let mut conn = connect(cx.state());
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        cx.log("first");
        cx.log("second");
        cx.finish_in(&tx)?;
        tx.commit()?;
        Ok(Outcome::Done)
    }
}

#[test]
fn lines_logged_just_before_the_end_are_kept() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs)
        .register_with::<LastWords>(place.path.clone())
        .pool(Pool::new(["*"]).workers(4))
        .start()
        .unwrap();
    for finish_in in [false, true] {
        let ids = jobs.enqueue_many((0..50).map(|_| LastWords { finish_in })).unwrap();
        for id in ids {
            jobs.wait(id, SOON).unwrap();
            // The writer may still have a line to add to a job that was finished for it.
            jobs.resume(legwork::Scope::All).unwrap();
            let lines = jobs.logs(id).unwrap();
            let lines: Vec<_> = lines.iter().map(|line| line.line.as_str()).collect();
            assert_eq!(lines, ["first", "second"], "job {id}, finish_in {finish_in}");
        }
    }
    engine.stop(SOON).unwrap();
}

// ---- children ----------------------------------------------------------------------------

#[test]
fn children_of_a_finish_in_are_run_without_a_call() {
    #[derive(Serialize, Deserialize)]
    struct Parent;

    impl Job for Parent {
        const KIND: &'static str = "parent";
        type State = PathBuf;

        fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
            let mut conn = connect(cx.state());
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            cx.enqueue_with_finish(Descendant {})?;
            cx.finish_in(&tx)?;
            tx.commit()?;
            Ok(Outcome::Done)
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Descendant {}

    impl Job for Descendant {
        const KIND: &'static str = "child";
        type State = ();

        fn perform(&self, _: &Context) -> JobResult {
            Ok(Outcome::Done)
        }
    }

    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs)
        .register::<Descendant>()
        .register_with::<Parent>(place.path.clone())
        .pool(Pool::new(["*"]).workers(2))
        .start()
        .unwrap();
    for _ in 0..10 {
        let events = jobs.events();
        jobs.enqueue(Parent).unwrap();
        let child = |event: &Event| {
            matches!(event, Event::Finished { kind, state: State::Completed, .. }
                if kind.as_deref() == Some("child"))
        };
        wait_for(&events, child);
    }
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 20);
    engine.stop(SOON).unwrap();
}

/// Has a child that the file has no room for, and commits all the same.
#[derive(Serialize, Deserialize)]
struct TooMuch;

impl Job for TooMuch {
    const KIND: &'static str = "too_much";
    type State = PathBuf;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::none())
    }

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let mut conn = connect(cx.state());
        conn.query_row("PRAGMA max_page_count = 1", [], |_| Ok(()))?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        cx.enqueue_with_finish(NewJob::of_kind("child", json!("x".repeat(1_000_000))))?;
        let said = cx.finish_in(&tx);
        assert!(matches!(said, Err(Error::Full(_))), "{said:?}");
        // SQLite may have rolled the transaction back by itself.
        let _ = tx.commit();
        Err(Failure::msg("as told"))
    }
}

#[test]
fn a_finish_in_that_finds_no_room_for_a_child_changes_nothing_even_if_the_app_commits() {
    let (place, jobs) = made();
    let engine = Engine::builder(&jobs)
        .register_with::<TooMuch>(place.path.clone())
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(TooMuch).unwrap();
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.reason.as_deref()), (State::Failed, Some("as told")));
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 1);
    engine.stop(SOON).unwrap();
}

// ---- a stale claim -----------------------------------------------------------------------

/// The first attempt is abandoned and tries to finish while the second one is at work.
#[derive(Serialize, Deserialize)]
struct Late;

struct LateState {
    db: PathBuf,
    second_runs: (Sender<()>, Receiver<()>),
    first_said: (Sender<Said>, Receiver<Said>),
    said: Sender<Said>,
}

impl Job for Late {
    const KIND: &'static str = "late";
    type State = LateState;

    fn options() -> JobOptions {
        JobOptions::new()
            .timeout(Duration::from_secs(1))
            .overdue(Overdue::Abandon)
            .retry(Retry::fixed(Duration::ZERO).attempts(2))
    }

    fn perform(&self, cx: &Context<LateState>) -> JobResult {
        let state = cx.state();
        if cx.attempt() == 2 {
            state.second_runs.0.send(())?;
            state.said.send(state.first_said.1.recv_timeout(SOON)?).unwrap();
            return Ok(Outcome::Done);
        }
        state.second_runs.1.recv_timeout(SOON)?;
        let mut conn = connect(&state.db);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO effects (job) VALUES (?1)", [cx.id().0])?;
        let said = cx.finish_in(&tx);
        if said.is_ok() {
            tx.commit()?;
        } else {
            tx.rollback()?;
        }
        state.first_said.0.send(said).unwrap();
        Ok(Outcome::Done)
    }
}

#[test]
fn an_abandoned_attempt_cannot_finish_the_job_that_another_attempt_is_at() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    connect(&place.path).execute_batch(TABLE).unwrap();
    let events = jobs.events();
    let (said, heard) = unbounded();
    let engine = Engine::builder(&jobs)
        .register_with::<Late>(LateState {
            db: place.path.clone(),
            second_runs: unbounded(),
            first_said: unbounded(),
            said,
        })
        .stuck_grace(Duration::ZERO)
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Late).unwrap();
    wait_for(&events, |event| matches!(event, Event::Started { .. }));
    jobs.clock().advance(Duration::from_secs(1));
    match heard.recv_timeout(SOON).unwrap() {
        Err(Error::LostClaim(lost)) => assert_eq!(lost, id),
        other => panic!("{other:?}"),
    }
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 2));
    engine.stop(SOON).unwrap();
    assert_eq!(effects(&place, id), 0);
    let [abandoned] = &jobs.attempts(id).unwrap()[..] else { panic!("one attempt has failed") };
    assert_eq!((abandoned.attempt, abandoned.counted), (1, true));
}

#[test]
fn perform_now_leaves_the_transaction_to_the_app() {
    let (place, jobs) = made();
    let done = jobs.perform_now(&Effect {}, place.path.clone()).unwrap();
    assert_eq!(done, Outcome::Done);
    assert_eq!(effects(&place, JobId::UNSTORED), 1);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 0);
}
