//! What the end of a job means for its children and its flow.

use crate::flow::{FlowState, Upon};
use crate::state::State;

/// How a parent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not finished, or has come back.
    Unfinished,
    Finished(State),
    /// It was deleted.
    Gone,
}

/// What becomes of a child that waits for a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits on; and comes back if that parent's end had cancelled it.
    Wait,
    /// It need not wait for this parent any more.
    Go,
    Cancel,
}

/// `anyway`: it may start however the parent has finished.
pub(crate) fn fate(parent: Standing, anyway: bool) -> Fate {
    match parent {
        Standing::Unfinished => Fate::Wait,
        Standing::Finished(State::Completed) => Fate::Go,
        Standing::Finished(_) | Standing::Gone if anyway => Fate::Go,
        Standing::Finished(_) | Standing::Gone => Fate::Cancel,
    }
}

/// Why a child was cancelled.
pub(crate) fn reason(parent: i64, standing: Standing) -> String {
    match standing {
        Standing::Finished(state) => format!("its parent {parent} is {state}"),
        Standing::Unfinished | Standing::Gone => format!("its parent {parent} was deleted"),
    }
}

/// The state of a flow with so many members that are pending, failed and cancelled.
pub(crate) fn state(pending: u64, failed: u64, cancelled: u64) -> FlowState {
    match (pending, failed, cancelled) {
        (1.., ..) => FlowState::Running,
        (0, 1.., _) => FlowState::Failed,
        (0, 0, 1..) => FlowState::Cancelled,
        (0, 0, 0) => FlowState::Completed,
    }
}

/// Whether a callback is due in a flow of this state.
pub(crate) fn calls_back(upon: Upon, state: FlowState) -> bool {
    match (upon, state) {
        (_, FlowState::Running) => false,
        (Upon::Finish, _) => true,
        (Upon::Success, state) => state == FlowState::Completed,
        (Upon::Failure, state) => state != FlowState::Completed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_goes_on_after_a_completion_and_after_anything_if_it_is_told_to() {
        use State::{Cancelled, Completed, Failed};
        for anyway in [false, true] {
            assert_eq!(fate(Standing::Unfinished, anyway), Fate::Wait);
            assert_eq!(fate(Standing::Finished(Completed), anyway), Fate::Go);
            let otherwise = if anyway { Fate::Go } else { Fate::Cancel };
            for parent in
                [Standing::Finished(Failed), Standing::Finished(Cancelled), Standing::Gone]
            {
                assert_eq!(fate(parent, anyway), otherwise, "{parent:?}");
            }
        }
    }

    #[test]
    fn a_flow_has_failed_if_a_member_has_and_is_cancelled_if_one_is() {
        assert_eq!(state(1, 1, 1), FlowState::Running);
        assert_eq!(state(0, 1, 1), FlowState::Failed);
        assert_eq!(state(0, 0, 1), FlowState::Cancelled);
        assert_eq!(state(0, 0, 0), FlowState::Completed);
    }

    #[test]
    fn each_end_calls_back_twice_and_no_flow_that_runs_does() {
        for state in
            [FlowState::Running, FlowState::Completed, FlowState::Failed, FlowState::Cancelled]
        {
            let due = Upon::ALL.into_iter().filter(|upon| calls_back(*upon, state)).count();
            assert_eq!(due, if state == FlowState::Running { 0 } else { 2 }, "{state:?}");
        }
    }
}
