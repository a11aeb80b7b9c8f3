//! Several processes on one file: they hear of each other at once, nothing runs twice, and what one
//! asks for reaches the others. Each process is this test binary again, see [`worker`].

mod controls;
mod doorbell;
mod places;
mod race;
mod rescue;
mod waiting;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use legwork::{
    Context, Engine, Job, JobId, JobOptions, JobResult, Jobs, NewJob, Outcome, Pool, Retry, Scope,
    State,
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::common::{self, Child, Place, SOON, say, until};

// ---- what the jobs do ------------------------------------------------------------------------

/// What a job does between its start and its end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Deed {
    /// Waits until its process is told to release it.
    Hold,
    /// Works for so many microseconds.
    Work(u64),
    /// Writes a line to the ledger beside the file, and tells nobody.
    Note,
}

#[derive(Serialize, Deserialize)]
struct Told {
    deed: Deed,
}

fn held() -> NewJob {
    NewJob::new(Told { deed: Deed::Hold })
}

fn work(micros: u64) -> NewJob {
    NewJob::new(Told { deed: Deed::Work(micros) })
}

/// What the process was told to release.
static RELEASED: Mutex<BTreeSet<JobId>> = Mutex::new(BTreeSet::new());

impl Job for Told {
    const KIND: &'static str = "told";
    type State = std::path::PathBuf;

    fn options() -> JobOptions {
        JobOptions::new().retry(Retry::none())
    }

    fn perform(&self, cx: &Context<Self::State>) -> JobResult {
        let id = cx.id();
        if matches!(self.deed, Deed::Note) {
            let ledger = OpenOptions::new().create(true).append(true).open(cx.state())?;
            (&ledger).write_all(format!("{id} {}\n", std::process::id()).as_bytes())?;
            return Ok(Outcome::Done);
        }
        say(&format!("start {id}"));
        let interrupted = match self.deed {
            Deed::Work(micros) => cx.wait(Duration::from_micros(micros)).err(),
            _ => std::iter::repeat_with(|| cx.wait(Duration::from_millis(5)))
                .find(|waited| waited.is_err() || RELEASED.lock().unwrap().contains(&id))
                .and_then(Result::err),
        };
        if let Some(interrupt) = interrupted {
            say(&format!("interrupted {id}"));
            return Err(interrupt.into());
        }
        say(&format!("end {id}"));
        Ok(Outcome::Done)
    }
}

fn ledger(db: &Path) -> std::path::PathBuf {
    db.with_extension("ledger")
}

// ---- the child -------------------------------------------------------------------------------

/// The number after a word of the child's role.
fn setting(role: &str, word: &str) -> Option<u64> {
    let mut words = role.split(' ').skip_while(|found| *found != word);
    words.nth(1).map(|number| number.parse().unwrap())
}

/// A process that does as it is told by lines. Its role: `sweep MS` (0: none), `workers N` (without
/// it, no engine).
#[test]
#[ignore = "child process of the tests of several processes"]
fn worker() {
    let Some(db) = common::child_file() else { return };
    let role = common::child_role();
    let sweep = Duration::from_millis(setting(&role, "sweep").unwrap_or(0));
    let jobs = Jobs::builder(&db).sweep(sweep).busy_timeout(SOON).open().unwrap();
    if role.contains("foreign") {
        leave_a_row_with_our_names(&db);
    }
    let engine = setting(&role, "workers").map(|workers| {
        Engine::builder(&jobs)
            .state(ledger(&db))
            .register::<Told>()
            .pool(Pool::new(["*"]).workers(workers as usize))
            .crash_limit(0)
            .start()
            .unwrap()
    });
    say("ready");
    for line in io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "end" {
            break;
        }
        obey(&jobs, &db, &words);
    }
    if let Some(engine) = engine {
        engine.stop(SOON).unwrap();
    }
}

/// A row as a copied file brings it from a process with our id, on another machine.
fn leave_a_row_with_our_names(db: &Path) {
    Connection::open(db)
        .unwrap()
        .execute(
            "INSERT INTO legwork_instances (id, lock_file, lock_inode, db_path, db_inode, boot_id,
                                            pid, pid_start, pid_space, started_at)
             VALUES (-1, ?1, 1, '/elsewhere', 1, 'elsewhere', ?2, 1, 'elsewhere', 1)",
            rusqlite::params![format!("{}-0-0.lock", std::process::id()), std::process::id()],
        )
        .unwrap();
}

fn obey(jobs: &Jobs, db: &Path, words: &[&str]) {
    let number = || words[1].parse::<i64>().unwrap();
    let id = || JobId(number());
    let connect = || {
        let conn = Connection::open(db).unwrap();
        conn.busy_timeout(SOON).unwrap();
        conn
    };
    let enqueued = |id: JobId| say(&format!("enqueued {id}"));
    match words[0] {
        "enqueue" => enqueued(jobs.enqueue(work(0)).unwrap()),
        "hold" => enqueued(jobs.enqueue(held()).unwrap()),
        "delay" => {
            let delay = Duration::from_millis(number().unsigned_abs());
            enqueued(jobs.enqueue(work(0).delay(delay)).unwrap());
        }
        "enqueue_in" => {
            let mut conn = connect();
            let tx = conn.transaction().unwrap();
            let id = jobs.enqueue_in(&tx, work(0)).unwrap();
            tx.commit().unwrap();
            enqueued(id);
        }
        "transaction" => {
            let done = jobs.transaction(&mut connect(), |tx| jobs.enqueue_in(tx, work(0)));
            enqueued(done.unwrap());
        }
        "pause" => {
            jobs.pause(Scope::Queue("default".into())).unwrap();
            say("paused");
        }
        "resume" => {
            jobs.resume(Scope::Queue("default".into())).unwrap();
            say("resumed");
        }
        "wait" => {
            say("waiting");
            // Longer than the parent is patient: only being told ends it in time.
            let state = match jobs.wait(id(), Duration::from_secs(3600)) {
                Ok(job) => job.state.to_string(),
                Err(error) => error.to_string(),
            };
            say(&format!("waited {state}"));
        }
        "release" => drop(RELEASED.lock().unwrap().insert(id())),
        word => panic!("{word}: no such order"),
    }
}

// ---- the parent ------------------------------------------------------------------------------

/// A child and all that it has said: a worker and the main thread of it speak in any order.
struct Process {
    child: Child,
    said: Vec<String>,
}

impl Process {
    fn read(&mut self) {
        self.said.push(self.child.line().expect("the child ended before it said the line"));
    }

    /// The place of the first line that is wanted.
    fn find(&mut self, wanted: impl Fn(&str) -> bool) -> usize {
        let mut looked_at = 0;
        loop {
            if let Some(at) = self.said[looked_at..].iter().position(|line| wanted(line)) {
                return looked_at + at;
            }
            looked_at = self.said.len();
            self.read();
        }
    }

    /// Takes the rest of its first line that begins with `word`.
    fn wait_for(&mut self, word: &str) -> String {
        let at = self.find(|line| line.starts_with(word));
        self.said.remove(at)[word.len()..].trim().to_owned()
    }

    /// Waits until it has said this line.
    fn hear(&mut self, line: &str) {
        self.find(|said| said == line);
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn tell(&mut self, line: &str) {
        self.child.tell(line);
    }

    /// Has it enqueue; the job's id.
    fn enqueued(&mut self, order: &str) -> JobId {
        self.tell(order);
        self.wait_for("enqueued").parse().unwrap()
    }

    fn kill(self) {
        self.child.kill();
    }

    /// Has it end; all that it has said.
    fn end(mut self) -> Vec<String> {
        self.tell("end");
        self.said.extend(self.child.end());
        self.said
    }

    /// SIGSTOP while it does not hold the write lock, with which it would stop everybody.
    fn stop(&self, place: &Place) {
        let conn = place.connect();
        conn.busy_timeout(Duration::from_millis(100)).unwrap();
        until("it is stopped outside of a transaction", || {
            signal("-STOP", self);
            until("all its threads stand still", || stands_still(self.id()));
            let free = conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
            if !free {
                self.go_on();
            }
            free
        });
    }

    fn go_on(&self) {
        signal("-CONT", self);
    }
}

/// Whether the kernel has stopped all threads of a process; the signal alone is only on its way.
fn stands_still(process: u32) -> bool {
    std::fs::read_dir(format!("/proc/{process}/task")).unwrap().all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

fn signal(name: &str, process: &Process) {
    let done = std::process::Command::new("kill").args([name, &process.id().to_string()]).status();
    assert!(done.unwrap().success());
}

fn process(place: &Place, role: &str) -> Process {
    let child = Child::start("processes::worker", &place.path, role);
    let mut process = Process { child, said: Vec::new() };
    process.wait_for("ready");
    process
}

/// An engine whose workers have worked and wait for more.
fn idle_engine(place: &Place, role: &str) -> Process {
    let mut child = process(place, role);
    let id = child.enqueued("enqueue");
    child.tell(&format!("wait {id}"));
    child.hear("waited completed");
    child
}

fn ask<T: rusqlite::types::FromSql>(place: &Place, sql: &str) -> T {
    let conn = place.connect();
    conn.busy_timeout(SOON).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Completed by its first attempt, which nobody cut off.
#[track_caller]
fn completed_undisturbed(jobs: &Jobs, id: JobId) {
    let job = jobs.wait(id, SOON).unwrap();
    assert_eq!((job.state, job.attempts), (State::Completed, 1));
    assert_eq!(jobs.attempts(id).unwrap(), []);
}
