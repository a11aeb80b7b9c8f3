//! Whether the work may end because there is nothing to do.
//!
//! Whoever counts on a worker enqueues first and looks for one then (see [`ensure`](crate::cli::ensure)).
//! So the worker says first that it starts nothing more, and looks for jobs then: one of the two sees the other.

use super::Work;
use crate::error::Error;
use crate::record::Filter;
use crate::state::State;

impl Work {
    /// Whether it may end after an empty moment.
    pub(super) fn may_end_empty(&self) -> Result<bool, Error> {
        self.may_end(|| Ok(!self.engine.is_empty()?))
    }

    /// Whether it may end after its idle time.
    pub(super) fn may_end_idle(&self) -> Result<bool, Error> {
        match self.ensured {
            true => self.may_end(|| self.is_something_left()),
            false => self.may_end(|| Ok(!self.engine.is_idle()?)),
        }
    }

    fn may_end(&self, is_needed: impl Fn() -> Result<bool, Error>) -> Result<bool, Error> {
        // It has said so already.
        if self.held {
            return Ok(true);
        }
        if is_needed()? {
            return Ok(false);
        }
        self.engine.quiet()?;
        let needed = is_needed()?;
        if needed {
            self.engine.resume()?;
        }
        Ok(!needed)
    }

    /// A job that this program could run, now or later.
    fn is_something_left(&self) -> Result<bool, Error> {
        let waiting = [State::Ready, State::Scheduled, State::Retrying, State::Blocked];
        let filter = waiting.into_iter().fold(Filter::new(), Filter::state);
        let filter = self.engine.kinds().iter().fold(filter, Filter::kind);
        match self.engine.jobs().list(&filter, None, 1) {
            Ok(page) => Ok(!page.jobs.is_empty()),
            Err(error) if error.is_transient() => {
                log::warn!("legwork: looking for what is left: {error}");
                // Whoever enqueued it counts on this worker, which looks again.
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
