//! Where the databases of an experiment lie, and their end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of this run's own. Removed with the value, and when a signal ends the program.
pub(super) struct Place {
    dir: PathBuf,
    next: AtomicU32,
}

impl Place {
    /// Makes a directory inside `parent`, which must exist.
    pub(super) fn make(parent: &Path) -> io::Result<Place> {
        let parent = fs::canonicalize(parent)?;
        let dir = parent.join(format!("legwork-bench-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let place = Place { dir, next: AtomicU32::new(1) };
        remove_on_signal(place.dir.clone())?;
        Ok(place)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A fresh directory in it.
    pub(super) fn scratch(&self) -> io::Result<Scratch> {
        let dir = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir)?;
        Ok(Scratch { dir })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// A directory for one database.
pub(super) struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    /// The database's file; it does not exist yet.
    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("bench.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("legwork bench: {} is left behind: {error}", dir.display());
    }
}

/// Interrupted from the terminal, a run may have a gigabyte lying about.
#[cfg(unix)]
fn remove_on_signal(dir: PathBuf) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("legwork-bench-signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Other threads go on writing there until the next line: what is left behind is said.
            remove(&dir);
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn remove_on_signal(_: PathBuf) -> io::Result<()> {
    Ok(())
}
