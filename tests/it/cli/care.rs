//! Care of the file: prune, backup, migrate, vacuum.

use std::time::Duration;

use legwork::{Batch, Engine, Filter, JobId, Jobs, NewJob, Prune, State};
use serde_json::json;

use crate::common::{Place, SOON, place};

const DAY_AGO: &str =
    "UPDATE legwork_history SET finished_at = finished_at - 86400000000 WHERE id <= ?1";

/// So many jobs that completed, and one that failed last.
fn finished(place: &Place, completed: u64) {
    for _ in 0..completed {
        place.line("run -- true").good();
    }
    place.script("", "exit 1");
    place.work().coded(1);
}

fn count(place: &Place) -> u64 {
    place.open().count(&Filter::new()).unwrap()
}

#[test]
fn prune_removes_what_is_older_than_it_is_told_state_by_state() {
    let place = place();
    finished(&place, 3);
    place.line("enqueue mail").good();
    place.connect().execute(DAY_AGO, [2]).unwrap();
    let told = place.line("prune --completed 1h --dry-run --json").json();
    assert_eq!(
        (&told["dry_run"], &told["matched"], &told["removed"]),
        (&json!(true), &json!(2), &json!(0))
    );
    let refused = place.line("prune --completed 1h").coded(4);
    assert!(refused.stderr.contains("would remove 2 jobs"), "{refused:?}");
    assert_eq!(count(&place), 5);
    assert_eq!(place.line("prune --completed 1h --yes").good(), "2\t2\n");
    let left: Vec<u64> = (1..=5).filter(|id| place.open().get(JobId(*id as i64)).is_ok()).collect();
    assert_eq!(left, [3, 4, 5]);
    assert_eq!(place.line("prune --failed 1h").good(), "0\t0\n");
    // One alone is not asked for.
    assert_eq!(place.line("prune --failed 0s").good(), "1\t1\n");
    let table = place.on_terminal("prune --all-finished", "y\n").good();
    assert!(table.contains("removed 1 job\r\n"), "{table}");
    assert_eq!(count(&place), 1, "what has not finished stays");
}

#[test]
fn prune_without_a_name_removes_what_has_outlived_its_retention() {
    let place = place();
    finished(&place, 300);
    assert_eq!(place.line("prune").good(), "0\t0\n");
    place.connect().execute("UPDATE legwork_history SET prune_at = 1 WHERE id > 20", []).unwrap();
    assert_eq!(place.line("prune --dry-run").good(), "281\t0\n");
    let pruned = place.line("prune");
    assert!(pruned.stderr.contains("removed 281/281 jobs"), "{pruned:?}");
    assert_eq!(pruned.good(), "281\t281\n");
    assert_eq!(count(&place), 20);
}

#[test]
fn prune_goes_by_the_clock_as_far_as_it_is_believed_and_all_finished_does_not() {
    let place = place();
    finished(&place, 2);
    let app = place.connect();
    // The clock was last seen a month ago: it may have leapt.
    let seen = 1_700_000_000_000_000_i64;
    app.execute(
        "INSERT OR REPLACE INTO legwork_meta VALUES ('clock', ?1)",
        [format!("{seen} {seen} -")],
    )
    .unwrap();
    app.execute("UPDATE legwork_history SET prune_at = ?1", [seen + 60_000_000 * 60]).unwrap();
    assert_eq!(place.line("prune").good(), "0\t0\n");
    assert_eq!(place.open().prune(&Prune::due(), |_| {}).unwrap(), 0);
    assert_eq!(place.line("prune --all-finished --yes").good(), "3\t3\n");
}

#[test]
fn members_of_a_flow_go_with_it_once_it_has_ended() {
    let place = place();
    let jobs = place.open();
    let shell = || NewJob::of_kind("legwork.shell", json!({ "argv": ["true"] }));
    let batch = |many: usize| Batch::new("b").add_all((0..many).map(|_| shell()));
    let ended = jobs.enqueue_flow(batch(450)).unwrap();
    let open = jobs.enqueue_flow(batch(2).add(shell().delay(Duration::from_secs(3600)))).unwrap();
    place.work().good();
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), 452);
    assert_eq!(jobs.prunable(&Prune::all()).unwrap(), 450);
    let mut told = Vec::new();
    assert_eq!(jobs.prune(&Prune::all(), |so_far| told.push(so_far)).unwrap(), 450);
    assert!(told.len() >= 3 && told.is_sorted(), "in bites: {told:?}");
    assert!(jobs.flow(ended.id).is_err(), "the flow is gone with its members");
    assert_eq!(jobs.count(&Filter::new().flow(open.id)).unwrap(), 3);
}

#[test]
fn pruning_holds_no_engine_up() {
    let place = place();
    let jobs = place.open();
    finished(&place, 50);
    let engine = Engine::builder(&jobs).start().unwrap();
    assert_eq!(place.line("prune --all-finished --yes").good(), "51\t51\n");
    engine.stop(SOON).unwrap();
    assert_eq!(count(&place), 0);
}

#[test]
fn backup_copies_the_file_and_overwrites_nothing() {
    let place = place();
    place.line("backup copy.db").coded(5);
    place.line("run --tag eu -- true").good();
    let made = place.line("backup copy.db --json").json();
    let copy = place.file("copy.db");
    assert_eq!(made["path"], "copy.db");
    assert_eq!(made["bytes"], copy.metadata().unwrap().len());
    assert_eq!(Jobs::open(&copy).unwrap().get(JobId(1)).unwrap().tags, ["eu"]);
    let refused = place.line("backup copy.db").coded(4);
    assert!(
        refused.stderr.contains("exists already") && refused.stderr.contains("overwrites"),
        "{refused:?}"
    );
    assert!(place.line("backup no/where.db").coded(5).stderr.contains("no/where.db"));
    let table = place.on_terminal("backup other.db", "").good();
    assert!(table.starts_with("copied to other.db: "), "{table}");
}

#[test]
fn migrate_says_what_it_does_and_does_it_only_when_told() {
    let place = place();
    assert!(place.line("migrate").coded(5).stderr.contains("there is no"));
    place.connect().execute_batch("CREATE TABLE app (x)").unwrap();
    let told = place.line("migrate --dry-run --json").json();
    assert_eq!(
        (&told["from"], &told["to"], &told["dry_run"]),
        (&json!(0), &json!(1), &json!(true))
    );
    assert_eq!(told["steps"].as_array().unwrap().len(), 1);
    let has_tables = || {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'legwork%'";
        place.connect().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() > 0
    };
    assert!(!has_tables());
    let table = place.on_terminal("migrate", "").good();
    assert!(table.contains("brought the schema from version 0 to 1") && has_tables(), "{table}");
    assert_eq!(place.line("migrate").good(), "1\t1\t\n");
    place.connect().execute("UPDATE legwork_meta SET value = 99 WHERE key = 'schema'", []).unwrap();
    let newer = place.line("migrate --dry-run").coded(5);
    assert!(newer.stderr.contains("99") && newer.stderr.contains("newer legwork"), "{newer:?}");
    std::fs::write(&place.path, "no database, but long enough to be looked at".repeat(50)).unwrap();
    place.line("migrate").coded(5);
}

/// A file with many free pages.
fn with_free_pages(place: &Place) {
    let jobs = place.open();
    let long = "x".repeat(10_000);
    let ids = jobs.enqueue_many((0..1_000).map(|_| NewJob::of_kind("k", json!(long)))).unwrap();
    jobs.delete(ids).unwrap();
}

#[test]
fn vacuum_gives_free_pages_back_while_the_file_is_in_use() {
    let place = place();
    with_free_pages(&place);
    let engine = place.worker("work");
    super::until("the worker has joined", || !place.open().instances().unwrap().is_empty());
    let before = place.path.metadata().unwrap().len();
    let done = place.line("vacuum --json").json();
    assert!(done["before"].as_u64().unwrap() > 5 << 20, "{done}");
    assert!(done["after"].as_u64().unwrap() < 1 << 20, "{done}");
    assert_eq!((&done["free"], &done["incremental"]), (&json!(0), &json!(true)));
    assert!(place.path.metadata().unwrap().len() < before / 2);
    let refused = place.line("vacuum --full").coded(4);
    assert!(
        refused.stderr.contains("runs jobs of this file") && refused.stderr.contains("--yes"),
        "{refused:?}"
    );
    place.line("vacuum --full --yes").good();
    place.line("run -- true").good();
    drop(engine);
    let table = place.on_terminal("vacuum", "").good();
    assert!(table.contains(" before, ") && table.contains(" after"), "{table}");
}

#[test]
fn a_file_that_was_not_made_for_it_is_vacuumed_fully_only() {
    let place = place();
    place.connect().execute_batch("CREATE TABLE app (x)").unwrap();
    with_free_pages(&place);
    let refused = place.line("vacuum").coded(4);
    assert!(refused.stderr.contains("vacuum --full"), "{refused:?}");
    let done = place.line("vacuum --full --json").json();
    assert!(done["after"].as_u64().unwrap() * 5 < done["before"].as_u64().unwrap(), "{done}");
    assert_eq!((place.line("vacuum").code, place.line("doctor --full").code), (0, 4));
}

#[test]
fn a_backup_is_not_mixed_with_what_another_file_of_its_name_has_left() {
    let place = place();
    finished(&place, 1);
    for ending in ["-wal", "-journal", "-shm"] {
        let left = format!("copy.db{ending}");
        std::fs::write(place.file(&left), "").unwrap();
        let refused = place.line("backup copy.db").coded(4);
        assert!(refused.stderr.contains(&format!("{left} is there")), "{refused:?}");
        std::fs::remove_file(place.file(&left)).unwrap();
    }
    // Such a one the next program that opens the file would remove.
    let name = place.path.file_name().unwrap().to_str().unwrap();
    let refused = place.line(&format!("backup {name}-journal")).coded(4);
    assert!(refused.stderr.contains("a part of"), "{refused:?}");
    assert!(!place.file(&format!("{name}-journal")).exists());
    // Nor may it be a database: what is enqueued there would be lost.
    for ending in ["-wal", "-journal", "-shm"] {
        let refused = place.args(["--db", &format!("{name}{ending}"), "enqueue", "k"]).coded(5);
        assert!(refused.stderr.contains("which is the database"), "{refused:?}");
    }
    place.line("backup copy.db").good();
}

#[test]
fn a_backup_has_its_name_only_once_it_is_whole() {
    let place = place();
    finished(&place, 1);
    // As one that was killed leaves it.
    std::fs::write(place.file("copy.db.partial"), "half").unwrap();
    let refused = place.line("backup copy.db");
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("copy.db.partial is there"), "{refused:?}");
    assert!(!place.file("copy.db").exists());
    std::fs::remove_file(place.file("copy.db.partial")).unwrap();
    place.line("backup copy.db").good();
    assert!(!place.file("copy.db.partial").exists());
    assert_eq!(Jobs::open(place.file("copy.db")).unwrap().count(&Filter::new()).unwrap(), 2);
}
