//! What the command line writes for others to read: completions, man pages, units, files to start
//! from.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::place;

/// What `legwork new job welcome_email --queue mail` writes, compiled and run here.
#[path = "../generated/welcome_email.rs"]
mod welcome_email;

/// Whether a program is here; without it a part of a test is left out.
fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

#[track_caller]
fn bash(script: &str) -> String {
    let ended = super::Ended::of(Command::new("bash").args(["-c", script]).output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    ended.stdout
}

#[test]
fn bash_completes_commands_and_options() {
    let place = place();
    let script = place.line("completions bash").good();
    let file = place.file("legwork.bash");
    fs::write(&file, script).unwrap();
    let file = file.display();
    bash(&format!("bash -n {file}"));
    let complete = |words: &str| {
        let typed: Vec<&str> = words.split(' ').collect();
        let last = typed.len() - 1;
        let current = typed[last];
        let before = typed[last - 1];
        bash(&format!(
            "source {file}; COMP_WORDS=({words}); COMP_CWORD={last}; \
             _legwork legwork '{current}' '{before}'; echo \"${{COMPREPLY[@]}}\""
        ))
    };
    assert_eq!(complete("legwork statu"), "status\n");
    assert_eq!(complete("legwork work --until"), "--until-empty\n");
    assert_eq!(complete("legwork gate cl"), "close\n");
    assert_eq!(complete("legwork --color ne"), "never\n");
}

#[test]
fn every_shell_gets_completions_that_know_the_commands() {
    let place = place();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.line(&format!("completions {shell}")).good();
        for word in ["until-empty", "enqueue", "launchd"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains('\u{1b}'), "{shell}");
        // Where the shell is here, it reads them.
        if ["zsh", "fish"].contains(&shell) && has(shell) {
            let file = place.file(shell);
            fs::write(&file, script).unwrap();
            let ended = Command::new(shell).arg("-n").arg(&file).status().unwrap();
            assert!(ended.success(), "{shell}");
        }
    }
}

#[test]
fn man_writes_a_page_for_every_command() {
    let place = place();
    let main = place.line("man").good();
    assert!(main.contains("\n.TH legwork 1"), "{main}");
    let listed = place.line("man pages").good();
    let files: Vec<&str> = listed.lines().collect();
    for name in ["legwork", "legwork-list", "legwork-gate-close", "legwork-new-job"] {
        assert!(files.contains(&format!("pages/{name}.1").as_str()), "{name}: {listed}");
    }
    assert_eq!(fs::read_dir(place.file("pages")).unwrap().count(), files.len());
    for file in &files {
        let file = place.file(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\n.SH SYNOPSIS") && !text.contains('\u{1b}'), "{file:?}");
        assert!(text.contains("LEGWORK_DB") && text.contains(".SH \"GLOBAL OPTIONS\""), "{text}");
        roff_is_sound(&file);
    }
}

/// As far as what is here can tell.
fn roff_is_sound(file: &Path) {
    for (program, args) in [("mandoc", ["-T", "lint"]), ("groff", ["-ww", "-mandoc"])] {
        if has(program) {
            let ended = Command::new(program).args(args).arg("-z").arg(file).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success() && !said.contains("error"), "{file:?}: {said}");
        }
    }
}

#[test]
fn systemd_accepts_the_unit() {
    let place = place();
    let mut args = vec!["service", "systemd", "--db", "/tmp/my 100% jobs $x.db", "--name", "x"];
    let unit = place.args(&args).good();
    let exec = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_eq!(exec, format!("{} --db \"/tmp/my 100%% jobs $$x.db\" work", super::LEGWORK));
    args.push("--user");
    for unit in [unit, place.args(&args).good()] {
        let file = place.file("x.service");
        fs::write(&file, &unit).unwrap();
        if has("systemd-analyze") {
            let mut verify = Command::new("systemd-analyze");
            let ended = verify.args(["verify", "--man=no"]).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            // It also tells of the machine's own units.
            assert!(!said.contains("x.service"), "{said}");
        }
    }
}

#[test]
fn the_property_list_says_what_was_meant() {
    let place = place();
    let odd = r#"/srv/a & <b> "c".db"#;
    let list = place.args(["service", "launchd", "--db", odd, "--", "-q", "x y"]).good();
    let file = place.file("x.plist");
    fs::write(&file, &list).unwrap();
    if has("python3") {
        let read = "import plistlib, sys; print(plistlib.load(open(sys.argv[1], 'rb'))['ProgramArguments'])";
        let ended = Command::new("python3").args(["-c", read]).arg(&file).output().unwrap();
        let words = super::Ended::of(ended).good();
        let expected = format!("['{}', '--db', '{odd}', 'work', '-q', 'x y']\n", super::LEGWORK);
        assert_eq!(words, expected);
    }
}

#[test]
fn the_unit_waits_longer_than_the_worker() {
    let place = place();
    let unit = place.line("service systemd -- --grace 2m").good();
    assert!(unit.contains("\nTimeoutStopSec=135\n"), "{unit}");
    let list = place.line("service launchd").good();
    assert!(list.contains("<key>ExitTimeOut</key>\n    <integer>45</integer>"), "{list}");
}

#[test]
fn a_new_job_compiles_and_its_test_passes() {
    let place = place();
    fs::create_dir(place.file("src")).unwrap();
    let file = place.line("new job welcome_email --queue mail").good();
    let written = fs::read_to_string(place.file(file.trim_end())).unwrap();
    // The module above is this text, and its test runs with the others.
    let compiled = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/generated/welcome_email.rs");
    let known = fs::read_to_string(compiled).unwrap();
    assert_eq!(written, known, "write it anew: legwork new job welcome_email --queue mail");
}

#[test]
fn a_new_job_overwrites_nothing() {
    let place = place();
    fs::write(place.file("mine.rs"), "kept").unwrap();
    let refused = place.line("new job mine --dir .").coded(4);
    assert!(refused.stderr.contains("take another name"), "{refused:?}");
    assert_eq!(fs::read_to_string(place.file("mine.rs")).unwrap(), "kept");
    place.line("new job other --dir no/such").coded(4);
    assert!(!place.file("no").exists());
}
