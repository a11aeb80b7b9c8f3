//! Bounding the WAL. SQLite restarts it by itself when all of it has been written back and nobody
//! reads it; somebody who keeps a snapshot open prevents that for as long as he reads, and it
//! grows. When it has grown too large the writer tries to empty it, never waiting for anybody.

use std::time::{Duration, Instant};

use super::Writer;
use crate::error::Result;
use crate::store::Notice;
use crate::store::sqlite::book::Book;
use crate::store::sqlite::errors::storing;

/// Larger than this it is emptied as soon as nobody reads old parts of it.
const BOUND: u64 = 64 << 20;

/// It stays below this unless somebody keeps it from being restarted: a checkpoint every 1,000
/// pages, and `journal_size_limit`.
const USUAL: u64 = 16 << 20;

/// The first pause between looks; they get longer while it cannot be emptied.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct WalWatch {
    next_look: Option<Instant>,
    /// Since when it has been larger than usual.
    grown_since: Option<Instant>,
    /// It is too large, and could not be emptied; the pause until the next try.
    pause: Option<Duration>,
    told: bool,
}

impl WalWatch {
    /// When to look unasked: only while it is too large.
    pub(super) fn alarm(&self) -> Option<Duration> {
        self.pause?;
        self.next_look.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

impl Writer {
    /// Looks at the size of the WAL once a second, and empties it if it is too large.
    pub(super) fn bound_the_wal(&mut self) {
        let now = Instant::now();
        if self.wal.next_look.is_some_and(|at| now < at) {
            return;
        }
        self.wal.next_look = Some(now + LOOK_EVERY);
        let bytes = self.tripwire.wal_size();
        if bytes <= USUAL {
            self.wal = WalWatch { next_look: self.wal.next_look, ..WalWatch::default() };
            return;
        }
        let pinned = now - *self.wal.grown_since.get_or_insert(now);
        if bytes <= BOUND {
            return;
        }
        match self.book.empty_wal() {
            Ok(true) => {
                log::info!("legwork: the -wal was cut back from {} MiB", bytes >> 20);
                self.wal = WalWatch { next_look: self.wal.next_look, ..WalWatch::default() };
                return;
            }
            Ok(false) => self.tell_pinned(bytes, pinned),
            Err(error) => {
                self.tell_damage(&error);
                log::debug!("legwork: emptying the -wal: {error}");
            }
        }
        let pause = self.wal.pause.map_or(LOOK_EVERY, |pause| (pause * 2).min(LONGEST));
        self.wal.pause = Some(pause);
        self.wal.next_look = Some(Instant::now() + pause);
    }

    fn tell_pinned(&mut self, bytes: u64, pinned: Duration) {
        if !std::mem::replace(&mut self.wal.told, true) {
            (self.settings.observer)(Notice::WalPinned { bytes, pinned });
        }
    }
}

impl Book {
    /// Writes the WAL back and empties it; `false`: somebody reads it, or writes. The connection
    /// has no busy time-out, so this waits for nobody.
    fn empty_wal(&self) -> Result<bool> {
        let busy: bool = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(storing)?;
        Ok(!busy)
    }
}
