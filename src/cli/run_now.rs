//! `legwork run-now`.

use super::Done;
use super::change::{self, Arguments, Verb};
use super::globals::Globals;
use crate::state::State;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "run now",
        past: "made to run now:",
        states: &[State::Scheduled, State::Retrying],
        // One that is blocked may wait for its time, too.
        applies: |state| change::waits(state) && state != State::Ready,
        makes_jobs: false,
        ends_commands: false,
        apply: &|jobs, which| Ok(jobs.run_now(which)?.into()),
    };
    change::run(globals, arguments, &verb)
}
