//! Bare SQLite on legwork's own schema: one connection, statements prepared once and held over a
//! batch, batches as large as one likes. What legwork's figures are held against.
//!
//! The statements have the shape of the store's. The only SQL outside `store/`.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Statement, params};

use super::error::Result;
use super::work::{ARGS, Noop};
use crate::job::Job;
use crate::jobs::Jobs;
use crate::new_job::DEFAULT_QUEUE;

/// The settings of legwork's own writer.
pub(super) const AUTOCHECKPOINT: u32 = 1000;
pub(super) const SIZE_LIMIT: u32 = 8 * 1024 * 1024;

/// Single commits after which the WAL has grown to a checkpoint and is written over: warm.
pub(super) const WARM: usize = 600;

const INSERT: &str = "
INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args, options, tags, meta)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const NEXT_READY: &str = "
SELECT id, priority, run_at, args, options, meta, attempts, first_started_at
  FROM legwork_jobs INDEXED BY legwork_next_ready
 WHERE state = 3 AND instance IS NULL AND crashes IS NULL AND lane = (?1+0)
 ORDER BY priority, run_at, id
 LIMIT (?2+0)";
const CLAIM: &str = "
UPDATE legwork_jobs SET state = 4, instance = ?2, token = ?3, started_at = ?4
 WHERE id = ?1";
const MOVE_CLAIMED: &str = "
INSERT INTO legwork_history
       (id, lane, state, priority, run_at, enqueued_at, attempts, started_at, finished_at, prune_at,
        args, options, tags, meta, progress_done, progress_total, message, output, reason)
SELECT id, lane, ?4, priority, run_at, enqueued_at, attempts + ?5, started_at, ?6, ?7,
       args, options, tags, meta, coalesce(?8, progress_done), coalesce(?9, progress_total),
       coalesce(?10, message), ?11, ?12
  FROM legwork_jobs
 WHERE id = ?1 AND instance = ?2 AND token = ?3";
const REMOVE: &str = "DELETE FROM legwork_jobs WHERE id = ?1";

const ADD_LANE: &str = "
INSERT OR IGNORE INTO legwork_lanes (queue, kind) VALUES (?1, ?2)";
const FIND_LANE: &str = "SELECT id FROM legwork_lanes WHERE queue = ?1 AND kind = ?2";
const LAST_JOB: &str = "SELECT last_job FROM legwork_counter";

/// A time of an ordinary size; what it is plays no part.
const NOW: i64 = 1_767_225_600_000_000;
const DAY: i64 = 86_400_000_000;
const INSTANCE: i64 = 1;

/// One bare connection on a file with legwork's schema.
pub(super) struct Raw {
    conn: Connection,
    lane: i64,
    last_job: i64,
    last_token: i64,
}

/// A job as a worker would get it, and its claim.
pub(super) struct Claimed {
    id: i64,
    token: i64,
    /// Read because a worker needs them.
    _args: String,
}

impl Raw {
    /// Opens a file, made by legwork if it is new.
    pub(super) fn open(file: &Path) -> Result<Raw> {
        drop(Jobs::open(file)?);
        let conn = connect(file)?;
        conn.execute(ADD_LANE, [DEFAULT_QUEUE, Noop::KIND])?;
        let lane = conn.query_row(FIND_LANE, [DEFAULT_QUEUE, Noop::KIND], |row| row.get(0))?;
        let last_job = conn.query_row(LAST_JOB, [], |row| row.get(0))?;
        Ok(Raw { conn, lane, last_job, last_token: 0 })
    }

    /// Commits one row at a time until the WAL is warm.
    pub(super) fn warm_up(&mut self, commits: usize) -> Result<()> {
        (0..commits).try_for_each(|_| self.insert(1))
    }

    /// Inserts so many ready jobs in one synced transaction.
    pub(super) fn insert(&mut self, count: usize) -> Result<()> {
        self.begin(Synced::Yes)?;
        let none = None::<String>;
        let mut insert = self.conn.prepare_cached(INSERT)?;
        for id in (self.last_job + 1..).take(count) {
            insert.execute(params![id, self.lane, 3, 0, NOW, NOW, ARGS, none, none, none])?;
        }
        drop(insert);
        self.last_job += number(count);
        self.commit()
    }

    /// Finishes whatever waits.
    pub(super) fn finish_all(&mut self) -> Result<()> {
        loop {
            let claimed = self.claim(1_000)?;
            if claimed.is_empty() {
                return Ok(());
            }
            self.finish(&claimed)?;
        }
    }

    /// Claims at most so many in one transaction that is not synced.
    pub(super) fn claim(&mut self, most: usize) -> Result<Vec<Claimed>> {
        self.begin(Synced::No)?;
        let mut claimed = Vec::with_capacity(most);
        {
            let mut select = self.conn.prepare_cached(NEXT_READY)?;
            let mut rows = select.query(params![self.lane, number(most)])?;
            while let Some(row) = rows.next()? {
                self.last_token += 1;
                claimed.push(Claimed {
                    id: row.get(0)?,
                    token: self.last_token,
                    _args: row.get(3)?,
                });
            }
            let mut claim = self.conn.prepare_cached(CLAIM)?;
            for job in &claimed {
                claim.execute(params![job.id, INSTANCE, job.token, NOW])?;
            }
        }
        self.commit()?;
        Ok(claimed)
    }

    /// Moves claimed jobs into the history, in one transaction that is not synced.
    pub(super) fn finish(&mut self, claimed: &[Claimed]) -> Result<()> {
        self.begin(Synced::No)?;
        {
            let mut moved = self.conn.prepare_cached(MOVE_CLAIMED)?;
            let mut remove = self.conn.prepare_cached(REMOVE)?;
            for job in claimed {
                move_one(&mut moved, job)?;
                remove.execute([job.id])?;
            }
        }
        self.commit()
    }

    fn begin(&self, synced: Synced) -> Result<()> {
        self.conn.execute_batch(match synced {
            Synced::Yes => "PRAGMA synchronous = FULL",
            Synced::No => "PRAGMA synchronous = NORMAL",
        })?;
        self.run("BEGIN IMMEDIATE")
    }

    fn commit(&self) -> Result<()> {
        self.run("COMMIT")
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Synced {
    Yes,
    No,
}

fn move_one(moved: &mut Statement<'_>, job: &Claimed) -> Result<()> {
    let none = None::<String>;
    moved.execute(params![
        job.id,
        INSTANCE,
        job.token,
        6,
        1,
        NOW,
        NOW + DAY,
        None::<i64>,
        None::<i64>,
        none,
        none,
        none
    ])?;
    Ok(())
}

fn connect(file: &Path) -> Result<Connection> {
    let conn = Connection::open(file)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(64);
    let ignore = |_: &rusqlite::Row<'_>| Ok(());
    conn.query_row(&format!("PRAGMA journal_size_limit = {SIZE_LIMIT}"), [], ignore)?;
    conn.query_row(&format!("PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT}"), [], ignore)?;
    conn.execute_batch(
        "PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1; PRAGMA foreign_keys = OFF",
    )?;
    Ok(conn)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).expect("no experiment has so many jobs")
}

const COMPLETED: &str = "
WITH RECURSIVE ids (id) AS (VALUES (?1) UNION ALL SELECT id + 1 FROM ids WHERE id < ?2)
INSERT INTO legwork_history
       (id, lane, state, priority, run_at, enqueued_at, attempts, started_at, finished_at, prune_at,
        args)
SELECT id, ?3, 6, 0, ?4, ?4, 1, ?4, ?4, ?5, ?6 FROM ids";
const RAISE_COUNTER: &str = "UPDATE legwork_counter SET last_job = ?1";

/// Adds so many completed jobs to the history. Nobody else has the file open.
pub(super) fn add_completed(file: &Path, count: usize, now: i64) -> Result<()> {
    const PORTION: i64 = 50_000;
    let raw = Raw::open(file)?;
    let mut next = raw.last_job + 1;
    let last = raw.last_job + number(count);
    while next <= last {
        let end = last.min(next + PORTION - 1);
        raw.begin(Synced::No)?;
        raw.conn.execute(COMPLETED, params![next, end, raw.lane, now, now + DAY, ARGS])?;
        raw.conn.execute(RAISE_COUNTER, [end])?;
        raw.commit()?;
        next = end + 1;
    }
    Ok(())
}

/// An app that shares the file with legwork: a connection and a table of its own.
pub(super) struct App {
    conn: Connection,
}

impl App {
    /// Its connection waits ten seconds for the write lock.
    pub(super) fn open(file: &Path) -> Result<App> {
        let conn = Connection::open(file)?;
        conn.busy_timeout(Duration::from_secs(10))?;
        conn.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, total INTEGER NOT NULL)",
        )?;
        Ok(App { conn })
    }

    /// Adds a row in an immediate transaction, synced as SQLite does by default.
    pub(super) fn order(&self) -> Result<()> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.conn.prepare_cached("INSERT INTO orders (total) VALUES (?1)")?.execute([1999])?;
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Filter;
    use crate::state::State;

    /// A baseline that loses rows, or leaves them half done, would be an easy one.
    #[test]
    fn what_raw_does_is_what_legwork_would_have_done() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("raw.db");
        let count = |state| {
            Jobs::open(&file).unwrap().count(&Filter::new().kind(Noop::KIND).state(state)).unwrap()
        };
        let mut raw = Raw::open(&file).unwrap();
        raw.insert(10).unwrap();
        assert_eq!(count(State::Ready), 10);
        let claimed = raw.claim(7).unwrap();
        assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((count(State::Ready), count(State::Running)), (3, 7));
        raw.finish(&claimed).unwrap();
        assert_eq!((count(State::Running), count(State::Completed)), (0, 7));
        assert_eq!(raw.claim(7).unwrap().len(), 3);
    }

    #[test]
    fn an_added_history_is_legworks_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("raw.db");
        add_completed(&file, 120, NOW).unwrap();
        let jobs = Jobs::open(&file).unwrap();
        assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 120);
        assert_eq!(jobs.enqueue(Noop::new()).unwrap().to_string(), "121", "no id twice");
    }
}
