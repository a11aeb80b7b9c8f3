//! `legwork list [QUERY]`.

use std::process::ExitCode;

use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::shell::ShellJob;
use super::trouble::NOTHING_MATCHED;
use super::{Done, ids, query, times};
use crate::id::JobId;
use crate::job::Job;
use crate::record::{JobRecord, Page};
use crate::state::State;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Which jobs: state:failed kind:mail args.user_id:7 error:timeout since:1h, or any text.
    query: Vec<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Only jobs with lower ids: the next page.
    #[arg(long, value_name = "ID", value_parser = ids::job)]
    before: Option<JobId>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let query = query::parse(&arguments.query, OffsetDateTime::now_utc())?;
    let jobs = globals.open()?;
    let page = jobs.list(&query.filter, arguments.before, arguments.limit.into())?;
    show(globals, &page)?;
    if page.jobs.is_empty() {
        globals.say("no job matches");
        return Ok(ExitCode::from(NOTHING_MATCHED));
    }
    if let Some(next) = page.next {
        globals.say(format_args!("there are more: --before {next}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(globals: &Globals, page: &Page) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => {
            let jobs: Vec<_> = page.jobs.iter().map(output::job).collect();
            output::json(json!({ "jobs": jobs, "next": page.next }))
        }
        Output::Tsv => output::tsv(page.jobs.iter().map(fields)),
        Output::Table { .. } if page.jobs.is_empty() => Ok(()),
        Output::Table { color } => {
            let now = OffsetDateTime::now_utc();
            let row = |job: &JobRecord| {
                vec![
                    output::cell(job.id.to_string()),
                    output::state_cell(job.state, color),
                    output::cell(&job.kind),
                    output::cell(&job.queue),
                    output::cell(job.attempts.to_string()),
                    output::cell(times::relative(moment(job), now)),
                    output::cell(shortened(&about(job))),
                ]
            };
            let heading = ["id", "state", "kind", "queue", "attempts", "when", "about"];
            output::table(&heading, page.jobs.iter().map(row).collect(), color)
        }
    }
}

/// The columns of TSV; documented in the guide.
fn fields(job: &JobRecord) -> Vec<String> {
    let time = |at: Option<OffsetDateTime>| at.map(times::exact).unwrap_or_default();
    vec![
        job.id.to_string(),
        job.state.to_string(),
        job.kind.clone(),
        job.queue.clone(),
        job.priority.to_string(),
        job.attempts.to_string(),
        times::exact(job.enqueued_at),
        times::exact(job.run_at),
        time(job.started_at),
        time(job.finished_at),
        job.tags.join(","),
        job.reason.clone().unwrap_or_default(),
        job.gate.clone().unwrap_or_default(),
    ]
}

/// The time that says most about a job in its state.
fn moment(job: &JobRecord) -> OffsetDateTime {
    let told = match job.state {
        State::Running => job.started_at,
        _ => job.finished_at,
    };
    told.unwrap_or(job.run_at)
}

/// Why it ended or what it waits for; otherwise what it is about.
pub(super) fn about(job: &JobRecord) -> String {
    if let (State::Blocked, Some(gate)) = (job.state, &job.gate) {
        return format!("waits for gate {gate}");
    }
    match &job.reason {
        Some(reason) => reason.clone(),
        None if job.kind == ShellJob::KIND => {
            job.args_as::<ShellJob>().map_or_else(|_| job.args.clone(), |shell| shell.line())
        }
        None => job.args.clone(),
    }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
