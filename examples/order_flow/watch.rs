//! What is shown: what was left, how it goes, what has come out.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use legwork::{Event, Events};
use rusqlite::Connection;

use crate::Fault;
use crate::flags::Flags;
use crate::shop;
use crate::work::KINDS;

/// The jobs of one kind in one state, read from the view that legwork keeps for that.
struct Line {
    kind: String,
    state: String,
    jobs: i64,
    retried: i64,
    first: Option<String>,
    last: Option<String>,
}

const LINES: &str = "
SELECT kind, state, count(*), sum(attempts > 1), min(run_at), max(run_at)
  FROM legwork_all_jobs GROUP BY kind, state";

fn lines(conn: &Connection) -> rusqlite::Result<Vec<Line>> {
    conn.prepare(LINES)?
        .query_map([], |row| {
            Ok(Line {
                kind: row.get(0)?,
                state: row.get(1)?,
                jobs: row.get(2)?,
                retried: row.get(3)?,
                first: row.get(4)?,
                last: row.get(5)?,
            })
        })?
        .collect()
}

/// Says what an earlier run has left to do.
pub fn say_what_was_left(db: &Path) -> Result<(), Fault> {
    let lines = lines(&shop::connect(db)?)?;
    let count = |state: &str| -> i64 {
        lines.iter().filter(|line| line.state == state).map(|line| line.jobs).sum()
    };
    let (ready, running, retrying) = (count("ready"), count("running"), count("retrying"));
    if ready + running + retrying > 0 {
        println!(
            "An earlier run left {} jobs: {ready} ready, {retrying} waiting for a retry, {running} \
             cut off in the middle. They are done now.",
            ready + running + retrying
        );
    } else if count("scheduled") > 0 {
        println!("Earlier runs left nothing to do but {} reminders.", count("scheduled"));
    }
    Ok(())
}

/// Follows the events and shows how it goes: a live line on a terminal, ten lines elsewhere.
pub struct Watcher(JoinHandle<()>);

impl Watcher {
    pub fn start(events: Events, expected: u64) -> Watcher {
        Watcher(thread::spawn(move || {
            let mut progress = Progress { expected, ..Progress::default() };
            let mut screen = Screen::new(expected);
            for event in events {
                progress.note(&event);
                screen.show(&progress, false);
            }
            if expected > 0 {
                screen.show(&progress, true);
            }
        }))
    }

    /// Waits for the last event.
    pub fn join(self) {
        if self.0.join().is_err() {
            eprintln!("the progress display has panicked");
        }
    }
}

#[derive(Default)]
struct Progress {
    expected: u64,
    ended: u64,
    by_kind: BTreeMap<String, u64>,
    retries: u64,
    failed: u64,
}

impl Progress {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Finished { kind: Some(kind), .. } => {
                self.ended += 1;
                *self.by_kind.entry(kind.clone()).or_default() += 1;
            }
            Event::Failed { .. } => {
                self.ended += 1;
                self.failed += 1;
            }
            Event::Retrying { .. } => self.retries += 1,
            _ => {}
        }
    }

    fn line(&self) -> String {
        let of = |kind| self.by_kind.get(kind).copied().unwrap_or(0);
        let [payment, inventory, confirmation, analytics, notification, _] = KINDS.map(of);
        format!(
            "{}/{} jobs: {payment} paid, {inventory} packed, {confirmation} mailed, {analytics} counted, \
             {notification} notified; {} retries",
            self.ended, self.expected, self.retries
        )
    }
}

struct Screen {
    live: bool,
    shown: Instant,
    /// Elsewhere than on a terminal: at how many jobs the next line is due.
    next: u64,
    step: u64,
}

/// Often enough for the eye.
const FRAME: Duration = Duration::from_millis(50);

impl Screen {
    fn new(expected: u64) -> Screen {
        let step = expected.div_ceil(10).max(1);
        Screen { live: io::stdout().is_terminal(), shown: Instant::now(), next: step, step }
    }

    fn show(&mut self, progress: &Progress, last: bool) {
        if self.live {
            if last || self.shown.elapsed() >= FRAME {
                self.shown = Instant::now();
                // Without wrapping, so that a narrow terminal cuts the line instead.
                print!("\r\x1b[K\x1b[?7l{}\x1b[?7h", progress.line());
                if last {
                    println!();
                }
                // A terminal that has gone away is no reason to stop working.
                let _ = io::stdout().flush();
            }
        } else if progress.ended >= self.next {
            self.next = progress.ended + self.step;
            println!("{}", progress.line());
        }
    }
}

/// What has come out, from the file: runs before this one included.
pub fn summary(flags: &Flags, mails: u64, took: Duration) -> Result<(), Fault> {
    let conn = shop::connect(&flags.db)?;
    let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let orders = number("SELECT count(*) FROM orders")?;
    let paid = number("SELECT count(DISTINCT order_id) FROM payments")?;
    println!(
        "\n{orders} orders in {}, {paid} paid; {mails} mails sent in this run",
        flags.db.display()
    );

    let lines = lines(&conn)?;
    println!("{:<16}{:>10}{:>10}{:>10}{:>10}", "", "completed", "retried", "waiting", "failed");
    for kind in KINDS {
        let of_kind = || lines.iter().filter(|line| line.kind == kind);
        let sum = |states: &[&str]| -> i64 {
            of_kind()
                .filter(|line| states.contains(&line.state.as_str()))
                .map(|line| line.jobs)
                .sum()
        };
        println!(
            "{kind:<16}{:>10}{:>10}{:>10}{:>10}",
            sum(&["completed"]),
            of_kind().map(|line| line.retried).sum::<i64>(),
            sum(&["scheduled", "ready", "running", "retrying"]),
            sum(&["failed", "cancelled"]),
        );
    }
    for line in lines.iter().filter(|line| line.state == "scheduled") {
        if let (Some(first), Some(last)) = (&line.first, &line.last) {
            println!("{} {}s wait for {first} to {last}", line.jobs, line.kind);
        }
    }
    println!("done in {took:.1?}");
    Ok(())
}
