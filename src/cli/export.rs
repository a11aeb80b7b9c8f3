//! `legwork export [QUERY]`: jobs as JSON lines.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::progress::{Progress, Unit};
use super::trouble::{DATABASE, REFUSED, Trouble};
use super::{Done, query};
use crate::jobs::Jobs;
use crate::record::Filter;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Which jobs, as in `list`. Default: all.
    query: Vec<String>,
    /// Write to this file, which must not be there yet, instead of stdout.
    #[arg(short = 'o', long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the lines.
    pub(super) legwork_export: u32,
    /// Tells this export from all others.
    pub(super) id: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) exported_at: OffsetDateTime,
}

/// The version that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;
/// Jobs that are read at once.
const PAGE: usize = 500;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let query = query::parse(&arguments.query, OffsetDateTime::now_utc())?;
    let jobs = globals.open()?;
    match &arguments.to {
        Some(path) => {
            let file = create(path)?;
            let mut out = BufWriter::new(file);
            let count = write(globals, &jobs, &query.filter, &mut out).and_then(|count| {
                let file = out.into_inner().map_err(|error| Failed::Writing(error.into_error()))?;
                file.sync_all().map_err(Failed::Writing)?;
                Ok(count)
            });
            let count = count.map_err(|failed| {
                // It has been made here, and nobody can use a part of it.
                let removed = std::fs::remove_file(path);
                failed.trouble(Some(path), removed.is_ok())
            });
            answer(globals, path, count?)?;
        }
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            write(globals, &jobs, &query.filter, &mut out)
                .and_then(|count| out.flush().map_err(Failed::Writing).map(|()| count))
                .map_err(|failed| failed.trouble(None, false))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The arguments of jobs are for their owner.
fn create(path: &Path) -> Result<File, Trouble> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let trouble = Trouble::new(REFUSED, format_args!("{}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                trouble.hint("an export overwrites nothing: name another file")
            }
            _ => trouble.hint("name a new file in a directory that is there"),
        }
    })
}

enum Failed {
    Reading(crate::error::Error),
    Writing(io::Error),
}

impl Failed {
    fn trouble(self, path: Option<&Path>, removed: bool) -> Trouble {
        match (self, path) {
            (Failed::Reading(error), _) => error.into(),
            (Failed::Writing(error), None) => error.into(),
            (Failed::Writing(error), Some(path)) => {
                let trouble = Trouble::new(DATABASE, format_args!("{}: {error}", path.display()));
                trouble.hint(if removed {
                    "it was not complete, and is removed again"
                } else {
                    "it is not complete: remove it"
                })
            }
        }
    }
}

fn write(
    globals: &Globals,
    jobs: &Jobs,
    filter: &Filter,
    out: &mut impl Write,
) -> Result<u64, Failed> {
    let total = jobs.count(filter).map_err(Failed::Reading)?;
    // Where the lines themselves are seen to run by, nothing has to tell of them.
    let seen = io::stdout().is_terminal();
    let mut progress = (!seen || total > PAGE as u64)
        .then(|| Progress::new(globals, "exported", Unit::Jobs, Some(total)));
    let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let exported_at = OffsetDateTime::now_utc();
    line(out, &Header { legwork_export: VERSION, id, exported_at })?;
    let (mut after, mut done) = (None, 0);
    loop {
        let page = jobs.export(filter, after, PAGE).map_err(Failed::Reading)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        page.iter().try_for_each(|job| line(out, job))?;
        done += page.len() as u64;
        if let Some(progress) = &mut progress {
            progress.at(done, Some(total.max(done)));
        }
    }
    progress.into_iter().for_each(Progress::end);
    Ok(done)
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failed> {
    let mut text = serde_json::to_vec(value).map_err(|error| Failed::Writing(error.into()))?;
    text.push(b'\n');
    out.write_all(&text).map_err(Failed::Writing)
}

fn answer(globals: &Globals, path: &Path, count: u64) -> io::Result<()> {
    let path = path.to_string_lossy();
    match globals.output() {
        Output::Json => output::json(json!({ "path": path, "jobs": count })),
        Output::Tsv => output::tsv([vec![path.into_owned(), count.to_string()]]),
        Output::Table { .. } => {
            let path = output::escape(&path, false);
            output::print(format_args!("exported {count} to {path}\n"))
        }
    }
}
