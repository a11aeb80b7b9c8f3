//! Read-only connections, from an r2d2 pool that is made at the first read and never wakes an
//! idle process: no reaper, no lifetimes, and one helper thread that sleeps until a connection
//! has to be opened.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use r2d2::{ManageConnection, Pool, PooledConnection};
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;

use super::errors::storing;
use super::open::open_reader;
use crate::error::{Error, Result};

/// Most connections that read at once; further readers wait for one.
const MOST: u32 = 4;

pub(crate) struct Readers {
    path: PathBuf,
    pool: Mutex<Option<Pool<Manager>>>,
    failed: Failure,
}

#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
    failed: Failure,
}

/// Why the last connection could not be opened, unless one was opened since.
type Failure = Arc<Mutex<Option<Error>>>;

/// What r2d2 is told, for its log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unopened(String);

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Unopened;

    fn connect(&self) -> Result<Connection, Unopened> {
        let opened = open_reader(&self.path, Duration::ZERO);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(conn) => {
                *failed = None;
                Ok(conn)
            }
            Err(error) => {
                let says = error.to_string();
                *failed = Some(storing(error));
                Err(Unopened(says))
            }
        }
    }

    fn is_valid(&self, _: &mut Connection) -> Result<(), Unopened> {
        Ok(())
    }

    fn has_broken(&self, conn: &mut Connection) -> bool {
        // A transaction left open would pin the WAL.
        !conn.is_autocommit()
    }
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Readers {
        Readers { path, pool: Mutex::new(None), failed: Failure::default() }
    }

    /// Whether somebody has read so far.
    pub(super) fn are_open(&self) -> bool {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A connection for one read, as patient as the handle that reads.
    ///
    /// # Errors
    /// [`Error::Busy`] if none became free within the busy time-out; if none could be opened, why.
    pub(super) fn get(&self, busy_timeout: Duration) -> Result<PooledConnection<Manager>> {
        let patience = busy_timeout.max(Duration::from_millis(100));
        let conn = self.pool()?.get_timeout(patience).map_err(|error| {
            log::debug!("legwork: no reader: {error}");
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.take().unwrap_or(Error::Busy { waited: busy_timeout })
        })?;
        conn.busy_timeout(busy_timeout).map_err(storing)?;
        Ok(conn)
    }

    /// Closes all that are not reading; the others follow when they have read.
    pub(super) fn close(&self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn pool(&self) -> Result<Pool<Manager>> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &*pool {
            return Ok(pool.clone());
        }
        // r2d2 opens connections on a thread of its own.
        let opener = ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("legwork-readers")
            .build();
        let manager = Manager { path: self.path.clone(), failed: Arc::clone(&self.failed) };
        let made = Pool::builder()
            .max_size(MOST)
            .min_idle(Some(0))
            .max_lifetime(None)
            .idle_timeout(None)
            .test_on_check_out(false)
            .thread_pool(Arc::new(opener))
            .build_unchecked(manager);
        *pool = Some(made.clone());
        Ok(made)
    }
}
