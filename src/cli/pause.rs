//! `legwork pause` and `legwork resume`.

use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use crate::record::Scope;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The queue; everything if neither a queue nor a kind is named.
    #[arg(value_name = "QUEUE", conflicts_with = "kind")]
    queue: Option<String>,
    /// The jobs of this kind, in all queues.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
}

impl Arguments {
    fn scope(&self) -> Scope {
        match (&self.queue, &self.kind) {
            (Some(queue), _) => Scope::Queue(queue.clone()),
            (None, Some(kind)) => Scope::Kind(kind.clone()),
            (None, None) => Scope::All,
        }
    }
}

/// Pauses, or resumes; the answer is all that is paused now.
pub(super) fn run(globals: &Globals, arguments: &Arguments, pause: bool) -> Done {
    let jobs = globals.open()?;
    let scope = arguments.scope();
    if pause {
        jobs.pause(scope)?
    } else {
        jobs.resume(scope)?
    }
    let paused = jobs.paused()?;
    match globals.output() {
        Output::Json => output::json(json!({ "paused": paused }))?,
        Output::Tsv => output::tsv(paused.iter().map(|scope| vec![words(scope)]))?,
        Output::Table { .. } if paused.is_empty() => output::print("nothing is paused\n")?,
        Output::Table { .. } => {
            let paused: Vec<String> =
                paused.iter().map(|scope| output::escape(&words(scope), false)).collect();
            output::print(format_args!("paused: {}\n", paused.join(", ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is paused, for people.
pub(super) fn words(scope: &Scope) -> String {
    match scope {
        Scope::All => "everything".to_owned(),
        Scope::Queue(name) => format!("queue {name}"),
        Scope::Kind(name) => format!("kind {name}"),
    }
}
