//! What happens, as it happens, for whoever wants to watch.

mod json;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::flow::FlowState;
use crate::id::{FlowId, JobId};
use crate::record::{Progress, Scope};
use crate::state::State;

/// Something that happened in this process, told after its commit.
///
/// Events are for watching, not for counting on: a receiver that lags loses some
/// ([`Event::Missed`] says how many), and other processes' events are not among them
/// ([`Jobs::listen`](crate::Jobs::listen) hears those). What must not be lost is in the file.
///
/// As JSON an event is one object: `event` names the variant in lower case with underscores, the fields
/// stand beside it, the job as `job`, a flow as `flow`, times in RFC 3339, and spans in seconds as
/// `took_seconds`, `running_seconds`, `pinned_seconds`, `waited_seconds`. Fields may be added, none
/// changes its meaning.
///
/// ```
/// # use legwork::{Event, JobId, State};
/// # use std::time::Duration;
/// # fn main() -> serde_json::Result<()> {
/// # let json = r#"{"event":"finished","job":7,"kind":"welcome_email","state":"completed","took_seconds":0.25}"#;
/// let event: Event = serde_json::from_str(json)?;
/// assert!(matches!(event, Event::Finished { id: JobId(7), state: State::Completed, .. }));
/// assert_eq!(serde_json::to_string(&event)?, json);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A job was enqueued.
    Enqueued {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// Its queue.
        queue: String,
    },
    /// A waiting job has got the arguments of a new one with its unique key.
    Replaced {
        /// The job that waits, and now does the new one's work.
        #[serde(rename = "job")]
        id: JobId,
        /// The new one's kind.
        kind: String,
        /// The new one's queue.
        queue: String,
    },
    /// A job was refused: another one has its unique key. For jobs that were enqueued from within an
    /// attempt, or by [`enqueue_each`](crate::Jobs::enqueue_each); other callers get an error.
    NotUnique {
        /// The job that has the key, perhaps finished already.
        holder: JobId,
        /// The kind of the one that was refused.
        kind: String,
    },
    /// An attempt started.
    Started {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// Its queue.
        queue: String,
        /// The attempt's number, from 1.
        attempt: u32,
        /// The worker that runs it.
        worker: String,
    },
    /// A job reported progress.
    Progress {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// How far it is.
        progress: Progress,
    },
    /// A job is over and did not fail: `Completed` or `Cancelled`.
    Finished {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind, if the end came from an attempt.
        kind: Option<String>,
        /// `Completed` or `Cancelled`.
        state: State,
        /// How long its last attempt took, if the end came from one.
        #[serde(rename = "took_seconds", with = "crate::rules::seconds::if_any")]
        took: Option<Duration>,
    },
    /// A job gave up.
    Failed {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// The attempts used up.
        attempts: u32,
        /// The report of the last failure.
        error: String,
    },
    /// An attempt failed and the job runs again later.
    Retrying {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// The attempts used up.
        attempts: u32,
        /// When it runs again.
        #[serde(with = "time::serde::rfc3339")]
        run_at: OffsetDateTime,
        /// The report of the failure.
        error: String,
    },
    /// A job asked to run again later without using up an attempt.
    Snoozed {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// When it runs again.
        #[serde(with = "time::serde::rfc3339")]
        run_at: OffsetDateTime,
    },
    /// An attempt goes on after its time-out.
    Stuck {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// How long the attempt has been running.
        #[serde(rename = "running_seconds", with = "crate::rules::seconds::span")]
        running: Duration,
        /// Whether it was abandoned: counted as failed, its finish void.
        abandoned: bool,
    },
    /// An attempt took longer than the engine's threshold.
    Slow {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// How long it took.
        #[serde(rename = "took_seconds", with = "crate::rules::seconds::span")]
        took: Duration,
    },
    /// A job was given back: its attempt was interrupted by a stop, or its process died.
    Rescued {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
    },
    /// The last member of a flow has finished.
    FlowEnded {
        /// The flow.
        #[serde(rename = "flow")]
        id: FlowId,
        /// How it has ended.
        state: FlowState,
    },
    /// A job has taken too many processes with it: it is `Failed` and is not started again, nor is
    /// its [`gave_up`](crate::Job::gave_up) called.
    Quarantined {
        /// The job.
        #[serde(rename = "job")]
        id: JobId,
        /// Its kind.
        kind: String,
        /// The deaths counted against it.
        deaths: u32,
        /// The reason, as it stands in its record.
        reason: String,
    },
    /// Ticks of a cron entry were left out by its [`Missed`](crate::Missed) policy: no engine ran at
    /// their time.
    CronMissed {
        /// The entry.
        name: String,
        /// How many; of a very long gap, at least so many.
        missed: u64,
    },
    /// A cron entry's job could not be made: its closure panicked, or the job was refused. The tick is
    /// left out, the next one comes.
    CronFailed {
        /// The entry.
        name: String,
        /// The panic or the error.
        error: String,
    },
    /// Jobs were paused.
    Paused(Scope),
    /// Jobs were resumed.
    Resumed(Scope),
    /// A gate was closed.
    GateClosed {
        /// Its name.
        name: String,
    },
    /// A gate was opened.
    GateOpened {
        /// Its name.
        name: String,
    },
    /// Jobs of a kind that no engine here knows are waiting; told once a kind.
    UnknownKind {
        /// The kind.
        kind: String,
    },
    /// Finishes or claims could not be written (disk full, I/O error); finishes are held in memory,
    /// and nothing more is claimed. Told once, until [`Recovered`](Event::Recovered).
    WriteFailed {
        /// The error.
        error: String,
    },
    /// The file can be written again; what was held is recorded.
    Recovered,
    /// The writer has met damage in the file. Told once. What is sound goes on being used; restore a
    /// backup.
    Damaged {
        /// The error.
        error: String,
    },
    /// The `-wal` has grown far beyond its usual size, because somebody keeps an old snapshot open
    /// by reading. Told once, until it has been cut back.
    WalPinned {
        /// Its size.
        bytes: u64,
        /// For how long at least the snapshot has been kept.
        #[serde(rename = "pinned_seconds", with = "crate::rules::seconds::span")]
        pinned: Duration,
    },
    /// The file or its `-wal` was removed or replaced; every call returns
    /// [`Error::Gone`](crate::Error::Gone) from now on. The last event of this file.
    Gone {
        /// The error.
        error: String,
    },
    /// Another connection has held the write lock for this long.
    DatabaseBusy {
        /// How long the writer has waited.
        #[serde(rename = "waited_seconds", with = "crate::rules::seconds::span")]
        waited: Duration,
    },
    /// This many events were dropped because the receiver did not keep up; as JSON, `count`.
    #[serde(with = "json::count")]
    Missed(u64),
}

/// How many events a receiver can lag behind.
const CAPACITY: usize = 4096;

struct Subscriber {
    to: Sender<Event>,
    missed: u64,
}

/// Who wants events.
#[derive(Default)]
pub(crate) struct Hub {
    subscribers: Mutex<Vec<Subscriber>>,
    // So that nobody builds events for nobody.
    count: AtomicUsize,
    /// Engines that want to know when cron entries are changed.
    #[cfg(feature = "cron")]
    bells: Mutex<Vec<std::sync::Weak<dyn Fn() + Send + Sync>>>,
}

/// Rung in the thread that has changed something: it must not block.
#[cfg(feature = "cron")]
pub(crate) type Bell = std::sync::Arc<dyn Fn() + Send + Sync>;

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> Events {
        let (to, from) = bounded(CAPACITY);
        let mut subscribers = self.lock();
        subscribers.push(Subscriber { to, missed: 0 });
        self.count.store(subscribers.len(), Ordering::Release);
        Events { from }
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Hangs a bell up, for as long as its owner holds it.
    #[cfg(feature = "cron")]
    pub(crate) fn hang(&self, bell: &Bell) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(std::sync::Arc::downgrade(bell));
    }

    #[cfg(feature = "cron")]
    pub(crate) fn ring(&self) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.upgrade().map(|ring| ring()).is_some());
    }

    /// Tells everybody; never blocks.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if !self.is_watched() {
            return;
        }
        let event = event();
        let mut subscribers = self.lock();
        subscribers.retain_mut(|subscriber| subscriber.send(&event));
        self.count.store(subscribers.len(), Ordering::Release);
    }
}

impl Subscriber {
    /// `false`: nobody listens any more.
    fn send(&mut self, event: &Event) -> bool {
        if self.missed > 0 {
            match self.to.try_send(Event::Missed(self.missed)) {
                Ok(()) => self.missed = 0,
                Err(TrySendError::Full(_)) => {
                    self.missed += 1;
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.to.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// A receiver of [`Event`]s, from the moment it was made; up to 4,096 are kept for it.
///
/// As an iterator it blocks for the next event, for as long as the handle lives.
pub struct Events {
    pub(crate) from: Receiver<Event>,
}

impl Events {
    /// The next event within `timeout`; `None` if none came or the handle is closed.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Event> {
        self.from.recv_timeout(timeout).ok()
    }

    /// The next event if one is there.
    pub fn try_recv(&self) -> Option<Event> {
        self.from.try_recv().ok()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.from.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_lags_is_told_what_it_missed_and_blocks_nobody() {
        let hub = Hub::default();
        let events = hub.subscribe();
        for _ in 0..CAPACITY + 7 {
            hub.tell(|| Event::Recovered);
        }
        for _ in 0..CAPACITY {
            assert_eq!(events.try_recv(), Some(Event::Recovered));
        }
        assert_eq!(events.try_recv(), None);
        hub.tell(|| Event::Recovered);
        assert_eq!(events.try_recv(), Some(Event::Missed(7)));
        assert_eq!(events.try_recv(), Some(Event::Recovered));
    }

    #[test]
    fn nobody_listening_costs_no_event() {
        let hub = Hub::default();
        drop(hub.subscribe());
        hub.tell(|| Event::Recovered);
        hub.tell(|| unreachable!("nobody listens"));
    }
}
