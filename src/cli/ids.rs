//! Ids and numbers as they are typed.

use std::str::FromStr;

use crate::id::{FlowId, JobId};

pub(super) fn job(text: &str) -> Result<JobId, String> {
    number(text)
}

pub(super) fn flow(text: &str) -> Result<FlowId, String> {
    number(text)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "an id is a number, such as 7".to_owned())
}

/// A whole number, of whatever size fits.
pub(super) fn whole<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "a whole number, such as 5 or -5".to_owned())
}
