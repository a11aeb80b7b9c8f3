//! Rules of the calendar, by hand.

use super::*;

#[test]
fn an_impossible_date_is_refused() {
    assert!(Schedule::parse("0 0 30 2 *", "UTC").is_err());
    assert!(Schedule::parse("0 0 29 2 *", "UTC").is_ok());
}
