//! The promises, a file each. Real files, real processes; tests wait for events, never for time.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod attempts;
#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "cli")]
mod cli;
mod cloned;
mod common;
mod control;
mod crash;
#[cfg(feature = "cron")]
mod cron;
mod durability;
mod edited;
mod enqueue;
mod expiry;
mod faults;
mod files;
mod filters;
mod finish_in;
mod flows;
mod gates;
mod gone;
mod idle;
mod kinds;
mod layers;
mod leap;
mod limits;
#[cfg(unix)]
mod listen;
mod mended;
mod model;
mod order_flow;
mod pools;
mod power_cut;
mod processes;
mod reading;
mod rescheduled;
mod safety;
mod scripted;
mod seeing;
mod sharing;
mod sql_view;
mod steps;
mod suspects;
mod unique;
