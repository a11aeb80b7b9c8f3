//! The steps of jobs: results that later attempts need not work for again.

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::book::Book;
use super::errors::storing;
use super::finish::all_or_nothing;
use super::writer::Mail;
use crate::clock::from_micros;
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::record::StepRecord;
use crate::rules::steps::{Named, Sort, Stored};
use crate::store::Save;

/// Stores a value, if the claim still stands.
pub(super) const SAVE: &str = "
INSERT INTO legwork_steps (job, place, name, sort, last, at, value)
SELECT id, ?4, ?5, ?6, ?7, ?8, ?9 FROM legwork_jobs WHERE id = ?1 AND instance = ?2 AND token = ?3
    ON CONFLICT (job, place) DO UPDATE
   SET last = excluded.last, at = excluded.at, value = excluded.value";
/// Stores only a name. One that has an entry meanwhile keeps it.
const NAME: &str = "
INSERT OR IGNORE INTO legwork_steps (job, place, name, sort, last, at)
VALUES (?1, ?2, ?3, ?4, ?2, ?5)";
/// So that its claims know of them, whatever attempts were counted.
pub(super) const MARK: &str =
    "UPDATE legwork_jobs SET has_steps = 1 WHERE id = ?1 AND has_steps IS NULL";
pub(super) const FORGET: &str = "DELETE FROM legwork_steps WHERE job = ?1";

pub(super) const NAMES: &str =
    "SELECT name, sort, last FROM legwork_steps WHERE job = ?1 ORDER BY place";
pub(super) const VALUE: &str = "SELECT value FROM legwork_steps WHERE job = ?1 AND place = ?2";
/// (`octet_length` is younger than the oldest SQLite that legwork works with.)
pub(super) const LIST: &str = "
SELECT name, sort, at, length(CAST(value AS BLOB)) FROM legwork_steps WHERE job = ?1 ORDER BY place";

impl Store {
    /// Keeps a result or position; committed when it returns, and durable if that is asked for, as
    /// far as the durability level says.
    ///
    /// # Errors
    /// [`Error::LostClaim`] if the claim no longer stands; those of writing.
    pub(crate) fn save(&self, save: Save) -> Result<()> {
        self.ask_at_once(Box::new(save), Mail::Save)
    }

    /// The same in the app's transaction on `conn`.
    ///
    /// # Errors
    /// As [`save`](Store::save); [`Error::Invalid`] without a transaction, [`Error::Foreign`].
    pub(crate) fn save_in(&self, conn: &Connection, save: &Save) -> Result<()> {
        self.check_alive()?;
        self.check_same_file(conn)?;
        if conn.is_autocommit() {
            return Err(Error::invalid("connection", "`save_in` needs an open transaction"));
        }
        all_or_nothing(conn, || save_on(conn, save))
    }

    /// What a job has in its places, from the first on.
    pub(crate) fn step_names(&self, id: JobId) -> Result<Vec<Stored>> {
        let reader = self.reader()?;
        let mut ask = reader.prepare_cached(NAMES).map_err(storing)?;
        ask.query_map([id.0], |row| {
            let sort = sort_from(row.get_ref(1)?.as_str()?);
            let last: i64 = row.get(2)?;
            Ok(Stored {
                named: Named { name: row.get(0)?, sort },
                last: usize::try_from(last).unwrap_or(usize::MAX),
            })
        })
        .and_then(Iterator::collect)
        .map_err(storing)
    }

    /// The value of one place, if it has one.
    pub(crate) fn step_value(&self, id: JobId, place: usize) -> Result<Option<String>> {
        let reader = self.reader()?;
        let mut ask = reader.prepare_cached(VALUE).map_err(storing)?;
        let value = ask.query_row(params![id.0, column(place)], |row| row.get(0)).optional();
        value.map(Option::flatten).map_err(storing)
    }

    pub(crate) fn steps(&self, id: JobId) -> Result<Vec<StepRecord>> {
        let reader = self.reader()?;
        let mut ask = reader.prepare_cached(LIST).map_err(storing)?;
        ask.query_map([id.0], |row| {
            Ok(StepRecord {
                name: row.get(0)?,
                cursor: sort_from(row.get_ref(1)?.as_str()?) == Sort::Cursor,
                stored_at: from_micros(row.get(2)?),
                bytes: row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs),
            })
        })
        .and_then(Iterator::collect)
        .map_err(storing)
    }
}

impl Book {
    /// Keeps a result or position, if the claim still stands.
    pub(super) fn save(&self, save: &Save) -> Result<()> {
        save_on(&self.conn, save)
    }
}

/// The value first: it takes the write lock, and looks at the claim under it.
fn save_on(conn: &Connection, save: &Save) -> Result<()> {
    let claim = save.claim;
    let stored = conn
        .prepare_cached(SAVE)
        .and_then(|mut statement| {
            statement.execute(params![
                claim.id.0,
                claim.instance,
                claim.token,
                column(save.place),
                save.named.name,
                save.named.sort.word(),
                column(save.last),
                save.at,
                save.value,
            ])
        })
        .map_err(storing)?;
    if stored == 0 {
        return Err(Error::LostClaim(claim.id));
    }
    conn.prepare_cached(MARK).and_then(|mut mark| mark.execute([claim.id.0])).map_err(storing)?;
    for (place, named) in &save.names {
        conn.prepare_cached(NAME)
            .and_then(|mut statement| {
                let sort = named.sort.word();
                statement.execute(params![claim.id.0, column(*place), named.name, sort, save.at])
            })
            .map_err(storing)?;
    }
    Ok(())
}

/// Removes what is stored of a job's steps.
pub(super) fn forget(conn: &Connection, id: JobId) -> Result<()> {
    conn.prepare_cached(FORGET)
        .and_then(|mut forget| forget.execute([id.0]))
        .map(drop)
        .map_err(storing)
}

fn column(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

/// The table's check knows these two words.
fn sort_from(word: &str) -> Sort {
    Sort::from_word(word).unwrap_or(Sort::Step)
}
