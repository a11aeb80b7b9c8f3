//! `legwork prune`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::globals::Globals;
use super::output::{self, Output};
use super::progress::{Progress, Unit};
use super::{Done, change, times};
use crate::rules::amount;
use crate::upkeep::Prune;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Jobs that completed so long ago or longer (12h, 7d).
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    completed: Option<Duration>,
    /// Jobs that failed so long ago or longer (12h, 30d).
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    failed: Option<Duration>,
    /// Jobs that were cancelled so long ago or longer (12h, 7d).
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    cancelled: Option<Duration>,
    /// All finished jobs, however new.
    #[arg(long, conflicts_with_all = ["completed", "failed", "cancelled"])]
    all_finished: bool,
    /// Only say how many would be removed.
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    /// What is named; without a name, what has outlived its retention.
    fn which(&self) -> Prune {
        if self.all_finished {
            return Prune::all();
        }
        let mut which = Prune::none();
        if let Some(ago) = self.completed {
            which = which.completed(ago);
        }
        if let Some(ago) = self.failed {
            which = which.failed(ago);
        }
        if let Some(ago) = self.cancelled {
            which = which.cancelled(ago);
        }
        if which == Prune::none() { Prune::due() } else { which }
    }
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let which = arguments.which();
    let jobs = globals.open()?;
    let matched = jobs.prunable(&which)?;
    if arguments.dry_run || matched == 0 {
        answer(globals, arguments.dry_run, matched, 0)?;
        return Ok(ExitCode::SUCCESS);
    }
    // What has outlived its retention goes sooner or later anyway.
    if matched > 1 && which != Prune::due() {
        change::confirm(globals, "remove", matched)?;
    }
    let mut progress = Progress::new(globals, "removed", Unit::Jobs, Some(matched));
    let removed = jobs.prune(&which, |done| progress.at(done, Some(matched.max(done))));
    progress.end();
    answer(globals, false, matched, removed?)?;
    Ok(ExitCode::SUCCESS)
}

fn answer(globals: &Globals, dry_run: bool, matched: u64, removed: u64) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => {
            output::json(json!({ "dry_run": dry_run, "matched": matched, "removed": removed }))
        }
        Output::Tsv => output::tsv([[matched, removed].map(|count| count.to_string()).to_vec()]),
        Output::Table { .. } if dry_run => {
            output::print(format_args!("would remove {}\n", amount::jobs(matched)))
        }
        Output::Table { .. } => output::print(format_args!("removed {}\n", amount::jobs(removed))),
    }
}
