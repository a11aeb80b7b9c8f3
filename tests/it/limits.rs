//! Limits: how many run at once by a key, how many start in a time, and who goes on when.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use legwork::{
    Context, Engine, Event, Job, JobId, JobOptions, JobResult, Jobs, Limit, ManualEngine, NewJob,
    OnBusy, Outcome, Overdue, Pool, Scope, State, Unique,
};
use rusqlite::TransactionBehavior;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{self, Child, Place, SOON, place, say, stopped_clock, wait_for};
use crate::scripted::{Act, Acts, acting};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn act(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

/// Jobs on a stopped clock, and an engine that remembers which have run.
struct Ran {
    engine: ManualEngine,
    ran: Arc<Mutex<Vec<i64>>>,
}

impl Ran {
    fn at(place: &Place) -> Ran {
        let jobs = place.builder().clock(stopped_clock()).open().unwrap();
        let ran = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&ran);
        let script = move |act: &Act, _: &Context<Acts>| {
            all.lock().unwrap().push(act.n);
            Ok(Outcome::Done)
        };
        Ran { engine: acting(&jobs, script).manual().unwrap(), ran }
    }

    fn jobs(&self) -> &Jobs {
        self.engine.jobs()
    }

    /// What has run since it was last asked.
    fn take(&self) -> Vec<i64> {
        std::mem::take(&mut self.ran.lock().unwrap())
    }
}

fn state(jobs: &Jobs, id: JobId) -> State {
    jobs.get(id).unwrap().state
}

/// A job that waits for nobody.
const PASSES: i64 = 9;

/// An engine whose jobs say that they have begun, and go on when they are told to.
struct Held {
    engine: Engine,
    begun: crossbeam_channel::Receiver<i64>,
    go_on: crossbeam_channel::Sender<()>,
}

impl Held {
    fn at(jobs: &Jobs, workers: usize) -> Held {
        let (say, begun) = unbounded();
        let (go_on, told) = unbounded::<()>();
        let script = move |act: &Act, _: &Context<Acts>| {
            say.send(act.n).unwrap();
            if act.n != PASSES {
                told.recv_timeout(SOON).unwrap();
            }
            Ok(Outcome::Done)
        };
        let pool = Pool::new(["*"]).workers(workers);
        Held { engine: acting(jobs, script).pool(pool).start().unwrap(), begun, go_on }
    }

    fn next(&self) -> i64 {
        self.begun.recv_timeout(SOON).unwrap()
    }

    fn end(self, left: usize) {
        (0..left).for_each(|_| self.go_on.send(()).unwrap());
        self.engine.run_until_empty().unwrap();
        assert!(self.engine.stop(SOON).unwrap().is_empty());
    }
}

// ---- at once ---------------------------------------------------------------------------------

#[test]
fn as_many_run_at_once_as_the_limit_says_and_a_freed_slot_starts_the_next_in_order() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 4);
    let limited = |n| act(n).limit("account:7", 2);
    for n in [1, 2, 3] {
        jobs.enqueue(limited(n)).unwrap();
    }
    let urgent = jobs.enqueue(limited(4).priority(-1)).unwrap();
    jobs.enqueue(act(PASSES)).unwrap();
    let mut first = [held.next(), held.next(), held.next()];
    first.sort_unstable();
    assert_eq!(first, [1, 2, PASSES], "the others of its lane are not held up");
    assert_eq!(state(&jobs, urgent), State::Blocked);
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 4, "in claim order");
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 3);
    held.end(2);
}

#[test]
fn a_job_with_several_keys_starts_when_all_of_them_let_it() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 4);
    jobs.enqueue(act(1).limit("a", 1)).unwrap();
    jobs.enqueue(act(2).limit("b", 1)).unwrap();
    let mut first = [held.next(), held.next()];
    first.sort_unstable();
    assert_eq!(first, [1, 2]);
    let both = jobs.enqueue(act(3).limit("a", 1).limit("b", 1)).unwrap();
    jobs.enqueue(act(4).limit("b", 1)).unwrap();
    jobs.enqueue(act(5).limit("a", 1)).unwrap();
    assert_eq!(state(&jobs, both), State::Blocked);
    // One of the two ends. The third job is next by its key, cannot start for the other one, and
    // lets the one behind it go first.
    held.go_on.send(()).unwrap();
    let next = held.next();
    assert!(next == 4 || next == 5, "{next}");
    assert_eq!(state(&jobs, both), State::Blocked);
    (0..3).for_each(|_| held.go_on.send(()).unwrap());
    let rest = [held.next(), held.next()];
    assert!(rest.contains(&3), "{rest:?}");
    held.end(1);
}

#[test]
fn jobs_that_name_different_numbers_for_a_key_go_by_their_own() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 4);
    jobs.enqueue(act(1).limit("k", 1)).unwrap();
    assert_eq!(held.next(), 1);
    let one = jobs.enqueue(act(2).limit("k", 1)).unwrap();
    jobs.enqueue(act(3).limit("k", 3)).unwrap();
    assert_eq!(held.next(), 3);
    held.go_on.send(()).unwrap();
    wait_until(|| jobs.count(&legwork::Filter::new().state(State::Running)).unwrap() == 1);
    assert_eq!(state(&jobs, one), State::Blocked, "one still runs");
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 2);
    held.end(1);
}

/// For what no event tells: reads until it is so.
fn wait_until(so: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !so() {
        assert!(started.elapsed() < SOON, "it never was");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_next_in_a_paused_queue_does_not_keep_the_others_from_going_on() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 2);
    jobs.enqueue(act(1).limit("k", 1)).unwrap();
    assert_eq!(held.next(), 1);
    for n in [2, 3] {
        jobs.enqueue(act(n).queue("paused").limit("k", 1)).unwrap();
    }
    jobs.enqueue(act(4).limit("k", 1)).unwrap();
    jobs.pause(Scope::Queue("paused".into())).unwrap();
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 4);
    jobs.resume(Scope::Queue("paused".into())).unwrap();
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 2);
    held.go_on.send(()).unwrap();
    assert_eq!(held.next(), 3);
    held.end(1);
}

#[test]
fn one_that_was_next_and_is_taken_away_lets_the_one_behind_it_go_on() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    // Nothing runs: the first is next, the others wait behind it.
    let limited = |n| act(n).limit("k", 1);
    let ids: Vec<JobId> = (1..=4).map(|n| jobs.enqueue(limited(n)).unwrap()).collect();
    let states =
        || ids.iter().map(|&id| jobs.get(id).map(|job| job.state).ok()).collect::<Vec<_>>();
    use State::{Blocked, Cancelled, Ready};
    assert_eq!(states(), [Some(Ready), Some(Blocked), Some(Blocked), Some(Blocked)]);
    jobs.cancel(ids[0]).unwrap();
    assert_eq!(states(), [Some(Cancelled), Some(Ready), Some(Blocked), Some(Blocked)]);
    jobs.delete(ids[1]).unwrap();
    assert_eq!(states(), [Some(Cancelled), None, Some(Ready), Some(Blocked)]);
    // A waiting one that goes makes no difference.
    jobs.cancel(ids[3]).unwrap();
    ran.engine.drain().unwrap();
    assert_eq!(ran.take(), [3]);
}

#[test]
fn one_that_was_next_and_expires_or_is_replaced_lets_the_one_behind_it_go_on() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let unique = || Unique::by_key("u").on_conflict(legwork::Conflict::Replace);
    jobs.enqueue(act(1).limit("k", 1).expires_after(SECOND)).unwrap();
    jobs.enqueue(act(2).limit("k", 1).unique(unique())).unwrap();
    let third = jobs.enqueue(act(3).limit("k", 1)).unwrap();
    ran.engine.advance(2 * SECOND);
    // The second one is next now, and is put off.
    jobs.enqueue(act(4).unique(unique()).delay(DAY)).unwrap();
    assert_eq!(state(jobs, third), State::Ready);
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [3]);
    ran.engine.drain().unwrap();
    assert_eq!(ran.take(), [4]);
}

#[test]
fn a_limit_for_very_many_is_used_to_the_full() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let limited = |n| act(n).limit("k", 200);
    let ids = jobs.enqueue_many((0..300).map(limited)).unwrap();
    let waiting = legwork::Filter::new().state(State::Blocked);
    assert!(jobs.count(&waiting).unwrap() > 0);
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), (0..300).collect::<Vec<_>>());
    assert!(ids.iter().all(|&id| state(jobs, id) == State::Completed));
}

#[test]
fn a_retry_takes_its_slot_anew_and_a_snooze_frees_it() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let script = |act: &Act, _: &Context<Acts>| match act.n {
        1 => Ok(Outcome::snooze(DAY)),
        2 => Err(legwork::Failure::msg("no")),
        _ => Ok(Outcome::Done),
    };
    let engine = acting(&jobs, script).manual().unwrap();
    for n in [1, 2, 3] {
        jobs.enqueue(act(n).limit("k", 1)).unwrap();
    }
    assert_eq!(engine.run_due().unwrap(), 3);
    let slots: i64 = place
        .connect()
        .query_row("SELECT count(*) FROM legwork_slots", [], |row| row.get(0))
        .unwrap();
    assert_eq!(slots, 0);
}

#[test]
fn a_finish_in_the_apps_transaction_frees_the_slot_if_it_commits() {
    let place = place();
    let path = place.path.clone();
    let jobs = place.open();
    let script = move |act: &Act, cx: &Context<Acts>| {
        let mut conn = rusqlite::Connection::open(&path)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if act.n == 1 {
            cx.finish_in(&tx)?;
            tx.commit()?;
        }
        Ok(Outcome::Done)
    };
    let engine = acting(&jobs, script).pool(Pool::new(["*"]).workers(1)).start().unwrap();
    let ids: Vec<JobId> = (1..=2).map(|n| jobs.enqueue(act(n).limit("k", 1)).unwrap()).collect();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn jobs_that_an_app_enqueues_in_its_own_transaction_wait_in_line_too() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let mut conn = place.connect();
    let tx = conn.transaction().unwrap();
    let ids: Vec<JobId> =
        (1..=3).map(|n| jobs.enqueue_in(&tx, act(n).limit("k", 1)).unwrap()).collect();
    tx.commit().unwrap();
    assert_eq!((state(jobs, ids[0]), state(jobs, ids[1])), (State::Ready, State::Blocked));
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [1, 2, 3]);
}

#[test]
fn in_a_backup_nobody_holds_a_slot() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 2);
    for n in [1, 2, 3] {
        jobs.enqueue(act(n).limit("k", 1)).unwrap();
    }
    assert_eq!(held.next(), 1);
    let copy = place.path.with_file_name("copy.db");
    jobs.backup(&copy).unwrap();
    held.go_on.send(()).unwrap();
    held.next();
    held.go_on.send(()).unwrap();
    held.next();
    held.end(1);
    let jobs = Jobs::open(&copy).unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
    let completed = legwork::Filter::new().state(State::Completed);
    assert_eq!(jobs.count(&completed).unwrap(), 3);
}

#[test]
fn an_abandoned_attempt_keeps_its_slot_until_its_thread_ends() {
    #[derive(Serialize, Deserialize)]
    struct Long;
    impl Job for Long {
        const KIND: &'static str = "long";
        type State = (crossbeam_channel::Sender<u32>, crossbeam_channel::Receiver<()>);
        fn options() -> JobOptions {
            JobOptions::new()
                .limit(Limit::at_once("k", 1))
                .timeout(Duration::from_millis(20))
                .overdue(Overdue::Abandon)
                .retry(legwork::Retry::fixed(Duration::from_millis(1)).jitter(0.0).attempts(2))
        }
        fn perform(&self, cx: &Context<Self::State>) -> JobResult {
            cx.state().0.send(cx.attempt()).unwrap();
            if cx.attempt() == 1 {
                cx.state().1.recv_timeout(SOON).unwrap();
            }
            Ok(Outcome::Done)
        }
    }
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let (say, begun) = unbounded();
    let (go_on, told) = bounded(1);
    let engine = Engine::builder(&jobs)
        .state((say, told))
        .register::<Long>()
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let id = jobs.enqueue(Long).unwrap();
    assert_eq!(begun.recv_timeout(SOON).unwrap(), 1);
    wait_for(&events, |event| matches!(event, Event::Retrying { .. }));
    // Due again, and kept waiting by what its own thread still does.
    wait_until(|| state(&jobs, id) == State::Blocked);
    go_on.send(()).unwrap();
    assert_eq!(begun.recv_timeout(SOON).unwrap(), 2);
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_job_that_is_not_to_wait_ends_as_cancelled_with_the_reason() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 2);
    jobs.enqueue(act(1).limit("k", 1)).unwrap();
    assert_eq!(held.next(), 1);
    let busy = jobs.enqueue(act(2).limit("k", 1).on_busy(OnBusy::Discard)).unwrap();
    let ended = jobs.wait(busy, SOON).unwrap();
    assert_eq!(ended.state, State::Cancelled);
    assert!(ended.reason.as_deref().unwrap().contains("\"k\""), "{ended:?}");
    held.end(1);
}

#[test]
fn run_again_by_hand_it_goes_by_its_limits_as_before() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let first = jobs.enqueue(act(1).rate("r", 1, DAY)).unwrap();
    ran.engine.run_due().unwrap();
    jobs.retry(first).unwrap();
    assert_eq!(ran.engine.run_due().unwrap(), 0);
    assert_eq!(state(jobs, first), State::Blocked);
    ran.engine.advance(DAY);
    assert_eq!(ran.engine.run_due().unwrap(), 1);
    assert_eq!(ran.take(), [1, 1]);
}

#[test]
fn limits_of_a_kind_are_made_of_the_arguments_and_the_calls_number_wins() {
    #[derive(Serialize, Deserialize)]
    struct Import {
        account: i64,
    }
    impl Job for Import {
        const KIND: &'static str = "import";
        type State = ();
        fn options() -> JobOptions {
            JobOptions::new().limit(Limit::at_once("account", 1).by(["account"]))
        }
        fn perform(&self, _: &Context) -> JobResult {
            Ok(Outcome::Done)
        }
    }
    let place = place();
    let jobs = place.open();
    let import = |account| NewJob::new(Import { account });
    let of = |new: NewJob| state(&jobs, jobs.enqueue(new).unwrap());
    assert_eq!(of(import(7)), State::Ready);
    assert_eq!(of(import(7)), State::Blocked);
    assert_eq!(of(import(8)), State::Ready);
    assert_eq!(of(import(8).unlimited()), State::Ready);
    assert_eq!(of(import(8).limited(Limit::at_once("account", 9).by(["account"]))), State::Ready);
    // So are they for whoever enqueues by SQL or without the type.
    Engine::builder(&jobs).register::<Import>().manual().unwrap();
    let sql = "INSERT INTO legwork_enqueue (kind, args) VALUES ('import', '{\"account\": 7}')";
    let conn = place.connect();
    conn.execute(sql, []).unwrap();
    let id = conn.query_row("SELECT last_job FROM legwork_counter", [], |row| row.get(0)).unwrap();
    assert_eq!(jobs.get(JobId(id)).unwrap().limits, [Limit::at_once("account:7", 1)]);
    let known = jobs.known_options("import").unwrap().unwrap();
    let untyped = NewJob::of_kind("import", json!({ "account": 7 })).options(known);
    assert_eq!(of(untyped), State::Blocked);
    let bad = NewJob::of_kind("k", json!({})).limit("k", 0);
    assert!(matches!(jobs.enqueue(bad), Err(legwork::Error::Invalid { what: "limit", .. })));
}

// ---- rates -----------------------------------------------------------------------------------

#[test]
fn a_rate_lets_them_start_evenly_and_in_order() {
    let place = place();
    let ran = Ran::at(&place);
    for n in 0..20 {
        ran.jobs().enqueue(act(n).rate("api", 10, SECOND)).unwrap();
    }
    let mut at = Vec::new();
    for tick in 0..200 {
        ran.engine.run_due().unwrap();
        at.extend(ran.take().into_iter().map(|n| (n, tick)));
        ran.engine.advance(Duration::from_millis(10));
    }
    assert_eq!(at.iter().map(|&(n, _)| n).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    // One in 100 ms, the second a little sooner: what comes late is made up for.
    assert!(at.windows(2).skip(1).all(|two| (9..=11).contains(&(two[1].1 - two[0].1))), "{at:?}");
}

#[test]
fn a_burst_starts_together_and_then_waits_for_its_window() {
    let place = place();
    let ran = Ran::at(&place);
    let burst = |n| act(n).limited(Limit::rate("api", 5, SECOND).burst());
    for n in 0..12 {
        ran.jobs().enqueue(burst(n)).unwrap();
    }
    assert_eq!(ran.engine.run_due().unwrap(), 5);
    ran.engine.advance(Duration::from_millis(900));
    assert_eq!(ran.engine.run_due().unwrap(), 0);
    ran.engine.advance(Duration::from_millis(120));
    assert_eq!(ran.engine.run_due().unwrap(), 5);
    assert_eq!(ran.take(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_rate_holds_over_all_kinds_and_queues_and_weights_count() {
    let place = place();
    let ran = Ran::at(&place);
    let rate = || Limit::rate("api", 10, SECOND).burst();
    ran.jobs().enqueue(act(1).queue("a").limited(rate().weight(6))).unwrap();
    ran.jobs().enqueue(act(2).queue("b").limited(rate().weight(6))).unwrap();
    ran.jobs().enqueue(act(3).queue("b").limited(rate().weight(4))).unwrap();
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [1, 3]);
    ran.engine.advance(Duration::from_millis(1_020));
    ran.engine.run_due().unwrap();
    assert_eq!(ran.take(), [2]);
}

#[test]
fn a_limited_engine_sleeps_until_the_next_may_start() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
    let ids: Vec<JobId> = (0..4)
        .map(|n| jobs.enqueue(act(n).rate("api", 1, Duration::from_millis(50))).unwrap())
        .collect();
    engine.run_until_empty().unwrap();
    assert!(ids.iter().all(|&id| state(&jobs, id) == State::Completed));
    engine.stop(SOON).unwrap();
    let mut started = Vec::new();
    while let Some(event) = events.try_recv() {
        if let Event::Started { id, .. } = event {
            started.push(id);
        }
    }
    assert_eq!(started, ids);
}

// ---- several processes -----------------------------------------------------------------------

/// The witness: each attempt appends a byte as it begins and one as it ends, to a file of its key,
/// while it holds a lock on one of `most` files; to find none free is a breach.
fn under_witness(dir: &Path, key: &str, most: usize) {
    let file = |n: usize| {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        options.open(dir.join(format!("{key}-{n}"))).unwrap()
    };
    // The kernel frees them with the process, as it must be with slots.
    let slot = (0..most).map(file).find(|file| file.try_lock().is_ok());
    if slot.is_none() {
        fs::write(dir.join("breach"), key).unwrap();
    }
    let mut done = OpenOptions::new().create(true).append(true).open(dir.join("done")).unwrap();
    std::hint::black_box((0..20_000_u64).sum::<u64>());
    done.write_all(b".").unwrap();
}

#[test]
#[ignore = "child process"]
fn child_works_under_limits() {
    let Some(path) = common::child_file() else { return };
    let jobs = Jobs::builder(&path).open().unwrap();
    let dir = path.parent().unwrap().to_owned();
    let script = move |act: &Act, _: &Context<Acts>| {
        match act.n % 3 {
            0 => under_witness(&dir, "one", 1),
            1 => under_witness(&dir, "three", 3),
            _ => {
                under_witness(&dir, "one", 1);
                under_witness(&dir, "three", 3);
            }
        }
        Ok(Outcome::Done)
    };
    let pool = Pool::new(["*"]).workers(3);
    let engine = acting(&jobs, script).pool(pool).start().unwrap();
    say("started");
    // It is killed, or works until nothing is left.
    if common::child_role() == "to the end" {
        engine.run_until_empty().unwrap();
        engine.stop(SOON).unwrap();
        return;
    }
    std::thread::park();
}

#[test]
fn never_more_run_at_once_than_the_limit_says_over_four_processes_that_are_killed() {
    let place = place();
    let jobs = place.open();
    const COUNT: i64 = 600;
    jobs.enqueue_many((0..COUNT).map(|n| match n % 3 {
        0 => act(n).limit("one", 1),
        1 => act(n).limit("three", 3),
        _ => act(n).limit("one", 1).limit("three", 3),
    }))
    .unwrap();
    let dir = place.path.parent().unwrap().to_owned();
    let start = |role: &str| {
        let child = Child::start("limits::child_works_under_limits", &place.path, role);
        child.wait_for("started");
        child
    };
    let done = || fs::metadata(dir.join("done")).map_or(0, |file| file.len());
    let mut children: Vec<Child> = (0..4).map(|_| start("until killed")).collect();
    for round in 0..6 {
        let before = done();
        wait_until(|| done() > before + 5 || done() >= COUNT.unsigned_abs());
        children.remove(round % 4).kill();
        children.push(start("until killed"));
    }
    children.into_iter().for_each(|child| drop(child.kill()));
    drop(start("to the end").end());
    assert!(!dir.join("breach").exists(), "more ran at once than may");
    let stats = jobs.stats().unwrap();
    assert_eq!(
        stats.states.get(&State::Completed).copied(),
        Some(COUNT.unsigned_abs()),
        "{stats:?}"
    );
    let (slots, waiting): (i64, i64) = place
        .connect()
        .query_row(
            "SELECT (SELECT count(*) FROM legwork_slots), (SELECT count(*) FROM legwork_jobs)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((slots, waiting), (0, 0), "no slot is lost");
}

#[test]
#[ignore = "child process"]
fn child_calls_at_a_rate() {
    let Some(path) = common::child_file() else { return };
    let jobs = Jobs::builder(&path).open().unwrap();
    let calls = path.parent().unwrap().join("calls");
    let script = move |act: &Act, cx: &Context<Acts>| {
        let now = std::time::SystemTime::now();
        let micros = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let mut calls = OpenOptions::new().create(true).append(true).open(&calls).unwrap();
        calls.write_all(format!("{micros} {}\n", cx.id()).as_bytes()).unwrap();
        if act.n % 10 == 0 {
            say("still there");
        }
        Ok(Outcome::Done)
    };
    let engine = acting(&jobs, script).pool(Pool::new(["*"]).workers(3)).start().unwrap();
    let before = wake_ups();
    engine.run_until_empty().unwrap();
    let woken = wake_ups() - before;
    let woken_by = path.with_file_name(format!("woken-{}", std::process::id()));
    fs::write(woken_by, woken.to_string()).unwrap();
    engine.stop(SOON).unwrap();
}

/// Of this process so far, all its threads taken together.
fn wake_ups() -> u64 {
    #[cfg(target_os = "linux")]
    return crate::idle::switches(std::process::id());
    #[cfg(not(target_os = "linux"))]
    0
}

/// When calls began, in microseconds and in order.
struct Called {
    /// As each has taken the time in its first line, in its own process.
    by_witness: Vec<i64>,
    /// As the file has it, which is what rates go by.
    by_file: Vec<i64>,
    /// From the one to the other, the longest last.
    late: Vec<i64>,
    /// The wake-ups of the process that had most.
    woken: u64,
}

/// Four processes work off `count` calls at ten a second.
fn called_at(count: i64, rate: &Limit) -> Called {
    let place = place();
    let jobs = place.open();
    jobs.enqueue_many((0..count).map(|n| act(n).limited(rate.clone()))).unwrap();
    let start = |_| Child::start("limits::child_calls_at_a_rate", &place.path, "");
    let children: Vec<Child> = (0..4).map(start).collect();
    let woken_by: Vec<_> = children
        .iter()
        .map(|child| place.path.with_file_name(format!("woken-{}", child.id())))
        .collect();
    children.into_iter().for_each(|child| drop(child.end()));
    let woken = |file: &PathBuf| fs::read_to_string(file).unwrap().parse::<u64>().unwrap();
    let woken = woken_by.iter().map(woken).max().unwrap();
    let calls = fs::read_to_string(place.path.parent().unwrap().join("calls")).unwrap();
    let mut called =
        Called { by_witness: Vec::new(), by_file: Vec::new(), late: Vec::new(), woken };
    let conn = place.connect();
    let mut ask = conn.prepare("SELECT started_at FROM legwork_history WHERE id = ?1").unwrap();
    for call in calls.lines() {
        let (micros, id) = call.split_once(' ').unwrap();
        let (began, id): (i64, i64) = (micros.parse().unwrap(), id.parse().unwrap());
        let started: i64 = ask.query_row([id], |row| row.get(0)).unwrap();
        called.by_witness.push(began);
        called.by_file.push(started);
        called.late.push(began - started);
    }
    let Called { by_witness, by_file, late, .. } = &mut called;
    [by_witness, by_file, late].into_iter().for_each(|times| times.sort_unstable());
    assert_eq!(called.by_file.len() as i64, count, "each has run once");
    called
}

fn ten_a_second() -> Limit {
    Limit::rate("api", 10, SECOND)
}

fn most_in_a_second(at: &[i64]) -> usize {
    let in_window =
        |from: &i64| at.iter().filter(|at| (*from..from + 1_000_000).contains(at)).count();
    at.iter().map(in_window).max().unwrap_or(0)
}

#[test]
fn a_rate_holds_over_four_processes() {
    let called = called_at(40, &ten_a_second());
    assert!(most_in_a_second(&called.by_file) <= 11, "{:?}", called.by_file);
    // On a machine that is busy a call may begin late and the next in time.
    assert!(most_in_a_second(&called.by_witness) <= 15, "{:?}", called.by_witness);
}

#[test]
fn a_burst_holds_over_four_processes() {
    let called = called_at(30, &ten_a_second().burst());
    assert!(most_in_a_second(&called.by_file) <= 10, "{:?}", called.by_file);
}

/// A minute at ten a second, `count` calls of it; the most that begin in a second.
fn soak(count: i64, rate: &Limit) -> usize {
    let called = called_at(count, rate);
    let Called { by_witness, by_file, late, woken } = &called;
    let took = by_witness[by_witness.len() - 1] - by_witness[0];
    let (seen, most) = (most_in_a_second(by_witness), most_in_a_second(by_file));
    let late = |share: usize| late[(late.len() - 1) * share / 1000];
    println!(
        "{rate}: {count} calls in {} ms; most in a second: {seen} by the witness, {most} by the file; \
         from the claim to the first line: p50 {} µs, p99 {} µs, longest {} µs; \
         wake-ups a second of a process: {:.1}",
        took / 1000,
        late(500),
        late(990),
        late(1000),
        *woken as f64 / (took as f64 / 1e6)
    );
    assert!(took <= 63_000_000, "more than 5 % went unused: {took}");
    assert!(*woken <= 20 * took.unsigned_abs() / 1_000_000, "{woken} wake-ups");
    seen
}

#[test]
#[ignore = "soak: a minute"]
fn soak_a_rate_holds_for_a_minute_and_hardly_any_of_it_goes_unused() {
    assert!(soak(600, &ten_a_second()) <= 11);
}

#[test]
#[ignore = "soak: a minute"]
fn soak_bursts_hold_for_a_minute_and_hardly_any_of_them_goes_unused() {
    assert!(soak(600, &ten_a_second().burst()) <= 10);
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_lets_no_key_stand_still() {
    for burst in [false, true] {
        for restarted in [false, true] {
            let place = place();
            let ran = Ran::at(&place);
            let minutely = |n| {
                let rate = Limit::rate("api", 1, Duration::from_secs(60));
                act(n).limited(if burst { rate.burst() } else { rate })
            };
            let clock = ran.jobs().clock().clone();
            let start = clock.now();
            clock.set(start + 3_650 * DAY);
            for n in 1..=2 {
                ran.jobs().enqueue(minutely(n)).unwrap();
            }
            assert_eq!(ran.engine.run_due().unwrap(), 1);
            clock.set(start);
            let ran = match restarted {
                false => ran,
                true => {
                    drop(ran);
                    Ran::at(&place)
                }
            };
            let clock = ran.jobs().clock().clone();
            clock.advance(Duration::from_secs(61));
            ran.engine.run_due().unwrap();
            clock.advance(Duration::from_secs(61));
            ran.engine.run_due().unwrap();
            assert_eq!(ran.take().last(), Some(&2), "burst: {burst}, restarted: {restarted}");
            ran.jobs().enqueue(minutely(3)).unwrap();
            clock.advance(Duration::from_secs(61));
            assert_eq!(ran.engine.run_due().unwrap(), 1);
        }
    }
}
