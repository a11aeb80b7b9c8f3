//! The set-wise SQL, held to the table of transitions in `rules::state`.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{StatementStatus, params};

use super::book::{self, Book, Undone};
use super::demand::Demand;
use super::finish as finish_sql;
use super::rescue::Why;
use super::{claim, enqueue, migrate, prune, suspects, unique};
use crate::clock::Random;
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::{NewJob, Retention};
use crate::rules::queues::Queues;
use crate::rules::state::{Change, next};
use crate::state::State;
use crate::store::tray::Tray;
use crate::store::{ClaimRef, Claimed, Control, Finish, PoolSpec, Taken, Verdict};
use crate::unique::{Conflict, Unique};

pub(super) const NOW: i64 = 1_000;

/// A file with one job in `state`.
pub(super) fn with_job_in(state: State) -> Book {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    migrate::migrate(&conn).unwrap();
    conn.execute("INSERT INTO legwork_lanes (id, queue, kind) VALUES (1, 'q', 'k')", []).unwrap();
    conn.execute("UPDATE legwork_counter SET last_job = 1, last_change = 1", []).unwrap();
    if state.is_finished() {
        conn.execute(
            "INSERT INTO legwork_history (id, lane, state, priority, run_at, enqueued_at, attempts,
                                          finished_at, prune_at, args)
             VALUES (1, 1, ?1, 0, 0, 0, 1, 5, 5, '{}')",
            [state.code()],
        )
        .unwrap();
    } else {
        let held = (state == State::Running).then_some(1);
        conn.execute(
            "INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, instance,
                                       token, started_at, args)
             VALUES (1, 1, ?1, 0, 0, 0, ?2, ?2, ?2, '{}')",
            params![state.code(), held],
        )
        .unwrap();
    }
    conn.set_prepared_statement_cache_capacity(super::open::STATEMENTS);
    let mut book = Book::new(conn);
    book.last_token = 1;
    book.lanes.open_pool(
        1,
        PoolSpec {
            instance: 1,
            queues: Queues::parse(&[]).unwrap(),
            kinds: Arc::new(["k".to_owned()].into()),
        },
    );
    assert!(book.begin().unwrap());
    book
}

pub(super) fn state_of(book: &Book) -> State {
    let sql = "SELECT state FROM (SELECT id, state FROM legwork_jobs
                                  UNION ALL SELECT id, state FROM legwork_history) WHERE id = 1";
    let states: Vec<i64> = book
        .conn
        .prepare(sql)
        .and_then(|mut ask| ask.query_map([], |row| row.get(0))?.collect())
        .unwrap();
    assert_eq!(states.len(), 1, "a job stands in exactly one table");
    State::from_code(states[0]).unwrap()
}

fn finish(claim: ClaimRef, verdict: Verdict) -> Finish {
    Finish { started_at: 1, ..Finish::bare(claim, verdict, "w", NOW) }
}

fn claim_next(book: &mut Book, pool: u64) -> Result<Option<Claimed>> {
    book.claim(pool, NOW, &Random::seeded(1), Retention::default(), &mut Vec::new())
}

/// Undergoes `change` by the store's own verb for it.
fn undergo(book: &mut Book, change: Change) -> Result<()> {
    let keep = Retention::default();
    let error = || "e".to_owned();
    let verdict = match change {
        Change::Due => return book.make_due_ready(NOW),
        Change::Start => return claim_next(book, 1).map(drop),
        Change::RunAgain => {
            return book.control(&Control::Retry(vec![JobId(1)]), NOW, keep).map(drop);
        }
        Change::Reschedule | Change::RescheduleLater => {
            let at = if change == Change::Reschedule { NOW } else { 2_000 };
            let reschedule = Control::Reschedule(vec![JobId(1)], at);
            return book.control(&reschedule, NOW, keep).map(drop);
        }
        Change::RunNow => {
            return book.control(&Control::RunNow(vec![JobId(1)]), NOW, keep).map(drop);
        }
        Change::Cancel => {
            let cancel = Control::Cancel { ids: vec![JobId(1)], reason: error() };
            let done = book.control(&cancel, NOW, keep)?;
            if done.asked.is_empty() {
                return Ok(());
            }
            // A running job is asked; its attempt ends as it must then, whatever it says.
            Verdict::Retry { run_at: NOW, error: error() }
        }
        Change::Complete => Verdict::Complete { output: None },
        Change::Retry => Verdict::Retry { run_at: 2_000, error: error() },
        Change::Fail => Verdict::Fail { error: error() },
        Change::Snooze => Verdict::Snooze { run_at: 2_000, untried: false },
        Change::GiveBack => Verdict::GiveBack { why: Some(error()) },
        Change::Quarantine => {
            suspect(book, "[900,950]");
            return rescue(book).map(drop);
        }
        Change::Block => {
            hold_key(book, 4);
            return book.claim(1, NOW, &Random::seeded(1), keep, &mut Vec::new()).map(drop);
        }
        Change::Unblock | Change::UnblockLater => {
            let held = hold_key(book, 4);
            let run_at = if change == Change::Unblock { NOW } else { 2_000 };
            book.conn
                .execute("UPDATE legwork_jobs SET run_at = ?1 WHERE state = 2", [run_at])
                .unwrap();
            return book.free_key(JobId(OTHER), Some(&held), false, NOW);
        }
        Change::Replace | Change::ReplaceLater => {
            hold_key(book, 2);
            book.conn.execute("DELETE FROM legwork_unique WHERE slot = 1", []).unwrap();
            let unique = Unique::by_key("k").on_conflict(Conflict::Replace);
            let delay = Duration::from_micros(if change == Change::Replace { 0 } else { 2_000 });
            let new = serde_json::json!({ "other": "work" });
            let new = NewJob::of_kind("k", new).queue("q").unique(unique);
            let row = new.delay(delay).into_row(NOW, 1_000)?;
            return book.insert(&[row], &mut Demand::default()).map(drop);
        }
    };
    let mine = ClaimRef { id: JobId(1), instance: 1, token: 1 };
    book.finish(&finish(mine, verdict), keep, &mut Demand::default()).map(drop)
}

/// A job beside job 1.
const OTHER: i64 = 99;

/// Gives the job a unique key, of which it has the place that waits, and another one the place that
/// runs.
fn hold_key(book: &Book, hold: i64) -> unique::Held {
    book.conn
        .execute("UPDATE legwork_jobs SET unique_key = 'k', unique_hold = ?1", [hold])
        .unwrap();
    book.conn
        .execute(
            "INSERT INTO legwork_unique (key, slot, job) VALUES ('k', 0, 1), ('k', 1, ?1)",
            [OTHER],
        )
        .unwrap();
    unique::Held::from_columns(Some("k".into()), Some(hold)).unwrap()
}

/// Puts the job under suspicion, if it runs or is ready.
fn suspect(book: &Book, crashes: &str) {
    book.conn
        .execute("UPDATE legwork_jobs SET crashes = ?1 WHERE state IN (3, 4)", [crashes])
        .unwrap();
}

/// The process of instance 1 has died.
fn rescue(book: &mut Book) -> Result<Taken> {
    book.crash_limit = 3;
    let mut taken = Taken::default();
    book.take_over(1, Why::Died, NOW, Retention::default(), &mut taken).map(|()| taken)
}

pub(super) fn crashes_of(book: &Book) -> Option<String> {
    book.conn.query_row("SELECT crashes FROM legwork_jobs WHERE id = 1", [], |r| r.get(0)).unwrap()
}

#[test]
fn a_recorded_end_of_an_attempt_clears_a_suspect_and_only_giving_it_back_does_not() {
    for change in Change::ALL {
        let mut book = with_job_in(State::Running);
        suspect(&book, "[900]");
        if change == Change::Quarantine {
            continue;
        }
        undergo(&mut book, change).unwrap();
        if state_of(&book).is_finished() {
            continue;
        }
        // The rest does nothing to a running job.
        let kept = !matches!(change, Change::Retry | Change::Snooze);
        assert_eq!(crashes_of(&book).is_some(), kept, "{change:?}");
        book.commit().unwrap();
    }
}

#[test]
fn an_instance_that_was_stopped_or_lost_with_its_machine_leaves_suspicion_as_it_is() {
    for why in [Why::Stopped, Why::Lost] {
        for before in [None, Some("[]"), Some("[900,950]")] {
            let mut book = with_job_in(State::Running);
            if let Some(before) = before {
                suspect(&book, before);
            }
            book.crash_limit = 3;
            let mut taken = Taken::default();
            book.take_over(1, why, NOW, Retention::default(), &mut taken).unwrap();
            assert_eq!(taken.rescued, [JobId(1)]);
            assert_eq!(crashes_of(&book).as_deref(), before);
        }
    }
}

#[test]
fn a_death_makes_a_suspect_then_counts_and_with_no_limit_does_neither() {
    let mut book = with_job_in(State::Running);
    rescue(&mut book).unwrap();
    assert_eq!(crashes_of(&book).as_deref(), Some("[]"));
    claim_next(&mut book, 1).unwrap().expect("a suspect is claimed");
    rescue(&mut book).unwrap();
    assert_eq!(crashes_of(&book).as_deref(), Some("[1000]"));

    let mut book = with_job_in(State::Running);
    book.take_over(1, Why::Died, NOW, Retention::default(), &mut Taken::default()).unwrap();
    assert_eq!(crashes_of(&book), None);
}

/// Jobs 2, 3 and so on beside job 1, ready.
fn add_ready(book: &mut Book, jobs: impl IntoIterator<Item = NewJob>) {
    let rows: Vec<_> = jobs.into_iter().map(|job| job.into_row(NOW, 100).unwrap()).collect();
    book.insert(&rows, &mut Demand::default()).unwrap();
}

fn job(kind: &str) -> NewJob {
    NewJob::of_kind_json(kind, "{}").queue("q")
}

pub(super) fn claimed(book: &mut Book, pool: u64) -> Option<i64> {
    claim_next(book, pool).unwrap().map(|claimed| claimed.claim.id.0)
}

#[test]
fn a_suspect_waits_for_the_other_one_and_is_passed_by_everybody_else() {
    let mut book = with_job_in(State::Ready);
    add_ready(&mut book, [job("k"), job("k").priority(1)]);
    book.conn.execute("UPDATE legwork_jobs SET crashes = '[]' WHERE id < 3", []).unwrap();
    book.suspects = true;
    assert_eq!(claimed(&mut book, 1), Some(1));
    assert_eq!(claimed(&mut book, 1), Some(3), "above suspicion, although it comes later");
    assert_eq!(claimed(&mut book, 1), None);
    assert!(book.has_ready(1).unwrap(), "the second suspect waits");
    let end = finish(
        ClaimRef { id: JobId(1), instance: 1, token: 2 },
        Verdict::Complete { output: None },
    );
    book.finish(&end, Retention::default(), &mut Demand::default()).unwrap();
    assert_eq!(claimed(&mut book, 1), Some(2));
    assert!(!book.has_ready(1).unwrap());
}

#[test]
fn suspects_keep_their_place_in_the_claim_order_and_are_found_behind_those_nobody_may_run() {
    let mut book = with_job_in(State::Completed);
    let strange = (0..300).map(|_| job("strange").priority(-1));
    add_ready(&mut book, strange);
    add_ready(&mut book, [job("k").priority(2), job("k").priority(1), job("k").priority(3)]);
    book.conn
        .execute("UPDATE legwork_jobs SET crashes = '[]' WHERE id <> 303 AND id <> 304", [])
        .unwrap();
    book.suspects = true;
    assert!(book.has_ready(1).unwrap());
    assert_eq!(claimed(&mut book, 1), Some(303));
    assert_eq!(claimed(&mut book, 1), Some(302), "the suspect, before what comes after it");
    assert_eq!(claimed(&mut book, 1), Some(304));
    let strange = book.lanes.id("q", "strange", "").unwrap();
    assert!(book.lane_has_ready(strange).unwrap(), "jobs of unknown kinds are reported");
}

#[test]
fn two_instances_of_one_process_run_one_suspect_between_them() {
    for (pid_of_the_other, expected) in [(70, None), (71, Some(2))] {
        let mut book = with_job_in(State::Ready);
        for (id, pid) in [(1, 70), (2, pid_of_the_other)] {
            book.conn
                .execute(
                    "INSERT INTO legwork_instances
                            (id, lock_file, lock_inode, db_path, db_inode, boot_id, pid, pid_start,
                             pid_space, started_at)
                     VALUES (?1, 'f', 1, 'db', 1, 'boot', ?2, 5, 's', 0)",
                    [id, pid],
                )
                .unwrap();
        }
        let kinds = Arc::new(["k".to_owned()].into());
        let queues = Queues::parse(&[]).unwrap();
        book.lanes.open_pool(2, PoolSpec { instance: 2, queues, kinds });
        add_ready(&mut book, [job("k")]);
        suspect(&book, "[]");
        book.suspects = true;
        assert_eq!(claimed(&mut book, 1), Some(1));
        assert_eq!(claimed(&mut book, 2), expected, "process {pid_of_the_other}");
    }
}

#[test]
fn every_verb_changes_states_as_the_table_says_and_no_others() {
    for from in State::ALL {
        for change in Change::ALL {
            let mut book = with_job_in(from);
            undergo(&mut book, change).unwrap();
            let expected = next(from, change).unwrap_or(from);
            assert_eq!(state_of(&book), expected, "{from} {change:?}");
            book.commit().unwrap();
        }
    }
}

#[test]
fn a_finish_with_another_token_or_instance_changes_nothing() {
    for (instance, token) in [(1, 99), (2, 1)] {
        for verdict in [Verdict::Complete { output: None }, Verdict::Fail { error: "e".into() }] {
            let mut book = with_job_in(State::Running);
            let stale = finish(ClaimRef { id: JobId(1), instance, token }, verdict);
            let done = book.finish(&stale, Retention::default(), &mut Demand::default()).unwrap();
            assert_eq!(done, crate::store::Finished::Stale);
            assert_eq!(state_of(&book), State::Running);
        }
    }
}

#[test]
fn illegal_rows_are_refused_by_the_file_itself() {
    let book = with_job_in(State::Ready);
    for set in [
        "state = 4",
        "state = 9",
        "instance = 1",
        "state = 1, instance = 1, token = 1",
        "started_at = 5",
        "args = 'no json'",
        "attempts = -1",
        "priority = 'high'",
        "crashes = 'no json'",
        "crashes = '[]', instance = 1, token = 1",
    ] {
        let changed = book.conn.execute(&format!("UPDATE legwork_jobs SET {set} WHERE id = 1"), []);
        assert!(changed.is_err(), "{set}");
    }
}

#[test]
fn an_operation_that_fails_leaves_the_others_in_its_group_alone() {
    let mut book = with_job_in(State::Completed);
    let good = book
        .operation(|book| book.control(&Control::Retry(vec![JobId(1)]), NOW, Retention::default()));
    assert!(good.is_ok());
    let bad = book.operation(|book| {
        book.lane("new queue", "k", "")?;
        book.conn
            .execute("INSERT INTO legwork_jobs (id) VALUES (1)", [])
            .map_err(super::errors::storing)
    });
    assert!(matches!(bad, Err(Undone::Operation(_))));
    assert_eq!(
        book.lanes.id("new queue", "k", ""),
        None,
        "a lane that was rolled back is unlearnt"
    );
    book.commit().unwrap();
    assert_eq!(state_of(&book), State::Ready);
}
/// A statement that SQLite prepares anew at each use costs ten times its work.
#[test]
fn hot_statements_are_prepared_once() {
    let mut book = with_job_in(State::Ready);
    book.commit().unwrap();
    for round in 0..20 {
        assert!(book.begin().unwrap());
        let job = |delay| {
            NewJob::of_kind_json("k", "{}").queue("q").delay(delay).into_row(NOW, 100).unwrap()
        };
        let rows = [job(Duration::ZERO), job(Duration::from_micros(1 + round))];
        book.insert(&rows, &mut Demand::default()).unwrap();
        book.make_due_ready(NOW + 100).unwrap();
        while let Some(claimed) = claim_next(&mut book, 1).unwrap() {
            let verdict = if claimed.attempts == 0 {
                Verdict::Retry { run_at: NOW, error: "e".into() }
            } else {
                Verdict::Complete { output: None }
            };
            let end = finish(claimed.claim, verdict);
            book.finish(&end, Retention::default(), &mut Demand::default()).unwrap();
            book.make_due_ready(NOW + 100).unwrap();
        }
        add_ready(&mut book, [self::job("k")]);
        suspect(&book, "[]");
        book.suspects = true;
        assert!(claimed(&mut book, 1).is_some());
        rescue(&mut book).unwrap();
        book.conn.execute("DELETE FROM legwork_jobs", []).unwrap();
        book.prune(NOW, 0).unwrap();
        book.commit().unwrap();
        book.has_news().unwrap();
    }
    let [due, retry] = claim::DUE;
    let hot = [claim::NEXT_READY, claim::CLAIM, due, retry, claim::MAKE_READY]
        .into_iter()
        .chain(book::NEXT_DUE)
        .chain([book::NEXT_PRUNE, prune::EXPIRED, enqueue::INSERT])
        .chain([suspects::NEXT_SUSPECT, suspects::RUNS_SUSPECT])
        .chain([
            finish_sql::MOVE_CLAIMED,
            finish_sql::FREE_CLAIMED,
            finish_sql::REMOVE,
            finish_sql::READ_CLAIMED,
        ]);
    for sql in hot {
        let statement = book.conn.prepare_cached(sql).unwrap();
        assert!(statement.get_status(StatementStatus::Run) >= 20, "not run here: {sql}");
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
    }
}

#[test]
fn a_job_that_was_claimed_and_given_back_unstarted_expires_again_and_one_that_had_started_does_not()
{
    let keep = Retention::default();
    for (why, expires) in [(None, true), (Some("interrupted".to_owned()), false)] {
        let mut book = with_job_in(State::Scheduled);
        let row = NewJob::of_kind_json("k", "{}").expires_after(Duration::from_micros(50));
        book.insert(&[row.into_row(NOW, 100).unwrap()], &mut Demand::default()).unwrap();
        assert_eq!(book.next_expiry, Some(NOW + 50));
        let claimed = claim_next(&mut book, 1).unwrap().unwrap();
        book.read_alarms().unwrap();
        assert_eq!(book.next_expiry, None, "the start has cleared it");
        let finish = finish(claimed.claim, Verdict::GiveBack { why });
        book.finish(&finish, keep, &mut Demand::default()).unwrap();
        book.read_alarms().unwrap();
        assert_eq!(book.next_expiry, expires.then_some(NOW + 50));
        let ended = book.expire_due(NOW + 50, keep).unwrap();
        assert_eq!(ended, if expires { vec![claimed.claim.id] } else { vec![] });
    }
}

#[test]
fn a_claim_ends_what_has_expired_and_takes_what_comes_after_it() {
    let mut book = with_job_in(State::Scheduled);
    let job = |expiry| NewJob::of_kind_json("k", "{}").expires_after(Duration::from_micros(expiry));
    let rows = [1, 1, 50].map(|expiry| job(expiry).into_row(NOW - 10, 100).unwrap());
    let ids = book.insert(&rows, &mut Demand::default()).unwrap();
    let (random, mut expired) = (Random::seeded(1), Vec::new());
    let claimed = book.claim(1, NOW, &random, Retention::default(), &mut expired).unwrap();
    assert_eq!(claimed.map(|claimed| claimed.claim.id), Some(ids[2].id()));
    assert_eq!(expired, [ids[0].id(), ids[1].id()]);
}

#[test]
fn what_has_a_gate_or_an_expiry_is_never_claimed_ahead() {
    let plain = || NewJob::of_kind_json("k", "{}");
    let jobs = [plain(), plain().gate("g"), plain().expires_after(Duration::from_secs(1))];
    for (job, ahead) in jobs.into_iter().zip([2, 0, 0]) {
        let mut book = with_job_in(State::Scheduled);
        let rows = vec![job.into_row(NOW, 100).unwrap(); 3];
        book.insert(&rows, &mut Demand::default()).unwrap();
        let tray = Tray::default();
        tray.set_workers(1);
        let first = claim_next(&mut book, 1).unwrap().unwrap();
        // A short job of this lane has been seen.
        tray.began(&first);
        tray.ended(first.claim);
        assert_eq!(book.claim_ahead(1, &tray, &Random::seeded(1)).unwrap().len(), ahead);
    }
}

#[test]
fn closing_and_opening_a_gate_move_no_job() {
    let mut book = with_job_in(State::Scheduled);
    let row = NewJob::of_kind_json("k", "{}").gate("g").into_row(NOW, 100).unwrap();
    book.insert(&vec![row; 1_000], &mut Demand::default()).unwrap();
    let before = book.conn.total_changes();
    book.set_gate("g", Some(NOW)).unwrap();
    assert!(claim_next(&mut book, 1).unwrap().is_none());
    book.set_gate("g", None).unwrap();
    assert_eq!(book.conn.total_changes() - before, 2, "the row of the gate");
    assert!(claim_next(&mut book, 1).unwrap().is_some());
}
