//! The promises, a file each. Real files, real processes; tests wait for events, never for time.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod attempts;
mod common;
mod control;
mod crash;
mod durability;
mod enqueue;
mod faults;
mod files;
mod finish_in;
mod gone;
mod idle;
mod layers;
mod model;
mod order_flow;
mod pools;
mod reading;
mod scripted;
mod sharing;
mod suspects;
