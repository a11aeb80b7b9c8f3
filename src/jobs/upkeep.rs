//! Looking after the file: pruning on request, giving free pages back, its schema's version.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::{self, Upkeep, Upkept};
use crate::upkeep::{Prune, Schema, Vacuumed};

use super::Jobs;

/// After a bite the write lock is left to others for as long as the bite took, at most this.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Jobs {
    /// Removes finished jobs, with all that is kept of them; how many. It does so in small bites and
    /// leaves the lock alone in between, so that it holds nobody up, and calls `progress` with the
    /// number so far after each. What it has removed when it fails stays removed.
    ///
    /// Engines do the same by themselves as each job's [retention](crate::Retention) ends.
    ///
    /// ```
    /// # use legwork::{Jobs, Prune};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let removed = jobs.prune(&Prune::due(), |so_far| println!("{so_far} removed"))?;
    /// # assert_eq!(removed, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy); those of writing.
    pub fn prune(&self, which: &Prune, mut progress: impl FnMut(u64)) -> Result<u64> {
        self.refuse_inside_transaction("prune")?;
        let mut removed = 0;
        let mut bite = |order: Upkeep| -> Result<Upkept> {
            let done = self.politely(order)?;
            removed += done.removed;
            progress(removed);
            Ok(done)
        };
        while which.due && bite(Upkeep::PruneDue)?.more {}
        let ends = which.ends(self.clock().micros());
        if which.has_ages() {
            let mut after = i64::MIN;
            loop {
                let ids = self.store().old_jobs(after, &ends)?;
                let Some(&last) = ids.last() else { break };
                bite(Upkeep::PruneJobs(ids, ends))?;
                after = last;
            }
            let mut after = i64::MIN;
            while let Some(flow) = self.store().old_flow(after, &ends)? {
                while bite(Upkeep::PruneFlow(flow, ends))?.more {}
                after = flow;
            }
        }
        Ok(removed)
    }

    /// How many jobs [`prune`](Jobs::prune) would remove now. Reads all finished jobs.
    ///
    /// # Errors
    /// Those of reading.
    pub fn prunable(&self, which: &Prune) -> Result<u64> {
        let now = self.clock().micros();
        let due = if which.due { self.store().count_due(now)? } else { 0 };
        let old = if which.has_ages() { self.store().count_old(&which.ends(now))? } else { 0 };
        Ok(due + old)
    }

    /// Gives the file's free pages back to the file system, in small bites while everything goes on, and
    /// calls `progress` with the bytes so far after each. Only files that legwork has made can do that
    /// ([`Vacuumed::incremental`]); others are left as they are.
    ///
    /// Free pages are used again by themselves, and idle engines give them back once a quarter of the
    /// file is free: this is for those who cannot wait.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy); those of writing.
    pub fn vacuum(&self, mut progress: impl FnMut(u64)) -> Result<Vacuumed> {
        self.refuse_inside_transaction("vacuum")?;
        let before = self.store().space()?;
        if !before.incremental || before.free == 0 {
            return Ok(before);
        }
        while self.politely(Upkeep::GivePagesBack)?.more {
            let now = self.store().space()?;
            progress(before.after.saturating_sub(now.after));
        }
        self.store().write_back()?;
        Ok(Vacuumed { before: before.before, ..self.store().space()? })
    }

    /// Writes the whole file anew, without free pages and with its tables in order. It takes about as
    /// long as copying the file, needs up to twice its size of free space, and while it lasts nobody can
    /// write: enqueues of this and other programs may fail as [`Busy`](crate::Error::Busy), engines wait.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy), [`Error::Full`](crate::Error::Full); the file stays as it was.
    pub fn vacuum_fully(&self) -> Result<Vacuumed> {
        self.refuse_inside_transaction("vacuum_fully")?;
        let before = self.store().space()?;
        self.store().vacuum_fully()?;
        Ok(Vacuumed { before: before.before, ..self.store().space()? })
    }

    /// Which version legwork's part of a file has, and what opening it would do about that. The file is
    /// only read.
    ///
    /// ```
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("app.db");
    /// # drop(legwork::Jobs::open(&path)?);
    /// let schema = legwork::Jobs::schema(&path)?;
    /// assert_eq!((schema.found, schema.steps.len()), (schema.known, 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Foreign`](crate::Error::Foreign) if it is not there or no SQLite database;
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) if it cannot be opened;
    /// [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn schema(path: impl AsRef<Path>) -> Result<Schema> {
        store::schema(path.as_ref())
    }

    /// One bite, and then a pause in which others can have the lock.
    fn politely(&self, order: Upkeep) -> Result<Upkept> {
        let began = Instant::now();
        let done = self.store().upkeep(order)?;
        thread::sleep(began.elapsed().min(LONGEST_PAUSE));
        Ok(done)
    }
}
