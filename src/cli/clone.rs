//! `legwork clone`.

use super::Done;
use super::change::{self, Arguments, Verb};
use super::globals::Globals;
use crate::state::State;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "clone",
        past: "cloned",
        states: &[State::Completed, State::Failed, State::Cancelled],
        applies: |_| true,
        makes_jobs: true,
        ends_commands: false,
        apply: &|jobs, which| Ok(jobs.clone_jobs(which)?.into()),
    };
    change::run(globals, arguments, &verb)
}
