//! `legwork enqueue KIND [JSON]`.

use std::io::Read;

use super::Done;
use super::globals::Globals;
use super::new_options::NewOptions;
use super::trouble::Trouble;
use crate::jobs::Jobs;
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
    let job = job(globals, &jobs, &arguments.kind, &arguments.args)?;
    arguments.options.enqueue(globals, &jobs, job)
}

/// A job as the program itself would make it, or with the options that the file tells of its kind.
pub(super) fn job(
    globals: &Globals,
    jobs: &Jobs,
    kind: &str,
    typed: &str,
) -> Result<NewJob, Trouble> {
    let args = arguments(typed)?;
    if let Some(job) = globals.app.new_job(jobs, kind, &args)? {
        return Ok(job);
    }
    let mut job = NewJob::of_kind_json(kind, args);
    if let Some(options) = jobs.known_options(kind)? {
        job = job.options(options);
    }
    if globals.app.has_kinds() {
        globals.say(format_args!(
            "{kind:?} is no kind of this program: it waits for one that runs such jobs"
        ));
    }
    Ok(job)
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
