//! Times and spans: as they are typed, and as they are shown.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::rules::amount;

/// `5m`, `1h 30m`, `2days`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a time span such as 30s, 5m or 2h"))
}

/// A time in RFC 3339, such as `2026-05-01T08:00:00Z`.
pub(super) fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        "not a time; write it with its zone, such as 2026-05-01T08:00:00Z or …+02:00".to_owned()
    })
}

/// A time, or a span before `now`.
pub(super) fn past(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    if let Ok(at) = instant(text) {
        return Ok(at);
    }
    let span = humantime::parse_duration(text).map_err(|_| {
        "write a span such as 1h, or a time such as 2026-05-01T08:00:00Z".to_owned()
    })?;
    now.checked_sub(span.try_into().unwrap_or(time::Duration::MAX))
        .ok_or_else(|| "it lies before the first time there is".to_owned())
}

/// RFC 3339 in UTC, for programs.
pub(super) fn exact(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// `3m ago`, `in 2h`, for people.
pub(super) fn relative(at: OffsetDateTime, now: OffsetDateTime) -> String {
    match Duration::try_from(now - at) {
        Ok(past) if past < Duration::from_secs(1) => "now".to_owned(),
        Ok(past) => format!("{} ago", amount::span(past)),
        Err(_) => format!("in {}", amount::span((at - now).unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn times_are_relative_for_people_and_exact_in_utc_for_programs() {
        let now = datetime!(2026-05-01 12:00 UTC);
        assert_eq!(relative(datetime!(2026-05-01 11:57 UTC), now), "3m ago");
        assert_eq!(relative(datetime!(2026-05-01 14:00:01 UTC), now), "in 2h");
        assert_eq!(relative(now, now), "now");
        assert_eq!(exact(datetime!(2026-05-01 12:00 +2)), "2026-05-01T10:00:00Z");
        assert_eq!(past("1h", now), Ok(datetime!(2026-05-01 11:00 UTC)));
        assert_eq!(past("2026-04-30T00:00:00Z", now), Ok(datetime!(2026-04-30 0:00 UTC)));
        assert!(past("yesterday", now).is_err());
    }
}
