//! The attempts under way in this process, so that a cancel reaches them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::context::Attempt;
use crate::id::JobId;
use crate::store::{ClaimRef, InstanceId};

use super::lock;

/// The attempts under way in this process, so that a cancel reaches them.
#[derive(Default)]
pub(crate) struct Attempts {
    inner: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    attempts: HashMap<JobId, Arc<Attempt>>,
    /// Cancels that came between a claim's commit and the start of its attempt here.
    early: HashSet<ClaimRef>,
    /// The instances of this process: other processes' claims are none of our business.
    instances: HashSet<InstanceId>,
}

impl Attempts {
    pub(crate) fn joined(&self, instance: InstanceId) {
        lock(&self.inner).instances.insert(instance);
    }

    pub(crate) fn left(&self, instance: InstanceId) {
        let mut running = lock(&self.inner);
        running.instances.remove(&instance);
        running.early.retain(|claim| claim.instance != instance);
    }

    /// The attempt starts; a cancel that was faster reaches it now.
    pub(crate) fn start(&self, attempt: &Arc<Attempt>) {
        let Some(claim) = attempt.claim else { return };
        let mut running = lock(&self.inner);
        if running.early.remove(&claim) {
            attempt.signals.set(|asked| asked.cancel = true);
        }
        running.attempts.insert(claim.id, Arc::clone(attempt));
    }

    pub(crate) fn end(&self, attempt: &Attempt) {
        let mut running = lock(&self.inner);
        if let Some(claim) = &attempt.claim {
            // A cancel that came too late for it.
            running.early.remove(claim);
        }
        if running.attempts.get(&attempt.id()).is_some_and(|there| std::ptr::eq(&**there, attempt))
        {
            running.attempts.remove(&attempt.id());
        }
    }

    pub(super) fn cancel(&self, claim: ClaimRef) {
        let mut running = lock(&self.inner);
        match running.attempts.get(&claim.id) {
            Some(attempt) if attempt.claim == Some(claim) => {
                attempt.signals.set(|asked| asked.cancel = true);
            }
            _ if running.instances.contains(&claim.instance) => {
                running.early.insert(claim);
            }
            _ => {}
        }
    }

    /// The attempts of one instance.
    pub(crate) fn of(&self, instance: InstanceId) -> Vec<Arc<Attempt>> {
        lock(&self.inner)
            .attempts
            .values()
            .filter(|attempt| attempt.claim.is_some_and(|claim| claim.instance == instance))
            .cloned()
            .collect()
    }

    /// Whether these are instances, and all of this process.
    pub(super) fn are_ours(&self, instances: &[InstanceId]) -> bool {
        let running = lock(&self.inner);
        !instances.is_empty() && instances.iter().all(|id| running.instances.contains(id))
    }

    pub(super) fn count(&self) -> usize {
        let running = lock(&self.inner);
        running.attempts.values().filter(|attempt| !attempt.signals.get().ended).count()
    }
}
