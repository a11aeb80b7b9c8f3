//! `legwork cron ...`.

use legwork::{Missed, Overlap, State};
use serde_json::json;
use time::macros::datetime;

use super::until;
use crate::common::place;

#[test]
fn check_says_what_an_expression_means_and_its_next_times() {
    let place = place();
    let check = ["cron", "check", "0 7 * * 1-5", "--tz", "Europe/Berlin", "--count", "2"];
    let check = check.into_iter().chain(["--from", "2026-03-27T12:00:00Z"]);
    let times = ["2026-03-30T05:00:00Z", "2026-03-31T05:00:00Z"];
    let text = place.args(check.clone()).good();
    let words = legwork::Cron::new("0 7 * * 1-5").words().unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), [words.as_str(), times[0], times[1]]);
    let found = place.args(check.chain(["--json"])).json();
    assert_eq!(found["words"], words);
    assert_eq!(found["next"], json!(times));
    assert_eq!(
        (&found["zone"], &found["expression"]),
        (&json!("Europe/Berlin"), &json!("0 7 * * 1-5"))
    );

    let terminal = place.on_terminal("cron check '@every 2h' --count 1", "").good();
    assert!(terminal.contains("in 1h") || terminal.contains("in 2h"), "{terminal}");
    assert!(!place.path.exists(), "it needs no database");
}

#[test]
fn check_refuses_what_is_no_expression_or_zone() {
    let place = place();
    let ended = place.args(["cron", "check", "0 0 30 2 *"]).coded(2);
    assert!(ended.stderr.contains("cron expression"), "{ended:?}");
    let ended = place.args(["cron", "check", "@daily", "--tz", "Mars/Olympus"]).coded(2);
    assert!(ended.stderr.contains("time zone"), "{ended:?}");
}

#[test]
fn add_list_next_pause_resume_and_remove() {
    let place = place();
    let add = ["cron", "add", "night", "30 3 * * *", "sweep", r#"{"depth":2}"#];
    let options = "--tz Asia/Tokyo --missed all:7 --overlap skip --queue low --priority 5 --tag t";
    let ended = place.args(add.into_iter().chain(options.split(' '))).coded(0);
    assert!(ended.stdout.is_empty() && ended.stderr.contains("night: "), "{ended:?}");

    let entry = place.open().cron("night").unwrap();
    assert_eq!((entry.missed, entry.overlap), (Missed::All { at_most: 7 }, Overlap::Skip));
    assert_eq!((entry.zone.as_str(), entry.kind.as_deref()), ("Asia/Tokyo", Some("sweep")));

    let tsv = place.line("cron list").good();
    let row: Vec<&str> = tsv.trim_end().split('\t').collect();
    assert_eq!(row[..3], ["night", "30 3 * * *", "Asia/Tokyo"]);
    assert_eq!((row[4], row[8]), ("active", "sweep"));
    assert!(row[5].ends_with("T18:30:00Z"), "{tsv}");
    let table = place.on_terminal("cron list --color never", "").good();
    assert!(table.trim_start().starts_with("NAME   WHEN"), "{table}");

    let next = place.line("cron next night --count 2").good();
    assert_eq!(next.lines().count(), 2);
    assert_eq!(next.lines().next(), Some(row[5]));
    assert_eq!(place.line("cron next night --json").json()["next"][0], row[5]);

    place.line("cron pause night").good();
    let listed = place.line("cron list --json").json();
    assert_eq!(listed["crons"][0]["paused"], true);
    assert_eq!(listed["crons"][0]["next"], json!(null));
    assert_eq!(listed["crons"][0]["missed"], json!({ "all": { "at_most": 7 } }));
    assert_eq!(place.line("cron resume night --json").json()["done"], "resumed");
    assert!(!place.open().cron("night").unwrap().paused);

    place.line("cron remove night").good();
    place.line("cron list").coded(3);
    for verb in ["next", "run", "pause", "resume", "remove"] {
        let ended = place.line(&format!("cron {verb} night")).coded(3);
        assert!(ended.stderr.contains("\"night\""), "{ended:?}");
    }
}

#[test]
fn add_refuses_what_cannot_be_enqueued_at_each_time() {
    let place = place();
    place.args(["cron", "add", "x", "61 * * * *", "sweep"]).coded(2);
    place.args(["cron", "add", "x", "@daily", "sweep", "{"]).coded(2);
    place.args(["cron", "add", "x", "@daily", "sweep", "--missed", "twice"]).coded(2);
    place.args(["cron", "add", "x", "@daily", "sweep", "--in", "5m"]).coded(2);
    place.line("cron list").coded(3);
}

#[test]
fn run_is_served_by_a_worker_in_another_process_at_once_and_waits_for_one() {
    let place = place();
    let script = r#"{"argv":["touch","done"]}"#;
    place.args(["cron", "add", "shell", "0 0 1 1 *", "legwork.shell", script]).good();
    // Nobody is there yet: the request waits.
    place.line("cron run shell").good();
    assert_eq!(place.open().cron("shell").unwrap().runs_asked, 1);
    let worker = place.worker("work");
    until("the first run", || place.file("done").exists());
    std::fs::remove_file(place.file("done")).unwrap();
    place.line("cron run shell").good();
    until("the second run", || place.file("done").exists());
    worker.signal(rustix::process::Signal::TERM);
    worker.end().coded(0);
    assert_eq!(place.open().stats().unwrap().count(State::Completed), 2);
}

#[test]
fn a_worker_without_cron_fires_nothing() {
    let place = place();
    let script = r#"{"argv":["true"]}"#;
    place.args(["cron", "add", "shell", "@daily", "legwork.shell", script]).good();
    place.line("cron run shell").good();
    place.line("work --until-empty --no-cron").good();
    assert_eq!(place.open().cron("shell").unwrap().runs_asked, 1);
    assert!(place.open().cron("shell").unwrap().next.unwrap() > datetime!(2026-01-01 0:00 UTC));
}
