//! `legwork run -- CMD ARGS...`: a command as a job.

use std::ffi::{OsStr, OsString};

use super::globals::Globals;
use super::new_options::NewOptions;
use super::shell::{ShellJob, Text};
use super::trouble::Trouble;
use super::{Done, ids};
use crate::new_job::NewJob;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: NewOptions,
    /// Exit codes that count as success beside 0 (3,4).
    #[arg(long, value_name = "CODES", value_parser = ids::whole::<i32>, value_delimiter = ',', allow_hyphen_values = true)]
    ok_codes: Vec<i32>,
    /// The only exit codes that are retried (75,111; 124: the time-out, 128 + N: killed by signal N).
    #[arg(long, value_name = "CODES", value_parser = ids::whole::<i32>, value_delimiter = ',', allow_hyphen_values = true)]
    retry_codes: Vec<i32>,
    /// Hand it to /bin/sh: the first argument is the script, the others are its $1, $2, ...
    #[arg(long)]
    shell: bool,
    /// A variable to keep with the job, as it is now (NAME) or as given (NAME=VALUE); stored
    /// readable in the database.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    argv: Vec<OsString>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let cwd = std::env::current_dir()
        .map_err(|error| Trouble::usage(format_args!("the current directory: {error}")))?;
    let job = ShellJob {
        argv: arguments.argv.iter().map(|word| Text::from(word.as_os_str())).collect(),
        shell: arguments.shell,
        cwd: Some(Text::from(cwd.as_os_str())),
        env: arguments.env.iter().map(|entry| variable(entry)).collect::<Result<_, _>>()?,
        ok_codes: arguments.ok_codes.clone(),
        retry_codes: arguments.retry_codes.clone(),
    };
    let jobs = globals.create_for_a_moment()?;
    arguments.options.enqueue(globals, &jobs, NewJob::new(job))
}

/// `NAME` as it is now, or `NAME=VALUE`.
fn variable(entry: &OsStr) -> Result<(String, Text), Trouble> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = entry.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=');
    let name = &bytes[..end.unwrap_or(bytes.len())];
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).ok_or_else(|| {
        Trouble::usage(format_args!("--env {entry:?}: there is no name in it"))
            .hint("write --env NAME for a variable as it is here, or --env NAME=VALUE")
    })?;
    let value = match end {
        Some(end) => OsStr::from_bytes(&bytes[end + 1..]).to_owned(),
        None => std::env::var_os(name).ok_or_else(|| {
            Trouble::usage(format_args!("--env {name}: it is not set here"))
                .hint("give its value with --env NAME=VALUE")
        })?,
    };
    Ok((name.to_owned(), Text::from(value.as_os_str())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_variable_is_kept_as_given_or_as_it_is() {
        let kept: BTreeMap<String, Text> = ["A=1", "B=x=y", "C="]
            .iter()
            .map(|entry| variable(OsStr::new(entry)).unwrap())
            .collect();
        let text = |text: &str| Text::Utf8(text.to_owned());
        assert_eq!(kept["A"], text("1"));
        assert_eq!(kept["B"], text("x=y"));
        assert_eq!(kept["C"], text(""));
        assert!(variable(OsStr::new("PATH")).is_ok());
        assert!(variable(OsStr::new("=1")).is_err());
        assert!(variable(OsStr::new("LEGWORK_SURELY_NOT_SET")).is_err());
    }
}
