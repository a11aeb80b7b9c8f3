//! Three engines in three processes on one file, through simulated weeks: restarts, kills in the
//! middle of it, sleeps, and clocks that jump by an hour and by ten years, forward and back.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use legwork::{Clock, Cron, Jobs, Missed, Overlap, Retention};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::{act, idle};
use crate::common::{Child, Place, child_role, place, say};

const START: OffsetDateTime = datetime!(2026-03-30 00:10 UTC);
/// Its summer time is half an hour.
const LORD_HOWE: &str = "Australia/Lord_Howe";
const YEARS: Duration = Duration::days(3_650);

/// Serves the entries by the clock that the parent process tells.
pub fn child(path: &Path) {
    assert_eq!(child_role(), "weeks");
    let mut lines = std::io::stdin().lock().lines().map_while(Result::ok);
    let clock = Clock::stopped(time_of(&lines.next().unwrap()));
    let forever = Retention::all(std::time::Duration::from_secs(100 * 365 * 86_400));
    let jobs =
        Jobs::builder(path).clock(clock.clone()).retention(forever).sweep(Default::default());
    let jobs = jobs.open().unwrap();
    let hourly = || Cron::new("0 * * * *").zone(LORD_HOWE);
    let engine = idle(&jobs)
        .crash_limit(0)
        .cron("all", hourly().missed(Missed::All { at_most: 60 }), act)
        .cron("every", Cron::new("@every 7h").missed(Missed::All { at_most: 60 }), act)
        .cron("once", hourly(), act)
        .cron("skip", hourly().missed(Missed::Skip), act)
        .cron("alone", hourly().overlap(Overlap::Skip), act)
        .manual()
        .unwrap();
    say("started");
    for line in lines {
        if line == "ask" {
            jobs.run_cron("alone").unwrap();
            say("done");
            continue;
        }
        clock.set(time_of(&line));
        engine.run_due().unwrap();
        say("done");
    }
}

fn time_of(line: &str) -> OffsetDateTime {
    OffsetDateTime::parse(line, &Rfc3339).unwrap()
}

/// The three processes, and what their clocks show.
struct Weeks {
    place: Place,
    children: Vec<Child>,
    now: OffsetDateTime,
    /// Runs that were asked for.
    asked: i64,
    random: fastrand::Rng,
}

impl Weeks {
    fn new(seed: u64) -> Weeks {
        let mut weeks = Weeks {
            place: place(),
            children: Vec::new(),
            now: START,
            asked: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        weeks.children = (0..3).map(|_| weeks.start()).collect();
        weeks
    }

    fn start(&self) -> Child {
        let mut child = Child::start("cron::child", &self.place.path, "weeks");
        child.tell(&self.now.format(&Rfc3339).unwrap());
        child.wait_for("started");
        child
    }

    /// Shows the time to all processes at once, and waits until they have fired what is due.
    fn show(&mut self, time: OffsetDateTime) {
        let line = time.format(&Rfc3339).unwrap();
        self.children.iter_mut().for_each(|child| child.tell(&line));
        self.children.iter().for_each(|child| drop(child.wait_for("done")));
    }

    /// Shows the time, and kills one process in the middle of it.
    fn show_and_kill(&mut self, time: OffsetDateTime) {
        let line = time.format(&Rfc3339).unwrap();
        self.children.iter_mut().for_each(|child| child.tell(&line));
        let victim = self.random.usize(0..3);
        self.children.remove(victim).kill();
        self.children.iter().for_each(|child| drop(child.wait_for("done")));
        self.now = time;
        let restarted = self.start();
        self.children.push(restarted);
    }

    /// One step of the simulated time.
    fn step(&mut self) {
        let event = self.random.u32(0..22);
        // Mostly they are awake at the next tick, give or take.
        let next = Cron::new("0 * * * *").zone(LORD_HOWE).ticks_after(self.now, 1).unwrap()[0];
        self.now = next + Duration::seconds(self.random.i64(0..50));
        if event < 8 {
            self.now += Duration::minutes(self.random.i64(1..150));
        }
        match event {
            // A sleep: of all of them, it is one machine.
            0 => self.now += Duration::hours(self.random.i64(3..40)),
            1 => {
                let victim = self.random.usize(0..3);
                self.children.remove(victim).kill();
                let restarted = self.start();
                self.children.push(restarted);
            }
            2 => return self.show_and_kill(self.now),
            // The clock is wrong for a moment.
            3 => self.show(self.now + Duration::HOUR),
            4 => self.show(self.now - Duration::HOUR),
            5 => {
                self.show(self.now + YEARS);
                self.show(self.now + YEARS + Duration::hours(2));
            }
            6 => self.show(self.now - YEARS),
            7 => {
                self.show(self.now + YEARS);
                self.show(self.now - YEARS);
            }
            20 => self.ask(),
            21 => {
                self.ask();
                self.ask();
                return self.show_and_kill(self.now);
            }
            _ => {}
        }
        self.show(self.now);
    }

    /// Asks one process for a run; all of them may serve it with their next look.
    fn ask(&mut self) {
        let asker = self.random.usize(0..3);
        self.children[asker].tell("ask");
        self.children[asker].wait_for("done");
        self.asked += 1;
    }

    /// How many jobs are there for runs that were asked for.
    fn ran(&self) -> i64 {
        let sql = "SELECT count(*) FROM legwork_all_jobs
                    WHERE json_extract(meta, '$.cron_tick') IS NULL";
        self.place.connect().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// How often each tick was enqueued, by entry.
    fn fired(&self) -> BTreeMap<(String, String), i64> {
        let conn = self.place.connect();
        let mut ask = conn
            .prepare(
                "SELECT json_extract(meta, '$.cron'), json_extract(meta, '$.cron_tick'), count(*)
                   FROM legwork_all_jobs
                  WHERE json_extract(meta, '$.cron_tick') IS NOT NULL GROUP BY 1, 2",
            )
            .unwrap();
        ask.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Whether the newest tick that has come has been fired: an entry is never silent.
    fn check_not_silent(&self) {
        let conn = self.place.connect();
        let hourly = Cron::new("0 * * * *").zone(LORD_HOWE);
        let ticks = hourly.ticks_after(self.now - Duration::hours(2), 4).unwrap();
        let newest = *ticks.iter().rfind(|tick| **tick <= self.now).unwrap();
        let has = |name: &str, at: OffsetDateTime| {
            let micros = i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap();
            conn.query_row(
                "SELECT count(job) FROM legwork_ticks WHERE name = ?1 AND tick = ?2",
                (name, micros),
                |row| row.get::<_, i64>(0),
            )
            .unwrap()
                == 1
        };
        assert!(has("all", newest), "all at {}", self.now);
        // A clock that was an hour ahead has left a tick out for the one after it.
        let once = ticks.iter().any(|tick| *tick >= newest && has("once", *tick));
        assert!(once, "once at {}", self.now);
    }
}

fn weeks(seed: u64, days: i64) {
    let mut weeks = Weeks::new(seed);
    println!("seed {seed}");
    while weeks.now < START + Duration::days(days) {
        weeks.step();
        if weeks.now > START + Duration::hours(2) {
            weeks.check_not_silent();
        }
    }
    let fired = weeks.fired();
    let twice: Vec<_> = fired.iter().filter(|(_, count)| **count != 1).take(5).collect();
    assert!(twice.is_empty(), "fired more than once: {twice:?}");
    assert_eq!(weeks.ran(), weeks.asked, "each run that was asked for is one job");

    let between = |name: &str| -> Vec<OffsetDateTime> {
        let of_name = fired.keys().filter(|(of, _)| of == name);
        let ticks = of_name.map(|(_, tick)| time_of(tick));
        ticks.filter(|tick| (START..=weeks.now).contains(tick)).collect()
    };
    let legal = Cron::new("0 * * * *").zone(LORD_HOWE);
    let count = usize::try_from((weeks.now - START).whole_hours()).unwrap() + 2;
    let mut hours = legal.ticks_after(START, count).unwrap();
    hours.retain(|tick| *tick <= weeks.now);
    assert_eq!(between("all"), hours, "under All each tick fires");
    for name in ["once", "skip", "alone"] {
        let ticks = between(name);
        assert!(ticks.iter().all(|tick| hours.contains(tick)), "{name}");
        assert!(ticks.len() > hours.len() / 8, "{name}: {} of {}", ticks.len(), hours.len());
    }
    // Where they are counted from is no tick, save for a clock that was ten years behind.
    let mut every = between("every");
    every.retain(|tick| *tick > START);
    let steps = every.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(steps.into_iter().all(|step| step == Duration::hours(7)), "{every:?}");
    assert_eq!(every.len(), usize::try_from((weeks.now - START).whole_hours() / 7).unwrap());

    let kept = weeks.place.connect().query_row(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM legwork_ticks GROUP BY name)",
        [],
        |row| row.get::<_, i64>(0),
    );
    assert!(kept.unwrap() < 2 * 4_096);
}

#[test]
fn each_tick_fires_once_through_weeks_of_restarts_sleeps_and_clock_jumps() {
    weeks(20_260_320, 14);
}

#[test]
#[ignore = "soak"]
fn soak_each_tick_fires_once_through_weeks_of_restarts_sleeps_and_clock_jumps() {
    for seed in 0..40 {
        weeks(seed, 60);
    }
}
