//! What an examination makes of what it sees: from which size, age or mode on something is worth a
//! finding, and how bad it is.

use std::time::Duration;

use crate::clock::Micros;
use crate::finding::Finding;
use crate::rules::amount::{self, jobs, size};
use crate::rules::trust::Trust;

const MIB: u64 = 1 << 20;
const SECOND: Micros = 1_000_000;
const HOUR: Micros = 3_600 * SECOND;

/// A WAL that is larger is emptied by the writers, unless somebody keeps an old snapshot open.
const WAL_BOUND: u64 = 64 * MIB;
/// So much stays in it that is not written back only if somebody reads it.
const WAL_USUAL: u64 = 16 * MIB;

/// The WAL's size, and how much of it has still to be written back, if that can be told.
pub(crate) fn wal(bytes: u64, unwritten: Option<u64>) -> Option<Finding> {
    if bytes <= WAL_BOUND {
        return None;
    }
    let says = format!("the -wal has {}", size(bytes));
    match unwritten {
        Some(unwritten) if unwritten > WAL_USUAL => Some(
            Finding::warning(
                "wal_large",
                format!("{says}, of which {} are not written back", size(unwritten)),
            )
            .advice(
                "a reader that keeps an old snapshot open pins it: end that; if nobody has the file \
                 open, the next one that opens it writes it back",
            ),
        ),
        Some(_) => Some(
            Finding::warning("wal_large", format!("{says}, nearly all written back"))
                .advice("it is cut back by the next commit that nobody's reading keeps from it"),
        ),
        None => Some(
            Finding::warning("wal_large", says)
                .advice("if it stays so large, a reader keeps an old snapshot open: end that"),
        ),
    }
}

/// The space that is left on the file system for a file of this size.
pub(crate) fn space(free: u64, file: u64) -> Finding {
    let says = format!("{} are free on its disk", size(free));
    let advice = "free some space: what cannot be recorded is held, and runs again after a restart";
    if free < 32 * MIB {
        Finding::problem("disk_space", says).advice(advice)
    } else if free < 256 * MIB {
        Finding::warning("disk_space", says).advice(advice)
    } else if free < file.saturating_mul(2) {
        Finding::note("disk_space", format!("{says}, the file has {}", size(file)))
            .advice("a backup beside it, or `legwork vacuum --full`, may not find room")
    } else {
        Finding::ok("disk_space", says)
    }
}

/// The permissions of a file or directory, and what people call it.
pub(crate) fn access(what: &str, mode: u32) -> Option<Finding> {
    let advice = format!("take the rights of others away: chmod go= {what}");
    let found = |finding: Finding| Some(finding.of(what).advice(advice));
    match mode & 0o777 {
        mode if mode & 0o022 != 0 => found(Finding::problem(
            "permissions",
            format!("{what} can be written by others ({mode:03o}): they can enqueue any job"),
        )),
        mode if mode & 0o044 != 0 => found(Finding::warning(
            "permissions",
            format!("{what} can be read by others ({mode:03o}), with all arguments of jobs"),
        )),
        _ => None,
    }
}

/// What the file's pages tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    /// As `PRAGMA auto_vacuum` counts: 2 is incremental.
    pub(crate) auto_vacuum: i64,
    pub(crate) size: u64,
    pub(crate) all: u64,
    pub(crate) free: u64,
}

pub(crate) fn pages(pages: Pages) -> Vec<Finding> {
    let Pages { auto_vacuum, size: page, all, free } = pages;
    let mut found = Vec::new();
    let incremental = auto_vacuum == 2;
    if free * page > 16 * MIB && free * 4 > all {
        let advice = if incremental { "`legwork vacuum`" } else { "`legwork vacuum --full`" };
        let says = format!("{} of {} are free pages", size(free * page), size(all * page));
        found.push(
            Finding::note("free_pages", says)
                .advice(format!("they are used again; {advice} gives them back")),
        );
    }
    if !incremental {
        found.push(
            Finding::note("auto_vacuum", "the file was not made for giving free pages back")
                .advice(
                    "its free pages are used again; to make it smaller, `legwork vacuum --full`",
                ),
        );
    }
    found
}

/// The wall clock, the newest time in the file, and what was believed of the clock last.
pub(crate) fn clock(now: Micros, newest: Option<Micros>, trust: Option<Trust>) -> Vec<Finding> {
    const SLACK: Micros = 60 * SECOND;
    let mut found = Vec::new();
    if let Some(newest) = newest.filter(|newest| newest - now > SLACK) {
        let behind = for_people(newest - now);
        found.push(
            Finding::warning(
                "clock_behind",
                format!("the clock stands {behind} behind the file's newest row"),
            )
            .advice("set the clock right: what is due by it comes so much later"),
        );
    }
    if let Some((believed, leapt)) = trust.and_then(|trust| trust.leap()) {
        let left = Trust::believes_at(leapt).saturating_sub(now);
        let says =
            format!("the clock has leapt ahead by {}", for_people(leapt.saturating_sub(believed)));
        let leap = leapt.saturating_sub(believed);
        // A machine that sleeps, or a program that is seldom run, looks the same.
        let finding = if leap > 31 * 24 * HOUR {
            Finding::warning("clock_leap", says)
        } else {
            Finding::note("clock_leap", says)
        };
        found.push(finding.advice(if left > 0 {
            format!("if it is right now, nothing has to be done: it is believed in {}; until then nothing is pruned by it", for_people(left))
        } else {
            "if it is right now, nothing has to be done: the next worker believes it".to_owned()
        }));
    }
    if found.is_empty() {
        found.push(Finding::ok("clock", "the clock agrees with the file"));
    }
    found
}

/// A lane as an examination sees it: open gate, not paused.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) queue: String,
    pub(crate) kind: String,
    /// Ready or overdue, and held by nobody.
    pub(crate) ready: u64,
    /// The earliest start time of these.
    pub(crate) since: Micros,
    /// Held by an instance.
    pub(crate) held: u64,
    /// A live instance has a worker that would run them.
    pub(crate) served: bool,
}

/// Lanes with work that may start, and how many engines live.
pub(crate) fn workers(lanes: &[Lane], live: usize, now: Micros) -> Vec<Finding> {
    const PATIENCE: Micros = 5 * 60 * SECOND;
    let ready: u64 = lanes.iter().map(|lane| lane.ready).sum();
    if live == 0 {
        if ready == 0 {
            return vec![Finding::note("no_worker", "no worker is running, and nothing is ready")];
        }
        return vec![
            Finding::warning(
                "no_worker",
                format!("{} may start, and no worker is running", jobs(ready)),
            )
            .advice("start the program that runs them, or `legwork work`"),
        ];
    }
    let tell = |lane: &Lane, code: &'static str, advice: &str| {
        let says = format!(
            "{} of kind {} may start in queue {}, the first for {}, and none runs",
            jobs(lane.ready),
            lane.kind,
            lane.queue,
            for_people(now - lane.since)
        );
        Finding::warning(code, says).of(format!("{}/{}", lane.queue, lane.kind)).advice(advice)
    };
    let look = |lane: &Lane| {
        if lane.ready == 0 || lane.held > 0 {
            None
        } else if !lane.served {
            let advice = "no live worker serves this queue and kind: start one that does";
            Some(tell(lane, "unserved", advice))
        } else if now - lane.since > PATIENCE {
            Some(tell(lane, "late", "all workers are busy with what goes first: give it more"))
        } else {
            None
        }
    };
    let mut found: Vec<Finding> = lanes.iter().filter_map(look).collect();
    if found.is_empty() {
        let engines =
            if live == 1 { "1 engine runs".into() } else { format!("{live} engines run") };
        found.push(Finding::ok("workers", format!("{engines}, {} ready", jobs(ready))));
    }
    found
}

/// The version of legwork's part of the file, and the one this program knows. `false`: it cannot work
/// on it.
pub(crate) fn schema(found: i64, known: i64) -> (Finding, bool) {
    if found > known {
        let says = format!("a newer legwork has written it: schema {found}, known is {known}");
        let finding = Finding::problem("schema_newer", says);
        return (finding.advice("use a newer version of this program"), false);
    }
    let finding = match found {
        0 => Finding::note("schema_none", "legwork has nothing in it yet")
            .advice("the first program that opens it adds its tables"),
        _ if found < known => Finding::note(
            "schema_older",
            format!("its schema is version {found}, this program's is {known}"),
        )
        .advice("`legwork migrate`, or opening it, brings it up to date"),
        _ => Finding::ok("schema", format!("schema version {found}")),
    };
    (finding, true)
}

pub(crate) fn for_people(span: Micros) -> String {
    amount::span(Duration::from_micros(span.max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::finding::Severity;

    fn codes(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_wal_is_large_beyond_its_bound_and_pinned_if_much_is_not_written_back() {
        assert_eq!(wal(64 * MIB, Some(64 * MIB)), None);
        let pinned = wal(65 * MIB, Some(40 * MIB)).unwrap();
        assert_eq!((pinned.code, pinned.severity), ("wal_large", Severity::Warning));
        assert!(pinned.says.contains("40.0 MiB are not") && pinned.advice.contains("snapshot"));
        assert!(!wal(65 * MIB, Some(0)).unwrap().advice.contains("snapshot"));
        assert!(wal(65 * MIB, None).is_some());
    }

    #[test]
    fn space_runs_out_by_degrees() {
        let severity = |free| space(free, 1024 * MIB).severity;
        assert_eq!(severity(MIB), Severity::Problem);
        assert_eq!(severity(100 * MIB), Severity::Warning);
        assert_eq!(severity(1024 * MIB), Severity::Note);
        assert_eq!(severity(4096 * MIB), Severity::Ok);
    }

    #[test]
    fn what_others_can_write_is_worse_than_what_they_can_read() {
        let severity = |mode| access("x", mode).map(|found| found.severity);
        assert_eq!(severity(0o100_600), None);
        assert_eq!(severity(0o100_640), Some(Severity::Warning));
        assert_eq!(severity(0o100_644), Some(Severity::Warning));
        assert_eq!(severity(0o100_666), Some(Severity::Problem));
    }

    #[test]
    fn a_clock_that_stands_behind_and_one_that_has_leapt_are_found() {
        let (start, year) = (50 * 365 * 24 * HOUR, 365 * 24 * HOUR);
        assert_eq!(codes(&clock(start, Some(start + 30 * SECOND), None)), ["clock"]);
        assert_eq!(codes(&clock(start, Some(start + HOUR), None)), ["clock_behind"]);
        let leapt = Trust::new(start).look(start + year, Duration::ZERO);
        let found = clock(start + year, None, Some(leapt));
        assert_eq!((codes(&found), found[0].severity), (vec!["clock_leap"], Severity::Warning));
        assert!(found[0].says.contains("1y") && found[0].advice.contains("1d"), "{found:?}");
        // The night of a laptop.
        let slept = Trust::new(start).look(start + 8 * HOUR, Duration::ZERO);
        assert_eq!(clock(start + 8 * HOUR, None, Some(slept))[0].severity, Severity::Note);
    }

    #[test]
    fn jobs_without_a_worker_are_found_and_lanes_that_nobody_serves() {
        let served = |ready, since, held| Lane {
            queue: "q".into(),
            kind: "k".into(),
            ready,
            since,
            held,
            served: true,
        };
        let unserved = |ready, since| Lane { served: false, ..served(ready, since, 0) };
        assert_eq!(workers(&[], 0, HOUR)[0].severity, Severity::Note);
        assert_eq!(workers(&[unserved(3, 0)], 0, HOUR)[0].severity, Severity::Warning);
        assert_eq!(codes(&workers(&[unserved(3, HOUR)], 1, HOUR)), ["unserved"]);
        assert_eq!(codes(&workers(&[unserved(0, HOUR)], 1, HOUR)), ["workers"]);
        assert_eq!(codes(&workers(&[served(3, 0, 0)], 1, HOUR)), ["late"]);
        assert_eq!(codes(&workers(&[served(3, 0, 1), served(3, HOUR, 0)], 1, HOUR)), ["workers"]);
    }
}
