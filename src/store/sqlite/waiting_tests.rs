//! Jobs that are moved or changed while they wait, seen from inside.

use std::sync::Arc;

use super::book::Book;
use super::limits_tests::joined_by_another;
use super::state_tests::{NOW, claimed, crashes_of, state_of, with_job_in};
use crate::id::JobId;
use crate::new_job::{Edit, Retention};
use crate::state::State;
use crate::store::Control;

#[test]
fn a_suspect_that_waits_for_a_time_is_a_suspect_when_it_comes() {
    for (from, state) in [(State::Ready, State::Scheduled), (State::Retrying, State::Retrying)] {
        let mut book = with_job_in(from);
        book.conn.execute("UPDATE legwork_jobs SET crashes = '[900]'", []).unwrap();
        let later = Control::Reschedule(vec![JobId(1)], NOW + 5);
        book.control(&later, NOW, Retention::default()).unwrap();
        assert_eq!(state_of(&book), state);
        assert!(book.next_due.is_some_and(|at| at <= NOW + 5), "there is an alarm");
        assert_eq!(claimed(&mut book, 1), None, "it waits");
        book.make_due_ready(NOW + 5).unwrap();
        assert_eq!(crashes_of(&book).as_deref(), Some("[900]"));
        assert_eq!(claimed(&mut book, 1), Some(1));
        assert!(book.runs_suspect(1).unwrap());
    }
    let mut book = with_job_in(State::Retrying);
    book.conn.execute("UPDATE legwork_jobs SET crashes = '[]', run_at = 5000", []).unwrap();
    book.control(&Control::RunNow(vec![JobId(1)]), NOW, Retention::default()).unwrap();
    assert_eq!(claimed(&mut book, 1), Some(1));
    assert!(book.runs_suspect(1).unwrap());
}

fn control(book: &mut Book, control: &Control) {
    let done = book.control(control, NOW, Retention::default()).unwrap();
    assert_eq!(done.changed, [JobId(1)]);
}

#[test]
fn others_are_rung_for_what_becomes_ready_and_for_an_alarm_that_only_they_can_set() {
    let ids = || vec![JobId(1)];
    let queue = Arc::new(Edit::new().queue("new"));
    for (from, change, rung) in [
        (State::Scheduled, Control::RunNow(ids()), [true, true]),
        (State::Scheduled, Control::Reschedule(ids(), NOW), [true, true]),
        (State::Scheduled, Control::Reschedule(ids(), NOW + 5), [false, true]),
        (State::Ready, Control::Reschedule(ids(), NOW + 5), [false, true]),
        (State::Ready, Control::Edit(ids(), queue), [true, true]),
        (State::Completed, Control::Clone(ids()), [true, true]),
    ] {
        for (alone, rung) in [false, true].into_iter().zip(rung) {
            let mut book = with_job_in(from);
            joined_by_another(&mut book);
            if alone {
                book.lanes.close_pool(1);
            }
            control(&mut book, &change);
            book.advance(NOW).unwrap();
            assert_eq!(book.commit().unwrap(), rung, "{change:?}, without an engine: {alone}");
        }
    }
}

#[test]
fn what_somebody_has_claimed_be_it_ahead_is_neither_edited_nor_moved() {
    for state in [State::Ready, State::Running] {
        let mut book = with_job_in(state);
        if state == State::Ready {
            book.conn.execute("UPDATE legwork_jobs SET instance = 2, token = 7", []).unwrap();
        }
        let ids = || vec![JobId(1)];
        let edit = Arc::new(Edit::new().args_json("[1]").priority(3));
        for control in [Control::Reschedule(ids(), 0), Control::Edit(ids(), edit)] {
            let done = book.control(&control, NOW, Retention::default()).unwrap();
            assert_eq!(done.skipped, [(JobId(1), Some(State::Running))]);
        }
        let args: String =
            book.conn.query_row("SELECT args FROM legwork_jobs", [], |row| row.get(0)).unwrap();
        assert_eq!((args.as_str(), state_of(&book)), ("{}", state));
    }
}
