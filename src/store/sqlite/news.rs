//! What has been enqueued lately, by whomever: for those who listen.

use rusqlite::{Connection, params};

use super::errors::storing;
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;

const NEWEST: &str = "
SELECT max((SELECT coalesce(max(id), 0) FROM legwork_jobs),
           (SELECT coalesce(max(id), 0) FROM legwork_history))";

pub(super) fn newest(conn: &Connection) -> Result<i64> {
    conn.prepare_cached(NEWEST)
        .and_then(|mut ask| ask.query_row([], |row| row.get(0)))
        .map_err(storing)
}

/// A job when it was enqueued.
#[derive(Debug)]
pub(crate) struct Enqueued {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    pub(crate) queue: String,
    pub(crate) at: Micros,
}

/// Each half in the order of its key, merged: no more is read than is wanted.
pub(super) const ENQUEUED_AFTER: &str = "
SELECT job.id, lane.kind, lane.queue, job.enqueued_at
  FROM (SELECT id, lane, enqueued_at FROM legwork_jobs WHERE id > ?1
         UNION ALL
        SELECT id, lane, enqueued_at FROM legwork_history WHERE id > ?1
         ORDER BY id LIMIT ?2) AS job
  JOIN legwork_lanes AS lane ON lane.id = job.lane
 ORDER BY job.id";

pub(super) fn enqueued_after(conn: &Connection, id: i64, limit: i64) -> Result<Vec<Enqueued>> {
    let read = |row: &rusqlite::Row<'_>| {
        let (id, at) = (JobId(row.get(0)?), row.get(3)?);
        Ok(Enqueued { id, kind: row.get(1)?, queue: row.get(2)?, at })
    };
    conn.prepare_cached(ENQUEUED_AFTER)
        .and_then(|mut ask| ask.query_map(params![id, limit], read)?.collect())
        .map_err(storing)
}
