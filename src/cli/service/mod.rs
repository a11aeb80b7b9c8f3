//! `legwork service systemd|launchd`: a unit that keeps `legwork work` running.

mod launchd;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::{DATABASE, Trouble};
use super::{Done, Program, Verb};

/// How long the manager waits beyond the worker's own grace before it kills: the last commands get
/// their TERM and KILL in it.
const BEYOND_GRACE: Duration = Duration::from_secs(15);

/// Who starts the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Manager {
    /// Linux.
    Systemd,
    /// macOS.
    Launchd,
}

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Who starts the worker: systemd (Linux) or launchd (macOS).
    #[arg(value_name = "MANAGER", value_enum, hide_possible_values = true)]
    manager: Manager,
    /// For your own session, not for the whole machine.
    #[arg(long)]
    user: bool,
    /// The unit's name. Default: `legwork-` and the database's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Options of `work`.
    #[arg(last = true, value_name = "WORK OPTIONS", allow_hyphen_values = true)]
    work: Vec<String>,
}

/// What both managers are told.
struct Service {
    name: String,
    user: bool,
    /// The program and all its arguments.
    command: Vec<String>,
    db: String,
    /// How long the worker gets to stop, in seconds.
    stop_seconds: u64,
    /// Whose jobs they are, unless root's.
    owner: Option<u32>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let service = Service::new(globals, arguments)?;
    let (unit, file) = match arguments.manager {
        Manager::Systemd => (systemd::unit(&service), systemd::place(&service)),
        Manager::Launchd => (launchd::unit(&service), launchd::place(&service)),
    };
    match globals.output() {
        Output::Json => output::json(json!({ "name": service.name, "file": file, "unit": unit }))?,
        _ => output::print(unit)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Service {
    fn new(globals: &Globals, arguments: &Arguments) -> Result<Service, Trouble> {
        let db = absolute(globals.path()?)?;
        let program = std::env::current_exe().map_err(|error| {
            Trouble::new(DATABASE, format_args!("the path of this program: {error}"))
        })?;
        let grace = grace(&arguments.work)?;
        let name = match &arguments.name {
            Some(name) if is_name(name) => name.clone(),
            Some(name) => {
                return Err(Trouble::usage(format_args!("--name {name:?}"))
                    .hint("letters, digits, `.`, `_` and single `-`, at most 200"));
            }
            None => default_name(&db),
        };
        let db = text(&db, "the database")?;
        // An app may have these commands below a word of its own.
        let below = globals.app.program.split_whitespace().skip(1);
        let words = below.chain(["--db", db.as_str(), "work"]).map(str::to_owned);
        let command: Vec<String> = [text(&program, "this program")?]
            .into_iter()
            .chain(words)
            .chain(arguments.work.iter().cloned())
            .collect();
        if let Some(word) = command.iter().find(|word| word.chars().any(char::is_control)) {
            return Err(Trouble::usage(format_args!("a control character in {word:?}"))
                .hint("a unit cannot name it"));
        }
        let uid = rustix::process::getuid();
        Ok(Service {
            name,
            user: arguments.user,
            command,
            db,
            stop_seconds: grace.saturating_add(BEYOND_GRACE).as_secs(),
            owner: (!uid.is_root()).then(|| uid.as_raw()),
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Trouble> {
    std::path::absolute(path)
        .map_err(|error| Trouble::usage(format_args!("{}: {error}", path.display())))
}

fn text(path: &Path, what: &str) -> Result<String, Trouble> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Trouble::usage(format_args!("the path of {what} is not UTF-8: {}", path.display()))
            .hint("a unit cannot name it; move it or link to it")
    })
}

/// The grace of a worker with these options, which must be such as it takes.
fn grace(work: &[String]) -> Result<Duration, Trouble> {
    let words = ["legwork", "work"].into_iter().chain(work.iter().map(String::as_str));
    match Program::try_parse_from(words).map(|read| *read.command.verb) {
        Ok(Verb::Work(arguments)) => Ok(arguments.grace),
        Ok(_) => Err(Trouble::usage("these are no options of `legwork work`")),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Err(Trouble::usage(format_args!("the worker would not start: {first}"))
                .hint("see `legwork work --help`"))
        }
    }
}

/// What both managers, file systems and comments in XML take as a name.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=200).contains(&name.len())
        && name.chars().all(fits)
        && !name.starts_with(['.', '-'])
        && !name.contains("--")
}

/// `legwork-uploads` for `/var/lib/uploads.db`.
fn default_name(db: &Path) -> String {
    let stem = db.file_stem().unwrap_or_default().to_string_lossy();
    let words = stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name = ["legwork"].into_iter().chain(words).collect::<Vec<_>>().join("-");
    name.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_databases() {
        assert_eq!(default_name(Path::new("/var/lib/uploads.db")), "legwork-uploads");
        assert_eq!(default_name(Path::new("/x/Grüße von hier.sqlite3")), "legwork-Gr-e-von-hier");
        assert!(is_name(&default_name(Path::new("/"))));
        assert!(is_name("up_loads.2-b"));
        for bad in ["", "a b", "a/b", "a%b", "-a", ".a", "a--b", "ä", &"a".repeat(201)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_grace_is_the_workers() {
        let of = |words: &[&str]| {
            grace(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]).unwrap(), Duration::from_secs(30));
        assert_eq!(of(&["-q", "a:1", "--grace", "2m"]).unwrap(), Duration::from_secs(120));
        assert!(of(&["--grace", "soon"]).is_err());
        assert!(of(&["--nonsense"]).is_err());
    }
}
