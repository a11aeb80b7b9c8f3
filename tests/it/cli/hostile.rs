//! Arguments that mean harm, and readers that have seen enough.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::common::place;

#[test]
fn names_that_look_like_sql_are_names() {
    let place = place();
    let name = "x'); DROP TABLE legwork_jobs; --";
    for _ in 0..2 {
        place.args(["enqueue", name, "--queue", name, "--tag", name]).good();
    }
    let query = format!("kind:\"{name}\" queue:\"{name}\" tag:\"{name}\"");
    let found = place.args(["list", "--json", &query]).coded(0).json();
    assert_eq!(found["jobs"][1]["kind"], name);
    let query = format!("queue:\"' OR 1=1 --{name}\"");
    place.args(["cancel", "--yes", "--filter", &query]).coded(3);
    assert_eq!(place.line("list").good().lines().count(), 2);
}

#[test]
fn control_characters_are_refused_in_names_and_escaped_in_answers() {
    let place = place();
    for args in [["enqueue", "a\u{1b}[31mb"], ["enqueue", "a\nb"], ["enqueue", ""]] {
        let ended = place.args(args).coded(2);
        assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    }
    let id = place.script("", "printf 'a\\033[2Jb\\tc\\\\d' >&2; exit 1");
    place.work().coded(1);
    let answers = [
        place.line("list").good(),
        place.line(&format!("show {id}")).good(),
        place.on_terminal("list --color never", "").good(),
        place.on_terminal(&format!("show {id} --color never"), "").good(),
    ];
    for answer in answers {
        assert!(!answer.contains('\u{1b}') && answer.contains("\\u{1b}[2J"), "{answer:?}");
    }
    assert_eq!(place.show(id)["stderr"], "a\u{1b}[2Jb\tc\\d", "JSON has its own escapes");
    let list = place.line("list").good();
    assert_eq!(
        list.lines().next().unwrap().split('\t').count(),
        13,
        "a tab breaks no row: {list:?}"
    );
}

#[test]
fn a_command_is_no_shells_business() {
    let place = place();
    let words =
        ["$(touch pwned)", "`touch pwned`", "; touch pwned", "| x", "&", "*", "a b", "", "'\""];
    let id = place.args(["run", "--", "printf", "<%s>"].into_iter().chain(words)).id();
    // With a shell the arguments are still no part of the script.
    let shell = ["run", "--shell", "--", "printf '<%s>' \"$@\""];
    let scripted = place.args(shell.into_iter().chain(words)).id();
    place.work().good();
    let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(place.show(id)["stdout"], expected);
    assert_eq!(place.show(scripted)["stdout"], expected);
    assert!(!place.file("pwned").exists());
}

#[test]
fn arguments_that_are_no_utf8_arrive_byte_for_byte_or_are_refused() {
    let place = place();
    let odd = OsStr::from_bytes(b"\xff\xfe/\x80");
    let print = [OsStr::new("run"), OsStr::new("--"), OsStr::new("printf"), OsStr::new("%s"), odd];
    let id = place.args(print).id();
    place.work().good();
    assert_eq!(place.show(id)["job"]["args"]["argv"][2], json!([255, 254, 47, 128]));
    let kept = place.command(["logs", &id.to_string()]).output().unwrap().stdout;
    assert_eq!(kept, odd.as_bytes());

    let ended = place.args([OsStr::new("enqueue"), odd]).coded(2);
    assert!(ended.stderr.contains("UTF-8"), "{ended:?}");
    let db = place.dir.path().join(odd.to_str().map_or(OsStr::from_bytes(b"\xff.db"), OsStr::new));
    place.args([OsStr::new("--db"), db.as_os_str(), OsStr::new("enqueue"), OsStr::new("x")]).good();
    assert!(db.exists());
}

#[test]
fn a_database_may_have_a_name_that_sqlite_takes_for_something_else() {
    let place = place();
    for name in ["file:jobs.db", "file:x?mode=memory", ":memory:"] {
        let db = format!("--db={name}");
        assert_eq!(place.args([&db, "enqueue", "mail"]).good(), "1\n", "{name}");
        assert_eq!(place.args([&db, "enqueue", "mail"]).good(), "2\n", "{name}");
        place.args([&db, "doctor"]).coded(4);
        assert!(place.file(name).exists(), "{name}");
        place.args([&db, "backup", &format!("file:{name}.copy")]).good();
        assert!(place.file(&format!("file:{name}.copy")).exists(), "{name}");
    }
}

#[test]
fn events_end_when_nobody_reads_them_any_more() {
    let place = place();
    place.line("enqueue mail").good();
    let mut command = place.command(["events", "-f"]);
    let piped = std::process::Stdio::piped;
    let mut process = command.stdout(piped()).stderr(piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(process.stderr.take().unwrap()),
        &mut said,
    )
    .unwrap();
    drop(process.stdout.take());
    assert!(process.wait().unwrap().success(), "{said}");
}
