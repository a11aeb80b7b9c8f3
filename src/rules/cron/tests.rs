//! Rules of the calendar, by hand.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Micros {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

fn schedule(expression: &str, zone: &str) -> Schedule {
    Schedule::parse(expression, zone).unwrap()
}

/// The ticks after an instant are these, and the same ones come back from the last of them.
#[track_caller]
fn ticks(expression: &str, zone: &str, after: &str, expected: &[&str]) {
    let schedule = schedule(expression, zone);
    let mut ticks = vec![at(after)];
    for tick in expected {
        ticks.push(schedule.next_after(ticks[ticks.len() - 1]).unwrap());
        assert_eq!(*ticks.last().unwrap(), at(tick), "{tick}");
    }
    for pair in ticks[1..].windows(2) {
        assert_eq!(schedule.last_from(0, pair[1] - 1), Some(pair[0]));
        assert_eq!(schedule.last_from(0, pair[1]), Some(pair[1]));
    }
}

#[track_caller]
fn refused(expression: &str, zone: &str, part: &str) {
    let error = Schedule::parse(expression, zone).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_time_in_a_gap_ticks_once_at_its_end() {
    let days = ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"];
    ticks("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00Z", &days);
    let quarters = ["2026-03-28T01:45Z", "2026-03-29T01:00Z", "2026-03-30T00:00Z"];
    ticks("*/15 2 * * *", "Europe/Berlin", "2026-03-28T01:30Z", &quarters);
    let stars = ["2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T01:30Z"];
    ticks("30 * * * *", "Europe/Berlin", "2026-03-29T00:00Z", &stars);
}

#[test]
fn a_time_just_before_a_gap_is_not_moved() {
    let days = ["2026-03-29T00:00Z", "2026-03-29T23:00Z"];
    ticks("0 1 * * *", "Europe/Berlin", "2026-03-28T12:00Z", &days);
}

#[test]
fn a_time_in_an_overlap_ticks_once_the_first_time() {
    let days = ["2026-10-25T00:30Z", "2026-10-26T01:30Z"];
    ticks("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", &days);
    let halves = ["2026-10-25T00:00Z", "2026-10-25T00:30Z", "2026-10-25T02:00Z"];
    ticks("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", &halves);
    ticks("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:10Z", &["2026-10-25T02:00Z"]);
}

#[test]
fn half_an_hour_of_summer_time_is_a_gap_and_an_overlap_too() {
    let gap = ["2026-10-03T15:30Z", "2026-10-04T15:15Z"];
    ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", &gap);
    let overlap = ["2026-04-04T14:45Z", "2026-04-05T15:15Z"];
    ticks("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", &overlap);
}

#[test]
fn a_day_that_is_skipped_ticks_at_its_end() {
    let noons = ["2011-12-29T22:00Z", "2011-12-30T10:00Z", "2011-12-30T22:00Z"];
    ticks("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00Z", &noons);
    ticks("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00Z", &["2011-12-30T10:00Z"]);
}

#[test]
fn a_midnight_that_is_skipped_ticks_at_the_gaps_end() {
    let cairo = ["2026-04-22T22:00Z", "2026-04-23T22:00Z", "2026-04-24T21:00Z"];
    ticks("@daily", "Africa/Cairo", "2026-04-22T12:00Z", &cairo);
    let sao_paulo = ["2018-11-04T03:00Z", "2018-11-05T02:00Z"];
    ticks("@midnight", "America/Sao_Paulo", "2018-11-03T12:00Z", &sao_paulo);
    let back = ["2018-02-18T01:30Z", "2018-02-19T02:30Z"];
    ticks("30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00Z", &back);
}

#[test]
fn a_29_february_is_found_also_on_a_monday() {
    let every = ["2028-02-29T00:00Z", "2032-02-29T00:00Z"];
    ticks("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", &every);
    let mondays = ["2044-02-29T00:00Z", "2072-02-29T00:00Z"];
    ticks("0 0 29 2 +MON", "UTC", "2026-01-01T00:00Z", &mondays);
    ticks("0 0 29 2 *", "UTC", "2096-03-01T00:00Z", &["2104-02-29T00:00Z"]);
}

#[test]
fn of_two_day_fields_either_counts() {
    let days = ["2026-11-01T00:00Z", "2026-11-02T00:00Z", "2026-11-09T00:00Z"];
    ticks("0 0 1 * 1", "UTC", "2026-10-31T00:00Z", &days);
}

#[test]
fn six_fields_begin_with_seconds() {
    let seconds = ["2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"];
    ticks("*/30 * * * * *", "UTC", "2026-01-01T00:00:00.5Z", &seconds);
}

#[test]
fn what_can_never_come_is_refused() {
    for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 2 +1", "0 9 * * L"] {
        refused(never, "UTC", "never comes");
    }
}

#[test]
fn a_bad_expression_is_refused_with_the_field_that_is_bad() {
    refused("60 * * * *", "UTC", "minute cannot be `60`");
    refused("* * * 13 *", "UTC", "month cannot be `13`");
    refused("* * * * 8", "UTC", "day of the week cannot be `8`");
    refused("61 * * * * *", "UTC", "second cannot be `61`");
    refused("5/10 * * * *", "UTC", "minute cannot be `5/10`");
    refused("1,,2 * * * *", "UTC", "empty");
    refused("* * * * MONTUE", "UTC", "`MONTUE` means nothing");
    refused("JAN * * * *", "UTC", "`JAN` means nothing");
    refused("* * * *", "UTC", "has 4 fields");
    refused("* * * * * * 2030", "UTC", "has 7 fields");
    refused("", "UTC", "has 0 fields");
    refused("@never", "UTC", "@weekly");
    refused("@daily", "Europe/Berln", "no `Europe/Berln`");
    refused("@every 0s", "UTC", "at least one second");
    refused("@every", "UTC", "at least one second");
    refused("@every 5", "UTC", "lacks its unit");
    refused("@every m", "UTC", "whole numbers");
    refused("@every 1.5h", "UTC", "whole numbers");
    refused("@every 99999999999999999999d", "UTC", "too large");
    refused("@every 36526d", "UTC", "100 years");
}

#[test]
fn an_interval_counts_from_its_anchor() {
    let every = schedule("@every 1h30m", "Europe/Berlin");
    assert_eq!(every.interval(), Some(Duration::from_secs(5_400)));
    let anchor = at("2026-03-29T00:10Z");
    let next = |after| every.next_from(anchor, at(after)).unwrap();
    assert_eq!(next("2026-03-29T00:10Z"), at("2026-03-29T01:40Z"));
    assert_eq!(next("2026-03-29T01:39:59Z"), at("2026-03-29T01:40Z"));
    assert_eq!(next("2026-03-29T01:40Z"), at("2026-03-29T03:10Z"));
    assert_eq!(next("2026-03-28T22:00Z"), at("2026-03-28T22:40Z"), "before the anchor too");
    assert_eq!(every.last_from(anchor, at("2026-03-29T03:09Z")), Some(at("2026-03-29T01:40Z")));
    assert_eq!(schedule("@every 7m", "UTC").next_after(0), Some(420_000_000));
    assert_eq!(every.next_from(i64::MIN, i64::MAX), None);
    assert_eq!(every.next_after(LAST), None);
}

#[test]
fn names_are_as_given_and_zones_as_they_are_spelt() {
    let daily = schedule(" @Daily ", "europe/BERLIN");
    assert_eq!((daily.expression(), daily.zone()), ("@Daily", "Europe/Berlin"));
    assert_eq!(schedule("@daily", "utc").zone(), "UTC");
}

#[test]
fn expressions_are_told_in_words() {
    for (expression, words) in [
        ("0 7 * * 1-5", "at 07:00, Monday to Friday"),
        ("0 9,17 * * *", "at 09:00 and 17:00"),
        ("30 6 9 * * 1,3,5", "at 09:06:30, Monday, Wednesday and Friday"),
        ("* * * * *", "every minute"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/7 * * * *", "at every 7th minute from 0 of every hour"),
        ("@hourly", "every hour"),
        ("30 * * * *", "at minute 30 of every hour"),
        ("*/15 8-18 * * *", "every 15 minutes in the hours 8 to 18"),
        ("0 */2 * * *", "at minute 0 in every 2nd hour"),
        ("23 0-20/4 * * *", "at 00:23, 04:23, 08:23, 12:23, 16:23 and 20:23"),
        ("@yearly", "at 00:00, on day 1 of the month, in January"),
        ("0 0 1,15 6-8 *", "at 00:00, on days 1 and 15 of the month, in June to August"),
        ("0 9 * * 5-7", "at 09:00, Friday to Sunday"),
        ("0 9 * * 0,6", "at 09:00, Saturday and Sunday"),
        ("0 9 1 * MON", "at 09:00, on day 1 of the month or Monday"),
        ("0 0 29 2 +MON", "at 00:00, on day 29 of the month if that is Monday, in February"),
        ("0 0 L * *", "at 00:00, on the last day of the month"),
        ("0 0 LW * *", "at 00:00, on the last weekday of the month"),
        ("0 0 15W * *", "at 00:00, on the weekday nearest to day 15"),
        ("0 9 * * MON#1", "at 09:00, the 1st Monday of the month"),
        ("0 9 * * FRIL", "at 09:00, the last Friday of the month"),
        ("@every 7m", "every 7 minutes"),
        ("@every 1h", "every hour"),
        ("@every 90m", "every 1 hour and 30 minutes"),
    ] {
        assert_eq!(schedule(expression, "UTC").words(), words, "{expression}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,40}", zone in "[a-zA-Z/_]{0,12}") {
        let _ = Schedule::parse(&text, "UTC");
        let _ = Schedule::parse("@daily", &zone);
    }

    #[test]
    fn no_text_like_an_expression_makes_the_parser_panic(
        fields in proptest::collection::vec("[0-9LW#*/,?+-]{1,5}|MON|@|@every|[0-9]{1,25}[smhd]", 1..7),
        after: i64,
    ) {
        if let Ok(schedule) = Schedule::parse(&fields.join(" "), "Africa/Cairo") {
            let _ = (schedule.next_after(after), schedule.last_from(after, 0), schedule.words());
        }
    }

    #[test]
    fn ticks_only_go_forward(
        minute in "[0-9]|[1-5][0-9]|\\*|\\*/[1-9]", hour in "[0-9]|\\*|[0-2]-[3-9]", start in -3_000_000_000i64..9_000_000_000,
    ) {
        let schedule = schedule(&format!("{minute} {hour} * * *"), "America/Havana");
        let mut last = start * 1_000_000 + 7;
        for _ in 0..5 {
            let tick = schedule.next_after(last).unwrap();
            prop_assert!(tick > last);
            prop_assert_eq!(schedule.last_from(0, tick), Some(tick));
            last = tick;
        }
    }
}
