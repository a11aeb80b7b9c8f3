//! What must be in the file, by the acknowledgements so far, and what is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use legwork::{Durability, Jobs};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::types::FromSql;

/// What is known of one job.
#[derive(Default)]
struct Known {
    /// Enqueued in a transaction of the app.
    by_app: bool,
    ran: bool,
    /// How many of its steps have returned.
    steps: i64,
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
    /// Steps that had returned and are not stored.
    pub forgotten: Vec<String>,
    /// Acknowledged control actions that did not happen.
    pub undone: Vec<String>,
    /// Jobs that had finished and have not.
    pub unfinished: Vec<i64>,
    /// What must not be at any level.
    pub broken: Vec<String>,
}

impl Verdict {
    /// Whether this must not be at a level. What the app commits itself is synced at all of them.
    pub fn breaks(&self, level: Durability) -> bool {
        let always = !self.broken.is_empty() || !self.lost_of_app.is_empty();
        let synced = !self.lost.is_empty() || !self.undone.is_empty() || !self.forgotten.is_empty();
        match level {
            Durability::Relaxed => always,
            Durability::Strict => always || synced || !self.unfinished.is_empty(),
            _ => always || synced,
        }
    }
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
            ["stepped", id, step] => self.job(id).steps = step.parse().unwrap(),
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
        let mut verdict = Verdict { broken: found.broken.clone(), ..Verdict::default() };
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
        match (found.jobs.get(&id).map(|row| row.state), control) {
            (None, Some(("delete", _))) => {}
            // Ids follow the order of commits: what is missing below the last is a hole.
            (None, _) if id <= found.last_job => {
                verdict.broken.push(format!("{id} is missing, {} is there", found.last_job));
            }
            (None, _) if known.by_app => verdict.lost_of_app.push(id),
            (None, _) => verdict.lost.push(id),
            (Some(_), Some(("delete", true))) => verdict.undone.push(format!("delete {id}")),
            (Some(state), Some(("cancel", true))) if state != CANCELLED => {
                verdict.undone.push(format!("cancel {id}"));
            }
            // They go when the job completes.
            (Some(state), _) if state != COMPLETED && found.steps_of(id) < known.steps => {
                verdict.forgotten.push(format!("step {} of {id}", known.steps));
            }
            (Some(state), _) if known.ran && state < COMPLETED => verdict.unfinished.push(id),
            (Some(_), _) => {}
        }
    }
}

/// The numbers in `schema.sql`.
const COMPLETED: i64 = 6;
const CANCELLED: i64 = 8;

/// A row of `legwork_jobs` or `legwork_history`.
struct Row {
    state: i64,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    Parent,
    Child { parent: i64 },
    Receipt,
    Other,
}

/// What is in a file.
#[derive(Default)]
struct Found {
    jobs: HashMap<i64, Row>,
    last_job: i64,
    /// How many finished steps are stored of a job.
    steps: HashMap<i64, i64>,
    paused: BTreeSet<String>,
    orders: BTreeSet<i64>,
    paid: BTreeSet<i64>,
    broken: Vec<String>,
}

/// What must find nothing.
const STRAYS: [(&str, &str); 4] = [
    ("errors", "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    (
        "instances above the counter",
        "SELECT count(*) FROM legwork_instances
          WHERE id > (SELECT last_instance FROM legwork_counter)",
    ),
    (
        "steps of no job, or of a completed one",
        "SELECT count(*) FROM legwork_steps
          WHERE job NOT IN (SELECT id FROM legwork_jobs
                             UNION ALL SELECT id FROM legwork_history WHERE state <> 6)",
    ),
    (
        "claims of nobody",
        "SELECT count(*) FROM legwork_jobs
          WHERE instance IS NOT NULL AND instance NOT IN (SELECT id FROM legwork_instances)",
    ),
];

const ALL_JOBS: &str = "
    SELECT jobs.id, state, kind, args ->> 'parent'
      FROM legwork_jobs AS jobs JOIN legwork_lanes AS lanes ON lanes.id = lane
     UNION ALL
    SELECT jobs.id, state, kind, args ->> 'parent'
      FROM legwork_history AS jobs JOIN legwork_lanes AS lanes ON lanes.id = lane";

impl Found {
    fn in_file(file: &Path) -> Result<Found, String> {
        let conn = Connection::open(file).map_err(|error| error.to_string())?;
        // The last connection that closes would copy the whole WAL.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        let jobs = Jobs::open(file).map_err(|error| format!("legwork refuses it: {error}"))?;
        let mut found = Found::default();
        found.read(&conn).map_err(|error| error.to_string())?;
        drop(jobs);
        found.look_for_contradictions();
        Ok(found)
    }

    fn read(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        for (what, sql) in STRAYS {
            let count = number(sql)?;
            self.must_not(count > 0, || format!("{count} {what}"));
        }
        let mut all = conn.prepare(ALL_JOBS)?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let kind = match row.get_ref(2)?.as_str()? {
                "parent" => Kind::Parent,
                "child" => Kind::Child { parent: row.get(3)? },
                "receipt" => Kind::Receipt,
                _ => Kind::Other,
            };
            let twice = self.jobs.insert(id, Row { state: row.get(1)?, kind }).is_some();
            self.must_not(twice, || format!("{id} is both finished and not"));
        }
        self.last_job = number("SELECT last_job FROM legwork_counter")?;
        let steps = "SELECT job, count(*) FROM legwork_steps WHERE sort = 'step' GROUP BY job";
        let mut steps = conn.prepare(steps)?;
        self.steps =
            steps.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        self.paused = set(conn, "SELECT name FROM legwork_pauses")?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('orders', 'paid')";
        if number(tables)? == 2 {
            self.orders = set(conn, "SELECT job FROM orders")?;
            self.paid = set(conn, "SELECT job FROM paid")?;
        }
        Ok(())
    }

    fn steps_of(&self, id: i64) -> i64 {
        self.steps.get(&id).copied().unwrap_or(0)
    }

    fn must_not(&mut self, wrong: bool, what: impl FnOnce() -> String) {
        if wrong {
            self.broken.push(what());
        }
    }

    /// What one transaction wrote must be there together.
    fn look_for_contradictions(&mut self) {
        let those = |wanted: &dyn Fn(&Row) -> bool| {
            let jobs = self.jobs.iter().filter(|(_, row)| wanted(row));
            jobs.map(|(&id, _)| id).collect::<BTreeSet<i64>>()
        };
        let receipts = those(&|row| row.kind == Kind::Receipt);
        let settled = those(&|row| row.kind == Kind::Receipt && row.state == COMPLETED);
        let done = those(&|row| row.kind == Kind::Parent && row.state == COMPLETED);
        let with_child: BTreeSet<i64> = self
            .jobs
            .values()
            .filter_map(|row| match row.kind {
                Kind::Child { parent } => Some(parent),
                _ => None,
            })
            .collect();
        let highest = self.jobs.keys().max().copied().unwrap_or(0);
        let last = self.last_job;
        self.must_not(receipts != self.orders, || "orders and their jobs differ".to_owned());
        self.must_not(settled != self.paid, || "payments and finished jobs differ".to_owned());
        self.must_not(done != with_child, || "parents and children differ".to_owned());
        self.must_not(highest > last, || format!("{highest} is there, the counter says {last}"));
    }
}

fn set<T: FromSql + Ord>(conn: &Connection, sql: &str) -> rusqlite::Result<BTreeSet<T>> {
    conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use legwork::NewJob;

    use super::*;
    use crate::common::{Place, place};

    /// Fifty acknowledged jobs in a file that was closed in order.
    fn fifty() -> (Place, Account) {
        let place = place();
        let jobs = place.open();
        let job = || NewJob::of_kind("task", serde_json::json!({ "text": "x".repeat(200) }));
        let ids = jobs.enqueue_many((0..50).map(|_| job())).unwrap();
        let mut account = Account::default();
        ids.iter().for_each(|id| account.note(&format!("acked {id}")));
        (place, account)
    }

    fn after(sql: &str, marks: &[&str]) -> Verdict {
        let (place, mut account) = fifty();
        place.connect().execute_batch(sql).unwrap();
        marks.iter().for_each(|mark| account.note(mark));
        account.check(&place.path)
    }

    #[test]
    fn a_file_as_it_should_be_is_found_so() {
        assert_eq!(after("", &[]), Verdict::default());
        let delete = "DELETE FROM legwork_jobs WHERE id = 7";
        assert_eq!(after(delete, &["will delete 7"]), Verdict::default());
        assert_eq!(after(delete, &["will delete 7", "did delete 7"]), Verdict::default());
    }

    #[test]
    fn what_is_missing_or_too_much_is_noticed() {
        assert_eq!(after("", &["acked 51 52"]).lost, [51, 52]);
        assert_eq!(after("", &["kept 51"]).lost_of_app, [51]);
        assert_eq!(after("", &["ran 3"]).unfinished, [3]);
        assert_eq!(after("", &["stepped 3 2"]).forgotten, ["step 2 of 3"]);
        assert_eq!(after("", &["did cancel 3"]).undone, ["cancel 3"]);
        assert_eq!(after("", &["did delete 3"]).undone, ["delete 3"]);
        assert_eq!(after("", &["did pause a"]).undone, ["pause a"]);
        for sql in [
            "DELETE FROM legwork_jobs WHERE id = 7",
            "UPDATE legwork_counter SET last_job = 49",
            "INSERT INTO legwork_history (id, lane, state, priority, run_at, enqueued_at, attempts,
                                          finished_at, prune_at, args)
             SELECT id, lane, 6, 0, 0, 0, 1, 0, 0, args FROM legwork_jobs WHERE id = 7",
            "UPDATE legwork_jobs SET instance = 9, token = 1 WHERE id = 7",
            "CREATE TABLE orders (job); CREATE TABLE paid (job); INSERT INTO orders VALUES (7)",
            "UPDATE legwork_lanes SET kind = 'receipt'",
            "INSERT INTO legwork_steps VALUES (51, 1, 'a', 'step', 1, 0, '1')",
            "UPDATE legwork_lanes SET kind = 'child';
             UPDATE legwork_jobs SET args = '{\"parent\":1}'",
        ] {
            assert!(!after(sql, &[]).broken.is_empty(), "{sql}");
        }
    }

    #[test]
    fn flipped_bytes_in_any_page_of_the_database_are_noticed() {
        let (place, account) = fifty();
        let sound = std::fs::read(&place.path).unwrap();
        // The second page says of each page whose it is, for a vacuum; nobody else reads what it says of roots,
        // not even SQLite's own check.
        for page in (0..sound.len() / 4096).filter(|page| *page != 1) {
            let mut bytes = sound.clone();
            bytes[page * 4096..][..16].iter_mut().for_each(|byte| *byte ^= 0x5a);
            std::fs::write(&place.path, bytes).unwrap();
            assert!(!account.check(&place.path).broken.is_empty(), "page {page}");
        }
        std::fs::write(&place.path, sound).unwrap();
        assert_eq!(account.check(&place.path), Verdict::default());
    }
}
