//! `legwork import [FILE]`: jobs from the lines of `legwork export`.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::export::{Header, VERSION};
use super::globals::Globals;
use super::output::{self, Output};
use super::progress::{Progress, Unit};
use super::trouble::{REFUSED, Trouble};
use crate::error::Error;
use crate::exported::{ExportedJob, Imported, ImportedLines};
use crate::jobs::{ImportRun, Jobs};
use crate::rules::amount;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The file; `-`: stdin.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Add finished jobs to the history as well.
    #[arg(long)]
    history: bool,
    /// Import what this file has been imported from already once more.
    #[arg(long)]
    again: bool,
    /// Only check the lines and count.
    #[arg(long)]
    dry_run: bool,
}

/// Jobs in one transaction, and about as many bytes of them.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 16 << 20;
/// A longer line is none of an export, and is not read into memory: the first one, and those of jobs.
const LONGEST_HEADER: usize = 64 << 10;
const LONGEST: usize = 256 << 20;

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let mut lines = Lines::new(open(globals, arguments)?);
    let header = lines.header()?;
    let jobs = globals.create()?;
    let mut run = ImportRun::new().of(&header.id);
    let mut reached = ImportedLines::default();
    if !arguments.again {
        reached = jobs.imported_lines(&header.id)?;
        run = run.behind(reached);
    }
    let mut skip = reached.waiting;
    if arguments.history {
        run = run.with_history();
        skip = skip.min(reached.finished);
    }
    let mut import = Import { jobs, run, reached, dry_run: arguments.dry_run };
    let verb = if arguments.dry_run { "checked" } else { "imported" };
    let mut progress = Progress::new(globals, verb, Unit::Jobs, None);
    let mut total = Total {
        skipped: skip.saturating_sub(1),
        dry_run: arguments.dry_run,
        done: Imported::default(),
    };
    loop {
        let from = lines.number.max(skip) + 1;
        let batch = lines.batch(skip, &import).map_err(|trouble| total.before(from, trouble))?;
        if lines.number < from {
            break;
        }
        let done = import.batch(from, lines.number, batch);
        total.add(done.map_err(|trouble| total.before(from, trouble))?);
        progress.at(total.jobs(), None);
    }
    if !arguments.dry_run {
        import.jobs.end_import(&header.id)?;
    }
    progress.end();
    total.skipped += lines.passed;
    answer(globals, arguments, &total)?;
    Ok(ExitCode::SUCCESS)
}

fn open(globals: &Globals, arguments: &Arguments) -> Result<Box<dyn BufRead>, Trouble> {
    let path = &arguments.file;
    if path.as_os_str() == "-" {
        if io::stdin().is_terminal() {
            globals.say("reading the export from the terminal; Ctrl-D ends it");
        }
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(error) => Err(Trouble::usage(format_args!("{}: {error}", path.display()))
            .hint("name a file that `legwork export` has written, or - for stdin")),
    }
}

/// The lines, counted from 1.
struct Lines {
    from: Box<dyn BufRead>,
    number: u64,
    /// Jobs behind the lines that are skipped which are imported already.
    passed: u64,
}

impl Lines {
    fn new(from: Box<dyn BufRead>) -> Lines {
        Lines { from, number: 0, passed: 0 }
    }

    fn next(&mut self, longest: usize) -> Result<Option<String>, Trouble> {
        let at = self.number + 1;
        let bad = |what: &dyn Display| Trouble::usage(format_args!("line {at}: {what}"));
        let mut line = Vec::new();
        let mut bounded = (&mut self.from).take(longest as u64 + 1);
        bounded.read_until(b'\n', &mut line).map_err(|error| bad(&error))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > longest {
            let longest = amount::size(longest as u64);
            return Err(bad(&format_args!("it is longer than {longest}, and none of an export")));
        }
        self.number = at;
        String::from_utf8(line).map(Some).map_err(|_| bad(&"it is not UTF-8"))
    }

    fn header(&mut self) -> Result<Header, Trouble> {
        let hint = "import what `legwork export` has written, from its first line on";
        let line = self.next(LONGEST_HEADER).map_err(|trouble| trouble.hint(hint))?;
        let header: Header = serde_json::from_str(&line.unwrap_or_default()).map_err(|error| {
            let error = in_line(&error);
            Trouble::usage(format_args!("line 1 is not that of an export: {error}")).hint(hint)
        })?;
        if header.legwork_export != VERSION {
            let says = format!("line 1: the export has version {}", header.legwork_export);
            return Err(Trouble::new(REFUSED, says).hint("a newer legwork is needed for it"));
        }
        Ok(header)
    }

    /// The jobs of the next lines; those up to `skip` are passed by.
    fn batch(&mut self, skip: u64, import: &Import) -> Result<Vec<ExportedJob>, Trouble> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(line) = self.next(LONGEST)? else { break };
            if self.number <= skip || line.trim().is_empty() {
                continue;
            }
            let number = self.number;
            bytes += line.len();
            let job: ExportedJob = serde_json::from_str(&line).map_err(|error| {
                Trouble::usage(format_args!("line {number}: {}", in_line(&error)))
            })?;
            import
                .jobs
                .check_import(&job)
                .map_err(|error| Trouble::usage(format_args!("line {number}: {error}")))?;
            if import.is_there(number, &job) {
                self.passed += 1;
            } else {
                batch.push(job);
            }
        }
        Ok(batch)
    }
}

/// The error, for which this line is the only one.
fn in_line(error: &serde_json::Error) -> String {
    error.to_string().replace(&format!(" at line {} column ", error.line()), " at column ")
}

struct Import {
    jobs: Jobs,
    run: ImportRun,
    /// Up to here an earlier import has come.
    reached: ImportedLines,
    dry_run: bool,
}

impl Import {
    /// Whether the job on this line has been imported before.
    fn is_there(&self, line: u64, job: &ExportedJob) -> bool {
        let ImportedLines { waiting, finished, .. } = self.reached;
        line <= if job.state.is_finished() { finished } else { waiting }
    }

    fn batch(&mut self, from: u64, to: u64, batch: Vec<ExportedJob>) -> Result<Imported, Trouble> {
        let done = if self.dry_run {
            self.jobs.try_import(&batch, &mut self.run)
        } else if batch.is_empty() {
            Ok(Imported::default())
        } else {
            self.run.mark(to);
            self.jobs.import(batch, &mut self.run)
        };
        done.map_err(|error| match error {
            Error::NotFound(parent) => {
                let child = match from == to {
                    true => format!("line {to}: job {parent}, for which it waits"),
                    false => {
                        format!("lines {from} to {to}: job {parent}, for which one of them waits")
                    }
                };
                Trouble::new(REFUSED, format_args!("{child}, was not imported with it"))
                    .hint("export the jobs together with those that they wait for, and import them in one go")
            }
            error @ Error::Invalid { what: "import", .. } => Trouble::new(REFUSED, error)
                .hint("wait until that import has ended, and import it again: it goes on there"),
            error => error.into(),
        })
    }
}

struct Total {
    done: Imported,
    /// Lines that an earlier import has seen to.
    skipped: u64,
    dry_run: bool,
}

impl Total {
    fn add(&mut self, done: Imported) {
        self.done.enqueued += done.enqueued;
        self.done.finished += done.finished;
        self.done.left_out += done.left_out;
        self.done.not_unique += done.not_unique;
    }

    fn jobs(&self) -> u64 {
        self.done.enqueued + self.done.finished
    }

    /// What stands in spite of the trouble.
    fn before(&self, from: u64, trouble: Trouble) -> Trouble {
        match from - 1 {
            0 | 1 => trouble.beforehand("nothing was imported"),
            _ if self.dry_run => trouble,
            last => trouble.beforehand(format_args!(
                "the lines up to {last} are imported; mend that and import it again: it goes on there"
            )),
        }
    }
}

fn answer(globals: &Globals, arguments: &Arguments, total: &Total) -> io::Result<()> {
    let Imported { enqueued, finished, left_out, not_unique } = total.done;
    match globals.output() {
        Output::Json => output::json(json!({
            "dry_run": arguments.dry_run,
            "enqueued": enqueued,
            "finished": finished,
            "left_out": left_out,
            "not_unique": not_unique,
            "skipped": total.skipped,
        })),
        Output::Tsv => {
            let counts = [enqueued, finished, left_out, not_unique, total.skipped];
            output::tsv([counts.map(|count| count.to_string()).to_vec()])
        }
        Output::Table { .. } => {
            let verb = if arguments.dry_run { "would enqueue" } else { "enqueued" };
            let mut text = format!("{verb} {}", amount::jobs(enqueued));
            for (count, what) in [
                (finished, "finished ones added to the history"),
                (left_out, "finished ones left out (--history adds them)"),
                (not_unique, "left out: another job has their unique key"),
                (total.skipped, "imported from this file before (--again imports them again)"),
            ] {
                if count > 0 {
                    text += &format!("; {count} {what}");
                }
            }
            output::print(text + "\n")
        }
    }
}
