//! `legwork delete`.

use super::Done;
use super::change::{self, Arguments, Verb};
use super::globals::Globals;
use super::shell;
use crate::state::State;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "delete",
        past: "deleted",
        states: &[State::Completed, State::Failed, State::Cancelled],
        applies: |state| state != State::Running,
        makes_jobs: false,
        apply: &|jobs, which| {
            let done = jobs.delete(which)?;
            shell::end_unwanted(jobs);
            Ok(done.into())
        },
    };
    change::run(globals, arguments, &verb)
}
