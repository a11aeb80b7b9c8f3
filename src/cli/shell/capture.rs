//! What a command writes to stdout or stderr, as it comes: the beginning, and as much of the end as is
//! kept, in pieces that follow each other.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::kept::{Run, Stream, directory, forget_runs};
use crate::clock::Micros;
use crate::id::JobId;

/// Bytes kept of the beginning.
const HEAD: u64 = 128 * 1024;
/// Bytes of each piece after that, and how many of these are kept.
const PIECE: u64 = 32 * 1024;
const PIECES: usize = 4;
/// Bytes looked at for the last line.
const LAST: usize = 1024;

/// Keeps the head and the tail of one stream.
pub(super) struct Capture {
    directory: PathBuf,
    run: Run,
    stream: Stream,
    /// Made with the first byte: most commands say nothing.
    file: Option<File>,
    /// Bytes so far, and those that the file at hand holds when it is full.
    total: u64,
    full: u64,
    /// Where the pieces of the tail start.
    tail: VecDeque<u64>,
    last: VecDeque<u8>,
    /// Why nothing more is kept.
    failed: Option<io::Error>,
}

impl Capture {
    /// Of a new run, before which what earlier ones have left is forgotten.
    pub(super) fn begin(db: &Path, id: JobId, attempt: u32, now: Micros) -> [Capture; 2] {
        let directory = directory(db, id);
        forget_runs(&directory);
        let run = Run { began: u64::try_from(now).unwrap_or(0), attempt };
        [Stream::Stdout, Stream::Stderr].map(|stream| Capture {
            directory: directory.clone(),
            run,
            stream,
            file: None,
            total: 0,
            full: 0,
            tail: VecDeque::new(),
            last: VecDeque::new(),
            failed: None,
        })
    }

    /// A disk that takes no output is no reason for the command to fail.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.last.extend(bytes);
        let more = self.last.len().saturating_sub(LAST);
        self.last.drain(..more);
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.try_take(bytes) {
            log::warn!("legwork: {}: {error}", self.directory.display());
            self.failed = Some(error);
        }
    }

    fn try_take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.total == self.full {
                self.turn()?;
            }
            let room = usize::try_from(self.full - self.total).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if let Some(file) = &mut self.file {
                file.write_all(now)?;
            }
            self.total += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Begins the next piece, and lets the oldest of the tail go.
    fn turn(&mut self) -> io::Result<()> {
        let start = self.total;
        let path = |start| self.directory.join(self.run.piece(self.stream, start));
        let file = create(&path(start))?;
        if start > 0 {
            self.tail.push_back(start);
        }
        if self.tail.len() > PIECES
            && let Some(oldest) = self.tail.pop_front()
            && let Err(error) = fs::remove_file(path(oldest))
            // Somebody has tidied up: what comes is kept all the same.
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        self.full = start + if start == 0 { HEAD } else { PIECE };
        self.file = Some(file);
        Ok(())
    }

    /// The last line that is not blank.
    pub(super) fn end(mut self) -> Option<String> {
        let last = String::from_utf8_lossy(self.last.make_contiguous()).into_owned();
        last.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        private_directory(directory)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The flags of an open that follows no link and does not wait for the other end of a pipe: whoever was here
/// first may have planted one.
pub(in crate::cli) fn guarded() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

pub(in crate::cli) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::super::kept::{Follower, Next, read};
    use super::*;

    const ALL: usize = HEAD as usize + PIECES * PIECE as usize;

    fn begin(db: &Path, attempt: u32, now: Micros) -> Capture {
        let [stdout, _] = Capture::begin(db, JobId(1), attempt, now);
        stdout
    }

    fn captured(pieces: &[&[u8]]) -> (Option<String>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let mut capture = begin(&db, 1, 1);
        pieces.iter().for_each(|piece| capture.take(piece));
        let last = capture.end();
        (read(&db, JobId(1), Stream::Stdout), last)
    }

    #[test]
    fn up_to_the_cap_all_is_kept_and_beyond_it_head_and_tail() {
        assert_eq!(captured(&[]), (None, None));
        assert_eq!(
            captured(&[b"one\n", b"two\n\n"]),
            (Some("one\ntwo\n\n".to_owned()), Some("two".to_owned()))
        );
        let full = vec![b'x'; ALL];
        assert_eq!(captured(&[&full]).0.unwrap().len(), ALL);

        let (kept, last) = captured(&[b"first ", &full, b"\nlast"]);
        let kept = kept.unwrap();
        assert!(kept.starts_with("first x") && kept.ends_with("x\nlast"));
        assert!(kept.contains(&format!("\n… {PIECE} bytes cut …\n")));
        assert!(kept.len() < ALL + 50);
        assert_eq!(last.as_deref(), Some("last"));
    }

    /// What a follower has seen: the bytes, each at its place in the stream.
    #[derive(Default)]
    struct Seen {
        at: u64,
        bytes: u64,
        missing: u64,
        attempts: Vec<u32>,
    }

    impl Seen {
        fn look(&mut self, follower: &mut Follower) {
            let mut take = |attempt, next: Next<'_>| {
                if self.attempts.last() != Some(&attempt) {
                    self.attempts.push(attempt);
                    self.at = 0;
                }
                match next {
                    Next::Bytes(bytes) => {
                        for byte in bytes {
                            assert_eq!(*byte, value(self.at), "byte {}", self.at);
                            self.at += 1;
                            self.bytes += 1;
                        }
                    }
                    Next::Missing(missing) => {
                        self.missing += missing;
                        self.at += missing;
                    }
                }
                Ok(())
            };
            follower.read(&mut take).unwrap();
        }
    }

    /// The byte that stands at a place.
    fn value(at: u64) -> u8 {
        (at.wrapping_mul(2_654_435_761) >> 13) as u8
    }

    #[test]
    fn whoever_follows_sees_each_byte_once_and_in_order_or_is_told_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20 {
            let mut capture = begin(&db, 1, 1);
            let mut follower = Follower::new(&db, JobId(1), Stream::Stdout);
            let mut seen = Seen::default();
            for _ in 0..60 {
                let length = random.u64(0..40_000);
                let bytes: Vec<u8> = (capture.total..capture.total + length).map(value).collect();
                capture.take(&bytes);
                if random.u8(0..6) == 0 {
                    seen.look(&mut follower);
                    assert_eq!(seen.at, capture.total, "everything is seen or missing");
                }
            }
            seen.look(&mut follower);
            assert_eq!(seen.bytes + seen.missing, capture.total);
        }
    }

    #[test]
    fn whoever_looks_while_another_thread_writes_sees_no_byte_twice() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let mut capture = begin(&db, 1, 1);
        let writer = std::thread::spawn(move || {
            for _ in 0..400 {
                let bytes: Vec<u8> = (capture.total..capture.total + 9_973).map(value).collect();
                capture.take(&bytes);
            }
            capture.total
        });
        let mut follower = Follower::new(&db, JobId(1), Stream::Stdout);
        let mut seen = Seen::default();
        while !writer.is_finished() {
            seen.look(&mut follower);
        }
        seen.look(&mut follower);
        assert_eq!(seen.at, writer.join().unwrap());
    }

    #[test]
    fn the_next_run_is_followed_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let mut follower = Follower::new(&db, JobId(1), Stream::Stdout);
        let mut seen = Seen::default();
        for (attempt, now) in [(1, 10), (1, 20), (2, 30)] {
            let mut capture = begin(&db, attempt, now);
            capture.take(&(0..100).map(value).collect::<Vec<_>>());
            if attempt == 1 {
                seen.attempts.clear();
            }
            seen.look(&mut follower);
            assert_eq!((seen.at, seen.attempts.last()), (100, Some(&attempt)));
        }
    }
}
