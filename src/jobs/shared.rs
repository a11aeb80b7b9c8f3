//! What belongs to a file in this process, whatever the number of its handles.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;

use crate::clock::{Clock, Random};
use crate::error::{Error, Result};
use crate::event::{Event, Hub};
use crate::new_job::Retention;
use crate::state::State;
use crate::store::{Durability, Notice, Settings, Store, Taken};

use super::ears::Ears;
use super::{Attempts, lock};

/// How often other programs' plain SQL is looked for, unless the builder says otherwise.
const SWEEP: Duration = Duration::from_secs(5);

/// An open file: one writer, and what is told and known of its jobs in this process.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) events: Arc<Hub>,
    /// After the store, whose end is told, too.
    pub(super) ears: Arc<Ears>,
    pub(super) trouble: Arc<Mutex<Option<(OffsetDateTime, String)>>>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) workers: AtomicUsize,
}

impl Shared {
    pub(super) fn open(path: PathBuf, wanted: Wanted, busy_timeout: Duration) -> Result<Shared> {
        let events = Arc::new(Hub::default());
        let trouble = Arc::new(Mutex::new(None));
        let attempts = Arc::new(Attempts::default());
        let clock = wanted.clock.unwrap_or_default();
        let ears = Arc::new(Ears::new(Arc::clone(&events), clock.clone()));
        let store = Store::open(Settings {
            path,
            durability: wanted.durability.unwrap_or_default(),
            busy_timeout,
            create: wanted.create.unwrap_or(true),
            allow_network_fs: wanted.allow_network_fs.unwrap_or(false),
            retention: wanted.retention.unwrap_or_default(),
            history_rows: wanted.history_rows.unwrap_or(1_000_000),
            clock: clock.clone(),
            random: wanted.random.unwrap_or_default(),
            checkpoint_on_close: wanted.checkpoint_on_close.unwrap_or(true),
            sweep: in_use(wanted.sweep.unwrap_or(SWEEP)),
            observer: observer(
                Arc::clone(&events),
                Arc::clone(&trouble),
                Arc::clone(&attempts),
                Arc::clone(&ears),
                clock,
            ),
        })?;
        ears.of(store.path());
        Ok(Shared { store, events, ears, trouble, attempts, workers: AtomicUsize::new(0) })
    }
}

/// What a builder asks of the file's writer; what it leaves open is inherited from the handle that
/// opened the file first.
#[derive(Default)]
pub(super) struct Wanted {
    /// Of no account once the file is open.
    pub(super) create: Option<bool>,
    pub(super) durability: Option<Durability>,
    pub(super) allow_network_fs: Option<bool>,
    pub(super) retention: Option<Retention>,
    pub(super) history_rows: Option<u64>,
    pub(super) clock: Option<Clock>,
    pub(super) random: Option<Random>,
    pub(super) sweep: Option<Duration>,
    pub(super) checkpoint_on_close: Option<bool>,
}

impl Wanted {
    /// # Errors
    /// [`Error::Invalid`] if the file is open with something else.
    pub(super) fn check_agrees(&self, open: &Settings) -> Result<()> {
        same("durability", self.durability, open.durability)?;
        same("allow_network_fs", self.allow_network_fs, open.allow_network_fs)?;
        same("retention", self.retention, open.retention)?;
        same("history_rows", self.history_rows, open.history_rows)?;
        same("checkpoint_on_close", self.checkpoint_on_close, open.checkpoint_on_close)?;
        same("sweep", self.sweep, open.sweep.unwrap_or_default())?;
        if self.clock.as_ref().is_some_and(|clock| !clock.is(&open.clock)) {
            return Err(differs("clock", "another one"));
        }
        if self.random.as_ref().is_some_and(|random| !random.is(&open.random)) {
            return Err(differs("random", "another one"));
        }
        Ok(())
    }
}

fn same<T: PartialEq + Debug>(what: &'static str, wanted: Option<T>, open: T) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != open => Err(differs(what, &format!("{open:?}"))),
        _ => Ok(()),
    }
}

fn differs(what: &'static str, open: &str) -> Error {
    Error::invalid(
        what,
        format!(
            "this process has the file open with {open}, and all its handles share one writer; \
             leave the setting out, or give the same"
        ),
    )
}

fn in_use(sweep: Duration) -> Option<Duration> {
    (sweep > Duration::ZERO).then_some(sweep)
}

/// Turns the store's notices into events and log lines.
fn observer(
    events: Arc<Hub>,
    trouble: Arc<Mutex<Option<(OffsetDateTime, String)>>>,
    attempts: Arc<Attempts>,
    ears: Arc<Ears>,
    clock: Clock,
) -> Arc<dyn Fn(Notice) + Send + Sync> {
    Arc::new(move |notice| {
        let keep = |text: String| *lock(&trouble) = Some((clock.now(), text));
        let note = |text: String| {
            log::warn!("legwork: {text}");
            keep(text);
        };
        match notice {
            Notice::Busy { waited } => {
                note(format!("another connection has held the write lock for {waited:?}"));
                events.tell(|| Event::DatabaseBusy { waited });
            }
            Notice::Held { error } => {
                note(format!("finished work is held until it can be recorded: {error}"));
                events.tell(|| Event::WriteFailed { error });
            }
            Notice::Damaged { error } => {
                log::error!("legwork: {error}");
                keep(error.clone());
                events.tell(|| Event::Damaged { error });
            }
            Notice::WalPinned { bytes, pinned } => {
                note(format!(
                    "the -wal has grown to {} MiB: a reader has kept a snapshot for at least \
                     {pinned:?}, and until it ends the file cannot be cut back",
                    bytes >> 20
                ));
                events.tell(|| Event::WalPinned { bytes, pinned });
            }
            Notice::Recovered => {
                log::info!("legwork: writing works again");
                events.tell(|| Event::Recovered);
            }
            Notice::Taken(taken) => tell_taken(&events, &taken),
            Notice::Asked(claim) => attempts.cancel(claim),
            Notice::Cancelled(id) => {
                let state = State::Cancelled;
                events.tell(|| Event::Finished { id, kind: None, state, took: None });
            }
            Notice::UnknownKind { kind } => {
                log::warn!(kind = kind.as_str(); "legwork: jobs of a kind that no engine here knows are waiting");
                events.tell(|| Event::UnknownKind { kind });
            }
            #[cfg(feature = "cron")]
            Notice::CronChanged => events.ring(),
            Notice::FlowEnded(id, state) => events.tell(|| super::flows::ended(id, state)),
            Notice::Ears => ears.look(),
            Notice::Gone { error } => {
                log::error!("legwork: {error}");
                keep(error.clone());
                events.tell(|| Event::Gone { error });
            }
        }
    })
}

/// Tells what was taken over from dead processes.
pub(super) fn tell_taken(events: &Hub, taken: &Taken) {
    for &id in &taken.rescued {
        log::warn!(job = id.0; "legwork: rescued from a dead process");
        events.tell(|| Event::Rescued { id });
    }
    for job in &taken.quarantined {
        log::error!(job = job.id.0, kind = job.kind.as_str(); "legwork: {}", job.reason);
        events.tell(|| Event::Quarantined {
            id: job.id,
            kind: job.kind.clone(),
            deaths: job.deaths,
            reason: job.reason.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_of_zero_is_none() {
        assert_eq!(in_use(Duration::ZERO), None);
        assert_eq!(in_use(SWEEP), Some(Duration::from_secs(5)));
    }
}
