//! Amounts as people read them.

use std::time::Duration;

/// A span in its two largest units: `3d 4h`, `12s`, `400ms`.
pub(crate) fn span(span: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(365 * 86_400, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = span.as_secs();
    let Some(first) = UNITS.iter().position(|(unit, _)| left >= *unit) else {
        return format!("{}ms", span.as_millis());
    };
    let mut parts = Vec::new();
    for (unit, name) in &UNITS[first..UNITS.len().min(first + 2)] {
        if left >= *unit {
            parts.push(format!("{}{name}", left / unit));
        }
        left %= unit;
    }
    parts.join(" ")
}

/// A span that somebody has set: like [`span`], and nothing of fractions is left out.
pub(crate) fn set_span(set: Duration) -> String {
    if set.subsec_nanos() == 0 { span(set) } else { format!("{set:?}") }
}

/// A size in the largest unit of 1,024 that it has one of.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1 << 30, "GiB"), (1 << 20, "MiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{} KiB", bytes.div_ceil(1024)),
    }
}

/// `1 job`, `3 jobs`.
pub(crate) fn jobs(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most_and_those_side_by_side() {
        let told =
            [0, 1, 61, 90 * 60, 7_201, 86_405, 400 * 86_400].map(Duration::from_secs).map(span);
        assert_eq!(told, ["0ms", "1s", "1m 1s", "1h 30m", "2h", "1d", "1y 35d"]);
        assert_eq!(span(Duration::from_millis(999)), "999ms");
        assert_eq!(
            [1_500, 250, 90_000].map(Duration::from_millis).map(set_span),
            ["1.5s", "250ms", "1m 30s"]
        );
    }

    #[test]
    fn sizes_are_rounded_and_nothing_but_nothing_is_nothing() {
        let told = [0, 1, 1024, 1536 << 10, 3 << 29].map(size);
        assert_eq!(told, ["0 KiB", "1 KiB", "1 KiB", "1.5 MiB", "1.5 GiB"]);
    }
}
