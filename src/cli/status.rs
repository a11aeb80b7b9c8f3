//! `legwork status`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::queues::{self, WAITING, in_state};
use super::{Done, gate, pause, stats, times, workers};
use crate::beside;
use crate::jobs::Jobs;
use crate::record::{GateRecord, InstanceRecord, Stats, WorkerRecord};
use crate::rules::amount;
use crate::state::State;
use crate::store::SqliteInfo;

struct Status {
    path: PathBuf,
    bytes: u64,
    wal_bytes: u64,
    workers: Vec<WorkerRecord>,
    sqlite: SqliteInfo,
    stats: Stats,
    gates: Vec<GateRecord>,
}

pub(super) fn run(globals: &Globals) -> Done {
    let status = Status::read(&globals.open()?)?;
    match globals.output() {
        Output::Json => output::json(status.json())?,
        Output::Tsv => output::tsv(status.rows())?,
        Output::Table { color } => status.print(globals, color)?,
    }
    queues::warn(globals, &status.stats, &status.instances());
    Ok(ExitCode::SUCCESS)
}

/// From the metadata alone: nobody but SQLite opens these files.
fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

impl Status {
    fn alive(&self) -> usize {
        self.workers.iter().filter(|worker| worker.instance.alive).count()
    }

    fn instances(&self) -> Vec<InstanceRecord> {
        self.workers.iter().map(|worker| worker.instance.clone()).collect()
    }

    fn read(jobs: &Jobs) -> crate::error::Result<Status> {
        let path = jobs.path().to_owned();
        Ok(Status {
            bytes: size(&path),
            wal_bytes: size(&beside::wal(&path)),
            workers: jobs.workers()?,
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
                    "states": queues::counts(|state| in_state(queue, state), &WAITING),
                    "oldest_ready_seconds": queue.oldest_ready.map(|age| age.as_secs_f64()),
                })
            })
            .collect();
        let now = OffsetDateTime::now_utc();
        let processes: Vec<Value> =
            self.workers.iter().map(|worker| workers::as_json(worker, now)).collect();
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
            "states": queues::counts(|state| self.stats.count(state), &State::ALL),
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
        for WorkerRecord { instance, running, held } in &self.workers {
            let started = times::exact(instance.started_at);
            let (id, pid, alive) = (&instance.id, &instance.pid, &instance.alive);
            rows.push(words(&[&"process", id, pid, &started, alive, &running.len(), held]));
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

    fn print(&self, globals: &Globals, color: bool) -> std::io::Result<()> {
        output::print(format_args!(
            "{}: {}, WAL {}; SQLite {}; {}\n",
            output::escape(&self.path.to_string_lossy(), false),
            amount::size(self.bytes),
            amount::size(self.wal_bytes),
            self.sqlite.version,
            processes(self.alive()),
        ))?;
        if self.sqlite.wal_reset_bug {
            output::print(
                "this SQLite has the WAL-reset bug, which can damage a file: use 3.51.3 or newer\n",
            )?;
        }
        let now = OffsetDateTime::now_utc();
        for worker in &self.workers {
            output::print(format_args!("{}\n", workers::sentence(worker, now)))?;
        }
        let totals = globals.app.named(stats::totals(&self.stats));
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
        let rows = self.stats.queues.iter().map(|(name, queue)| queues::cells(name, queue));
        output::table(&heading, rows.collect(), color)
    }
}

fn processes(live: usize) -> String {
    match live {
        0 => "no worker is running".to_owned(),
        1 => "1 process runs jobs".to_owned(),
        live => format!("{live} processes run jobs"),
    }
}
