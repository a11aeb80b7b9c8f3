//! A worker: a thread that claims a job, runs it, and hands its end over together with the
//! request for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::bounded;

use super::Core;
use super::attempt::Ended;
use super::pool::RunningPool;
use crate::error::{Error, Result};
use crate::store::{ClaimRequest, Claimed, Work, WorkerMail};

/// Starts the threads that the pool is missing.
pub(super) fn start_missing(core: &Arc<Core>, pool: &Arc<RunningPool>) -> Result<()> {
    let missing = pool.missing();
    for (at, number) in missing.iter().enumerate() {
        let worker: Arc<str> = Arc::from(format!("{}-{number}", pool.name));
        let (core_here, pool_here) = (Arc::clone(core), Arc::clone(pool));
        core.live.enter();
        core.jobs.workers().fetch_add(1, Ordering::AcqRel);
        let counted = Counted { core: core_here };
        let spawned = thread::Builder::new()
            .name(format!("legwork-{worker}"))
            .spawn(move || Worker::new(&counted.core, &pool_here, worker).work());
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
        self.core.jobs.workers().fetch_sub(1, Ordering::AcqRel);
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
        let mut last: Option<Ended> = None;
        loop {
            let seen = self.pool.go_on();
            match self.exchange(last.take(), seen.map(|seen| seen.epoch)) {
                Ok(Some(claimed)) if self.core.is_stopping() => {
                    last = Some(self.core.give_back(claimed, &self.name));
                }
                Ok(Some(claimed)) => last = Some(self.run(claimed)),
                Ok(None) if seen.is_none() => return,
                Ok(None) => {
                    if let (Some(every), Some(seen)) = (self.pool.every, seen) {
                        self.pool.wait_for_tick(every, seen);
                    }
                }
                Err(error) => {
                    log::error!("legwork: worker {} ends: {error}", self.name);
                    return;
                }
            }
        }
    }

    fn run(&self, claimed: Claimed) -> Ended {
        let ended = self.core.run(claimed, &self.name);
        let asked = ended.attempt.signals.set(|asked| {
            asked.ended = true;
            *asked
        });
        if asked.abandoned {
            self.core.abandoned().retain(|other| !Arc::ptr_eq(other, &ended.attempt));
            self.pool.returned(asked.replaced);
        }
        ended
    }

    /// Hands the last attempt's end over and, if wanted, waits for the next job.
    fn exchange(&self, last: Option<Ended>, epoch: Option<u64>) -> Result<Option<Claimed>> {
        if last.is_none() && epoch.is_none() {
            return Ok(None);
        }
        let park = self.pool.every.is_none();
        let claim = epoch.map(|epoch| ClaimRequest { pool: self.pool.id, epoch, park });
        exchange(self.core, last, claim)
    }
}

/// Hands an attempt's end over and takes the answers: first its fate, then the next job if one
/// was asked for.
pub(super) fn exchange(
    core: &Core,
    mut last: Option<Ended>,
    claim: Option<ClaimRequest>,
) -> Result<Option<Claimed>> {
    // The writer holds the only sender: if it ends, waiting ends too.
    let (to, mailbox) = bounded(2);
    let finish = last.as_ref().map(|ended| ended.finish.clone());
    core.jobs.store().submit(Work { finish, claim, to })?;
    // A held finish is answered later than its claim, and a pool that closes answers the claim
    // first: the answers come in any order, and both are waited for.
    let mut unanswered = claim.is_some();
    let mut next = None;
    while last.is_some() || unanswered {
        match mailbox.recv().map_err(|_| core.jobs.store().dead())? {
            WorkerMail::Finished(recorded) => {
                let Some(ended) = last.take() else { continue };
                match recorded {
                    Ok(recorded) => core.tell_ended(ended, &recorded),
                    Err(error) => {
                        core.jobs.attempts_here().end(&ended.attempt);
                        log::error!(job = ended.attempt.id().0; "legwork: its end could not be recorded: {error}");
                    }
                }
            }
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
