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

/// Whether an error is the file's and not the operation's: what is tried beside it meets it too.
pub(super) fn of_the_file(error: &Error) -> bool {
    matches!(
        error,
        Error::Full(_)
            | Error::Io(_)
            | Error::Busy { .. }
            | Error::Corrupt(_)
            | Error::ReadOnly { .. }
    )
}

/// Whether an error may be of one row alone: what stands in it breaks a rule, or cannot be read.
pub(super) fn may_be_of_one_row(error: &Error) -> bool {
    match error {
        Error::Invalid { .. } | Error::Json { .. } => true,
        Error::Sqlite(error) => match error.downcast_ref::<rusqlite::Error>() {
            Some(rusqlite::Error::SqliteFailure(failure, _)) => {
                failure.code == ErrorCode::ConstraintViolation
            }
            Some(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..),
            ) => true,
            _ => false,
        },
        _ => false,
    }
}

/// An error at a `COMMIT`: one of the disk leaves open whether it took effect.
pub(crate) fn committing(error: rusqlite::Error) -> Error {
    match storing(error) {
        Error::Io(error) => Error::OutcomeUnknown(error.to_string()),
        other => other,
    }
}

/// An error on an open, checked file.
pub(crate) fn storing(error: rusqlite::Error) -> Error {
    match code(&error) {
        // The last is a WAL that changes hands faster than it can be read.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => Error::Busy { waited: Duration::ZERO },
        Some(ErrorCode::DiskFull) => Error::Full(Box::new(error)),
        Some(
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::NoLargeFileSupport,
        ) => Error::Io(Box::new(error)),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Corrupt(error.to_string())
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Error::ReadOnly { path: PathBuf::from("the database"), why: error.to_string() }
        }
        _ => Error::Sqlite(Box::new(error)),
    }
}
