//! A life to record: what a program does with its file, each acknowledgement marked by a line.
//!
//! Marks: `acked ID...` and `kept ID` (enqueued on the handle; in a transaction of the app), `ran ID`
//! (its end is committed), `stepped ID STEP`,
//! `will VERB WHAT` before a control action and `did VERB WHAT` after it.

use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use legwork::{
    Context, Durability, Engine, Failure, Job, JobId, JobOptions, JobResult, Jobs, NewJob, Outcome,
    Pool, ResultExt, Retry, Scope,
};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

use crate::common::{SOON, say};

/// What a recorded process is to do.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub level: Durability,
    /// A file that legwork makes, or one that the app has made before, with smaller pages.
    pub new_file: bool,
    /// How much it does.
    pub work: usize,
}

impl Life {
    pub fn role(self) -> String {
        format!("{:?} {} {}", self.level, self.new_file, self.work)
    }

    pub fn from_role(role: &str) -> Life {
        let parts: Vec<_> = role.split(' ').collect();
        let level = match parts[0] {
            "Strict" => Durability::Strict,
            "Relaxed" => Durability::Relaxed,
            _ => Durability::Synced,
        };
        Life { level, new_file: parts[1].parse().unwrap(), work: parts[2].parse().unwrap() }
    }

    /// Two sessions; both close the file in order.
    pub fn live(self, file: &Path) {
        if !self.new_file {
            let app = Connection::open(file).unwrap();
            app.execute_batch("PRAGMA page_size = 1024").unwrap();
            app.execute_batch(TABLES).unwrap();
        }
        for session in 0..2 {
            let jobs = Jobs::builder(file).durability(self.level).open().unwrap();
            let mut app = connect(file);
            app.execute_batch(TABLES).unwrap();
            if session == 0 {
                // While the app is alone its commits begin the WAL anew every few turns.
                app.pragma_update(None, "wal_autocheckpoint", 20).unwrap();
                enqueue_in_turn(&jobs, &mut app, self.work.min(8));
                controls(&jobs);
                work(&jobs, file, app, self.work.div_ceil(5));
            } else {
                controls(&jobs);
                work(&jobs, file, app, self.work);
                if !self.new_file {
                    let_legwork_begin_the_wal_anew(&jobs, file);
                }
            }
            close(jobs, file);
        }
    }
}

/// Its commits take the WAL into the database from a thousand pages on.
fn let_legwork_begin_the_wal_anew(jobs: &Jobs, file: &Path) {
    const ENOUGH: u64 = 1000 * (1024 + 24);
    let wal = file.with_extension("db-wal");
    // Of a kind that nobody runs.
    let large = || NewJob::of_kind("large", serde_json::json!("x".repeat(20_000)));
    while wal.metadata().unwrap().len() <= ENOUGH {
        mark_acked(&[jobs.enqueue(large()).unwrap()]);
    }
    (0..3).for_each(|_| drop(enqueue_in_bulk(jobs, 5)));
}

/// The last connection that closes takes the WAL into the database and removes it, unless it can
/// only read, as those of the handle that closes last.
fn close(jobs: Jobs, file: &Path) {
    let app = connect(file);
    app.query_row("SELECT count(*) FROM orders", [], |_| Ok(())).unwrap();
    drop(jobs);
    drop(app);
}

/// The handle, then the app, and nobody else.
fn enqueue_in_turn(jobs: &Jobs, app: &mut Connection, turns: usize) {
    for _ in 0..turns {
        let _ = enqueue_in_bulk(jobs, 5);
        let _ = enqueue_orders(jobs, app, 1);
    }
}

const TABLES: &str = "CREATE TABLE IF NOT EXISTS orders (job INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS paid (job INTEGER PRIMARY KEY)";

fn connect(file: &Path) -> Connection {
    let app = Connection::open(file).unwrap();
    app.busy_timeout(SOON).unwrap();
    app
}

/// Waiting jobs are cancelled, deleted; queues paused and resumed. One of each stays so.
fn controls(jobs: &Jobs) {
    let later = || NewJob::new(Task { n: 0 }).delay(Duration::from_secs(3600));
    let ids = jobs.enqueue_many([later(), later(), later(), later(), later()]).unwrap();
    mark_acked(&ids);
    for (at, id) in ids.into_iter().enumerate() {
        match at {
            0 | 1 => control("cancel", &id, || jobs.cancel(id).map(drop)),
            2 | 3 => control("delete", &id, || jobs.delete(id).map(drop)),
            _ => {}
        }
    }
    for queue in ["a", "b"] {
        control("pause", &queue, || jobs.pause(Scope::Queue(queue.to_owned())));
    }
    control("resume", &"a", || jobs.resume(Scope::Queue("a".to_owned())));
}

fn control(verb: &str, what: &dyn std::fmt::Display, act: impl Fn() -> legwork::Result<()>) {
    say(&format!("mark will {verb} {what}"));
    act().unwrap();
    say(&format!("mark did {verb} {what}"));
}

fn mark_acked(ids: &[JobId]) {
    let ids: Vec<_> = ids.iter().map(JobId::to_string).collect();
    say(&format!("mark acked {}", ids.join(" ")));
}

/// Everything at once: two threads enqueue, a third in the app's transactions, four workers run.
fn work(jobs: &Jobs, file: &Path, mut app: Connection, amount: usize) {
    let engine = Engine::builder(jobs)
        .register::<Task>()
        .register::<Parent>()
        .register::<Child>()
        .register::<Stepwise>()
        .register_with::<Receipt>(Mutex::new(connect(file)))
        .pool(Pool::new(["*"]).workers(4))
        .start()
        .unwrap();
    let mut ids: Vec<JobId> = thread::scope(|scope| {
        let threads = [
            scope.spawn(|| enqueue_alone(jobs, amount)),
            scope.spawn(|| enqueue_in_bulk(jobs, amount)),
            scope.spawn(|| enqueue_orders(jobs, &mut app, amount)),
        ];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    ids.sort_by_key(|id| id.0);
    ids.iter().for_each(|&id| wait_for(jobs, id));
    // Tasks only: what parents and receipts have done is done once.
    let again = jobs.list(&legwork::Filter::new().kind(Task::KIND), None, 8).unwrap().jobs;
    for id in again.iter().filter(|job| job.state.is_finished()).map(|job| job.id) {
        control("retry", &id, || jobs.retry(id).map(drop));
        wait_for(jobs, id);
    }
    engine.stop(SOON).unwrap();
}

fn wait_for(jobs: &Jobs, id: JobId) {
    jobs.wait(id, SOON).unwrap();
    say(&format!("mark ran {id}"));
}

fn enqueue_alone(jobs: &Jobs, amount: usize) -> Vec<JobId> {
    let enqueue = |n: usize| {
        let id = match n % 4 {
            0 => jobs.enqueue(Parent),
            2 => jobs.enqueue(Stepwise),
            _ => jobs.enqueue(Task { n: n as i64 }),
        };
        let id = id.unwrap();
        mark_acked(&[id]);
        if n.is_multiple_of(3) {
            wait_for(jobs, id);
        }
        id
    };
    (0..amount).map(enqueue).collect()
}

fn enqueue_in_bulk(jobs: &Jobs, amount: usize) -> Vec<JobId> {
    let enqueue = |n: usize| {
        let tasks = (0..5).map(|at| Task { n: (n * 5 + at) as i64 });
        let ids = jobs.enqueue_many(tasks).unwrap();
        mark_acked(&ids);
        ids
    };
    (0..amount.div_ceil(5)).flat_map(enqueue).collect()
}

fn enqueue_orders(jobs: &Jobs, app: &mut Connection, amount: usize) -> Vec<JobId> {
    let mut order = |n: usize| {
        let tx = app.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let id = jobs.enqueue_in(&tx, Receipt).unwrap();
        tx.execute("INSERT INTO orders VALUES (?1)", [id.0]).unwrap();
        if n % 4 == 3 {
            tx.rollback().unwrap();
            return None;
        }
        tx.commit().unwrap();
        say(&format!("mark kept {id}"));
        Some(id)
    };
    (0..amount.div_ceil(2)).filter_map(&mut order).collect()
}

fn at_once() -> JobOptions {
    JobOptions::new().retry(Retry::fixed(Duration::from_millis(1)).jitter(0.0).attempts(3))
}

/// Completes, or fails first, or fails for good.
#[derive(Serialize, Deserialize)]
pub struct Task {
    n: i64,
}

impl Job for Task {
    const KIND: &'static str = "task";
    type State = ();

    fn options() -> JobOptions {
        at_once()
    }

    fn perform(&self, cx: &Context) -> JobResult {
        cx.log("begins");
        match self.n % 8 {
            3 if cx.attempt() == 1 => Err(Failure::msg("not yet")),
            5 => Err(Failure::msg("never")).fatal(),
            _ => Ok(Outcome::Done),
        }
    }
}

/// Enqueues a child with its finish.
#[derive(Serialize, Deserialize)]
struct Parent;

impl Job for Parent {
    const KIND: &'static str = "parent";
    type State = ();

    fn perform(&self, cx: &Context) -> JobResult {
        cx.enqueue_with_finish(Child { parent: cx.id().0 })?;
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Child {
    parent: i64,
}

impl Job for Child {
    const KIND: &'static str = "child";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// Two steps, and a failed attempt between them; its cursor is not synced.
#[derive(Serialize, Deserialize)]
struct Stepwise;

impl Job for Stepwise {
    const KIND: &'static str = "stepwise";
    type State = ();

    fn options() -> JobOptions {
        at_once()
    }

    fn perform(&self, cx: &Context) -> JobResult {
        cx.cursor::<u32>("rows")?.save(&cx.attempt())?;
        for step in 1..=2 {
            cx.step(&format!("step {step}"), || Ok(step))?;
            say(&format!("mark stepped {} {step}", cx.id()));
            if cx.attempt() == step {
                return Err(Failure::msg("not yet"));
            }
        }
        Ok(Outcome::Done)
    }
}

/// Finishes in the app's own transaction.
#[derive(Serialize, Deserialize)]
struct Receipt;

impl Job for Receipt {
    const KIND: &'static str = "receipt";
    type State = Mutex<Connection>;

    fn options() -> JobOptions {
        at_once()
    }

    fn perform(&self, cx: &Context<Mutex<Connection>>) -> JobResult {
        let mut app = cx.state().lock().unwrap();
        let tx = app.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("INSERT INTO paid VALUES (?1)", [cx.id().0])?;
        cx.finish_in(&tx)?;
        tx.commit()?;
        Ok(Outcome::Done)
    }
}
