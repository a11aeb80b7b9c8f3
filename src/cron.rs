//! Cron entries: how one is written, and what is read back of it.

use serde::Serialize;
use time::OffsetDateTime;

use crate::clock::{Micros, from_micros, to_micros};
use crate::error::Result;
use crate::id::JobId;
use crate::rules::cron::Schedule;
use crate::rules::cron::misfire::{Missed, Overlap};

/// When a cron entry fires: an expression, its time zone, and what becomes of ticks that nobody was
/// there for.
///
/// Five fields (minute, hour, day of the month, month, day of the week), six with seconds first,
/// `@hourly`, `@daily` and friends, or `@every 7m` for true intervals. The
/// [scheduling page](crate::guide::scheduling) has the rules. Wherever one is asked for, a plain
/// expression will do: it is in UTC, with [`Missed::Once`] and [`Overlap::Allow`].
///
/// ```
/// # use legwork::{Cron, Missed, Overlap};
/// let opening = Cron::new("0 7 * * 1-5")
///     .zone("Europe/Berlin")
///     .missed(Missed::Skip)
///     .overlap(Overlap::Skip);
/// assert!(opening.check().is_ok());
/// assert!(Cron::new("0 0 30 2 *").check().is_err());     // there is no such day
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    pub(crate) expression: String,
    pub(crate) zone: String,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
}

impl Cron {
    /// An expression, in UTC. It is checked where it is used.
    pub fn new(expression: impl Into<String>) -> Cron {
        Cron {
            expression: expression.into(),
            zone: "UTC".to_owned(),
            missed: Missed::default(),
            overlap: Overlap::default(),
        }
    }

    /// The time zone, by its IANA name such as `"Europe/Berlin"`. Default: `"UTC"`.
    pub fn zone(mut self, zone: impl Into<String>) -> Cron {
        self.zone = zone.into();
        self
    }

    /// What becomes of ticks that were missed: no engine ran, or the machine slept. Default:
    /// [`Missed::Once`].
    pub fn missed(mut self, missed: Missed) -> Cron {
        self.missed = missed;
        self
    }

    /// Whether a tick is left out while the entry's last job is not finished. Default:
    /// [`Overlap::Allow`].
    pub fn overlap(mut self, overlap: Overlap) -> Cron {
        self.overlap = overlap;
        self
    }

    /// Checks expression and zone.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid), with what is wrong.
    pub fn check(&self) -> Result<()> {
        self.schedule().map(drop)
    }

    /// What the expression says, in plain English.
    ///
    /// # Errors
    /// As [`check`](Cron::check).
    pub fn words(&self) -> Result<String> {
        Ok(self.schedule()?.words())
    }

    /// The first `count` ticks after `after`, in UTC; fewer if there are no more. Those of `@every`
    /// are counted from `after`.
    ///
    /// ```
    /// # use legwork::Cron;
    /// use time::macros::datetime;
    /// let ticks = Cron::new("0 7 * * *").ticks_after(datetime!(2026-05-01 08:00 UTC), 2)?;
    /// assert_eq!(ticks, [datetime!(2026-05-02 07:00 UTC), datetime!(2026-05-03 07:00 UTC)]);
    /// # Ok::<(), legwork::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`check`](Cron::check).
    pub fn ticks_after(&self, after: OffsetDateTime, count: usize) -> Result<Vec<OffsetDateTime>> {
        let after = to_micros(after);
        Ok(ticks(&self.schedule()?, after, after, count))
    }

    /// The same with expression and zone as they are kept.
    pub(crate) fn spelled(self, expression: String, zone: String) -> Cron {
        Cron { expression, zone, ..self }
    }

    pub(crate) fn schedule(&self) -> Result<Schedule> {
        Schedule::parse(&self.expression, &self.zone)
    }
}

/// The first `count` ticks after `after` of a schedule that was anchored at `anchor`.
pub(crate) fn ticks(
    schedule: &Schedule,
    anchor: Micros,
    after: Micros,
    count: usize,
) -> Vec<OffsetDateTime> {
    let next = |&tick: &Micros| schedule.next_from(anchor, tick);
    std::iter::successors(next(&after), next).take(count).map(from_micros).collect()
}

impl From<&str> for Cron {
    fn from(expression: &str) -> Cron {
        Cron::new(expression)
    }
}

impl From<String> for Cron {
    fn from(expression: String) -> Cron {
        Cron::new(expression)
    }
}

/// A cron entry as it stands in the file; see [`Jobs::crons`](crate::Jobs::crons).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CronRecord {
    /// Its name.
    pub name: String,
    /// Its expression.
    pub expression: String,
    /// Its time zone.
    pub zone: String,
    /// The expression in plain English.
    pub words: String,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// What becomes of ticks while the last job is not finished.
    pub overlap: Overlap,
    /// The kind of the job that it enqueues; `None`: it is an entry of an engine's builder, whose
    /// closure makes the job.
    pub kind: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Its next tick; `None` if it is paused, or there is none.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next: Option<OffsetDateTime>,
    /// The last tick that was fired, or left out since the last job was not finished.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_tick: Option<OffsetDateTime>,
    /// The last job that it enqueued. It may have been pruned since.
    pub last_job: Option<JobId>,
    /// Runs that were asked for by [`run_cron`](crate::Jobs::run_cron) and not yet served.
    pub runs_asked: u64,
}

impl CronRecord {
    /// Whether it is an entry of an engine's builder. The others were made by
    /// [`schedule`](crate::Jobs::schedule).
    pub fn is_static(&self) -> bool {
        self.kind.is_none()
    }
}
