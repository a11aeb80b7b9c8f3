//! How much room a limit has, from what runs and what has started.

use crate::clock::Micros;
use crate::limit::Rate;

/// How many jobs with some terms may start now, and when one more may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) starts: u32,
    /// [`Micros::MAX`]: not by the time alone.
    pub(crate) next: Micros,
}

/// What has started by a rate: its weight, and the time as which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) at: Micros,
    pub(crate) weight: u32,
}

/// A start that comes later than it could is made up for by at most so much: a quarter of a space, or 0.1 s;
/// with spaces so short that no alarm can keep them, 20 ms, or a fiftieth of the time.
fn slack(rate: &Rate) -> Micros {
    let by_space = (space(rate) / 4).min(100_000);
    let by_time = (rate.per / 50).min(20_000);
    by_space.max(by_time)
}

/// The time between two starts that are evenly spaced and count as one.
pub(crate) fn unit(rate: &Rate) -> Micros {
    (rate.per / i64::from(rate.most.max(1))).max(1)
}

/// The time that one start takes up.
fn space(rate: &Rate) -> Micros {
    let space = i128::from(rate.per) * i128::from(rate.weight) / i128::from(rate.most.max(1));
    Micros::try_from(space.max(1)).unwrap_or(Micros::MAX)
}

/// A key that is evenly spaced, by one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paced {
    /// Its last start.
    pub(crate) since: Micros,
    /// When it is free again.
    pub(crate) free_at: Micros,
}

/// A clock that goes back by less is waited for.
pub(crate) const STEP: Micros = 1_000_000;

/// The room of a rate that is evenly spaced.
pub(crate) fn paced(rate: &Rate, last: Option<Paced>, now: Micros) -> Room {
    let base = base(rate, last, now);
    if base > now {
        return Room { starts: 0, next: base };
    }
    let starts = (now - base) / space(rate) + 1;
    let starts = u32::try_from(starts).unwrap_or(u32::MAX);
    Room { starts, next: base.saturating_add(space(rate).saturating_mul(i64::from(starts))) }
}

fn base(rate: &Rate, last: Option<Paced>, now: Micros) -> Micros {
    let earliest = now.saturating_sub(slack(rate));
    // A start that lies far ahead was made by a clock that was, and counts for nothing.
    let latest = now.saturating_add(rate.per.max(STEP));
    let free_at = last.filter(|last| last.since <= latest).map(|last| last.free_at);
    free_at.map_or(earliest, |at| at.max(earliest))
}

/// When the key is free again after a start now.
pub(crate) fn paced_after(rate: &Rate, last: Option<Paced>, now: Micros) -> Micros {
    base(rate, last, now).saturating_add(space(rate))
}

/// The time as which a start in a burst counts: the end of the hundredth of the time after its own.
/// By hundredths, so that a key never has more than so many to count; and one later, since a job
/// begins a little after it was started, and those of the next burst perhaps less so.
pub(crate) fn counts_as(rate: &Rate, now: Micros) -> Micros {
    let grain = (rate.per / 100).max(1);
    (now / grain + 2).saturating_mul(grain)
}

/// The room of a rate that may come in a burst. `spent`: what counts less than `per` ago, in order.
pub(crate) fn windowed(rate: &Rate, spent: &[Spent], now: Micros) -> Room {
    // What counts later than that was started by a clock that was ahead.
    let latest = counts_as(rate, now).saturating_add(rate.per);
    let counted = spent.iter().filter(|spent| spent.at <= latest);
    let used: u64 = counted.clone().map(|spent| u64::from(spent.weight)).sum();
    let (most, weight) = (u64::from(rate.most), u64::from(rate.weight.max(1)));
    let starts = most.saturating_sub(used) / weight;
    // One more than these.
    let wanted = (starts + 1) * weight;
    let mut freed = 0;
    let next = counted
        .clone()
        .find(|spent| {
            freed += u64::from(spent.weight);
            used - freed + wanted <= most
        })
        .map_or(Micros::MAX, |spent| spent.at.saturating_add(rate.per));
    Room { starts: u32::try_from(starts).unwrap_or(u32::MAX), next }
}

/// The pause between two instances that look whether one more may start.
const TURN: Micros = 4_000;
/// The instances that have turns of their own.
const TURNS: usize = 4;

/// How much later than others an instance looks whether one more may start at this time, so that not
/// all of them come at once, to find that one was the first: in an order that is another one each time.
pub(crate) fn turn(own: &[i64], others: impl Iterator<Item = i64>, at: Micros) -> Micros {
    let place = |id: i64| {
        let mixed = (id ^ at.rotate_left(32)).cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    };
    let Some(mine) = own.iter().map(|&id| place(id)).min() else { return 0 };
    let before = others.filter(|&id| place(id) < mine).take(TURNS).count();
    TURN * i64::try_from(before).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_look_in_turn_and_each_is_the_first_as_often_as_others() {
        let all = [3, 4, 7, 8];
        let mut first = [0; 4];
        for tick in 0..1_000 {
            let turn = |own: i64| {
                let others = all.into_iter().filter(|&id| id != own);
                turn(&[own], others, 1_764_000_000_000_000 + tick * 100_321)
            };
            let mut turns = all.map(turn);
            first[turns.iter().position(|&turn| turn == 0).unwrap()] += 1;
            turns.sort_unstable();
            assert_eq!(turns, [0, TURN, 2 * TURN, 3 * TURN]);
        }
        assert!(first.iter().all(|&first| (200..300).contains(&first)), "{first:?}");
        assert_eq!(turn(&[5], [].into_iter(), 7), 0);
    }

    const SECOND: Micros = 1_000_000;

    fn rate(most: u32, weight: u32, burst: bool) -> Rate {
        Rate { most, per: SECOND, burst, weight }
    }

    /// Starts whatever may, at each of these times.
    fn starts(rate: &Rate, times: impl Iterator<Item = Micros>) -> Vec<Micros> {
        let (mut last, mut spent, mut starts) = (None, Vec::<Spent>::new(), Vec::new());
        for now in times {
            loop {
                spent.retain(|spent| spent.at > now - rate.per);
                let room =
                    if rate.burst { windowed(rate, &spent, now) } else { paced(rate, last, now) };
                assert!(room.next > now, "{room:?} at {now}");
                if room.starts == 0 {
                    break;
                }
                last = Some(Paced { since: now, free_at: paced_after(rate, last, now) });
                let at = counts_as(rate, now);
                match spent.last_mut().filter(|last| last.at == at) {
                    Some(last) => last.weight += rate.weight,
                    None => spent.push(Spent { at, weight: rate.weight }),
                }
                starts.push(now);
            }
        }
        starts
    }

    fn most_in_a_window(starts: &[Micros]) -> usize {
        let in_window =
            |from: &Micros| starts.iter().filter(|at| (*from..from + SECOND).contains(at)).count();
        starts.iter().map(in_window).max().unwrap_or(0)
    }

    /// Moments some milliseconds apart, unevenly.
    fn uneven(until: Micros) -> impl Iterator<Item = Micros> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut now = 0;
        std::iter::from_fn(move || {
            now += random.i64(1..12_000);
            (now < until).then_some(now)
        })
    }

    #[test]
    fn no_window_holds_more_than_a_burst_and_little_goes_unused() {
        let found = starts(&rate(10, 1, true), uneven(60 * SECOND));
        assert!(most_in_a_window(&found) <= 10);
        assert!(found.len() >= 570, "{}", found.len());
        assert!(found[9] < 12_000, "all of it may start together");
    }

    /// What a witness sees who stands where the jobs begin: those of one commit are late together.
    #[test]
    fn no_window_holds_more_than_a_burst_as_it_is_seen_up_to_a_hundredth_later() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut seen = starts(&rate(10, 1, true), uneven(600 * SECOND));
        for together in seen.chunk_by_mut(|a, b| a == b) {
            let late = random.i64(0..SECOND / 100);
            together.iter_mut().for_each(|at| *at += late);
        }
        assert!(most_in_a_window(&seen) <= 10);
    }

    #[test]
    fn a_pace_is_even_and_made_up_for_and_no_window_holds_more_than_one_start_too_many() {
        let found = starts(&rate(10, 1, false), uneven(60 * SECOND));
        assert!(most_in_a_window(&found) <= 11);
        assert!((595..=601).contains(&found.len()), "{}", found.len());
        assert!(found.windows(2).all(|two| two[1] - two[0] >= 50_000));
    }

    #[test]
    fn a_pace_that_no_alarm_can_keep_is_kept_in_small_batches() {
        let found = starts(&rate(2_000, 1, false), uneven(10 * SECOND));
        assert!(most_in_a_window(&found) <= 2_041, "{}", most_in_a_window(&found));
        assert!(found.len() >= 19_900, "{}", found.len());
    }

    #[test]
    fn weights_count() {
        assert_eq!(starts(&rate(10, 5, true), [1, 2, 3].into_iter()).len(), 2);
        let found = starts(&rate(10, 5, false), uneven(60 * SECOND));
        assert!((118..=121).contains(&found.len()), "{}", found.len());
    }

    #[test]
    fn what_may_not_start_now_may_at_the_time_that_is_named() {
        let burst = rate(3, 2, true);
        let spent = [Spent { at: 10_000, weight: 1 }, Spent { at: 20_000, weight: 2 }];
        let room = windowed(&burst, &spent, 500_000);
        assert_eq!(room, Room { starts: 0, next: 1_020_000 });
        assert_eq!(windowed(&burst, &spent[1..], 1_015_000).starts, 0);
        assert_eq!(windowed(&burst, &[], 1_020_000).starts, 1);

        let pace = rate(10, 1, false);
        let last = Some(Paced { since: 0, free_at: paced_after(&pace, None, 0) });
        let room = paced(&pace, last, 10_000);
        assert_eq!((room.starts, paced(&pace, last, room.next).starts), (0, 1));
    }

    #[test]
    fn a_clock_that_leaps_back_stops_nobody_for_long() {
        let pace = rate(10, 1, false);
        let last = |since| Some(Paced { since, free_at: since + SECOND / 10 });
        assert_eq!(paced(&pace, last(1_000 * SECOND), 0).starts, 1);
        let room = paced(&pace, last(SECOND), SECOND / 2);
        assert_eq!(
            (room.starts, room.next),
            (0, SECOND + SECOND / 10),
            "a small step is waited for"
        );
        let burst = |at| windowed(&rate(10, 1, true), &[Spent { at, weight: 10 }], 0);
        assert_eq!(burst(1_000 * SECOND).starts, 10);
        assert_eq!((burst(SECOND / 2).starts, burst(SECOND / 2).next), (0, SECOND + SECOND / 2));
    }
}
