//! The commands inside an app's own program: `examples/app_with_jobs`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Ended;
use super::everywhere::all_commands;
use crate::common::{Place, place};
use legwork::JobId;
use serde_json::json;

fn notes(place: &Place, line: &str) -> Ended {
    let test = std::env::current_exe().unwrap();
    let notes: PathBuf = test.ancestors().nth(2).unwrap().join("examples/app_with_jobs");
    assert!(notes.exists(), "{} is missing: `cargo test` builds it", notes.display());
    let mut command = Command::new(notes);
    command.args(line.split_whitespace()).current_dir(place.dir.path()).stdin(Stdio::null());
    command.env("NOTES", &place.path).env_remove("LEGWORK_DB");
    Ended::of(command.output().unwrap())
}

#[test]
fn an_app_has_all_commands_with_its_own_kinds_and_its_own_file() {
    let place = place();
    std::fs::write(place.file("a"), "one two three").unwrap();
    std::fs::write(place.file("b"), "one").unwrap();
    assert_eq!(notes(&place, "add a b a").good().lines().count(), 3);
    assert_eq!(notes(&place, "jobs list --json").json()["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(notes(&place, "jobs run --shell -- true").good(), "3\n");
    notes(&place, "jobs check").good();
    notes(&place, "jobs work --until-empty").good();
    let counts = notes(&place, "counts").good();
    let words: Vec<&str> = counts.lines().map(|line| line[..6].trim()).collect();
    assert_eq!(words, ["3", "1"]);
    assert_eq!(place.line("list state:completed").good().lines().count(), 3);
}

#[test]
fn a_deploy_is_stopped_by_arguments_that_no_longer_decode() {
    let place = place();
    notes(&place, "jobs check").coded(5);
    place.args(["enqueue", "count_words", r#"{"path":"a"}"#]).good();
    place.args(["enqueue", "renamed", "{}"]).good();
    let report = notes(&place, "jobs check --json").coded(4).json();
    assert_eq!(report["undecodable"][0]["kind"], "count_words");
    assert_eq!(report["undecodable"][0]["ids"][0], 1);
    assert_eq!(report["unknown"][0]["kind"], "renamed");
    let ended = notes(&place, "jobs work --until-empty").coded(1);
    assert!(ended.stderr.contains("missing field `file`"), "{ended:?}");
}

#[test]
fn an_app_enqueues_its_kinds_by_its_own_types_before_an_engine_has_run() {
    let place = place();
    let enqueue = |args: &str| notes(&place, &format!("jobs enqueue count_words {args}"));
    let ended = enqueue(r#"{"file":"a","new":1}"#).coded(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("1\n", ""));
    let job = place.show(JobId(1))["job"].take();
    assert_eq!((&job["queue"], &job["args"]), (&json!("counting"), &json!({ "file": "a" })));
    // Unique by its arguments, as the app's own.
    assert_eq!(notes(&place, "jobs enqueue count_words - --queue high").coded(2).stdout, "");
    assert_eq!(enqueue(r#"{"file":"a"}"#).good(), "1\n");
    let refused = enqueue(r#"{"path":"a"}"#).coded(2);
    assert!(refused.stderr.contains("arguments: missing field `file`"), "{refused:?}");
    assert!(enqueue("{").coded(2).stderr.contains("double quotes"));
    let refused = notes(&place, "jobs cron add daily @daily count_words").coded(2);
    assert!(refused.stderr.contains("missing field `file`"), "{refused:?}");
    assert_eq!(place.line("list").good().lines().count(), 1);
    let foreign = notes(&place, "jobs enqueue renamed").coded(0);
    assert_eq!(foreign.stdout, "2\n");
    assert!(foreign.stderr.contains("\"renamed\" is no kind of this program"), "{foreign:?}");
    assert_eq!(notes(&place, "jobs enqueue renamed --quiet").coded(0).stderr, "");
    // The bare program goes by what engines have recorded, and tries nothing.
    let bare = place.args(["enqueue", "count_words", r#"{"path":"a"}"#]).coded(0);
    assert_eq!((bare.stdout.as_str(), bare.stderr.as_str()), ("4\n", ""));
}

#[test]
fn hints_name_the_apps_own_program() {
    let place = place();
    place.line("enqueue mail").good();
    let ended = notes(&place, "jobs wait 1").coded(69);
    assert!(ended.stderr.contains("start `notes jobs work`"), "{ended:?}");
    let ended = notes(&place, "jobs show 7").coded(3);
    assert!(ended.stderr.starts_with("notes jobs: no job 7"), "{ended:?}");
    assert!(ended.stderr.contains("`notes jobs list`"), "{ended:?}");
}

#[test]
fn no_help_sends_the_users_of_an_app_to_another_program() {
    let place = place();
    for line in all_commands(&place).iter().map(String::as_str).chain(["", "cron", "gate"]) {
        let help = notes(&place, &format!("jobs {line} --help")).good();
        let own = help.replace("Measure legwork against bare SQLite", "");
        assert!(!own.contains("legwork "), "{line}: {help}");
        assert!(help.contains("Usage: app_with_jobs jobs"), "{line}: {help}");
    }
    assert!(notes(&place, "jobs --help").good().contains("Exit codes: 0 done, "));
}

#[test]
fn pools_of_the_command_line_take_the_place_of_the_apps() {
    let place = place();
    std::fs::write(place.file("a"), "one").unwrap();
    notes(&place, "add a").good();
    notes(&place, "jobs work --until-empty -q other:1").good();
    assert_eq!(place.line("list state:ready").good().lines().count(), 1);
    notes(&place, "jobs work --until-empty").good();
    assert_eq!(place.line("list state:completed").good().lines().count(), 1);
}

#[test]
fn a_unit_and_the_manual_are_the_apps_own() {
    let place = place();
    let unit = notes(&place, "jobs service systemd --db /srv/notes.db -- --grace 1m").good();
    let exec = "/examples/app_with_jobs jobs --db /srv/notes.db work --grace 1m\n";
    assert!(unit.contains(exec), "{unit}");
    let pages = notes(&place, "jobs man pages").good();
    assert!(pages.contains("pages/notes-jobs-list.1\n"), "{pages}");
    // The app's own completions have these commands in them; alone they would complete another program.
    let refused = notes(&place, "jobs completions bash").coded(4);
    assert!(refused.stderr.contains("`notes jobs`"), "{refused:?}");
}
