//! What the commands that change jobs have in common: which jobs, whether really, and the answer.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::ArgGroup;
use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::query::Query;
use super::shell;
use super::trouble::{NOTHING_MATCHED, REFUSED, Trouble};
use super::{Done, ids, query};
use crate::error::{Error, Result};
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::record::{Changed, Cloned, Selection};
use crate::rules::amount;
use crate::state::State;

/// For a filter that names no state.
pub(super) const UNFINISHED: &[State] =
    &[State::Scheduled, State::Blocked, State::Ready, State::Running, State::Retrying];
pub(super) const WAITING: &[State] =
    &[State::Scheduled, State::Blocked, State::Ready, State::Retrying];

/// Whether a job waits, for whatever.
pub(super) fn waits(state: State) -> bool {
    WAITING.contains(&state)
}

#[derive(clap::Args, Debug)]
#[group(skip)]
#[command(group(ArgGroup::new("which").required(true)))]
pub(super) struct Arguments {
    /// The jobs.
    #[arg(value_name = "ID", group = "which", value_parser = ids::job)]
    ids: Vec<JobId>,
    /// All that match, as in `list`.
    #[arg(long, value_name = "QUERY", group = "which")]
    filter: Vec<String>,
    /// Only say how many would be changed.
    #[arg(long)]
    dry_run: bool,
}

/// One of these commands.
pub(super) struct Verb<'a> {
    /// `retry`.
    pub(super) word: &'static str,
    /// `retried`.
    pub(super) past: &'static str,
    /// The states of a filter that names none.
    pub(super) states: &'static [State],
    /// Whether it can be done to a job in this state.
    pub(super) applies: fn(State) -> bool,
    /// It answers with the ids of new jobs.
    pub(super) makes_jobs: bool,
    /// Commands that have outlived their worker may be unwanted then.
    pub(super) ends_commands: bool,
    pub(super) apply: &'a dyn Fn(&Jobs, Selection) -> Result<Applied>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Applied {
    changed: Changed,
    /// New jobs.
    ids: Vec<JobId>,
}

impl From<Changed> for Applied {
    fn from(changed: Changed) -> Applied {
        Applied { changed, ids: Vec::new() }
    }
}

impl From<Cloned> for Applied {
    fn from(done: Cloned) -> Applied {
        let Cloned { ids, skipped, not_unique } = done;
        let changed =
            Changed { changed: ids.len() as u64, skipped, not_unique, ..Changed::default() };
        Applied { changed, ids }
    }
}

pub(super) fn run(globals: &Globals, arguments: &Arguments, verb: &Verb<'_>) -> Done {
    let now = OffsetDateTime::now_utc();
    let query = query::parse(&arguments.filter, now)?;
    if !arguments.filter.is_empty() && query == query::parse(&[], now)? {
        return Err(Trouble::usage("--filter: the query is empty"));
    }
    let jobs = globals.open()?;
    let done = change(globals, arguments, verb, query, &jobs);
    // Also if there was nothing to do: who was interrupted as he waited comes again.
    if verb.ends_commands && !arguments.dry_run {
        shell::end_unwanted(&jobs).wait();
    }
    done
}

fn change(
    globals: &Globals,
    arguments: &Arguments,
    verb: &Verb<'_>,
    query: Query,
    jobs: &Jobs,
) -> Done {
    let Found { selection, matched, unfit, gone } = if arguments.filter.is_empty() {
        of_ids(jobs, &arguments.ids, verb)?
    } else {
        let states = if query.has_state { &[][..] } else { verb.states };
        let filter = states.iter().fold(query.filter, |filter, state| filter.state(*state));
        let matched = jobs.count(&filter)?;
        Found { selection: Selection::Matching(filter), matched, unfit: 0, gone: 0 }
    };
    if matched == 0 {
        answer(globals, verb, arguments.dry_run, 0, Applied::default())?;
        return Ok(ExitCode::from(NOTHING_MATCHED));
    }
    let fit = matched - unfit;
    if !arguments.dry_run && fit > 1 {
        confirm(globals, verb.word, fit)?;
    }
    let applied = match arguments.dry_run {
        true => Changed { skipped: unfit + gone, ..Changed::default() }.into(),
        false => (verb.apply)(jobs, selection)?,
    };
    // Who names a job means it; who filters takes what there is.
    let is_refused = arguments.filter.is_empty() && applied.changed.skipped > 0;
    answer(globals, verb, arguments.dry_run, matched, applied)?;
    Ok(if is_refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

/// Which jobs are meant.
struct Found {
    selection: Selection,
    matched: u64,
    /// How many of these are named and in a state in which it makes no sense.
    unfit: u64,
    /// How many more are named.
    gone: u64,
}

/// The jobs named, each once. One alone that is not there, or to which it cannot be done, is an error.
fn of_ids(jobs: &Jobs, ids: &[JobId], verb: &Verb<'_>) -> Result<Found, Trouble> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    if let [id] = ids[..] {
        let state = jobs.get(id)?.state;
        if !(verb.applies)(state) {
            return Err(Error::WrongState { id, state, verb: verb.word }.into());
        }
        return Ok(Found { selection: Selection::One(id), matched: 1, unfit: 0, gone: 0 });
    }
    let (mut matched, mut unfit, mut gone) = (0, 0, 0);
    for id in &ids {
        match jobs.get(*id) {
            Ok(job) => {
                matched += 1;
                unfit += u64::from(!(verb.applies)(job.state));
            }
            Err(Error::NotFound(_)) => gone += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found { selection: Selection::Many(ids), matched, unfit, gone })
}

/// Asks whether to do it to so many jobs.
pub(super) fn confirm(globals: &Globals, word: &str, matched: u64) -> Result<(), Trouble> {
    if globals.yes {
        return Ok(());
    }
    let refused = |text: String| Trouble::new(REFUSED, text);
    // Who does not see the question cannot answer it.
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(refused(format!("this would {} {matched} jobs", word))
            .hint("look with --dry-run; do it with --yes"));
    }
    let mut err = io::stderr().lock();
    // Nobody to ask: then nobody answers yes.
    let _ = write!(err, "{} {matched} jobs? [y/N] ", word).and_then(|()| err.flush());
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if !line.ends_with('\n') {
        let _ = writeln!(err);
    }
    drop(err);
    match (read, line.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(refused("nothing was changed".to_owned())),
    }
}

fn answer(
    globals: &Globals,
    verb: &Verb<'_>,
    dry_run: bool,
    matched: u64,
    done: Applied,
) -> io::Result<()> {
    let Changed { changed, skipped, not_unique, held_by_parent } = done.changed;
    let out = globals.output();
    let nothing_on_a_terminal = matched == 0 && out != Output::Tsv;
    if verb.makes_jobs && !dry_run && out != Output::Json && !nothing_on_a_terminal {
        return new_ids(globals, verb, &done.ids, skipped);
    }
    match out {
        Output::Json => {
            let mut answer = json!({
                "dry_run": dry_run,
                "matched": matched,
                "changed": changed,
                "skipped": skipped,
                "not_unique": not_unique,
                "held_by_parent": held_by_parent,
            });
            if verb.makes_jobs {
                answer["ids"] = json!(done.ids);
            }
            output::json(answer)
        }
        Output::Tsv => output::tsv([[matched, changed, skipped].map(|n| n.to_string()).to_vec()]),
        Output::Table { .. } if matched == 0 => {
            globals.say("no job matches");
            Ok(())
        }
        Output::Table { .. } if dry_run => {
            let more = match skipped {
                0 => String::new(),
                skipped => {
                    format!("; {skipped} skipped: gone, or in a state in which it makes no sense")
                }
            };
            let fit = amount::jobs(matched.saturating_sub(skipped));
            output::print(format_args!("would {} {fit}{more}\n", verb.word))
        }
        Output::Table { .. } if skipped > 0 => output::print(format_args!(
            "{} {}; {skipped} skipped: gone, in a state in which it makes no sense, \
             with a unique key that another job has, or with a parent that did not complete\n",
            verb.past,
            amount::jobs(changed)
        )),
        Output::Table { .. } => {
            output::print(format_args!("{} {}\n", verb.past, amount::jobs(changed)))
        }
    }
}

/// The new jobs, a line each, so that the next command can take them.
fn new_ids(globals: &Globals, verb: &Verb<'_>, ids: &[JobId], skipped: u64) -> io::Result<()> {
    if skipped > 0 {
        globals.say(format_args!(
            "{} {}; {skipped} skipped: gone, or with a unique key that another job has",
            verb.past,
            amount::jobs(ids.len() as u64)
        ));
    }
    ids.iter().try_for_each(|id| output::print(format_args!("{id}\n")))
}
