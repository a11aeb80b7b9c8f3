//! Callers of [`Jobs::wait`](crate::Jobs::wait) and [`Jobs::wait_flow`](crate::Jobs::wait_flow), told
//! after the commit that finished what they wait for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::id::{FlowId, JobId};

/// Who waits for which job or flow.
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
    // Jobs and flows have ids of one count.
    by_id: HashMap<i64, Vec<(u64, Sender<()>)>>,
    /// The writer is gone: nobody will be told any more, so nobody may start to wait.
    closed: bool,
}

/// A place in the list, given up by [`Waiters::leave`].
pub(crate) struct Watch {
    id: i64,
    number: u64,
    pub(crate) told: Receiver<()>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A map of senders is whole after any panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watch(&self, id: JobId) -> Watch {
        self.watch_id(id.0)
    }

    pub(crate) fn watch_flow(&self, id: FlowId) -> Watch {
        self.watch_id(id.0)
    }

    fn watch_id(&self, id: i64) -> Watch {
        let (tell, told) = bounded(1);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.by_id.entry(id).or_default().push((number, tell));
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        drop(waiting);
        Watch { id, number, told }
    }

    pub(crate) fn leave(&self, watch: Watch) {
        let mut waiting = self.lock();
        let Some(watchers) = waiting.by_id.get_mut(&watch.id) else { return };
        let before = watchers.len();
        watchers.retain(|(number, _)| *number != watch.number);
        self.count.fetch_sub(before - watchers.len(), Ordering::SeqCst);
        if watchers.is_empty() {
            waiting.by_id.remove(&watch.id);
        }
    }

    /// Wakes whoever waits for the job.
    pub(crate) fn tell(&self, id: JobId) {
        self.tell_id(id.0);
    }

    /// Wakes whoever waits for the flow.
    pub(crate) fn tell_flow(&self, id: FlowId) {
        self.tell_id(id.0);
    }

    fn tell_id(&self, id: i64) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let watchers = self.lock().by_id.remove(&id).unwrap_or_default();
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
        let woken = std::mem::take(&mut self.lock().by_id);
        let many = woken.values().map(Vec::len).sum();
        self.count.fetch_sub(many, Ordering::SeqCst);
    }

    /// Wakes everybody, and whoever comes later: the writer is gone.
    pub(crate) fn tell_all(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.by_id.clear();
        self.count.store(0, Ordering::SeqCst);
    }
}
