//! `legwork completions SHELL`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::{Done, output};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The shell that is to read them.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let mut command = super::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    output::print(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
