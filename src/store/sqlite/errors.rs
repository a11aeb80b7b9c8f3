//! SQLite's errors, sorted by what a caller can do.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;

use crate::error::Error;

pub(super) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.code),
        _ => None,
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// An error on an open, checked file.
pub(crate) fn storing(error: rusqlite::Error) -> Error {
    match code(&error) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Busy { waited: Duration::ZERO }
        }
        Some(ErrorCode::DiskFull) => Error::Full(Box::new(error)),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Error::Io(Box::new(error)),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Corrupt(error.to_string())
        }
        Some(ErrorCode::ReadOnly) => {
            Error::ReadOnly { path: PathBuf::from("the database"), why: error.to_string() }
        }
        _ => Error::Sqlite(Box::new(error)),
    }
}
