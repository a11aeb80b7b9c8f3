//! The shop's own tables, in the same file as its jobs; its till and its payment gateway.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use legwork::{Failure, Jobs, NewJob};
use lettre::SmtpTransport;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::Fault;
use crate::flags::Flags;
use crate::mail;
use crate::work::{
    Analytics, Confirmation, Inventory, Notification, Payment, REVIEW_AFTER, ReviewReminder,
};

/// Payments and messages have no UNIQUE constraint on purpose: if a job took effect twice, it
/// would show.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, customer TEXT NOT NULL, product TEXT NOT NULL, cents INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS payments (order_id INTEGER NOT NULL, cents INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS stock (product TEXT PRIMARY KEY, sold INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS revenue (product TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS messages (order_id INTEGER NOT NULL, text TEXT NOT NULL) STRICT;
";

const PRODUCTS: [&str; 4] = ["lamp", "chair", "kettle", "rug"];

/// A connection of the shop's own. It waits for the write lock as long as it takes: a payment that
/// has charged must not fail for a neighbour's transaction.
pub fn connect(db: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(Duration::from_secs(60))?;
    Ok(conn)
}

pub fn create_tables(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TABLES)
}

/// What the jobs work with.
pub struct Shop {
    /// One for all workers: SQLite lets one transaction write at a time anyway.
    conn: Mutex<Connection>,
    pub ledger: Ledger,
    pub mailer: SmtpTransport,
    seed: u64,
}

impl Shop {
    pub fn open(flags: &Flags, ledger: &Ledger, mail_server: SocketAddr) -> Result<Shop, Fault> {
        Ok(Shop {
            conn: Mutex::new(connect(&flags.db)?),
            ledger: ledger.try_clone()?,
            mailer: mail::client(mail_server),
            seed: flags.seed,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic cut off was rolled back.
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mail address that an order was made with.
    pub fn customer_of(&self, order: i64) -> rusqlite::Result<String> {
        let find = "SELECT customer FROM orders WHERE id = ?1";
        self.lock().query_row(find, [order], |row| row.get(0))
    }

    /// Runs `work` in one transaction of the shop's.
    pub fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut conn = self.lock();
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    /// The payment provider, which is down for every fifth attempt; the seed says for which.
    pub fn reach_gateway(&self, order: i64, attempt: u32) -> Result<(), Failure> {
        let which = order.unsigned_abs() << 8 | u64::from(attempt);
        if fastrand::Rng::with_seed(self.seed ^ which << 16).u8(..5) == 0 {
            return Err(Failure::msg("the payment gateway does not answer"));
        }
        Ok(())
    }
}

/// Where orders come in. Several are open at once, each in a thread and with a connection of its
/// own.
pub struct Till<'a> {
    jobs: &'a Jobs,
    ledger: &'a Ledger,
    conn: Connection,
    random: fastrand::Rng,
}

impl<'a> Till<'a> {
    pub fn open(
        jobs: &'a Jobs,
        ledger: &'a Ledger,
        flags: &Flags,
        number: u64,
    ) -> Result<Till<'a>, Fault> {
        let random = fastrand::Rng::with_seed(flags.seed.wrapping_add(number));
        Ok(Till { jobs, ledger, conn: connect(&flags.db)?, random })
    }

    pub fn take(&mut self, orders: u64) -> Result<(), Fault> {
        for _ in 0..orders {
            let order = self.take_one()?;
            // The customer is told only now: the order and all its jobs are committed.
            self.ledger.append(format_args!("ack {order}"))?;
        }
        Ok(())
    }

    /// The order and its jobs exist together or not at all.
    fn take_one(&mut self) -> Result<i64, Fault> {
        let customer = format!("customer{}@example.com", self.random.u8(..50));
        let product = PRODUCTS[self.random.usize(..PRODUCTS.len())];
        let cents = self.random.i64(500..20_000);
        let jobs = self.jobs;
        jobs.transaction(&mut self.conn, |tx| {
            tx.execute(
                "INSERT INTO orders (customer, product, cents) VALUES (?1, ?2, ?3)",
                params![customer, product, cents],
            )?;
            let order = tx.last_insert_rowid();
            jobs.enqueue_in(tx, Payment { order })?;
            jobs.enqueue_in(tx, Inventory { order })?;
            jobs.enqueue_in(tx, Confirmation { order })?;
            jobs.enqueue_in(tx, Analytics { order })?;
            jobs.enqueue_in(tx, Notification { order })?;
            jobs.enqueue_in(tx, NewJob::new(ReviewReminder { order }).delay(REVIEW_AFTER))?;
            Ok(order)
        })
    }
}

/// A record outside the database, as a bank or a customer would keep it.
pub struct Ledger(Option<File>);

impl Ledger {
    pub fn open(path: Option<&Path>) -> io::Result<Ledger> {
        let open = |path| OpenOptions::new().append(true).create(true).open(path);
        Ok(Ledger(path.map(open).transpose()?))
    }

    fn try_clone(&self) -> io::Result<Ledger> {
        Ok(Ledger(self.0.as_ref().map(File::try_clone).transpose()?))
    }

    /// Appends a line in a single write, so that lines of several threads do not mix and a kill
    /// leaves no half ones.
    pub fn append(&self, line: impl Display) -> io::Result<()> {
        match &self.0 {
            Some(file) => (&*file).write_all(format!("{line}\n").as_bytes()),
            None => Ok(()),
        }
    }

    pub fn start(&self, order: i64, attempt: u32) -> io::Result<()> {
        let thread = thread::current();
        let worker = thread.name().unwrap_or("unnamed");
        self.append(format_args!("start {order} {attempt} {worker}"))
    }
}
