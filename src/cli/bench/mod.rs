//! `legwork bench`: legwork against bare SQLite, in the same run.
//!
//! An experiment does the same work twice in turn, round by round: by one bare connection on
//! legwork's own schema ([`raw`]), and by legwork. What counts is the ratio; the figures
//! themselves are the machine's.

mod across;
mod backlog;
mod blocked;
mod child;
mod describe;
mod drain;
mod enqueue;
mod error;
mod figure;
mod flows;
mod growth;
mod limits;
mod list;
mod measure;
mod neighbour;
mod open;
mod place;
mod raw;
mod resident;
mod slots;
mod start;
mod steady;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use self::describe::Description;
use self::error::{Error, Result};
use self::figure::Figure;
use self::place::{Place, Scratch};
use super::globals::HEADING;
use super::{Done, output};

/// What `bench` is asked for.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The experiments to run; all of them if none is named.
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(EXPERIMENTS.map(|e| e.name)))]
    names: Vec<String>,
    /// One JSON line per figure.
    #[arg(long, help_heading = HEADING)]
    json: bool,
    /// A small part of the work: to see that it runs, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Where the databases are made, on the disk that is to be measured. They are removed at the
    /// end. Default: the current directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Name the experiments and what they measure.
    #[arg(long)]
    list: bool,
}

struct Experiment {
    name: &'static str,
    about: &'static str,
    run: fn(&Bench) -> Result<Vec<Figure>>,
}

const EXPERIMENTS: [Experiment; 18] = [
    Experiment {
        name: "enqueue",
        about: "one caller, one durable job at a time",
        run: enqueue::one_caller,
    },
    Experiment {
        name: "enqueue-many-callers",
        about: "16 and 64 callers, one durable job at a time each",
        run: enqueue::many_callers,
    },
    Experiment { name: "bulk", about: "100,000 jobs in one call", run: enqueue::bulk },
    Experiment {
        name: "drain",
        about: "200,000 jobs that do nothing, 4 workers",
        run: drain::drain,
    },
    Experiment {
        name: "steady",
        about: "4 callers with 100 jobs a call, while 4 workers run them",
        run: steady::steady,
    },
    Experiment {
        name: "start",
        about: "from the call of enqueue to the start of the job, idle before",
        run: start::start,
    },
    Experiment {
        name: "start-across",
        about: "the same, enqueued by another process",
        run: across::across,
    },
    Experiment {
        name: "backlog",
        about: "the drain rate beside, and out of, a million waiting jobs",
        run: backlog::backlog,
    },
    Experiment {
        name: "blocked",
        about: "the drain rate beside a million blocked jobs, and opening their gate",
        run: blocked::blocked_jobs,
    },
    Experiment {
        name: "limits",
        about: "jobs that wait for one key: 100,000 of them and 100, the next start, wake-ups",
        run: limits::limits,
    },
    Experiment {
        name: "flows",
        about: "a fan-out of 10,000 jobs with a join, and a chain of 1,000",
        run: flows::flows,
    },
    Experiment {
        name: "history",
        about: "the drain rate beside a million finished jobs",
        run: backlog::history,
    },
    Experiment {
        name: "neighbour",
        about: "the app's own transactions while legwork has all it can do",
        run: neighbour::neighbour,
    },
    Experiment {
        name: "idle",
        about: "what an engine does that has nothing to do",
        run: resident::idle,
    },
    Experiment {
        name: "memory",
        about: "resident memory, idle and with a million waiting jobs",
        run: resident::memory,
    },
    Experiment {
        name: "list",
        about: "the first page of a list beside a million jobs",
        run: list::list,
    },
    Experiment { name: "open", about: "a whole process that enqueues one job", run: open::open },
    Experiment {
        name: "growth",
        about: "the size of the file after a million jobs",
        run: growth::growth,
    },
];

/// What an experiment has: a place for its files, and how much it is to do.
struct Bench {
    place: Place,
    quick: bool,
}

impl Bench {
    /// The full amount of work, or that of `--quick`.
    fn amount<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A directory for a new database, removed with the value.
    fn scratch(&self) -> Result<Scratch> {
        Ok(self.place.scratch()?)
    }
}

pub(super) fn run(arguments: &Arguments) -> Done {
    if let Some(role) = child::role() {
        return Ok(role.play());
    }
    if arguments.list {
        let line = |of: &Experiment| format!("{:<21} {}\n", of.name, of.about);
        output::print(EXPERIMENTS.iter().map(line).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let dir = arguments.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let bench = match Place::make(&dir) {
        Ok(place) => Bench { place, quick: arguments.quick },
        Err(error) => {
            eprintln!(
                "legwork bench: cannot work in {}: {error}; name another directory with --dir",
                dir.display()
            );
            return Ok(ExitCode::from(2));
        }
    };
    let description = Description::of(&bench);
    if !arguments.json {
        description.print()?;
        output::print(format_args!("{}\n", figure::head()))?;
    }
    let mut all_ran = true;
    for experiment in EXPERIMENTS.iter().filter(|experiment| arguments.names(experiment.name)) {
        match (experiment.run)(&bench) {
            Ok(figures) => figures.iter().try_for_each(|figure| {
                let line = if arguments.json {
                    figure.json(experiment.name, &description)
                } else {
                    figure.line(experiment.name)
                };
                output::print(format_args!("{line}\n"))
            })?,
            Err(error) => {
                all_ran = false;
                complain(experiment.name, &error);
            }
        }
    }
    Ok(if all_ran { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

fn complain(name: &str, error: &Error) {
    eprintln!("legwork bench: {name}: {error}");
}

impl Arguments {
    fn names(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| asked == name)
    }
}
