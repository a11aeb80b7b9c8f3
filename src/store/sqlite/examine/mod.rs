//! An examination: looks at a file that may be in any state, and changes nothing of it.
//!
//! It opens the file by SQLite alone and reads; of the files around it, it asks the metadata. What cannot
//! be looked at is a finding, too.

mod content;
mod files;
mod jobs;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::errors::{code, is_busy};
use super::open::plain;
use super::{migrate, version};
use crate::beside;
use crate::clock::Micros;
use crate::error::Error;
use crate::finding::Finding;
use crate::rules::examine as rules;
#[cfg(feature = "cron")]
use crate::store::cron::CronRow;

/// How long it waits for a lock.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the store has found, and what others have to judge.
#[derive(Default)]
pub(crate) struct Examined {
    pub(crate) usable: bool,
    pub(crate) findings: Vec<Finding>,
    /// The kinds that engines have recorded.
    pub(crate) kinds: Vec<String>,
    #[cfg(feature = "cron")]
    pub(crate) crons: Vec<CronRow>,
}

impl Examined {
    fn found(&mut self, finding: impl IntoIterator<Item = Finding>) {
        self.findings.extend(finding);
    }

    /// A problem that leaves nothing more to look at.
    fn unusable(mut self, finding: Finding) -> Examined {
        self.usable = false;
        self.found([finding]);
        self
    }

    /// What was found in a part of the file, or that it could not be read.
    fn found_in(&mut self, what: &str, found: Result<Vec<Finding>, Error>) {
        let found = self.read(what, found);
        self.found(found.into_iter().flatten());
    }

    /// What was read, or a finding that it could not be.
    fn read<T>(&mut self, what: &str, read: Result<T, Error>) -> Option<T> {
        read.map_err(|error| self.found([of_error(what, &error)])).ok()
    }
}

/// Looks at a file; `full`: at every page and index of it, however long that takes.
pub(crate) fn examine(given: &Path, full: bool, now: Micros) -> Examined {
    let mut seen = Examined { usable: true, ..Examined::default() };
    seen.found([version::finding(rusqlite::version_number())]);
    if let Err(finding) = stands_there(given) {
        return seen.unusable(finding);
    }
    let path = fs::canonicalize(given).unwrap_or_else(|_| given.to_owned());
    seen.usable = files::look(&path, &mut seen);
    let conn = match open(&path) {
        Ok(conn) => conn,
        Err(error) => return seen.unusable(of_sqlite(&path, &error)),
    };
    let version = match content::version(&conn, &path) {
        Ok(version) => version,
        Err(finding) => return seen.unusable(finding),
    };
    let (schema, known) = rules::schema(version, migrate::KNOWN);
    seen.found([schema]);
    seen.usable &= known;
    content::look(&conn, &path, full, version > 0, &mut seen);
    if known && version > 0 {
        jobs::look(&conn, &path, now, &mut seen);
    }
    seen
}

fn stands_there(path: &Path) -> Result<(), Finding> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            Err(Finding::problem("foreign", "it is a directory").advice("name the database"))
        }
        Ok(meta) if meta.len() == 1 => Err(not_sqlite()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Finding::problem("missing", format!("there is no {}", path.display()))
                .advice("`legwork work`, `enqueue` and `run` create a database"))
        }
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Opens it without changing it. A connection that can only read leaves `-wal` and `-shm` behind where
/// there were none; one that could write would write back what stands in a `-wal`, or roll back what
/// stands in a `-journal`.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let holds =
        |suffix: &str| fs::metadata(beside::with(path, suffix)).is_ok_and(|meta| meta.len() > 0);
    let how = if holds("-wal") || holds("-journal") {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    let conn = Connection::open_with_flags(plain(path), how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(PATIENCE)?;
    conn.execute_batch("PRAGMA query_only = 1")?;
    Ok(conn)
}

/// `<db>` and a suffix.
fn not_sqlite() -> Finding {
    Finding::problem("foreign", "it is not an SQLite database")
        .advice("name the database with --db FILE or LEGWORK_DB")
}

fn unreadable(why: String) -> Finding {
    Finding::problem("unreadable", format!("it cannot be opened: {why}"))
        .advice("see who owns the file and its directory")
}

fn damaged(says: String) -> Finding {
    Finding::problem("corrupt", says)
        .advice("restore a backup; what can still be read `sqlite3 FILE .recover` brings out")
}

/// Why the file could not be opened or read at all.
fn of_sqlite(path: &Path, error: &rusqlite::Error) -> Finding {
    use rusqlite::ErrorCode as Code;
    match code(error) {
        Some(Code::NotADatabase) => not_sqlite(),
        Some(Code::DatabaseCorrupt) => damaged(format!("the file is damaged: {error}")),
        _ if is_busy(error) => {
            Finding::problem("busy", "another program holds an exclusive lock on it")
                .advice("end that program, or wait for it")
        }
        _ if fs::metadata(beside::with(path, "-journal")).is_ok_and(|meta| meta.len() > 0) => {
            Finding::problem("hot_journal", "a write was interrupted, and its -journal waits")
                .advice("open it with the program that wrote it: SQLite then undoes that write")
        }
        _ => unreadable(error.to_string()),
    }
}

/// Why a part of the file could not be read.
fn of_error(what: &str, error: &Error) -> Finding {
    match error {
        Error::Corrupt(_) => damaged(format!("reading {what}: {error}")).of(what),
        Error::Busy { .. } => {
            Finding::warning("busy", format!("{what} could not be read: the file is locked"))
                .of(what)
                .advice("look again in a moment")
        }
        _ => Finding::problem("unreadable", format!("reading {what}: {error}"))
            .of(what)
            .advice("another program may have changed legwork's tables: restore a backup"),
    }
}
