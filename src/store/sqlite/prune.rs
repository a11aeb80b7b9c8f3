//! Removing old finished jobs, in small bites, and giving freed pages back in idle moments.

use rusqlite::{Connection, OptionalExtension, params};

use super::book::Book;
use super::ends::WITH_ITS_FLOW;
use super::errors::storing;
use super::{limits, unique};
use crate::clock::Micros;
use crate::error::Result;
use crate::rules::trust::Trust;

/// Finished jobs whose retention is over, the first to go first.
pub(super) const EXPIRED: &str = "
SELECT id FROM legwork_history INDEXED BY legwork_next_prune
 WHERE prune_at <= ?1 AND id NOT IN (SELECT job FROM legwork_settling)
 ORDER BY prune_at LIMIT (?2+0)";
const KEEP_TRUST: &str = "
INSERT INTO legwork_meta (key, value) VALUES ('clock', ?1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const READ_TRUST: &str = "SELECT value FROM legwork_meta WHERE key = 'clock'";
const COUNT: &str = "SELECT count(*) FROM legwork_history";

/// Jobs removed in one transaction: well under a millisecond of work.
pub(super) const BITE: u64 = 200;

/// What a bite has removed.
#[derive(Default)]
pub(super) struct Pruned {
    pub(super) jobs: u64,
    /// Perhaps not all of what there is to remove.
    pub(super) more: bool,
}

const HAS_ONE_ROW: &str = "
SELECT (SELECT count(*) FROM (SELECT 1 FROM legwork_jobs LIMIT 2)) = 1
    OR (SELECT count(*) FROM (SELECT 1 FROM legwork_history LIMIT 2)) = 1
    OR (SELECT count(*) FROM (SELECT 1 FROM legwork_lanes LIMIT 2)) = 1";

/// How far the clock was believed when it was last kept, on any connection.
pub(super) fn kept_trust(conn: &Connection) -> Result<Option<Trust>> {
    let text: Option<String> =
        conn.query_row(READ_TRUST, [], |row| row.get(0)).optional().map_err(storing)?;
    Ok(text.and_then(|text| Trust::from_text(&text)))
}

impl Book {
    /// Removes a bite of what has expired at `now`; beyond the cap, of what expires next.
    pub(super) fn prune(&mut self, now: Micros, over_cap: u64) -> Result<Pruned> {
        let mut ids = self.expired(now, BITE)?;
        if (ids.len() as u64) < over_cap.min(BITE) {
            ids = self.expired(WITH_ITS_FLOW - 1, over_cap.min(BITE))?;
        }
        for &id in &ids {
            self.forget_job(id)?;
        }
        // Flows that have ended go before their time as well, if only they are left beyond the cap.
        let short = (ids.len() as u64) < over_cap.min(BITE);
        let members = self.prune_flow(if short { WITH_ITS_FLOW } else { now }, BITE)?;
        let over = unique::prune(&self.conn, now, BITE)?;
        limits::prune(&self.conn, now, BITE)?;
        self.read_alarms()?;
        let more = ids.len() as u64 >= BITE || over >= BITE || members.is_some();
        Ok(Pruned { jobs: ids.len() as u64 + members.unwrap_or(0), more })
    }

    fn expired(&self, at: Micros, limit: u64) -> Result<Vec<i64>> {
        let mut ask = self.conn.prepare_cached(EXPIRED).map_err(storing)?;
        ask.query_map(params![at, limit.cast_signed()], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(storing)
    }

    /// Keeps for later runs how far the clock is believed.
    pub(super) fn keep_trust(&self, trust: Trust) -> Result<()> {
        self.conn
            .prepare_cached(KEEP_TRUST)
            .and_then(|mut keep| keep.execute([trust.to_text()]))
            .map(drop)
            .map_err(storing)
    }

    /// How far the clock was believed when it was last kept.
    pub(super) fn read_trust(&self) -> Result<Option<Trust>> {
        kept_trust(&self.conn)
    }

    /// How many finished jobs there are: a scan of the history's smallest index, done once.
    pub(super) fn count_history(&self) -> Result<u64> {
        let count: i64 = self.conn.query_row(COUNT, [], |row| row.get(0)).map_err(storing)?;
        Ok(count.unsigned_abs())
    }

    /// Gives a bite of free pages back to the file system if a quarter of the file is free and
    /// the file was made for it; `true`: there is more to give.
    pub(super) fn give_pages_back(&self) -> Result<bool> {
        let pragma = |name: &str| -> Result<i64> {
            self.conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).map_err(storing)
        };
        const INCREMENTAL: i64 = 2;
        if pragma("auto_vacuum")? != INCREMENTAL {
            return Ok(false);
        }
        let free = pragma("freelist_count")?;
        if free < 1024 || free * 4 < pragma("page_count")? {
            return Ok(false);
        }
        self.vacuum(256)?;
        Ok(true)
    }

    /// Gives so many free pages back, if the file was made for it.
    pub(super) fn vacuum(&self, pages: u32) -> Result<()> {
        // The pragma frees one page a step: it must be run to its end.
        let sql = format!("PRAGMA incremental_vacuum({pages})");
        let mut vacuum = self.conn.prepare_cached(&sql).map_err(storing)?;
        let mut steps = vacuum.query([]).map_err(storing)?;
        while steps.next().map_err(storing)?.is_some() {}
        Ok(())
    }

    /// Lets SQLite refresh its statistics after work. Not while a table is one row long: what SQLite has
    /// learnt to be so it walks whole, even where it is given an id, however long it has become since.
    pub(super) fn optimize(&self) -> Result<()> {
        let one: bool = self.conn.query_row(HAS_ONE_ROW, [], |row| row.get(0)).map_err(storing)?;
        if one {
            return Ok(());
        }
        self.conn.execute_batch("PRAGMA optimize").map_err(storing)
    }
}
