//! Whether the work may end because there is nothing to do.
//!
//! Whoever counts on a worker enqueues first and looks for one then (see [`ensure`](crate::cli::ensure)).
//! So the worker says first that it starts nothing more, and looks for jobs then: one of the two sees the other.

use super::Work;
use crate::error::Error;
use crate::record::{Backlog, Filter, InstanceRecord};
use crate::state::State;
use crate::tally::Tally;

/// What a worker that ends by itself stays for.
pub(super) struct End {
    /// Started by `--ensure-worker`: for whatever waits, now or later.
    ensured: bool,
    /// What had ended when it last stayed.
    stayed: Option<Tally>,
}

impl End {
    pub(super) fn new(ensured: bool) -> End {
        End { ensured, stayed: None }
    }
}

impl Work {
    pub(super) fn may_end(&mut self) -> Result<bool, Error> {
        // It has said so already.
        if self.held {
            return Ok(true);
        }
        if self.is_needed() {
            return Ok(false);
        }
        self.engine.quiet()?;
        let needed = self.is_needed();
        if needed {
            self.engine.resume()?;
        }
        Ok(!needed)
    }

    fn is_needed(&mut self) -> bool {
        let needed =
            if self.end.ensured { self.is_something_left() } else { self.is_something_ready() };
        needed.unwrap_or_else(|error| {
            log::warn!("legwork: looking for what is left: {error}");
            // Whoever enqueued it counts on this worker, which looks again.
            self.end.ensured && error.is_transient()
        })
    }

    /// A job that this program could run, now or later.
    fn is_something_left(&self) -> Result<bool, Error> {
        let waiting = [State::Ready, State::Scheduled, State::Retrying, State::Blocked];
        let filter = waiting.into_iter().fold(Filter::new(), Filter::state);
        let filter = self.engine.kinds().iter().fold(filter, Filter::kind);
        Ok(!self.engine.jobs().list(&filter, None, 1)?.jobs.is_empty())
    }

    /// A job that it could run now. What was there already when it last stayed, and has not been run, is
    /// none: it may be that no worker can be had for it.
    fn is_something_ready(&mut self) -> Result<bool, Error> {
        let (jobs, tally) = (self.engine.jobs(), self.engine.tally());
        let instances = jobs.instances()?;
        let Some(this) = instances.iter().find(|instance| instance.id == self.engine.id()) else {
            return Ok(false);
        };
        let ready = jobs.backlog()?.iter().any(|waits| runs(this, waits));
        let stays = ready && self.end.stayed != Some(tally);
        if stays {
            self.end.stayed = Some(tally);
        }
        Ok(stays)
    }
}

/// Whether it is for one of its pools, with as many workers as it may have.
fn runs(instance: &InstanceRecord, waits: &Backlog) -> bool {
    !waits.paused
        && instance.kinds.contains(&waits.kind)
        && instance.pools.iter().any(|pool| pool.serves(&waits.queue))
}
