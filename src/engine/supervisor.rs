//! The supervisor: the thread that sleeps until an attempt of its engine is overdue.
//!
//! It is woken only by an attempt whose alarm comes before the one it sleeps for; with no
//! time-outs under way it sleeps for good.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Core, worker};
use crate::context::Attempt;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::new_job::Overdue;

/// The longest sleep while an alarm is set; monotonic clocks differ in what they count.
const LONGEST: Duration = Duration::from_secs(30);

pub(super) struct Supervisor {
    /// The awake time for which the thread has set its alarm.
    armed: Mutex<Duration>,
    grace: Duration,
    bell: Sender<()>,
}

/// What the thread listens to.
pub(super) struct Bell(Receiver<()>);

impl Supervisor {
    pub(super) fn new(grace: Duration) -> (Supervisor, Bell) {
        // One ring pending is as good as many.
        let (bell, ring) = bounded(1);
        (Supervisor { armed: Mutex::new(Duration::MAX), grace, bell }, Bell(ring))
    }

    /// What wakes the thread.
    #[cfg(feature = "cron")]
    pub(super) fn ringer(&self) -> Sender<()> {
        self.bell.clone()
    }

    /// When an attempt counts as stuck, in awake time.
    fn alarm(&self, attempt: &Attempt) -> Option<Duration> {
        let asked = attempt.signals.get();
        if asked.reported || asked.ended {
            return None;
        }
        let timeout = attempt.timeout?;
        Some(attempt.started_awake.saturating_add(timeout).saturating_add(self.grace))
    }

    /// Sees to it that the thread wakes in time for an attempt that has just been registered.
    pub(super) fn watch(&self, attempt: &Attempt) {
        let Some(alarm) = self.alarm(attempt) else { return };
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm < *armed {
            *armed = alarm;
            self.ring();
        }
    }

    /// Wakes the thread to look at the time, or to end.
    pub(super) fn ring(&self) {
        // Full: it is being woken already.
        let _ = self.bell.try_send(());
    }
}

/// The thread, and a channel that closes when it ends.
pub(super) struct Watcher {
    thread: JoinHandle<()>,
    gone: Receiver<()>,
}

impl Watcher {
    /// Joins the thread if it ends in time. It may be waiting for the file, to record that it has
    /// abandoned an attempt; then it is left to end by itself.
    pub(super) fn end(self, within: Duration) {
        if self.gone.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            log::warn!("legwork: the supervisor still waits for the file");
        } else if self.thread.join().is_err() {
            log::error!("legwork: the supervisor thread had panicked");
        }
    }
}

/// Starts the thread. It holds the engine weakly: it ends with it.
pub(super) fn start(core: &Arc<Core>, bell: Bell) -> Result<Watcher> {
    let (alive, gone) = bounded(0);
    let fuse = core.jobs.store().fuse();
    let weak = Arc::downgrade(core);
    let turned = Arc::downgrade(core);
    core.jobs.clock().on_turn(move || {
        if let Some(core) = turned.upgrade() {
            core.supervisor.ring();
        }
    });
    thread::Builder::new()
        .name("legwork-supervisor".into())
        .spawn(move || {
            let (_alive, _fuse): (Sender<()>, _) = (alive, fuse);
            supervise(&weak, &bell);
        })
        .map(|thread| Watcher { thread, gone })
        .map_err(|error| Error::Io(Box::new(error)))
}

fn supervise(core: &Weak<Core>, bell: &Bell) {
    loop {
        let wait = match core.upgrade() {
            Some(core) if !core.is_stopped() => {
                #[cfg(feature = "cron")]
                if let Err(error) = core.cron_thread.start_if_rung(&core) {
                    log::error!("legwork: the cron thread cannot be started: {error}");
                }
                core.check_overdue()
            }
            _ => return,
        };
        // A ring and a time-out mean the same: look again. A closed bell: the engine is gone.
        match wait {
            None => {
                if bell.0.recv().is_err() {
                    return;
                }
            }
            Some(wait) => {
                let _ = bell.0.recv_timeout(wait);
            }
        }
    }
}

impl Core {
    /// Deals with attempts that are overdue; how long until the next one is.
    fn check_overdue(self: &Arc<Core>) -> Option<Duration> {
        let now = self.jobs.clock().awake();
        let attempts = self.jobs.attempts_here().of(self.instance);
        for attempt in &attempts {
            if self.supervisor.alarm(attempt).is_some_and(|alarm| alarm <= now) {
                self.overdue(attempt);
            }
        }
        // Under the lock an attempt is either in the list or finds the new alarm.
        let mut armed = self.supervisor.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = self.jobs.attempts_here().of(self.instance);
        let next = attempts.iter().filter_map(|attempt| self.supervisor.alarm(attempt)).min();
        *armed = next.unwrap_or(Duration::MAX);
        if self.jobs.clock().is_stopped() {
            return None;
        }
        next.map(|at| at.saturating_sub(now).min(LONGEST))
    }

    fn overdue(self: &Arc<Core>, attempt: &Arc<Attempt>) {
        let abandon = attempt.overdue == Overdue::Abandon;
        attempt.signals.set(|asked| asked.reported = true);
        let running = attempt.elapsed();
        log::warn!(job = attempt.id().0, kind = &*attempt.kind; "legwork: stuck, running for {running:?}");
        if abandon && let Err(error) = self.abandon(attempt) {
            log::error!(job = attempt.id().0; "legwork: not abandoned: {error}");
        }
        self.jobs.tell(|| Event::Stuck {
            id: attempt.id(),
            kind: attempt.kind.to_string(),
            running,
            abandoned: abandon,
        });
    }

    /// Counts the attempt as failed while its thread is still at it, and replaces its worker.
    fn abandon(self: &Arc<Core>, attempt: &Arc<Attempt>) -> Result<()> {
        let pool = self.pools.iter().find(|pool| {
            // A pool's name may contain dashes of its own.
            attempt.worker.rsplit_once('-').is_some_and(|(name, _)| name == pool.name)
        });
        // Under the signals' lock an attempt has either ended, or will find itself abandoned.
        let abandoned = attempt.signals.set(|asked| {
            if !asked.ended {
                asked.abandoned = true;
                asked.replaced = pool.is_some_and(|pool| pool.abandon());
            }
            asked.abandoned.then_some(asked.replaced)
        });
        let Some(replaced) = abandoned else { return Ok(()) };
        self.abandoned().push(Arc::clone(attempt));
        let ended = self.time_out(attempt);
        worker::exchange(self, Some(ended.into_ending()), None)?;
        match pool {
            Some(pool) if replaced => worker::start_missing(self, pool),
            _ => Ok(()),
        }
    }
}
