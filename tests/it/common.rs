//! What the tests share: a fresh file, jobs that do as they are told, bounded waiting.

use std::path::PathBuf;
use std::time::Duration;

use legwork::{Clock, Event, Events, Jobs, JobsBuilder};
use tempfile::TempDir;

/// Long enough for any event on a loaded machine; no test depends on its length.
pub const SOON: Duration = Duration::from_secs(60);

/// A directory of its own, and a database in it.
pub struct Place {
    pub dir: TempDir,
    pub path: PathBuf,
}

pub fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    Place { dir, path }
}

impl Place {
    pub fn open(&self) -> Jobs {
        Jobs::open(&self.path).unwrap()
    }

    pub fn builder(&self) -> JobsBuilder {
        Jobs::builder(&self.path)
    }

    /// A second connection, as the app's own.
    pub fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.path).unwrap()
    }
}

pub fn stopped_clock() -> Clock {
    Clock::stopped(time::macros::datetime!(2026-01-01 0:00 UTC))
}

/// The first event for which `wanted` is true, within [`SOON`].
pub fn wait_for(events: &Events, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let event = events.recv_timeout(left).expect("the event did not come in time");
        if wanted(&event) {
            return event;
        }
    }
}
