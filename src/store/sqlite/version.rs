//! Which SQLite runs here, and whether it has the WAL-reset bug.

use std::sync::Once;

use super::open::OLDEST_SQLITE;
use crate::finding::Finding;

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

/// What an examination says of a SQLite of this version.
pub(super) fn finding(version: i32) -> Finding {
    let name = format!("{}.{}.{}", version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
    if version < OLDEST_SQLITE {
        return Finding::problem(
            "sqlite_old",
            format!("SQLite {name} is too old: it opens no file"),
        )
        .advice("use a program that is built with SQLite 3.51.3 or newer");
    }
    if has_wal_reset_bug(version) {
        return Finding::warning(
            "wal_reset_bug",
            format!(
                "SQLite {name} has the WAL-reset bug, which can damage a file that several \
                 connections write to"
            ),
        )
        .advice("use a program that is built with SQLite 3.51.3 or newer (or 3.50.7, 3.44.6)");
    }
    Finding::ok("sqlite", format!("SQLite {name}"))
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
    use super::{finding, has_wal_reset_bug};
    use crate::finding::Severity;

    #[test]
    fn an_old_sqlite_is_found_and_a_new_one_is_not() {
        for (version, code, severity) in [
            (3_036_000, "sqlite_old", Severity::Problem),
            (3_037_000, "wal_reset_bug", Severity::Warning),
            (3_051_002, "wal_reset_bug", Severity::Warning),
            (3_050_007, "sqlite", Severity::Ok),
            (3_054_001, "sqlite", Severity::Ok),
        ] {
            let found = finding(version);
            assert_eq!((found.code, found.severity), (code, severity), "{version}");
        }
        assert!(finding(3_036_001).says.contains("3.36.1"));
    }

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
