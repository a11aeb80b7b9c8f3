//! What holds for every command: help, quiet pipes, no colours off a terminal, bytes that are no text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use super::Ended;
use super::sessions::shop_at;
use crate::common::{Place, place};

/// Everything that lists or shows, on the sessions' file.
const LISTINGS: [&str; 33] = [
    "failures",
    "queues",
    "stats",
    "enqueue mail",
    "list",
    "show 1",
    "show 3",
    "status",
    "logs 1",
    "wait 1",
    "gate list",
    "flows list",
    "flows show 8",
    "cron list",
    "cron next rotate",
    "cron check @daily",
    "retry 2 --dry-run",
    "cancel --filter queue:mail --dry-run",
    "delete 1 --dry-run",
    "clone 2 --dry-run",
    "run-now 4 --dry-run",
    "reschedule 4 --in 1h --dry-run",
    "edit 4 --priority 1 --dry-run",
    "doctor",
    "migrate",
    "prune --dry-run",
    "vacuum --quiet",
    "export --quiet",
    "pause low",
    "service systemd",
    "completions bash",
    "man",
    "bench --list",
];

#[test]
fn a_closed_pipe_is_quiet() {
    let place = place();
    shop_at(&place.path);
    for line in LISTINGS {
        for line in [line.to_owned(), format!("{line} --json")] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = place.command(line.split(' '));
            let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
            let ended = Ended::of(child.wait_with_output().unwrap());
            assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{line}");
        }
    }
}

#[test]
fn a_reader_of_the_first_line_hears_no_complaint() {
    let place = place();
    place.line("enqueue mail").good();
    let list = format!("{} list | head -n 1", super::LEGWORK);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &list]).env("LEGWORK_DB", &place.path);
    let ended = Ended::of(command.output().unwrap()).coded(0);
    assert!(ended.stdout.starts_with("1\tready\t") && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn nothing_is_coloured_off_a_terminal() {
    let place = place();
    shop_at(&place.path);
    let refused = ["show 4711", "list state:done", "list --limit 0", "nonsense", "check"];
    for line in LISTINGS.into_iter().chain(refused).chain(["--help", "help list"]) {
        let mut command = place.command(line.split(' ').chain(["--color", "auto"]));
        let ended = Ended::of(command.env("TERM", "xterm-256color").output().unwrap());
        assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "{ended:?}");
        assert!(!ended.stdout.is_empty() || ended.code != 0, "{line}");
    }
}

#[test]
fn an_option_that_is_no_utf8_is_refused() {
    let place = place();
    let odd = OsStr::from_bytes(b"a\xffb");
    for option in ["--queue", "--tag", "--gate"] {
        let args = ["enqueue", "x", option].map(OsStr::new);
        let ended = place.args(args.into_iter().chain([odd])).coded(2);
        assert!(ended.stderr.contains("UTF-8"), "{option}: {ended:?}");
    }
    let args = ["service", "systemd", "--db"].map(OsStr::new);
    let ended = place.args(args.into_iter().chain([odd])).coded(2);
    assert!(ended.stderr.contains("the path of the database is not UTF-8"), "{ended:?}");
    assert!(!place.path.exists());
}

#[test]
fn a_database_may_have_a_name_that_is_no_text() {
    let place = place();
    let odd = place.dir.path().join(OsStr::from_bytes(b"a\xffb.db"));
    let with = |line: &str| {
        let db = [OsStr::new("--db"), odd.as_os_str()];
        place.args(db.into_iter().chain(line.split(' ').map(OsStr::new)))
    };
    with("run -- true").good();
    with("work --until-empty --quiet").good();
    assert_eq!(with("wait 1").good(), "1\tcompleted\t\n");
    let status = with("status --json").json();
    assert!(status["file"]["path"].as_str().unwrap().ends_with("a\u{fffd}b.db"), "{status}");
}

#[test]
fn every_command_and_every_option_has_a_text() {
    let place = place();
    let mut seen = 0;
    walk(&place, &mut |path, help| {
        assert!(help.lines().next().is_some_and(|line| line.len() > 10), "{path}: {help}");
        options_have_texts(path, help);
        // A command's own options stand together, before those that all have.
        if let Some((own, global)) = help.split_once("\nGlobal options:\n") {
            for option in ["--db", "--json", "--color", "--yes"] {
                assert!(!own.contains(&format!("  {option}")), "{path}: {help}");
                assert!(global.contains(&format!("  {option}")), "{path}: {help}");
            }
        } else {
            assert_eq!(path, "", "{help}");
        }
        seen += 1;
    });
    assert!(seen > 35, "only {seen} commands were found");
}

/// All commands below which there are no others: `list`, `gate open`, ...
pub fn all_commands(place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    walk(place, &mut |path, help| {
        if below(help).is_empty() {
            all.push(path.to_owned());
        }
    });
    all
}

/// Visits the help of all commands.
fn walk(place: &Place, visit: &mut dyn FnMut(&str, &str)) {
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        let help = place.line(&format!("{path} --help")).good();
        visit(path.trim(), &help);
        paths.extend(below(&help).iter().map(|name| format!("{path} {name}")));
    }
}

/// The commands that a help names.
fn below(help: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in help.lines() {
        if let Some(title) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            inside = !["Options", "Global options", "Arguments", "Examples"].contains(&title);
        }
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with([' ', '-', '<', '[']));
        if let Some(name) = name.filter(|_| inside) {
            names.extend(name.split_whitespace().next().map(str::to_owned));
        }
    }
    names.retain(|name| name != "help");
    names
}

/// An option's text stands beside it, or below it with a deeper margin.
#[track_caller]
fn options_have_texts(path: &str, help: &str) {
    let lines: Vec<&str> = help.lines().collect();
    let mut options = 0;
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let margin = line.len() - text.len();
        if !(2..=6).contains(&margin) || !text.starts_with(['-', '<', '[']) {
            continue;
        }
        options += 1;
        let beside = text.contains("  ");
        let below = lines.get(at + 1).is_some_and(|next| next.starts_with("          "));
        assert!(beside || below, "{path:?}: {line}");
    }
    assert!(options > 3, "{path}: {help}");
}

#[test]
fn who_only_looks_does_not_wait_for_who_writes() {
    let place = place();
    place.line("run -- true").good();
    let app = place.connect();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Longer than any test may take, were it waited for.
    let long = std::time::Duration::from_secs(3600);
    let jobs = place.builder().busy_timeout(long).open().unwrap();
    assert_eq!(jobs.count(&legwork::Filter::new()).unwrap(), 1);
    drop(jobs);
    for line in ["list", "status", "check", "export", "queues"] {
        place.line(line).good();
    }
}
