//! Collects the steps out of a state.

use super::super::{Next, Step};
use super::Process;

/// Collects the steps out of a state.
pub(super) struct Steps<'a> {
    pub(super) from: &'a Process,
    pub(super) next: &'a mut Vec<Next<Process>>,
}

impl Steps<'_> {
    pub(super) fn step(
        &mut self,
        who: &'static str,
        which: usize,
        what: &'static str,
        act: impl FnOnce(&mut Process),
    ) {
        self.add(who, which, what, false, act);
    }

    pub(super) fn outside(
        &mut self,
        who: &'static str,
        which: usize,
        what: &'static str,
        act: impl FnOnce(&mut Process),
    ) {
        self.add(who, which, what, true, act);
    }

    pub(super) fn add(
        &mut self,
        who: &'static str,
        which: usize,
        what: &'static str,
        outside: bool,
        act: impl FnOnce(&mut Process),
    ) {
        let mut model = self.from.clone();
        act(&mut model);
        self.next.push(Next { step: Step { who, which, what }, outside, model });
    }
}
