//! Hard faults: a full disk, I/O errors at any write, locks and snapshots held by others, damaged
//! and read-only files. Whatever happens, calls answer with a typed error, finished work is held and
//! recorded later, nothing acknowledged is lost, and the process goes on.

#![cfg(target_os = "linux")]

mod damage;
mod full;
mod held;
mod inject;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use legwork::{Context, Filter, JobRecord, Jobs};
use tempfile::TempDir;

use crate::scripted::Acts;

/// A small file system of its own.
struct Small {
    dir: TempDir,
}

impl Small {
    /// `None` where mounting is not allowed.
    fn mount(size: &str) -> Option<Small> {
        let small = Small { dir: tempfile::tempdir().unwrap() };
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "legwork-test"])
            .arg(small.dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(small);
        }
        assert!(std::env::var_os("CI").is_none(), "CI must be allowed to mount");
        println!("skipped: not allowed to mount a file system here");
        None
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("test.db")
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &options]).arg(self.dir.path()).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a test that has failed may have files open in it.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// Who ran, how often: kept outside the database.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<i64, u32>>>);

impl Ledger {
    fn ran(&self, cx: &Context<Acts>) {
        *self.0.lock().unwrap().entry(cx.id().0).or_default() += 1;
    }

    fn runs(&self) -> BTreeMap<i64, u32> {
        self.0.lock().unwrap().clone()
    }
}

/// Lets time pass where the test is about time.
fn pass(time: Duration) {
    let (_nobody, never) = mpsc::channel::<()>();
    assert_eq!(never.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
}

/// Everything in the file.
fn all(jobs: &Jobs) -> Vec<JobRecord> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = jobs.list(&Filter::new(), before, 1000).unwrap();
        found.extend(page.jobs);
        before = page.next;
        if before.is_none() {
            return found;
        }
    }
}

fn assert_sound(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let check = "PRAGMA integrity_check";
    let said: String = conn.query_row(check, [], |row| row.get(0)).unwrap();
    assert_eq!(said, "ok");
}
