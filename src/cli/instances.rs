//! Which processes run jobs of a file at the moment.
//!
//! A stopgap until the handle itself tells: it looks at the lock files in the side directory.

use std::fs::{File, TryLockError, read_dir};
use std::path::{Path, PathBuf};

/// `<db>-legwork`, beside the database.
pub(super) fn side_directory(db: &Path) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push("-legwork");
    PathBuf::from(name)
}

/// How many processes hold the lock of an instance.
pub(super) fn live(db: &Path) -> usize {
    let Ok(entries) = read_dir(side_directory(db)) else { return 0 };
    entries.flatten().filter(|entry| is_held(&entry.path())).count()
}

fn is_held(path: &Path) -> bool {
    if path.extension().is_none_or(|extension| extension != "lock") {
        return false;
    }
    // Shared, and only for a moment: those who look do not take each other for the living.
    File::open(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
