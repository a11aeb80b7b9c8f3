//! The desk: where the writer's work is done, by its thread or by a caller who finds it free.
//!
//! Most work comes by mail and is done by the thread, so that callers share commits. A caller who
//! is alone gains nothing by that and pays for two wake-ups; so whoever finds the desk free, the
//! mailbox empty and nothing amiss records his own operation in his own thread. Ends and claims always go by mail:
//! a worker that is drawn into committing runs no jobs.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use super::Writer;
use super::group::{Group, Mail};
use crate::error::Result;

/// A wake-up that comes so much later than it should is as good as none.
const SLACK: Duration = Duration::from_micros(500);

pub(in crate::store::sqlite) struct Desk {
    /// `None`: the thread has ended, and the connection is closed.
    writer: Mutex<Option<Writer>>,
    post: Sender<Mail>,
}

/// How long the thread may sleep.
pub(super) enum Sleep {
    Not,
    For(Duration),
    UntilMail,
}

impl Desk {
    /// A desk with its writer, who gets to know it.
    pub(in crate::store::sqlite) fn new(
        post: Sender<Mail>,
        writer: impl FnOnce(Weak<Desk>) -> Writer,
    ) -> Arc<Desk> {
        Arc::new_cyclic(|desk| Desk { writer: Mutex::new(Some(writer(Weak::clone(desk)))), post })
    }

    /// Has mail dealt with: here and now if the desk is free, otherwise by the thread.
    pub(super) fn hand_in(&self, mail: Mail) {
        if let Err(mail) = self.serve(mail) {
            // A thread that has ended needs no mail.
            let _ = self.post.send(mail);
        }
    }

    /// `None`: there is no writer any more, or it has panicked.
    fn with<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> Option<T> {
        self.writer.lock().ok()?.as_mut().map(work)
    }

    /// The thread's work, until it is told to stop. The mailbox closes with it, so that nobody posts
    /// what will not be read.
    pub(in crate::store::sqlite) fn work(&self, mailbox: Receiver<Mail>) {
        let _cleared = Clear(self);
        while let Some(sleep) = self.with(Writer::before_sleep) {
            let first = match sleep {
                Sleep::Not => None,
                Sleep::For(time) => mailbox.recv_timeout(time).ok(),
                Sleep::UntilMail => mailbox.recv().ok(),
            };
            if self.with(|writer| writer.turn(first)) != Some(true) {
                return;
            }
        }
    }

    /// Records a caller's operation in the caller's thread.
    ///
    /// # Errors
    /// The mail, to be posted, if the desk is not free.
    pub(in crate::store::sqlite) fn serve(&self, mail: Mail) -> Result<(), Mail> {
        let Ok(mut writer) = self.writer.try_lock() else { return Err(mail) };
        let Some(writer) = writer.as_mut().filter(|writer| writer.may_serve_callers()) else {
            return Err(mail);
        };
        // If this panics the thread must see it.
        let woken = WakeOnPanic(&self.post);
        writer.serve(mail);
        drop(woken);
        if writer.wants_its_thread() {
            let _ = self.post.send(Mail::Call);
        }
        Ok(())
    }

    /// Looks something up on the writer's connection, which is open already; `None`: the desk is not free.
    pub(in crate::store::sqlite) fn look_up<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Option<Result<T>> {
        let writer = self.writer.try_lock().ok()?;
        let writer = writer.as_ref().filter(|writer| writer.may_serve_callers())?;
        Some(read(&writer.book.conn))
    }
}

/// However the thread ends: the writer goes, with its connection and with everybody's answers.
struct Clear<'a>(&'a Desk);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(writer);
    }
}

struct WakeOnPanic<'a>(&'a Sender<Mail>);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Mail::Call);
        }
    }
}

impl Writer {
    /// Whether the thread may sleep, and how long.
    fn before_sleep(&mut self) -> Sleep {
        if !self.mail.is_empty() || self.left_over.is_some() || self.is_due() || self.stopping {
            return Sleep::Not;
        }
        let next = self.next_wake();
        self.sleeps_until = next.and_then(|wait| Instant::now().checked_add(wait));
        next.map_or(Sleep::UntilMail, Sleep::For)
    }

    /// Until when nothing has to be done unasked; `None`: not until mail comes.
    fn next_wake(&self) -> Option<Duration> {
        // In trouble nothing of the trays can be written, and workers leave little in them.
        let trays = if self.trouble.is_none() { self.watch_trays() } else { None };
        [self.next_alarm(), trays, self.wal.alarm(), self.next_round()].into_iter().flatten().min()
    }

    /// Whether a caller may do the work now: nobody has to share a commit, to wait or to be left a
    /// gap.
    fn may_serve_callers(&self) -> bool {
        self.mail.is_empty()
            && self.left_over.is_none()
            && self.trouble.is_none()
            && self.held.is_empty()
            && self.leaving.is_empty()
            && !self.stopping
            && self.tripwire.sprung().is_none()
            && self.gaps.owed(Instant::now()).is_none()
    }

    /// Records one operation without waiting for anybody: if the lock is not free the thread does
    /// it.
    fn serve(&mut self, mail: Mail) {
        let mut group = Group::default();
        self.sort(mail, &mut group);
        self.serve_from_trays();
        self.at_desk = true;
        if self.lock(&mut group) {
            self.record_locked(group);
        }
        self.at_desk = false;
        self.answer_empty_handed();
        self.report_unknown_kinds();
    }

    /// Whether something is left for the thread that it would sleep over.
    fn wants_its_thread(&self) -> bool {
        let overslept = self.next_wake().is_some_and(|wait| {
            let at = Instant::now() + wait + SLACK;
            self.sleeps_until.is_none_or(|until| at < until)
        });
        overslept
            || self.left_over.is_some()
            || self.trouble.is_some()
            || self.stopping
            || self.is_due()
            || self.tripwire.sprung().is_some()
    }
}
