//! The help: the commands under headings, and examples of those that are used most.

use std::fmt::Write as _;

/// All commands, in the order in which they are shown.
const GROUPS: [(&str, &str); 8] = [
    ("Work", "work drain"),
    ("Add", "run enqueue"),
    ("See", "status list show logs failures queues workers flows stats health events top"),
    ("Change", "retry cancel delete reschedule edit clone run-now pause resume gate"),
    ("Wait", "wait"),
    ("Cron", "cron"),
    ("Care", "check doctor migrate prune backup vacuum export import bench"),
    ("Set up", "new service completions man help"),
];

/// Below the options, and in an app's own program alone.
pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a job failed, 2 usage, 3 nothing matched, 4 refused,
5 database, 69 no live worker, 124 time-out, 129/130/143 interrupted.";

/// Below that.
const FOOT: &str = "\
Examples:
  export LEGWORK_DB=jobs.db
  legwork run --attempts 5 -- ./upload.sh photo.jpg    # prints the id
  legwork work                                         # runs what waits
  legwork list state:failed since:1h
  legwork help list";

/// What stands at the end of a command's help.
const EXAMPLES: [(&str, &str); 19] = [
    (
        "work",
        "legwork work
legwork work -q high,default:2 -q low:1
legwork work --until-empty --workers 1",
    ),
    ("drain", "legwork drain -q uploads:4 --timeout 10m"),
    (
        "run",
        "legwork run -- ./upload.sh photo.jpg
legwork run --attempts 5 --retry-codes 75 --timeout 10m -- ./upload.sh a.jpg
legwork run --in 2h --unique backup -- ./backup.sh
legwork run --shell --wait -- 'sort \"$1\" | uniq -c' words.txt",
    ),
    (
        "enqueue",
        "legwork enqueue welcome_email '{\"user_id\":7}' --queue mail
legwork enqueue report - --at 2026-05-01T08:00:00Z < report.json",
    ),
    (
        "list",
        "legwork list state:failed kind:welcome_email since:1h
legwork list queue:mail tag:eu --limit 100 --json",
    ),
    (
        "logs",
        "legwork logs 7 -f
legwork logs 7 --stream stderr",
    ),
    (
        "events",
        "legwork events -f
legwork events -f --kind welcome_email --event failed --event retrying",
    ),
    (
        "wait",
        "legwork wait 1 2 3 --timeout 10m
legwork wait 1 2 --any",
    ),
    (
        "retry",
        "legwork retry 7
legwork retry --filter 'state:failed kind:welcome_email' --dry-run",
    ),
    (
        "cancel",
        "legwork cancel 7 8 --yes
legwork cancel --filter queue:mail",
    ),
    (
        "reschedule",
        "legwork reschedule 7 --in 2h
legwork reschedule --filter queue:mail --at 2026-05-01T08:00:00Z",
    ),
    (
        "edit",
        "legwork edit 7 --args '{\"user_id\":8}'
legwork edit --filter queue:mail --priority -1 --tag urgent",
    ),
    (
        "pause",
        "legwork pause mail
legwork pause --kind welcome_email
legwork pause",
    ),
    (
        "cron",
        "legwork cron add nightly '30 3 * * *' legwork.shell '{\"argv\":[\"./backup.sh\"]}'
legwork cron check '0 7 * * 1-5' --tz Europe/Berlin
legwork cron list",
    ),
    (
        "prune",
        "legwork prune --completed 7d --failed 30d --dry-run
legwork prune --all-finished",
    ),
    (
        "export",
        "legwork export state:failed state:ready queue:mail > jobs.jsonl
legwork --db new.db import jobs.jsonl",
    ),
    (
        "service",
        "legwork service systemd --user > ~/.config/systemd/user/legwork-jobs.service
legwork service systemd --name uploads -- -q uploads:4 --grace 2m",
    ),
    (
        "completions",
        "legwork completions bash > ~/.local/share/bash-completion/completions/legwork
legwork completions zsh > ~/.zfunc/_legwork
legwork completions fish > ~/.config/fish/completions/legwork.fish",
    ),
    (
        "new",
        "legwork new job welcome_email
legwork new job welcome_email --queue mail",
    ),
];

/// The command with its help in order, for a program of this name.
pub(super) fn arranged(command: clap::Command, program: &str) -> clap::Command {
    // The name of the program, and those of the files for its completions.
    const NAMES: [&str; 4] = ["legwork ", "completions/legwork", "/_legwork", "/legwork.fish"];
    let named = |text: &str| {
        let name = |text: String, name: &str| text.replace(name, &name.replace("legwork", program));
        NAMES.into_iter().fold(text.to_owned(), name)
    };
    let command = command.mut_subcommands(|found| {
        match EXAMPLES.iter().find(|(name, _)| *name == found.get_name()) {
            Some((_, lines)) => found.after_help(named(&examples(lines))),
            None => found,
        }
    });
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{}\n{{options}}{{after-help}}",
        commands(&command),
        heading(&command, "Options"),
    );
    command.help_template(template).after_help(named(&format!("{EXIT_CODES}\n\n{FOOT}")))
}

fn examples(lines: &str) -> String {
    lines.lines().fold("Examples:".to_owned(), |text, line| text + "\n  " + line)
}

fn heading(command: &clap::Command, text: &str) -> String {
    let style = command.get_styles().get_header();
    format!("{style}{text}:{style:#}")
}

/// The commands under their headings. One that no heading names stands under the last.
fn commands(command: &clap::Command) -> String {
    let named: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.split(' ')).collect();
    let widest = named.iter().map(|name| name.len()).max().unwrap_or_default();
    let literal = command.get_styles().get_literal();
    let mut text = String::new();
    let line = |text: &mut String, name: &str, about: &str| {
        // Writing into a string does not fail.
        let _ = writeln!(text, "  {literal}{name:<widest$}{literal:#}  {about}");
    };
    for (title, names) in GROUPS {
        let mut lines = String::new();
        for name in names.split(' ') {
            if let Some(found) = command.find_subcommand(name) {
                line(&mut lines, name, &about(found));
            } else if name == "help" {
                line(&mut lines, name, "Tell about a command");
            }
        }
        if !lines.is_empty() {
            let _ = writeln!(text, "{}\n{lines}", heading(command, title));
        }
    }
    let others = command
        .get_subcommands()
        .filter(|found| !named.contains(&found.get_name()) && !found.is_hide_set());
    for other in others {
        line(&mut text, other.get_name(), &about(other));
    }
    text
}

fn about(command: &clap::Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{BARE, Program, typed};
    use super::*;
    use clap::Parser;

    #[test]
    fn every_command_stands_under_a_heading() {
        let named: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.split(' ')).collect();
        for found in typed(BARE).get_subcommands() {
            assert!(named.contains(&found.get_name()), "{} is in no group", found.get_name());
        }
        let mut once = named.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), named.len(), "a command stands twice");
    }

    #[test]
    fn what_the_help_says_itself_fits_eighty_columns() {
        let help = typed(BARE).render_help().to_string();
        // The options are wrapped at the terminal's width.
        let commands = help.lines().take_while(|line| *line != "Options:");
        for line in commands.chain(EXIT_CODES.lines()).chain(FOOT.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for line in EXAMPLES.iter().flat_map(|(_, lines)| lines.lines()) {
            assert!(line.chars().count() <= 78, "{line}");
        }
        assert!(help.contains("See:\n  status       Show queues"), "{help}");
        assert!(!help.contains('{'), "{help}");
    }

    #[test]
    fn the_examples_are_accepted() {
        let all = EXAMPLES.iter().flat_map(|(_, lines)| lines.lines());
        for line in all.chain(FOOT.lines().filter(|line| line.trim().starts_with("legwork "))) {
            let words = words(line);
            if let Err(error) = Program::try_parse_from(&words) {
                assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}: {error}");
            }
        }
    }

    /// What a shell would pass on, before a redirection or a comment.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![];
        let mut word: Option<String> = None;
        let mut quoted = false;
        for c in line.trim().chars() {
            match c {
                '\'' => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                '>' | '<' | '#' if !quoted && word.is_none() => break,
                ' ' if !quoted => words.extend(word.take()),
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }
}
