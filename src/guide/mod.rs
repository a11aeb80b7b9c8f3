//! How legwork works, and why: the long documents.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("claiming.md")]
pub mod claiming {}

#[doc = include_str!("scheduling.md")]
pub mod scheduling {}

#[doc = include_str!("uniqueness.md")]
pub mod uniqueness {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("flows.md")]
pub mod flows {}

#[doc = include_str!("resumable.md")]
pub mod resumable {}

#[doc = include_str!("exactly_once.md")]
pub mod exactly_once {}

#[doc = include_str!("durability.md")]
pub mod durability {}

#[doc = include_str!("faults.md")]
pub mod faults {}

#[doc = include_str!("schema.md")]
pub mod schema {}

#[doc = include_str!("processes.md")]
pub mod processes {}

#[doc = include_str!("other_languages.md")]
pub mod other_languages {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("cli.md")]
pub mod cli {}

#[doc = include_str!("cli_output.md")]
pub mod cli_output {}

#[doc = include_str!("cli_output_changes.md")]
pub mod cli_output_changes {}

#[doc = include_str!("cli_records.md")]
pub mod cli_records {}

#[doc = include_str!("other_queues.md")]
pub mod other_queues {}

#[doc = include_str!("changelog.md")]
pub mod changelog {}
