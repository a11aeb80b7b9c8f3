//! The promises, a file each. Real files, real processes; tests wait for events, never for time.

mod attempts;
mod common;
mod control;
mod crash;
mod durability;
mod enqueue;
mod files;
mod finish_in;
mod idle;
mod layers;
mod model;
mod order_flow;
mod pools;
mod reading;
mod scripted;
