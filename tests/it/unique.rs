//! Unique jobs: one row a window, whoever asks, and what becomes of a second one.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use legwork::{
    Conflict, Context, Durability, Engine, Enqueued, Error, Event, Failure, Filter, Job, JobId,
    JobResult, Jobs, NewJob, Outcome, Pool, ResultExt, Retention, Selection, State, Unique,
};
use serde::{Deserialize, Serialize};

use crate::common::{self, Child, Place, SOON, place, say, stopped_clock};
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

// ---- windows ---------------------------------------------------------------------------------

#[test]
fn until_finished_a_second_job_is_the_first_and_retries_keep_the_key() {
    let place = place();
    let engine =
        manual(
            &place,
            |act, _| if act.n == 1 { Err(Failure::msg("no")) } else { Ok(Outcome::Done) },
        );
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(1, key())).unwrap();
    assert_eq!(jobs.enqueue(keyed(2, key())).unwrap(), first);
    assert_eq!(jobs.get(first).unwrap().unique_key.as_deref(), Some("k"));
    engine.run_one().unwrap();
    assert_eq!(state(jobs, first), State::Retrying);
    assert_eq!(jobs.enqueue(keyed(2, key())).unwrap(), first);
    engine.drain().unwrap();
    assert_eq!(state(jobs, first), State::Failed);
    let second = jobs.enqueue(keyed(2, key())).unwrap();
    assert_ne!(second, first);
    assert_eq!(args_of(jobs, second), 2);
}

#[test]
fn the_end_in_the_apps_own_transaction_frees_the_key_if_it_commits() {
    let place = place();
    let path = place.path.clone();
    let engine = manual(&place, move |act, cx| {
        let mut conn = rusqlite::Connection::open(&path)?;
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        cx.finish_in(&tx)?;
        if act.n == 1 {
            tx.commit()?;
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(1, key())).unwrap();
    engine.run_one().unwrap();
    assert_eq!(state(jobs, first), State::Completed);
    let second = jobs.enqueue(keyed(2, key())).unwrap();
    assert_ne!(second, first);
    engine.run_one().unwrap();
    assert_eq!(state(jobs, second), State::Retrying);
    assert_eq!(jobs.enqueue(keyed(3, key())).unwrap(), second);
}

#[test]
fn events_tell_of_a_job_that_was_replaced_and_of_a_child_that_was_refused() {
    let place = place();
    let engine = manual(&place, |act, cx| {
        if act.n == 3 {
            cx.enqueue_with_finish(keyed(4, key().on_conflict(Conflict::Reject)))?;
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let events = jobs.events();
    let holder = jobs.enqueue(keyed(1, key()).delay(DAY)).unwrap();
    jobs.enqueue(keyed(2, key().on_conflict(Conflict::Replace)).delay(DAY)).unwrap();
    jobs.enqueue(Act { n: 3 }).unwrap();
    engine.drain().unwrap();
    let told: Vec<Event> = std::iter::from_fn(|| events.try_recv()).collect();
    let (kind, queue) = (Act::KIND.to_owned(), "default".to_owned());
    let replaced = Event::Replaced { id: holder, kind: kind.clone(), queue };
    assert!(told.contains(&replaced), "{told:?}");
    assert!(told.contains(&Event::NotUnique { holder, kind }), "{told:?}");
}

#[test]
fn a_period_stands_after_a_snooze_only_if_the_job_is_not_taken_away() {
    let place = place();
    let engine = manual(&place, |_, _| Ok(Outcome::snooze(DAY)));
    let jobs = engine.jobs();
    let unique = || key().for_period(7 * DAY);
    let first = jobs.enqueue(keyed(1, unique())).unwrap();
    engine.run_one().unwrap();
    assert_eq!((state(jobs, first), jobs.get(first).unwrap().attempts), (State::Scheduled, 0));
    assert_eq!(jobs.enqueue(keyed(2, unique())).unwrap(), first);
    // It has used up no attempt.
    jobs.cancel(first).unwrap();
    assert_ne!(jobs.enqueue(keyed(2, unique())).unwrap(), first);
}

#[test]
fn until_started_the_key_is_free_once_an_attempt_starts() {
    let place = place();
    let unique = || key().until_started();
    let engine = manual(&place, move |act, cx| {
        if act.n == 1 {
            let second = cx.jobs().enqueue(keyed(2, unique()))?;
            assert_ne!(second, cx.id());
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(1, unique())).unwrap();
    assert_eq!(jobs.enqueue(keyed(9, unique())).unwrap(), first);
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 2);
}

#[test]
fn until_started_a_retry_takes_the_key_again_or_is_superseded_by_a_newer_job() {
    for newer in [false, true] {
        let place = place();
        let unique = || key().until_started();
        let engine = manual(&place, move |act, cx| {
            if act.n != 1 {
                return Ok(Outcome::Done);
            }
            if newer && cx.attempt() == 1 {
                cx.jobs().enqueue(keyed(2, unique()))?;
            }
            Err(Failure::msg("no"))
        });
        let jobs = engine.jobs();
        let first = jobs.enqueue(keyed(1, unique())).unwrap();
        engine.run_one().unwrap();
        let record = jobs.get(first).unwrap();
        if newer {
            assert_eq!(record.state, State::Cancelled);
            let second = jobs.list(&Filter::new().state(State::Ready), None, 9).unwrap().jobs;
            assert_eq!(record.reason.unwrap(), format!("superseded by job {}", second[0].id));
        } else {
            assert_eq!(record.state, State::Retrying);
            assert_eq!(jobs.enqueue(keyed(3, unique())).unwrap(), first);
        }
        engine.drain().unwrap();
        assert_ne!(jobs.enqueue(keyed(4, unique())).unwrap(), first, "the key is free again");
    }
}

#[test]
fn a_window_of_seven_days_holds_after_its_job_was_pruned() {
    let place = place();
    let jobs =
        place.builder().clock(stopped_clock()).retention(Retention::all(MINUTE)).open().unwrap();
    let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
    let week = || key().for_period(7 * DAY);
    let first = jobs.enqueue(keyed(1, week())).unwrap();
    engine.run_due().unwrap();
    engine.advance(6 * DAY);
    engine.run_due().unwrap();
    assert!(matches!(jobs.get(first), Err(Error::NotFound(_))), "it was pruned");
    assert_eq!(jobs.enqueue(keyed(2, week())).unwrap(), first);
    assert_eq!(holder(jobs.enqueue(keyed(2, week().on_conflict(Conflict::Reject)))), first);
    engine.advance(DAY);
    let second = jobs.enqueue(keyed(3, week())).unwrap();
    assert_ne!(second, first);
    engine.run_due().unwrap();
    // What is over is removed, too.
    engine.advance(8 * DAY);
    engine.run_due().unwrap();
    jobs.enqueue(Act { n: 4 }).unwrap();
    engine.run_due().unwrap();
    let rows: i64 = place
        .connect()
        .query_row("SELECT count(*) FROM legwork_unique", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn a_period_is_freed_by_a_cancel_or_delete_before_the_first_attempt_and_not_later() {
    let place = place();
    let engine = manual(&place, |_, _| Err(Failure::msg("no")));
    let jobs = engine.jobs();
    let day = || key().for_period(DAY);
    let first = jobs.enqueue(keyed(1, day())).unwrap();
    jobs.cancel(first).unwrap();
    let second = jobs.enqueue(keyed(2, day())).unwrap();
    assert_ne!(second, first);
    jobs.delete(second).unwrap();
    let third = jobs.enqueue(keyed(3, day())).unwrap();
    assert_ne!(third, second);
    engine.run_one().unwrap();
    jobs.cancel(third).unwrap();
    assert_eq!(jobs.enqueue(keyed(4, day())).unwrap(), third);
}

#[test]
fn cancelled_and_deleted_jobs_free_their_key() {
    let place = place();
    let engine = done(&place);
    let jobs = engine.jobs();
    for unique in [key(), key().until_started(), key().on_conflict(Conflict::KeepLast)] {
        let first = jobs.enqueue(keyed(1, unique.clone())).unwrap();
        jobs.cancel(first).unwrap();
        let second = jobs.enqueue(keyed(2, unique.clone())).unwrap();
        assert_ne!(second, first, "{unique:?}");
        jobs.delete(second).unwrap();
        let third = jobs.enqueue(keyed(3, unique.clone())).unwrap();
        assert_ne!(third, second, "{unique:?}");
        engine.run_due().unwrap();
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

// ---- conflicts -------------------------------------------------------------------------------

#[test]
fn each_job_of_a_bulk_is_told_apart_and_a_refusal_refuses_the_whole_of_enqueue_many() {
    let place = place();
    let jobs = place.open();
    let reject = || key().on_conflict(Conflict::Reject);
    let refused = jobs.enqueue_many([keyed(1, reject()), keyed(2, reject())]);
    assert!(matches!(refused, Err(Error::NotUnique { .. })));
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 0);
    let each = jobs
        .enqueue_each([
            keyed(1, reject()),
            keyed(2, reject()),
            keyed(3, key()),
            keyed(4, key().on_conflict(Conflict::Replace)),
            NewJob::new(Act { n: 5 }),
        ])
        .unwrap();
    let first = each[0].id();
    assert_eq!(
        each[..4],
        [
            Enqueued::New(first),
            Enqueued::Rejected { holder: first },
            Enqueued::Existing(first),
            Enqueued::Replaced(first),
        ]
    );
    assert!(each[4].is_new());
    assert_eq!(args_of(&jobs, first), 4);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 2);
}

#[test]
fn replace_gives_a_waiting_job_the_new_arguments_time_and_priority_and_leaves_a_running_one_alone()
{
    let place = place();
    let replace = || key().on_conflict(Conflict::Replace);
    let engine = manual(&place, move |act, cx| {
        if act.n == 3 {
            assert_eq!(cx.jobs().enqueue(keyed(4, replace()))?, cx.id());
            assert_eq!(args_of(cx.jobs(), cx.id()), 3);
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let id = jobs.enqueue(keyed(1, replace()).delay(MINUTE)).unwrap();
    assert_eq!(jobs.enqueue(keyed(2, replace()).priority(-3).delay(2 * MINUTE)).unwrap(), id);
    let record = jobs.get(id).unwrap();
    assert_eq!((record.state, record.priority), (State::Scheduled, -3));
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 0, "its old time is forgotten");
    // Earlier again, and in another queue.
    assert_eq!(jobs.enqueue(keyed(3, replace()).queue("other")).unwrap(), id);
    assert_eq!(jobs.get(id).unwrap().queue, "other");
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(state(jobs, id), State::Completed);
}

#[test]
fn the_apps_own_transaction_obeys_the_same_rules() {
    let place = place();
    let engine = done(&place);
    let jobs = engine.jobs();
    let mut conn = place.connect();
    let tx = conn.transaction().unwrap();
    let first = jobs.enqueue_in(&tx, keyed(1, key())).unwrap();
    assert_eq!(jobs.enqueue_in(&tx, keyed(2, key())).unwrap(), first);
    let reject = keyed(2, key().on_conflict(Conflict::Reject));
    assert_eq!(holder(jobs.enqueue_in(&tx, reject)), first);
    tx.rollback().unwrap();
    let second = jobs.enqueue(keyed(3, key())).unwrap();
    assert_eq!(args_of(jobs, second), 3);
    let tx = conn.transaction().unwrap();
    let replace = keyed(4, key().on_conflict(Conflict::Replace)).delay(MINUTE);
    assert_eq!(jobs.enqueue_in(&tx, replace).unwrap(), second);
    tx.commit().unwrap();
    assert_eq!(engine.run_due().unwrap(), 0);
    engine.advance(MINUTE);
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn a_child_whose_key_is_taken_does_not_harm_its_parents_end() {
    let place = place();
    let engine = manual(&place, |act, cx| {
        if act.n == 1 {
            cx.enqueue_with_finish(keyed(2, key().on_conflict(Conflict::Reject)))?;
            cx.enqueue_with_finish(keyed(3, Unique::by_key("free")))?;
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let other = jobs.enqueue(keyed(9, key()).delay(DAY)).unwrap();
    let parent = jobs.enqueue(Act { n: 1 }).unwrap();
    assert_eq!(engine.run_due().unwrap(), 2);
    assert_eq!(state(jobs, parent), State::Completed);
    assert_eq!(state(jobs, other), State::Scheduled);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 3);
}

// ---- keep last -------------------------------------------------------------------------------

#[test]
fn keep_last_lets_one_run_and_one_wait_with_the_newest_arguments() {
    let place = place();
    let last = || key().on_conflict(Conflict::KeepLast);
    let engine = manual(&place, move |act, cx| {
        if act.n == 1 {
            let second = cx.jobs().enqueue(keyed(2, last()))?;
            assert_ne!(second, cx.id());
            assert_eq!(state(cx.jobs(), second), State::Blocked);
            assert_eq!(cx.jobs().enqueue(keyed(3, last()))?, second);
            assert_eq!((state(cx.jobs(), second), args_of(cx.jobs(), second)), (State::Blocked, 3));
        }
        Ok(Outcome::Done)
    });
    let jobs = engine.jobs();
    let first = jobs.enqueue(keyed(0, last())).unwrap();
    assert_eq!(jobs.enqueue(keyed(1, last())).unwrap(), first);
    engine.run_one().unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 2);
}

#[test]
fn keep_last_supersedes_the_older_one_that_would_run_again() {
    for end in ["fail", "snooze"] {
        let place = place();
        let last = || key().on_conflict(Conflict::KeepLast);
        let engine = manual(&place, move |act, cx| {
            if act.n > 1 {
                return Ok(Outcome::Done);
            }
            cx.jobs().enqueue(keyed(2, last()).delay(MINUTE))?;
            if end == "fail" { Err(Failure::msg("no")) } else { Ok(Outcome::snooze(DAY)) }
        });
        let jobs = engine.jobs();
        let first = jobs.enqueue(keyed(1, last())).unwrap();
        engine.run_one().unwrap();
        let record = jobs.get(first).unwrap();
        assert_eq!(record.state, State::Cancelled, "{end}");
        assert!(record.reason.unwrap().starts_with("superseded by job "));
        // The newer one is no longer blocked, and has its own time.
        assert_eq!(engine.run_due().unwrap(), 0);
        engine.advance(MINUTE);
        assert_eq!(engine.run_due().unwrap(), 1);
    }
}

#[test]
fn keep_last_goes_on_however_the_running_one_ends() {
    for end in ["done", "fatal", "cancel", "finish_in"] {
        let place = place();
        let last = || key().on_conflict(Conflict::KeepLast);
        let path = place.path.clone();
        let engine = manual(&place, move |act, cx| {
            if act.n > 1 {
                return Ok(Outcome::Done);
            }
            cx.jobs().enqueue(keyed(2, last()))?;
            match end {
                "fatal" => Err(std::io::Error::other("no")).fatal(),
                "cancel" => Ok(Outcome::cancel("so")),
                "finish_in" => {
                    let mut conn = rusqlite::Connection::open(&path)?;
                    let tx = conn.transaction()?;
                    cx.finish_in(&tx)?;
                    tx.commit()?;
                    Ok(Outcome::Done)
                }
                _ => Ok(Outcome::Done),
            }
        });
        engine.jobs().enqueue(keyed(1, last())).unwrap();
        assert_eq!(engine.run_due().unwrap(), 2, "{end}");
        let left: i64 = place
            .connect()
            .query_row("SELECT count(*) FROM legwork_unique", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0, "{end}");
    }
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

// ---- several processes -----------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct Noted {
    n: u64,
}

fn ledger(db: &Path) -> std::path::PathBuf {
    db.with_extension("ledger")
}

fn note(db: &Path, line: &str) {
    let ledger = OpenOptions::new().create(true).append(true).open(ledger(db)).unwrap();
    (&ledger).write_all(format!("{line}\n").as_bytes()).unwrap();
}

impl Job for Noted {
    const KIND: &'static str = "noted";
    type State = std::path::PathBuf;

    fn perform(&self, cx: &Context<Self::State>) -> JobResult {
        note(cx.state(), &format!("start {}", self.n));
        if self.n == HANG {
            say(&format!("start {}", cx.id()));
            cx.wait(SOON)?;
        }
        note(cx.state(), &format!("end {}", self.n));
        Ok(Outcome::Done)
    }
}

const HANG: u64 = u64::MAX;
const THREADS: usize = 4;
const PROCESSES: u64 = 4;

fn conflict(word: &str) -> Conflict {
    match word {
        "ignore" => Conflict::Ignore,
        "replace" => Conflict::Replace,
        "reject" => Conflict::Reject,
        _ => Conflict::KeepLast,
    }
}

fn window(word: &str, unique: Unique) -> Unique {
    match word {
        "started" => unique.until_started(),
        "period" => unique.for_period(DAY),
        _ => unique,
    }
}

/// Enqueues as told by lines "conflict window key count", with all its threads at once; with
/// "engine" in its role it runs the jobs, too.
#[test]
#[ignore = "child process of the tests of unique jobs"]
fn enqueuer() {
    let Some(db) = common::child_file() else { return };
    let jobs =
        Jobs::builder(&db).durability(Durability::Relaxed).busy_timeout(SOON).open().unwrap();
    let engine = common::child_role().contains("engine").then(|| {
        Engine::builder(&jobs)
            .state(db.clone())
            .register::<Noted>()
            .pool(Pool::new(["*"]).workers(3))
            .crash_limit(0)
            .start()
            .unwrap()
    });
    say("ready");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let [how, held, key, from, count] = words[..] else { break };
        let (from, count): (u64, u64) = (from.parse().unwrap(), count.parse().unwrap());
        let new = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS as u64 {
                let (jobs, new) = (&jobs, &new);
                scope.spawn(move || {
                    for n in 0..count {
                        let n = from + thread * count + n;
                        let unique = window(held, Unique::by_key(key)).on_conflict(conflict(how));
                        let done =
                            jobs.enqueue_each([NewJob::new(Noted { n }).unique(unique)]).unwrap();
                        new.fetch_add(u64::from(done[0].is_new()), Ordering::Relaxed);
                    }
                });
            }
        });
        say(&format!("new {}", new.into_inner()));
    }
    if let Some(engine) = engine {
        engine.stop(SOON).unwrap();
    }
    say("ended");
}

fn children(place: &Place, role: &str) -> Vec<Child> {
    let children: Vec<Child> =
        (0..PROCESSES).map(|_| Child::start("unique::enqueuer", &place.path, role)).collect();
    children.iter().for_each(|child| drop(child.wait_for("ready")));
    children
}

/// All of them at once; how many jobs are new.
fn storm(children: &mut [Child], what: &str, from: u64, count: u64) -> u64 {
    for (child, process) in children.iter_mut().zip(0..) {
        let from = from + process * THREADS as u64 * count;
        child.tell(&format!("{what} {from} {count}"));
    }
    let new = |child: &Child| -> u64 {
        child.wait_for("new").rsplit(' ').next().unwrap().parse().unwrap()
    };
    children.iter().map(new).sum()
}

#[test]
fn sixteen_threads_in_four_processes_enqueue_a_key_once_in_every_mode_and_window() {
    let place = place();
    let jobs = place.open();
    let mut children = children(&place, "");
    let mut asked = 0;
    for how in ["ignore", "replace", "reject", "keep_last"] {
        for held in ["started", "finished", "period"] {
            let key = format!("{how}-{held}");
            let count = 53;
            asked += PROCESSES * THREADS as u64 * count;
            assert_eq!(storm(&mut children, &format!("{how} {held} {key}"), 0, count), 1, "{key}");
            let rows: i64 = place
                .connect()
                .query_row(
                    "SELECT count(*) FROM legwork_jobs WHERE unique_key = ?1",
                    [&key],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(rows, 1, "{key}");
        }
    }
    assert!(asked > 10_000, "{asked}");
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 12);
    for mut child in children {
        child.tell("end");
        child.end();
    }
}

#[test]
fn keep_last_never_runs_two_at_once_and_ends_with_the_newest_arguments() {
    let place = place();
    let jobs = place.open();
    let mut children = children(&place, "engine");
    let mut new = 0;
    for round in 0..10 {
        new += storm(&mut children, "keep_last finished k", round * 1_000, 20);
    }
    let last = Unique::by_key("k").on_conflict(Conflict::KeepLast);
    let newest = jobs.enqueue(NewJob::new(Noted { n: 77_777 }).unique(last)).unwrap();
    assert_eq!(jobs.wait(newest, SOON).unwrap().state, State::Completed);
    for mut child in children {
        child.tell("end");
        child.end();
    }
    let text = std::fs::read_to_string(ledger(&place.path)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [start, end] = pair else { panic!("a start without its end") };
        assert_eq!(start.replace("start", "end"), *end, "two ran at once");
    }
    assert_eq!(lines.last(), Some(&"end 77777"));
    assert!(new > 2, "{new} were enqueued, that was no race");
    eprintln!("{} ran of {new} new and 3200 asked for", lines.len() / 2);
}

#[test]
fn a_rescued_job_takes_its_key_again_or_is_superseded() {
    for (how, held) in [("ignore", "started"), ("keep_last", "finished"), ("ignore", "finished")] {
        for newer in [false, true] {
            let place = place();
            let jobs = place.open();
            let unique = || window(held, Unique::by_key("k")).on_conflict(conflict(how));
            let child = Child::start("unique::enqueuer", &place.path, "engine");
            child.wait_for("ready");
            let first = jobs.enqueue(NewJob::new(Noted { n: HANG }).unique(unique())).unwrap();
            child.wait_for("start");
            // Not now: the dying process must not be the one that runs it.
            let later = NewJob::new(Noted { n: 2 }).unique(unique()).delay(DAY);
            let second = newer.then(|| jobs.enqueue(later).unwrap());
            child.kill();
            // Whoever comes next takes over what the dead one held.
            let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).crash_limit(0).manual().unwrap();
            let record = jobs.get(first).unwrap();
            match second.filter(|second| *second != first) {
                Some(second) => {
                    assert_eq!(record.state, State::Cancelled, "{how} {held}");
                    assert_eq!(record.reason.unwrap(), format!("superseded by job {second}"));
                    assert_eq!(state(&jobs, second), State::Scheduled);
                }
                None => {
                    assert_eq!(record.state, State::Ready, "{how} {held}");
                    let third = jobs.enqueue(NewJob::new(Noted { n: 3 }).unique(unique())).unwrap();
                    assert_eq!(third, first);
                }
            }
            drop(engine);
        }
    }
}

#[test]
fn a_job_that_gets_new_arguments_forgets_the_steps_of_the_old_ones() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let charged = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = std::sync::Arc::clone(&charged);
    let engine = acting(&jobs, move |act, cx| {
        let sum: i64 = cx.step("charge", || Ok(act.n))?;
        all.lock().unwrap().push((act.n, sum));
        if act.n == 1 { Err(Failure::msg("later")) } else { Ok(Outcome::Done) }
    })
    .manual()
    .unwrap();
    let job = |n| NewJob::new(Act { n }).unique(Unique::by_key("k").on_conflict(Conflict::Replace));
    let id = jobs.enqueue(job(1)).unwrap();
    engine.run_due().unwrap();
    assert_eq!(jobs.steps(id).unwrap().len(), 1);
    assert_eq!(jobs.enqueue(job(2)).unwrap(), id);
    engine.advance(MINUTE);
    engine.run_due().unwrap();
    assert_eq!(*charged.lock().unwrap(), [(1, 1), (2, 2)]);
}

#[test]
fn a_job_that_can_no_longer_start_holds_its_key_no_longer() {
    for conflict in [Conflict::Ignore, Conflict::Reject, Conflict::Replace, Conflict::KeepLast] {
        let place = place();
        // Nobody is there to end it.
        let clock = stopped_clock();
        let jobs = place.builder().clock(clock.clone()).open().unwrap();
        let unique = || key().on_conflict(conflict);
        let late = jobs.enqueue(keyed(1, unique()).expires_after(MINUTE)).unwrap();
        clock.advance(2 * MINUTE);
        let new = jobs.enqueue(keyed(2, unique())).unwrap();
        assert!(new > late, "{conflict:?}");
        let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
        engine.drain().unwrap();
        assert_eq!((state(&jobs, late), state(&jobs, new)), (State::Cancelled, State::Completed));
    }
}

#[test]
fn a_period_that_a_wrong_clock_began_is_over_once_the_clock_is_right() {
    let place = place();
    let clock = stopped_clock();
    let jobs = place.builder().clock(clock.clone()).open().unwrap();
    let hourly = || key().for_period(60 * MINUTE);
    clock.advance(3_650 * DAY);
    let wrong = jobs.enqueue(keyed(1, hourly())).unwrap();
    clock.set(clock.now() - 30 * MINUTE);
    assert_eq!(jobs.enqueue(keyed(2, hourly())).unwrap(), wrong, "a clock that is set a little");
    clock.set(clock.now() - 3_650 * DAY);
    let right = jobs.enqueue(keyed(2, hourly())).unwrap();
    assert!(right > wrong);
    assert_eq!(jobs.enqueue(keyed(3, hourly())).unwrap(), right);
}

#[test]
fn a_job_that_may_replace_another_has_no_parents_of_its_own() {
    let place = place();
    let jobs = place.open();
    let parent = jobs.enqueue(Act { n: 1 }).unwrap();
    for conflict in [Conflict::Replace, Conflict::KeepLast] {
        let job = keyed(2, key().on_conflict(conflict)).after([parent]);
        assert!(matches!(jobs.enqueue(job), Err(Error::Invalid { what: "parents", .. })));
    }
    jobs.enqueue(keyed(2, key()).after([parent])).unwrap();
}

#[test]
fn what_takes_the_place_of_another_job_is_new_work() {
    for conflict in [Conflict::Replace, Conflict::KeepLast] {
        let place = place();
        let engine = manual(&place, |act, cx| {
            cx.progress(1, 2);
            cx.step("a", || Ok(1))?;
            if act.n == 9 { Ok(Outcome::Done) } else { Err(Failure::msg("no")) }
        });
        let jobs = engine.jobs();
        let unique = || key().on_conflict(conflict);
        let id = jobs.enqueue(keyed(1, unique())).unwrap();
        engine.run_one().unwrap();
        assert_eq!(state(jobs, id), State::Retrying);
        // The wait for the retry is over, and the attempts are its own.
        assert_eq!(jobs.enqueue(keyed(2, unique()).delay(MINUTE)).unwrap(), id);
        let job = jobs.get(id).unwrap();
        assert_eq!((job.state, job.attempts, job.progress), (State::Scheduled, 0, None));
        assert_eq!(jobs.steps(id).unwrap(), []);
        engine.advance(MINUTE);
        engine.run_one().unwrap();
        assert_eq!((state(jobs, id), jobs.get(id).unwrap().attempts), (State::Retrying, 1));
        assert_eq!(jobs.enqueue(keyed(9, unique())).unwrap(), id);
        assert_eq!(engine.run_due().unwrap(), 1);
        assert_eq!(state(jobs, id), State::Completed);
    }
}
