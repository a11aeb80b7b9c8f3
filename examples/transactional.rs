//! Jobs and the app's own tables in one transaction: a bank that moves money exactly once, although
//! transactions are rolled back and attempts fail in the middle.
//!
//! `cargo run --example transactional`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use legwork::{
    Context, Engine, Failure, Filter, Job, JobOptions, JobResult, Jobs, NewJob, Outcome, Retry,
    State,
};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

const ACCOUNTS: i64 = 10;
const TRANSFERS: i64 = 200;

/// Nothing here keeps a transfer from being booked twice: if one were, it would show.
const TABLES: &str = "
CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
CREATE TABLE transfers (
    id INTEGER PRIMARY KEY, source INTEGER NOT NULL, target INTEGER NOT NULL, cents INTEGER NOT NULL
) STRICT;
CREATE TABLE bookings (transfer INTEGER NOT NULL) STRICT;
CREATE TABLE receipts (transfer INTEGER NOT NULL) STRICT;
";

/// A connection of the bank's own.
fn connect(db: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(Duration::from_secs(30))?;
    Ok(conn)
}

/// Books a transfer.
#[derive(Serialize, Deserialize)]
struct Book {
    transfer: i64,
}

impl Job for Book {
    const KIND: &'static str = "book";
    type State = PathBuf;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::fixed(Duration::from_millis(10)).attempts(5))
    }

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let mut conn = connect(cx.state())?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let find = "SELECT source, target, cents FROM transfers WHERE id = ?1";
        let (source, target, cents): (i64, i64, i64) =
            tx.query_row(find, [self.transfer], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let add = "UPDATE accounts SET cents = cents + ?2 WHERE id = ?1";
        tx.execute(add, params![source, -cents])?;
        if self.transfer % 3 == 0 && cx.attempt() == 1 {
            // Half is done; the transaction is rolled back as it goes.
            return Err(Failure::msg("the bank's computer has stumbled"));
        }
        tx.execute(add, params![target, cents])?;
        tx.execute("INSERT INTO bookings VALUES (?1)", [self.transfer])?;
        // The receipt is enqueued if, and only if, the job is finished; the job is finished if, and
        // only if, the money has moved.
        cx.enqueue_with_finish(Receipt { transfer: self.transfer })?;
        cx.finish_in(&tx)?;
        tx.commit()?;
        Ok(Outcome::Done)
    }
}

/// Writes the receipt of a transfer.
#[derive(Serialize, Deserialize)]
struct Receipt {
    transfer: i64,
}

impl Job for Receipt {
    const KIND: &'static str = "receipt";
    type State = PathBuf;

    fn perform(&self, cx: &Context<PathBuf>) -> JobResult {
        let mut conn = connect(cx.state())?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO receipts VALUES (?1)", [self.transfer])?;
        cx.finish_in(&tx)?;
        tx.commit()?;
        Ok(Outcome::Done)
    }
}

/// Takes a transfer: its row and the job that books it come into being together. `None`: refused,
/// and neither is there.
fn take(jobs: &Jobs, conn: &mut Connection, number: i64) -> Result<Option<i64>, Box<dyn Error>> {
    let taken = jobs.transaction(conn, |tx| {
        let (source, target) = (number % ACCOUNTS, (number * 7 + 4) % ACCOUNTS);
        tx.execute(
            "INSERT INTO transfers (source, target, cents) VALUES (?1, ?2, ?3)",
            params![source, target, 100 + number],
        )?;
        let transfer = tx.last_insert_rowid();
        jobs.enqueue_in(tx, NewJob::new(Book { transfer }))?;
        // Found too late, as such things are: the job goes with the row.
        if source == target { Err("to oneself".into()) } else { Ok::<_, Box<dyn Error>>(transfer) }
    });
    match taken {
        Ok(transfer) => Ok(Some(transfer)),
        Err(error) if error.to_string() == "to oneself" => Ok(None),
        Err(error) => Err(error),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let db = directory.path().join("bank.db");
    let mut conn = connect(&db)?;
    conn.execute_batch(TABLES)?;
    for account in 0..ACCOUNTS {
        conn.execute("INSERT INTO accounts VALUES (?1, 100000)", [account])?;
    }

    let jobs = Jobs::open(&db)?;
    let engine = Engine::builder(&jobs)
        .state(db.clone())
        .register::<Book>()
        .register::<Receipt>()
        .start()?;
    let mut taken = 0;
    for number in 0..TRANSFERS {
        taken += i64::from(take(&jobs, &mut conn, number)?.is_some());
    }
    println!("{taken} transfers were taken, {} refused and rolled back", TRANSFERS - taken);

    wait_until_done(&engine)?;
    engine.stop(Duration::from_secs(5))?;
    let failed = failed_attempts(&jobs)?;
    println!("{failed} attempts have failed in the middle of a transaction");
    check(&jobs, &conn, taken)?;
    println!("every transfer is booked once and has one receipt; no cent is lost");
    Ok(())
}

/// Works until no job is left, those included that wait for their retry.
fn wait_until_done(engine: &Engine) -> legwork::Result<()> {
    let jobs = engine.jobs();
    loop {
        engine.run_until_empty()?;
        // Listening before looking: whatever changes after the look is heard.
        let events = jobs.events();
        if jobs.count(&Filter::new().state(State::Retrying))? == 0 {
            return Ok(());
        }
        events.recv_timeout(Duration::from_secs(1));
    }
}

fn failed_attempts(jobs: &Jobs) -> legwork::Result<usize> {
    let books = jobs.list(&Filter::new().kind(Book::KIND), None, 10_000)?.jobs;
    let attempts = books.iter().map(|job| jobs.attempts(job.id).map(|failed| failed.len()));
    attempts.sum()
}

fn check(jobs: &Jobs, conn: &Connection, taken: i64) -> Result<(), Box<dyn Error>> {
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let completed = jobs.count(&Filter::new().state(State::Completed))?;
    let figures = [
        ("transfers", number("SELECT count(*) FROM transfers")?, taken),
        ("bookings", number("SELECT count(*) FROM bookings")?, taken),
        ("booked", number("SELECT count(DISTINCT transfer) FROM bookings")?, taken),
        ("receipts", number("SELECT count(*) FROM receipts")?, taken),
        ("with a receipt", number("SELECT count(DISTINCT transfer) FROM receipts")?, taken),
        ("cents", number("SELECT sum(cents) FROM accounts")?, ACCOUNTS * 100_000),
        ("completed jobs", completed.cast_signed(), 2 * taken),
        ("jobs", jobs.count(&Filter::new())?.cast_signed(), 2 * taken),
    ];
    for (what, found, expected) in figures {
        if found != expected {
            return Err(format!("{what}: {found}, not {expected}").into());
        }
    }
    Ok(())
}
