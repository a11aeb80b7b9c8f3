//! `legwork queues`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::Cell;
use serde_json::{Value, json};

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::NOTHING_MATCHED;
use crate::record::{InstanceRecord, QueueStats, Scope, Stats};
use crate::rules::amount;
use crate::state::State;

/// States of unfinished jobs, in the order in which they are shown.
pub(super) const WAITING: [State; 5] =
    [State::Ready, State::Running, State::Scheduled, State::Retrying, State::Blocked];

/// A queue as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) stats: QueueStats,
    pub(super) paused: bool,
    /// A live process serves it.
    pub(super) served: bool,
}

impl Queue {
    /// What its jobs wait for, beside their turn.
    pub(super) fn waits_for(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.paused {
            all.push("paused".to_owned());
        }
        all.extend(self.stats.gates.keys().map(|gate| format!("gate {gate}")));
        if !self.served && in_state(&self.stats, State::Ready) > 0 {
            all.push("a worker".to_owned());
        }
        all
    }
}

pub(super) fn run(globals: &Globals) -> Done {
    let jobs = globals.open()?;
    let (stats, instances) = (jobs.stats()?, jobs.instances()?);
    let queues = queues(&stats, &instances);
    show(globals, &queues)?;
    if queues.is_empty() {
        globals.say("no job waits in any queue");
        return Ok(ExitCode::from(NOTHING_MATCHED));
    }
    warn(globals, &stats, &instances);
    Ok(ExitCode::SUCCESS)
}

/// Those with jobs that are not finished, and those that are paused.
pub(super) fn queues(stats: &Stats, instances: &[InstanceRecord]) -> Vec<Queue> {
    let mut all: BTreeMap<String, QueueStats> = stats.queues.clone();
    for scope in &stats.paused {
        if let Scope::Queue(name) = scope {
            all.entry(name.clone()).or_default();
        }
    }
    let queue = |(name, queue): (String, QueueStats)| Queue {
        paused: is_paused(stats, &name),
        served: instances.iter().any(|instance| instance.serves(&name)),
        stats: queue,
        name,
    };
    all.into_iter().map(queue).collect()
}

pub(super) fn is_paused(stats: &Stats, queue: &str) -> bool {
    stats.paused.iter().any(|scope| match scope {
        Scope::All => true,
        Scope::Queue(name) => name == queue,
        _ => false,
    })
}

/// Says what is ready and waits in vain: nobody works, or nobody at this.
pub(super) fn warn(globals: &Globals, stats: &Stats, instances: &[InstanceRecord]) {
    let waits = |queue: &Queue| in_state(&queue.stats, State::Ready) > 0 && !queue.paused;
    if !instances.iter().any(|instance| instance.alive) {
        if stats.count(State::Ready) > 0 {
            globals.say("no worker is running; start `legwork work`");
        }
        return;
    }
    for queue in queues(stats, instances).iter().filter(|queue| waits(queue) && !queue.served) {
        let name = &queue.name;
        globals.say(format_args!(
            "no live worker serves queue {name}; start the program that does, or \
             `legwork work -q {name}` for shell jobs"
        ));
    }
}

fn show(globals: &Globals, queues: &[Queue]) -> std::io::Result<()> {
    match globals.output() {
        Output::Json => {
            output::json(json!({ "queues": queues.iter().map(as_json).collect::<Vec<_>>() }))
        }
        Output::Tsv => output::tsv(queues.iter().map(fields)),
        Output::Table { .. } if queues.is_empty() => Ok(()),
        Output::Table { color } => {
            let heading: Vec<&str> = std::iter::once("queue")
                .chain(WAITING.map(State::as_str))
                .chain(["oldest ready", "waits for"])
                .collect();
            output::table(&heading, queues.iter().map(row).collect(), color)
        }
    }
}

fn row(queue: &Queue) -> Vec<Cell> {
    let mut row = cells(&queue.name, &queue.stats);
    row.push(output::cell(queue.waits_for().join(", ")));
    row
}

/// A queue with its counts and how long its oldest ready job waits.
pub(super) fn cells(name: &str, queue: &QueueStats) -> Vec<Cell> {
    let mut row = vec![output::cell(name)];
    row.extend(WAITING.map(|state| output::cell(in_state(queue, state).to_string())));
    row.push(output::cell(queue.oldest_ready.map(amount::span).unwrap_or_default()));
    row
}

/// The columns of TSV; documented in the guide.
fn fields(queue: &Queue) -> Vec<String> {
    let mut fields = vec![queue.name.clone()];
    fields.extend(WAITING.map(|state| in_state(&queue.stats, state).to_string()));
    let age = queue.stats.oldest_ready.map(|age| age.as_secs_f64().to_string());
    fields.push(age.unwrap_or_default());
    fields.push(if queue.paused { "paused" } else { "active" }.to_owned());
    fields.push(if queue.served { "served" } else { "unserved" }.to_owned());
    fields.push(queue.stats.gates.keys().cloned().collect::<Vec<_>>().join(","));
    fields
}

fn as_json(queue: &Queue) -> Value {
    let gates = queue.stats.gates.iter();
    let gates: Vec<Value> =
        gates.map(|(name, jobs)| json!({ "name": name, "jobs": jobs })).collect();
    json!({
        "name": queue.name,
        "states": counts(|state| in_state(&queue.stats, state), &WAITING),
        "oldest_ready_seconds": queue.stats.oldest_ready.map(|age| age.as_secs_f64()),
        "paused": queue.paused,
        "served": queue.served,
        "gates": gates,
    })
}

pub(super) fn in_state(queue: &QueueStats, state: State) -> u64 {
    queue.states.get(&state).copied().unwrap_or(0)
}

pub(super) fn counts(count: impl Fn(State) -> u64, states: &[State]) -> Value {
    states.iter().map(|state| (state.as_str().to_owned(), json!(count(*state)))).collect()
}
