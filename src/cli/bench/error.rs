//! What can go wrong in an experiment.

use std::io;

/// Why an experiment could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Legwork(#[from] crate::error::Error),
    #[error("bare SQLite: {0}")]
    Raw(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A job or a child process did not do in time what it always does.
    #[error("{0}")]
    Missed(String),
}

pub(super) type Result<T> = std::result::Result<T, Error>;
