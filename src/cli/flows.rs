//! `legwork flows list|show|cancel|retry`.

use std::process::ExitCode;

use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::NOTHING_MATCHED;
use super::{Done, ids, shell, times};
use crate::flow::FlowRecord;
use crate::id::FlowId;
use crate::jobs::Jobs;
use crate::record::{Changed, Filter, JobRecord};
use crate::rules::amount;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Arguments {
    /// List flows, newest first.
    List {
        /// At most so many, 1 to 10,000.
        #[arg(long, value_name = "N", default_value_t = 20,
              value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        /// Only flows with lower ids: the next page.
        #[arg(long, value_name = "ID", value_parser = ids::flow)]
        before: Option<FlowId>,
    },
    /// Show a flow and its members.
    Show {
        /// The flow.
        #[arg(value_parser = ids::flow)]
        id: FlowId,
    },
    /// Cancel the members of a flow that have not finished.
    Cancel {
        /// The flow.
        #[arg(value_parser = ids::flow)]
        id: FlowId,
    },
    /// Run the failed members of a flow again; those come back that were cancelled for it.
    Retry {
        /// The flow.
        #[arg(value_parser = ids::flow)]
        id: FlowId,
    },
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.open()?;
    match arguments {
        Arguments::List { limit, before } => {
            let page = jobs.flows(*before, (*limit).into())?;
            list(globals, &page.flows, page.next)?;
            if page.flows.is_empty() {
                globals.say("there are no flows; programs enqueue them");
                return Ok(ExitCode::from(NOTHING_MATCHED));
            }
            if let Some(next) = page.next {
                globals.say(format_args!("there are more: --before {next}"));
            }
        }
        Arguments::Show { id } => show(globals, &jobs, *id)?,
        Arguments::Cancel { id } => {
            let done = jobs.cancel_flow(*id)?;
            changed(globals, "cancelled", done)?;
            shell::end_unwanted(&jobs).wait();
        }
        Arguments::Retry { id } => changed(globals, "retried", jobs.retry_flow(*id)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(globals: &Globals, flows: &[FlowRecord], next: Option<FlowId>) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => output::json(json!({ "flows": flows, "next": next })),
        Output::Tsv => output::tsv(flows.iter().map(|flow| fields(flow).to_vec())),
        Output::Table { .. } if flows.is_empty() => Ok(()),
        Output::Table { color } => {
            let now = OffsetDateTime::now_utc();
            let row = |flow: &FlowRecord| {
                let [id, sort, name, state, members, completed, failed, cancelled, _] =
                    fields(flow);
                let completed = format!("{completed} of {members}");
                let since = times::relative(flow.created_at, now);
                let cells = [id, sort, name, state, completed, failed, cancelled, since];
                cells.map(output::cell).to_vec()
            };
            let heading =
                ["flow", "sort", "name", "state", "completed", "failed", "cancelled", "created"];
            output::table(&heading, flows.iter().map(row).collect(), color)
        }
    }
}

/// Id, sort, name, state, members, completed, failed, cancelled, when it was created.
fn fields(flow: &FlowRecord) -> [String; 9] {
    [
        flow.id.to_string(),
        flow.sort.clone(),
        flow.name.clone(),
        flow.state.to_string(),
        flow.members.to_string(),
        flow.completed.to_string(),
        flow.failed.to_string(),
        flow.cancelled.to_string(),
        times::exact(flow.created_at),
    ]
}

fn show(globals: &Globals, jobs: &Jobs, id: FlowId) -> Result<(), super::Trouble> {
    let flow = jobs.flow(id)?;
    // As many as a person reads, the oldest of them last; `list` has the rest.
    let members = jobs.list(&Filter::new().flow(id), None, 1_000)?;
    match globals.output() {
        Output::Json => {
            let jobs: Vec<_> = members.jobs.iter().map(output::job).collect();
            output::json(json!({ "flow": flow, "jobs": jobs, "next": members.next }))?;
        }
        Output::Tsv => output::tsv(members.jobs.iter().map(|job| member(job).to_vec()))?,
        Output::Table { color } => {
            let name = output::escape(&flow.name, false);
            let FlowRecord { sort, state, members: all, completed, failed, cancelled, .. } = &flow;
            output::print(format_args!(
                "{sort} {id} {name}: {state}; {completed} of {all} completed, {failed} failed, \
                 {cancelled} cancelled\n"
            ))?;
            for (key, value) in &flow.properties {
                let line = format!("{key}: {value}");
                output::print(format_args!("{}\n", output::escape(&line, false)))?;
            }
            let rows = members.jobs.iter().map(|job| member(job).map(output::cell).to_vec());
            output::table(&["job", "kind", "state", "waits for"], rows.collect(), color)?;
            if let Some(next) = members.next {
                globals
                    .say(format_args!("there are more: `legwork list flow:{id} --before {next}`"));
            }
        }
    }
    Ok(())
}

/// Id, kind, state, and for how many parents it waits.
fn member(job: &JobRecord) -> [String; 4] {
    let left = match job.parents_left {
        0 => String::new(),
        left => left.to_string(),
    };
    [job.id.to_string(), job.kind.clone(), job.state.to_string(), left]
}

fn changed(globals: &Globals, done: &str, what: Changed) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => output::json(json!({ "changed": what.changed, "skipped": what.skipped })),
        Output::Tsv => output::tsv([[what.changed, what.skipped].map(|n| n.to_string()).to_vec()]),
        Output::Table { .. } => {
            output::print(format_args!("{done} {}\n", amount::jobs(what.changed)))
        }
    }
}
