//! The lock file of an instance, and what proves that another one is dead.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::rescue::Why;
use crate::beside;
use crate::error::{Error, Result};

/// The lock that says: this process lives. Freed by the kernel when the last thread that holds
/// the value, or the process, is gone.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    side: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    // For its lock alone.
    _file: File,
    identity: Identity,
}

/// What tells an instance from all others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) lock_file: String,
    pub(super) lock_inode: i64,
    pub(super) db_path: String,
    pub(super) db_inode: i64,
    pub(super) boot_id: String,
    pub(super) pid: i64,
    pub(super) pid_start: i64,
    pub(super) pid_space: String,
}

impl Identity {
    /// This process, as one that holds no lock.
    pub(super) fn without_lock(db: &Path) -> Identity {
        Identity {
            lock_file: String::new(),
            lock_inode: 0,
            db_path: canonical(db),
            db_inode: inode_of(db).unwrap_or(0),
            boot_id: boot_id(),
            pid: i64::from(std::process::id()),
            pid_start: start_of(std::process::id()).unwrap_or(0),
            pid_space: pid_space(),
        }
    }

    /// The name of its doorbell, beside its lock file.
    pub(super) fn bell(&self) -> String {
        format!("{}.bell", self.lock_file.trim_end_matches(".lock"))
    }

    /// Whether another file stands under the name of its lock file: that, and the bell beside it,
    /// are somebody else's.
    pub(super) fn is_usurped(&self, side: &Path) -> bool {
        inode_of(&side.join(&self.lock_file)).is_some_and(|inode| inode != self.lock_inode)
    }
}
impl InstanceLock {
    /// Makes a lock file that is locked before anybody can know of it.
    pub(crate) fn create(db: &Path) -> Result<InstanceLock> {
        let side = beside::side(db);
        let (file, lock_file, lock_inode) = make(&side)?;
        let identity = Identity { lock_file, lock_inode, ..Identity::without_lock(db) };
        Ok(InstanceLock { side, held: Mutex::new(Held { _file: file, identity }) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn identity(&self) -> Identity {
        self.held().identity.clone()
    }

    pub(super) fn side(&self) -> &Path {
        &self.side
    }

    /// Whether the lock file is still the one that others look for.
    pub(super) fn is_in_place(&self) -> bool {
        let held = self.held();
        inode_of(&self.side.join(&held.identity.lock_file)) == Some(held.identity.lock_inode)
    }

    /// Makes another lock file in the place of one that was removed. The old one stays locked until
    /// [`adopt`](InstanceLock::adopt): the row still names it.
    pub(super) fn renewed(&self) -> Result<Renewed> {
        let (file, lock_file, lock_inode) = make(&self.side)?;
        let identity = Identity { lock_file, lock_inode, ..self.identity() };
        Ok(Renewed { file, identity })
    }

    /// The row names the new lock file now.
    pub(super) fn adopt(&self, renewed: Renewed) {
        *self.held() = Held { _file: renewed.file, identity: renewed.identity };
    }
}

/// A lock file that is to replace one that was removed.
pub(super) struct Renewed {
    file: File,
    pub(super) identity: Identity,
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        let identity = self.identity();
        // A child made by fork has a copy of the value; the lock is its parent's.
        if identity.pid != i64::from(std::process::id()) {
            return;
        }
        // Left behind it would only be litter: it is unlocked when the process ends.
        let path = self.side.join(identity.lock_file);
        if let Err(error) = fs::remove_file(&path) {
            log::debug!("legwork: removing {}: {error}", path.display());
        }
    }
}

fn make(side: &Path) -> Result<(File, String, i64)> {
    let made = make_private_dir(side).and_then(|()| {
        // The name is unique in time: a process, and a count of its locks.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let (file, name) = loop_for_free_name(side, std::process::id(), number)?;
        file.lock()?;
        let inode = inode_of(&side.join(&name)).unwrap_or(0);
        Ok((file, name, inode))
    });
    made.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(Box::new(error)),
        _ => Error::ReadOnly {
            path: side.to_owned(),
            why: format!("the lock file of this process cannot be made: {error}"),
        },
    })
}

fn loop_for_free_name(side: &Path, pid: u32, number: u64) -> io::Result<(File, String)> {
    for retry in 0u32.. {
        let name = format!("{pid}-{number}-{retry}.lock");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        private(&mut options);
        match options.open(side.join(&name)) {
            Ok(file) => return Ok((file, name)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && retry < 10_000 => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

/// A lock on the dead instance's file, or other proof that its process is gone.
pub(super) enum Proof {
    Locked(#[expect(dead_code, reason = "held for its lock")] File),
    /// The process is gone while the machine has been running.
    Gone,
    /// The machine was started since, or the file is a copy: no process has died of itself.
    Elsewhere,
}

impl Proof {
    pub(super) fn says(&self) -> Why {
        match self {
            Proof::Locked(_) | Proof::Gone => Why::Died,
            Proof::Elsewhere => Why::Lost,
        }
    }
}

/// Proof that stays true while it is held: nobody else can take the dead one over.
pub(super) fn proof_of_death(them: &Identity, me: &Identity, side: &Path) -> Option<Proof> {
    proof_by(File::try_lock, them, me, side)
}

/// The same for those who only look: they do not hide the dead from each other.
pub(super) fn is_dead(them: &Identity, me: &Identity, side: &Path) -> bool {
    proof_by(File::try_lock_shared, them, me, side).is_some()
}

fn proof_by(
    try_lock: impl Fn(&File) -> std::result::Result<(), TryLockError>,
    them: &Identity,
    me: &Identity,
    side: &Path,
) -> Option<Proof> {
    // The row came here by copying the file: whoever it was never held jobs of this one. A file
    // that was only moved keeps its inode.
    if them.db_inode != me.db_inode && them.db_path != me.db_path {
        return Some(Proof::Elsewhere);
    }
    // The lock decides where there is one: a process may be hidden from us and live.
    let path = side.join(&them.lock_file);
    let file = OpenOptions::new().write(true).open(&path).ok();
    // Another file under the same name is nobody's proof.
    let file = file.filter(|_| inode_of(&path) == Some(them.lock_inode));
    // A container can have a boot id of its own, so that even this counts less than a lock.
    let rebooted = them.boot_id != me.boot_id;
    let Some(file) = file else {
        if rebooted {
            return Some(Proof::Elsewhere);
        }
        let gone = them.pid_space == me.pid_space
            && u32::try_from(them.pid).is_ok_and(|pid| start_of(pid) != Some(them.pid_start));
        return gone.then_some(Proof::Gone);
    };
    match try_lock(&file) {
        Ok(()) if rebooted => Some(Proof::Elsewhere),
        Ok(()) => Some(Proof::Locked(file)),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => {
            log::warn!("legwork: cannot probe {}: {error}", path.display());
            None
        }
    }
}

fn canonical(path: &Path) -> String {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

fn pid_space() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` if
/// there is no such process. Where there is no `/proc` every process seems to start at 0, so that
/// only the lock decides.
fn start_of(pid: u32) -> Option<i64> {
    if !Path::new("/proc/self/stat").exists() {
        return Some(0);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything; the fields count from its last one.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(unix)]
fn inode_of(path: &Path) -> Option<i64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|meta| meta.ino().cast_signed())
}

#[cfg(not(unix))]
fn inode_of(path: &Path) -> Option<i64> {
    fs::metadata(path).ok().map(|_| 0)
}

#[cfg(unix)]
pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
pub(super) fn private(_: &mut OpenOptions) {}
