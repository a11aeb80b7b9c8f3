//! The files around the database, by their metadata: who may read and write them, where they lie, and
//! what stands in the side directory.

use std::collections::HashMap;
use std::fs::{self, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::Examined;
use crate::beside;
use crate::finding::Finding;
use crate::rules::examine as rules;
use crate::store::sqlite::instance::Instance;
use crate::store::sqlite::open::{directory_of, network_fs};

/// A lock file without a row may be of an engine that is just starting.
const STARTING: Duration = Duration::from_secs(10);

/// Looks at what can be seen without opening the file; `false`: legwork cannot write there.
pub(super) fn look(path: &Path, seen: &mut Examined) -> bool {
    let directory = directory_of(path);
    if let Some(fs) = fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .and_then(|mounts| network_fs(&mounts, directory).map(str::to_owned))
    {
        seen.found([on_network(&fs)]);
    }
    if let Some(free) = free_space(directory) {
        let bytes = fs::metadata(path).map_or(0, |meta| meta.len());
        seen.found([rules::space(free, bytes)]);
    }
    for file in [path.to_owned(), beside::wal(path), beside::side(path)] {
        seen.found(mode(&file).and_then(|mode| rules::access(&name_of(&file), mode)));
    }
    let mut may_write = true;
    for file in [path, directory] {
        if !is_writable(file) {
            may_write = false;
            seen.found([Finding::problem("read_only", "legwork writes to it, and may not")
                .of(file.to_string_lossy())
                .advice("run as its owner, or change the owner or the permissions")]);
        }
    }
    may_write
}

fn on_network(fs: &str) -> Finding {
    Finding::problem(
        "network_fs",
        format!("it lies on a network file system ({fs}), where WAL mode is not safe"),
    )
    .advice("put the database on a local disk")
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What stands in the side directory and belongs to none of these instances.
pub(super) fn look_aside(path: &Path, instances: &[Instance], seen: &mut Examined) {
    let side = beside::side(path);
    let entries = match fs::read_dir(&side) {
        Ok(entries) => entries,
        // No engine and no command has needed it yet.
        Err(_) if !side.exists() => return,
        Err(error) => {
            let says = format!("{} cannot be read: {error}", side.display());
            return seen.found([Finding::problem("side_unreadable", says)
                .advice("engines keep their lock files there: see who owns it")]);
        }
    };
    let owner = owner(path);
    let locks: HashMap<&str, &Instance> =
        instances.iter().map(|one| (one.identity.lock_file.as_str(), one)).collect();
    let bells: Vec<String> = instances.iter().map(|one| one.identity.bell()).collect();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = entry.path();
        if owner.is_some() && owner_of_link(&file) != owner {
            seen.found([Finding::warning(
                "side_owner",
                "it belongs to another user than the file",
            )
            .of(&name)
            .advice("run all programs of a file as one user")]);
        }
        let finding = match locks.get(name.as_str()) {
            Some(instance) => instance.identity.is_usurped(&side).then(|| {
                Finding::problem(
                    "lock_replaced",
                    format!(
                        "the lock file of instance {} was replaced by another file",
                        instance.id
                    ),
                )
                .advice("nothing else may write there; restart that engine")
            }),
            None => stray(&file, &name, &bells),
        };
        seen.found(finding.map(|finding| finding.of(name)));
    }
}

/// A file that no instance names.
fn stray(file: &Path, name: &str, bells: &[String]) -> Option<Finding> {
    let is_dir = fs::symlink_metadata(file).is_ok_and(|meta| meta.is_dir());
    let is_known = match name {
        "output" => is_dir,
        "worker.log" | "worker.log.old" | "worker.turn" => !is_dir,
        _ => bells.iter().any(|bell| bell == name) || is_ear(name),
    };
    if is_known || is_new(file) {
        return None;
    }
    let remove = format!("it is of no use: rm '{}'", file.display());
    if is_ours(name, ".lock") {
        return Some(match is_locked(file) {
            true => Finding::warning(
                "lock_foreign",
                "a process holds a lock file of which the file knows no instance",
            )
            .advice(
                "an engine works on another file of this name, or the file was replaced while it ran: \
                 restart it",
            ),
            false => Finding::note("lock_leftover", "a lock file that nobody holds").advice(remove),
        });
    }
    if is_ours(name, ".bell") {
        return Some(Finding::note("bell_leftover", "a doorbell of no instance").advice(remove));
    }
    Some(
        Finding::warning("side_foreign", "a file that is not legwork's")
            .advice("only legwork may write there: see who made it, and move it away"),
    )
}

/// `PID-NUMBER.ear`: the next to listen takes down those of dead processes.
fn is_ear(name: &str) -> bool {
    let numbers = name.strip_suffix(".ear").and_then(|stem| stem.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(process, number)| is_number(process) && is_number(number))
}

/// `PID-NUMBER-RETRY` and this suffix.
fn is_ours(name: &str, suffix: &str) -> bool {
    let Some(stem) = name.strip_suffix(suffix) else { return false };
    let parts: Vec<&str> = stem.split('-').collect();
    parts.len() == 3
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_new(file: &Path) -> bool {
    let made = fs::symlink_metadata(file).and_then(|meta| meta.modified());
    made.ok().and_then(|made| made.elapsed().ok()).is_some_and(|age| age < STARTING)
}

/// Tries the lock for a moment, shared, as those do who only look. Lock files are no part of the
/// database: opening them harms none of SQLite's locks.
fn is_locked(file: &Path) -> bool {
    let Ok(file) = OpenOptions::new().read(true).open(file) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|meta| meta.mode())
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|meta| meta.uid())
}

#[cfg(unix)]
fn owner_of_link(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).ok().map(|meta| meta.uid())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Option<u32> {
    None
}

#[cfg(not(unix))]
fn owner_of_link(_: &Path) -> Option<u32> {
    None
}

#[cfg(target_os = "linux")]
fn is_writable(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(path, Access::WRITE_OK).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn is_writable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.permissions().readonly())
}

#[cfg(target_os = "linux")]
fn free_space(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_legwork_gives_are_told_from_others() {
        assert!(is_ours("12-0-3.lock", ".lock") && is_ours("1-2-3.bell", ".bell"));
        for other in ["12-0.lock", "a-0-3.lock", "12-0-3.lock.bak", "-0-3.lock", "lock"] {
            assert!(!is_ours(other, ".lock"), "{other}");
        }
    }

    #[test]
    fn a_network_file_system_is_a_problem() {
        let found = on_network("nfs4");
        assert_eq!(found.code, "network_fs");
        assert!(found.says.contains("nfs4") && !found.advice.is_empty());
    }
}
