//! `legwork retry`.

use super::Done;
use super::change::{self, Arguments, Verb};
use super::globals::Globals;
use crate::state::State;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "retry",
        past: "retried",
        states: &[State::Failed],
        applies: |state| state.is_finished() || state == State::Retrying,
        apply: |jobs, which| jobs.retry(which),
    };
    change::run(globals, arguments, &verb)
}
