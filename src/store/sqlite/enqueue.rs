//! Inserting jobs: by the writer, and on a connection of the app.

use rusqlite::{CachedStatement, Connection, params};

use super::book::{Book, MARK_CHANGED, find_or_create_lane};
use super::errors::storing;
use super::lanes::{Key, LaneId};
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::NewRow;
use crate::state::State;

pub(super) const INSERT: &str = "
INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args, options, tags, meta)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

fn insert_row(insert: &mut CachedStatement<'_>, id: i64, lane: LaneId, row: &NewRow) -> Result<()> {
    insert
        .execute(params![
            id,
            lane,
            row.state.code(),
            row.priority,
            row.run_at,
            row.enqueued_at,
            row.args,
            row.options,
            row.tags,
            row.meta,
        ])
        .map(drop)
        .map_err(storing)
}

impl Book {
    /// Inserts `rows`, in their order.
    pub(super) fn insert(&mut self, rows: &[NewRow]) -> Result<Vec<JobId>> {
        let mut ids = Vec::with_capacity(rows.len());
        // Lanes first, since the statement below borrows the connection for the whole bulk.
        let mut placed = Vec::with_capacity(rows.len());
        for row in rows {
            placed.push((self.next_job(), self.lane(&row.queue, &row.kind)?));
        }
        {
            let mut insert = self.conn.prepare_cached(INSERT).map_err(storing)?;
            for (row, &(id, lane)) in rows.iter().zip(&placed) {
                insert_row(&mut insert, id, lane, row)?;
                ids.push(JobId(id));
            }
        }
        for (row, &(id, lane)) in rows.iter().zip(&placed) {
            if row.state == State::Ready {
                self.ready(lane, Key { priority: row.priority, run_at: row.run_at, id });
            } else {
                self.due_at(row.run_at);
            }
        }
        Ok(ids)
    }
}

const NEXT_ID: &str = "
UPDATE legwork_counter SET last_job = last_job + 1, last_change = last_change + 1
RETURNING last_job, last_change";

/// Inserts one job on a connection of the app, in its transaction if it has one open.
pub(super) fn insert_on(conn: &Connection, row: &NewRow) -> Result<JobId> {
    // Outside a transaction the savepoint is one: all the statements below, or none.
    conn.execute_batch("SAVEPOINT legwork_enqueue").map_err(storing)?;
    let inserted = insert_steps(conn, row)
        .and_then(|id| conn.execute_batch("RELEASE legwork_enqueue").map_err(storing).map(|()| id));
    if inserted.is_err() {
        // After a full disk SQLite may have rolled the app's transaction back; then there is no
        // savepoint left to undo, and the first error is the one that tells.
        let undo = "ROLLBACK TO legwork_enqueue; RELEASE legwork_enqueue";
        if let Err(undoing) = conn.execute_batch(undo) {
            log::debug!("legwork: undoing an enqueue: {undoing}");
        }
    }
    inserted
}

fn insert_steps(conn: &Connection, row: &NewRow) -> Result<JobId> {
    let (id, change): (i64, i64) = conn
        .prepare_cached(NEXT_ID)
        .and_then(|mut next| next.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(storing)?;
    let (lane, created) = find_or_create_lane(conn, &row.queue, &row.kind, change)?;
    if !created {
        conn.prepare_cached(MARK_CHANGED)
            .and_then(|mut mark| mark.execute([lane, change]))
            .map_err(storing)?;
    }
    insert_row(&mut conn.prepare_cached(INSERT).map_err(storing)?, id, lane, row)?;
    Ok(JobId(id))
}
