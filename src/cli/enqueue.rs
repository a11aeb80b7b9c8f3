//! `legwork enqueue KIND [JSON]`.

use std::io::Read;

use super::Done;
use super::globals::Globals;
use super::new_options::NewOptions;
use super::trouble::Trouble;
use crate::new_job::NewJob;
use crate::rules::amount;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The kind of the job.
    kind: String,
    /// Its arguments as JSON; `-` reads them from stdin.
    #[arg(value_name = "JSON", default_value = "{}", allow_hyphen_values = true)]
    args: String,
    #[command(flatten)]
    options: NewOptions,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.create_for_a_moment()?;
    let mut job = NewJob::of_kind_json(&arguments.kind, self::arguments(&arguments.args)?);
    if let Some(options) = jobs.known_options(&arguments.kind)? {
        job = job.options(options);
    }
    arguments.options.enqueue(globals, &jobs, job)
}

/// More is not read into memory: no job may have as much.
const LONGEST: u64 = 256 << 20;

/// Arguments as they are typed, or those on stdin.
pub(super) fn arguments(typed: &str) -> Result<String, Trouble> {
    match typed {
        "-" => from_stdin(),
        typed => Ok(typed.to_owned()),
    }
}

fn from_stdin() -> Result<String, Trouble> {
    let mut args = String::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut args);
    match read.map_err(|error| Trouble::usage(format_args!("reading the arguments: {error}")))? {
        // The rest may be without an end.
        read if read as u64 == LONGEST => {
            let longest = amount::size(LONGEST);
            Err(Trouble::usage(format_args!("the arguments on stdin are longer than {longest}")))
        }
        _ => Ok(args),
    }
}
