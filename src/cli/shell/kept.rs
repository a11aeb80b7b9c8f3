//! Where the output of shell jobs is kept, and how it is read, also while it is being written.
//!
//! Each job has a directory beside the database. A stream of one run stands there in pieces, each named
//! by the run, the stream and the place of its first byte in all that was written:
//! `2-1764500000000000.stdout.131072`. A piece is only ever appended to, and the next one begins where it
//! is full. So whoever reads needs to know no more than how many bytes it has seen: the next byte stands
//! in one place, or in none any more.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::lock;
use crate::beside;
use crate::error::Error;
use crate::id::JobId;
use crate::jobs::Jobs;

/// Read at a time.
const BLOCK: usize = 64 * 1024;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// One run of a job: attempts that were interrupted share their number with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    /// In microseconds.
    pub(super) began: u64,
    pub(super) attempt: u32,
}

impl Run {
    pub(super) fn piece(self, stream: Stream, start: u64) -> String {
        format!("{}-{}.{}.{start}", self.attempt, self.began, stream.name())
    }
}

/// What is in one file: bytes of the stream from `start` on.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    run: Run,
    start: u64,
    path: PathBuf,
}

/// `<db>-legwork/output`.
fn outputs(db: &Path) -> PathBuf {
    beside::side(db).join("output")
}

pub(super) fn directory(db: &Path, id: JobId) -> PathBuf {
    outputs(db).join(format!("job-{id}"))
}

/// A file's name as a piece of a stream.
fn parsed(name: &str) -> Option<(Run, &str, u64)> {
    let (run, rest) = name.split_once('.')?;
    let (stream, start) = rest.split_once('.')?;
    let (attempt, began) = run.split_once('-')?;
    let run = Run { began: began.parse().ok()?, attempt: attempt.parse().ok()? };
    Some((run, stream, start.parse().ok()?))
}

/// The pieces of the last run that has written to the stream, in their order.
fn pieces(directory: &Path, stream: Stream) -> Vec<Piece> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let piece = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let (run, of, start) = parsed(name.to_str()?)?;
        (of == stream.name()).then(|| Piece { run, start, path: entry.path() })
    };
    let mut pieces: Vec<Piece> = entries.flatten().filter_map(piece).collect();
    let last = pieces.iter().map(|piece| piece.run).max();
    pieces.retain(|piece| Some(piece.run) == last);
    pieces.sort_by_key(|piece| piece.start);
    pieces
}

/// Removes what earlier runs have left.
pub(super) fn forget_runs(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().and_then(parsed).is_some()
            && let Err(error) = fs::remove_file(entry.path())
        {
            log::debug!("legwork: removing {}: {error}", entry.path().display());
        }
    }
}

/// Removes what was kept of jobs that are gone, and whose commands are as well.
pub(in crate::cli) fn sweep(jobs: &Jobs) {
    for id in kept_jobs(jobs.path()) {
        let directory = directory(jobs.path(), id);
        if matches!(jobs.get(id), Err(Error::NotFound(_)))
            && !lock::is_held(jobs.path(), id)
            && let Err(error) = fs::remove_dir_all(&directory)
        {
            log::debug!("legwork: removing {}: {error}", directory.display());
        }
    }
}

/// The jobs that have a directory.
pub(super) fn kept_jobs(db: &Path) -> impl Iterator<Item = JobId> {
    let entries = fs::read_dir(outputs(db)).ok().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("job-")?.parse().ok())
}

/// What comes next of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Next<'a> {
    Bytes(&'a [u8]),
    /// So many were cut, or written and cut between two looks.
    Missing(u64),
}

/// Reads a stream from its beginning on, as far as it has been written, and later on from there.
pub(in crate::cli) struct Follower {
    directory: PathBuf,
    stream: Stream,
    run: Option<Run>,
    /// Bytes of the run that have been read or found missing.
    at: u64,
    piece: Option<(u64, File)>,
}

impl Follower {
    pub(in crate::cli) fn new(db: &Path, id: JobId, stream: Stream) -> Follower {
        let directory = directory(db, id);
        Follower { directory, stream, run: None, at: 0, piece: None }
    }

    pub(in crate::cli) fn stream(&self) -> Stream {
        self.stream
    }

    /// Hands on what is new, with the number of its attempt, in the order in which it was written and
    /// nothing twice.
    pub(in crate::cli) fn read(
        &mut self,
        to: &mut dyn FnMut(u32, Next<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            self.drain(to)?;
            let Some(next) = self.next() else { return Ok(()) };
            // Now that there is another one this one is complete.
            self.drain(to)?;
            // If it was removed meanwhile the next look finds those that took its place.
            if let Ok(file) = File::open(&next.path) {
                if next.start > self.at {
                    to(next.run.attempt, Next::Missing(next.start - self.at))?;
                }
                self.at = next.start;
                self.piece = Some((next.start, file));
            }
        }
    }

    /// The piece after the one at hand, perhaps the first of another run.
    fn next(&mut self) -> Option<Piece> {
        let next = self.look()?;
        // A directory is not read in one moment: an older one may have come into being meanwhile, and
        // then this look is sure to find it.
        if next.start > self.at { self.look() } else { Some(next) }
    }

    fn look(&mut self) -> Option<Piece> {
        let pieces = pieces(&self.directory, self.stream);
        let run = pieces.first()?.run;
        if self.run != Some(run) {
            (self.run, self.at, self.piece) = (Some(run), 0, None);
        }
        let here = self.piece.as_ref().map(|(start, _)| *start);
        pieces.into_iter().find(|piece| piece.start >= self.at && Some(piece.start) != here)
    }

    /// Reads the piece at hand to its present end.
    fn drain(&mut self, to: &mut dyn FnMut(u32, Next<'_>) -> io::Result<()>) -> io::Result<()> {
        let (Some(run), Some((_, file))) = (self.run, &mut self.piece) else { return Ok(()) };
        let mut block = [0; BLOCK];
        loop {
            match file.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    self.at += read as u64;
                    to(run.attempt, Next::Bytes(&block[..read]))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A disk that cannot be read is not the reader's stdout that cannot be written.
                Err(error) => {
                    log::warn!("legwork: reading the output: {error}");
                    return Ok(());
                }
            }
        }
    }
}

/// What the last run of a job has written, with a note where something is missing; `None` if nothing.
pub(in crate::cli) fn read(db: &Path, id: JobId, stream: Stream) -> Option<String> {
    let mut kept = Vec::new();
    let done = Follower::new(db, id, stream).read(&mut |_, next| {
        match next {
            Next::Bytes(bytes) => kept.extend(bytes),
            Next::Missing(missing) => kept.extend(format!("\n{}\n", cut(missing)).bytes()),
        }
        Ok(())
    });
    done.ok().filter(|()| !kept.is_empty()).map(|()| String::from_utf8_lossy(&kept).into_owned())
}

/// Says how much is missing.
pub(in crate::cli) fn cut(bytes: u64) -> impl Display {
    format!("… {bytes} bytes cut …")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pieces_of_streams_are_taken_for_such() {
        let run = Run { began: 17, attempt: 2 };
        assert_eq!(parsed(&run.piece(Stream::Stderr, 9)), Some((run, "stderr", 9)));
        for other in ["lock", "", "2-17.stdout", "x-17.stdout.0", "2-17.stdout.0.bak", "2.stdout.0"]
        {
            assert_eq!(parsed(other), None, "{other}");
        }
        assert!(Run { began: 18, attempt: 1 } > run, "the later one, whatever its number");
    }
}
