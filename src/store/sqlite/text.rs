//! Texts that another program may have written: SQLite takes any bytes for one.

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Error, Row};

fn bytes<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a [u8]>> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => Ok(Some(bytes)),
        other => Err(Error::InvalidColumnType(at, "a text".to_owned(), other.data_type())),
    }
}

/// For those who look: what is not UTF-8 shows as U+FFFD.
pub(super) fn shown(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
    Ok(bytes(row, at)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// JSON to run a job by. What is not UTF-8 is not JSON either: the job fails by it, instead of running
/// with other arguments than it was given.
pub(super) fn json(row: &Row<'_>, at: usize) -> rusqlite::Result<String> {
    let bytes = bytes(row, at)?
        .ok_or_else(|| Error::InvalidColumnType(at, "a text".to_owned(), Type::Null))?;
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("not UTF-8: {}", String::from_utf8_lossy(bytes)),
    })
}
