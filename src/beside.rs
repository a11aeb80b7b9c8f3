//! The names of what stands beside a database file.

use std::path::{Path, PathBuf};

/// SQLite's write-ahead log.
pub(crate) fn wal(db: &Path) -> PathBuf {
    with(db, "-wal")
}

/// The directory of lock files, sockets and kept output.
pub(crate) fn side(db: &Path) -> PathBuf {
    with(db, "-legwork")
}

/// How the names of the files end that SQLite keeps beside a database.
const PARTS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// The database that is there and has a file of this name beside it, or would have.
pub(crate) fn part_of(path: &Path) -> Option<PathBuf> {
    let name = path.to_str()?;
    let of = PARTS.iter().find_map(|ending| name.strip_suffix(ending))?;
    Some(PathBuf::from(of)).filter(|of| of.is_file())
}

/// What stands beside a database of this name that is not there any more: SQLite would take it for a part of
/// the next one.
pub(crate) fn left_of(db: &Path) -> Option<PathBuf> {
    PARTS.iter().map(|ending| with(db, ending)).find(|left| is_there(left))
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The file's name with an ending.
pub(crate) fn with(db: &Path, ending: &str) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A WAL that may be left to the next process, who reads all of it when he is the first to open the file:
/// in bytes, about as much as makes that and the emptying together cheapest, over many processes that each
/// write a few pages.
pub(crate) const SHORT_WAL: u64 = 256 << 10;
