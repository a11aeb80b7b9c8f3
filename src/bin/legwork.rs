//! The command line of legwork, for any database file.

use std::process::ExitCode;

fn main() -> ExitCode {
    legwork::cli::bare()
}
