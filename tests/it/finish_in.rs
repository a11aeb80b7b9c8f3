//! A job that finishes in the app's own transaction: its effects there happen exactly once.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use legwork::{
    Context, Engine, Error, Event, Failure, Filter, Job, JobId, JobOptions, JobResult, Jobs,
    NewJob, Outcome, Overdue, Pool, Retry, State,
};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{self, Child, Place, SOON, place, say, stopped_clock, wait_for};

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

// ---- killed around the commit ------------------------------------------------------------

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

#[test]
#[ignore = "child process of `each_effect_happens_once_...`"]
fn effect_child() {
    let Some(db) = common::child_file() else {
        return;
    };
    let jobs = Jobs::open(&db).unwrap();
    connect(&db).execute_batch(TABLE).unwrap();
    let engine = Engine::builder(&jobs)
        .register_with::<Effect>(db)
        .pool(Pool::new(["*"]).workers(2))
        // Killed on purpose, and mostly in the middle of a job.
        .crash_limit(0)
        .start()
        .unwrap();
    while common::child_role() == "for ever" {
        let ids = jobs.enqueue_many((0..3).map(|_| Effect {})).unwrap();
        ids.iter().for_each(|id| say(&format!("acked {id}")));
        for id in ids {
            jobs.wait(id, SOON).unwrap();
        }
    }
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
}

fn ids<'a>(lines: &'a [String], word: &'a str) -> impl Iterator<Item = JobId> + 'a {
    lines.iter().filter_map(move |line| line.strip_prefix(word)?.trim().parse().ok())
}

#[test]
fn each_effect_happens_once_however_often_its_process_is_killed_around_the_commit() {
    const ROUNDS: usize = 100;
    let place = place();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut acked = Vec::new();
    // Jobs that were cut off between saying "before" and "after", by whether they had committed.
    let mut cut_off = [0, 0];
    for _ in 0..ROUNDS {
        let child = Child::start("finish_in::effect_child", &place.path, "for ever");
        let word = if random.u8(..) < 200 { "before" } else { "after" };
        let mut left = random.usize(1..6);
        let mut lines = Vec::new();
        while left > 0 {
            let line = child.line().expect("the child lives until it is killed");
            left -= usize::from(line.starts_with(word));
            lines.push(line);
        }
        lines.extend(child.kill());
        acked.extend(ids(&lines, "acked"));
        for id in ids(&lines, "before").filter(|id| !ids(&lines, "after").any(|done| done == *id)) {
            let committed = effects(&place, id);
            assert!(committed <= 1, "job {id} had {committed} effects");
            cut_off[usize::from(committed == 1)] += 1;
        }
    }
    Child::start("finish_in::effect_child", &place.path, "to the end").end();

    eprintln!(
        "{ROUNDS} kills, {} jobs, cut off before and after the commit: {cut_off:?}",
        acked.len()
    );
    let jobs = place.open();
    let conn = place.connect();
    let mut ask = conn.prepare("SELECT job FROM effects ORDER BY job").unwrap();
    let rows = ask.query_map([], |row| row.get(0).map(JobId)).unwrap();
    let rows: Vec<JobId> = rows.collect::<Result<_, _>>().unwrap();
    assert!(rows.is_sorted_by(|one, next| one < next), "a job had its effect twice");
    for id in &acked {
        assert!(rows.contains(id), "job {id} had no effect");
    }
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), rows.len() as u64);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), rows.len() as u64);
    // Otherwise the kills have missed the commits, and nothing was tested.
    assert!(cut_off[0] > 0 && cut_off[1] > 0, "{cut_off:?}");
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

// ---- what the row says, whatever is returned -----------------------------------------------

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Then {
    Commit,
    RollBack,
    CommitAndFail,
    CommitAndFailForGood,
    CommitAndPanic,
    CommitAndSnooze,
    RollBackAndFail,
    FinishWithoutTransaction,
    FinishTwice,
}

/// Does as it is told; tells the test what `finish_in` has said.
#[derive(Serialize, Deserialize)]
struct Told {
    then: Then,
}

struct Test {
    db: PathBuf,
    tell: mpsc::Sender<Said>,
    gave_up: mpsc::Sender<JobId>,
}

impl Job for Told {
    const KIND: &'static str = "told";
    type State = Test;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::fixed(Duration::ZERO).attempts(1))
    }

    fn perform(&self, cx: &Context<Test>) -> JobResult {
        let mut conn = connect(&cx.state().db);
        if self.then == Then::FinishWithoutTransaction {
            cx.state().tell.send(cx.finish_in(&conn)).unwrap();
            return Ok(Outcome::Done);
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO effects (job) VALUES (?1)", [cx.id().0])?;
        cx.output("done")?;
        cx.enqueue_with_finish(NewJob::of_kind("child", json!({})))?;
        cx.state().tell.send(cx.finish_in(&tx)).unwrap();
        if self.then == Then::FinishTwice {
            cx.state().tell.send(cx.finish_in(&tx)).unwrap();
        }
        if matches!(self.then, Then::RollBack | Then::RollBackAndFail) {
            tx.rollback()?;
        } else {
            tx.commit()?;
        }
        match self.then {
            Then::CommitAndFail | Then::RollBackAndFail => Err(Failure::msg("as told")),
            Then::CommitAndFailForGood => Err(Failure::msg("as told").into_fatal()),
            Then::CommitAndPanic => panic!("as told"),
            Then::CommitAndSnooze => Ok(Outcome::snooze(Duration::ZERO)),
            _ => Ok(Outcome::Done),
        }
    }

    fn gave_up(&self, cx: &Context<Test>, _: &Failure) {
        cx.state().gave_up.send(cx.id()).unwrap();
    }
}

/// Runs one job to its end.
struct Ran {
    place: Place,
    jobs: Jobs,
    id: JobId,
    said: Vec<Said>,
    gave_up: bool,
}

fn run(then: Then) -> Ran {
    let (place, jobs) = made();
    let (tell, told) = mpsc::channel();
    let (gave_up, given_up) = mpsc::channel();
    let engine = Engine::builder(&jobs)
        .register_with::<Told>(Test { db: place.path.clone(), tell, gave_up })
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Told { then }).unwrap();
    jobs.wait(id, SOON).unwrap();
    engine.stop(SOON).unwrap();
    let gave_up = given_up.try_recv().is_ok();
    Ran { place, jobs, id, said: told.try_iter().collect(), gave_up }
}

impl Ran {
    fn children(&self) -> u64 {
        self.jobs.count(&Filter::new().kind("child")).unwrap()
    }

    fn completed(&self) {
        let job = self.jobs.get(self.id).unwrap();
        assert_eq!((job.state, job.attempts, job.reason), (State::Completed, 1, None));
        assert_eq!(job.output.as_deref(), Some("\"done\""));
        assert_eq!(self.jobs.attempts(self.id).unwrap(), []);
        assert_eq!(effects(&self.place, self.id), 1);
        assert_eq!(self.children(), 1);
        assert!(!self.gave_up, "a completed job has not given up");
    }

    fn failed(&self, reason: &str) {
        let job = self.jobs.get(self.id).unwrap();
        assert_eq!((job.state, job.attempts), (State::Failed, 1));
        assert!(job.reason.unwrap().contains(reason));
        assert_eq!(effects(&self.place, self.id), 0);
        assert_eq!(self.children(), 0);
        assert!(self.gave_up);
    }
}

#[test]
fn wait_returns_once_the_transaction_has_committed_with_effects_and_children() {
    let ran = run(Then::Commit);
    assert!(matches!(ran.said[..], [Ok(())]));
    ran.completed();
}

#[test]
fn a_transaction_that_rolls_back_is_a_failed_attempt_without_effects_and_children() {
    run(Then::RollBack).failed("not committed");
    run(Then::RollBackAndFail).failed("as told");
}

#[test]
fn a_job_whose_transaction_committed_is_completed_whatever_it_returns() {
    for then in [
        Then::CommitAndFail,
        Then::CommitAndFailForGood,
        Then::CommitAndPanic,
        Then::CommitAndSnooze,
    ] {
        run(then).completed();
    }
}

#[test]
fn finishing_without_an_open_transaction_is_refused() {
    let ran = run(Then::FinishWithoutTransaction);
    assert!(matches!(ran.said[..], [Err(Error::Invalid { what: "connection", .. })]));
    // And changes nothing: the job completes by its return.
    assert_eq!(ran.jobs.get(ran.id).unwrap().state, State::Completed);
}

#[test]
fn finishing_twice_in_one_transaction_is_a_lost_claim_the_second_time() {
    let ran = run(Then::FinishTwice);
    assert!(matches!(ran.said[..], [Ok(()), Err(Error::LostClaim(id))] if id == ran.id));
    ran.completed();
}

#[test]
fn finishing_on_another_file_is_foreign() {
    #[derive(Serialize, Deserialize)]
    struct Elsewhere;

    impl Job for Elsewhere {
        const KIND: &'static str = "elsewhere";
        type State = PathBuf;

        fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
            let mut conn = connect(cx.state());
            let tx = conn.transaction()?;
            match cx.finish_in(&tx) {
                Err(Error::Foreign { .. }) => Ok(Outcome::Done),
                other => panic!("{other:?}"),
            }
        }
    }

    let (here, there) = (place(), place());
    drop(there.open());
    let jobs = here.open();
    let engine =
        Engine::builder(&jobs).register_with::<Elsewhere>(there.path.clone()).start().unwrap();
    let id = jobs.enqueue(Elsewhere).unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

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
