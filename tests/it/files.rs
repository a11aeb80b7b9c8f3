//! What legwork does to files: what it refuses, what it leaves alone, and what it survives.

mod poisoned;
#[cfg(unix)]
mod read_only;
mod refused;

use std::fs;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use legwork::{
    Context, Engine, Error, Event, Filter, Job, JobId, JobResult, Jobs, NewJob, Outcome, Pool,
    Scope, State,
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{SOON, place, wait_for};

/// A file's bytes. Only for files that no connection of this process has open: closing such a
/// descriptor would drop SQLite's locks.
fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn refused(path: &Path) -> Error {
    match Jobs::open(path) {
        Err(error) => error,
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

fn many(jobs: &Jobs, count: u32) -> Vec<JobId> {
    let pad = "x".repeat(200);
    let job = |n| NewJob::of_kind("padded", json!({ "n": n, "pad": pad }));
    jobs.enqueue_many((0..count).map(job)).unwrap()
}

// ---- shared with the app ---------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct Quick;

impl Job for Quick {
    const KIND: &'static str = "quick";
    type State = ();
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

fn facts(conn: &Connection) -> Vec<String> {
    let mut facts = Vec::new();
    for pragma in ["user_version", "application_id", "auto_vacuum", "page_size", "encoding"] {
        let value: rusqlite::types::Value =
            conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap();
        facts.push(format!("{pragma} = {value:?}"));
    }
    let own = "SELECT name || ': ' || sql FROM sqlite_schema
                WHERE name NOT LIKE 'legwork\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                ORDER BY name";
    let mut ask = conn.prepare(own).unwrap();
    facts.extend(ask.query_map([], |row| row.get(0)).unwrap().map(|fact| fact.unwrap()));
    let total = conn.query_row("SELECT sum(total) FROM orders", [], |row| row.get::<_, i64>(0));
    facts.push(format!("total = {}", total.unwrap()));
    facts
}

#[test]
fn the_apps_tables_and_the_numbers_in_its_header_are_not_touched() {
    let place = place();
    let conn = place.connect();
    conn.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA user_version = 7; PRAGMA application_id = 1234567;
         CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER);
         CREATE INDEX orders_by_total ON orders (total);
         INSERT INTO orders (total) VALUES (30), (12);",
    )
    .unwrap();
    let before = facts(&conn);
    let jobs = place.open();
    let engine = Engine::builder(&jobs).register::<Quick>().start().unwrap();
    let id = jobs.enqueue(Quick).unwrap();
    jobs.wait(id, SOON).unwrap();
    engine.stop(SOON).unwrap();
    drop((engine, jobs));
    assert_eq!(facts(&conn), before);

    // And whatever legwork made carries its name.
    let theirs: i64 = conn
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE tbl_name NOT LIKE 'legwork\\_%' ESCAPE '\\'
                AND name NOT IN ('orders', 'orders_by_total') AND name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(theirs, 0);
}

fn journal_mode(path: &Path) -> String {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_file_in_another_journal_mode_is_turned_to_wal() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        let place = place();
        let conn = place.connect();
        conn.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(())).unwrap();
        conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        drop(conn);
        let jobs = place.open();
        let conn = place.connect();
        assert_eq!(journal_mode(&place.path), "wal");
        assert_eq!(conn.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)), Ok(1));
        drop(jobs);
    }
}

#[test]
fn a_file_in_use_that_cannot_be_turned_to_wal_is_refused_with_that_reason() {
    let place = place();
    let conn = place.connect();
    conn.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    let opened = place.builder().busy_timeout(Duration::from_millis(30)).open();
    match opened {
        Err(Error::Foreign { why, .. }) => {
            assert!(why.contains("in use") && why.contains("journal mode delete"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    conn.execute_batch("COMMIT").unwrap();
    assert_eq!(journal_mode(&place.path), "delete");
    place.open();
    assert_eq!(journal_mode(&place.path), "wal");
}

#[test]
fn an_empty_file_is_opened_like_a_new_one() {
    let place = place();
    fs::write(&place.path, b"").unwrap();
    let jobs = place.open();
    let id = jobs.enqueue(Quick).unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Ready);
}

// ---- backup ----------------------------------------------------------------------------------

struct Door {
    entered: Sender<()>,
    leave: Receiver<()>,
}

/// Runs until it is let go.
#[derive(Serialize, Deserialize)]
struct Long;

impl Job for Long {
    const KIND: &'static str = "long";
    type State = Door;
    fn perform(&self, cx: &Context<Door>) -> JobResult {
        cx.state().entered.send(())?;
        cx.state().leave.recv()?;
        Ok(Outcome::Done)
    }
}

#[test]
fn a_backup_made_while_jobs_run_is_sound_and_whole_and_holds_no_claims() {
    let place = place();
    let conn = place.connect();
    conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA user_version = 5")
        .unwrap();
    let jobs = place.open();
    let (entered, has_entered) = bounded(1);
    let (let_go, leave) = bounded(1);
    let engine = Engine::builder(&jobs)
        .state(Door { entered, leave })
        .register::<Long>()
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    let running = jobs.enqueue(Long).unwrap();
    has_entered.recv_timeout(SOON).unwrap();
    let waiting = many(&jobs, 100);

    let copy = place.dir.path().join("copy.db");
    jobs.backup(&copy).unwrap();
    let again = jobs.backup(&copy);
    assert!(matches!(again, Err(Error::ReadOnly { .. })), "{again:?}");

    let_go.send(()).unwrap();
    assert_eq!(jobs.wait(running, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();

    let conn = Connection::open(&copy).unwrap();
    let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    assert_eq!(one("SELECT count(*) FROM legwork_instances"), 0);
    assert_eq!(one("SELECT count(*) FROM legwork_jobs WHERE instance IS NOT NULL"), 0);
    assert_eq!(one("SELECT x FROM t"), 1);
    assert_eq!(one("PRAGMA user_version"), 5);
    drop(conn);
    let restored = Jobs::open(&copy).unwrap();
    assert_eq!(restored.get(running).unwrap().state, State::Ready);
    for &id in &waiting {
        assert_eq!(restored.get(id).unwrap().state, State::Ready);
    }
    // Ids go on where the original was.
    assert!(restored.enqueue(Quick).unwrap() > *waiting.last().unwrap());
}

// ---- names -----------------------------------------------------------------------------------

#[test]
fn hostile_names_and_arguments_are_only_text() {
    let hostile = [
        "'; DROP TABLE legwork_jobs; --",
        "x' OR '1'='1",
        "\"quoted\"",
        "%_*?[a-z]",
        "<script>alert(1)</script>",
        "$(rm -rf /)",
        "`id`",
        "?1",
        ":name",
        "NULL",
        "\u{202e}evil",
    ];
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    let mut ids = Vec::new();
    for name in hostile {
        let job = NewJob::of_kind(name, json!(name)).queue(name).tag(name).meta(name, name);
        ids.push((name, jobs.enqueue(job.clone()).unwrap(), jobs.enqueue_in(&conn, job).unwrap()));
    }
    for (name, id, other) in &ids {
        for filter in
            [Filter::new().kind(*name), Filter::new().queue(*name), Filter::new().tag(*name)]
        {
            let found: Vec<JobId> =
                jobs.list(&filter, None, 100).unwrap().jobs.iter().map(|job| job.id).collect();
            assert_eq!(found, [*other, *id], "{name}");
        }
        let job = jobs.get(*id).unwrap();
        assert_eq!((job.kind.as_str(), job.queue.as_str()), (*name, *name));
        assert_eq!(job.args_as::<String>().unwrap(), *name);
        assert_eq!(job.meta.get(*name).map(String::as_str), Some(*name));
        let in_view: (String, String, String) = conn
            .query_row(
                "SELECT kind, queue, json_extract(args, '$') FROM legwork_all_jobs WHERE id = ?1",
                [id.0],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert_eq!(in_view, ((*name).to_owned(), (*name).to_owned(), (*name).to_owned()));
        jobs.pause(Scope::Queue((*name).to_owned())).unwrap();
        jobs.pause(Scope::Kind((*name).to_owned())).unwrap();
    }
    assert_eq!(jobs.stats().unwrap().paused.len(), 2 * hostile.len());
    for (name, id, _) in &ids {
        jobs.resume(Scope::Queue((*name).to_owned())).unwrap();
        jobs.cancel(*id).unwrap();
        assert_eq!(jobs.delete(Filter::new().kind(*name)).unwrap().changed, 2);
    }
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 0);
}

// ---- several handles on one file -------------------------------------------------------------

#[test]
fn a_job_enqueued_by_a_handle_without_an_engine_is_found_by_the_engine_of_another() {
    let place = place();
    let (here, there) = (place.open(), place.open());
    let engine = Engine::builder(&here).register::<Quick>().start().unwrap();
    let first = here.enqueue(Quick).unwrap();
    here.wait(first, SOON).unwrap();
    // Now the engine knows the lane, and that it is empty.
    let second = there.enqueue(Quick).unwrap();
    here.wake().unwrap();
    assert_eq!(here.wait(second, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn what_other_connections_did_while_no_engine_ran_is_found_by_the_next_engine() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    let engine = Engine::builder(&jobs).register::<Quick>().start().unwrap();
    let first = jobs.enqueue(Quick).unwrap();
    jobs.wait(first, SOON).unwrap();
    engine.stop(SOON).unwrap();
    drop(engine);
    let elsewhere = jobs.enqueue_in(&conn, Quick).unwrap();
    // The handle writes itself and learns that others have written.
    jobs.enqueue(NewJob::of_kind("other", json!(null))).unwrap();
    let engine = Engine::builder(&jobs).register::<Quick>().start().unwrap();
    assert_eq!(jobs.wait(elsewhere, SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn jobs_of_a_kind_unknown_to_one_engine_are_run_by_a_later_one_that_knows_it() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let ignorant = Engine::builder(&jobs).pool(Pool::new(["*"]).workers(1)).start().unwrap();
    let id = jobs.enqueue(Quick).unwrap();
    wait_for(&events, |event| matches!(event, Event::UnknownKind { kind } if kind == "quick"));
    let knowing = Engine::builder(&jobs)
        .register::<Quick>()
        .pool(Pool::new(["*"]).workers(1))
        .start()
        .unwrap();
    assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    knowing.stop(SOON).unwrap();
    ignorant.stop(SOON).unwrap();
}

/// Enqueues one job and closes; whether a `-wal` is left.
fn leaves_wal(place: &crate::common::Place, checkpoint: bool) -> bool {
    let jobs = place.builder().checkpoint_on_close(checkpoint).open().unwrap();
    jobs.enqueue(Quick).unwrap();
    // A reader is open, too.
    assert!(jobs.count(&Filter::new()).unwrap() > 0);
    drop(jobs);
    place.path.with_extension("db-wal").exists()
}

#[test]
fn the_last_handle_leaves_one_file_unless_it_is_told_to_leave_the_wal_to_the_next() {
    let place = place();
    assert!(!leaves_wal(&place, true));
    assert!(leaves_wal(&place, false));
    assert!(leaves_wal(&place, false));
    assert!(!leaves_wal(&place, true));
    assert_eq!(place.open().count(&Filter::new()).unwrap(), 4);
}
