//! Steps and cursors in processes that are killed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use legwork::{Context, Engine, Failure, Job, JobResult, Jobs, Outcome, Pool, State};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

use crate::common::{self, Child, SOON, place, say};

/// What the job has done, a line each; a kill leaves no half of one.
struct Effects(File);

impl Effects {
    fn of(db: &Path) -> Effects {
        Effects(OpenOptions::new().create(true).append(true).open(Effects::path(db)).unwrap())
    }

    fn path(db: &Path) -> PathBuf {
        db.with_extension("effects")
    }

    fn add(&self, line: u64) {
        let line = format!("{line}\n");
        assert_eq!((&self.0).write(line.as_bytes()).unwrap(), line.len());
    }

    fn read(db: &Path) -> Vec<u64> {
        let text = fs::read_to_string(Effects::path(db)).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// Runs the one job of the file in a child process until it is killed, or done.
fn run<J: Job<State = PathBuf>>() {
    let Some(db) = common::child_file() else {
        return;
    };
    let jobs = Jobs::open(&db).unwrap();
    let engine = Engine::builder(&jobs)
        .register_with::<J>(db)
        .pool(Pool::new(["*"]).workers(1))
        // Killed on purpose, and always in the middle of the job.
        .crash_limit(0)
        .start()
        .unwrap();
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
}

fn wait_to_be_killed() -> ! {
    loop {
        std::thread::park();
    }
}

// ---- steps -------------------------------------------------------------------------------

const STEPS: u64 = 6;

/// Stops for ever after the step that its process is told to stop after.
#[derive(Serialize, Deserialize)]
struct Stepwise;

impl Job for Stepwise {
    const KIND: &'static str = "stepwise";
    type State = PathBuf;

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let effects = Effects::of(cx.state());
        for step in 0..STEPS {
            let value = cx.step(&format!("step {step}"), || {
                effects.add(step);
                Ok(step * 7)
            })?;
            if value != step * 7 {
                return Err(Failure::msg("another value"));
            }
            if common::child_role() == step.to_string() {
                say("there");
                wait_to_be_killed();
            }
        }
        Ok(Outcome::Done)
    }
}

#[test]
#[ignore = "child process of `killed_after_each_step_...`"]
fn stepwise_child() {
    run::<Stepwise>();
}

#[test]
fn killed_after_each_step_in_turn_a_job_runs_none_of_them_twice() {
    let place = place();
    let id = place.open().enqueue(Stepwise).unwrap();
    for step in 0..STEPS {
        let child = Child::start("steps::killed::stepwise_child", &place.path, &step.to_string());
        child.wait_for("there");
        child.kill();
    }
    Child::start("steps::killed::stepwise_child", &place.path, "to the end").end();
    assert_eq!(place.open().get(id).unwrap().state, State::Completed);
    assert_eq!(Effects::read(&place.path), (0..STEPS).collect::<Vec<_>>());
}

// ---- cursors -----------------------------------------------------------------------------

const KILLS: usize = 20;
/// A child tells how far it is each so many rows.
const TOLD: u64 = 500;

/// Parent of a job over `rows` rows: kills its process at random rows, and lets the last one end.
fn kill_at_random_rows(db: &Path, test: &str, rows: u64) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut at: Vec<u64> = (0..KILLS).map(|_| random.u64(0..rows / TOLD - 1) * TOLD).collect();
    at.sort_unstable();
    for row in at {
        let child = Child::start(test, db, "row by row");
        while child.wait_for("row").parse::<u64>().unwrap() < row {}
        child.kill();
    }
    Child::start(test, db, "row by row").end();
}

/// Appends each of its rows to the file of effects.
#[derive(Serialize, Deserialize)]
struct Rows {
    rows: u64,
}

impl Job for Rows {
    const KIND: &'static str = "rows";
    type State = PathBuf;

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let effects = Effects::of(cx.state());
        let cursor = cx.cursor::<u64>("rows")?;
        let first = cursor.get().map_or(0, |last| last + 1);
        say(&format!("row {first}"));
        for row in first..self.rows {
            effects.add(row);
            cursor.save(&row)?;
            if row % TOLD == 0 {
                say(&format!("row {row}"));
            }
        }
        Ok(Outcome::Done)
    }
}

#[test]
#[ignore = "child process of `a_cursor_over_100_000_rows_...`"]
fn rows_child() {
    run::<Rows>();
}

#[test]
fn a_cursor_over_100_000_rows_killed_20_times_does_every_row_and_at_most_one_twice_per_kill() {
    const ROWS: u64 = 100_000;
    let place = place();
    let id = place.open().enqueue(Rows { rows: ROWS }).unwrap();
    kill_at_random_rows(&place.path, "steps::killed::rows_child", ROWS);
    assert_eq!(place.open().get(id).unwrap().state, State::Completed);
    let done = Effects::read(&place.path);
    // In order, but for a row that was done and not yet saved when its process was killed.
    let again = done.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect::<Vec<_>>();
    assert!(again.iter().all(|pair| pair[0] == pair[1]), "{again:?}");
    assert!(again.len() <= KILLS, "{} rows twice", again.len());
    assert_eq!((done.first(), done.last()), (Some(&0), Some(&(ROWS - 1))));
}

/// Inserts each of its rows into a table, in the transaction that saves the position.
#[derive(Serialize, Deserialize)]
struct RowsInTable {
    rows: u64,
}

impl Job for RowsInTable {
    const KIND: &'static str = "rows_in_table";
    type State = PathBuf;

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let mut conn = Connection::open(cx.state())?;
        conn.busy_timeout(SOON)?;
        // A kill takes nothing that was committed.
        conn.pragma_update(None, "synchronous", "OFF")?;
        let cursor = cx.cursor::<u64>("rows")?;
        let first = cursor.get().map_or(0, |last| last + 1);
        say(&format!("row {first}"));
        for row in first..self.rows {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute("INSERT INTO effects VALUES (?1)", [row as i64])?;
            cursor.save_in(&tx, &row)?;
            tx.commit()?;
            if row % TOLD == 0 {
                say(&format!("row {row}"));
            }
        }
        Ok(Outcome::Done)
    }
}

#[test]
#[ignore = "child process of `rows_whose_position_is_saved_...`"]
fn rows_in_table_child() {
    run::<RowsInTable>();
}

#[test]
fn rows_whose_position_is_saved_in_their_transaction_are_done_exactly_once_over_20_kills() {
    const ROWS: u64 = 20_000;
    let place = place();
    let conn = place.connect();
    conn.execute_batch("CREATE TABLE effects (row INTEGER NOT NULL)").unwrap();
    let id = place.open().enqueue(RowsInTable { rows: ROWS }).unwrap();
    kill_at_random_rows(&place.path, "steps::killed::rows_in_table_child", ROWS);
    assert_eq!(place.open().get(id).unwrap().state, State::Completed);
    let figures: (i64, i64) = conn
        .query_row("SELECT count(*), count(DISTINCT row) FROM effects", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(figures, (ROWS as i64, ROWS as i64));
}
