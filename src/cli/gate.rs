//! `legwork gate open|close|list`.

use std::process::ExitCode;

use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::NOTHING_MATCHED;
use super::{Done, times};
use crate::jobs::Jobs;
use crate::record::GateRecord;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Arguments {
    /// Let the jobs behind a gate start.
    Open {
        /// The gate.
        name: String,
    },
    /// Keep the jobs behind a gate from being started.
    Close {
        /// The gate.
        name: String,
    },
    /// List the gates that are closed or that jobs have named.
    List,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.open()?;
    match arguments {
        Arguments::Open { name } => {
            jobs.open_gate(name)?;
            answer(globals, &jobs, name)?;
        }
        Arguments::Close { name } => {
            jobs.close_gate(name)?;
            answer(globals, &jobs, name)?;
        }
        Arguments::List => {
            let gates = jobs.gates()?;
            list(globals, &gates)?;
            if gates.is_empty() {
                globals.say("no gate is closed, and no job names one");
                return Ok(ExitCode::from(NOTHING_MATCHED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How the gate stands now, as a line of the list.
fn answer(globals: &Globals, jobs: &Jobs, name: &str) -> Result<(), super::Trouble> {
    let closed_since = jobs
        .gates()?
        .into_iter()
        .find_map(|gate| (gate.name == name).then_some(gate.closed_since).flatten());
    let gate = GateRecord { name: name.to_owned(), closed_since };
    match globals.output() {
        Output::Json => output::json(json!(gate))?,
        Output::Tsv => output::tsv([fields(&gate)])?,
        Output::Table { .. } => output::print(format_args!("{}\n", sentence(&gate)))?,
    }
    Ok(())
}

fn list(globals: &Globals, gates: &[GateRecord]) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => output::json(json!({ "gates": gates })),
        Output::Tsv => output::tsv(gates.iter().map(fields)),
        Output::Table { .. } if gates.is_empty() => Ok(()),
        Output::Table { color } => {
            let now = OffsetDateTime::now_utc();
            let row = |gate: &GateRecord| {
                let since = gate.closed_since.map(|at| times::relative(at, now));
                let [name, state, _] = parts(gate);
                [name, state, since.unwrap_or_default()].map(output::cell).to_vec()
            };
            output::table(&["gate", "state", "since"], gates.iter().map(row).collect(), color)
        }
    }
}

/// Its name, its state, since when it is closed.
fn parts(gate: &GateRecord) -> [String; 3] {
    let state = if gate.closed_since.is_some() { "closed" } else { "open" };
    let since = gate.closed_since.map(times::exact).unwrap_or_default();
    [gate.name.clone(), state.to_owned(), since]
}

fn fields(gate: &GateRecord) -> Vec<String> {
    parts(gate).to_vec()
}

/// A line for people.
pub(super) fn sentence(gate: &GateRecord) -> String {
    let name = output::escape(&gate.name, false);
    match gate.closed_since {
        Some(since) => {
            let since = times::relative(since, OffsetDateTime::now_utc());
            format!("gate {name}: closed {since}")
        }
        None => format!("gate {name}: open"),
    }
}
