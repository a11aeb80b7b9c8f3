//! `legwork bench`: legwork against bare SQLite, in the same run.

use std::process::ExitCode;

/// What `bench` is asked for.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// One JSON line per figure.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    eprintln!("no experiments yet (json: {})", arguments.json);
    ExitCode::FAILURE
}
