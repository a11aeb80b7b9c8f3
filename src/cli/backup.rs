//! `legwork backup FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::{REFUSED, Trouble};
use crate::error::Error;
use crate::rules::amount;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Where the copy goes; there must be nothing yet.
    file: PathBuf,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let to = &arguments.file;
    let jobs = globals.open()?;
    if to.symlink_metadata().is_ok() {
        return Err(Trouble::new(REFUSED, format_args!("{} exists already", to.display()))
            .hint("a backup overwrites nothing: name another file, or remove that one"));
    }
    jobs.backup(to).map_err(|error| match error {
        Error::Invalid { .. } => Trouble::new(REFUSED, error),
        error => error.into(),
    })?;
    let bytes = to.metadata().map_or(0, |meta| meta.len());
    let path = to.to_string_lossy();
    match globals.output() {
        Output::Json => output::json(json!({ "path": path, "bytes": bytes }))?,
        Output::Tsv => output::tsv([vec![path.into_owned(), bytes.to_string()]])?,
        Output::Table { .. } => {
            let path = output::escape(&path, false);
            output::print(format_args!("copied to {path}: {}\n", amount::size(bytes)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
