//! What runs in this process at the moment, and how much has been started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Notice;
use crate::engine::Engine;
use crate::job::JobResult;
use crate::middleware::{Middleware, Next, Running};

/// What runs at the moment, since when nothing has, and how much has been started.
pub(super) struct Busy {
    now: Mutex<Now>,
    started: AtomicU64,
    most: Option<u64>,
    engine: OnceLock<Weak<Engine>>,
    tell: Sender<Notice>,
}

struct Now {
    running: usize,
    idle_since: Instant,
}

impl Busy {
    pub(super) fn new(most: Option<u64>, tell: Sender<Notice>) -> Busy {
        Busy {
            now: Mutex::new(Now { running: 0, idle_since: Instant::now() }),
            started: AtomicU64::new(0),
            most,
            engine: OnceLock::new(),
            tell,
        }
    }

    /// The engine whose attempts these are; `None`: it did not start.
    pub(super) fn knows(&self, engine: Option<&Arc<Engine>>) {
        let _ = self.engine.set(engine.map(Arc::downgrade).unwrap_or_default());
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is left of an idle time; all of it while something runs.
    pub(super) fn left(&self, limit: Duration) -> Duration {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.running > 0 { limit } else { limit.saturating_sub(now.idle_since.elapsed()) }
    }

    /// The idle time begins anew.
    pub(super) fn begin_idle(&self) {
        self.change(|now| now.idle_since = Instant::now());
    }

    fn begin(&self) {
        self.change(|now| now.running += 1);
        if self.most == Some(self.started.fetch_add(1, Ordering::AcqRel) + 1) {
            self.let_go();
        }
    }

    /// Claims nothing more: this very worker ends after its job.
    fn let_go(&self) {
        // The first attempts may be faster than the one who started the engine.
        let Some(engine) = self.engine.wait().upgrade() else { return };
        for pool in engine.pools() {
            if let Err(error) = engine.resize(pool, 0) {
                log::debug!("legwork: {pool}: {error}");
            }
        }
        let _ = self.tell.send(Notice::Enough);
    }

    fn end(&self) {
        self.change(|now| {
            now.running -= 1;
            now.idle_since = Instant::now();
        });
    }
}

/// Counts every attempt.
pub(in crate::cli) struct Counting(pub(super) Arc<Busy>);

impl Middleware for Counting {
    fn call(&self, _: &Running<'_>, next: Next<'_>) -> JobResult {
        self.0.begin();
        let _ends = Ends(&self.0);
        next.run()
    }
}

struct Ends<'a>(&'a Busy);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
