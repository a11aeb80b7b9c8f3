//! Which SQLite runs here, and whether it has the WAL-reset bug.

use std::sync::Once;

/// The first release without the bug, and the branches that it was corrected in as well.
const FIXED: i32 = 3_051_003;
const FIXED_BRANCHES: [std::ops::Range<i32>; 2] = [3_050_007..3_051_000, 3_044_006..3_045_000];

/// The SQLite that this program is linked with; returned by [`Jobs::sqlite`](crate::Jobs::sqlite).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteInfo {
    /// Its version, such as `"3.51.3"`.
    pub version: String,
    /// Whether it has the WAL-reset bug of versions before 3.51.3 (save 3.50.7 and 3.44.6): when two
    /// connections write or checkpoint at the same moment while the WAL is reset, the file may
    /// be damaged. Rare; an update of SQLite cures it.
    pub wal_reset_bug: bool,
}

impl SqliteInfo {
    pub(crate) fn here() -> SqliteInfo {
        SqliteInfo {
            version: rusqlite::version().to_owned(),
            wal_reset_bug: has_wal_reset_bug(rusqlite::version_number()),
        }
    }
}

/// `version` as SQLite counts: 3.51.3 is 3051003.
fn has_wal_reset_bug(version: i32) -> bool {
    version < FIXED && !FIXED_BRANCHES.iter().any(|branch| branch.contains(&version))
}

/// Says it in the log once a process.
pub(super) fn warn_of_bugs() {
    static SAID: Once = Once::new();
    let sqlite = SqliteInfo::here();
    if sqlite.wal_reset_bug {
        SAID.call_once(|| {
            log::warn!(
                "legwork: SQLite {} has the WAL-reset bug, which can damage a file that several \
                 connections write to; use 3.51.3 or newer (or 3.50.7, 3.44.6)",
                sqlite.version
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::has_wal_reset_bug;

    #[test]
    fn the_wal_reset_bug_is_in_the_versions_that_have_it() {
        for (version, has_it) in [
            (3_037_000, true),
            (3_044_000, true),
            (3_044_005, true),
            (3_044_006, false),
            (3_044_009, false),
            (3_045_000, true),
            (3_045_003, true),
            (3_049_002, true),
            (3_050_000, true),
            (3_050_006, true),
            (3_050_007, false),
            (3_050_008, false),
            (3_051_000, true),
            (3_051_002, true),
            (3_051_003, false),
            (3_052_000, false),
            (4_000_000, false),
        ] {
            assert_eq!(has_wal_reset_bug(version), has_it, "{version}");
        }
    }
}
