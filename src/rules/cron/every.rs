//! `@every 1h30m`: true intervals, counted from an anchor and not from the wall clock.

use std::time::Duration;

use crate::clock::Micros;

/// A hundred years: what is longer is a slip of the keyboard.
const LONGEST: u64 = 36_525 * 86_400;
const UNITS: [(char, u64, &str); 4] =
    [('d', 86_400, "day"), ('h', 3_600, "hour"), ('m', 60, "minute"), ('s', 1, "second")];

/// What stands behind `@every`, if that is what the expression says.
pub(super) fn strip(expression: &str) -> Option<&str> {
    let (word, rest) = expression.split_once(char::is_whitespace).unwrap_or((expression, ""));
    word.eq_ignore_ascii_case("@every").then_some(rest)
}

pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("`@every {}`: {why}", text.trim());
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            let longer =
                number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit.into()));
            number = Some(longer.ok_or_else(|| wrong("the number is too large"))?);
        } else if letter.is_whitespace() {
            continue;
        } else {
            let unit = UNITS.iter().find(|unit| unit.0 == letter.to_ascii_lowercase());
            let (Some(&(_, length, _)), Some(count)) = (unit, number.take()) else {
                return Err(wrong(
                    "write whole numbers with the units d, h, m or s, as in `@every 1h30m`",
                ));
            };
            let more = count.checked_mul(length).and_then(|more| seconds.checked_add(more));
            seconds = more.ok_or_else(|| wrong("the number is too large"))?;
        }
    }
    match seconds {
        _ if number.is_some() => Err(wrong("a number lacks its unit: d, h, m or s")),
        0 => Err(wrong("an interval is at least one second, as in `@every 7m`")),
        _ if seconds > LONGEST => Err(wrong("an interval is at most 100 years (36525d)")),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

/// The first `anchor` + n · `interval` after `after`.
pub(super) fn next(interval: Micros, anchor: Micros, after: Micros) -> Option<Micros> {
    after.checked_sub(after.checked_sub(anchor)?.rem_euclid(interval))?.checked_add(interval)
}

/// The last `anchor` + n · `interval` that is not after `at`.
pub(super) fn last(interval: Micros, anchor: Micros, at: Micros) -> Option<Micros> {
    at.checked_sub(at.checked_sub(anchor)?.rem_euclid(interval))
}

/// "every 7 minutes", "every hour and 30 minutes".
pub(super) fn words(interval: Duration) -> String {
    let mut rest = interval.as_secs();
    let mut parts = Vec::new();
    for (_, length, name) in UNITS {
        match rest / length {
            0 => {}
            1 => parts.push(format!("1 {name}")),
            count => parts.push(format!("{count} {name}s")),
        }
        rest %= length;
    }
    let said = super::words::list(&parts);
    format!("every {}", if parts.len() == 1 { said.trim_start_matches("1 ") } else { &said })
}
