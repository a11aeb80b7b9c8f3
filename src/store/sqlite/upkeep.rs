//! Looking after the file on request: removing finished jobs in small bites, and giving pages back.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::book::Book;
use super::errors::storing;
use super::{Store, flows, migrate, open, prune};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::rules::trust::Trust;
use crate::store::{Control, Upkeep, Upkept};
use crate::upkeep::{Ends, Schema, Vacuumed};

/// Ids that are looked up at once, and removed in one transaction.
const BITE: i64 = 200;
/// Pages given back in one transaction.
const PAGES: u32 = 256;

/// Whether a finished job of no flow has ended by a time that goes by its state.
macro_rules! is_old {
    () => {
        "flow IS NULL AND finished_at <= CASE state WHEN 6 THEN ?2 WHEN 7 THEN ?3 ELSE ?4 END
            AND id NOT IN (SELECT job FROM legwork_settling)"
    };
}
/// The same of a flow: nothing of it waits, no callback of it, and no end of a member has still to be heard of.
macro_rules! is_old_flow {
    () => {
        "ended_at <= CASE WHEN failed > 0 THEN ?3 WHEN cancelled > 0 THEN ?4 ELSE ?2 END
            AND NOT EXISTS (SELECT 1 FROM legwork_callbacks AS callback
                             CROSS JOIN legwork_jobs AS job ON job.id = callback.id
                             WHERE callback.flow = flow.id)
            AND NOT EXISTS (SELECT 1 FROM legwork_settling AS settling
                             CROSS JOIN legwork_history AS member ON member.id = settling.job
                             WHERE member.flow = flow.id)"
    };
}
pub(super) const OLD: &str = concat!(
    "SELECT id FROM legwork_history WHERE id > ?1 AND ",
    is_old!(),
    " ORDER BY id LIMIT 200"
);
pub(super) const IS_OLD: &str =
    concat!("SELECT 1 FROM legwork_history WHERE id = ?1 AND ", is_old!());
const COUNT_OLD: &str =
    concat!("SELECT count(*) FROM legwork_history WHERE id > ?1 AND ", is_old!());
pub(super) const OLD_FLOW: &str = concat!(
    "SELECT id FROM legwork_flows AS flow WHERE id > ?1 AND ",
    is_old_flow!(),
    " ORDER BY id LIMIT 1"
);
pub(super) const IS_OLD_FLOW: &str =
    concat!("SELECT 1 FROM legwork_flows AS flow WHERE id = ?1 AND ", is_old_flow!());
const COUNT_MEMBERS: &str = concat!(
    "SELECT count(*) FROM legwork_history WHERE flow IN
       (SELECT id FROM legwork_flows AS flow WHERE id > ?1 AND ",
    is_old_flow!(),
    ")"
);
const COUNT_DUE: &str = "
SELECT count(*) FROM legwork_history
 WHERE prune_at <= ?1 AND id NOT IN (SELECT job FROM legwork_settling)
    OR flow IN (SELECT id FROM legwork_flows WHERE prune_at <= ?1)";

impl Book {
    /// A bite of what is asked for. `believed`: how far the clock is.
    pub(super) fn upkeep(&mut self, order: &Upkeep, believed: Micros) -> Result<Upkept> {
        match order {
            Upkeep::PruneDue => {
                let pruned = self.prune(believed, 0)?;
                Ok(Upkept { removed: pruned.jobs, more: pruned.more })
            }
            Upkeep::PruneJobs(ids, ends) => {
                let mut removed = 0;
                for &id in ids {
                    // It may have been retried since it was found.
                    if is(&self.conn, IS_OLD, id, ends)? {
                        self.forget_job(id)?;
                        removed += 1;
                    }
                }
                self.read_alarms()?;
                Ok(Upkept { removed, more: false })
            }
            &Upkeep::PruneFlow(id, ref ends) => {
                if !flows::is_going(&self.conn, id)? && !is(&self.conn, IS_OLD_FLOW, id, ends)? {
                    return Ok(Upkept::default());
                }
                let removed = self.remove_flow(id, BITE.unsigned_abs())?;
                self.read_alarms()?;
                Ok(Upkept { removed, more: removed >= BITE.unsigned_abs() })
            }
            Upkeep::GivePagesBack => {
                self.vacuum(PAGES)?;
                let free = pragma(&self.conn, "freelist_count")?;
                Ok(Upkept { removed: 0, more: free > 0 })
            }
        }
    }
}

fn is(conn: &Connection, sql: &str, id: i64, ends: &Ends) -> Result<bool> {
    let [completed, failed, cancelled] = ends.each();
    conn.prepare_cached(sql)
        .and_then(|mut ask| ask.exists(params![id, completed, failed, cancelled]))
        .map_err(storing)
}

fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).map_err(storing)
}

impl Store {
    /// Does one bite.
    pub(crate) fn upkeep(&self, order: Upkeep) -> Result<Upkept> {
        self.control(Control::Upkeep(order)).map(|done| done.upkept)
    }

    /// Old jobs of no flow behind an id, by rising id; empty: there are no more.
    pub(crate) fn old_jobs(&self, after: i64, ends: &Ends) -> Result<Vec<i64>> {
        let [completed, failed, cancelled] = ends.each();
        let conn = self.reader()?;
        let mut ask = conn.prepare_cached(OLD).map_err(storing)?;
        ask.query_map(params![after, completed, failed, cancelled], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(storing)
    }

    /// The next old flow behind an id.
    pub(crate) fn old_flow(&self, after: i64, ends: &Ends) -> Result<Option<i64>> {
        let [completed, failed, cancelled] = ends.each();
        self.reader()?
            .query_row(OLD_FLOW, params![after, completed, failed, cancelled], |row| row.get(0))
            .optional()
            .map_err(storing)
    }

    /// How many jobs are old, those of old flows included.
    pub(crate) fn count_old(&self, ends: &Ends) -> Result<u64> {
        let [completed, failed, cancelled] = ends.each();
        let conn = self.reader()?;
        let count = |sql: &str| {
            conn.query_row(sql, params![i64::MIN, completed, failed, cancelled], |row| {
                row.get::<_, i64>(0)
            })
            .map(i64::unsigned_abs)
            .map_err(storing)
        };
        Ok(count(COUNT_OLD)? + count(COUNT_MEMBERS)?)
    }

    /// How many jobs have outlived their retention, as far as the clock is believed.
    pub(crate) fn count_due(&self, now: Micros) -> Result<u64> {
        let conn = self.reader()?;
        let trust = prune::kept_trust(&conn)?.unwrap_or(Trust::new(now));
        let believed = trust.look(now, Duration::ZERO).cutoff();
        conn.query_row(COUNT_DUE, [believed], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
            .map_err(storing)
    }

    /// The file's size and its free pages, in bytes; and whether it gives pages back by itself.
    pub(crate) fn space(&self) -> Result<Vacuumed> {
        let conn = self.reader()?;
        let count = |name: &str| pragma(&conn, name).map(i64::unsigned_abs);
        let page = count("page_size")?;
        let size = page * count("page_count")?;
        Ok(Vacuumed {
            before: size,
            after: size,
            free: page * count("freelist_count")?,
            incremental: count("auto_vacuum")? == 2,
        })
    }

    /// Writes the file anew without free pages. Nobody else can write meanwhile.
    pub(crate) fn vacuum_fully(&self) -> Result<()> {
        let conn = self.another()?;
        conn.execute_batch("VACUUM").map_err(storing)?;
        empty_wal(&conn);
        Ok(())
    }

    /// Writes the WAL back, if nobody reads it, so that the file itself becomes smaller.
    pub(crate) fn write_back(&self) -> Result<()> {
        empty_wal(&self.another()?);
        Ok(())
    }

    /// Another connection that can write; what it does others learn as if another program did it.
    fn another(&self) -> Result<Connection> {
        self.check_in_place()?;
        let how = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path(), how).map_err(storing)?;
        conn.busy_timeout(self.busy_timeout).map_err(storing)?;
        Ok(conn)
    }
}

/// If somebody reads it, it is written back later.
fn empty_wal(conn: &Connection) {
    if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        log::debug!("legwork: writing the -wal back: {error}");
    }
}

/// The version of a file that is not opened for use.
pub(crate) fn schema(path: &Path) -> Result<Schema> {
    let wrong = |why: String| Error::Foreign { path: path.to_owned(), why };
    let meta = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if meta.is_dir() {
        return Err(wrong("it is a directory".to_owned()));
    }
    let conn = super::examine::open(path).map_err(|error| open::opening(path, error))?;
    // One snapshot: another process may be making the tables.
    let conn = conn.unchecked_transaction().map_err(storing)?;
    let count: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| open::opening(path, error))?;
    let found = migrate::version(&conn)?;
    let is_empty = count == 0;
    Ok(Schema { found, is_empty, known: migrate::KNOWN, steps: migrate::steps_from(found) })
}
