//! A whole process that does nothing but enqueue one job, as scripts do.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Bench;
use super::child::{self, Role};
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{in_turn, median, micros};
use super::raw::Raw;
use super::work::{ARGS, Noop};
use crate::job::Job;
use crate::jobs::Jobs;

/// `legwork enqueue` from start to end, against a process of the same program that ends at once
/// and one synced commit.
pub(super) fn open(bench: &Bench) -> Result<Vec<Figure>> {
    let scratch = bench.scratch()?;
    drop(Jobs::open(scratch.file())?);
    let for_raw = bench.scratch()?;
    let mut raw = Raw::open(&for_raw.file())?;
    let enqueue = Way::find(&scratch.file())?;
    let (raw, legwork) = in_turn(
        bench.amount(200, 5),
        || {
            micros(|| {
                succeed(&mut child::command(Role::Nothing, &scratch.file())?)?;
                raw.insert(1)
            })
        },
        || micros(|| succeed(&mut enqueue.command(&scratch.file())?)),
    )?;
    let reach = Reach::RatioAtMost(2.0);
    Ok(vec![
        Figure::new("one enqueue, p50", "ms", median(&raw) / 1e3, median(&legwork) / 1e3, reach)
            .note(enqueue.note()),
    ])
}

/// What enqueues.
#[derive(Clone, Copy)]
enum Way {
    /// The command `enqueue` of this program.
    Command,
    /// This program has no such command: as little as opens, enqueues and ends.
    Within,
}

impl Way {
    fn find(file: &Path) -> Result<Way> {
        let has = succeed(Way::Command.command(file)?.stderr(Stdio::null())).is_ok();
        Ok(if has { Way::Command } else { Way::Within })
    }

    fn command(self, file: &Path) -> Result<Command> {
        match self {
            Way::Command => child::sibling([
                "--db".into(),
                file.into(),
                "enqueue".into(),
                Noop::KIND.into(),
                ARGS.into(),
            ]),
            Way::Within => child::command(Role::EnqueueOne, file),
        }
    }

    fn note(self) -> &'static str {
        match self {
            Way::Command => "raw: an empty process and one synced commit",
            Way::Within => {
                "no command `enqueue` here: a process that opens, enqueues and ends; \
                 raw: an empty process and one synced commit"
            }
        }
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Missed(format!("a child process failed: {status}")))
}
