//! A worker: a thread that claims a job, runs it, and hands its end over together with the
//! request for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::bounded;

use super::Core;
use super::pool::{RunningPool, Seen};
use crate::error::{Error, Result};
use crate::store::tray::Visit;
use crate::store::{ClaimRequest, Claimed, Ending, Work, WorkerMail};

/// Starts the threads that the pool is missing.
pub(super) fn start_missing(core: &Arc<Core>, pool: &Arc<RunningPool>) -> Result<()> {
    let missing = pool.missing();
    for (at, number) in missing.iter().enumerate() {
        let worker: Arc<str> = Arc::from(format!("{}-{number}", pool.name));
        let (core_here, pool_here) = (Arc::clone(core), Arc::clone(pool));
        core.live.enter();
        core.jobs.worker_threads().fetch_add(1, Ordering::AcqRel);
        let counted = Counted { core: core_here };
        let fuse = core.jobs.store().fuse();
        let spawned = thread::Builder::new().name(format!("legwork-{worker}")).spawn(move || {
            let _fuse = fuse;
            Worker::new(&counted.core, &pool_here, worker).work();
        });
        match spawned {
            Ok(thread) => core.keep_thread(thread),
            Err(error) => {
                pool.not_started(missing.len() - at);
                return Err(Error::Io(Box::new(error)));
            }
        }
    }
    Ok(())
}

/// Counts the thread as alive until it ends, however it ends.
struct Counted {
    core: Arc<Core>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.core.jobs.worker_threads().fetch_sub(1, Ordering::AcqRel);
        self.core.live.leave();
    }
}

struct Worker<'a> {
    core: &'a Arc<Core>,
    pool: &'a Arc<RunningPool>,
    name: Arc<str>,
}

impl<'a> Worker<'a> {
    fn new(core: &'a Arc<Core>, pool: &'a Arc<RunningPool>, name: Arc<str>) -> Worker<'a> {
        Worker { core, pool, name }
    }

    /// Works until the pool lets it go or the writer is gone.
    fn work(&self) {
        let mut last: Option<Ending> = None;
        loop {
            let seen = self.pool.go_on();
            let next = match seen {
                Some(seen) => self.next(last.take(), seen),
                // The last end is recorded before the thread is.
                None => self.hand_over(last.take(), None),
            };
            match next {
                Ok(Some(claimed)) => last = Some(self.run(claimed)),
                Ok(None) => match (seen, self.pool.every) {
                    (None, _) => return,
                    (Some(seen), Some(every)) => self.pool.wait_for_tick(every, seen),
                    (Some(_), None) => {}
                },
                Err(error) => {
                    log::error!("legwork: worker {} ends: {error}", self.name);
                    return;
                }
            }
        }
    }

    /// Leaves the last attempt's end and gets the next job: from the tray, or from the writer.
    fn next(&self, last: Option<Ending>, seen: Seen) -> Result<Option<Claimed>> {
        let now = self.core.jobs.clock().micros();
        match self.pool.tray.visit(last, now) {
            Visit::Next { claimed, call } => {
                if call {
                    self.core.jobs.store().call()?;
                }
                Ok(Some(claimed))
            }
            Visit::Empty(last) => self.hand_over(last, Some(seen.epoch)),
        }
    }

    /// Hands the last attempt's end to the writer and, if wanted, waits for the next job.
    fn hand_over(&self, last: Option<Ending>, epoch: Option<u64>) -> Result<Option<Claimed>> {
        if let Some(last) = &last {
            self.pool.tray.ended(last.finish.claim);
        }
        if last.is_none() && epoch.is_none() {
            return Ok(None);
        }
        let park = self.pool.every.is_none();
        let claim = epoch.map(|epoch| ClaimRequest { pool: self.pool.id, epoch, park });
        exchange(self.core, last, claim)
    }

    fn run(&self, claimed: Claimed) -> Ending {
        if self.core.is_stopping() {
            return self.core.give_back(claimed, &self.name).into_ending();
        }
        let ended = self.core.run(claimed, &self.name);
        let asked = ended.attempt.signals.set(|asked| {
            asked.ended = true;
            *asked
        });
        if asked.abandoned {
            self.core.abandoned().retain(|other| !Arc::ptr_eq(other, &ended.attempt));
            self.pool.returned(asked.replaced);
        }
        ended.into_ending()
    }
}

/// Hands an attempt's end over and waits for what was asked for: that it is recorded, the next
/// job.
pub(super) fn exchange(
    core: &Core,
    last: Option<Ending>,
    claim: Option<ClaimRequest>,
) -> Result<Option<Claimed>> {
    // The writer holds the only sender: if it ends, waiting ends too.
    let (to, mailbox) = bounded(2);
    let (mut unrecorded, mut unanswered) = (last.is_some(), claim.is_some());
    core.jobs.store().submit(Work { finish: last, claim, to })?;
    // A held finish is answered later than its claim, and a pool that closes answers the claim
    // first: the answers come in any order, and both are waited for.
    let mut next = None;
    while unrecorded || unanswered {
        match mailbox.recv().map_err(|_| core.jobs.store().dead())? {
            WorkerMail::Finished => unrecorded = false,
            WorkerMail::Claimed(claimed) => {
                next = Some(*claimed);
                unanswered = false;
            }
            WorkerMail::Nothing => unanswered = false,
        }
    }
    Ok(next)
}

/// Threads of an engine that are alive.
#[derive(Default)]
pub(super) struct Live {
    count: AtomicUsize,
    lock: std::sync::Mutex<()>,
    changed: std::sync::Condvar,
}

impl Live {
    fn enter(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn leave(&self) {
        let _guard = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.changed.notify_all();
    }

    /// Waits until none is left or the time is over; `true`: none is left.
    pub(super) fn wait_for_none(&self, timeout: std::time::Duration) -> bool {
        let guard = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (_guard, wait) = self
            .changed
            .wait_timeout_while(guard, timeout, |()| self.count.load(Ordering::Acquire) > 0)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        !wait.timed_out() || self.count.load(Ordering::Acquire) == 0
    }
}
