//! What a command writes to stdout or stderr, in a file of its own: the head as it comes, the tail
//! at the end, and how much is missing in between.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::id::JobId;
use crate::jobs::Jobs;

/// Bytes kept of the beginning and of the end, each.
const HALF: usize = 128 * 1024;
/// Bytes looked at for the last line.
const LAST: usize = 1024;

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Stream {
    Stdout,
    Stderr,
}

/// `<db>-legwork/output`.
fn directory(db: &Path) -> PathBuf {
    let mut side = db.as_os_str().to_owned();
    side.push("-legwork");
    PathBuf::from(side).join("output")
}

fn file_of(db: &Path, id: JobId, stream: Stream) -> PathBuf {
    let ending = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    directory(db).join(format!("job-{id}.{ending}"))
}

/// What the last attempt of a job has written; `None` if nothing.
pub(in crate::cli) fn read(db: &Path, id: JobId, stream: Stream) -> Option<Vec<u8>> {
    fs::read(file_of(db, id, stream)).ok()
}

/// Removes what was kept of jobs that are gone.
pub(in crate::cli) fn sweep(jobs: &Jobs) {
    let Ok(entries) = fs::read_dir(directory(jobs.path())) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("job-")?.split('.').next());
        let Some(id) = id.and_then(|id| id.parse().ok()) else { continue };
        if matches!(jobs.get(id), Err(Error::NotFound(_)))
            && let Err(error) = fs::remove_file(entry.path())
        {
            log::debug!("legwork: removing {}: {error}", entry.path().display());
        }
    }
}

/// Keeps the head and the tail of one stream.
pub(super) struct Capture {
    path: PathBuf,
    /// Made with the first byte: most commands say nothing.
    file: Option<File>,
    head: usize,
    tail: VecDeque<u8>,
    cut: u64,
    last: VecDeque<u8>,
    /// Why nothing more is kept.
    failed: Option<io::Error>,
}

impl Capture {
    /// Forgets what an earlier attempt has left.
    pub(super) fn begin(db: &Path, id: JobId, stream: Stream) -> Capture {
        let path = file_of(db, id, stream);
        // Mostly there is none.
        let _ = fs::remove_file(&path);
        Capture {
            path,
            file: None,
            head: 0,
            tail: VecDeque::new(),
            cut: 0,
            last: VecDeque::new(),
            failed: None,
        }
    }

    /// A disk that takes no output is no reason for the command to fail.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        keep_last(&mut self.last, bytes, LAST);
        let (head, rest) = bytes.split_at(bytes.len().min(HALF - self.head));
        self.head += head.len();
        self.cut += keep_last(&mut self.tail, rest, HALF);
        self.write(head);
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.failed.is_some() {
            return;
        }
        if let Err(error) = self.try_write(bytes) {
            log::warn!("legwork: {}: {error}", self.path.display());
            self.failed = Some(error);
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        file.write_all(bytes)
    }

    /// Writes the tail; the last line that is not blank.
    pub(super) fn end(mut self) -> Option<String> {
        if self.cut > 0 {
            let note = format!("\n… {} bytes cut …\n", self.cut);
            self.write(note.as_bytes());
        }
        let tail = std::mem::take(&mut self.tail);
        self.write(&Vec::from(tail));
        let last = String::from_utf8_lossy(self.last.make_contiguous()).into_owned();
        last.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }
}

/// Appends, and drops from the front what is more than `most`; how many bytes that was.
fn keep_last(kept: &mut VecDeque<u8>, bytes: &[u8], most: usize) -> u64 {
    kept.extend(bytes);
    let more = kept.len().saturating_sub(most);
    kept.drain(..more);
    more as u64
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pieces: &[&[u8]]) -> (Option<Vec<u8>>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("x.db");
        let mut capture = Capture::begin(&db, JobId(1), Stream::Stdout);
        pieces.iter().for_each(|piece| capture.take(piece));
        let last = capture.end();
        (read(&db, JobId(1), Stream::Stdout), last)
    }

    #[test]
    fn up_to_the_cap_all_is_kept_and_beyond_it_head_and_tail() {
        assert_eq!(captured(&[]), (None, None));
        assert_eq!(
            captured(&[b"one\n", b"two\n\n"]),
            (Some(b"one\ntwo\n\n".to_vec()), Some("two".to_owned()))
        );
        let full = vec![b'x'; 2 * HALF];
        assert_eq!(captured(&[&full]).0, Some(full.clone()));

        let (kept, last) = captured(&[b"first ", &full, b"\nlast"]);
        let kept = String::from_utf8(kept.unwrap()).unwrap();
        assert!(kept.starts_with("first x") && kept.ends_with("x\nlast"));
        assert!(kept.contains("\n… 11 bytes cut …\n"));
        assert!(kept.len() < 2 * HALF + 50);
        assert_eq!(last.as_deref(), Some("last"));
    }
}
