//! `legwork cancel`.

use super::Done;
use super::change::{self, Arguments, UNFINISHED, Verb};
use super::globals::Globals;
use super::shell;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "cancel",
        past: "cancelled",
        states: UNFINISHED,
        applies: |state| !state.is_finished(),
        makes_jobs: false,
        apply: &|jobs, which| {
            let done = jobs.cancel(which)?;
            shell::end_unwanted(jobs);
            Ok(done.into())
        },
    };
    change::run(globals, arguments, &verb)
}
