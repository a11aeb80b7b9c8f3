//! The tripwire: was the database, or its `-wal`, removed or replaced while it is open here?
//!
//! SQLite goes on writing to a file that has lost its name, and its commits succeed: they are gone
//! with the last descriptor. The same happens to a `-wal` that another process deletes because it
//! believes to be the last one. So after its commits the writer compares which files stand under the two
//! names with those that stood there when it opened them. Only `stat` is used: closing any
//! descriptor of these files would drop SQLite's locks on them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use super::book::Book;
use crate::beside;
use crate::error::{Error, Result};

/// How often is looked after groups that are not synced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells a file from another under the same name: device and inode.
#[cfg(unix)]
type FileId = (u64, u64);
#[cfg(not(unix))]
type FileId = std::convert::Infallible;

pub(super) struct Tripwire {
    path: PathBuf,
    wal: PathBuf,
    path_seen: OnceLock<FileId>,
    wal_seen: OnceLock<FileId>,
    looked: Mutex<Option<Instant>>,
    /// What was found wrong; nothing makes it good again.
    sprung: OnceLock<&'static str>,
}

impl Tripwire {
    /// Remembers the files of a database that is open already, so that its `-wal` exists. Off where
    /// files have no inodes.
    pub(super) fn new(path: &Path) -> Tripwire {
        let wire = Tripwire {
            path: path.to_owned(),
            wal: beside::wal(path),
            path_seen: OnceLock::new(),
            wal_seen: OnceLock::new(),
            looked: Mutex::new(None),
            sprung: OnceLock::new(),
        };
        // Missing already is found by the first check.
        remember(&wire.path, &wire.path_seen);
        remember(&wire.wal, &wire.wal_seen);
        wire
    }

    /// Looks at both names now.
    ///
    /// # Errors
    /// [`Error::Gone`], and from then on always.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = look(&self.path, &self.path_seen)
            .map(|wrong| {
                wrong.of("the database file was removed", "the database file was replaced")
            })
            .or_else(|| {
                look(&self.wal, &self.wal_seen)
                    .map(|wrong| wrong.of("its -wal was removed", "its -wal was replaced"))
            });
        if let Some(wrong) = wrong {
            // The first finding stays.
            let _ = self.sprung.set(wrong);
        }
        self.sprung().map_or(Ok(()), Err)
    }

    /// Looks after a commit and before its acknowledgement: each time if the commit was synced,
    /// otherwise once a second.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub(super) fn after_commit(&self, synced: bool) -> Result<()> {
        let now = Instant::now();
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if !synced && looked.is_some_and(|at| now - at < LOOK_EVERY) {
            return self.sprung().map_or(Ok(()), Err);
        }
        *looked = Some(now);
        drop(looked);
        self.check()
    }

    /// How large the `-wal` is.
    pub(super) fn wal_size(&self) -> u64 {
        fs::metadata(&self.wal).map_or(0, |meta| meta.len())
    }

    /// What an earlier check has found.
    pub(super) fn sprung(&self) -> Option<Error> {
        self.sprung.get().map(|why| Error::Gone { path: self.path.clone(), why })
    }
}

impl Book {
    /// Leaves the WAL as it is when the connection closes. Otherwise the last one writes it back into
    /// the database and removes `-wal` by its name; if the file is gone, what stands there now may be
    /// newer, and another's.
    pub(super) fn leave_wal(&self) {
        if let Err(error) =
            self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            log::warn!("legwork: the file may be written to when it is closed: {error}");
        }
    }
}

/// How a name no longer stands for the file that is open.
enum Wrong {
    Missing,
    Other,
}

impl Wrong {
    fn of(&self, missing: &'static str, other: &'static str) -> &'static str {
        match self {
            Wrong::Missing => missing,
            Wrong::Other => other,
        }
    }
}

fn remember(path: &Path, seen: &OnceLock<FileId>) {
    if let Ok(Some(id)) = id_of(path) {
        let _ = seen.set(id);
    }
}

fn look(path: &Path, seen: &OnceLock<FileId>) -> Option<Wrong> {
    match id_of(path) {
        Ok(Some(id)) => (*seen.get_or_init(|| id) != id).then_some(Wrong::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Wrong::Missing),
        // Not allowed to look, or nothing to compare.
        Ok(None) | Err(_) => None,
    }
}

/// Asks for the inode and no more. A kernel that has told somebody the time of a file's last change
/// writes a new time with the next one, and then each sync of the `-wal` has an inode to write, too: 80
/// of 290 µs on Linux 6.18.
#[cfg(target_os = "linux")]
fn id_of(path: &Path) -> io::Result<Option<FileId>> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    use rustix::io::Errno;
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(found) => {
            let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
            Ok(Some((device, found.stx_ino)))
        }
        // Before Linux 4.11, and in sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => id_with_times(path),
        Err(error) => Err(error.into()),
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
use id_with_times as id_of;

#[cfg(unix)]
fn id_with_times(path: &Path) -> io::Result<Option<FileId>> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|meta| Some((meta.dev(), meta.ino())))
}

#[cfg(not(unix))]
fn id_of(_: &Path) -> io::Result<Option<FileId>> {
    Ok(None)
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (db, wal) = (dir.path().join("x.db"), dir.path().join("x.db-wal"));
        fs::write(&db, b"db").unwrap();
        fs::write(&wal, b"wal").unwrap();
        (dir, db, wal)
    }

    fn replace(path: &Path) {
        let new = path.with_extension("new");
        fs::write(&new, b"another").unwrap();
        fs::rename(&new, path).unwrap();
    }

    fn why(wire: &Tripwire) -> &'static str {
        match wire.check() {
            Err(Error::Gone { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_that_are_written_to_are_the_same_files() {
        let (_dir, db, wal) = files();
        let wire = Tripwire::new(&db);
        fs::write(&db, b"longer than before").unwrap();
        fs::write(&wal, b"").unwrap();
        wire.check().unwrap();
        wire.after_commit(true).unwrap();
    }

    #[test]
    fn each_way_of_losing_a_file_is_told_and_stays_told() {
        type Break = fn(&Path, &Path);
        let break_it: [(&str, Break); 4] = [
            ("the database file was removed", |db, _| fs::remove_file(db).unwrap()),
            ("the database file was replaced", |db, _| replace(db)),
            ("its -wal was removed", |_, wal| fs::remove_file(wal).unwrap()),
            ("its -wal was replaced", |_, wal| replace(wal)),
        ];
        for (expected, break_it) in break_it {
            let (_dir, db, wal) = files();
            let wire = Tripwire::new(&db);
            break_it(&db, &wal);
            assert!(wire.sprung().is_none());
            assert_eq!(why(&wire), expected);
            fs::write(&db, b"back").unwrap();
            assert_eq!(why(&wire), expected);
        }
    }

    #[test]
    fn commits_that_are_not_synced_are_looked_after_once_a_second() {
        let (_dir, db, _) = files();
        let wire = Tripwire::new(&db);
        wire.after_commit(false).unwrap();
        fs::remove_file(&db).unwrap();
        // A test that was stopped for a second between these lines finds the file gone: no harm.
        let soon = wire.after_commit(false);
        assert!(soon.is_ok() || wire.sprung().is_some());
        *wire.looked.lock().unwrap() = Instant::now().checked_sub(LOOK_EVERY);
        assert!(wire.after_commit(false).is_err());
        let wire = Tripwire::new(&db);
        assert!(wire.after_commit(true).is_err());
    }
}
