//! `legwork reschedule`.

use std::time::Duration;

use clap::ArgGroup;
use time::OffsetDateTime;

use super::change::{self, Verb};
use super::globals::Globals;
use super::trouble::Trouble;
use super::{Done, times};

#[derive(clap::Args, Debug)]
#[group(skip)]
#[command(group(ArgGroup::new("when").required(true)))]
pub(super) struct Arguments {
    #[command(flatten)]
    which: change::Arguments,
    /// Run them no sooner than this long from now (30s, 5m, 2h).
    #[arg(long = "in", value_name = "SPAN", value_parser = times::span, group = "when")]
    delay: Option<Duration>,
    /// Run them no sooner than this (2026-05-01T08:00:00Z). A time that is past: at once.
    #[arg(long, value_name = "TIME", value_parser = times::instant, group = "when")]
    at: Option<OffsetDateTime>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let at = match arguments.at {
        Some(at) => at,
        None => from_now(arguments.delay.unwrap_or_default())?,
    };
    let verb = Verb {
        word: "reschedule",
        past: "rescheduled",
        states: change::WAITING,
        applies: change::waits,
        makes_jobs: false,
        ends_commands: false,
        apply: &|jobs, which| Ok(jobs.reschedule(which, at)?.into()),
    };
    change::run(globals, &arguments.which, &verb)
}

fn from_now(delay: Duration) -> Result<OffsetDateTime, Trouble> {
    let delay = time::Duration::try_from(delay).ok();
    delay
        .and_then(|delay| OffsetDateTime::now_utc().checked_add(delay))
        .ok_or_else(|| Trouble::usage("--in: that lies after the year 9999"))
}
