//! Probes: the functions that open and close gates, and the thread that asks them.
//!
//! Each is asked once before the first claim, then at its interval. The gate follows when the answer
//! changes, so what somebody sets by hand stands until then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::{Error, Result};
use crate::jobs::Jobs;
use crate::perform;
use crate::rules::name;

/// The longest sleep: monotonic clocks stand still while a laptop sleeps.
const LONGEST: Duration = Duration::from_secs(30);

/// Whether a gate is to be open.
type Ask = dyn Fn() -> bool + Send + Sync;

/// A probe as the builder has it.
#[derive(Clone)]
pub(crate) struct Probe {
    name: String,
    every: Duration,
    ask: Arc<Ask>,
}

impl Probe {
    pub(super) fn new(name: String, every: Duration, ask: Arc<Ask>) -> Probe {
        Probe { name, every, ask }
    }
}

/// # Errors
/// [`Error::Invalid`] for a bad name, an interval of zero, or two probes of one gate.
pub(super) fn check(probes: &[Probe]) -> Result<()> {
    for (at, probe) in probes.iter().enumerate() {
        name::check("gate name", &probe.name)?;
        if probe.every.is_zero() {
            let why = format!("that of gate {:?} must be longer than zero", probe.name);
            return Err(Error::invalid("probe interval", why));
        }
        if probes[..at].iter().any(|other| other.name == probe.name) {
            return Err(Error::invalid("gate name", format!("{:?} has two probes", probe.name)));
        }
    }
    Ok(())
}

/// A probe and what it said.
struct Probed {
    probe: Probe,
    /// The last answer that the gate follows.
    last: Option<bool>,
    /// When to ask next, in awake time.
    next: Duration,
}

/// The probes of an engine. One thread asks at a time.
pub(super) struct Gates {
    probed: Mutex<Vec<Probed>>,
    bell: Sender<()>,
    ring: Receiver<()>,
    stopped: AtomicBool,
}

impl Gates {
    pub(super) fn new(probes: Vec<Probe>) -> Gates {
        let probed = |probe| Probed { probe, last: None, next: Duration::ZERO };
        let probed = Mutex::new(probes.into_iter().map(probed).collect());
        // One ring pending is as good as many.
        let (bell, ring) = bounded(1);
        Gates { probed, bell, ring, stopped: AtomicBool::new(false) }
    }

    fn probed(&self) -> MutexGuard<'_, Vec<Probed>> {
        self.probed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the probes whose time has come, or all; how long until the next one is to be asked.
    pub(super) fn ask(&self, jobs: &Jobs, all: bool) -> Option<Duration> {
        let mut probed = self.probed();
        let now = jobs.clock().awake();
        for probed in probed.iter_mut().filter(|probed| all || probed.next <= now) {
            self.ask_one(jobs, probed);
            probed.next = jobs.clock().awake().saturating_add(probed.probe.every);
        }
        let next = probed.iter().map(|probed| probed.next).min()?;
        Some(next.saturating_sub(jobs.clock().awake()))
    }

    fn ask_one(&self, jobs: &Jobs, probed: &mut Probed) {
        let name = &probed.probe.name;
        let open = match perform::catch(|| (probed.probe.ask)()) {
            Ok(open) => open,
            Err(panic) => {
                log::error!(
                    "legwork: the probe of gate {name:?} {panic}; the gate is left as it is"
                );
                return;
            }
        };
        if probed.last == Some(open) || self.is_stopped() {
            return;
        }
        match jobs.set_gate(name, open) {
            Ok(()) => probed.last = Some(open),
            // With the next answer it is tried again.
            Err(error) => log::warn!("legwork: gate {name:?} does not follow its probe: {error}"),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// No gate is set any more. Does not wait for a probe that is being asked.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.ring();
    }

    fn ring(&self) {
        // Full: it is being woken already.
        let _ = self.bell.try_send(());
    }

    /// Asks until it is stopped.
    fn keep_asking(&self, jobs: &Jobs) {
        while !self.is_stopped() {
            let wait = self.ask(jobs, false);
            // A ring and a time-out mean the same: look again.
            let _ = match wait.filter(|_| !jobs.clock().is_stopped()) {
                Some(wait) => self.ring.recv_timeout(wait.min(LONGEST)).is_ok(),
                None => self.ring.recv().is_ok(),
            };
        }
    }
}

/// The thread that asks, and a channel that closes when it ends.
pub(super) struct Prober {
    thread: JoinHandle<()>,
    gone: Receiver<()>,
}

impl Prober {
    /// Joins the stopped thread if it ends in time; one whose probe does not return is left alone.
    pub(super) fn end(self, within: Duration) {
        if self.gone.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            log::warn!("legwork: a gate's probe has not returned");
        } else if self.thread.join().is_err() {
            log::error!("legwork: the gates thread had panicked");
        }
    }
}

/// Asks all probes, then starts the thread that goes on asking, if there is any. It does not hold the
/// engine: a probe that never returns keeps no claim.
pub(super) fn start(gates: &Arc<Gates>, jobs: &Jobs) -> Result<Option<Prober>> {
    if gates.ask(jobs, true).is_none() {
        return Ok(None);
    }
    let turned = Arc::downgrade(gates);
    jobs.clock().on_turn(move || {
        if let Some(gates) = turned.upgrade() {
            gates.ring();
        }
    });
    let (alive, gone) = bounded(0);
    let fuse = jobs.store().fuse();
    let (gates, jobs) = (Arc::clone(gates), jobs.clone());
    thread::Builder::new()
        .name("legwork-gates".into())
        .spawn(move || {
            let (_alive, _fuse): (Sender<()>, _) = (alive, fuse);
            gates.keep_asking(&jobs);
        })
        .map(|thread| Some(Prober { thread, gone }))
        .map_err(|error| Error::Io(Box::new(error)))
}
