//! `legwork events -f`: what happens in all processes, as it happens.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::globals::Globals;
use super::trouble::{DATABASE, SIGNALLED, Trouble};
use super::{Done, output, times};
use crate::id::JobId;
use crate::jobs::{Jobs, Listener, Told};

/// How soon a signal ends it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Go on until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only what happens to jobs of this kind; may be given several times.
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Only this sort of event (enqueued, started, finished, failed, ...); may be given several times.
    #[arg(long, value_name = "EVENT")]
    event: Vec<String>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    if !arguments.follow {
        return Err(Trouble::usage("events are told as they happen, and not kept").hint(
            "follow them with `legwork events -f`; see what has happened with `legwork list`",
        ));
    }
    let stopped = listen_to_signals()?;
    let jobs = globals.open()?;
    let mut listener = jobs.listen()?;
    globals.say("listening; end it with Ctrl-C");
    follow(&jobs, arguments, &mut listener, &stopped)
}

fn follow(
    jobs: &Jobs,
    arguments: &Arguments,
    listener: &mut Listener,
    stopped: &AtomicUsize,
) -> Done {
    let plain = !std::io::stdout().is_terminal();
    loop {
        if let Some(told) = listener.recv_timeout(LOOK_EVERY)?
            && is_wanted(&told, arguments, jobs)
        {
            let line = line(told);
            // In JSON control characters are escapes already, those that turn the writing are not.
            output::print(if plain { line } else { output::escape(&line, true) })?;
        }
        if !output::is_read() {
            return Ok(ExitCode::SUCCESS);
        }
        match u8::try_from(stopped.load(Ordering::Acquire)) {
            Ok(signal) if signal > 0 => return Ok(ExitCode::from(SIGNALLED + signal)),
            _ => {}
        }
    }
}

/// Where the number of the signal will be: the end is an orderly one, which takes the socket down.
fn listen_to_signals() -> Result<Arc<AtomicUsize>, Trouble> {
    let stopped = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        let number = usize::try_from(signal).unwrap_or_default();
        signal_hook::flag::register_usize(signal, Arc::clone(&stopped), number).map_err(
            |error| Trouble::new(DATABASE, format_args!("listening to signals: {error}")),
        )?;
    }
    Ok(stopped)
}

fn line(told: Told) -> String {
    let mut line = told.json;
    line["v"] = json!(output::VERSION);
    line["at"] = json!(times::exact(told.at));
    line["process"] = json!(told.process);
    format!("{line}\n")
}

/// What was missed is always told.
fn is_wanted(told: &Told, arguments: &Arguments, jobs: &Jobs) -> bool {
    let text = |name: &str| told.json[name].as_str();
    let sort = text("event").unwrap_or_default();
    if sort == "missed" {
        return true;
    }
    if !arguments.event.is_empty() && !arguments.event.iter().any(|wanted| wanted == sort) {
        return false;
    }
    if arguments.kind.is_empty() {
        return true;
    }
    match text("kind") {
        Some(kind) => arguments.kind.iter().any(|wanted| wanted == kind),
        None => kind_of(&told.json, jobs).is_some_and(|kind| arguments.kind.contains(&kind)),
    }
}

/// Of events that do not name it.
fn kind_of(event: &Value, jobs: &Jobs) -> Option<String> {
    let id = event["job"].as_i64()?;
    jobs.get(JobId(id)).ok().map(|job| job.kind)
}
