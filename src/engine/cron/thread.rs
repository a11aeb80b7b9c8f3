//! The thread `legwork-cron`: asleep until the next tick of an entry, or until entries change.
//!
//! It is there only while its engine has entries to serve: the supervisor starts it when entries
//! change, and it ends when it finds none.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::clock::{Micros, between};
use crate::engine::Core;
use crate::error::{Error, Result};
use crate::event::Bell;

/// The longest sleep while an alarm is set: monotonic clocks stand still while a laptop sleeps.
const LONGEST: Duration = Duration::from_secs(30);
/// The first pause after a pass that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

pub(in crate::engine) struct Thread {
    state: Mutex<State>,
    ring: Sender<()>,
    rung: Receiver<()>,
    /// Held up in the handle for as long as the engine lives.
    bell: Bell,
}

#[derive(Default)]
struct State {
    running: Option<(JoinHandle<()>, Receiver<()>)>,
    /// The engine stops: nothing is started any more.
    stopped: bool,
}

impl Thread {
    /// `starter` wakes the supervisor, which starts the thread.
    pub(in crate::engine) fn new(starter: Sender<()>) -> Thread {
        // One ring pending is as good as many.
        let (ring, rung) = bounded(1);
        let to_thread = ring.clone();
        let bell: Bell = Arc::new(move || {
            let _ = to_thread.try_send(());
            let _ = starter.try_send(());
        });
        Thread { state: Mutex::default(), ring, rung, bell }
    }

    pub(in crate::engine) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Makes the thread look at the entries.
    pub(in crate::engine) fn ring(&self) {
        let _ = self.ring.try_send(());
    }

    /// Starts the thread if it has been rung for and is not there.
    pub(in crate::engine) fn start_if_rung(&self, core: &Arc<Core>) -> Result<()> {
        let mut state = self.lock();
        if state.stopped || state.running.is_some() || self.rung.is_empty() || core.crons.is_off() {
            return Ok(());
        }
        let (alive, gone) = bounded(0);
        let fuse = core.jobs.store().fuse();
        let (weak, rung) = (Arc::downgrade(core), self.rung.clone());
        let thread = thread::Builder::new()
            .name("legwork-cron".into())
            .spawn(move || {
                let (_alive, _fuse): (Sender<()>, _) = (alive, fuse);
                run(&weak, &rung);
            })
            .map_err(|error| Error::Io(Box::new(error)))?;
        state.running = Some((thread, gone));
        Ok(())
    }

    /// Nothing to serve: the thread ends, unless it has been rung for meanwhile.
    fn may_end(&self) -> bool {
        let mut state = self.lock();
        if !self.rung.is_empty() && !state.stopped {
            return false;
        }
        if !state.stopped {
            // It ends by itself; nobody has to join it.
            state.running = None;
        }
        true
    }

    /// Ends the thread. It may be waiting for the file; then it is left to end by itself.
    pub(in crate::engine) fn stop(&self, within: Duration) {
        let running = {
            let mut state = self.lock();
            state.stopped = true;
            state.running.take()
        };
        let Some((thread, gone)) = running else { return };
        self.ring();
        // The last handle may go in the thread itself.
        if thread.thread().id() == thread::current().id() {
            return;
        }
        if gone.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            log::warn!("legwork: the cron thread still waits for the file");
        } else if thread.join().is_err() {
            log::error!("legwork: the cron thread had panicked");
        }
    }

    /// The threads are those of the parent process.
    pub(in crate::engine) fn forget(&self) {
        std::mem::forget(self.lock().running.take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread knows between two looks.
struct Sleeper {
    /// The next tick.
    next: Option<Micros>,
    /// When it last looked.
    looked: Micros,
    /// After a failed pass.
    pause: Option<Duration>,
}

fn run(core: &Weak<Core>, rung: &Receiver<()>) {
    let mut sleeper = Sleeper { next: None, looked: Micros::MIN, pause: None };
    let mut is_rung = true;
    loop {
        let wait = match core.upgrade() {
            Some(core) if !core.is_stopping() => match sleeper.look(&core, is_rung) {
                Some(wait) => wait,
                None => return,
            },
            _ => return,
        };
        is_rung = match wait {
            Wait::ForRing => match rung.recv() {
                Ok(()) => true,
                Err(_) => return,
            },
            Wait::AtMost(wait) => match rung.recv_timeout(wait) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            },
        };
    }
}

enum Wait {
    ForRing,
    AtMost(Duration),
}

impl Sleeper {
    /// Fires what is due, if it is time; how long to sleep. `None`: the thread is to end.
    fn look(&mut self, core: &Arc<Core>, is_rung: bool) -> Option<Wait> {
        let clock = core.jobs.clock();
        let now = clock.micros();
        // A clock that went back may have opened again what was settled.
        let due = self.next.is_some_and(|next| next <= now) || now < self.looked;
        if is_rung || due || self.pause.is_some() {
            self.looked = now;
            match core.crons.pass(&core.jobs) {
                Ok(passed) if !passed.serves => {
                    if core.cron_thread.may_end() {
                        return None;
                    }
                    return Some(Wait::ForRing);
                }
                Ok(passed) => {
                    self.next = passed.next;
                    self.pause = None;
                }
                Err(Error::Poisoned | Error::Gone { .. } | Error::Forked | Error::Stopped(_)) => {
                    return None;
                }
                Err(error) => {
                    let pause = self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST));
                    self.pause = Some(pause);
                    log::warn!("legwork: cron ticks wait, next try in {pause:?}: {error}");
                    return Some(Wait::AtMost(pause));
                }
            }
        }
        if clock.is_stopped() {
            return Some(Wait::ForRing);
        }
        match self.next {
            None => Some(Wait::ForRing),
            Some(next) => Some(Wait::AtMost(between(clock.micros(), next).min(LONGEST))),
        }
    }
}
