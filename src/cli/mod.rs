//! The command line: the `legwork` binary, and the same commands for an app with its own kinds of jobs.
//!
//! The [guide page](crate::guide::cli) tells what the commands do, what they print, and what their
//! exit codes mean. Unix only.
//!
//! A program of an app's own, such as `src/bin/jobs.rs`, is one call of [`main`]:
//!
//! ```no_run
//! # use legwork::{Context, Engine, Job, JobResult, Outcome};
//! # use serde::{Deserialize, Serialize};
//! # struct App;
//! # impl App { fn open() -> std::io::Result<App> { Ok(App) } }
//! # #[derive(Serialize, Deserialize)] struct WelcomeEmail { user_id: i64 }
//! # impl Job for WelcomeEmail {
//! #     const KIND: &'static str = "welcome_email";
//! #     type State = App;
//! #     fn perform(&self, _: &Context<App>) -> JobResult { Ok(Outcome::Done) }
//! # }
//! fn main() -> std::process::ExitCode {
//!     legwork::cli::main(|jobs| {
//!         Ok(Engine::builder(jobs).state(App::open()?).register::<WelcomeEmail>())
//!     })
//! }
//! ```
//!
//! A program that has a command line already takes [`Command`] into it as a subcommand.

mod app;
mod backup;
mod bench;
mod cancel;
mod change;
mod check;
mod clone;
mod completions;
#[cfg(feature = "cron")]
mod cron;
mod delete;
mod doctor;
mod drain;
mod edit;
mod enqueue;
mod ensure;
mod events;
mod export;
mod failures;
mod flows;
mod gate;
mod globals;
mod health;
mod help;
mod ids;
mod import;
mod list;
mod logging;
mod logs;
mod man;
mod migrate;
mod new;
mod new_options;
mod output;
mod pause;
mod progress;
mod prune;
mod query;
mod queues;
mod reschedule;
mod retry;
mod run;
mod run_now;
mod service;
mod shell;
mod show;
mod stats;
mod status;
mod table;
mod times;
#[cfg(feature = "tui")]
mod top;
mod trouble;
mod until;
mod vacuum;
mod wait;
mod work;
mod workers;

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use self::globals::Globals;
use self::trouble::Trouble;
use crate::engine::EngineBuilder;
use crate::jobs::{Jobs, JobsBuilder};

/// How the bare program is called.
const BARE: &str = "legwork";

/// Any error, as an app's own code has them.
type BoxError = Box<dyn Error + Send + Sync>;

/// A durable background-job queue in one SQLite file.
#[derive(Parser, Debug)]
#[command(name = "legwork", version)]
struct Program {
    #[command(flatten)]
    command: Command,
}

/// All commands and their options, as a part of an app's own command line:
///
/// ```no_run
/// use clap::{CommandFactory, FromArgMatches, Parser};
/// use legwork::Engine;
/// use std::process::ExitCode;
///
/// /// Sends mail.
/// #[derive(Parser)]
/// enum App {
///     /// Say hello.
///     Hello,
///     /// Look after the background jobs.
///     Jobs(legwork::cli::Command),
/// }
///
/// fn main() -> ExitCode {
///     match App::parse() {
///         App::Hello => {
///             println!("hello");
///             ExitCode::SUCCESS
///         }
///         App::Jobs(command) => command
///             .program("myapp jobs")
///             .database("/var/lib/myapp/app.db")
///             .run(|jobs| Ok(Engine::builder(jobs))),
///     }
/// }
/// ```
///
/// The app's clap must be of the same version, 4.
#[derive(clap::Args, Debug)]
#[command(after_help = help::EXIT_CODES)]
pub struct Command {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    // Boxed: an app has the whole in an enum of its own, beside small ones.
    verb: Box<Verb>,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Run jobs, such as the commands that `run` enqueues.
    Work(work::Arguments),
    /// Run jobs until there is nothing left, and show how far it is.
    Drain(drain::Arguments),
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
    /// Show how jobs have failed: kinds and errors, most frequent first.
    Failures(failures::Arguments),
    /// Show the queues: how much waits in each, how long, and for what.
    Queues,
    /// Show the processes that run jobs, their pools and what they run.
    Workers,
    /// Count the jobs, and show how long each kind waits and runs.
    Stats,
    /// Watch queues, running jobs and failures live, and act on them.
    #[cfg(feature = "tui")]
    Top(top::Arguments),
    /// Answer a probe by exit code: 0 well, 69 no worker, 4 jobs wait.
    Health(health::Arguments),
    /// Show what a job has written, and follow what it writes.
    Logs(logs::Arguments),
    /// Follow what happens, in all processes, as lines of JSON.
    Events(events::Arguments),
    /// Wait until jobs are finished.
    Wait(wait::Arguments),
    /// Run finished or retrying jobs again, now.
    Retry(retry::Arguments),
    /// Cancel jobs, waiting or running.
    Cancel(change::Arguments),
    /// Remove jobs that do not run, with all that is kept of them.
    Delete(change::Arguments),
    /// Give jobs that wait another time from which they may run.
    Reschedule(reschedule::Arguments),
    /// Let jobs that wait for their time run now; attempts stay counted.
    RunNow(change::Arguments),
    /// Change jobs that wait: their arguments, queue, priority and more.
    Edit(edit::Arguments),
    /// Enqueue new jobs like these; prints the new ids.
    Clone(change::Arguments),
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
    /// Bring the file's schema up to date.
    Migrate(migrate::Arguments),
    /// Remove old finished jobs now.
    Prune(prune::Arguments),
    /// Copy the file while it is in use.
    Backup(backup::Arguments),
    /// Give the file's free pages back.
    Vacuum(vacuum::Arguments),
    /// Write jobs as JSON lines, for another file.
    Export(export::Arguments),
    /// Enqueue the jobs of an export.
    Import(import::Arguments),
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

/// The whole of an app's program for its jobs: reads the command line, does what it says with the app's
/// engine, and returns the exit code.
///
/// `engine` registers the app's kinds, with its state, pools, gates and cron entries. It is called by the
/// commands that run jobs, look whether they could be run, or make jobs of a kind, not by the others; so what
/// is slow to open belongs inside it. If it fails the command exits with 4 and says why. `work` lets the engine
/// run shell jobs as well; pools that the command line names take the place of the app's.
pub fn main<S: Send + Sync + 'static>(
    engine: impl Fn(&Jobs) -> Result<EngineBuilder<S>, BoxError> + 'static,
) -> ExitCode {
    match own_name() {
        Some(name) => read(&name).program(name).run(engine),
        None => read(BARE).run(engine),
    }
}

/// The bare program `legwork`, which knows no kinds but shell jobs.
pub fn bare() -> ExitCode {
    read(BARE).act()
}

/// All that can be typed, with its help.
fn typed(program: &str) -> clap::Command {
    help::arranged(Program::command(), program)
}

/// What was typed. A wrong command line, and a question for help, end here.
fn read(program: &str) -> Command {
    match Program::from_arg_matches(&typed(program).get_matches()) {
        Ok(read) => read.command,
        Err(error) => error.exit(),
    }
}

/// The name under which this program was called.
fn own_name() -> Option<String> {
    let path: OsString = std::env::args_os().next()?;
    Some(Path::new(&path).file_name()?.to_string_lossy().into_owned())
}

impl Command {
    /// How a user calls these commands; for hints. Default: `legwork`.
    pub fn program(mut self, name: impl Into<String>) -> Command {
        self.globals.app.program = name.into();
        self
    }

    /// The file, if the command line and the environment name none.
    pub fn database(mut self, path: impl Into<PathBuf>) -> Command {
        self.globals.app.database = Some(path.into());
        self
    }

    /// The settings with which the app opens the file, such as durability, retention and middleware.
    ///
    /// ```no_run
    /// # use legwork::{Durability, Engine};
    /// # fn f(command: legwork::cli::Command) -> std::process::ExitCode {
    /// command
    ///     .settings(|file| file.durability(Durability::Strict))
    ///     .run(|jobs| Ok(Engine::builder(jobs)))
    /// # }
    /// ```
    pub fn settings(mut self, settings: impl Fn(JobsBuilder) -> JobsBuilder + 'static) -> Command {
        self.globals.app.settings = Box::new(settings);
        self
    }

    /// Does what the command line says, with the app's engine; see [`main`].
    pub fn run<S: Send + Sync + 'static>(
        mut self,
        engine: impl Fn(&Jobs) -> Result<EngineBuilder<S>, BoxError> + 'static,
    ) -> ExitCode {
        let app = std::mem::take(&mut self.globals.app);
        self.globals.app = Box::new(app.with(engine));
        self.act()
    }

    fn act(self) -> ExitCode {
        let Command { globals, verb } = self;
        logging::start(&globals, &verb);
        verb.act(&globals).unwrap_or_else(|trouble| trouble.tell(&globals.app))
    }
}

impl Verb {
    fn act(&self, globals: &Globals) -> Done {
        match self {
            Verb::Work(arguments) => work::run(globals, arguments),
            Verb::Drain(arguments) => drain::run(globals, arguments),
            Verb::Enqueue(arguments) => enqueue::run(globals, arguments),
            Verb::Run(arguments) => run::run(globals, arguments),
            Verb::Status => status::run(globals),
            Verb::List(arguments) => list::run(globals, arguments),
            Verb::Show(arguments) => show::run(globals, arguments),
            Verb::Failures(arguments) => failures::run(globals, arguments),
            Verb::Queues => queues::run(globals),
            Verb::Workers => workers::run(globals),
            Verb::Stats => stats::run(globals),
            #[cfg(feature = "tui")]
            Verb::Top(arguments) => top::run(globals, arguments),
            Verb::Health(arguments) => health::run(globals, arguments),
            Verb::Logs(arguments) => logs::run(globals, arguments),
            Verb::Events(arguments) => events::run(globals, arguments),
            Verb::Wait(arguments) => wait::run(globals, arguments),
            Verb::Retry(arguments) => retry::run(globals, arguments),
            Verb::Cancel(arguments) => cancel::run(globals, arguments),
            Verb::Delete(arguments) => delete::run(globals, arguments),
            Verb::Reschedule(arguments) => reschedule::run(globals, arguments),
            Verb::RunNow(arguments) => run_now::run(globals, arguments),
            Verb::Edit(arguments) => edit::run(globals, arguments),
            Verb::Clone(arguments) => clone::run(globals, arguments),
            Verb::Pause(arguments) => pause::run(globals, arguments, true),
            Verb::Resume(arguments) => pause::run(globals, arguments, false),
            Verb::Gate(arguments) => gate::run(globals, arguments),
            Verb::Flows(arguments) => flows::run(globals, arguments),
            #[cfg(feature = "cron")]
            Verb::Cron(command) => cron::run(globals, command),
            Verb::Check => check::run(globals),
            Verb::Doctor(arguments) => doctor::run(globals, arguments),
            Verb::Migrate(arguments) => migrate::run(globals, arguments),
            Verb::Prune(arguments) => prune::run(globals, arguments),
            Verb::Backup(arguments) => backup::run(globals, arguments),
            Verb::Vacuum(arguments) => vacuum::run(globals, arguments),
            Verb::Export(arguments) => export::run(globals, arguments),
            Verb::Import(arguments) => import::run(globals, arguments),
            Verb::Bench(arguments) => bench::run(arguments),
            Verb::New(command) => new::run(globals, command),
            Verb::Service(arguments) => service::run(globals, arguments),
            Verb::Completions(arguments) => completions::run(globals, arguments),
            Verb::Man(arguments) => man::run(globals, arguments),
        }
    }
}
