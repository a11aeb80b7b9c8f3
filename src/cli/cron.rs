//! `legwork cron ...`: the cron entries of the file, and what an expression means.

use std::process::ExitCode;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::globals::Globals;
use super::new_options::JobOptions;
use super::output::{self, Output};
use super::trouble::{NOTHING_MATCHED, Trouble};
use super::{Done, enqueue, times};
use crate::cron::{Cron, CronRecord};
use crate::rules::cron::misfire::{Missed, Overlap};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List the entries.
    List,
    /// Show the next times of an entry.
    Next {
        /// The entry.
        name: String,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 5)]
        count: u16,
    },
    /// Ask for one run of an entry, now.
    Run {
        /// The entry.
        name: String,
    },
    /// Keep an entry from firing.
    Pause {
        /// The entry.
        name: String,
    },
    /// Let a paused entry fire again.
    Resume {
        /// The entry.
        name: String,
    },
    /// Add an entry, or replace it: a job of any kind at each of its times.
    Add(Box<Add>),
    /// Remove an entry.
    Remove {
        /// The entry.
        name: String,
    },
    /// Say what an expression means, and its next times. Needs no database.
    Check(Check),
}

#[derive(clap::Args, Debug)]
pub(super) struct Add {
    /// Its name.
    name: String,
    /// When: '0 7 * * 1-5', @daily, '@every 7m'.
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    expression: String,
    /// The kind of the job.
    kind: String,
    /// The job's arguments as JSON; `-` reads them from stdin.
    #[arg(value_name = "JSON", default_value = "{}", allow_hyphen_values = true)]
    args: String,
    /// The time zone (Europe/Berlin).
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// What becomes of times at which nothing ran: skip, once, all or all:N (the newest N).
    #[arg(long, value_name = "POLICY", value_parser = missed, default_value = "once")]
    missed: Missed,
    /// Whether a time is left out while the last job is not finished: allow, skip.
    #[arg(long, value_name = "POLICY", value_parser = overlap, default_value = "allow")]
    overlap: Overlap,
    #[command(flatten)]
    options: JobOptions,
}

#[derive(clap::Args, Debug)]
pub(super) struct Check {
    /// The expression.
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    expression: String,
    /// The time zone (Europe/Berlin).
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// From when on; default: now.
    #[arg(long, value_name = "TIME", value_parser = times::instant)]
    from: Option<OffsetDateTime>,
    /// How many times.
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: u16,
}

/// What `all` without a number brings back.
const ALL: u32 = 10_000;

fn missed(text: &str) -> Result<Missed, String> {
    match (text, text.strip_prefix("all:").map(str::parse)) {
        ("skip", _) => Ok(Missed::Skip),
        ("once", _) => Ok(Missed::Once),
        ("all", _) => Ok(Missed::All { at_most: ALL }),
        (_, Some(Ok(at_most))) => Ok(Missed::All { at_most }),
        _ => Err("write skip, once, all or all:N".to_owned()),
    }
}

fn overlap(text: &str) -> Result<Overlap, String> {
    match text {
        "allow" => Ok(Overlap::Allow),
        "skip" => Ok(Overlap::Skip),
        _ => Err("write allow or skip".to_owned()),
    }
}

pub(super) fn run(globals: &Globals, command: &Command) -> Done {
    match command {
        Command::List => list(globals),
        Command::Next { name, count } => next(globals, name, *count),
        Command::Run { name } => {
            globals.open()?.run_cron(name)?;
            done(globals, name, "asked", "a run is asked for; an engine with the entry serves it")
        }
        Command::Pause { name } => {
            globals.open()?.pause_cron(name)?;
            done(globals, name, "paused", "paused")
        }
        Command::Resume { name } => {
            globals.open()?.resume_cron(name)?;
            done(globals, name, "resumed", "resumed")
        }
        Command::Add(arguments) => add(globals, arguments),
        Command::Remove { name } => {
            globals.open()?.unschedule(name)?;
            done(globals, name, "removed", "removed; jobs that it has enqueued stay")
        }
        Command::Check(arguments) => check(globals, arguments),
    }
}

/// Answers a change: in JSON as data, otherwise as talk.
fn done(globals: &Globals, name: &str, word: &str, said: &str) -> Done {
    match globals.output() {
        Output::Json => output::json(json!({ "name": name, "done": word }))?,
        _ => globals.say(format_args!("{name}: {said}")),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(globals: &Globals) -> Done {
    let entries = globals.open()?.crons()?;
    let now = OffsetDateTime::now_utc();
    match globals.output() {
        Output::Json => {
            let entries: Vec<Value> = entries.iter().map(|entry| json!(entry)).collect();
            output::json(json!({ "crons": entries }))?;
        }
        Output::Tsv => output::tsv(entries.iter().map(row))?,
        Output::Table { .. } if entries.is_empty() => {}
        Output::Table { color } => {
            let heading = ["name", "when", "next", "last", "job", "enqueues"];
            let rows = entries.iter().map(|entry| cells(entry, now)).collect();
            output::table(&heading, rows, color)?;
        }
    }
    if entries.is_empty() {
        globals.say("no cron entries; an engine's builder has them, or `legwork cron add`");
        return Ok(ExitCode::from(NOTHING_MATCHED));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &CronRecord) -> Vec<String> {
    let time = |at: Option<OffsetDateTime>| at.map(times::exact).unwrap_or_default();
    vec![
        entry.name.clone(),
        entry.expression.clone(),
        entry.zone.clone(),
        entry.words.clone(),
        if entry.paused { "paused" } else { "active" }.to_owned(),
        time(entry.next),
        time(entry.last_tick),
        entry.last_job.map(|job| job.to_string()).unwrap_or_default(),
        entry.kind.clone().unwrap_or_default(),
    ]
}

fn cells(entry: &CronRecord, now: OffsetDateTime) -> Vec<comfy_table::Cell> {
    let time = |at: OffsetDateTime| times::relative(at, now);
    let zone = if entry.zone == "UTC" { String::new() } else { format!(", {}", entry.zone) };
    let next =
        if entry.paused { "paused".to_owned() } else { entry.next.map(time).unwrap_or_default() };
    [
        entry.name.clone(),
        format!("{}{zone}", entry.words),
        next,
        entry.last_tick.map(time).unwrap_or_default(),
        entry.last_job.map(|job| job.to_string()).unwrap_or_default(),
        entry.kind.clone().unwrap_or_else(|| "by the program".to_owned()),
    ]
    .map(output::cell)
    .into()
}

fn next(globals: &Globals, name: &str, count: u16) -> Done {
    let ticks = globals.open()?.cron_next(name, count.into())?;
    match globals.output() {
        Output::Json => output::json(json!({ "name": name, "next": exact(&ticks) }))?,
        other => print_times(other, &ticks, OffsetDateTime::now_utc())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(globals: &Globals, add: &Add) -> Done {
    let cron = Cron::new(&add.expression).zone(&add.tz).missed(add.missed).overlap(add.overlap);
    let jobs = globals.create()?;
    let job = enqueue::job(globals, &jobs, &add.kind, &add.args)?;
    jobs.schedule(&add.name, cron, add.options.set(job))?;
    let entry = jobs.cron(&add.name)?;
    match globals.output() {
        Output::Json => output::json(json!({ "cron": entry }))?,
        _ => globals.say(format_args!(
            "{}: {}; next {}",
            entry.name,
            entry.words,
            entry.next.map_or_else(|| "never".to_owned(), times::exact)
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(globals: &Globals, check: &Check) -> Done {
    let cron = Cron::new(&check.expression).zone(&check.tz);
    let from = check.from.unwrap_or_else(OffsetDateTime::now_utc);
    let words = cron.words().map_err(Trouble::usage)?;
    let ticks = cron.ticks_after(from, check.count.into())?;
    match globals.output() {
        Output::Json => output::json(json!({
            "expression": check.expression,
            "zone": check.tz,
            "words": words,
            "next": exact(&ticks),
        }))?,
        other => {
            output::print(format_args!("{}\n", output::escape(&words, false)))?;
            print_times(other, &ticks, from)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exact(ticks: &[OffsetDateTime]) -> Vec<String> {
    ticks.iter().map(|tick| times::exact(*tick)).collect()
}

/// A time a line; for people with how far off it is.
fn print_times(
    output: Output,
    ticks: &[OffsetDateTime],
    now: OffsetDateTime,
) -> std::io::Result<()> {
    let rows = ticks.iter().map(|tick| match output {
        Output::Table { .. } => vec![times::exact(*tick), times::relative(*tick, now)],
        _ => vec![times::exact(*tick)],
    });
    match output {
        Output::Table { color } => {
            let rows = rows.map(|row| row.into_iter().map(output::cell).collect()).collect();
            output::table(&[], rows, color)
        }
        _ => output::tsv(rows),
    }
}
