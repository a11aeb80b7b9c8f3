//! `legwork status`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::Cell;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::{Done, gate, pause, times};
use crate::jobs::Jobs;
use crate::record::{GateRecord, InstanceRecord, QueueStats, Stats};
use crate::state::State;
use crate::store::SqliteInfo;

/// States of unfinished jobs, in the order in which they are shown.
const WAITING: [State; 5] =
    [State::Ready, State::Running, State::Scheduled, State::Retrying, State::Blocked];

struct Status {
    path: PathBuf,
    bytes: u64,
    wal_bytes: u64,
    instances: Vec<InstanceRecord>,
    sqlite: SqliteInfo,
    stats: Stats,
    gates: Vec<GateRecord>,
}

pub(super) fn run(globals: &Globals) -> Done {
    let status = Status::read(&globals.open()?)?;
    match globals.output() {
        Output::Json => output::json(status.json())?,
        Output::Tsv => output::tsv(status.rows())?,
        Output::Table { color } => status.print(color)?,
    }
    if status.alive() == 0 && status.stats.count(State::Ready) > 0 {
        globals.say("no worker is running; start `legwork work`");
    }
    Ok(ExitCode::SUCCESS)
}

/// From the metadata alone: nobody but SQLite opens these files.
fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

impl Status {
    fn alive(&self) -> usize {
        self.instances.iter().filter(|instance| instance.alive).count()
    }

    fn read(jobs: &Jobs) -> crate::error::Result<Status> {
        let path = jobs.path().to_owned();
        let mut wal = path.clone().into_os_string();
        wal.push("-wal");
        Ok(Status {
            bytes: size(&path),
            wal_bytes: size(Path::new(&wal)),
            instances: jobs.instances()?,
            sqlite: Jobs::sqlite(),
            stats: jobs.stats()?,
            gates: jobs.gates()?,
            path,
        })
    }

    fn json(&self) -> Value {
        let queues: Vec<Value> = self
            .stats
            .queues
            .iter()
            .map(|(name, queue)| {
                json!({
                    "name": name,
                    "states": counts(|state| in_state(queue, state), &WAITING),
                    "oldest_ready_seconds": queue.oldest_ready.map(|age| age.as_secs_f64()),
                })
            })
            .collect();
        let processes: Vec<Value> = self
            .instances
            .iter()
            .map(|instance| {
                json!({
                    "id": instance.id,
                    "pid": instance.pid,
                    "started_at": times::exact(instance.started_at),
                    "alive": instance.alive,
                })
            })
            .collect();
        json!({
            "file": {
                "path": self.path.to_string_lossy(),
                "bytes": self.bytes,
                "wal_bytes": self.wal_bytes,
            },
            "sqlite": self.sqlite.version,
            "wal_reset_bug": self.sqlite.wal_reset_bug,
            "instances": self.alive(),
            "processes": processes,
            "states": counts(|state| self.stats.count(state), &State::ALL),
            "queues": queues,
            "paused": self.stats.paused,
            "gates": self.gates,
        })
    }

    /// What a row is about stands in its first field.
    fn rows(&self) -> Vec<Vec<String>> {
        let words = |words: &[&dyn ToString]| words.iter().map(|word| word.to_string()).collect();
        let path = self.path.to_string_lossy();
        let mut rows: Vec<Vec<String>> = vec![
            words(&[&"file", &path, &self.bytes, &self.wal_bytes]),
            words(&[&"sqlite", &self.sqlite.version, &self.sqlite.wal_reset_bug]),
            words(&[&"instances", &self.alive()]),
        ];
        for instance in &self.instances {
            let started = times::exact(instance.started_at);
            let (id, pid, alive) = (&instance.id, &instance.pid, &instance.alive);
            rows.push(words(&[&"process", id, pid, &started, alive]));
        }
        for state in State::ALL {
            rows.push(words(&[&"state", &state, &self.stats.count(state)]));
        }
        for (name, queue) in &self.stats.queues {
            for state in WAITING {
                rows.push(words(&[&"queue", name, &state, &in_state(queue, state)]));
            }
            if let Some(age) = queue.oldest_ready {
                rows.push(words(&[&"oldest_ready", name, &age.as_secs_f64()]));
            }
        }
        for scope in &self.stats.paused {
            rows.push(vec!["paused".to_owned(), pause::words(scope)]);
        }
        for gate in &self.gates {
            let since = gate.closed_since.map(times::exact);
            let state = if since.is_some() { "closed" } else { "open" };
            rows.push(words(&[&"gate", &gate.name, &state, &since.unwrap_or_default()]));
        }
        rows
    }

    fn print(&self, color: bool) -> std::io::Result<()> {
        output::print(format_args!(
            "{}: {}, WAL {}; SQLite {}; {}\n",
            output::escape(&self.path.to_string_lossy(), false),
            output::bytes(self.bytes),
            output::bytes(self.wal_bytes),
            self.sqlite.version,
            processes(self.alive()),
        ))?;
        if self.sqlite.wal_reset_bug {
            output::print(
                "this SQLite has the WAL-reset bug, which can damage a file: use 3.51.3 or newer\n",
            )?;
        }
        for instance in &self.instances {
            output::print(format_args!("{}\n", process(instance)))?;
        }
        let totals = State::ALL.into_iter().filter(|state| self.stats.count(*state) > 0);
        let totals: Vec<String> =
            totals.map(|state| format!("{} {state}", self.stats.count(state))).collect();
        let none = "no jobs yet; add one with `legwork run -- CMD` or `legwork enqueue KIND`";
        let totals = if totals.is_empty() { none.to_owned() } else { totals.join(", ") };
        output::print(format_args!("{totals}\n"))?;
        for scope in &self.stats.paused {
            output::print(format_args!(
                "paused: {}\n",
                output::escape(&pause::words(scope), false)
            ))?;
        }
        for gate in &self.gates {
            output::print(format_args!("{}\n", gate::sentence(gate)))?;
        }
        if self.stats.queues.is_empty() {
            return Ok(());
        }
        output::print("\n")?;
        let heading: Vec<&str> = std::iter::once("queue")
            .chain(WAITING.map(State::as_str))
            .chain(["oldest ready"])
            .collect();
        output::table(&heading, self.stats.queues.iter().map(queue_row).collect(), color)
    }
}

fn queue_row((name, queue): (&String, &QueueStats)) -> Vec<Cell> {
    let mut row = vec![output::cell(name)];
    row.extend(WAITING.map(|state| output::cell(in_state(queue, state).to_string())));
    row.push(output::cell(queue.oldest_ready.map(times::about).unwrap_or_default()));
    row
}

fn in_state(queue: &QueueStats, state: State) -> u64 {
    queue.states.get(&state).copied().unwrap_or(0)
}

fn counts(count: impl Fn(State) -> u64, states: &[State]) -> Value {
    states.iter().map(|state| (state.as_str().to_owned(), json!(count(*state)))).collect()
}

fn processes(live: usize) -> String {
    match live {
        0 => "no worker is running".to_owned(),
        1 => "1 process runs jobs".to_owned(),
        live => format!("{live} processes run jobs"),
    }
}

fn process(instance: &InstanceRecord) -> String {
    let InstanceRecord { id, pid, started_at, .. } = instance;
    let since = times::relative(*started_at, OffsetDateTime::now_utc());
    match instance.alive {
        true => format!("instance {id}: process {pid}, started {since}"),
        false => format!("instance {id}: process {pid} is dead; the next worker takes over"),
    }
}
