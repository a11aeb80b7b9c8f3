//! `legwork wait ID...`.

use std::time::Duration;

use super::globals::Globals;
use super::{Done, ids, times, until};
use crate::id::JobId;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The jobs.
    #[arg(required = true, value_name = "ID", value_parser = ids::job)]
    ids: Vec<JobId>,
    /// Until one of them is finished, not all.
    #[arg(long)]
    any: bool,
    /// How long at most (30s, 5m, 2h); then exit code 124.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    timeout: Option<Duration>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.open()?;
    let finished = until::finished(&jobs, &arguments.ids, arguments.any, arguments.timeout)?;
    until::show(globals.output(), &finished)?;
    Ok(until::exit_code(&finished))
}
