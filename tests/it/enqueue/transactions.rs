//! Jobs that are enqueued in the app's own transaction.

use std::time::Duration;

use legwork::{Error, Filter, JobId, NewJob, State};
use rusqlite::TransactionBehavior;

use super::{any, count, echo, engine};
use crate::common::{SOON, place};

#[test]
fn a_job_enqueued_in_a_transaction_is_invisible_until_it_commits_and_then_starts_uncalled() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    for round in 1..=20 {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
        let id = jobs.enqueue_in(&tx, echo("a")).unwrap();
        assert!(matches!(jobs.get(id), Err(Error::NotFound(_))));
        assert_eq!(count(&jobs), round - 1);
        tx.commit().unwrap();
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn a_job_enqueued_in_a_transaction_that_rolls_back_never_was() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let tx = conn.transaction().unwrap();
    tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
    jobs.enqueue_in(&tx, NewJob::new(echo("gone")).queue("new with it")).unwrap();
    tx.rollback().unwrap();
    assert_eq!(count(&jobs), 0);
    let orders: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 0);
    // The lane that was rolled back with it is made again.
    let id = jobs.enqueue(NewJob::new(echo("there")).queue("new with it")).unwrap();
    jobs.wait(id, SOON).unwrap();
    assert_eq!(jobs.output::<String>(id).unwrap().as_deref(), Some("there"));
    assert_eq!(count(&jobs), 1);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_refused_job_leaves_the_apps_transaction_open_and_whole() {
    let place = place();
    let jobs = place.open();
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let tx = conn.transaction().unwrap();
    tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
    let good = jobs.enqueue_in(&tx, any("k")).unwrap();
    jobs.enqueue_in(&tx, any("")).unwrap_err();
    tx.commit().unwrap();
    assert_eq!(count(&jobs), 1);
    assert_eq!(jobs.get(good).unwrap().kind, "k");
    let orders: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 1);
}

#[test]
fn a_deferred_transaction_that_was_overtaken_is_busy_at_once_and_stays_without_the_job() {
    let place = place();
    let jobs = place.open();
    let mut conn = place.connect();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Deferred).unwrap();
    let seen = |tx: &rusqlite::Connection| {
        tx.query_row("SELECT count(*) FROM legwork_jobs", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(seen(&tx), 0);
    let overtaking = jobs.enqueue(any("k")).unwrap();
    assert!(matches!(jobs.enqueue_in(&tx, any("k")), Err(Error::Busy { .. })));
    assert_eq!(seen(&tx), 0);
    tx.commit().unwrap();
    let there = jobs.list(&Filter::new(), None, 10).unwrap().jobs;
    assert_eq!(there.iter().map(|job| job.id).collect::<Vec<_>>(), [overtaking]);
}

#[test]
fn without_a_transaction_the_job_is_committed_when_enqueue_in_returns() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue_in(&place.connect(), any("k")).unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Ready);
}

#[test]
fn transactions_of_several_threads_beside_plain_verbs_each_start_their_jobs() {
    const THREADS: usize = 4;
    const JOBS: usize = 25;
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let ids: Vec<JobId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (jobs, place) = (&jobs, &place);
                scope.spawn(move || {
                    let mut conn = place.connect();
                    conn.busy_timeout(SOON).unwrap();
                    let mut kept = Vec::new();
                    for round in 0..JOBS {
                        let tx =
                            conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
                        let queue = format!("{}", (thread + round) % 7);
                        let id =
                            jobs.enqueue_in(&tx, NewJob::new(echo("tx")).queue(queue)).unwrap();
                        if round % 3 == 0 {
                            tx.rollback().unwrap();
                        } else {
                            tx.commit().unwrap();
                            kept.push(id);
                        }
                        kept.push(jobs.enqueue(echo("plain")).unwrap());
                    }
                    kept
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for id in &ids {
        assert_eq!(jobs.wait(*id, SOON).unwrap().state, State::Completed);
    }
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
    assert_eq!(count(&jobs), ids.len() as u64);
    engine.stop(SOON).unwrap();
}

#[test]
fn enqueue_beside_the_threads_own_transaction_is_busy_in_time_and_never_happens() {
    let place = place();
    let patience = Duration::from_millis(100);
    let jobs = place.builder().busy_timeout(patience).open().unwrap();
    let mut conn = place.connect();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    match jobs.enqueue(any("never")) {
        // In time: at its time-out, not at the end of the transaction.
        Err(Error::Busy { waited }) => assert!(waited >= patience, "{waited:?}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(jobs.enqueue_many([any("never"), any("never")]), Err(Error::Busy { .. })));
    tx.commit().unwrap();
    let after = jobs.enqueue(any("after")).unwrap();
    let there = jobs.list(&Filter::new(), None, 10).unwrap().jobs;
    assert_eq!(there.iter().map(|job| job.id).collect::<Vec<_>>(), [after]);
}

#[test]
fn the_transaction_verb_commits_enqueues_and_wakes() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs);
    let mut conn = place.connect();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let id = jobs
        .transaction(&mut conn, |tx| {
            tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
            jobs.enqueue_in(tx, echo("a"))
        })
        .unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);

    let failed: Result<(), Error> = jobs.transaction(&mut conn, |tx| {
        tx.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
        jobs.enqueue_in(tx, echo("a"))?;
        Err(Error::Stopped("the test"))
    });
    assert!(matches!(failed, Err(Error::Stopped("the test"))));
    let orders: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!((orders, count(&jobs)), (1, 1));
    engine.stop(SOON).unwrap();
}

#[test]
fn plain_verbs_inside_the_transaction_verb_are_refused_at_once() {
    let place = place();
    let jobs = place.open();
    let id = jobs.enqueue(any("k")).unwrap();
    let mut conn = place.connect();
    let mut other = place.connect();
    jobs.transaction(&mut conn, |_| {
        let refused = |verb: &str, result: Result<(), Error>| match result {
            Err(Error::InTransaction { verb: named }) => assert_eq!(named, verb),
            other => panic!("{verb}: {other:?}"),
        };
        refused("enqueue", jobs.enqueue(any("k")).map(drop));
        refused("enqueue_many", jobs.enqueue_many([any("k")]).map(drop));
        refused("cancel", jobs.cancel(id).map(drop));
        refused("retry", jobs.retry(id).map(drop));
        refused("delete", jobs.delete(id).map(drop));
        refused("pause", jobs.pause(legwork::Scope::All));
        refused("resume", jobs.resume(legwork::Scope::All));
        refused("transaction", jobs.transaction(&mut other, |_| Ok(())));
        // Other threads only have to wait.
        std::thread::scope(|scope| scope.spawn(|| jobs.get(id)).join().unwrap())?;
        Ok::<_, Error>(())
    })
    .unwrap();
    // Afterwards, and after a panic in it, the thread may use them again.
    jobs.enqueue(any("k")).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        jobs.transaction(&mut conn, |_| -> Result<(), Error> { panic!("as told") })
    }));
    assert!(panicked.is_err());
    jobs.enqueue(any("k")).unwrap();
    assert_eq!(count(&jobs), 3);
}

#[test]
fn a_connection_to_another_file_is_foreign() {
    let (here, there) = (place(), place());
    let jobs = here.open();
    drop(there.open());
    for conn in [there.connect(), rusqlite::Connection::open_in_memory().unwrap()] {
        assert!(matches!(jobs.enqueue_in(&conn, any("k")), Err(Error::Foreign { .. })));
    }
    // The same file by another name is the same file.
    let link = there.dir.path().join("link.db");
    std::os::unix::fs::symlink(&here.path, &link).unwrap();
    let conn = rusqlite::Connection::open(&link).unwrap();
    jobs.enqueue_in(&conn, any("k")).unwrap();
    assert_eq!(count(&jobs), 1);
    assert_eq!(count(&there.open()), 0);
}
