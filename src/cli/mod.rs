//! The command line: the `legwork` binary, and the same commands for an app's own.
//!
//! The [guide page](crate::guide::cli) tells what the commands do, what they print, and what their
//! exit codes mean. Unix only.

mod bench;
mod cancel;
mod change;
mod check;
#[cfg(feature = "cron")]
mod cron;
mod doctor;
mod enqueue;
mod flows;
mod gate;
mod globals;
mod list;
mod logging;
mod new_options;
mod output;
mod pause;
mod query;
mod retry;
mod run;
mod shell;
mod show;
mod status;
mod times;
mod trouble;
mod until;
mod wait;
mod work;

use std::process::ExitCode;

use clap::Parser;

use self::globals::Globals;
use self::trouble::Trouble;

/// A durable background-job queue in one SQLite file.
#[derive(Parser, Debug)]
#[command(name = "legwork", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 a job failed, 2 usage, 3 nothing matched, 4 refused, \
5 database, 69 no live worker, 124 time-out, 130/143 interrupted.";

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Run jobs: the shell jobs that `legwork run` enqueues.
    Work(work::Arguments),
    /// Enqueue a job of any kind.
    Enqueue(enqueue::Arguments),
    /// Enqueue a command, for a worker to run.
    Run(run::Arguments),
    /// Show queues, workers and the file.
    Status,
    /// List jobs, newest first.
    List(list::Arguments),
    /// Show all about one job.
    Show(show::Arguments),
    /// Wait until jobs are finished.
    Wait(wait::Arguments),
    /// Run finished or retrying jobs again, now.
    Retry(retry::Arguments),
    /// Cancel jobs, waiting or running.
    Cancel(change::Arguments),
    /// Keep jobs from being started: of a queue, of a kind, or all.
    Pause(pause::Arguments),
    /// Let paused jobs be started again.
    Resume(pause::Arguments),
    /// Open, close and list gates, which jobs can wait for.
    #[command(subcommand)]
    Gate(gate::Arguments),
    /// List, show, cancel and retry flows: chains, batches and workflows.
    #[command(subcommand)]
    Flows(flows::Arguments),
    /// List, add, run, pause and check cron entries.
    #[cfg(feature = "cron")]
    #[command(subcommand)]
    Cron(cron::Command),
    /// Find waiting jobs that nobody could run; a gate for deploys.
    Check,
    /// Examine the file, its disk and the processes that use it.
    Doctor(doctor::Arguments),
    /// Measure legwork against bare SQLite on this machine.
    Bench(bench::Arguments),
}

/// What a command comes to: an exit code, or what went wrong.
type Done = Result<ExitCode, Trouble>;

/// Reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    logging::start(&globals, &command);
    let done = match command {
        Command::Work(arguments) => work::run(&globals, &arguments),
        Command::Enqueue(arguments) => enqueue::run(&globals, &arguments),
        Command::Run(arguments) => run::run(&globals, &arguments),
        Command::Status => status::run(&globals),
        Command::List(arguments) => list::run(&globals, &arguments),
        Command::Show(arguments) => show::run(&globals, &arguments),
        Command::Wait(arguments) => wait::run(&globals, &arguments),
        Command::Retry(arguments) => retry::run(&globals, &arguments),
        Command::Cancel(arguments) => cancel::run(&globals, &arguments),
        Command::Pause(arguments) => pause::run(&globals, &arguments, true),
        Command::Resume(arguments) => pause::run(&globals, &arguments, false),
        Command::Gate(arguments) => gate::run(&globals, &arguments),
        Command::Flows(arguments) => flows::run(&globals, &arguments),
        #[cfg(feature = "cron")]
        Command::Cron(command) => cron::run(&globals, &command),
        Command::Check => check::run(&globals),
        Command::Doctor(arguments) => doctor::run(&globals, &arguments),
        Command::Bench(arguments) => Ok(bench::run(&arguments)),
    };
    done.unwrap_or_else(|trouble| trouble.tell())
}
