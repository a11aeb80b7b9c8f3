//! `legwork bench` runs, and says what it says it says. How fast anything is plays no part here.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

/// The figures that each experiment must give.
const EXPERIMENTS: [(&str, &[&str]); 18] = [
    ("enqueue", &["p50", "p99"]),
    ("enqueue-many-callers", &["16 callers", "64 callers"]),
    ("bulk", &["2000 in one call"]),
    ("drain", &["5000 jobs, 4 workers"]),
    ("steady", &["4 callers x 100, 4 workers"]),
    ("start", &["p50", "p99"]),
    ("start-across", &["p50"]),
    ("backlog", &["scheduled", "ready in one lane", "ready, 4 queues x 3 priorities"]),
    ("blocked", &["blocked", "opening for 2000", "longest enqueue meanwhile"]),
    (
        "limits",
        &[
            "one key, 1 at once",
            "one key, 4 at once",
            "one rate",
            "freed slot to start, p99",
            "the same, to another process, p99",
        ],
    ),
    ("flows", &["a fan-out of 500 with a join", "a chain of 50"]),
    ("history", &["20000 finished"]),
    ("neighbour", &["p50", "p99", "longest", "legwork meanwhile"]),
    ("idle", &["3 s, wake-ups", "3 s, written"]),
    ("memory", &["idle", "20000 waiting: more by"]),
    ("list", &["all", "state:ready", "state:completed", "queue:a", "since:1h"]),
    ("open", &["one enqueue, p50"]),
    ("growth", &["file after 20000 jobs", "WAL after 20000 jobs", "largest WAL", "file, closed"]),
];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_legwork")).arg("bench").args(arguments).output().unwrap()
}

/// Runs one experiment and checks each of its lines.
fn runs(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let output = bench(&[name, "--quick", "--json", "--dir", place]);
    let said = String::from_utf8(output.stdout).unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {talk}");
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    lines.iter().for_each(|line| check(name, line));
    let measures: Vec<&str> = lines.iter().map(|line| line["measure"].as_str().unwrap()).collect();
    let (_, expected) = EXPERIMENTS.iter().find(|(listed, _)| *listed == name).unwrap();
    assert!(expected.iter().all(|measure| measures.contains(measure)), "{name}: {measures:?}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{name} left {left:?} behind");
}

fn check(name: &str, line: &Value) {
    let number_or_null = |key: &str| {
        let value = line.get(key).unwrap_or_else(|| panic!("{key} is missing in {line}"));
        assert!(value.is_number() || value.is_null(), "{key} in {line}");
        value.as_f64()
    };
    assert_eq!((&line["v"], &line["name"]), (&1.into(), &name.into()), "{line}");
    assert!(line["unit"].is_string(), "{line}");
    let (legwork, raw) = (number_or_null("legwork"), number_or_null("raw"));
    assert!(legwork.is_none_or(|figure| figure >= 0.0), "{line}");
    assert!(raw.is_none_or(|figure| figure > 0.0), "{line}");
    assert!(legwork.is_some() || line["note"].is_string(), "no figure and no reason: {line}");
    match (number_or_null("ratio"), legwork, raw) {
        (Some(ratio), Some(legwork), Some(raw)) => {
            // Both and the ratio are rounded to four digits.
            assert!((ratio - legwork / raw).abs() <= ratio * 0.002, "{line}");
        }
        (ratio, ..) => assert_eq!(ratio, None, "{line}"),
    }
    // A reach is met or missed; without one there is nothing to meet.
    assert_eq!(number_or_null("reach").is_some(), line["ok"].is_boolean(), "{line}");
    assert_eq!(line["ok"].is_boolean(), line["reach_of"].is_string(), "{line}");
    let run = &line["run"];
    assert!(run["cores"].as_u64().is_some_and(|cores| cores > 0), "{line}");
    for key in ["cpu", "file_system", "sqlite", "settings", "build"] {
        assert!(run[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {line}");
    }
    assert_eq!(run["legwork"], env!("CARGO_PKG_VERSION"), "{line}");
    assert_eq!(run["quick"], true, "{line}");
}

#[test]
fn one_caller_is_measured() {
    runs("enqueue");
}

#[test]
fn many_callers_are_measured() {
    runs("enqueue-many-callers");
}

#[test]
fn a_bulk_is_measured() {
    runs("bulk");
}

#[test]
fn a_drain_is_measured() {
    runs("drain");
}

#[test]
fn steady_work_is_measured() {
    runs("steady");
}

#[test]
fn the_start_of_a_job_is_measured() {
    runs("start");
}

#[test]
fn the_start_of_a_job_of_another_process_is_measured() {
    runs("start-across");
}

#[test]
fn a_backlog_is_measured() {
    runs("backlog");
}

#[test]
fn limits_are_measured() {
    runs("limits");
}

#[test]
fn flows_are_measured() {
    runs("flows");
}

#[test]
fn blocked_jobs_are_measured() {
    runs("blocked");
}

#[test]
fn a_history_is_measured() {
    runs("history");
}

#[test]
fn the_apps_own_transactions_are_measured() {
    runs("neighbour");
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_engine_is_measured() {
    runs("idle");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_measured() {
    runs("memory");
}

#[test]
fn a_whole_process_is_measured() {
    runs("open");
}

#[test]
fn a_list_is_measured() {
    runs("list");
}

#[test]
fn growth_is_measured() {
    runs("growth");
}

#[test]
fn the_list_names_every_experiment() {
    let said = String::from_utf8(bench(&["--list"]).stdout).unwrap();
    let listed: Vec<&str> =
        said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, EXPERIMENTS.map(|(name, _)| name));
}

#[test]
fn people_get_a_header_and_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let said = String::from_utf8(bench(&["bulk", "--quick", "--dir", place]).stdout).unwrap();
    for part in [env!("CARGO_PKG_VERSION"), "SQLite 3.", "cores", "ratio", "reach", "\nbulk "] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}

#[test]
fn what_is_asked_wrongly_is_told_by_exit_code_2() {
    for wrong in [&["nonsense"][..], &["bulk", "--dir", "/there/is/no/such/directory"]] {
        let output = bench(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
}
