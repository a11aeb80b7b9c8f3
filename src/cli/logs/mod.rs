//! `legwork logs ID`: what a job has written, and what it goes on writing.

mod print;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use self::print::Printer;
use super::globals::Globals;
use super::shell::{Follower, Next, ShellJob, Stream};
use super::trouble::{FAILED, NO_WORKER, Trouble};
use super::{Done, ids, output, until};
use crate::error::Error;
use crate::id::JobId;
use crate::job::Job;
use crate::jobs::Jobs;
use crate::record::JobRecord;
use crate::state::State;

/// How often to look for more. The end of the job is noticed at once where an engine tells of it.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How often to look whether somebody is there to run the job.
const COUNT_WORKERS_EVERY: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The job.
    #[arg(value_parser = ids::job)]
    id: JobId,
    /// Go on until the job is finished, and exit with 1 unless it has completed.
    #[arg(short, long)]
    follow: bool,
    /// Only what it has written there; log: the lines of its program about itself.
    #[arg(long, value_name = "STREAM")]
    stream: Option<Which>,
}

/// Where a job can write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Log,
    Stdout,
    Stderr,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.open()?;
    let job = jobs.get(arguments.id)?;
    let mut source = Source::of(&jobs, &job, arguments.stream);
    let mut printer = Printer::new(globals.output());
    if arguments.follow {
        return follow(&jobs, job.id, &mut source, &mut printer);
    }
    source.read(&jobs, &mut printer, false)?;
    printer.end()?;
    Ok(ExitCode::SUCCESS)
}

fn follow(jobs: &Jobs, id: JobId, source: &mut Source, printer: &mut Printer) -> Done {
    let mut counted: Option<Instant> = None;
    loop {
        // First who is there: the last one may run the job and leave before it is looked at.
        let counts = counted.is_none_or(|at| at.elapsed() >= COUNT_WORKERS_EVERY);
        let is_alone = counts && until::is_alone(jobs)?;
        if counts {
            counted = Some(Instant::now());
        }
        // Then whether it is finished: what is read after that is all there is.
        let state = jobs.get(id)?.state;
        source.read(jobs, printer, true)?;
        if !output::is_read() {
            return Ok(ExitCode::SUCCESS);
        }
        if state.is_finished() {
            printer.end()?;
            let completed = state == State::Completed;
            return Ok(if completed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        if is_alone {
            printer.end()?;
            return Err(Trouble::new(NO_WORKER, "no worker is running")
                .hint("start `legwork work`; without -f the command shows what there is"));
        }
        match jobs.wait(id, LOOK_EVERY) {
            Ok(_) | Err(Error::Timeout { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads what is new.
struct Source {
    id: JobId,
    /// The last log line that was seen; `None`: they are not wanted.
    line: Option<i64>,
    streams: Vec<Follower>,
}

impl Source {
    fn of(jobs: &Jobs, job: &JobRecord, which: Option<Which>) -> Source {
        let wants = |it: Which| which.is_none_or(|which| which == it);
        let mut streams = Vec::new();
        if job.kind == ShellJob::KIND {
            for (it, stream) in [(Which::Stdout, Stream::Stdout), (Which::Stderr, Stream::Stderr)] {
                streams.extend(wants(it).then(|| Follower::new(jobs.path(), job.id, stream)));
            }
        }
        Source { id: job.id, line: wants(Which::Log).then_some(0), streams }
    }

    /// `live`: what is new has been written just now.
    fn read(&mut self, jobs: &Jobs, printer: &mut Printer, live: bool) -> Result<(), Trouble> {
        if let Some(seen) = &mut self.line {
            for log in jobs.logs_after(self.id, *seen)? {
                printer.log(&log)?;
                *seen = (*seen).max(log.number);
            }
        }
        for follower in &mut self.streams {
            let name = follower.stream().name();
            let mut print = |attempt, next: Next<'_>| -> io::Result<()> {
                let at = live.then(OffsetDateTime::now_utc);
                match next {
                    Next::Bytes(bytes) => printer.bytes(name, attempt, at, bytes),
                    Next::Missing(missing) => printer.missing(name, attempt, at, missing),
                }
            };
            follower.read(&mut print)?;
        }
        Ok(())
    }
}
