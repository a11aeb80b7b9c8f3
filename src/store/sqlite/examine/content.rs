//! The file as SQLite sees it: its schema's version, pages, WAL and soundness.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use rusqlite::{Connection, ErrorCode};

use super::{Examined, damaged, of_error, of_sqlite};
use crate::beside;
use crate::error::Error;
use crate::finding::Finding;
use crate::rules::examine::{self as rules, Pages};
use crate::store::sqlite::errors::{code, storing};
use crate::store::sqlite::migrate;

/// How long a quick check may take.
const QUICK: Duration = Duration::from_secs(5);
/// Errors that a check names.
const NAMED: usize = 5;
/// Since this version a checkpoint can be asked how far it is without doing anything. Older ones would
/// take the word for another one, and write.
const KNOWS_NOOP: i32 = 3_051_000;

/// The version of legwork's part; the first read of the file.
pub(super) fn version(conn: &Connection, path: &Path) -> Result<i64, Finding> {
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(|error| of_sqlite(path, &error))?;
    migrate::version(conn).map_err(|error| of_error("legwork's version", &error))
}

/// `ours`: legwork has its tables in it.
pub(super) fn look(conn: &Connection, path: &Path, full: bool, ours: bool, seen: &mut Examined) {
    let read = journal_mode(conn, ours);
    if let Some(finding) = seen.read("the journal mode", read) {
        seen.found(finding);
    }
    let bytes = fs::metadata(beside::wal(path)).map_or(0, |meta| meta.len());
    seen.found(rules::wal(bytes, unwritten(conn)));
    let read = pages(conn);
    if let Some(pages) = seen.read("the pages", read) {
        seen.found(rules::pages(pages));
    }
    let finding = soundness(conn, full);
    seen.usable &= finding.code != "corrupt";
    seen.found([finding]);
}

fn journal_mode(conn: &Connection, ours: bool) -> Result<Option<Finding>, Error> {
    let mode: String =
        conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(storing)?;
    if mode == "wal" {
        return Ok(None);
    }
    let says = format!("it is in journal mode {mode}");
    let advice = "the next program that opens it with legwork turns it to WAL";
    let finding = if ours {
        Finding::warning("journal_mode", says).advice(format!(
            "{advice}; whoever set it to {mode} should not, and must not have it open then"
        ))
    } else {
        Finding::note("journal_mode", says).advice(advice)
    };
    Ok(Some(finding))
}

fn pages(conn: &Connection) -> Result<Pages, Error> {
    let pragma = |name: &str| -> Result<i64, Error> {
        conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).map_err(storing)
    };
    Ok(Pages {
        auto_vacuum: pragma("auto_vacuum")?,
        size: pragma("page_size")?.unsigned_abs(),
        all: pragma("page_count")?.unsigned_abs(),
        free: pragma("freelist_count")?.unsigned_abs(),
    })
}

/// Bytes in the WAL that are not yet written back.
fn unwritten(conn: &Connection) -> Option<u64> {
    if rusqlite::version_number() < KNOWS_NOOP {
        return None;
    }
    let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).ok()?;
    let (all, written): (i64, i64) = conn
        .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?)))
        .ok()?;
    // -1: it is in no WAL mode, or it cannot be told.
    (all >= 0 && written >= 0).then(|| ((all - written).max(0) * page).unsigned_abs())
}

/// Checks the file: every page and index, or as many pages as there is time for.
fn soundness(conn: &Connection, full: bool) -> Finding {
    let check = || -> rusqlite::Result<Vec<String>> {
        let name = if full { "integrity_check" } else { "quick_check" };
        let mut ask = conn.prepare(&format!("PRAGMA {name}({NAMED})"))?;
        ask.query_map([], |row| row.get(0))?.collect()
    };
    let checked = if full { check() } else { within(conn, QUICK, check) };
    match checked {
        Ok(said) if said == ["ok"] => {
            let how = if full { "every page and index is sound" } else { "every page is sound" };
            Finding::ok("integrity", how)
        }
        Ok(said) => damaged(format!("the file is damaged: {}", said.join("; "))),
        Err(error) if code(&error) == Some(ErrorCode::OperationInterrupted) => Finding::note(
            "integrity",
            format!("nothing wrong in the pages that were checked in {} s", QUICK.as_secs()),
        )
        .advice("check all of it, however long it takes, with --full"),
        Err(error) => of_error("the pages", &storing(error)),
    }
}

/// Runs a query that is interrupted when its time is over.
fn within<T>(
    conn: &Connection,
    limit: Duration,
    query: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let interrupt = conn.get_interrupt_handle();
    let (done, over) = bounded::<()>(0);
    thread::scope(|scope| {
        let timer = thread::Builder::new().name("legwork-timer".into()).spawn_scoped(scope, || {
            if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        if let Err(error) = timer {
            log::debug!("legwork: the check has no end: {error}");
        }
        let result = query();
        drop(done);
        result
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_takes_too_long_is_cut_short() {
        let conn = Connection::open_in_memory().unwrap();
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                       SELECT count(*) FROM n";
        let ended = within(&conn, Duration::from_millis(10), || {
            conn.query_row(endless, [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(code(&ended.unwrap_err()), Some(ErrorCode::OperationInterrupted));
        let one = within(&conn, QUICK, || conn.query_row("SELECT 1", [], |row| row.get(0)));
        assert_eq!(one, Ok(1));
    }
}
