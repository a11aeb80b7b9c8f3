//! The schema and its versions: forward, in one transaction, and never on a newer file.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::errors::storing;
use crate::error::{Error, Result};

/// The steps from each version to the next; the first makes version 1.
const STEPS: [&str; 1] = [concat!(include_str!("schema.sql"), include_str!("enqueue_view.sql"))];

/// What each of them does, in words.
const SAYS: [&str; STEPS.len()] = ["makes legwork's tables"];

/// The newest version that this program knows.
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// The version of legwork's part of the file; 0 if it has none.
pub(super) fn version(conn: &Connection) -> Result<i64> {
    let has_meta: bool = conn
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'legwork_meta')",
            [],
            |row| row.get(0),
        )
        .map_err(storing)?;
    if !has_meta {
        return Ok(0);
    }
    let found: Option<Value> = conn
        .query_row("SELECT value FROM legwork_meta WHERE key = 'schema'", [], |row| row.get(0))
        .optional()
        .map_err(storing)?;
    match found {
        Some(Value::Integer(version)) if version > 0 => Ok(version),
        _ => Err(Error::Corrupt("legwork_meta names no schema version".into())),
    }
}

/// What migrating a file of this version does.
pub(super) fn steps_from(version: i64) -> Vec<&'static str> {
    let from = usize::try_from(version).unwrap_or(usize::MAX);
    SAYS.get(from..).unwrap_or_default().to_vec()
}

/// Refuses files that a newer legwork has written.
pub(super) fn check(conn: &Connection) -> Result<i64> {
    let found = version(conn)?;
    if found > KNOWN {
        return Err(Error::Newer { found, known: KNOWN });
    }
    Ok(found)
}

/// Brings the file to the newest version. The caller holds the write lock.
pub(super) fn migrate(conn: &Connection) -> Result<()> {
    // Again under the lock: another process may have been here first.
    let found = check(conn)?;
    if found == KNOWN {
        return Ok(());
    }
    let from = usize::try_from(found).unwrap_or(0);
    for step in &STEPS[from..] {
        conn.execute_batch(step).map_err(storing)?;
    }
    conn.execute(
        "INSERT INTO legwork_meta (key, value) VALUES ('schema', ?1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [KNOWN],
    )
    .map_err(storing)?;
    log::info!("legwork: schema brought from version {found} to {KNOWN}");
    Ok(())
}
