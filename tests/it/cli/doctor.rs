//! `legwork doctor`: each thing that it is to find, made for it; and that it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use legwork::{Context, Engine, Job, JobResult, Jobs, NewJob, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Ended, until};
use crate::common::{Place, place};

#[derive(Serialize, Deserialize)]
struct Known {}

impl Job for Known {
    const KIND: &'static str = "known";
    type State = ();
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// The findings of one code.
fn of_code(report: &Value, code: &str) -> Vec<Value> {
    let all = report["findings"].as_array().unwrap();
    all.iter().filter(|finding| finding["code"] == code).cloned().collect()
}

#[track_caller]
fn only(report: &Value, code: &str) -> Value {
    let found = of_code(report, code);
    assert_eq!(found.len(), 1, "{code}: {report}");
    found[0].clone()
}

fn doctor(place: &Place) -> (i32, Value) {
    let ended: Ended = place.line("doctor --json");
    (ended.code, ended.json())
}

/// The names and contents of a directory and what lies in it.
fn contents(dir: &Path) -> BTreeMap<std::path::PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), (fs::read(&path).unwrap(), meta.modified().unwrap()));
        }
    }
    all
}

#[test]
fn a_healthy_file_has_nothing_worse_than_a_note_and_stays_as_it_is() {
    let place = place();
    let jobs = place.open();
    Engine::builder(&jobs).register::<Known>().manual().unwrap();
    drop(jobs);
    let before = contents(place.dir.path());
    let (code, report) = doctor(&place);
    assert_eq!((code, &report["usable"]), (0, &json!(true)), "{report}");
    assert!(["ok", "note"].contains(&report["worst"].as_str().unwrap()), "{report}");
    for code in ["sqlite", "schema", "integrity", "clock", "disk_space"] {
        assert_eq!(only(&report, code)["severity"], "ok", "{code}");
    }
    assert_eq!(contents(place.dir.path()), before);
    let tsv = place.line("doctor --full").good();
    assert!(tsv.contains("ok\tintegrity\t\tevery page and index is sound\t\n"), "{tsv}");
    let table = place.on_terminal("doctor --color never", "").good();
    assert!(table.contains("CODE") && table.contains("schema version 1"), "{table}");
}

#[test]
fn a_file_that_died_with_work_in_its_wal_is_examined_and_left_so() {
    let place = place();
    place.line("run -- true").good();
    // As after a crash: copied while open, so that the WAL holds all of it.
    let crashed = crate::common::place();
    let jobs = place.open();
    jobs.enqueue(NewJob::of_kind("known", json!({}))).unwrap();
    for suffix in ["", "-wal"] {
        let name = |place: &Place| format!("{}{suffix}", place.path.display());
        fs::copy(name(&place), name(&crashed)).unwrap();
    }
    drop(jobs);
    let files = || {
        let mut files = contents(crashed.dir.path());
        // SQLite's index of the WAL holds no data.
        files.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
        files
    };
    let before = files();
    let (_, report) = doctor(&crashed);
    assert!(only(&report, "no_worker")["says"].as_str().unwrap().starts_with("2 jobs"), "{report}");
    assert_eq!(files(), before);
}

#[test]
fn ready_jobs_without_a_worker_and_kinds_that_nobody_knows_are_found() {
    let place = place();
    place.line("run -- true").good();
    let (code, report) = doctor(&place);
    assert_eq!((code, &only(&report, "no_worker")["severity"]), (4, &json!("warning")));
    assert_eq!(of_code(&report, "unknown_kind"), Vec::<Value>::new(), "the shell's is known");
    place.line("enqueue mail").good();
    let (_, report) = doctor(&place);
    assert_eq!(only(&report, "unknown_kind")["of"], "mail");
    // A worker that serves neither.
    let worker = place.worker("work -q other");
    until("the worker has joined", || {
        place.open().instances().unwrap().iter().any(|instance| instance.alive)
    });
    let (_, report) = doctor(&place);
    assert_eq!(of_code(&report, "no_worker"), Vec::<Value>::new());
    let unserved = of_code(&report, "unserved");
    let of: Vec<&Value> = unserved.iter().map(|found| &found["of"]).collect();
    assert_eq!(of, ["default/legwork.shell", "default/mail"]);
    drop(worker);
}

#[test]
fn a_dead_engine_that_holds_jobs_is_found() {
    let place = place();
    place.script("", "exec sleep 1000");
    let worker = place.worker("work");
    until("the job runs", || {
        place.open().instances().is_ok_and(|all| !all.is_empty())
            && place.open().count(&legwork::Filter::new().state(legwork::State::Running)).unwrap()
                == 1
    });
    let pid = worker.process.as_ref().unwrap().id();
    drop(worker);
    let (code, report) = doctor(&place);
    let says = only(&report, "dead_instance")["says"].as_str().unwrap().to_owned();
    assert_eq!((code, says), (4, format!("process {pid} is dead and holds 1 job")));
    // Its command lives on until the next worker takes over: end it here.
    place.line("cancel 1").good();
    let group = place.line("work --until-empty");
    assert!(group.code == 0 || group.code == 1, "{group:?}");
}

#[test]
fn a_wal_that_a_reader_pins_is_found() {
    let place = place();
    let jobs = place.open();
    jobs.enqueue(NewJob::of_kind("known", json!({}))).unwrap();
    let reader = place.connect();
    reader.execute_batch("BEGIN; SELECT count(*) FROM legwork_jobs").unwrap();
    let app = place.connect();
    app.execute_batch("CREATE TABLE much (bytes BLOB)").unwrap();
    for _ in 0..9 {
        app.execute("INSERT INTO much VALUES (zeroblob(8000000))", []).unwrap();
    }
    let (code, report) = doctor(&place);
    let found = only(&report, "wal_large");
    assert_eq!((code, &found["severity"]), (4, &json!("warning")));
    assert!(found["says"].as_str().unwrap().contains("not written back"), "{found}");
    reader.execute_batch("COMMIT").unwrap();
}

#[test]
fn a_clock_that_has_jumped_is_found_ahead_and_behind() {
    let place = place();
    let id = place.line("run --in 1h -- true").id();
    let year = 365 * 86_400 * 1_000_000_i64;
    let now = i64::try_from(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros(),
    )
    .unwrap();
    let app = place.connect();
    let keep = format!("{now} {} {now}", now - year);
    app.execute("INSERT OR REPLACE INTO legwork_meta VALUES ('clock', ?1)", [keep]).unwrap();
    let (code, report) = doctor(&place);
    let leap = only(&report, "clock_leap");
    assert_eq!((code, &leap["severity"]), (4, &json!("warning")));
    assert!(leap["says"].as_str().unwrap().ends_with("by 1y"), "{leap}");
    app.execute("UPDATE legwork_jobs SET enqueued_at = ?1 WHERE id = ?2", [now + year, id.0])
        .unwrap();
    assert!(only(&doctor(&place).1, "clock_behind")["says"].as_str().unwrap().contains("behind"));
}

#[test]
fn foreign_and_leftover_files_beside_the_lock_files_are_found() {
    let place = place();
    place.line("run -- true").good();
    place.work().good();
    let side = place.file("test.db-legwork");
    let old = SystemTime::now() - std::time::Duration::from_secs(3600);
    let put = |name: &str| {
        let file = fs::File::create(side.join(name)).unwrap();
        file.set_modified(old).unwrap();
        file
    };
    let _leftover = put("99999-0-0.lock");
    put("99999-0-0.bell");
    put("notes.txt");
    put("worker.log");
    put("worker.log.old");
    put("99997-0.ear");
    let held = put("99998-0-0.lock");
    held.lock().unwrap();
    let (code, report) = doctor(&place);
    assert_eq!(code, 4, "{report}");
    assert_eq!(only(&report, "lock_leftover")["of"], "99999-0-0.lock");
    assert_eq!(only(&report, "bell_leftover")["of"], "99999-0-0.bell");
    assert_eq!(only(&report, "lock_foreign")["of"], "99998-0-0.lock");
    assert_eq!(only(&report, "side_foreign")["of"], "notes.txt");
    assert!(!report.to_string().contains("\"output\""), "the shell's own directory is known");
}

#[test]
fn files_that_others_may_read_or_write_are_found() {
    let place = place();
    place.line("enqueue legwork.shell {\"argv\":[\"true\"]} --in 1h").good();
    assert_eq!(of_code(&doctor(&place).1, "permissions"), Vec::<Value>::new());
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, report) = doctor(&place);
    assert_eq!((code, &only(&report, "permissions")["severity"]), (4, &json!("warning")));
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(only(&doctor(&place).1, "permissions")["severity"], "problem");
}

#[test]
fn pauses_gates_stuck_jobs_and_bad_cron_entries_are_found() {
    let place = place();
    let id = place.script("--timeout 5s", "exec sleep 1000");
    let _worker = place.worker("work --workers 1");
    until("the job runs", || place.state(id) == "running");
    place.line("pause mail").good();
    place.line("gate close online").good();
    let (code, report) = doctor(&place);
    assert_eq!((code, only(&report, "paused")["of"].as_str()), (0, Some("queue mail")), "{report}");
    assert_eq!(only(&report, "gate_closed")["of"], "online");
    let app = place.connect();
    app.execute("UPDATE legwork_jobs SET started_at = started_at - 3600000000", []).unwrap();
    assert_eq!(only(&doctor(&place).1, "stuck")["of"], id.to_string());
    #[cfg(feature = "cron")]
    {
        place
            .args(["cron", "add", "tidy", "@daily", "legwork.shell", r#"{"argv":["true"]}"#])
            .good();
        assert_eq!(of_code(&doctor(&place).1, "cron_unknown_kind"), Vec::<Value>::new());
        app.execute("UPDATE legwork_cron SET zone = 'Mars/Olympus'", []).unwrap();
        assert_eq!(only(&doctor(&place).1, "bad_cron")["of"], "tidy");
    }
    place.line(&format!("cancel {id}")).good();
}

#[test]
fn files_that_cannot_be_opened_are_findings_too() {
    let place = place();
    let code_of = |place: &Place| {
        let (code, report) = doctor(place);
        assert_eq!(
            (code, &report["usable"], &report["worst"]),
            (5, &json!(false), &json!("problem"))
        );
        report["findings"][0]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code_of(&place), "missing");
    assert!(!place.path.exists(), "it makes none");
    fs::create_dir(&place.path).unwrap();
    assert_eq!(code_of(&place), "foreign");
    fs::remove_dir(&place.path).unwrap();
    fs::write(&place.path, "this is a text and no database, however long it may be\n".repeat(99))
        .unwrap();
    assert_eq!(code_of(&place), "foreign");
    fs::remove_file(&place.path).unwrap();
    for _ in 0..200 {
        place.open().enqueue(NewJob::of_kind("known", json!("x".repeat(2_000)))).unwrap();
    }
    place.connect().execute("UPDATE legwork_meta SET value = 99 WHERE key = 'schema'", []).unwrap();
    assert_eq!(code_of(&place), "schema_newer");
    place.connect().execute("UPDATE legwork_meta SET value = 1 WHERE key = 'schema'", []).unwrap();
    place.connect().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let mut bytes = fs::read(&place.path).unwrap();
    let (from, to) = (bytes.len() / 2, bytes.len() * 3 / 4);
    bytes[from..to].fill(0xA5);
    fs::write(&place.path, &bytes).unwrap();
    assert_eq!(code_of(&place), "corrupt");
    assert_eq!(fs::read(&place.path).unwrap(), bytes);
}

#[test]
fn a_file_in_another_journal_mode_and_one_without_legwork_are_notes_or_warnings() {
    let place = place();
    place.connect().execute_batch("CREATE TABLE app (x)").unwrap();
    let (code, report) = doctor(&place);
    assert_eq!(only(&report, "schema_none")["severity"], "note");
    assert_eq!(only(&report, "journal_mode")["severity"], "note");
    // Its maker has left it open to all.
    assert_eq!((code, only(&report, "permissions")["severity"].as_str()), (4, Some("warning")));
    // Nothing else that only looks makes it legwork's, either.
    let bytes = fs::read(&place.path).unwrap();
    for line in ["list", "health", "status", "export", "check", "migrate --dry-run", "retry 1"] {
        let ended = place.args(line.split(' '));
        assert_eq!(fs::read(&place.path).unwrap(), bytes, "{line}: {ended:?}");
        assert_eq!(
            ended.code,
            if line.starts_with("migrate") { 0 } else { 5 },
            "{line}: {ended:?}"
        );
    }
    place.line("migrate").good();
    assert_eq!(of_code(&doctor(&place).1, "schema_none"), Vec::<Value>::new());
    place.connect().execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let (_, report) = doctor(&place);
    assert_eq!(only(&report, "journal_mode")["severity"], "warning");
    let mode: String =
        place.connect().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete", "it was only looked at");
}

#[test]
fn an_app_examines_its_own_file_while_it_has_it_open() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs).register::<Known>().start().unwrap();
    let report = Jobs::examine(jobs.path());
    assert!(report.usable && report.worst() <= legwork::Severity::Note, "{report:?}");
    let id = jobs.enqueue(Known {}).unwrap();
    jobs.wait(id, crate::common::SOON).unwrap();
    engine.stop(crate::common::SOON).unwrap();
}
