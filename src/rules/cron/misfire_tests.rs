//! Entries on a simulated clock.

use std::collections::BTreeSet;

use super::*;

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const YEAR: Micros = 365 * DAY;
/// 2026-01-01T00:00:30Z.
const START: Micros = 1_767_225_630 * SECOND;
const ALL: Missed = Missed::All { at_most: 1_000 };

/// An entry, and an engine that sleeps until the next tick or for half a minute, as it does while
/// an alarm is set.
struct Entry {
    schedule: Schedule,
    missed: Missed,
    settled: Settled,
    now: Micros,
    /// What was due, in this order; the store has not looked at it.
    due: Vec<Micros>,
    left_out: u64,
}

impl Entry {
    fn new(expression: &str, missed: Missed) -> Entry {
        let schedule = Schedule::parse(expression, "UTC").unwrap();
        let settled = Settled::new(START);
        Entry { schedule, missed, settled, now: START, due: Vec::new(), left_out: 0 }
    }

    /// Asks at what the clock shows now. How many are due.
    fn look(&mut self) -> usize {
        let due = due(&self.schedule, self.missed, self.settled, self.now, START);
        assert!(due.ticks.is_sorted() && due.ticks.iter().all(|&tick| tick <= self.now));
        assert!(due.next.is_none_or(|next| next > self.now && next > due.settled.until));
        self.settled = due.settled;
        self.left_out += due.missed;
        self.due.extend(&due.ticks);
        due.ticks.len()
    }

    /// Works for a while.
    fn work(&mut self, span: Micros) {
        let end = self.now + span;
        loop {
            self.look();
            let next =
                due(&self.schedule, self.missed, self.settled, self.now, START).next.unwrap();
            if self.now == end {
                return;
            }
            // A tick is served a little late, and a far one is seen by the way.
            self.now = (next + 20_000).min(self.now + 6 * HOUR).min(end);
        }
    }

    /// The clock moves and nobody looks.
    fn jump(&mut self, by: Micros) {
        self.now += by;
    }

    /// All ticks between two times.
    fn ticks(&self, from: Micros, to: Micros) -> Vec<Micros> {
        let ticks = std::iter::successors(self.schedule.next_from(START, from), |&tick| {
            self.schedule.next_from(START, tick)
        });
        ticks.take_while(|&tick| tick <= to).collect()
    }

    /// What the store makes of what was due: each tick once.
    fn fired(&self) -> BTreeSet<Micros> {
        self.due.iter().copied().collect()
    }
}

const EXPRESSIONS: [&str; 5] =
    ["@every 7m", "@every 13h", "30 * * * *", "0 7 * * 1-5", "0 0 1 * *"];

#[test]
fn weeks_of_work_fire_each_tick_once() {
    for expression in EXPRESSIONS {
        for missed in [Missed::Skip, Missed::Once, ALL] {
            let mut entry = Entry::new(expression, missed);
            entry.work(40 * DAY);
            assert_eq!(entry.due, entry.ticks(START, entry.now), "{expression} {missed:?}");
            assert_eq!((entry.left_out, entry.settled.leap), (0, None));
        }
    }
}

#[test]
fn after_a_sleep_the_policy_decides() {
    let slept = |missed| {
        let mut entry = Entry::new("30 * * * *", missed);
        entry.work(DAY);
        entry.due.clear();
        entry.jump(3 * DAY);
        let all = entry.ticks(START + DAY, entry.now);
        entry.look();
        assert_eq!(entry.due.len() as u64 + entry.left_out, 72, "{missed:?}");
        assert_eq!(entry.look(), 0, "nothing twice");
        (entry.due, all)
    };
    assert!(slept(Missed::Skip).0.is_empty());
    let (due, all) = slept(Missed::Once);
    assert_eq!(due, all[71..]);
    let (due, all) = slept(ALL);
    assert_eq!(due, all);
    let (due, all) = slept(Missed::All { at_most: 5 });
    assert_eq!(due, all[67..]);
    assert!(slept(Missed::All { at_most: 0 }).0.is_empty());
}

#[test]
fn a_tick_on_time_makes_up_for_those_that_were_missed() {
    let woken = |missed| {
        let mut entry = Entry::new("* * * * *", missed);
        entry.jump(HOUR);
        entry.look();
        (entry.due.len(), entry.due.last().copied(), entry.left_out)
    };
    let on_time = Some(START + HOUR - 30 * SECOND);
    assert_eq!(woken(Missed::Skip), (1, on_time, 59));
    assert_eq!(woken(Missed::Once), (1, on_time, 59));
    assert_eq!(woken(Missed::All { at_most: 9 }), (10, on_time, 50));
    assert_eq!(woken(ALL), (60, on_time, 0));
}

#[test]
fn late_by_less_than_a_minute_is_on_time() {
    for (late, fires) in [(0, 1), (MINUTE - 1, 1), (MINUTE, 0)] {
        let mut entry = Entry::new("30 * * * *", Missed::Skip);
        entry.now = START + 29 * MINUTE + 30 * SECOND + late;
        assert_eq!((entry.look(), entry.left_out), (fires, 1 - fires as u64), "{late}");
    }
}

#[test]
fn jumps_of_an_hour_lose_and_double_nothing() {
    for expression in EXPRESSIONS {
        for missed in [Missed::Skip, Missed::Once, ALL] {
            let mut entry = Entry::new(expression, missed);
            for by in [HOUR, -HOUR, -HOUR, HOUR, 10 * MINUTE, -20 * MINUTE, -23 * HOUR, 23 * HOUR] {
                entry.work(2 * DAY + 17 * MINUTE);
                entry.jump(by);
            }
            entry.work(40 * DAY);
            let all = entry.ticks(START, entry.now);
            let fired: Vec<_> = entry.fired().into_iter().collect();
            match missed {
                ALL => assert_eq!(fired, all, "{expression}: each once"),
                _ => assert!(fired.len() as u64 + entry.left_out >= all.len() as u64),
            }
        }
    }
}

/// Ten years ahead for some hours, then back to the true time.
fn ten_years_and_back(expression: &str, missed: Missed) -> (Entry, Micros) {
    let mut entry = Entry::new(expression, missed);
    entry.work(10 * DAY);
    entry.jump(10 * YEAR);
    entry.work(5 * HOUR);
    entry.jump(-10 * YEAR);
    let back = entry.now;
    entry.due.clear();
    entry.work(20 * DAY);
    (entry, back)
}

#[test]
fn a_clock_ten_years_ahead_and_back_silences_nothing() {
    for expression in EXPRESSIONS {
        for missed in [Missed::Skip, Missed::Once, ALL] {
            let (entry, back) = ten_years_and_back(expression, missed);
            let after = entry.ticks(back, entry.now);
            let what = format!("{expression} {missed:?}");
            assert!(after.iter().all(|tick| entry.due.contains(tick)), "{what}: it ticks on");
            let between = entry.ticks(START + 10 * DAY, back);
            let made_up = entry.due.iter().filter(|&&tick| tick <= back).count();
            match missed {
                Missed::Skip => assert!(entry.due.iter().all(|&at| at > back - GRACE), "{what}"),
                Missed::Once => assert_eq!(made_up, between.len().min(1), "{what}"),
                ALL => assert_eq!(entry.due[..made_up], between, "{what}"),
                Missed::All { .. } => unreachable!(),
            }
        }
    }
}

#[test]
fn a_sleep_of_long_ago_is_not_taken_for_a_wrong_clock() {
    let mut entry = Entry::new("30 * * * *", ALL);
    entry.jump(9 * DAY);
    entry.work(30 * DAY);
    entry.due.clear();
    entry.jump(-5 * DAY);
    assert_eq!(entry.look(), 0, "what is five days old was fired then");
    let back = entry.now;
    entry.work(DAY);
    assert_eq!(entry.due, entry.ticks(back, entry.now), "and it ticks on");
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_silences_nothing() {
    for missed in [Missed::Skip, Missed::Once, ALL] {
        let mut entry = Entry::new("30 * * * *", missed);
        entry.work(3 * DAY);
        entry.jump(20 * HOUR);
        entry.look();
        entry.jump(-20 * HOUR);
        let back = entry.now;
        entry.due.clear();
        entry.work(19 * HOUR);
        assert_eq!(entry.due, entry.ticks(back, entry.now), "{missed:?}");
    }
}

#[test]
fn a_clock_back_by_less_than_a_minute_is_waited_for() {
    let mut entry = Entry::new("30 * * * *", ALL);
    entry.work(3 * DAY + 30 * MINUTE);
    let (seen, due) = (entry.settled, entry.due.len());
    entry.jump(-(MINUTE - 1));
    assert_eq!((entry.look(), entry.settled), (0, seen));
    entry.work(HOUR + MINUTE);
    assert_eq!(entry.due.len(), due + 1);
}

#[test]
fn ten_years_of_seconds_are_not_counted_one_by_one() {
    for expression in ["* * * * * *", "@every 1s", "* * * 1 1 *"] {
        let mut entry = Entry::new(expression, Missed::All { at_most: 7 });
        entry.jump(10 * YEAR);
        let fired = entry.look();
        assert!((7..=67).contains(&fired), "{expression}: {fired}");
        assert_eq!(entry.left_out, COUNTED);
    }
    let mut entry = Entry::new("@every 1s", Missed::All { at_most: u32::MAX });
    entry.jump(10 * YEAR);
    assert_eq!(entry.look(), MOST as usize + 60);
}

#[test]
fn whatever_the_clock_does_the_entry_ticks_again_soon() {
    let mut rng = fastrand::Rng::with_seed(11);
    for round in 0..150 {
        let expression = EXPRESSIONS[rng.usize(..EXPRESSIONS.len())];
        let missed = [Missed::Skip, Missed::Once, ALL][rng.usize(..3)];
        let mut entry = Entry::new(expression, missed);
        for _ in 0..6 {
            let reach = [MINUTE, HOUR, DAY, 3 * DAY, YEAR, 10 * YEAR][rng.usize(..6)];
            entry.jump(rng.i64(-reach..reach).max(START - entry.now - YEAR));
            entry.work(rng.i64(0..2 * DAY));
        }
        // At most a minute until the clock is where it was, then at most a period until the next tick.
        let next = due(&entry.schedule, missed, entry.settled, entry.now, START).next.unwrap();
        let regular = entry.schedule.next_from(START, entry.now + MINUTE).unwrap();
        assert!(next <= regular, "round {round}: {expression} {missed:?}");
    }
}

#[test]
fn extremes_of_the_clock_do_no_harm() {
    for schedule in ["@every 7m", "0 0 29 2 *"].map(|e| Schedule::parse(e, "Asia/Tehran").unwrap())
    {
        for now in [i64::MIN, -1, 0, i64::MAX] {
            for until in [i64::MIN, 0, i64::MAX] {
                for missed in [Missed::Skip, Missed::Once, ALL] {
                    due(&schedule, missed, Settled::new(until), now, until);
                }
            }
        }
    }
}

#[test]
fn policies_are_stored_as_words() {
    let json = |missed: Missed| serde_json::to_string(&missed).unwrap();
    assert_eq!(json(Missed::Once), r#""once""#);
    assert_eq!(json(Missed::All { at_most: 3 }), r#"{"all":{"at_most":3}}"#);
    assert_eq!(serde_json::to_string(&Overlap::Skip).unwrap(), r#""skip""#);
}
