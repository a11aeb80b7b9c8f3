//! `legwork completions SHELL`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::globals::Globals;
use super::trouble::{REFUSED, Trouble};
use super::{Done, output};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The shell that is to read them.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let program = globals.app.program.as_str();
    if program.contains(' ') {
        return Err(Trouble::new(
            REFUSED,
            format_args!("`{program}` is a part of another program"),
        )
        .hint("that one completes all of its commands, these among them"));
    }
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::typed(program), program, &mut script);
    output::print(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
