//! `legwork vacuum`.

use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use super::progress::{Progress, Unit};
use super::trouble::{REFUSED, Trouble};
use crate::jobs::Jobs;
use crate::rules::amount;
use crate::upkeep::Vacuumed;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Write the whole file anew. Nobody else can write while it lasts.
    #[arg(long)]
    full: bool,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.open()?;
    let done = if arguments.full { fully(globals, &jobs)? } else { in_bites(globals, &jobs)? };
    answer(globals, &done)?;
    if !arguments.full && !done.incremental && done.free > 0 {
        return Err(Trouble::new(REFUSED, "the file was not made for giving its free pages back")
            .hint("`legwork vacuum --full` writes it anew without them"));
    }
    Ok(ExitCode::SUCCESS)
}

fn in_bites(globals: &Globals, jobs: &Jobs) -> Result<Vacuumed, Trouble> {
    let mut progress = Progress::new(globals, "given back", Unit::Bytes, None);
    let done = jobs.vacuum(|freed| progress.at(freed, None));
    progress.end();
    Ok(done?)
}

/// Engines would wait, and enqueues fail: so not beside them, unless that is wanted.
fn fully(globals: &Globals, jobs: &Jobs) -> Result<Vacuumed, Trouble> {
    let live = jobs.instances()?.into_iter().find(|instance| instance.alive);
    if let Some(live) = live.filter(|_| !globals.yes) {
        let says = format!("process {} runs jobs of this file, and could not write", live.pid);
        return Err(Trouble::new(REFUSED, says)
            .hint("stop it first, leave --full out, or do it all the same with --yes"));
    }
    Ok(jobs.vacuum_fully()?)
}

fn answer(globals: &Globals, done: &Vacuumed) -> std::io::Result<()> {
    let Vacuumed { before, after, free, .. } = *done;
    match globals.output() {
        Output::Json => output::json(
            json!({ "before": before, "after": after, "free": free, "incremental": done.incremental }),
        ),
        Output::Tsv => output::tsv([[before, after, free].map(|n| n.to_string()).to_vec()]),
        Output::Table { .. } => {
            let [before, after] = [before, after].map(amount::size);
            output::print(format_args!("{before} before, {after} after\n"))
        }
    }
}
