//! `legwork cancel`.

use super::Done;
use super::change::{self, Arguments, Verb};
use super::globals::Globals;
use crate::state::State;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let verb = Verb {
        word: "cancel",
        past: "cancelled",
        states: &[State::Scheduled, State::Blocked, State::Ready, State::Running, State::Retrying],
        applies: |state| !state.is_finished(),
        apply: |jobs, which| jobs.cancel(which),
    };
    change::run(globals, arguments, &verb)
}
