//! `legwork man [DIR]`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;
use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::{REFUSED, Trouble};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Where to write a page for every command; it is made if it is not there. Without it the main
    /// page goes to stdout.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let program = globals.app.program.as_str();
    let mut command = super::typed(program)
        .bin_name(program)
        .display_name(program.replace(' ', "-"))
        .disable_help_subcommand(true);
    // Names what is below it after the whole path of words.
    command.build();
    match &arguments.dir {
        None => {
            let text = page(command)?;
            output::print(String::from_utf8_lossy(&text))?;
        }
        Some(dir) => {
            let failed = |error: io::Error| {
                Trouble::new(REFUSED, format_args!("writing to {}: {error}", dir.display()))
                    .hint("name a directory that is there or can be made")
            };
            fs::create_dir_all(dir).map_err(failed)?;
            let files = pages(command, dir).map_err(failed)?;
            answer(globals, &files)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let release = concat!("legwork ", env!("CARGO_PKG_VERSION"));
    Man::new(command).source(release).manual("legwork").render(&mut text)?;
    Ok(text)
}

/// A page for the command, and for each below it.
fn pages(command: clap::Command, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let below: Vec<clap::Command> =
        command.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let file = dir.join(format!("{name}.1"));
    fs::write(&file, page(command)?)?;
    let mut files = vec![file];
    for command in below {
        files.extend(pages(command, dir)?);
    }
    Ok(files)
}

fn answer(globals: &Globals, files: &[PathBuf]) -> io::Result<()> {
    let files = files.iter().map(|file| file.to_string_lossy().into_owned());
    match globals.output() {
        Output::Json => output::json(json!({ "files": files.collect::<Vec<_>>() })),
        _ => output::tsv(files.map(|file| vec![file])),
    }
}
