//! Jobs enqueued by `INSERT INTO legwork_enqueue`, from any language.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use legwork::{
    Context, Engine, Event, Filter, Job, JobId, JobOptions, JobResult, Jobs, Limit, NewJob,
    Outcome, State, Unique,
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::common::{Place, SOON, place, stopped_clock, wait_for};

const PAGE: &str = include_str!("../../src/guide/other_languages.md");
/// Tries the page's functions, and everything that is refused.
const SCRIPT: &str = include_str!("sql_view.py");

#[derive(Serialize, Deserialize)]
struct Receipt {
    order: i64,
}

impl Job for Receipt {
    const KIND: &'static str = "receipt";
    type State = ();
    fn perform(&self, cx: &Context) -> JobResult {
        cx.output(&self.order)?;
        Ok(Outcome::Done)
    }
}

/// The first block of Python on the guide's page.
fn snippet() -> &'static str {
    let (_, rest) = PAGE.split_once("```python\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// Runs the script with the page's functions; its lines.
fn python(place: &Place, part: &str) -> Option<Vec<String>> {
    let found = Command::new("python3").arg("-V").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3");
        println!("SKIPPED: there is no python3 here, so the guide's program is not tried");
        return None;
    }
    std::fs::write(place.dir.path().join("page.py"), snippet()).unwrap();
    let script = place.dir.path().join("script.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let said = Command::new("python3").arg(&script).arg(&place.path).arg(part).output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{errors}");
    Some(String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect())
}

fn connect(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(SOON).unwrap();
    conn
}

fn last_job(conn: &Connection) -> JobId {
    conn.query_row("SELECT last_job FROM legwork_counter", [], |row| row.get(0).map(JobId)).unwrap()
}

fn count(jobs: &Jobs) -> u64 {
    jobs.count(&Filter::new()).unwrap()
}

#[test]
fn a_python_program_enqueues_in_its_own_transaction_and_the_sweep_finds_it() {
    let place = place();
    let jobs = place.builder().sweep(Duration::from_millis(100)).open().unwrap();
    place.connect().execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, total)").unwrap();
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    let Some(lines) = python(&place, "order") else { return };
    let ids: Vec<JobId> = lines.iter().map(|id| JobId(id.parse().unwrap())).collect();
    assert_eq!(ids.len(), 3);
    for (&id, order) in ids.iter().zip(1..) {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
        assert_eq!(jobs.output::<i64>(id).unwrap(), Some(order));
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn the_database_refuses_a_bad_row_by_name_and_keeps_nothing_of_it() {
    let place = place();
    let jobs = place.open();
    let Some(lines) = python(&place, "refused") else { return };
    assert_eq!(lines, ["all refused"]);
    // Two good rows beside them; a bad one wanted the key of the first.
    assert_eq!(count(&jobs), 2);
    assert_eq!(last_job(&place.connect()), JobId(2));
}

#[test]
fn each_column_arrives_as_it_was_given() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    let insert = |columns: &str, values: &str| {
        let sql = format!("INSERT INTO legwork_enqueue ({columns}) VALUES ({values})");
        conn.execute(&sql, []).unwrap();
        jobs.get(last_job(&conn)).unwrap()
    };
    let plain = insert("kind, args", "'Grüße', '[1, 2]'");
    assert_eq!(
        (plain.id, plain.kind.as_str(), plain.queue.as_str()),
        (JobId(1), "Grüße", "default")
    );
    assert_eq!((plain.args.as_str(), plain.priority, plain.state), ("[1, 2]", 0, State::Ready));
    assert_eq!((plain.run_at, plain.tags.len(), plain.meta.len()), (plain.enqueued_at, 0, 0));

    let full = insert(
        "kind, args, queue, priority, run_at, tags, meta, unique_key",
        r#"'k', '{}', 'mail', -3, '2999-01-02T03:04:05.250Z', '["b", "a", "b"]', '{"trace": "ü"}', 'one'"#,
    );
    assert_eq!((full.queue.as_str(), full.priority, full.state), ("mail", -3, State::Scheduled));
    assert_eq!(full.run_at, time::macros::datetime!(2999-01-02 03:04:05.250 UTC));
    assert_eq!(full.tags, ["a", "b"]);
    assert_eq!(full.meta["trace"], "ü");

    for (value, at) in [
        ("'2999-01-02'", time::macros::datetime!(2999-01-02 0:00 UTC)),
        ("'2999-01-02 03:04+02:00'", time::macros::datetime!(2999-01-02 01:04 UTC)),
        ("32503680000", time::macros::datetime!(3000-01-01 0:00 UTC)),
        ("32503680000.125", time::macros::datetime!(3000-01-01 0:00:00.125 UTC)),
    ] {
        assert_eq!(insert("kind, args, run_at", &format!("'k', '{{}}', {value}")).run_at, at);
    }
    let past = insert("kind, args, run_at", "'k', '{}', 1");
    assert_eq!((past.state, past.run_at.unix_timestamp()), (State::Ready, 1));
    let delayed = insert("kind, args, delay", "'k', '{}', 1.5");
    assert_eq!(delayed.run_at - delayed.enqueued_at, Duration::from_millis(1500));
    assert_eq!(delayed.state, State::Scheduled);
}

#[test]
fn a_gate_and_an_expiry_hold_and_a_lane_behind_a_gate_is_not_taken_for_the_one_without() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let engine = Engine::builder(&jobs).register::<Receipt>().manual().unwrap();
    let conn = place.connect();
    let insert = |columns: &str, values: &str| {
        let row = format!("(kind, args{columns}) VALUES ('receipt', '{{\"order\": 1}}'{values})");
        conn.execute(&format!("INSERT INTO legwork_enqueue {row}"), []).unwrap();
        last_job(&conn)
    };
    jobs.close_gate("online").unwrap();
    let gated = insert(", gate", ", 'online'");
    let free = insert(", expires_after", ", 60");
    let record = jobs.get(free).unwrap();
    assert_eq!(record.gate, None);
    assert_eq!(record.expires_at.unwrap() - record.run_at, time::Duration::seconds(60));
    assert_eq!(jobs.get(gated).unwrap().gate.as_deref(), Some("online"));
    assert_eq!(jobs.get(gated).unwrap().state, State::Blocked);
    jobs.clock().set(record.run_at);
    assert_eq!(engine.run_due().unwrap(), 1);
    assert_eq!(jobs.get(free).unwrap().state, State::Completed);
    jobs.open_gate("online").unwrap();
    assert_eq!(engine.run_due().unwrap(), 1);
}

#[test]
fn a_unique_key_is_free_again_once_its_job_has_ended() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    let sql = r#"INSERT INTO legwork_enqueue (kind, args, unique_key)
                 VALUES ('receipt', '{"order": 1}', 'one')"#;
    conn.execute(sql, []).unwrap();
    let first = last_job(&conn);
    let taken = conn.execute(sql, []).unwrap_err();
    assert!(taken.to_string().contains("legwork: unique key is taken"), "{taken}");
    let rust = legwork::NewJob::new(Receipt { order: 2 }).unique_key("one");
    assert_eq!(jobs.enqueue(rust).unwrap(), first);
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    assert_eq!(jobs.wait(first, SOON).unwrap().state, State::Completed);
    conn.execute(sql, []).unwrap();
    assert_ne!(last_job(&conn), first);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_key_that_nothing_holds_any_more_is_taken_whatever_the_conflict_clause() {
    let place = place();
    let clock = stopped_clock();
    clock.set(time::OffsetDateTime::now_utc() - Duration::from_secs(7_200));
    let jobs = place.builder().clock(clock).open().unwrap();
    let conn = place.connect();
    for (round, or) in
        ["", "OR IGNORE", "OR REPLACE", "OR ABORT", "OR FAIL", "OR ROLLBACK"].iter().enumerate()
    {
        for over in [true, false] {
            // Its period is over, or its time to start.
            let hour = Duration::from_secs(3_600);
            let key = format!("{round} {over}");
            let old = NewJob::new(Receipt { order: 1 });
            let old = match over {
                true => old.unique(Unique::by_key(&key).for_period(hour)),
                false => old.unique_key(&key).expires_after(hour),
            };
            let old = jobs.enqueue(old).unwrap();
            let sql = format!(
                r#"INSERT {or} INTO legwork_enqueue (kind, args, unique_key)
                   VALUES ('receipt', '{{"order": 2}}', '{key}')"#
            );
            conn.execute(&sql, []).unwrap();
            let id = last_job(&conn);
            assert!(id > old);
            assert!(conn.execute(&sql, []).unwrap_err().to_string().contains("key is taken"));
            let again = NewJob::new(Receipt { order: 3 }).unique_key(&key);
            assert_eq!(jobs.enqueue(again).unwrap(), id, "{or} {over}");
        }
    }
}

/// Money goes from one account to another; each may be part of one transfer at once.
#[derive(Serialize, Deserialize)]
struct Transfer {
    from: Value,
    to: Value,
}

impl Job for Transfer {
    const KIND: &'static str = "transfer";
    type State = ();
    fn options() -> JobOptions {
        let of = |field| Limit::at_once("account", 1).by([field]);
        JobOptions::new().limit(of("from")).limit(of("to"))
    }
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

#[test]
fn limits_by_fields_have_the_keys_that_they_have_in_rust() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs).register::<Transfer>().register::<Receipt>();
    let engine = engine.manual().unwrap();
    let conn = place.connect();
    for (from, to) in [
        ("7", "7"),
        ("18446744073709551615", "18446744073709551614"),
        ("1.5e-7", "123456789.125"),
        ("-0.0", "1e20"),
        (r#"{"b":1,"a":[true,null]}"#, "\"x\""),
        ("false", "null"),
    ] {
        let args = format!(r#"{{"from":{from},"to":{to}}}"#);
        let sql = "INSERT INTO legwork_enqueue (kind, args) VALUES ('transfer', ?1)";
        conn.execute(sql, [&args]).unwrap();
        let by_sql = jobs.get(last_job(&conn)).unwrap();
        let by_rust = jobs.enqueue(serde_json::from_str::<Transfer>(&args).unwrap()).unwrap();
        assert_eq!(by_sql.limits, jobs.get(by_rust).unwrap().limits, "{args}");
        engine.drain().unwrap();
        assert_eq!(jobs.get(by_sql.id).unwrap().state, State::Completed, "{args}");
    }
}

#[test]
fn limits_whose_keys_cannot_be_made_hurt_nobody_else() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs).register::<Transfer>().register::<Receipt>();
    let engine = engine.manual().unwrap();
    let conn = place.connect();
    let sql = "INSERT INTO legwork_enqueue (kind, args) VALUES ('transfer', ?1)";
    let refused = conn.execute(sql, ["[7]"]).unwrap_err();
    assert!(refused.to_string().contains("args must be an object"), "{refused}");
    let long = format!(r#"{{"from":"{}","to":1}}"#, "x".repeat(300));
    conn.execute(sql, [long]).unwrap();
    let bad = last_job(&conn);
    let good = jobs.enqueue(Receipt { order: 1 }).unwrap();
    engine.drain().unwrap();
    assert_eq!(jobs.get(good).unwrap().state, State::Completed);
    let bad = jobs.get(bad).unwrap();
    assert_eq!(bad.state, State::Cancelled);
    assert!(bad.reason.unwrap().starts_with("invalid limit key"));
}

#[test]
fn many_rows_in_one_statement_have_the_last_ids_whatever_the_conflict_clause() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    for (round, or) in ["", "OR IGNORE", "OR REPLACE", "OR ABORT"].iter().enumerate() {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
             INSERT {or} INTO legwork_enqueue (kind, args, queue) SELECT 'k', CAST(i AS TEXT), 'q' || i FROM n;
             COMMIT;"
        ))
        .unwrap();
        let last = 100 * (round as i64 + 1);
        assert_eq!(last_job(&conn), JobId(last), "{or}");
        assert_eq!(jobs.get(JobId(last)).unwrap().args, "100");
        // OR IGNORE does not make a bad row pass in silence.
        let bad = format!("INSERT {or} INTO legwork_enqueue (kind, args) VALUES ('', '1')");
        assert!(conn.execute(&bad, []).is_err(), "{or}");
    }
    assert_eq!(count(&jobs), 400);
}

#[test]
fn the_settings_of_the_connection_do_not_matter() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    for pragmas in [
        "PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON",
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA case_sensitive_like = ON",
        "PRAGMA foreign_keys = ON; PRAGMA defer_foreign_keys = ON; PRAGMA automatic_index = OFF",
        "PRAGMA reverse_unordered_selects = ON; PRAGMA full_column_names = ON",
    ] {
        let conn = connect(&place.path);
        conn.execute_batch(pragmas).unwrap();
        conn.execute(
            r#"INSERT INTO legwork_enqueue (kind, args, tags, meta, unique_key)
               VALUES ('receipt', '{"order": 1}', '["t", "a"]', '{"m": "n"}', 'k' || random())"#,
            [],
        )
        .unwrap();
        let id = last_job(&conn);
        jobs.wake().unwrap();
        let done = jobs.wait(id, SOON).unwrap();
        assert_eq!(
            (done.state, done.tags),
            (State::Completed, vec!["a".into(), "t".into()]),
            "{pragmas}"
        );
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn arguments_that_are_not_utf_8_fail_their_job_and_hurt_nobody_else() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    // JSON for SQLite, which does not look at the bytes: "\xff".
    let bad =
        "INSERT INTO legwork_enqueue (kind, args) VALUES ('receipt', CAST(x'22ff22' AS TEXT))";
    conn.execute(bad, []).unwrap();
    let good = r#"INSERT INTO legwork_enqueue (kind, args) VALUES ('receipt', '{"order": 2}')"#;
    conn.execute(good, []).unwrap();
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    let failed = jobs.wait(JobId(1), SOON).unwrap();
    assert_eq!((failed.state, failed.args.as_str()), (State::Failed, "\"\u{fffd}\""));
    assert_eq!(jobs.wait(JobId(2), SOON).unwrap().state, State::Completed);
    engine.stop(SOON).unwrap();
}

#[test]
fn meta_is_shown_everywhere_and_handed_to_middleware() {
    let place = place();
    let (tell, told) = crossbeam_channel::unbounded();
    let jobs = place
        .builder()
        .middleware(move |running: &legwork::Running<'_>, next: legwork::Next<'_>| {
            tell.send(running.meta.clone()).unwrap();
            next.run()
        })
        .open()
        .unwrap();
    let conn = connect(&place.path);
    let sql = r#"INSERT INTO legwork_enqueue (kind, args, meta)
                 VALUES ('receipt', '{"order": 1}', '{"trace": "4bf9", "by": "Ü"}')"#;
    conn.execute(sql, []).unwrap();
    let by_sql = last_job(&conn);
    let new = legwork::NewJob::new(Receipt { order: 1 }).meta("trace", "4bf9").meta("by", "Ü");
    let by_rust = jobs.enqueue(new).unwrap();
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    let expected = [("by".to_owned(), "Ü".to_owned()), ("trace".to_owned(), "4bf9".to_owned())];
    for id in [by_sql, by_rust] {
        assert_eq!(jobs.wait(id, SOON).unwrap().meta, expected.clone().into());
        assert_eq!(told.recv_timeout(SOON).unwrap(), expected.clone().into());
        let shown: String = conn
            .query_row(
                "SELECT meta ->> 'trace' FROM legwork_all_jobs WHERE id = ?1",
                [id.0],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(shown, "4bf9");
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn without_a_sweep_an_engine_finds_it_with_whatever_it_does_next() {
    let place = place();
    let jobs = place.builder().sweep(Duration::ZERO).open().unwrap();
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    jobs.wait(jobs.enqueue(Receipt { order: 0 }).unwrap(), SOON).unwrap();
    let conn = connect(&place.path);
    // One lane; more lanes than the counter names; one that only an alarm will find.
    for (rows, delay) in [(1, "0"), (60, "0"), (1, "0.2")] {
        let sql = format!(
            r#"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
               INSERT INTO legwork_enqueue (kind, args, queue, delay)
               SELECT 'receipt', '{{"order": 1}}', 'q' || i, {delay} FROM n"#
        );
        conn.execute(&sql, []).unwrap();
        let last = last_job(&conn);
        jobs.enqueue(Receipt { order: 2 }).unwrap();
        for id in last.0 - rows + 1..=last.0 {
            assert_eq!(jobs.wait(JobId(id), SOON).unwrap().state, State::Completed);
        }
    }
    engine.stop(SOON).unwrap();
}

#[test]
fn a_delay_is_kept_by_the_engines_alarm() {
    let place = place();
    let jobs = place.builder().sweep(Duration::from_millis(100)).open().unwrap();
    let engine = Engine::builder(&jobs).register::<Receipt>().start().unwrap();
    let events = jobs.events();
    let conn = connect(&place.path);
    let sql = r#"INSERT INTO legwork_enqueue (kind, args, delay) VALUES ('receipt', '{"order": 3}', 0.3)"#;
    conn.execute(sql, []).unwrap();
    let id = last_job(&conn);
    wait_for(&events, |event| matches!(event, Event::Finished { id: done, .. } if *done == id));
    let done = jobs.get(id).unwrap();
    assert!(done.started_at.unwrap() >= done.run_at);
    engine.stop(SOON).unwrap();
}

#[test]
fn a_file_in_utf_16_takes_the_same_rows() {
    let place = place();
    place.connect().execute_batch("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a)").unwrap();
    let jobs = place.open();
    let conn = place.connect();
    let sql = "INSERT INTO legwork_enqueue (kind, args, tags, meta, run_at)
               VALUES ('größer', '{\"ü\":1}', '[\"ä\"]', '{\"k\":\"ö\"}', '2026-01-01')";
    conn.execute(sql, []).unwrap();
    let job = jobs.get(last_job(&conn)).unwrap();
    assert_eq!((job.kind.as_str(), job.args.as_str()), ("größer", "{\"ü\":1}"));
    assert_eq!((job.tags, job.meta["k"].as_str()), (vec!["ä".to_owned()], "ö"));
    let bad = "INSERT INTO legwork_enqueue (kind, args) VALUES ('a' || char(0), '{}')";
    assert!(conn.execute(bad, []).is_err());
}
