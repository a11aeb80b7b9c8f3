//! `legwork cancel`.

use super::Done;
use super::change::{self, Arguments, UNFINISHED, Verb};
use super::globals::Globals;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "cancel",
        past: "cancelled",
        states: UNFINISHED,
        applies: |state| !state.is_finished(),
        makes_jobs: false,
        ends_commands: true,
        apply: &|jobs, which| Ok(jobs.cancel(which)?.into()),
    };
    change::run(globals, arguments, &verb)
}
