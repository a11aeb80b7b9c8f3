//! What must be in the file, by the acknowledgements so far, and what is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use legwork::Jobs;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// What is known of one job.
#[derive(Default)]
struct Known {
    /// Enqueued in a transaction of the app.
    by_app: bool,
    ran: bool,
    /// The last control action on it, and whether it was acknowledged.
    control: Option<(String, bool)>,
}

/// What was acknowledged so far.
#[derive(Default)]
pub struct Account {
    jobs: BTreeMap<i64, Known>,
    /// The last verb for each queue, and whether it was acknowledged.
    queues: HashMap<String, (String, bool)>,
}

/// What a file lacks or has too much.
#[derive(Default, Debug, PartialEq)]
pub struct Verdict {
    /// Acknowledged enqueues that are not in the file: on the handle, by the app.
    pub lost: Vec<i64>,
    pub lost_of_app: Vec<i64>,
    /// Acknowledged control actions that did not happen.
    pub undone: Vec<String>,
    /// Jobs that had finished and have not.
    pub unfinished: Vec<i64>,
    /// What must not be at any level.
    pub broken: Vec<String>,
}

const CONTROLS_OF_JOBS: [&str; 3] = ["cancel", "delete", "retry"];

impl Account {
    pub fn note(&mut self, mark: &str) {
        let words: Vec<&str> = mark.split(' ').collect();
        match words[..] {
            ["acked", ..] => {
                for id in &words[1..] {
                    self.job(id);
                }
            }
            ["kept", id] => self.job(id).by_app = true,
            ["ran", id] => self.job(id).ran = true,
            [when @ ("will" | "did"), verb, what] => {
                let control = (verb.to_owned(), when == "did");
                if CONTROLS_OF_JOBS.contains(&verb) {
                    let job = self.job(what);
                    job.control = Some(control);
                    job.ran &= verb != "retry" || when == "did";
                } else {
                    self.queues.insert(what.to_owned(), control);
                }
            }
            _ => panic!("not understood: {mark}"),
        }
    }

    fn job(&mut self, id: &str) -> &mut Known {
        self.jobs.entry(id.parse().unwrap()).or_default()
    }

    /// Opens the file as a program does after a power cut and looks into it.
    pub fn check(&self, file: &Path) -> Verdict {
        match Found::in_file(file) {
            Ok(found) => self.compare(&found),
            Err(broken) => Verdict { broken: vec![broken], ..Verdict::default() },
        }
    }

    fn compare(&self, found: &Found) -> Verdict {
        let mut verdict = Verdict { broken: found.contradictions(), ..Verdict::default() };
        for (&id, known) in &self.jobs {
            self.compare_job(id, known, found, &mut verdict);
        }
        for (queue, (verb, acknowledged)) in &self.queues {
            if *acknowledged && found.paused.contains(queue) != (verb == "pause") {
                verdict.undone.push(format!("{verb} {queue}"));
            }
        }
        verdict
    }

    fn compare_job(&self, id: i64, known: &Known, found: &Found, verdict: &mut Verdict) {
        let control = known.control.as_ref().map(|(verb, done)| (verb.as_str(), *done));
        match (found.jobs.get(&id), control) {
            (None, Some(("delete", _))) => {}
            // Ids follow the order of commits: what is missing below the last is a hole.
            (None, _) if id <= found.last_job => {
                verdict.broken.push(format!("{id} is missing, {} is there", found.last_job));
            }
            (None, _) if known.by_app => verdict.lost_of_app.push(id),
            (None, _) => verdict.lost.push(id),
            (Some(_), Some(("delete", true))) => verdict.undone.push(format!("delete {id}")),
            (Some(&state), Some(("cancel", true))) if state != CANCELLED => {
                verdict.undone.push(format!("cancel {id}"));
            }
            (Some(&state), _) if known.ran && state < COMPLETED => verdict.unfinished.push(id),
            (Some(_), _) => {}
        }
    }
}

/// The numbers in `schema.sql`.
const COMPLETED: i64 = 6;
const CANCELLED: i64 = 8;

/// What is in a file.
struct Found {
    /// The states of all jobs.
    jobs: HashMap<i64, i64>,
    /// Jobs that are in both tables.
    twice: Vec<i64>,
    last_job: i64,
    paused: BTreeSet<String>,
    /// Each a query that must find nothing, and what it found.
    strays: Vec<(&'static str, i64)>,
}

impl Found {
    fn in_file(file: &Path) -> Result<Found, String> {
        let conn = Connection::open(file).map_err(|error| error.to_string())?;
        // The last connection that closes would copy the whole WAL.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        let jobs = Jobs::open(file).map_err(|error| format!("legwork refuses it: {error}"))?;
        let found = Found::read(&conn).map_err(|error| error.to_string())?;
        drop(jobs);
        Ok(found)
    }

    fn read(conn: &Connection) -> rusqlite::Result<Found> {
        let mut jobs = HashMap::new();
        let mut twice = Vec::new();
        let mut read = conn.prepare(
            "SELECT id, state FROM legwork_jobs UNION ALL SELECT id, state FROM legwork_history",
        )?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            if jobs.insert(row.get(0)?, row.get(1)?).is_some() {
                twice.push(row.get(0)?);
            }
        }
        let mut paused = conn.prepare("SELECT name FROM legwork_pauses")?;
        let paused = paused.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('orders', 'paid')";
        let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        let with_app = number(tables)? == 2;
        let asked = WITHOUT_APP.iter().chain(WITH_APP.iter().filter(|_| with_app));
        let strays = asked.map(|&(what, sql)| Ok((what, number(sql)?)));
        let mut strays = strays.collect::<rusqlite::Result<Vec<_>>>()?;
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        strays.push(("errors found by integrity_check", i64::from(sound != "ok")));
        let last_job = number("SELECT last_job FROM legwork_counter")?;
        Ok(Found { jobs, twice, last_job, paused, strays })
    }

    fn contradictions(&self) -> Vec<String> {
        let strays = self.strays.iter().filter(|(_, count)| *count > 0);
        let mut broken: Vec<_> = strays.map(|(what, count)| format!("{count} {what}")).collect();
        if !self.twice.is_empty() {
            broken.push(format!("both finished and not: {:?}", self.twice));
        }
        if self.jobs.keys().max() > Some(&self.last_job) {
            broken.push(format!("a job's id is above the counter's {}", self.last_job));
        }
        broken
    }
}

const WITHOUT_APP: [(&str, &str); 4] = [
    (
        "instances above the counter",
        "SELECT count(*) FROM legwork_instances
          WHERE id > (SELECT last_instance FROM legwork_counter)",
    ),
    (
        "claims of nobody",
        "SELECT count(*) FROM legwork_jobs
          WHERE instance IS NOT NULL AND instance NOT IN (SELECT id FROM legwork_instances)",
    ),
    (
        "children of a parent that is not completed",
        "SELECT count(*) FROM legwork_all_jobs
          WHERE kind = 'child' AND args ->> 'parent' NOT IN
                (SELECT id FROM legwork_all_jobs WHERE kind = 'parent' AND state = 'completed')",
    ),
    (
        "completed parents without a child",
        "SELECT count(*) FROM legwork_all_jobs
          WHERE kind = 'parent' AND state = 'completed' AND id NOT IN
                (SELECT args ->> 'parent' FROM legwork_all_jobs WHERE kind = 'child')",
    ),
];

const WITH_APP: [(&str, &str); 4] = [
    (
        "orders without their job",
        "SELECT count(*) FROM orders
          WHERE job NOT IN (SELECT id FROM legwork_all_jobs WHERE kind = 'receipt')",
    ),
    (
        "jobs without their order",
        "SELECT count(*) FROM legwork_all_jobs
          WHERE kind = 'receipt' AND id NOT IN (SELECT job FROM orders)",
    ),
    (
        "payments of a job that is not completed",
        "SELECT count(*) FROM paid WHERE job NOT IN
                (SELECT id FROM legwork_all_jobs WHERE kind = 'receipt' AND state = 'completed')",
    ),
    (
        "completed jobs without their payment",
        "SELECT count(*) FROM legwork_all_jobs
          WHERE kind = 'receipt' AND state = 'completed' AND id NOT IN (SELECT job FROM paid)",
    ),
];
