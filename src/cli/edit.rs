//! `legwork edit`.

use std::time::Duration;

use super::change::{self, Verb};
use super::globals::Globals;
use super::trouble::Trouble;
use super::{Done, enqueue, ids, times};
use crate::new_job::Edit;

#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: change::Arguments,
    #[command(flatten)]
    changes: Changes,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Other arguments, all of them, as JSON; `-` reads them from stdin.
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    args: Option<String>,
    /// Another queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Another priority: lower numbers run first.
    #[arg(long, value_name = "N", value_parser = ids::whole::<i64>, allow_negative_numbers = true)]
    priority: Option<i64>,
    /// A tag more; may be given several times.
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<String>,
    /// Take away the tags that they have.
    #[arg(long)]
    no_tags: bool,
    /// An entry of their meta; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    meta: Vec<(String, String)>,
    /// The gate that must be open for them to start.
    #[arg(long, value_name = "NAME", conflicts_with = "no_gate")]
    gate: Option<String>,
    /// Take away their gate.
    #[arg(long)]
    no_gate: bool,
    /// How long an attempt may take (30s, 5m, 2h).
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    timeout: Option<Duration>,
    /// How many attempts there are in all, those that are used up included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
}

fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a key and a value, such as trace=4bf92f35")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let edit = arguments.changes.edit()?;
    let verb = Verb {
        word: "edit",
        past: "edited",
        states: change::WAITING,
        applies: change::waits,
        makes_jobs: false,
        ends_commands: false,
        apply: &|jobs, which| Ok(jobs.edit(which, edit.clone())?.into()),
    };
    change::run(globals, &arguments.which, &verb)
}

impl Changes {
    fn edit(&self) -> Result<Edit, Trouble> {
        let mut edit = Edit::new();
        if let Some(args) = &self.args {
            edit = edit.args_json(enqueue::arguments(args)?);
        }
        if let Some(queue) = &self.queue {
            edit = edit.queue(queue);
        }
        if let Some(priority) = self.priority {
            edit = edit.priority(priority);
        }
        if self.no_tags {
            edit = edit.tags([""; 0]);
        }
        if let Some(gate) = &self.gate {
            edit = edit.gate(gate);
        }
        if self.no_gate {
            edit = edit.without_gate();
        }
        if let Some(timeout) = self.timeout {
            edit = edit.timeout(timeout);
        }
        if let Some(attempts) = self.attempts {
            edit = edit.attempts(attempts);
        }
        edit = self.tags.iter().fold(edit, Edit::tag);
        Ok(self.meta.iter().fold(edit, |edit, (key, value)| edit.meta(key, value)))
    }
}
