//! What legwork decides: pure functions and tables. No I/O, no threads, no clock reads; chance is
//! handed in as a number.

pub(crate) mod amount;
#[cfg(feature = "cron")]
pub(crate) mod cron;
pub(crate) mod examine;
pub(crate) mod failures;
pub(crate) mod flow;
pub(crate) mod likeness;
pub(crate) mod limit;
pub(crate) mod name;
pub(crate) mod queues;
pub(crate) mod retry;
pub(crate) mod seconds;
pub(crate) mod state;
pub(crate) mod steps;
pub(crate) mod suspect;
pub(crate) mod text;
pub(crate) mod trust;
pub(crate) mod unique;
