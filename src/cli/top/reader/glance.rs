//! Whether the file has changed, from the metadata of the database and its `-wal` alone: nobody but SQLite
//! opens them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::beside;

/// Files are stamped by a clock that may be that coarse: what was written that short before a look may have
/// been written to again since.
const COARSE: Duration = Duration::from_secs(2);

/// What a file shows of itself: device and inode, size, time of the last write.
type Mark = ((u64, u64), u64, Option<SystemTime>);

/// One look at the files.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Glance {
    at: SystemTime,
    db: Option<Mark>,
    wal: Option<Mark>,
}

/// How the files stand, compared with an earlier look.
#[derive(Debug, PartialEq)]
pub(super) enum Standing {
    Same,
    /// Perhaps.
    Changed,
    Gone(&'static str),
}

impl Glance {
    pub(super) fn of(path: &Path) -> Glance {
        let mark = |path: &Path| path.metadata().ok().map(|found| mark(&found));
        Glance { at: SystemTime::now(), db: mark(path), wal: mark(&beside::wal(path)) }
    }

    pub(super) fn beside(&self, earlier: &Glance) -> Standing {
        match (&earlier.db, &self.db) {
            (_, None) => return Standing::Gone("the file is gone"),
            (Some((old, ..)), Some((new, ..))) if old != new => {
                return Standing::Gone("the file was replaced by another");
            }
            _ => {}
        }
        let same = (&self.db, &self.wal) == (&earlier.db, &earlier.wal) && !earlier.is_fresh();
        if same { Standing::Same } else { Standing::Changed }
    }

    /// It was written to about when it was looked at.
    fn is_fresh(&self) -> bool {
        let written = [&self.db, &self.wal].into_iter().flatten().filter_map(|mark| mark.2);
        // A time in the future tells nothing.
        written.into_iter().any(|at| self.at.duration_since(at).is_ok_and(|ago| ago < COARSE))
    }
}

fn mark(found: &Metadata) -> Mark {
    ((found.dev(), found.ino()), found.len(), found.modified().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_only_if_it_was_long_at_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        std::fs::write(&path, "1").unwrap();
        let now = Glance::of(&path);
        assert_eq!(Glance::of(&path).beside(&now), Standing::Changed, "it may have been");
        let later = Glance { at: now.at + COARSE * 2, ..now };
        assert_eq!(Glance::of(&path).beside(&later), Standing::Same);
        std::fs::write(dir.path().join("a.db-wal"), "1").unwrap();
        assert_eq!(Glance::of(&path).beside(&later), Standing::Changed);
    }

    #[test]
    fn a_file_that_is_missing_or_another_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
        std::fs::write(&path, "1").unwrap();
        std::fs::write(&other, "1").unwrap();
        let first = Glance::of(&path);
        std::fs::rename(&other, &path).unwrap();
        assert!(matches!(Glance::of(&path).beside(&first), Standing::Gone(_)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Glance::of(&path).beside(&first), Standing::Gone(_)));
    }
}
