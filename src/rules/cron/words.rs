//! An expression in plain English words. croner has a sentence too, but one that hides some of what was
//! written: `LW` becomes the last day, `0-20/2` all even hours.

use croner::CronPattern;

const DAYS: [&str; 8] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// So many times of the day are listed; more are told by their fields.
const LISTED: usize = 6;

pub(super) fn of(pattern: &CronPattern) -> String {
    let parts = [time(pattern), days(pattern), months(pattern)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// "a", "a and b", "a, b and c".
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn time(pattern: &CronPattern) -> String {
    let (seconds, minutes, hours) =
        (pattern.seconds.values(), pattern.minutes.values(), pattern.hours.values());
    if seconds.len() * minutes.len() * hours.len() <= LISTED {
        let mut times = Vec::new();
        for hour in &hours {
            for minute in &minutes {
                times.extend(seconds.iter().map(|second| match seconds[..] == [0] {
                    true => format!("{hour:02}:{minute:02}"),
                    false => format!("{hour:02}:{minute:02}:{second:02}"),
                }));
            }
        }
        return format!("at {}", list(&times));
    }
    let mut parts = Vec::new();
    if seconds[..] != [0] {
        parts.push(part("second", &seconds, 60));
    }
    if minutes.len() < 60 || parts.is_empty() {
        parts.push(part("minute", &minutes, 60));
    }
    if hours.len() < 24 {
        parts.push(match step(&hours, 24) {
            Some(step) => format!("in every {}", nth(step, "hour")),
            None => format!("in the {}", numbered("hour", &hours)),
        });
    } else if parts == ["at minute 0"] {
        return "every hour".to_owned();
    } else if minutes.len() < 60
        && step(&minutes, 60).is_none_or(|step| !60u16.is_multiple_of(step))
    {
        parts.push("of every hour".to_owned());
    }
    parts.join(" ")
}

/// "every second", "every 15 minutes", "at minutes 10 and 40".
fn part(unit: &str, values: &[u16], of: u16) -> String {
    match step(values, of) {
        Some(1) => format!("every {unit}"),
        Some(step) if of.is_multiple_of(step) => format!("every {step} {unit}s"),
        Some(step) => format!("at every {} from 0", nth(step, unit)),
        None => format!("at {}", numbered(unit, values)),
    }
}

/// The step, if these are all numbers from 0 below `of` in steps.
fn step(values: &[u16], of: u16) -> Option<u16> {
    let &[0, step, ..] = values else { return None };
    (0..of).step_by(step.into()).eq(values.iter().copied()).then_some(step)
}

fn days(pattern: &CronPattern) -> String {
    let fields: Vec<_> = pattern.as_str().split_whitespace().collect();
    let [.., of_month, _, of_week] = fields[..] else { return String::new() };
    let month = match pattern.is_dom_wildcard() {
        true => String::new(),
        false => days_of_month(pattern, of_month),
    };
    let week = match pattern.is_dow_wildcard() {
        true => String::new(),
        false => days_of_week(pattern, of_week.trim_start_matches('+')),
    };
    match (month.is_empty(), week.is_empty()) {
        (true, _) => week,
        (_, true) => format!("on {month}"),
        _ if pattern.matches_dom_and_dow() => format!("on {month} if that is {week}"),
        _ => format!("on {month} or {week}"),
    }
}

fn days_of_month(pattern: &CronPattern, field: &str) -> String {
    let mut parts = Vec::new();
    let plain = pattern.days.values();
    if !plain.is_empty() {
        parts.push(format!("{} of the month", numbered("day", &plain)));
    }
    for item in field.split(',') {
        match item.strip_suffix('W') {
            Some("L") => parts.push("the last weekday of the month".to_owned()),
            Some(day) => parts.push(format!("the weekday nearest to day {day}")),
            None if item == "L" => parts.push("the last day of the month".to_owned()),
            None => {}
        }
    }
    list(&parts)
}

fn days_of_week(pattern: &CronPattern, field: &str) -> String {
    let name = |day: u16| DAYS[usize::from(day) % 8].to_owned();
    // The week begins on Monday, so that a weekend is one run.
    let mut plain = pattern.days_of_week.values();
    plain.iter_mut().filter(|day| **day == 0).for_each(|day| *day = 7);
    plain.sort_unstable();
    let mut parts = runs(&plain, name);
    for item in field.split(',') {
        let day = item.chars().next().and_then(|day| day.to_digit(10)).unwrap_or(0) as u16;
        match item.split_once('#') {
            None if !item.ends_with('L') => {}
            None | Some((_, "L")) => parts.push(format!("the last {} of the month", name(day))),
            Some((_, n)) => {
                let n = n.parse().unwrap_or(0);
                parts.push(format!("the {} of the month", nth(n, &name(day))));
            }
        }
    }
    list(&parts)
}

fn months(pattern: &CronPattern) -> String {
    let months = pattern.months.values();
    if months.len() == MONTHS.len() {
        return String::new();
    }
    let name = |month: u16| MONTHS[usize::from(month - 1) % 12].to_owned();
    format!("in {}", list(&runs(&months, name)))
}

/// "minute 5", "minutes 5, 7 and 10 to 20".
fn numbered(unit: &str, values: &[u16]) -> String {
    let plural = if values.len() == 1 { "" } else { "s" };
    format!("{unit}{plural} {}", list(&runs(values, |value| value.to_string())))
}

/// Three and more in a row as "a to b".
fn runs(values: &[u16], name: impl Fn(u16) -> String) -> Vec<String> {
    let mut said = Vec::new();
    for run in values.chunk_by(|a, b| a + 1 == *b) {
        match run {
            [first, _, .., last] => said.push(format!("{} to {}", name(*first), name(*last))),
            _ => said.extend(run.iter().map(|&value| name(value))),
        }
    }
    said
}

fn nth(n: u16, what: &str) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending} {what}")
}
