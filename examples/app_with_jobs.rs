//! An app with a command line of its own, which takes all of legwork's commands into it as `jobs`.
//!
//! `notes` counts the words of files in the background:
//!
//! ```sh
//! cargo run --features cli --example app_with_jobs -- add README.md Cargo.toml
//! cargo run --features cli --example app_with_jobs -- jobs status
//! cargo run --features cli --example app_with_jobs -- jobs check
//! cargo run --features cli --example app_with_jobs -- jobs work --until-empty
//! cargo run --features cli --example app_with_jobs -- counts
//! ```
//!
//! Its data lies in `notes.db` in the current directory, or where `NOTES` says.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use legwork::{Context, Engine, Job, JobOptions, JobResult, Jobs, Outcome, Pool, Retry, Unique};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// Counts the words of files.
#[derive(Parser)]
#[command(name = "notes")]
enum Notes {
    /// Count these files, soon.
    Add { files: Vec<PathBuf> },
    /// Show what has been counted.
    Counts,
    /// Look after the background jobs.
    Jobs(legwork::cli::Command),
}

/// Counts one file; two requests for the same file are one job.
#[derive(Serialize, Deserialize)]
struct CountWords {
    file: PathBuf,
}

/// What the app hands to its jobs.
struct App {
    database: PathBuf,
}

impl App {
    /// The app's table lies in the file of the jobs.
    fn open(database: &Path) -> rusqlite::Result<App> {
        connect(database)?.execute_batch(
            "CREATE TABLE IF NOT EXISTS counts (file TEXT PRIMARY KEY, words INTEGER) STRICT",
        )?;
        Ok(App { database: database.to_owned() })
    }
}

/// A connection of the app's own, which waits its turn like everybody else.
fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(database)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

impl Job for CountWords {
    const KIND: &'static str = "count_words";
    type State = App;

    fn options() -> JobOptions {
        JobOptions::new()
            .queue("counting")
            .unique(Unique::by_args())
            .retry(Retry::exponential(Duration::from_secs(1)).attempts(3))
    }

    fn perform(&self, cx: &Context<App>) -> JobResult {
        let words = std::fs::read_to_string(&self.file)?.split_whitespace().count();
        let mut conn = connect(&cx.state().database)?;
        let tx = conn.transaction()?;
        tx.execute(
            "INSERT OR REPLACE INTO counts VALUES (?1, ?2)",
            (self.file.to_string_lossy(), i64::try_from(words)?),
        )?;
        // The count and the end of the job: both or neither.
        cx.finish_in(&tx)?;
        tx.commit()?;
        Ok(Outcome::Done)
    }
}

fn main() -> ExitCode {
    let database = PathBuf::from(std::env::var_os("NOTES").unwrap_or("notes.db".into()));
    let done = match Notes::parse() {
        Notes::Add { files } => add(&database, &files),
        Notes::Counts => counts(&database),
        Notes::Jobs(command) => {
            // The command line may name another file: its own table is there, too.
            return command.program("notes jobs").database(database).run(|jobs| {
                Ok(Engine::builder(jobs)
                    .state(App::open(jobs.path())?)
                    .register::<CountWords>()
                    .pool(Pool::new(["counting", "*"]).workers(2)))
            });
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notes: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Hands each file to the background; safe to be killed as soon as a line is printed.
fn add(database: &Path, files: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let jobs = Jobs::open(database)?;
    for file in files {
        let file = std::path::absolute(file)?;
        println!("job {}: {}", jobs.enqueue(CountWords { file: file.clone() })?, file.display());
    }
    Ok(())
}

fn counts(database: &Path) -> Result<(), Box<dyn Error>> {
    let app = App::open(database)?;
    let conn = connect(&app.database)?;
    let mut ask = conn.prepare("SELECT file, words FROM counts ORDER BY words DESC, file")?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        println!("{:6} {}", row.get::<_, i64>(1)?, row.get::<_, String>(0)?);
    }
    Ok(())
}
