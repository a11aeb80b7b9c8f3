//! `legwork failures [QUERY]`.

use std::process::ExitCode;

use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::{NOTHING_MATCHED, Trouble};
use super::{Done, query, times};
use crate::record::{FailureGroup, Filter};
use crate::state::State;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Which jobs, as in `list`.
    query: Vec<String>,
    /// Only what failed since: a span such as 1h, or a time.
    #[arg(long, value_name = "SPAN|TIME")]
    since: Option<String>,
    /// Also the jobs that will be tried again.
    #[arg(long)]
    retrying: bool,
    /// How many groups at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    limit: u16,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let filter = filter(arguments)?;
    let groups = globals.open()?.failures(&filter, arguments.limit.into())?;
    show(globals, &groups)?;
    if groups.is_empty() {
        globals.say("nothing has failed that matches");
        return Ok(ExitCode::from(NOTHING_MATCHED));
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(arguments: &Arguments) -> Result<Filter, Trouble> {
    let now = OffsetDateTime::now_utc();
    let query = query::parse(&arguments.query, now)?;
    if query.has_state {
        return Err(Trouble::usage("failures are of failed jobs: the query may name no state")
            .hint("--retrying adds those that will be tried again"));
    }
    let mut filter = query.filter.state(State::Failed);
    if arguments.retrying {
        filter = filter.state(State::Retrying);
    }
    if let Some(since) = &arguments.since {
        let at = times::past(since, now)
            .map_err(|why| Trouble::usage(format_args!("--since {since:?}: {why}")))?;
        filter = filter.failed_since(at);
    }
    Ok(filter)
}

fn show(globals: &Globals, groups: &[FailureGroup]) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => output::json(json!({ "failures": groups })),
        Output::Tsv => output::tsv(groups.iter().map(fields)),
        Output::Table { .. } if groups.is_empty() => Ok(()),
        Output::Table { color } => {
            let now = OffsetDateTime::now_utc();
            let row = |group: &FailureGroup| {
                vec![
                    output::cell(group.count.to_string()),
                    output::cell(&group.kind),
                    output::cell(if group.error.is_empty() { "(other)" } else { &group.error }),
                    output::cell(times::relative(group.first, now)),
                    output::cell(times::relative(group.last, now)),
                    output::cell(ids(group, " ")),
                ]
            };
            let heading = ["count", "kind", "error", "first", "last", "newest"];
            output::table(&heading, groups.iter().map(row).collect(), color)
        }
    }
}

/// The columns of TSV; documented in the guide.
fn fields(group: &FailureGroup) -> Vec<String> {
    vec![
        group.count.to_string(),
        group.kind.clone(),
        group.error.clone(),
        times::exact(group.first),
        times::exact(group.last),
        ids(group, ","),
        group.example.clone(),
    ]
}

fn ids(group: &FailureGroup, between: &str) -> String {
    group.newest.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}
