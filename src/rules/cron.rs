//! When an entry of the timetable is due: cron expressions and intervals, read once and then asked
//! for the tick after, or before, an instant.
//!
//! An expression speaks of what the clocks on the wall show in its zone. Each wall time that it names
//! is one tick, and each instant is at most one tick:
//! - a wall time that happens once ticks then;
//! - one that happens twice, because the clocks are set back, ticks the first time;
//! - those that never happen, because the clocks are set forward, tick together at the instant at
//!   which the clocks are set: the gap's end.
//!
//! The rule knows no exception, neither for `*` nor for gaps of a whole day.

mod calendar;
mod every;
pub(crate) mod misfire;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use crate::clock::{Micros, micros_of};
use crate::error::{Error, Result};
use calendar::Calendar;

/// The last microsecond of the year 9999: no tick is later.
const LAST: Micros = 253_402_300_799_999_999;

/// A parsed expression in its time zone.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    expression: String,
    zone: String,
    plan: Plan,
}

#[derive(Clone, Debug)]
enum Plan {
    Every(Duration),
    Calendar(Box<Calendar>),
}

impl Schedule {
    /// Reads five fields (minute, hour, day of the month, month, day of the week), six with seconds
    /// first, `@hourly` `@daily` `@midnight` `@weekly` `@monthly` `@yearly` `@annually`, or `@every 1h30m`
    /// (units s, m, h, d; at least one second). The zone is an IANA name or `UTC`; an interval
    /// does not depend on it.
    ///
    /// A day field that is `*` (or `?`) leaves the choice to the other one. If neither is, a day that either
    /// of them names is meant, as in Vixie cron; with `+` before the day of the week, one that both name.
    /// croner's `L`, `W` and `#` are understood in the day fields.
    ///
    /// # Errors
    ///
    /// `Invalid` for an expression that cannot be read or names no day that exists, and for an
    /// unknown zone.
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Schedule> {
        let expression = expression.trim();
        let tz = calendar::zone(zone.trim())?;
        let zone = tz.iana_name().unwrap_or("UTC").to_owned();
        let plan = match every::strip(expression) {
            Some(interval) => Plan::Every(every::parse(interval).map_err(bad)?),
            None => Plan::Calendar(Box::new(Calendar::parse(expression, tz).map_err(bad)?)),
        };
        Ok(Schedule { expression: expression.to_owned(), zone, plan })
    }

    /// The first tick after `after`. `None` if there is none: croner searches to the year 5000,
    /// intervals end with the year 9999.
    #[cfg(test)]
    pub(crate) fn next_after(&self, after: Micros) -> Option<Micros> {
        self.next_from(0, after)
    }

    /// As [`next_after`](Self::next_after), with the ticks of an interval at `anchor` + n · interval, for n of
    /// either sign. The calendar is its own anchor.
    pub(crate) fn next_from(&self, anchor: Micros, after: Micros) -> Option<Micros> {
        match &self.plan {
            Plan::Every(interval) => every::next(micros_of(*interval), anchor, after),
            Plan::Calendar(calendar) => calendar.next_after(after),
        }
        .filter(|&tick| tick <= LAST)
    }

    /// The last tick that is not after `at`; the calendar's begin in 1900.
    pub(crate) fn last_from(&self, anchor: Micros, at: Micros) -> Option<Micros> {
        match &self.plan {
            Plan::Every(interval) => every::last(micros_of(*interval), anchor, at),
            Plan::Calendar(calendar) => calendar.last_until(at),
        }
    }

    /// The time between two ticks of `@every`; `None` for the calendar's, which differ.
    #[cfg(test)]
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self.plan {
            Plan::Every(interval) => Some(interval),
            Plan::Calendar(_) => None,
        }
    }

    /// In plain English, to stand in a sentence: "at 07:00, Monday to Friday".
    pub(crate) fn words(&self) -> String {
        match &self.plan {
            Plan::Every(interval) => every::words(*interval),
            Plan::Calendar(calendar) => words::of(calendar.pattern()),
        }
    }

    /// As it was given, without surrounding blanks.
    pub(crate) fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone's name as IANA spells it.
    pub(crate) fn zone(&self) -> &str {
        &self.zone
    }
}

fn bad(why: String) -> Error {
    Error::invalid("cron expression", why)
}
