//! The command line: the `legwork` binary, and the same commands for an app's own.

mod bench;

use std::process::ExitCode;

use clap::Parser;

/// A durable background-job queue in one SQLite file.
#[derive(Parser, Debug)]
#[command(name = "legwork", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Measure legwork against bare SQLite on this machine.
    Bench(bench::Arguments),
}

/// Reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
