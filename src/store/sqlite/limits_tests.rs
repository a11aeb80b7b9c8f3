//! Lines, seen from inside: what the writer keeps of them in memory.

use std::sync::Arc;
use std::time::Duration;

use super::book::{Book, Undone};
use super::demand::Demand;
use super::migrate;
use crate::clock::{Micros, Random};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::new_job::{NewJob, Retention};
use crate::rules::queues::Queues;
use crate::store::{Claimed, Control, PoolSpec};

const NOW: Micros = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// A file with these jobs and a pool for them, in its second transaction.
fn with(jobs: impl IntoIterator<Item = NewJob>) -> (Book, Vec<JobId>) {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    migrate::migrate(&conn).unwrap();
    let mut book = Book::new(conn);
    let spec = PoolSpec {
        instance: 1,
        queues: Queues::parse(&[]).unwrap(),
        kinds: Arc::new(["k".to_owned()].into()),
    };
    book.open_pool(1, spec);
    assert!(book.begin().unwrap());
    let rows: Vec<_> = jobs.into_iter().map(|job| job.into_row(NOW, 100).unwrap()).collect();
    let ids = book.insert(&rows, &mut Demand::default()).unwrap();
    book.advance(NOW).unwrap();
    book.commit().unwrap();
    assert!(book.begin().unwrap());
    (book, ids.into_iter().map(|id| id.id()).collect())
}

fn job() -> NewJob {
    NewJob::of_kind_json("k", "{}")
}

fn claim(book: &mut Book, now: Micros) -> Option<Claimed> {
    book.claim(1, now, &Random::seeded(1), Retention::default(), &mut Vec::new()).unwrap()
}

/// Moves the lines on, and then fails.
fn moves_on_in_vain(book: &mut Book, now: Micros) {
    let failed = book.operation(|book| -> Result<()> {
        book.advance(now)?;
        Err(Error::invalid("test", "it fails"))
    });
    assert!(matches!(failed, Err(Undone::Operation(_))));
}

#[test]
fn a_line_that_an_operation_has_moved_on_in_vain_is_moved_on_after_it() {
    let (mut book, ids) = with([job().limit("k", 1), job().limit("k", 1)]);
    let cancel = Control::Cancel { ids: vec![ids[0]], reason: "no".to_owned() };
    book.control(&cancel, NOW, Retention::default()).unwrap();
    moves_on_in_vain(&mut book, NOW);
    book.advance(NOW).unwrap();
    assert_eq!(claim(&mut book, NOW).map(|claimed| claimed.claim.id), Some(ids[1]));
}

#[test]
fn an_operation_that_fails_puts_no_alarm_of_a_line_off() {
    let (mut book, ids) = with([job().rate("k", 1, SECOND), job().rate("k", 1, SECOND)]);
    assert!(claim(&mut book, NOW).is_some());
    let look = book.next_look.expect("the second one waits for its time");
    moves_on_in_vain(&mut book, look);
    assert_eq!(book.next_look, Some(look));
    book.advance(look).unwrap();
    assert_eq!(claim(&mut book, look).map(|claimed| claimed.claim.id), Some(ids[1]));
}

/// Another process has an engine here from now on.
fn joined_by_another(book: &mut Book) {
    let sql =
        "INSERT INTO legwork_instances (id, lock_file, lock_inode, db_path, db_inode, boot_id,
                                              pid, pid_start, pid_space, started_at)
               VALUES (9, 'other.lock', 1, '/other.db', 1, 'boot', 1, 1, 1, 1)";
    book.conn.execute(sql, []).unwrap();
    book.roster_moved();
    book.commit().unwrap();
    assert!(book.begin().unwrap());
}

#[test]
fn others_are_rung_for_what_is_next_unless_it_is_claimed_at_once() {
    for claims in [true, false] {
        let (mut book, _) = with([job().rate("k", 1, SECOND), job().rate("k", 1, SECOND)]);
        joined_by_another(&mut book);
        assert!(claim(&mut book, NOW).is_some());
        let look = book.next_look.unwrap();
        book.commit().unwrap();
        assert!(book.begin().unwrap());
        book.advance(look).unwrap();
        assert_eq!(claims, claims && claim(&mut book, look).is_some());
        assert_eq!(book.commit().unwrap(), !claims, "rung");
    }
}
