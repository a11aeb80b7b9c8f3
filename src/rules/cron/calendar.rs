//! Five or six fields in a time zone.
//!
//! croner searches wall times only, on a calendar without zones; which instants they are is decided
//! here. Left to itself croner ticks twice in an overlap, and not at all in a gap, as soon as a field of
//! the time is a list or a `*`; and it drops a gap's tick if the gap ends on another day.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Year};
use croner::{CivilDateTime, Cron, CronDateTime, CronPattern, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use crate::clock::Micros;
use crate::error::{Error, Result};

/// 1900-01-01 UTC: the search begins no earlier.
const FIRST: i64 = -2_208_988_800;
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

#[derive(Clone, Debug)]
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

/// The zone of this name, from the table that is built in: the same in every process.
pub(super) fn zone(name: &str) -> Result<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).map_err(|_| {
        let why =
            format!("there is no `{name}`; give an IANA name such as `Europe/Berlin`, or `UTC`");
        Error::invalid("time zone", why)
    })
}

impl Calendar {
    pub(super) fn parse(expression: &str, zone: TimeZone) -> Result<Calendar, String> {
        let fields = spell_out(expression)?;
        check_fields(&fields)?;
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(&fields).map_err(|error| blame(&parser, &fields, error))?;
        match comes(&fields) {
            true => Ok(Calendar { cron, zone }),
            false => Err(format!("`{expression}` never comes: no month has such a day")),
        }
    }

    pub(super) fn pattern(&self) -> &CronPattern {
        &self.cron.pattern
    }

    /// Wall times in their order are instants in their order (some of them the same), so the first
    /// tick is that of the first wall time that has not yet come.
    pub(super) fn next_after(&self, after: Micros) -> Option<Micros> {
        let after = Timestamp::from_second(after.div_euclid(1_000_000).max(FIRST - 1)).ok()?;
        let from = self.begun(after)?;
        let wall = self.cron.find_next_occurrence(&Wall(from), false).ok()?;
        Some(self.instant(wall.0)?.as_microsecond())
    }

    /// The tick of the last wall time that has come.
    pub(super) fn last_until(&self, at: Micros) -> Option<Micros> {
        let at = Timestamp::from_second(at.div_euclid(1_000_000)).ok()?;
        if at.as_second() < FIRST {
            return None;
        }
        let wall = self.cron.find_previous_occurrence(&Wall(self.begun(at)?), true).ok()?;
        let tick = self.instant(wall.0)?;
        (tick.as_second() >= FIRST).then(|| tick.as_microsecond())
    }

    /// The latest wall time that has come for the first time, or been skipped, by `at`: what the
    /// clock shows, but in the second pass through an overlap the overlap's last second.
    fn begun(&self, at: Timestamp) -> Option<DateTime> {
        let shown = self.zone.to_datetime(at);
        let AmbiguousOffset::Fold { before, .. } = self.zone.to_ambiguous_timestamp(shown).offset()
        else {
            return Some(shown);
        };
        let first = before.to_timestamp(shown).ok()?;
        if first == at {
            return Some(shown);
        }
        let (set, before) = self.change(first, at)?;
        before.to_datetime(set).checked_sub(SignedDuration::from_secs(1)).ok()
    }

    fn instant(&self, wall: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
            AmbiguousOffset::Gap { before, after } => {
                let earliest = after.to_timestamp(wall).ok()?;
                Some(self.change(earliest, before.to_timestamp(wall).ok()?)?.0)
            }
        }
    }

    /// When in (`from`, `to`] the clocks are set, and their offset before.
    fn change(&self, from: Timestamp, to: Timestamp) -> Option<(Timestamp, Offset)> {
        let second = SignedDuration::from_secs(1);
        let sets =
            self.zone.preceding(to.checked_add(second).ok()?).map(|change| change.timestamp());
        sets.take_while(|&set| set > from).find_map(|set| {
            let before = self.zone.to_offset(set.checked_sub(second).ok()?);
            (before != self.zone.to_offset(set)).then_some((set, before))
        })
    }
}

fn spell_out(expression: &str) -> Result<String, String> {
    if !expression.starts_with('@') {
        return Ok(expression.to_owned());
    }
    let known = NICKNAMES.iter().find(|known| known.0.eq_ignore_ascii_case(expression));
    known.map(|known| known.1.to_owned()).ok_or_else(|| {
        let names: Vec<_> = NICKNAMES.iter().map(|known| known.0).collect();
        format!("`{expression}` is none of {} and `@every 7m`", names.join(", "))
    })
}

/// A field, what it may hold and which names it knows.
type Field = (&'static str, &'static str, &'static [&'static str]);

const FIELDS: [Field; 6] = [
    ("second", "0 to 59", &[]),
    ("minute", "0 to 59", &[]),
    ("hour", "0 to 23", &[]),
    ("day of the month", "1 to 31", &[]),
    (
        "month",
        "1 to 12, or JAN to DEC",
        &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    ),
    (
        "day of the week",
        "0 to 7 (0 and 7 are Sunday), or SUN to SAT",
        &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    ),
];

/// Refuses what croner would read in silence as something that nobody has meant.
fn check_fields(fields: &str) -> Result<(), String> {
    let all: Vec<_> = fields.split_whitespace().collect();
    if !matches!(all.len(), 5 | 6) {
        return Err(format!(
            "`{fields}` has {} fields; it takes 5 (minute, hour, day of the month, month, \
             day of the week) or 6 (seconds first)",
            all.len()
        ));
    }
    for (field, rule) in all.iter().zip(&FIELDS[6 - all.len()..]) {
        check_items(field, rule).map_err(|why| cannot_be(fields, field, rule, &why))?;
    }
    Ok(())
}

/// Which field it is that croner refuses: each is read alone.
fn blame(parser: &CronParser, fields: &str, error: CronError) -> String {
    let all: Vec<_> = fields.split_whitespace().collect();
    for (at, (field, rule)) in all.iter().zip(&FIELDS[6 - all.len()..]).enumerate() {
        let alone: Vec<_> = (0..all.len()).map(|i| if i == at { *field } else { "*" }).collect();
        if let Err(error) = parser.parse(&alone.join(" ")) {
            return cannot_be(fields, field, rule, &said(error));
        }
    }
    format!("`{fields}`: {}", said(error))
}

fn cannot_be(fields: &str, field: &str, (what, range, _): &Field, why: &str) -> String {
    format!("`{fields}`: the {what} cannot be `{field}`: {why}; it is {range}")
}

/// Whether there is such a day. Whatever day there is comes within 40 years of 2000, a Monday that is a
/// 29 February too; croner alone would search to the year 5000.
fn comes(fields: &str) -> bool {
    let seconds = if fields.split_whitespace().count() == 5 { "0 " } else { "" };
    let probe = CronParser::new().parse(&format!("{seconds}{fields} 2000-2040"));
    let start = Wall(DateTime::constant(2000, 1, 1, 0, 0, 0, 0));
    probe.is_ok_and(|probe| probe.find_next_occurrence(&start, true).is_ok())
}

/// No empty items of a list, no names run together, no names in fields of numbers.
fn check_items(field: &str, (what, _, names): &Field) -> Result<(), String> {
    let field = field.strip_prefix('+').filter(|_| *what == "day of the week").unwrap_or(field);
    for item in field.split(',') {
        if item.is_empty() {
            return Err("an item of the list is empty".to_owned());
        }
        for word in item.split(|letter: char| !letter.is_alphabetic()) {
            let sign = word.len() <= 2 && what.starts_with("day");
            let last = word.strip_suffix(['L', 'l']).filter(|_| word.len() == 4);
            let known = |name: &&str| name.eq_ignore_ascii_case(last.unwrap_or(word));
            if !word.is_empty() && !sign && !names.iter().any(known) {
                return Err(format!("`{word}` means nothing there"));
            }
        }
    }
    Ok(())
}

fn said(error: CronError) -> String {
    match error {
        CronError::InvalidPattern(why)
        | CronError::IllegalCharacters(why)
        | CronError::ComponentError(why) => why.trim_end_matches('.').to_owned(),
        other => other.to_string().trim_end_matches('.').to_owned(),
    }
}

/// A wall time for croner to search: every one exists, once.
#[derive(Clone)]
struct Wall(DateTime);

impl CronDateTime for Wall {
    fn to_civil(&self) -> CivilDateTime {
        let (date, time) = (self.0.date(), self.0.time());
        CivilDateTime::new(
            croner::CivilDate::from_parts_unchecked(
                date.year().into(),
                date.month().unsigned_abs().into(),
                date.day().unsigned_abs().into(),
            ),
            croner::CivilTime::from_parts_unchecked(
                time.hour().unsigned_abs().into(),
                time.minute().unsigned_abs().into(),
                time.second().unsigned_abs().into(),
            ),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(
            self.0.weekday().to_sunday_zero_offset().unsigned_abs().into(),
        )
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Wall>, CronError> {
        let part = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidDate);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let wall = DateTime::new(
            year,
            part(civil.month())?,
            part(civil.day())?,
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
            0,
        );
        Ok(Resolution::Single(Wall(wall.map_err(|_| CronError::InvalidDate)?)))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Wall> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Wall)
    }

    fn cmp_instant(&self, other: &Wall) -> Ordering {
        self.0.cmp(&other.0)
    }
}
