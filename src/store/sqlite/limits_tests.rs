//! Lines and expiry, seen from inside: what the writer keeps of them in memory.

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
use crate::store::{Claimed, Control, Finish, PoolSpec, Verdict};

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
pub(super) fn joined_by_another(book: &mut Book) {
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

// ---- rates and clocks ------------------------------------------------------------------------

const HOUR: Duration = Duration::from_secs(3_600);

fn hourly() -> NewJob {
    job().rate("k", 1, HOUR)
}

fn next_transaction(book: &mut Book, now: Micros) {
    book.advance(now).unwrap();
    book.commit().unwrap();
    assert!(book.begin().unwrap());
}

#[test]
fn each_of_two_rates_with_one_key_holds_beside_the_other() {
    let often = || job().rate("k", 10, SECOND);
    let (mut book, ids) = with([hourly(), hourly(), often(), often(), often()]);
    let mut started = Vec::new();
    for tick in 0..100 {
        let now = NOW + tick * 50_000;
        book.advance(now).unwrap();
        while let Some(claimed) = claim(&mut book, now) {
            started.push(claimed.claim.id);
        }
        next_transaction(&mut book, now);
    }
    assert_eq!(
        started,
        [ids[0], ids[2], ids[3], ids[4]],
        "one an hour, and the others at their pace"
    );
}

#[test]
fn a_small_step_back_of_the_clock_gives_no_start_away() {
    let start = 10_000 * NOW;
    let (mut book, _) = with([hourly(), hourly()]);
    assert!(claim(&mut book, start).is_some());
    next_transaction(&mut book, start);
    let back = start - 2_000_000;
    book.advance(back).unwrap();
    assert!(claim(&mut book, back).is_none());
}

/// The clock was an hour ahead as one of two started; whether the other one starts soon, if this
/// happens to the first transaction by the right clock.
fn starts_after_a_step_back(what: impl FnOnce(&mut Book)) -> bool {
    let (mut book, _) = with([job().rate("k", 1, SECOND), job().rate("k", 1, SECOND)]);
    let ahead = NOW + 3_600 * NOW;
    assert!(claim(&mut book, ahead).is_some());
    next_transaction(&mut book, ahead);
    what(&mut book);
    (1..10).any(|second| {
        let now = NOW + second * 1_000_000;
        let looks = book.clock_went_back(now) || book.next_look.is_some_and(|at| at <= now);
        if looks {
            book.advance(now).unwrap();
        }
        looks && claim(&mut book, now).is_some()
    })
}

#[test]
fn a_step_back_that_is_seen_in_vain_is_seen_again() {
    assert!(starts_after_a_step_back(|_| {}));
    assert!(starts_after_a_step_back(|book| moves_on_in_vain(book, NOW)));
    assert!(starts_after_a_step_back(|book| {
        book.advance(NOW).unwrap();
        book.roll_back();
        assert!(book.begin().unwrap());
    }));
}

// ---- expiry ----------------------------------------------------------------------------------

#[test]
fn a_give_back_that_is_rolled_back_loses_no_expiry() {
    let (mut book, _) = with([job().expires_after(HOUR)]);
    let claimed = claim(&mut book, NOW).unwrap();
    next_transaction(&mut book, NOW);
    let back = Verdict::GiveBack { why: None };
    let finish = Finish::bare(claimed.claim, back, "w", NOW);
    for _ in 0..2 {
        book.roll_back();
        assert!(book.begin().unwrap());
        book.finish(&finish, Retention::default(), &mut Demand::default()).unwrap();
        let expires = "SELECT expires_at IS NOT NULL FROM legwork_jobs";
        assert!(book.conn.query_row(expires, [], |row| row.get::<_, bool>(0)).unwrap());
    }
    book.commit().unwrap();
    assert!(book.expiring.is_empty());
}
