//! The kinds that engines know, with the options that are taken at the enqueue; and what waits of
//! which kind.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::book::Book;
use super::errors::storing;
use super::text;
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;
use crate::kinds::KindOptions;

const ALL: &str = "SELECT kind, options FROM legwork_kinds";
const ONE: &str = "SELECT options FROM legwork_kinds WHERE kind = ?1";
const RECORD: &str = "
INSERT INTO legwork_kinds (kind, options, known_at) VALUES (?1, ?2, ?3)
    ON CONFLICT (kind) DO UPDATE SET options = excluded.options, known_at = excluded.known_at";
/// A page of the jobs that are not finished; the join is told its order.
pub(super) const PENDING: &str = "
SELECT job.id, lane.kind, job.args
  FROM legwork_jobs AS job CROSS JOIN legwork_lanes AS lane ON lane.id = job.lane
 WHERE job.id > ?1 ORDER BY job.id LIMIT (?2+0)";

/// Jobs that are read in one snapshot.
const AT_ONCE: usize = 500;

impl Book {
    /// Records the kinds that are not in the file as they are here.
    pub(super) fn record_kinds(&mut self, kinds: &KindOptions, now: Micros) -> Result<()> {
        let known = if kinds.is_empty() { HashMap::new() } else { all(&self.conn)? };
        for (kind, options) in kinds {
            if known.get(kind) != Some(options) {
                self.conn
                    .prepare_cached(RECORD)
                    .and_then(|mut record| record.execute(params![kind, options, now]))
                    .map_err(storing)?;
            }
        }
        Ok(())
    }
}

/// All kinds in the file with their options as JSON.
pub(super) fn all(conn: &Connection) -> Result<HashMap<String, String>> {
    let mut ask = conn.prepare_cached(ALL).map_err(storing)?;
    ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(storing)
}

/// The options of one kind as JSON.
pub(super) fn one(conn: &Connection, kind: &str) -> Result<Option<String>> {
    conn.prepare_cached(ONE)
        .and_then(|mut ask| ask.query_row([kind], |row| row.get(0)).optional())
        .map_err(storing)
}

/// Shows every job that is not finished, with its kind and arguments, in the order of ids. Reads some
/// at once, so that no snapshot is kept for long.
pub(super) fn each_pending(
    conn: &Connection,
    visit: &mut dyn FnMut(JobId, &str, &str),
) -> Result<()> {
    let mut last = 0;
    loop {
        let mut ask = conn.prepare_cached(PENDING).map_err(storing)?;
        let mut rows = ask.query(params![last, AT_ONCE as i64]).map_err(storing)?;
        let mut read = 0;
        while let Some(row) = rows.next().map_err(storing)? {
            let job = || Ok((row.get(0)?, row.get::<_, String>(1)?, text::json(row, 2)?));
            let (id, kind, args) = job().map_err(storing)?;
            visit(JobId(id), &kind, &args);
            (last, read) = (id, read + 1);
        }
        if read < AT_ONCE {
            return Ok(());
        }
    }
}
