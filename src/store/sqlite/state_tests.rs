//! The set-wise SQL, held to the table of transitions in `rules::state`.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{StatementStatus, params};

use super::book::{self, Book, Undone};
use super::finish as finish_sql;
use super::{claim, enqueue, migrate, prune};
use crate::clock::Random;
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::{NewJob, Retention};
use crate::rules::queues::Queues;
use crate::rules::state::{Change, next};
use crate::state::State;
use crate::store::{ClaimRef, Control, Finish, PoolSpec, Verdict};

const NOW: i64 = 1_000;

/// A file with one job in `state`.
fn with_job_in(state: State) -> Book {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    migrate::migrate(&conn).unwrap();
    conn.execute(
        "INSERT INTO legwork_lanes (id, queue, kind, changed) VALUES (1, 'q', 'k', 1)",
        [],
    )
    .unwrap();
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
    book.next_token = 2;
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

fn state_of(book: &Book) -> State {
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
    Finish {
        claim,
        verdict,
        attempt: 1,
        worker: Arc::from("w"),
        ended_at: NOW,
        keep: None,
        progress: None,
        logs: Vec::new(),
        children: Vec::new(),
        settle: false,
    }
}

/// Undergoes `change` by the store's own verb for it.
fn undergo(book: &mut Book, change: Change) -> Result<()> {
    let keep = Retention::default();
    let error = || "e".to_owned();
    let verdict = match change {
        Change::Due => return book.make_due_ready(NOW),
        Change::Start => return book.claim(1, NOW, &Random::seeded(1)).map(drop),
        Change::RunAgain => {
            return book.control(&Control::Retry(vec![JobId(1)]), NOW, keep).map(drop);
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
        Change::Snooze => Verdict::Snooze { run_at: 2_000 },
        Change::GiveBack => Verdict::GiveBack { why: Some(error()) },
    };
    let mine = ClaimRef { id: JobId(1), instance: 1, token: 1 };
    book.finish(&finish(mine, verdict), keep).map(drop)
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
            let done = book.finish(&stale, Retention::default()).unwrap();
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
        book.lane("new queue", "k")?;
        book.conn.execute("INSERT INTO legwork_jobs (id) VALUES (1)", []).map_err(super::storing)
    });
    assert!(matches!(bad, Err(Undone::Operation(_))));
    assert_eq!(book.lanes.id("new queue", "k"), None, "a lane that was rolled back is unlearnt");
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
        book.insert(&[job(Duration::ZERO), job(Duration::from_micros(1 + round))]).unwrap();
        book.make_due_ready(NOW + 100).unwrap();
        while let Some(claimed) = book.claim(1, NOW, &Random::seeded(1)).unwrap() {
            let verdict = if claimed.attempts == 0 {
                Verdict::Retry { run_at: NOW, error: "e".into() }
            } else {
                Verdict::Complete { output: None }
            };
            book.finish(&finish(claimed.claim, verdict), Retention::default()).unwrap();
            book.make_due_ready(NOW + 100).unwrap();
        }
        book.prune(NOW, 0).unwrap();
        book.commit().unwrap();
        book.has_news().unwrap();
    }
    let [due, retry] = claim::DUE;
    let hot = [claim::NEXT_READY, claim::CLAIM, due, retry, claim::MAKE_READY]
        .into_iter()
        .chain(book::NEXT_DUE)
        .chain([book::NEXT_PRUNE, prune::EXPIRED, enqueue::INSERT])
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
