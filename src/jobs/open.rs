//! Which files this process has open: two handles on one file share one writer.
//!
//! A file is known by its canonical path. Each has a slot with a lock of its own, held while the file
//! is being opened: two threads that open one file get one writer, and neither holds up a third that
//! opens another. A slot keeps its file weakly; the handles own it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

use super::lock;
use super::shared::{Shared, Wanted};

type Slots = BTreeMap<PathBuf, Arc<Slot>>;

static OPEN: Mutex<Slots> = Mutex::new(BTreeMap::new());
/// The process that first opened a file; 0: none has.
static FIRST: AtomicU32 = AtomicU32::new(0);

struct Slot {
    /// The process that made it. A child made by fork inherits the slots, but neither the threads
    /// nor the locks that belong to them.
    process: u32,
    file: Mutex<Weak<Shared>>,
}

/// Opens a file, or joins the handles that this process has on it.
pub(super) fn open(path: PathBuf, wanted: Wanted, busy_timeout: Duration) -> Result<Arc<Shared>> {
    let slot = slot(&path)?;
    let mut file = lock(&slot.file);
    if let Some(shared) = file.upgrade() {
        match shared.store.check_in_place() {
            Ok(()) => {
                wanted.check_agrees(shared.store.settings())?;
                return Ok(shared);
            }
            Err(Error::Gone { .. }) => shared.store.with_patience(busy_timeout).close_gone()?,
            Err(_) => {}
        }
    }
    let shared = Arc::new(Shared::open(path, wanted, busy_timeout)?);
    *file = Arc::downgrade(&shared);
    Ok(shared)
}

/// The file's slot, made if need be; those of closed files are cleared away.
fn slot(path: &Path) -> Result<Arc<Slot>> {
    let key = key(path, 40);
    let mut slots = slots()?;
    slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.may_be_open());
    if let Some(slot) = slots.get(&key) {
        if slot.process == std::process::id() {
            return Ok(Arc::clone(slot));
        }
        if slot.may_be_open() {
            return Err(Error::Forked);
        }
    }
    let slot = Arc::new(Slot { process: std::process::id(), file: Mutex::new(Weak::new()) });
    slots.insert(key, Arc::clone(&slot));
    Ok(slot)
}

impl Slot {
    /// Whether the file has a handle, or is being opened.
    fn may_be_open(&self) -> bool {
        match self.file.try_lock() {
            Ok(file) => file.strong_count() > 0,
            Err(TryLockError::Poisoned(file)) => file.get_ref().strong_count() > 0,
            Err(TryLockError::WouldBlock) => true,
        }
    }
}

/// The lock of the list is held for moments only. But a fork may have come in one of them, and in
/// the child nobody is left to free it.
fn slots() -> Result<MutexGuard<'static, Slots>> {
    let me = std::process::id();
    match FIRST.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => return Ok(lock(&OPEN)),
        Err(first) if first == me => return Ok(lock(&OPEN)),
        Err(_) => {}
    }
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match OPEN.try_lock() {
            Ok(slots) => return Ok(slots),
            Err(TryLockError::Poisoned(slots)) => return Ok(slots.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::yield_now(),
            Err(TryLockError::WouldBlock) => return Err(Error::Forked),
        }
    }
}

/// The path that a file has or will have, links followed; a link may lead to a file that is yet to
/// be made.
fn key(path: &Path, links: u32) -> PathBuf {
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    if links > 0
        && let Ok(target) = fs::read_link(path)
    {
        return key(&directory.join(target), links - 1);
    }
    match (fs::canonicalize(directory), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_yet_to_be_made_has_the_key_that_it_will_have() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("x.db"), dir.path().join("link.db"));
        std::os::unix::fs::symlink("x.db", &link).unwrap();
        std::os::unix::fs::symlink("loop.db", dir.path().join("loop.db")).unwrap();
        let paths = [
            file.clone(),
            link,
            dir.path().join("../").join(dir.path().file_name().unwrap()).join("x.db"),
        ];
        let before = paths.each_ref().map(|path| key(path, 40));
        fs::write(&file, b"").unwrap();
        let after = fs::canonicalize(&file).unwrap();
        assert_eq!(before, [after.clone(), after.clone(), after.clone()]);
        assert_eq!(
            paths.each_ref().map(|path| key(path, 40)),
            [after.clone(), after.clone(), after]
        );
        // A link to itself has no file; it is enough that this ends.
        key(&dir.path().join("loop.db"), 40);
    }

    #[test]
    fn a_file_of_which_every_handle_is_closed_leaves_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1.db"), dir.path().join("2.db"));
        let listed = |path: &Path| lock(&OPEN).contains_key(&key(path, 40));
        let jobs = crate::Jobs::open(&first).unwrap();
        assert!(listed(&first));
        drop(jobs);
        let jobs = crate::Jobs::open(&second).unwrap();
        assert!(!listed(&first) && listed(&second));
        drop(jobs);
    }
}
