//! A long CSV export that is killed three times in the middle and goes on where it was: real
//! processes, a real file, and at the end the report has every row once.
//!
//! `cargo run --release --example report`
//!
//! This program starts itself again as a worker, kills it with -9, starts the next one, and compares
//! the report with the table in the end.

use std::env;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use legwork::{Context, Engine, Failure, Job, JobResult, Jobs, Outcome, Pool};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

const SALES: i64 = 60_000;
/// Rows between two saved positions.
const CHUNK: i64 = 500;
/// After so many rows, one after the other, the worker is killed.
const KILLS: [u64; 3] = [7_000, 25_000, 48_000];
/// So that there is something to see; the report needs no pause.
const PAUSE: Duration = Duration::from_millis(5);

// ---- the job -----------------------------------------------------------------------------

/// Writes all sales into a file.
#[derive(Serialize, Deserialize)]
struct Report {
    csv: PathBuf,
}

/// How far the file is.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    last_sale: i64,
    rows: u64,
    bytes: u64,
}

impl Job for Report {
    const KIND: &'static str = "report";
    type State = PathBuf;

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        // Decided once: what is sold while the report is written belongs to the next one.
        let newest: i64 = cx.step("newest", || {
            let db = Connection::open(cx.state())?;
            Ok(db.query_row("SELECT max(id) FROM sales", [], |row| row.get(0))?)
        })?;
        let written = cx.step("write", || self.write(cx, newest))?;
        cx.step("publish", || Ok(self.publish()?))?;
        cx.output(&written.rows)?;
        Ok(Outcome::Done)
    }
}

impl Report {
    fn unfinished(&self) -> PathBuf {
        self.csv.with_extension("part")
    }

    fn write(&self, cx: &Context<PathBuf>, newest: i64) -> Result<Position, Failure> {
        let db = Connection::open(cx.state())?;
        let cursor = cx.cursor::<Position>("rows")?;
        let mut at = cursor.get().copied().unwrap_or_default();
        println!("from {}", at.rows);

        let mut file = OpenOptions::new();
        let mut file = file.create(true).truncate(false).write(true).open(self.unfinished())?;
        // What a killed worker has written since its last saved position is written again: cut off.
        file.set_len(at.bytes)?;
        file.seek(SeekFrom::Start(at.bytes))?;
        while at.last_sale < newest {
            let until = newest.min(at.last_sale + CHUNK);
            let lines = lines(&db, at.last_sale, until)?;
            file.write_all(lines.concat().as_bytes())?;
            // The rows before the position that counts them: a saved position never lies.
            file.sync_data()?;
            at.last_sale = until;
            at.rows += lines.len() as u64;
            at.bytes = file.stream_position()?;
            cursor.save(&at)?;

            println!("rows {}", at.rows);
            cx.progress(at.rows, SALES.unsigned_abs());
            cx.wait(PAUSE)?;
        }
        Ok(at)
    }

    /// A worker that is killed between the renaming and the end of the step does it again.
    fn publish(&self) -> io::Result<()> {
        if !self.unfinished().exists() && self.csv.exists() {
            return Ok(());
        }
        fs::rename(self.unfinished(), &self.csv)
    }
}

/// The sales after one number, up to another.
fn lines(db: &Connection, after: i64, until: i64) -> rusqlite::Result<Vec<String>> {
    let find = "SELECT id, product, cents FROM sales WHERE id > ?1 AND id <= ?2 ORDER BY id";
    db.prepare_cached(find)?
        .query_map(params![after, until], |row| {
            let (id, product, cents): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("{id},{product},{}.{:02}\n", cents / 100, cents % 100))
        })?
        .collect()
}

// ---- the worker, a process of its own ------------------------------------------------------

fn work(db: &Path) -> Result<(), Box<dyn Error>> {
    let jobs = Jobs::open(db)?;
    let engine = Engine::builder(&jobs)
        .register_with::<Report>(db.to_owned())
        .pool(Pool::new(["*"]).workers(1))
        // Whoever is killed on purpose is not to blame.
        .crash_limit(0)
        .start()?;
    engine.run_until_empty()?;
    engine.stop(Duration::from_secs(5))?;
    Ok(())
}

// ---- who starts and kills it ---------------------------------------------------------------

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(db) = env::args_os().nth(1) {
        return work(Path::new(&db));
    }
    let directory = tempfile::tempdir()?;
    let db = directory.path().join("shop.db");
    let csv = directory.path().join("sales.csv");
    make_sales(&db)?;
    let jobs = Jobs::open(&db)?;
    let id = jobs.enqueue(Report { csv: csv.clone() })?;
    println!("job {id} is to write {SALES} sales into a file");

    for rows in KILLS {
        let (mut worker, mut lines) = start(&db)?;
        let reached = follow(&mut lines, rows)?;
        worker.kill()?;
        worker.wait()?;
        let kept: Vec<_> = jobs.steps(id)?.into_iter().map(|step| step.name).collect();
        println!("killed at row {reached}; of the steps is kept: {}", kept.join(", "));
    }
    let (mut worker, mut lines) = start(&db)?;
    follow(&mut lines, u64::MAX)?;
    if !worker.wait()?.success() {
        return Err("the last worker has failed".into());
    }

    let rows: Option<u64> = jobs.output(id)?;
    println!("job {id} is {}: {} rows", jobs.get(id)?.state, rows.unwrap_or_default());
    check(&db, &csv)?;
    if !jobs.steps(id)?.is_empty() {
        return Err("steps are left of a completed job".into());
    }
    println!("the report has every sale once");
    Ok(())
}

type Lines = io::Lines<BufReader<std::process::ChildStdout>>;

fn start(db: &Path) -> Result<(Child, Lines), Box<dyn Error>> {
    let me = env::current_exe()?;
    let mut worker = Command::new(me).arg(db).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(worker.stdout.take().ok_or("a worker without a voice")?).lines();
    Ok((worker, lines))
}

/// Listens to a worker until it has written so many rows, or ends.
fn follow(lines: &mut Lines, until: u64) -> Result<u64, Box<dyn Error>> {
    let mut reached = 0;
    for line in lines {
        let line = line?;
        if let Some(rows) = line.strip_prefix("from ") {
            println!("a worker begins at row {rows}");
        } else if let Some(rows) = line.strip_prefix("rows ") {
            reached = rows.parse()?;
        }
        if reached >= until {
            break;
        }
    }
    Ok(reached)
}

fn make_sales(db: &Path) -> rusqlite::Result<()> {
    Connection::open(db)?.execute_batch(&format!(
        "CREATE TABLE sales (id INTEGER PRIMARY KEY, product TEXT NOT NULL, cents INTEGER NOT NULL);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {SALES})
         INSERT INTO sales SELECT i, 'product ' || (i % 97), 100 + i * 37 % 9900 FROM n;"
    ))
}

fn check(db: &Path, csv: &Path) -> Result<(), Box<dyn Error>> {
    let expected = lines(&Connection::open(db)?, 0, SALES)?.concat();
    let found = io::read_to_string(File::open(csv)?)?;
    if found != expected {
        return Err(format!("{} is not what it should be", csv.display()).into());
    }
    Ok(())
}
