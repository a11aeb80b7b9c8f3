//! `legwork retry`.

use super::Done;
use super::change::{self, Verb};
use super::globals::Globals;
use crate::state::State;

#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: change::Arguments,
    /// Forget the results of their steps: all of them run again.
    #[arg(long)]
    from_scratch: bool,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let from_scratch = arguments.from_scratch;
    let verb = Verb {
        word: "retry",
        past: "retried",
        states: &[State::Failed],
        applies: |state| state.is_finished() || state == State::Retrying,
        makes_jobs: false,
        ends_commands: false,
        apply: &|jobs, which| {
            let done =
                if from_scratch { jobs.retry_from_scratch(which) } else { jobs.retry(which) };
            Ok(done?.into())
        },
    };
    change::run(globals, &arguments.which, &verb)
}
