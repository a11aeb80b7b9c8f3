//! The command line: the `legwork` binary, and the same commands for an app's own.
//!
//! The [guide page](crate::guide::cli) tells what the commands do, what they print, and what their
//! exit codes mean. Unix only.

mod bench;
mod cancel;
mod change;
mod check;
mod completions;
#[cfg(feature = "cron")]
mod cron;
mod enqueue;
mod flows;
mod gate;
mod globals;
mod help;
mod list;
mod logging;
mod man;
mod new;
mod new_options;
mod output;
mod pause;
mod query;
mod retry;
mod run;
mod service;
mod shell;
mod show;
mod status;
mod times;
mod trouble;
mod until;
mod wait;
mod work;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use self::globals::Globals;
use self::trouble::Trouble;

/// A durable background-job queue in one SQLite file.
#[derive(Parser, Debug)]
#[command(name = "legwork", version)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

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
    /// Measure legwork against bare SQLite on this machine.
    Bench(bench::Arguments),
    /// Write a file to start from: a job of an app.
    #[command(subcommand)]
    New(new::Command),
    /// Print a unit for systemd or launchd that runs a worker.
    Service(service::Arguments),
    /// Print completions for a shell.
    Completions(completions::Arguments),
    /// Print the manual page, or write all of them.
    Man(man::Arguments),
}

/// What a command comes to: an exit code, or what went wrong.
type Done = Result<ExitCode, Trouble>;

/// Reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let Cli { globals, command } = read();
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
        Command::Bench(arguments) => Ok(bench::run(&arguments)),
        Command::New(command) => new::run(&globals, &command),
        Command::Service(arguments) => service::run(&globals, &arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&globals, &arguments),
    };
    done.unwrap_or_else(|trouble| trouble.tell())
}

/// All that can be typed, with its help.
fn command() -> clap::Command {
    help::arranged(Cli::command())
}

/// What was typed. Wrong options, and questions for help, end here.
fn read() -> Cli {
    Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit())
}
