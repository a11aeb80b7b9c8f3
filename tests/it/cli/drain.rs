//! `legwork drain`, and progress bars.

use serde_json::json;

use super::tmux::{self, Tmux};
use super::{Ended, LEGWORK, feed};
use crate::common::{Place, place};

/// A command on a terminal of 80 columns; what was drawn there, line by line, without escapes.
fn drawn(place: &Place, line: &str) -> (Ended, Vec<String>) {
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &format!("stty cols 80 rows 24; exec {LEGWORK} {line}"), "/dev/null"])
        .env("LEGWORK_DB", &place.path)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .current_dir(place.dir.path())
        .stdin(std::process::Stdio::piped());
    let ended = feed(&mut command, "");
    let mut lines = Vec::new();
    for part in ended.stdout.split(['\r', '\n']) {
        let mut text = String::new();
        let mut chars = part.chars();
        while let Some(c) = chars.next() {
            match c {
                '\u{1b}' => {
                    // An escape ends with a letter.
                    let _ = chars.by_ref().find(|c| c.is_ascii_alphabetic());
                }
                c => text.push(c),
            }
        }
        lines.push(text);
    }
    (ended, lines)
}

#[test]
fn drain_works_until_nothing_is_left_and_sums_up() {
    let place = place();
    place.line("drain").coded(5);
    for _ in 0..5 {
        place.line("run -- true").good();
    }
    place.line("run --in 1h -- true").good();
    let drained = place.line("drain --workers 2");
    assert!(drained.stderr.contains("finished 5/5 jobs"), "{drained:?}");
    assert!(drained.stderr.ends_with("left for later: 1 scheduled\n"), "{drained:?}");
    let row = drained.good();
    assert_eq!(row.split('\t').take(3).collect::<Vec<_>>(), ["5", "0", "0"]);
    place.script("", "exit 1");
    let failed = place.line("drain --json").coded(1).json();
    assert_eq!((&failed["completed"], &failed["failed"]), (&json!(0), &json!(1)));
    assert!(failed["seconds"].as_f64().unwrap() > 0.0);
    place.line("run --queue other -- true").good();
    let quiet = place.line("drain -q default --quiet");
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
    assert!(place.line("drain -q other:1").good().starts_with("1\t"));
}

#[test]
fn drain_tells_what_waits_for_room_and_what_it_leaves() {
    let place = place();
    for _ in 0..3 {
        place.line("run --rate api=1/200ms -- true").good();
    }
    let drained = place.line("drain --workers 1");
    assert!(drained.stderr.contains("finished 3/3 jobs"), "{drained:?}");
    assert!(!drained.stderr.contains("left for later"), "{drained:?}");
    place.line("run --queue low -- true").good();
    place.line("run --gate online -- true").good();
    place.line("gate close online").good();
    place.line("pause low").good();
    let drained = place.line("drain");
    assert!(drained.stderr.contains("finished 0/0 jobs"), "{drained:?}");
    let told = "left for later: 1 blocked, 1 ready (what is ready is paused, or nobody here runs its \
                queue or kind)\n";
    assert!(drained.stderr.ends_with(told), "{drained:?}");
    for others in ["other", "lo", "*,-low,-default"] {
        let drained = place.line(&format!("drain -q {others}"));
        assert!(drained.stderr.ends_with("finished 0/0 jobs, 0/s\n"), "{drained:?}");
    }
    assert!(place.line("drain -q l*").stderr.contains("left for later: 1 ready"));
}

#[test]
fn drain_stops_when_its_time_is_over() {
    let place = place();
    let id = place.script("", "exec sleep 1000");
    let over = place.line("drain --timeout 100ms --grace 0s").coded(124);
    assert!(over.stderr.contains("the time is over"), "{over:?}");
    assert_eq!(place.state(id), "ready");
}

#[test]
fn the_bar_fits_into_80_columns_and_goes_when_it_is_done() {
    let place = place();
    for _ in 0..8 {
        place.line("run -- sleep 0.2").good();
    }
    let (ended, lines) = drawn(&place, "drain --workers 1");
    assert_eq!(ended.code, 0, "{ended:?}");
    let bars: Vec<&String> = lines.iter().filter(|line| line.contains("ETA")).collect();
    assert!(!bars.is_empty(), "{ended:?}");
    for bar in &bars {
        assert!(bar.chars().count() <= 80, "{bar:?}");
        assert!(
            bar.starts_with("finished ") && bar.contains("/8 ") && bar.contains("/s"),
            "{bar:?}"
        );
    }
    let last = lines.iter().rev().find(|line| !line.is_empty()).unwrap();
    assert!(last.starts_with("8 jobs completed, 0 failed, 0 cancelled in "), "{last}");
    let (quiet, lines) = drawn(&place, "prune --all-finished --yes --quiet");
    assert_eq!((quiet.code, lines.concat().trim()), (0, "removed 8 jobs"));
}

/// What is seen of the bar on a terminal that is looked at, not only written to.
#[test]
fn the_bar_stands_alone_on_its_line() {
    let place = place();
    let Some(tmux) = Tmux::start(&place) else { return };
    place.line("run -- true").good();
    for _ in 0..3 {
        place.script("", "while [ ! -e go ]; do sleep 0.05; done");
    }
    tmux.line(&format!("clear; {LEGWORK} drain --workers 1; echo \"code $?\""));
    let screen = tmux.until(&["1/4 ", "ETA"]);
    // How fast it is and how long it takes differ from run to run, and have a width of their own.
    let (bar, words) = screen.split_once("1/4 ").unwrap();
    let (words, rest) = words.split_once('\n').unwrap();
    let (rate, left) = words.split_once(" ETA ").unwrap();
    assert!(rate.len() == 7 && rate.contains('/') && left.trim_end().len() <= 7, "{screen}");
    let picture = format!("{bar}1/4 {:>7} ETA n\n{}", "n/s", rest.trim_end());
    tmux::compare("drain_80x24.txt", &picture);
    std::fs::write(place.file("go"), "").unwrap();
    let screen = tmux.until(&["code 0"]);
    assert!(screen.starts_with("4 jobs completed, 0 failed, 0 cancelled in "), "{screen}");
}
