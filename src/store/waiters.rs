//! Callers of [`Jobs::wait`](crate::Jobs::wait), told after the commit that finished their job.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::id::JobId;

/// Who waits for which job.
///
/// A watcher first watches, then looks at the file; the writer first commits, then tells. So a
/// finish is either seen by the look or told.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
    // How many there are, so that the writer takes no lock when nobody waits.
    count: AtomicUsize,
    next: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    by_job: HashMap<JobId, Vec<(u64, Sender<()>)>>,
    /// The writer is gone: nobody will be told any more, so nobody may start to wait.
    closed: bool,
}

/// A place in the list, given up by [`Waiters::leave`].
pub(crate) struct Watch {
    id: JobId,
    number: u64,
    pub(crate) told: Receiver<()>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A map of senders is whole after any panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watch(&self, id: JobId) -> Watch {
        let (tell, told) = bounded(1);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.by_job.entry(id).or_default().push((number, tell));
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        drop(waiting);
        Watch { id, number, told }
    }

    pub(crate) fn leave(&self, watch: Watch) {
        let mut waiting = self.lock();
        let Some(watchers) = waiting.by_job.get_mut(&watch.id) else { return };
        let before = watchers.len();
        watchers.retain(|(number, _)| *number != watch.number);
        self.count.fetch_sub(before - watchers.len(), Ordering::SeqCst);
        if watchers.is_empty() {
            waiting.by_job.remove(&watch.id);
        }
    }

    /// Wakes whoever waits for `id`.
    pub(crate) fn tell(&self, id: JobId) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let watchers = self.lock().by_job.remove(&id).unwrap_or_default();
        self.count.fetch_sub(watchers.len(), Ordering::SeqCst);
        // Dropping the senders wakes the receivers.
        drop(watchers);
    }

    /// Wakes everybody, to look again: another process may have finished what they wait for, or
    /// have come or gone.
    pub(crate) fn look_again(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let woken = std::mem::take(&mut self.lock().by_job);
        let many = woken.values().map(Vec::len).sum();
        self.count.fetch_sub(many, Ordering::SeqCst);
    }

    /// Wakes everybody, and whoever comes later: the writer is gone.
    pub(crate) fn tell_all(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.by_job.clear();
        self.count.store(0, Ordering::SeqCst);
    }
}
