//! What legwork does to files: what it refuses, what it leaves alone, and what it survives.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use legwork::{
    Clock, Context, Engine, Error, Event, Filter, Job, JobId, JobResult, Jobs, NewJob, Outcome,
    Pool, Scope, State,
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

// ---- refused ---------------------------------------------------------------------------------

#[test]
fn a_file_of_a_newer_legwork_is_refused_and_left_as_it_is() {
    let place = place();
    many(&place.open(), 3);
    let conn = place.connect();
    conn.execute("UPDATE legwork_meta SET value = 99 WHERE key = 'schema'", []).unwrap();
    drop(conn);
    let before = bytes(&place.path);
    let error = refused(&place.path);
    assert!(matches!(error, Error::Newer { found: 99, known: 1 }), "{error}");
    assert_eq!(bytes(&place.path), before);
}

#[test]
fn a_schema_version_that_is_no_number_is_reported_as_damage() {
    let place = place();
    drop(place.open());
    let conn = place.connect();
    conn.execute("UPDATE legwork_meta SET value = 'new' WHERE key = 'schema'", []).unwrap();
    drop(conn);
    let error = refused(&place.path);
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[test]
fn a_file_that_is_not_sqlite_is_refused_and_left_as_it_is() {
    for content in [&b"x"[..], &[b'y'; 600], &b"a letter to a friend\n".repeat(1000), &[0; 4096]] {
        let place = place();
        fs::write(&place.path, content).unwrap();
        let error = refused(&place.path);
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(bytes(&place.path), content);
    }
}

#[test]
fn a_directory_and_a_missing_directory_are_refused_and_nothing_is_created() {
    let place = place();
    let error = refused(place.dir.path());
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    let error = refused(&place.dir.path().join("missing").join("app.db"));
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
}

/// Opens a damaged file and reads every table of legwork in it.
fn read_all(path: &Path) -> legwork::Result<()> {
    let jobs = Jobs::open(path)?;
    let mut before = None;
    loop {
        let page = jobs.list(&Filter::new(), before, 1000)?;
        before = page.next;
        if before.is_none() {
            return jobs.stats().map(drop);
        }
    }
}

fn damaged(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_) | Error::Foreign { .. })
}

#[test]
fn a_truncated_file_is_reported_and_not_written_over() {
    let place = place();
    many(&place.open(), 500);
    let whole = bytes(&place.path);
    let page = 4096;
    assert!(whole.len() > 20 * page);
    for length in [50, 100, 1000, page, 2 * page, 7 * page, whole.len() / 2, whole.len() - 1] {
        fs::write(&place.path, &whole[..length]).unwrap();
        let error = read_all(&place.path).expect_err("a truncated file was read");
        assert!(damaged(&error), "{length} bytes: {error:?}");
        assert_eq!(bytes(&place.path), whole[..length], "{length} bytes");
    }
}

#[test]
fn a_corrupted_file_is_reported_and_not_written_over() {
    let place = place();
    many(&place.open(), 500);
    let whole = bytes(&place.path);
    let mut reported = 0;
    for page in 0..whole.len() / 4096 {
        // The head of the page's tree: on the first page behind the file's own header.
        let at = page * 4096 + if page == 0 { 100 } else { 0 };
        let mut bad = whole.clone();
        bad[at..at + 8].fill(0xff);
        fs::write(&place.path, &bad).unwrap();
        if let Err(error) = read_all(&place.path) {
            assert!(damaged(&error), "page {page}: {error:?}");
            assert_eq!(bytes(&place.path), bad, "page {page}");
            reported += 1;
        }
    }
    assert!(reported > 20, "only {reported} damaged pages were noticed");
}

#[test]
fn a_damaged_header_is_reported_and_not_written_over() {
    let place = place();
    many(&place.open(), 10);
    let whole = bytes(&place.path);
    for at in [0, 16, 17, 21, 47] {
        let mut bad = whole.clone();
        bad[at] = !bad[at];
        fs::write(&place.path, &bad).unwrap();
        let error = read_all(&place.path).expect_err(&format!("byte {at} was accepted"));
        assert!(damaged(&error), "byte {at}: {error:?}");
        assert_eq!(bytes(&place.path), bad, "byte {at}");
    }
}

// ---- read-only -------------------------------------------------------------------------------

#[cfg(unix)]
mod read_only {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const PLACE: &str = "LEGWORK_READ_ONLY_PLACE";
    const NOBODY: u32 = 65_534;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_read_only_file_or_directory_is_refused_and_left_as_it_is() {
        let place = place();
        let root = place.dir.path();
        let (open_dir, closed_dir) = (root.join("open"), root.join("closed"));
        fs::create_dir(&open_dir).unwrap();
        fs::create_dir(&closed_dir).unwrap();
        let files =
            [open_dir.join("file.db"), closed_dir.join("file.db"), closed_dir.join("own.db")];
        for file in &files {
            many(&Jobs::open(file).unwrap(), 3);
        }
        let plain = [open_dir.join("empty.db"), open_dir.join("delete.db")];
        fs::write(&plain[0], b"").unwrap();
        Connection::open(&plain[1]).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        plain.iter().for_each(|file| mode(file, 0o444));
        mode(root, 0o755);
        mode(&files[0], 0o444);
        mode(&files[1], 0o444);
        mode(&files[2], 0o666);
        mode(&open_dir, 0o777);
        mode(&closed_dir, 0o555);
        let before = files.each_ref().map(|file| bytes(file));

        // Root may write anywhere, so the look is another user's, by a program that this user can
        // reach.
        let program = root.join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        mode(&program, 0o755);
        let mut child = Command::new(&program);
        child.args(["--exact", "--ignored", "files::read_only::as_a_user_who_may_only_read"]);
        child.env(PLACE, root).env("TMPDIR", &open_dir);
        if fs::metadata(root).unwrap().uid() == 0 {
            child.uid(NOBODY).gid(NOBODY);
        }
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");

        mode(&closed_dir, 0o755);
        assert_eq!(files.each_ref().map(|file| bytes(file)), before);
        assert_eq!(bytes(&plain[0]), b"");
        assert!(!closed_dir.join("new.db").exists());
    }

    #[test]
    #[ignore = "run by a_read_only_file_or_directory_is_refused_and_left_as_it_is"]
    fn as_a_user_who_may_only_read() {
        let Some(root) = std::env::var_os(PLACE) else { return };
        let root = Path::new(&root);
        for file in [
            "open/file.db",
            "closed/file.db",
            "closed/own.db",
            "closed/new.db",
            "open/empty.db",
            "open/delete.db",
        ] {
            let error = refused(&root.join(file));
            assert!(matches!(error, Error::ReadOnly { .. }), "{file}: {error:?}");
        }
    }

    #[test]
    fn the_database_its_companions_and_the_lock_files_are_the_owners_alone() {
        let place = place();
        let jobs = place.open();
        let engine = Engine::builder(&jobs).pool(Pool::new(["*"]).workers(1)).start().unwrap();
        many(&jobs, 3);
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("{}{suffix}", place.path.display());
            assert_eq!(mode_of(Path::new(&name)), 0o600, "{name}");
        }
        let side = place.dir.path().join("test.db-legwork");
        assert_eq!(mode_of(&side), 0o700);
        let beside: Vec<_> =
            fs::read_dir(&side).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(beside.len(), 2, "a lock file and a doorbell: {beside:?}");
        for path in &beside {
            assert_eq!(mode_of(path), 0o600, "{}", path.display());
        }

        let copy = place.dir.path().join("copy.db");
        jobs.backup(&copy).unwrap();
        assert_eq!(mode_of(&copy), 0o600);
        engine.stop(SOON).unwrap();
    }
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

// ---- legwork's own thread --------------------------------------------------------------------

/// A clock that panics in the writer's thread once it is told to.
fn treacherous_clock() -> (Clock, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let clock = Clock::from_fn(move || {
        let in_writer = std::thread::current().name() == Some("legwork-writer");
        assert!(
            !(in_writer && breaks.load(Ordering::SeqCst)),
            "the clock breaks, as the test wants"
        );
        time::OffsetDateTime::now_utc()
    });
    (clock, broken)
}

fn poisoned<T>(what: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Poisoned) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what} succeeded"),
    }
}

/// A clock that panics in a thread of this name when it is read the second time after the break:
/// the first is for the job's own times, outside the writer's work.
fn clock_that_breaks_a_caller() -> (Clock, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let read = std::sync::atomic::AtomicU32::new(0);
    let clock = Clock::from_fn(move || {
        let caller = std::thread::current().name() == Some("caller");
        if caller && breaks.load(Ordering::SeqCst) {
            let before = read.fetch_add(1, Ordering::SeqCst);
            assert_eq!(before, 0, "the clock breaks, as the test wants");
        }
        time::OffsetDateTime::now_utc()
    });
    (clock, broken)
}

#[test]
fn a_panic_while_a_caller_records_his_own_job_poisons_the_handle_and_nothing_hangs() {
    let place = place();
    let (clock, broken) = clock_that_breaks_a_caller();
    let jobs = place.builder().clock(clock).open().unwrap();
    let kept = jobs.enqueue(Quick).unwrap();
    let waiting = std::thread::spawn({
        let jobs = jobs.clone();
        move || jobs.wait(kept, Duration::from_secs(3600))
    });
    broken.store(true, Ordering::SeqCst);
    let caller = std::thread::Builder::new().name("caller".into()).spawn({
        let jobs = jobs.clone();
        move || jobs.enqueue(Quick).map(drop)
    });
    assert!(caller.unwrap().join().is_err(), "the panic is the caller's");
    poisoned("a wait that had begun", waiting.join().unwrap());
    poisoned("enqueue", jobs.enqueue(Quick));
    poisoned("get", jobs.get(kept));
    drop(jobs);
    let jobs = place.open();
    assert_eq!(jobs.get(kept).unwrap().state, State::Ready);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 1, "what was not committed is not there");
}

#[test]
fn a_panic_in_the_writer_poisons_the_handle_and_nothing_hangs_and_no_job_is_lost() {
    let place = place();
    let (clock, broken) = treacherous_clock();
    let jobs = place.builder().clock(clock).open().unwrap();
    let engine = Engine::builder(&jobs)
        .register::<Quick>()
        .pool(Pool::new(["*"]).name("all").workers(3))
        .start()
        .unwrap();
    jobs.pause(Scope::All).unwrap();
    let ids = jobs.enqueue_many((0..20).map(|_| Quick)).unwrap();
    let mut conn = place.connect();
    let waiting = std::thread::spawn({
        let (jobs, id) = (jobs.clone(), ids[0]);
        move || jobs.wait(id, Duration::from_secs(3600))
    });

    broken.store(true, Ordering::SeqCst);
    // What a lone caller enqueues is recorded in his own thread; this is for the writer's.
    jobs.wake().unwrap();
    poisoned("a wait that had begun", waiting.join().unwrap());
    poisoned("wait", jobs.wait(ids[0], Duration::from_secs(3600)));
    poisoned("enqueue", jobs.enqueue(Quick));
    poisoned("enqueue_many", jobs.enqueue_many([Quick]));
    poisoned("enqueue_in", jobs.enqueue_in(&conn, Quick));
    poisoned("transaction", jobs.transaction(&mut conn, |_| Ok::<_, Error>(())));
    poisoned("wake", jobs.wake());
    poisoned("get", jobs.get(ids[0]));
    poisoned("list", jobs.list(&Filter::new(), None, 10));
    poisoned("count", jobs.count(&Filter::new()));
    poisoned("stats", jobs.stats());
    poisoned("attempts", jobs.attempts(ids[0]));
    poisoned("logs", jobs.logs(ids[0]));
    poisoned("output", jobs.output::<i64>(ids[0]));
    poisoned("health", jobs.health());
    poisoned("retry", jobs.retry(ids[0]));
    poisoned("cancel", jobs.cancel(ids[0]));
    poisoned("delete", jobs.delete(Filter::new()));
    poisoned("pause", jobs.pause(Scope::All));
    poisoned("resume", jobs.resume(Scope::All));
    poisoned("backup", jobs.backup(place.dir.path().join("copy.db")));
    poisoned("run_until_empty", engine.run_until_empty());
    poisoned("resize", engine.resize("all", 4));
    poisoned("a second engine", Engine::builder(&jobs).register::<Quick>().start());
    let stopping = Instant::now();
    poisoned("stop", engine.stop(SOON));
    assert!(stopping.elapsed() < SOON, "the workers did not end by themselves");
    drop((engine, jobs, conn));

    let jobs = place.open();
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 20);
    let engine = Engine::builder(&jobs).register::<Quick>().start().unwrap();
    jobs.resume(Scope::All).unwrap();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
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
