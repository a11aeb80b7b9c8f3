//! `legwork delete`.

use super::Done;
use super::change::{self, Arguments, Verb};
use super::globals::Globals;
use crate::state::State;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "delete",
        past: "deleted",
        states: &[State::Completed, State::Failed, State::Cancelled],
        applies: |state| state != State::Running,
        makes_jobs: false,
        ends_commands: true,
        apply: &|jobs, which| Ok(jobs.delete(which)?.into()),
    };
    change::run(globals, arguments, &verb)
}
