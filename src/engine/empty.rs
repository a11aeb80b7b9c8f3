//! Whether there is anything to do.

use crossbeam_channel::{Receiver, bounded};

use super::Engine;
use crate::error::{Error, Result};
use crate::store::{Emptiness, EmptyAnswer};

impl Engine {
    /// Waits until nothing is ready, running or due that this engine could run. Jobs whose time
    /// lies ahead do not count, nor do paused ones and those behind a closed gate. Cron ticks that are due
    /// are fired first, and runs of entries that were asked for served. Pools on a cadence look at once.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the engine is stopped meanwhile; [`Error::Poisoned`].
    pub fn run_until_empty(&self) -> Result<()> {
        if self.core.is_stopping() {
            return Err(Error::Stopped("the engine"));
        }
        #[cfg(feature = "cron")]
        self.core.crons.pass(&self.core.jobs)?;
        let empty = self.ask_whether_empty(EmptyAnswer::Once)?;
        self.core.pools.iter().for_each(|pool| pool.ring());
        self.answer(&empty).map(drop)
    }

    /// Whether nothing is ready, running or due that this engine could run: what
    /// [`run_until_empty`](Engine::run_until_empty) waits for. `false` as well while it cannot be told,
    /// as with a full disk.
    ///
    /// ```
    /// # use legwork::{Engine, Jobs};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let engine = Engine::builder(&jobs).start()?;
    /// assert!(engine.is_empty()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Stopped`]; [`Error::Poisoned`].
    pub fn is_empty(&self) -> Result<bool> {
        let empty = self.ask_whether_empty(EmptyAnswer::Now)?;
        self.answer(&empty)
    }

    /// Whether it runs nothing and nothing is there that it could start now: [`is_empty`](Engine::is_empty),
    /// but jobs that wait for room under a limit, which may take hours, do not count.
    ///
    /// # Errors
    /// [`Error::Stopped`]; [`Error::Poisoned`].
    pub fn is_idle(&self) -> Result<bool> {
        let idle = self.ask_whether_empty(EmptyAnswer::NowToStart)?;
        self.answer(&idle)
    }

    fn ask_whether_empty(&self, answer: EmptyAnswer) -> Result<Receiver<bool>> {
        if self.core.is_stopping() {
            return Err(Error::Stopped("the engine"));
        }
        let (tell, told) = bounded(1);
        let pools = self.core.pools.iter().map(|pool| pool.id).collect();
        let instance = self.core.instance;
        self.jobs().store().when_empty(Emptiness { instance, pools, tell, answer })?;
        Ok(told)
    }

    fn answer(&self, told: &Receiver<bool>) -> Result<bool> {
        told.recv().map_err(|_| {
            if self.core.is_stopping() {
                Error::Stopped("the engine")
            } else {
                self.jobs().store().dead()
            }
        })
    }
}
