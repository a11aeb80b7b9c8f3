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
