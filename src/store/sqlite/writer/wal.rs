//! Bounding the WAL. SQLite restarts it by itself when all of it has been written back and nobody
//! reads it; somebody who keeps a snapshot open prevents that for as long as he reads, and it
//! grows. When it has grown too large the writer tries to empty it, never waiting for anybody.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Writer;
use crate::beside::SHORT_WAL;
use crate::error::Result;
use crate::store::Notice;
use crate::store::sqlite::book::Book;
use crate::store::sqlite::errors::storing;

/// Larger than this it is emptied as soon as nobody reads old parts of it.
const BOUND: u64 = 64 << 20;

/// It stays below this unless somebody keeps it from being restarted: a checkpoint every 1,000
/// pages, and `journal_size_limit`.
const USUAL: u64 = 16 << 20;

/// Takes effect as it is prepared, so it cannot be kept prepared.
pub(in crate::store::sqlite) const CHECKPOINTS: &str = "PRAGMA wal_autocheckpoint = 1000";
const NO_CHECKPOINTS: &str = "PRAGMA wal_autocheckpoint = 0";

/// So many commits in a row may put the checkpoint off: about as many as would bring one.
const MOST_PUT_OFF: u32 = 64;

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
    /// Writes back what commits have left to do. Looks at the size of the WAL once a second, and
    /// empties it if it is too large.
    pub(super) fn bound_the_wal(&mut self) {
        if self.book.checkpoints_put_off >= MOST_PUT_OFF
            && let Err(error) = self.book.write_back()
        {
            // The next commit does it, or meets the same.
            log::debug!("legwork: writing the -wal back: {error}");
        }
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

    /// Before the WAL is left as it is: the more is in it the longer the next process takes to open the file.
    pub(super) fn shorten_wal(&self) {
        if self.tripwire.wal_size() > SHORT_WAL
            && let Err(error) = self.book.empty_wal()
        {
            log::debug!("legwork: emptying the -wal: {error}");
        }
    }

    fn tell_pinned(&mut self, bytes: u64, pinned: Duration) {
        if !std::mem::replace(&mut self.wal.told, true) {
            (self.settings.observer)(Notice::WalPinned { bytes, pinned });
        }
    }
}

/// Runs a pragma about checkpoints.
pub(in crate::store::sqlite) fn checkpoints(conn: &Connection, how: &str) -> Result<()> {
    conn.query_row(how, [], |_| Ok(())).map_err(storing)
}

impl Book {
    /// Commits. SQLite writes the WAL back at the end of a commit that makes it long, which takes some
    /// syncs of many pages. Where each start has its time, by a rate or for a slot that was freed, the
    /// jobs are handed over first, and that is left to [`Writer::bound_the_wal`] or the next commit.
    pub(in crate::store::sqlite) fn commit_and_checkpoint(&mut self) -> Result<()> {
        let puts_off = self.starts_limited && self.checkpoints_put_off < MOST_PUT_OFF;
        if !puts_off {
            self.run("COMMIT").map_err(storing)?;
            self.checkpoints_put_off = 0;
            return Ok(());
        }
        checkpoints(&self.conn, NO_CHECKPOINTS)?;
        let committed = self.run("COMMIT").map_err(storing);
        self.checkpoints_put_off += 1;
        checkpoints(&self.conn, CHECKPOINTS)
            .unwrap_or_else(|error| log::error!("legwork: the -wal is not written back: {error}"));
        committed
    }

    /// Writes back as much of the WAL as nobody reads, and waits for nobody.
    fn write_back(&mut self) -> Result<()> {
        checkpoints(&self.conn, "PRAGMA wal_checkpoint(PASSIVE)")?;
        self.checkpoints_put_off = 0;
        Ok(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits more than the WAL may hold before it is written back; the bytes written back.
    fn commit_much(book: &mut Book, path: &std::path::Path, limited: bool) -> u64 {
        let before = std::fs::metadata(path).unwrap().len();
        assert!(book.begin().unwrap());
        book.conn.execute("INSERT INTO much VALUES (zeroblob(8000000))", []).unwrap();
        book.starts_limited = limited;
        book.commit().unwrap();
        std::fs::metadata(path).unwrap().len() - before
    }

    #[test]
    fn a_commit_that_starts_jobs_with_limits_leaves_the_checkpoint_to_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let conn = Connection::open(&path).unwrap();
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        crate::store::sqlite::migrate::migrate(&conn).unwrap();
        conn.execute_batch("CREATE TABLE much (bytes BLOB)").unwrap();
        let mut book = Book::new(conn);
        assert_eq!(commit_much(&mut book, &path, true), 0);
        assert!(commit_much(&mut book, &path, false) > 8_000_000);
        assert_eq!(commit_much(&mut book, &path, true), 0);
        let before = std::fs::metadata(&path).unwrap().len();
        book.write_back().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() - before > 8_000_000);
        // However many follow each other: it is put off so often only.
        for _ in 0..MOST_PUT_OFF {
            assert!(book.begin().unwrap());
            book.starts_limited = true;
            book.commit().unwrap();
        }
        assert!(commit_much(&mut book, &path, true) > 8_000_000);
    }
}
