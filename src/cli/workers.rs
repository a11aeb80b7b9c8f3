//! `legwork workers`.

use std::process::ExitCode;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::NOTHING_MATCHED;
use super::{Done, times};
use crate::clock::{between, to_micros};
use crate::record::{PoolRecord, Progress, RunningJob, WorkerRecord};
use crate::rules::amount;

pub(super) fn run(globals: &Globals) -> Done {
    let workers = globals.open()?.workers()?;
    let now = OffsetDateTime::now_utc();
    match globals.output() {
        Output::Json => {
            let workers: Vec<Value> = workers.iter().map(|worker| as_json(worker, now)).collect();
            output::json(json!({ "workers": workers }))?;
        }
        Output::Tsv => output::tsv(workers.iter().flat_map(|worker| rows(worker, now)))?,
        Output::Table { color } => {
            for worker in &workers {
                print(worker, now, color)?;
            }
        }
    }
    if !workers.iter().any(|worker| worker.instance.alive) {
        globals.say("no worker is running; start `legwork work`");
    }
    if workers.is_empty() {
        return Ok(ExitCode::from(NOTHING_MATCHED));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(worker: &WorkerRecord, now: OffsetDateTime, color: bool) -> std::io::Result<()> {
    output::print(format_args!("{}\n", sentence(worker, now)))?;
    for pool in worker.instance.pools.iter().filter(|_| worker.instance.alive) {
        let line = format!("  pool {}: {}", pool.name, pool_words(pool));
        output::print(format_args!("{}\n", output::escape(&line, false)))?;
    }
    if worker.running.is_empty() {
        return Ok(());
    }
    let row = |job: &RunningJob| {
        let progress = job.progress.as_ref().map(progress).unwrap_or_default();
        let stop = if job.cancel_requested { "asked to stop" } else { "" };
        let words: Vec<&str> =
            [&*progress, stop].into_iter().filter(|word| !word.is_empty()).collect();
        vec![
            output::cell(format!("  {}", job.id)),
            output::cell(&job.kind),
            output::cell(&job.queue),
            output::cell(job.attempt.to_string()),
            output::cell(amount::span(since(job.started_at, now))),
            output::cell(words.join(", ")),
        ]
    };
    let heading = ["  job", "kind", "queue", "attempt", "for", "progress"];
    output::table(&heading, worker.running.iter().map(row).collect(), color)
}

/// A process in one line.
pub(super) fn sentence(worker: &WorkerRecord, now: OffsetDateTime) -> String {
    let instance = &worker.instance;
    let (id, pid, held) = (instance.id, instance.pid, worker.held);
    if !instance.alive {
        let holds = match held {
            0 => String::new(),
            1 => " and holds 1 job".to_owned(),
            held => format!(" and holds {held} jobs"),
        };
        return format!("instance {id}: process {pid} is dead{holds}; the next worker takes over");
    }
    let started = times::relative(instance.started_at, now);
    let (workers, runs) = (count(instance.workers(), "worker"), worker.running.len());
    let ahead = held.saturating_sub(runs as u64);
    let ahead = if ahead == 0 { String::new() } else { format!(", {ahead} claimed ahead") };
    format!("instance {id}: process {pid}, started {started}; {workers}, {runs} running{ahead}")
}

fn count(count: usize, of: &str) -> String {
    if count == 1 { format!("1 {of}") } else { format!("{count} {of}s") }
}

fn pool_words(pool: &PoolRecord) -> String {
    let every = pool.every.map(|every| format!(", every {}", amount::span(every)));
    let (queues, workers) = (queues(pool).join(" "), count(pool.workers, "worker"));
    format!("{queues}; {workers}{}", every.unwrap_or_default())
}

/// With their weights, if they have any.
fn queues(pool: &PoolRecord) -> Vec<String> {
    let weighted = |(at, queue): (usize, &String)| match pool.weights.get(at) {
        Some(weight) => format!("{queue}={weight}"),
        None => queue.clone(),
    };
    pool.queues.iter().enumerate().map(weighted).collect()
}

fn progress(progress: &Progress) -> String {
    let Progress { done, total, message } = progress;
    let units = match (done, total) {
        (0, 0) => String::new(),
        (done, 0) => done.to_string(),
        (done, total) => format!("{done}/{total}"),
    };
    let message = message.clone().unwrap_or_default();
    [units, message].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn since(at: OffsetDateTime, now: OffsetDateTime) -> std::time::Duration {
    between(to_micros(at), to_micros(now))
}

/// What a row is about stands in its first field; documented in the guide.
fn rows(worker: &WorkerRecord, now: OffsetDateTime) -> Vec<Vec<String>> {
    let words = |words: &[&dyn ToString]| words.iter().map(|word| word.to_string()).collect();
    let instance = &worker.instance;
    let id = instance.id;
    let started = times::exact(instance.started_at);
    let mut rows: Vec<Vec<String>> =
        vec![words(&[&"process", &id, &instance.pid, &started, &instance.alive, &worker.held])];
    for pool in &instance.pools {
        let every = pool.every.map(|every| every.as_secs_f64().to_string()).unwrap_or_default();
        rows.push(words(&[
            &"pool",
            &id,
            &pool.name,
            &queues(pool).join(","),
            &pool.workers,
            &every,
        ]));
    }
    for kind in &instance.kinds {
        rows.push(words(&[&"kind", &id, kind]));
    }
    for job in &worker.running {
        let Progress { done, total, message } = job.progress.clone().unwrap_or_default();
        rows.push(words(&[
            &"job",
            &id,
            &job.id,
            &job.kind,
            &job.queue,
            &job.attempt,
            &times::exact(job.started_at),
            &since(job.started_at, now).as_secs_f64(),
            &done,
            &total,
            &message.unwrap_or_default(),
        ]));
    }
    rows
}

/// A process, its pools and what it runs.
pub(super) fn as_json(worker: &WorkerRecord, now: OffsetDateTime) -> Value {
    let instance = &worker.instance;
    let pool = |pool: &PoolRecord| {
        json!({
            "name": pool.name,
            "queues": pool.queues,
            "weights": pool.weights,
            "workers": pool.workers,
            "every_seconds": pool.every.map(|every| every.as_secs_f64()),
        })
    };
    let running = |job: &RunningJob| {
        let mut value = serde_json::to_value(job).unwrap_or_default();
        value["seconds"] = json!(since(job.started_at, now).as_secs_f64());
        value
    };
    json!({
        "id": instance.id,
        "pid": instance.pid,
        "started_at": times::exact(instance.started_at),
        "alive": instance.alive,
        "pools": instance.pools.iter().map(pool).collect::<Vec<_>>(),
        "kinds": instance.kinds,
        "running": worker.running.iter().map(running).collect::<Vec<_>>(),
        "held": worker.held,
    })
}
