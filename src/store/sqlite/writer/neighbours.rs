//! The writer beside other processes: it rings their bells and hears its own, looks now and then
//! for what nobody has rung for, and takes over what the dead have left.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Writer;
use super::desk::Desk;
use super::group::{Answers, Group, Mail};
use crate::beside;
use crate::error::Result;
use crate::id::JobId;
use crate::store::sqlite::doorbell::{self, Bell, Ringer};
use crate::store::sqlite::ears;
use crate::store::sqlite::ends::Why;
use crate::store::sqlite::lock_file::{InstanceLock, is_dead};
use crate::store::{ClaimRef, InstanceId, Notice, Taken};

/// How often the locks of other instances are tried, while there are any. The promise is a second
/// from a death to the rescue; half of it is left for the rescue itself.
const WATCH: Duration = Duration::from_millis(500);

/// What an engine of this process has beside the file.
struct Own {
    /// Weak: the lock is freed with the engine, not with the writer.
    lock: Weak<InstanceLock>,
    bell: Option<Bell>,
}

pub(super) struct Neighbours {
    desk: Weak<Desk>,
    observer: Arc<dyn Fn(Notice) + Send + Sync>,
    own: HashMap<InstanceId, Own>,
    /// Hung before the instance is in the file, so that no ring is missed.
    hung: Vec<(Weak<InstanceLock>, Bell)>,
    ringer: Ringer,
    /// A ring has been posted and not been read yet.
    ringing: Arc<AtomicBool>,
    watched_at: Instant,
    swept_at: Instant,
    /// What others had committed by the last sweep, as SQLite counts it.
    swept: Option<i64>,
}

impl Neighbours {
    pub(super) fn new(desk: Weak<Desk>, observer: Arc<dyn Fn(Notice) + Send + Sync>) -> Neighbours {
        Neighbours {
            desk,
            observer,
            own: HashMap::new(),
            hung: Vec::new(),
            ringer: Ringer::default(),
            ringing: Arc::default(),
            watched_at: Instant::now(),
            swept_at: Instant::now(),
            swept: None,
        }
    }

    /// Hangs the bell of an engine that is about to join.
    pub(super) fn hang_bell(&mut self, lock: &Arc<InstanceLock>) {
        if let Some(bell) = self.bell(lock) {
            self.hung.push((Arc::downgrade(lock), bell));
        }
    }

    fn bell(&self, lock: &InstanceLock) -> Option<Bell> {
        let (desk, ringing) = (Weak::clone(&self.desk), Arc::clone(&self.ringing));
        let observer = Arc::clone(&self.observer);
        let rung = move |ring| {
            if ring == ears::RING {
                // Not the file has changed, and not the writer's business.
                return observer(Notice::Ears);
            }
            // One ring that is still to be read is as good as many.
            if !ringing.swap(true, Ordering::AcqRel)
                && let Some(desk) = desk.upgrade()
            {
                // In this thread, if the writer is idle: that spares a wake-up.
                desk.hand_in(Mail::Rung);
            }
        };
        match Bell::hang(lock.side(), &lock.identity().bell(), rung) {
            Ok(bell) => Some(bell),
            Err(error) => {
                log::info!("legwork: no doorbell, the file is looked at instead: {error}");
                None
            }
        }
    }

    /// A ring is about to be answered with a look.
    pub(super) fn rung(&self) {
        self.ringing.store(false, Ordering::Release);
    }

    pub(super) fn joined(&mut self, id: InstanceId, lock: &Arc<InstanceLock>) {
        let lock = Arc::downgrade(lock);
        let hung = self.hung.iter().position(|(of, _)| of.ptr_eq(&lock));
        let bell = hung.map(|at| self.hung.swap_remove(at).1);
        self.own.insert(id, Own { lock, bell });
        // Whatever was rung for meanwhile is seen by the join itself.
        self.hung.retain(|(of, _)| of.strong_count() > 0);
    }

    pub(super) fn left(&mut self, id: InstanceId) {
        self.own.remove(&id);
    }

    /// The lock of some engine here.
    pub(super) fn lock(&self) -> Option<Arc<InstanceLock>> {
        self.own.values().find_map(|own| own.lock.upgrade())
    }
}

impl Writer {
    /// How often to look for what nobody has rung for; `None`: not at all.
    fn sweep(&self) -> Option<Duration> {
        if self.neighbours.own.is_empty() || self.settings.clock.is_stopped() {
            return None;
        }
        let deaf = self.neighbours.own.values().any(|own| own.bell.is_none());
        let without = deaf.then_some(doorbell::WITHOUT);
        self.settings.sweep.into_iter().chain(without).min()
    }

    fn watches(&self) -> bool {
        !self.neighbours.own.is_empty() && !self.book.others.is_empty()
    }

    /// When to look round by itself.
    pub(super) fn next_round(&self) -> Option<Duration> {
        let watch = self.watches().then(|| self.neighbours.watched_at + WATCH);
        let sweep = self.sweep().and_then(|every| self.neighbours.swept_at.checked_add(every));
        let next = watch.into_iter().chain(sweep).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Looks round, if it is time to: for news, for the dead, for its own lock and bell.
    pub(super) fn go_round(&mut self, group: &mut Group) {
        let now = Instant::now();
        if self.watches() && now - self.neighbours.watched_at >= WATCH {
            self.neighbours.watched_at = now;
            group.rescue |= self.finds_dead();
        }
        if self.sweep().is_some_and(|every| now - self.neighbours.swept_at >= every) {
            self.neighbours.swept_at = now;
            let committed = self.book.read_version().ok();
            if committed.is_none()
                || committed != std::mem::replace(&mut self.neighbours.swept, committed)
            {
                self.waiters.look_again();
                // Who rings nobody may not count what he changes, either; and then a group that was
                // recorded meanwhile has seen that there was news, and not what.
                self.book.read_all_anew();
                group.look = true;
            }
            self.keep_place();
        }
    }

    /// Whether the lock of another instance is free. The rescue looks again, under the write lock.
    fn finds_dead(&self) -> bool {
        let Some(me) = self.neighbours.lock() else { return false };
        let identity = me.identity();
        let mut others = self.book.others.iter();
        others.any(|other| is_dead(&other.identity, &identity, me.side()))
    }

    /// Makes lock files and bells anew that somebody has cleared away.
    fn keep_place(&mut self) {
        let ids: Vec<InstanceId> = self.neighbours.own.keys().copied().collect();
        for id in ids {
            let Some(lock) = self.neighbours.own.get(&id).and_then(|own| own.lock.upgrade()) else {
                continue;
            };
            if !lock.is_in_place()
                && let Err(error) = self.renew(id, &lock)
            {
                log::warn!("legwork: the lock file was removed and cannot be made anew: {error}");
                continue;
            }
            let Some(own) = self.neighbours.own.get(&id) else { continue };
            if !own.bell.as_ref().is_some_and(Bell::is_in_place) {
                let bell = self.neighbours.bell(&lock);
                if let Some(own) = self.neighbours.own.get_mut(&id) {
                    own.bell = bell;
                }
            }
        }
    }

    fn renew(&mut self, id: InstanceId, lock: &InstanceLock) -> Result<()> {
        let renewed = lock.renewed()?;
        if !self.book.begin()? {
            // Somebody else writes; the next sweep tries again.
            return Ok(());
        }
        let done = self.book.renew(id, &renewed.identity).and_then(|()| self.book.commit());
        match done {
            Ok(_) => {
                lock.adopt(renewed);
                // Its bell has another name now.
                if let Some(own) = self.neighbours.own.get_mut(&id) {
                    own.bell = None;
                }
                self.ring_others();
                Ok(())
            }
            Err(error) => {
                self.book.roll_back();
                Err(error)
            }
        }
    }

    /// Rings every other instance; the commit that they shall see has been made.
    pub(super) fn ring_others(&mut self) {
        let side = beside::side(&self.settings.path);
        for other in &self.book.others {
            if self.neighbours.ringer.ring(&side, &other.identity.bell()).is_err() {
                // Perhaps it is dead: try its lock with the next round.
                self.neighbours.watched_at =
                    Instant::now().checked_sub(WATCH).unwrap_or(self.neighbours.watched_at);
            }
        }
    }

    /// Stops what others have asked to stop: what lies in a tray is cancelled at once, what runs is
    /// told.
    pub(super) fn stop_what_was_asked(&mut self, answers: &mut Answers) -> Result<()> {
        if !self.book.take_asked_changed() {
            return Ok(());
        }
        let (now, keep) = (self.settings.clock.micros(), self.settings.retention);
        let own: Vec<InstanceId> = self.neighbours.own.keys().copied().collect();
        for instance in own {
            for claim in self.book.asked_to_stop(instance)? {
                let trays = self.trays.values();
                let back: Vec<_> =
                    trays.flat_map(|tray| tray.take_back(|job| job.claim == claim)).collect();
                if back.is_empty() {
                    answers.asked.push(claim);
                }
                self.unclaim(back, answers)?;
            }
        }
        // That was for these, and for whatever went back to its queue before the cancel was seen.
        for claim in &answers.unclaimed {
            if self.book.is_free_and_asked(claim.id)? {
                let why = Why::reason("cancelled while running");
                self.book.end_waiting(claim.id.0, why, now, keep)?;
                answers.cancelled.push(claim.id);
            }
        }
        Ok(())
    }

    /// Tells what was found to be so because of others.
    pub(super) fn tell_of_others(
        &mut self,
        taken: Taken,
        asked: Vec<ClaimRef>,
        cancelled: Vec<JobId>,
    ) {
        taken.ids().for_each(|id| self.waiters.tell(id));
        self.counted_into_history(cancelled.len() as u64);
        for id in cancelled {
            self.waiters.tell(id);
            (self.settings.observer)(Notice::Cancelled(id));
        }
        if taken.ids().next().is_some() {
            (self.settings.observer)(Notice::Taken(taken));
        }
        asked.into_iter().for_each(|claim| (self.settings.observer)(Notice::Asked(claim)));
    }
}
