//! Which ticks of an entry are to be enqueued now: those on time, of those that were missed what the
//! policy says, and none twice when the clock is set back.

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::clock::Micros;

/// Lateness below this is none: a busy machine, a slow start.
const GRACE: Micros = 60_000_000;
/// A clock that goes back by more was wrong before, or is now; by less it is waited for.
const STEP: Micros = GRACE;
/// Ticks that are later than this are taken for a leap of the clock, which may be taken back.
const DAY: Micros = 86_400_000_000;
/// Ticks that [`Missed::All`] brings back at most.
const MOST: u32 = 10_000;
/// How many left-out ticks are counted; more are "at least" as many.
pub(crate) const COUNTED: u64 = 1_000;

/// What becomes of ticks that nobody was there to serve: the program did not run, or the machine slept.
///
/// A tick that is less than a minute late is on time, and fires whatever is said here.
///
/// ```
/// use legwork::Missed;
/// assert_eq!(Missed::default(), Missed::Once);
/// let every_one_of_the_last_day = Missed::All { at_most: 24 };
/// # let _ = every_one_of_the_last_day;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are left out; the next tick comes as usual.
    Skip,
    /// One job makes up for all of them, that of the latest. If a tick is on time at that moment,
    /// its job is the one. The default.
    #[default]
    Once,
    /// Each of them, oldest first; of too many the newest.
    All {
        /// So many, and never more than 10,000.
        at_most: u32,
    },
}

/// What happens at a tick when the entry's last job has not finished yet.
///
/// ```
/// assert_eq!(legwork::Overlap::default(), legwork::Overlap::Allow);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// A new job is enqueued all the same. The default.
    #[default]
    Allow,
    /// The tick is left out.
    Skip,
}

/// What an entry remembers between ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// All ticks up to here are settled: fired, or left out on purpose.
    pub until: Micros,
    /// The last time that ticks were found to be more than a day late.
    pub leap: Option<Leap>,
}

/// A long sleep, or a clock that was set wrong: from the last settled tick to what the clock then showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leap {
    pub from: Micros,
    pub to: Micros,
}

/// What is to be done at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// To enqueue, oldest first.
    pub ticks: Vec<Micros>,
    /// Left out under the policy; from [`COUNTED`] on "at least".
    pub missed: u64,
    /// To remember; as it was, if there was nothing to settle.
    pub settled: Settled,
    /// When to ask again.
    pub next: Option<Micros>,
}

impl Settled {
    /// For a new entry, and for one whose expression has changed: its ticks begin after `until`.
    pub(crate) fn new(until: Micros) -> Settled {
        Settled { until, leap: None }
    }

    /// What holds when the clock shows `now`.
    ///
    /// If it was set back, ticks begin again from now, so that the entry never falls silent; the store
    /// knows those that were fired, and fires none twice. By a day or more into the last leap: that had
    /// been the clock's error, and what has been settled since then was settled too soon.
    fn seen_at(self, now: Micros) -> Settled {
        let back = self.until.saturating_sub(now);
        match self.leap {
            _ if back < STEP => self,
            Some(leap) if back >= DAY && leap.from <= now && now < leap.to => {
                Settled::new(leap.from)
            }
            _ if back >= DAY => Settled::new(now),
            leap => Settled { until: now, leap },
        }
    }
}

/// Which ticks of `schedule` are to be enqueued at `now`; `anchor` is what intervals count from.
///
/// The work is bounded: it grows with the ticks that fire and those that are counted, not with the
/// time that has passed.
pub(crate) fn due(
    schedule: &Schedule,
    missed: Missed,
    settled: Settled,
    now: Micros,
    anchor: Micros,
) -> Due {
    let settled = settled.seen_at(now);
    let next = |after| schedule.next_from(anchor, after);
    let Some(first) = next(settled.until).filter(|&first| first <= now) else {
        return Due { ticks: Vec::new(), missed: 0, settled, next: next(settled.until) };
    };
    let late = now.saturating_sub(GRACE);
    let mut ticks = Vec::new();
    let mut tick = next(settled.until.max(late));
    while let Some(at) = tick.filter(|&at| at <= now) {
        ticks.push(at);
        tick = next(at);
    }
    let keep = match missed {
        Missed::Skip => 0,
        Missed::Once => u32::from(ticks.is_empty()),
        Missed::All { at_most } => at_most.min(MOST),
    };
    let older = |at: Micros| schedule.last_from(anchor, at).filter(|&tick| tick > settled.until);
    let mut before = std::iter::successors(older(late), |&tick| older(tick.saturating_sub(1)));
    let mut all: Vec<_> = before.by_ref().take(keep as usize).collect();
    let left_out = before.take(COUNTED as usize).count() as u64;
    all.reverse();
    all.extend(ticks);

    let until = schedule.last_from(anchor, now).unwrap_or(now);
    let leap = match now.saturating_sub(first) > DAY {
        true => Some(Leap { from: settled.until, to: now }),
        false => settled.leap,
    };
    Due { ticks: all, missed: left_out, settled: Settled { until, leap }, next: tick }
}

#[cfg(test)]
#[path = "misfire_tests.rs"]
mod tests;
