//! The options that every command has.

use std::io::IsTerminal;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::app::App;
use super::output::Output;
use super::trouble::Trouble;
use crate::beside::{self, SHORT_WAL};
use crate::error::Error;
use crate::jobs::{Jobs, JobsBuilder};

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    // Without texts of their own: they would spread the help of every command over three times the lines.
    Auto,
    Always,
    Never,
}

/// Where a command's help has the options that all commands have.
pub(super) const HEADING: &str = "Global options";

#[derive(clap::Args, Debug)]
pub(super) struct Globals {
    /// The database file.
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE", env = "LEGWORK_DB")]
    db: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true, help_heading = HEADING)]
    pub(super) json: bool,
    /// Colour in tables; auto heeds NO_COLOR and TERM=dumb.
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "WHEN",
        default_value = "auto"
    )]
    color: Color,
    /// Say only what went wrong (`work` and `drain` have -q for queues: write --quiet).
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub(super) quiet: bool,
    /// Say more: what the library does.
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub(super) verbose: bool,
    /// Do not ask before changing several jobs.
    #[arg(long, global = true, help_heading = HEADING)]
    pub(super) yes: bool,
    /// Whose commands these are.
    #[arg(skip)]
    pub(super) app: Box<App>,
}

impl Globals {
    /// The file that is meant.
    pub(super) fn path(&self) -> Result<&Path, Trouble> {
        match self.db.as_ref().or(self.app.database.as_ref()) {
            Some(path) if !path.as_os_str().is_empty() => Ok(path),
            _ => Err(Trouble::usage("which database?")
                .hint("name it with --db FILE or in the variable LEGWORK_DB")),
        }
    }

    /// Opens the file, or creates it.
    pub(super) fn create(&self) -> Result<Jobs, Trouble> {
        Ok(self.builder(self.path()?).open()?)
    }

    fn builder(&self, path: &Path) -> JobsBuilder {
        (self.app.settings)(Jobs::builder(path))
    }

    /// The same for a command that enqueues and ends: the `-wal` stays for the next one.
    pub(super) fn create_for_a_moment(&self) -> Result<Moment, Trouble> {
        let jobs = self.builder(self.path()?).checkpoint_on_close(false).open()?;
        Ok(Moment { jobs: Some(jobs) })
    }

    /// The file, which must be there.
    pub(super) fn existing(&self) -> Result<&Path, Trouble> {
        let path = self.path()?;
        // Its metadata only: nobody but SQLite opens the file.
        if path.metadata().is_err() {
            return Err(Error::NoDatabase { path: path.to_owned(), exists: false }.into());
        }
        Ok(path)
    }

    /// Opens a file that must be there, with legwork's tables in it: who only looks at another program's
    /// database, by a wrong name, is not to make them there.
    pub(super) fn open(&self) -> Result<Jobs, Trouble> {
        Ok(self.builder(self.path()?).create(false).open()?)
    }

    /// How to answer.
    pub(super) fn output(&self) -> Output {
        if self.json {
            return Output::Json;
        }
        if !std::io::stdout().is_terminal() {
            return Output::Tsv;
        }
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let is_set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
                is_set("NO_COLOR").is_none() && is_set("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Output::Table { color }
    }

    /// Says a line on stderr, unless told to be quiet.
    pub(super) fn say(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            super::output::talk(self.app.named(line));
        }
    }
}

/// The handle of a command that enqueues and ends.
///
/// What it has enqueued is committed and synced, so there is nothing to close: the process ends, and the
/// system takes back what it had open, which costs a tenth of the whole command less. Only if the `-wal` has
/// grown is it closed in an orderly way, which shortens it.
pub(super) struct Moment {
    /// Until it is dropped.
    jobs: Option<Jobs>,
}

impl Deref for Moment {
    type Target = Jobs;

    fn deref(&self) -> &Jobs {
        self.jobs.as_ref().expect("it is taken out only by the drop")
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let Some(jobs) = self.jobs.take() else { return };
        let wal = beside::wal(jobs.path()).metadata();
        if wal.is_ok_and(|wal| wal.len() <= SHORT_WAL) {
            std::mem::forget(jobs);
        }
    }
}
