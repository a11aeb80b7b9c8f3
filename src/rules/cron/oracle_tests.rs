//! Every tick against a search that knows neither croner nor this module: it looks at each minute
//! on the clock of the zone, one after the other, and at the minutes that the clock has left out.
//! jiff is asked for nothing but the offset at an instant.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::Schedule;
use crate::clock::Micros;

const ZONES: [&str; 12] = [
    "Australia/Lord_Howe", // half an hour of summer time
    "Pacific/Apia",        // no 30 December 2011
    "Africa/Cairo",        // midnight is skipped, and in some years four changes
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo", // midnight is skipped
    "Africa/Casablanca", // the clocks are changed around Ramadan
    "America/St_Johns",  // changed at 00:01 until 2011
    "Antarctica/Troll",  // two hours
    "America/Havana",    // midnight is skipped, one o'clock repeated
    "Asia/Tehran",       // offset of a half hour, none of the usual days
    "Asia/Gaza",         // Ramadan, and another rule in nearly every year
];
/// 2000-01-01 and 2060-01-01, in minutes since 1970.
const YEARS: std::ops::Range<i64> = 15_778_080..47_336_400;
const DAY: i64 = 24 * 60;

/// What a field means to the oracle, made together with its text.
struct Expression {
    text: String,
    seconds: Vec<u32>,
    minutes: Vec<u32>,
    hours: Vec<u32>,
    months: Vec<u32>,
    of_month: Option<Vec<OfMonth>>,
    of_week: Option<Vec<OfWeek>>,
    both: bool,
}

#[derive(Clone, Copy)]
enum OfMonth {
    Day(u32),
    Last,
    Nearest(u32),
    LastWeekday,
}

#[derive(Clone, Copy)]
enum OfWeek {
    Day(u32),
    Nth(u32, u32),
    Last(u32),
}

/// A number or a few of a field, with their text.
fn numbers(rng: &mut fastrand::Rng, low: u32, high: u32) -> (String, Vec<u32>) {
    let mut text = Vec::new();
    let mut all = Vec::new();
    // The hours in which clocks are changed come often.
    let top = if high == 23 && rng.bool() { 3 } else { high };
    for _ in 0..[1, 1, 1, 2, 3][rng.usize(0..5)] {
        let (a, b) = (rng.u32(low..=top), rng.u32(low..=top));
        let (a, b, step) = (a.min(b), a.max(b), rng.u32(1..=high / 2));
        let (said, from, to, step) = match rng.u8(0..6) {
            0 => (format!("*/{step}"), low, high, step),
            1 => (format!("{a}-{b}"), a, b, 1),
            2 => (format!("{a}-{b}/{step}"), a, b, step),
            _ => (a.to_string(), a, a, 1),
        };
        text.push(said);
        all.extend((from..=to).step_by(step as usize));
    }
    (text.join(","), all)
}

fn or_star(rng: &mut fastrand::Rng, low: u32, high: u32, stars: f64) -> (String, Vec<u32>) {
    match rng.f64() < stars {
        true => ("*".to_owned(), (low..=high).collect()),
        false => numbers(rng, low, high),
    }
}

impl Expression {
    fn random(rng: &mut fastrand::Rng) -> Expression {
        let (second_text, seconds) = match rng.u8(0..5) {
            0 => or_star(rng, 0, 59, 0.2),
            _ => (String::new(), vec![0]),
        };
        let (minute_text, minutes) = or_star(rng, 0, 59, 0.2);
        let (hour_text, hours) = or_star(rng, 0, 23, 0.3);
        let (month_text, months) = or_star(rng, 1, 12, 0.7);
        let (month_day_text, of_month) = Expression::of_month(rng);
        let (mut week_day_text, of_week) = Expression::of_week(rng);
        let both = of_month.is_some() && of_week.is_some() && rng.u8(0..4) == 0;
        if both {
            week_day_text.insert(0, '+');
        }
        let text = [second_text, minute_text, hour_text, month_day_text, month_text, week_day_text];
        let text = text.join(" ").trim_start().to_owned();
        Expression { text, seconds, minutes, hours, months, of_month, of_week, both }
    }

    fn of_month(rng: &mut fastrand::Rng) -> (String, Option<Vec<OfMonth>>) {
        let day = rng.u32(1..=31);
        match rng.u8(0..12) {
            0..7 => ("*".to_owned(), None),
            7 => ("L".to_owned(), Some(vec![OfMonth::Last])),
            8 => (format!("{day}W"), Some(vec![OfMonth::Nearest(day)])),
            9 => ("LW".to_owned(), Some(vec![OfMonth::LastWeekday])),
            _ => {
                let (text, days) = numbers(rng, 1, 31);
                (text, Some(days.into_iter().map(OfMonth::Day).collect()))
            }
        }
    }

    fn of_week(rng: &mut fastrand::Rng) -> (String, Option<Vec<OfWeek>>) {
        const NAMES: [&str; 7] = ["sun", "Mon", "TUE", "wed", "THU", "FRI", "SAT"];
        let (day, n) = (rng.u32(0..7), rng.u32(1..=5));
        let name = NAMES[day as usize];
        match rng.u8(0..12) {
            0..6 => ("*".to_owned(), None),
            6 => (format!("{day}#{n}"), Some(vec![OfWeek::Nth(day, n)])),
            7 => (format!("{name}L"), Some(vec![OfWeek::Last(day)])),
            8 => (name.to_owned(), Some(vec![OfWeek::Day(day)])),
            9 => ("MON-FRI".to_owned(), Some((1..=5).map(OfWeek::Day).collect())),
            _ => {
                let (text, days) = numbers(rng, 0, 7);
                (text, Some(days.into_iter().map(|day| OfWeek::Day(day % 7)).collect()))
            }
        }
    }

    /// Whether a day, counted from 1970, is one of those named.
    fn names_day(&self, day: i64) -> bool {
        let (year, month, date) = civil(day);
        if !self.months.contains(&month) {
            return false;
        }
        let length = length(year, month);
        let weekday = |date: u32, of: u32| (date as i64 - of as i64 + day + 4).rem_euclid(7) as u32;
        let today = weekday(date, date);
        // Of the days Monday to Friday of this month the nearest to `wanted`; on a tie none can be.
        let nearest = |wanted: u32| {
            let near = (1..=length).filter(|&d| !matches!(weekday(d, date), 0 | 6));
            near.min_by_key(|&d| d.abs_diff(wanted)) == Some(date) && wanted <= length
        };
        let by_month = |rule: &OfMonth| match *rule {
            OfMonth::Day(wanted) => date == wanted,
            OfMonth::Last => date == length,
            OfMonth::Nearest(wanted) => nearest(wanted),
            OfMonth::LastWeekday => {
                (1..=length).rfind(|&d| !matches!(weekday(d, date), 0 | 6)) == Some(date)
            }
        };
        let by_week = |rule: &OfWeek| match *rule {
            OfWeek::Day(wanted) => today == wanted,
            OfWeek::Nth(wanted, n) => today == wanted && date.div_ceil(7) == n,
            OfWeek::Last(wanted) => today == wanted && date + 7 > length,
        };
        let month = self.of_month.as_ref().map(|rules| rules.iter().any(by_month));
        let week = self.of_week.as_ref().map(|rules| rules.iter().any(by_week));
        match (month, week) {
            (Some(month), Some(week)) if self.both => month && week,
            (Some(month), Some(week)) => month || week,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => true,
        }
    }
}

fn length(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and date of a day counted from 1970: year by year, month by month.
fn civil(day: i64) -> (i64, u32, u32) {
    let (mut year, mut left) = (1970, day);
    loop {
        for month in 1..=12 {
            let length = i64::from(length(year, month));
            if left < length {
                return (year, month, left as u32 + 1);
            }
            left -= length;
        }
        year += 1;
    }
}

/// What the clock of a zone shows at each minute of some days.
struct Window {
    /// The first minute since 1970.
    start: i64,
    /// For each minute from there the local one, counted like it.
    shown: Vec<i64>,
}

impl Window {
    fn new(zone: &TimeZone, start: i64, minutes: i64) -> Window {
        Window { start, shown: (start..start + minutes).map(|at| at + offset(zone, at)).collect() }
    }

    /// The first `most` ticks after second `after`, which lies in the window.
    fn ticks(&self, expression: &Expression, after: i64, most: usize) -> Vec<i64> {
        let mut ticks = Vec::new();
        // What the clock has shown so far, at most: a wall time up to here was there already.
        let mut reached = self.shown[0] - 1;
        let mut day = (i64::MIN, false);
        for (at, &shown) in (self.start..).zip(&self.shown) {
            if at * 60 + 59 <= after {
                reached = reached.max(shown);
                continue;
            }
            let skipped = reached + 1..shown;
            for wall in reached + 1..=shown {
                if day.0 != wall.div_euclid(DAY) {
                    day = (wall.div_euclid(DAY), expression.names_day(wall.div_euclid(DAY)));
                }
                let minute = wall.rem_euclid(DAY) as u32;
                if !day.1
                    || !expression.hours.contains(&(minute / 60))
                    || !expression.minutes.contains(&(minute % 60))
                {
                    continue;
                }
                match skipped.contains(&wall) {
                    true => ticks.push(at * 60),
                    false => {
                        ticks.extend(expression.seconds.iter().map(|&s| at * 60 + i64::from(s)))
                    }
                }
            }
            reached = reached.max(shown);
            ticks.retain(|&tick| tick > after);
            ticks.sort_unstable();
            ticks.dedup();
            if ticks.len() >= most {
                break;
            }
        }
        ticks.truncate(most);
        ticks
    }
}

fn offset(zone: &TimeZone, minute: i64) -> i64 {
    i64::from(zone.to_offset(Timestamp::from_second(minute * 60).unwrap()).seconds()) / 60
}

/// The minutes in which the clocks of a zone are set, found by looking at each half day.
fn changes(zone: &TimeZone) -> Vec<i64> {
    let mut found = Vec::new();
    for start in YEARS.step_by(DAY as usize / 2) {
        let (mut low, mut high) = (start, start + DAY / 2);
        if offset(zone, low) != offset(zone, high) {
            while high - low > 1 {
                let middle = (low + high) / 2;
                match offset(zone, middle) == offset(zone, low) {
                    true => low = middle,
                    false => high = middle,
                }
            }
            found.push(high);
        }
    }
    found
}

/// As many ticks as `most` after an instant, forwards and backwards.
fn compare(expression: &Expression, schedule: &Schedule, window: &Window, after: i64, most: usize) {
    let expected = window.ticks(expression, after, most);
    let end = (window.start + window.shown.len() as i64) * 60;
    let mut found = Vec::new();
    let mut at: Micros = after * 1_000_000 + 999_999;
    while found.len() < most {
        match schedule.next_after(at).filter(|&tick| tick < end * 1_000_000) {
            Some(tick) => at = tick,
            None => break,
        }
        found.push(at / 1_000_000);
    }
    let what = format!(
        "`{}` in {} after {:?}",
        expression.text,
        schedule.zone(),
        Timestamp::from_second(after)
    );
    assert_eq!(found, expected, "{what}");
    for pair in expected.windows(2).take(2) {
        for (at, last) in [(pair[1] * 1_000_000, pair[1]), (pair[1] * 1_000_000 - 1, pair[0])] {
            assert_eq!(
                schedule.last_from(0, at),
                Some(last * 1_000_000),
                "{what}, backwards from {at}"
            );
        }
    }
}

/// All pairs of random expressions with one zone: each around `around` changes of its clocks, in turn, and
/// in one month at random.
fn sweep(zone: &str, seed: u64, pairs: usize, around: usize, most: usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let tz = TimeZoneDatabase::bundled().get(zone).unwrap();
    let changes = changes(&tz);
    let windows: Vec<_> =
        changes.iter().map(|at| Window::new(&tz, at - 2 * DAY, 4 * DAY)).collect();
    assert!(windows.len() > 20, "{zone} has {} changes", windows.len());
    let months: Vec<_> = std::iter::repeat_with(|| rng.i64(YEARS))
        .filter(|start| !changes.iter().any(|at| (start - DAY..start + DAY).contains(at)))
        .map(|start| Window::new(&tz, start, 28 * DAY))
        .take(6)
        .collect();
    let mut turn = (0..windows.len()).cycle();
    for _ in 0..pairs {
        let (expression, schedule) = std::iter::repeat_with(|| Expression::random(&mut rng))
            .find_map(|e| Schedule::parse(&e.text, zone).ok().map(|schedule| (e, schedule)))
            .expect("some expressions name a day that exists");
        for at in turn.by_ref().take(around.min(windows.len())) {
            let before = if rng.bool() { rng.i64(0..4 * 60) } else { rng.i64(-DAY..2 * DAY - 1) };
            let after = (changes[at] - before) * 60 - rng.i64(0..60);
            compare(&expression, &schedule, &windows[at], after, most);
        }
        let month = &months[rng.usize(..months.len())];
        compare(&expression, &schedule, month, (month.start + rng.i64(0..20 * DAY)) * 60, 3);
    }
}

fn sweep_all(zones: &[&str], pairs: usize, around: usize, most: usize) {
    for zone in zones {
        sweep(zone, 7, pairs / ZONES.len(), around, most);
    }
}

#[test]
fn ticks_agree_with_a_look_at_every_minute() {
    sweep_all(&ZONES[..6], 3_000, 2, 8);
}

#[test]
fn ticks_agree_with_a_look_at_every_minute_in_odd_zones() {
    sweep_all(&ZONES[6..], 3_000, 2, 8);
}

/// Each pair around every change of its zone, and all ticks there.
#[test]
#[ignore = "soak"]
fn soak_ticks_agree_with_a_look_at_every_minute() {
    sweep_all(&ZONES, 3_000, usize::MAX, 200);
}
