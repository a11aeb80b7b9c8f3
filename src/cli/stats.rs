//! `legwork stats`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::globals::Globals;
use super::output::{self, Output};
use super::{Done, queues};
use crate::record::{KindStats, Percentiles, Stats};
use crate::rules::amount;
use crate::state::State;

pub(super) fn run(globals: &Globals) -> Done {
    let stats = globals.open()?.stats()?;
    match globals.output() {
        Output::Json => output::json(as_json(&stats))?,
        Output::Tsv => output::tsv(rows(&stats))?,
        Output::Table { color } => print(globals, &stats, color)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(globals: &Globals, stats: &Stats, color: bool) -> std::io::Result<()> {
    output::print(format_args!("{}\n", globals.app.named(totals(stats))))?;
    if stats.kinds.is_empty() {
        return Ok(());
    }
    output::print("\n")?;
    let row = |(name, kind): (&String, &KindStats)| {
        let mut row = vec![
            output::cell(name),
            output::cell(kind.finished.to_string()),
            output::cell(kind.failed.to_string()),
            output::cell(format!("{:.1}", kind.per_minute)),
        ];
        row.extend(points(kind).map(|span| output::cell(short(span))));
        row
    };
    let heading = [
        "kind", "finished", "failed", "a minute", "wait p50", "wait p95", "wait p99", "run p50",
        "run p95", "run p99",
    ];
    output::table(&heading, stats.kinds.iter().map(row).collect(), color)
}

/// How many jobs are in which state.
pub(super) fn totals(stats: &Stats) -> String {
    let totals = State::ALL.into_iter().filter(|state| stats.count(*state) > 0);
    let totals: Vec<String> =
        totals.map(|state| format!("{} {state}", stats.count(state))).collect();
    match totals.is_empty() {
        true => {
            "no jobs yet; add one with `legwork run -- CMD` or `legwork enqueue KIND`".to_owned()
        }
        false => totals.join(", "),
    }
}

/// Wait and run, three points each.
fn points(kind: &KindStats) -> [Duration; 6] {
    let KindStats { wait, run, .. } = kind;
    [wait.p50, wait.p95, wait.p99, run.p50, run.p95, run.p99]
}

/// Below a millisecond, too.
fn short(span: Duration) -> String {
    match span.as_micros() {
        0 => "0".to_owned(),
        micros @ 1..1_000 => format!("{micros}µs"),
        _ => amount::span(span),
    }
}

/// What a row is about stands in its first field; documented in the guide.
fn rows(stats: &Stats) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = State::ALL
        .map(|state| ["state".to_owned(), state.to_string(), stats.count(state).to_string()].into())
        .into();
    for (name, kind) in &stats.kinds {
        let mut row = vec![
            "kind".to_owned(),
            name.clone(),
            kind.finished.to_string(),
            kind.failed.to_string(),
            kind.per_minute.to_string(),
        ];
        row.extend(points(kind).map(|span| span.as_secs_f64().to_string()));
        rows.push(row);
    }
    rows
}

fn as_json(stats: &Stats) -> Value {
    let seconds = |points: &Percentiles| {
        json!({
            "p50": points.p50.as_secs_f64(),
            "p95": points.p95.as_secs_f64(),
            "p99": points.p99.as_secs_f64(),
        })
    };
    let kind = |(name, kind): (&String, &KindStats)| {
        json!({
            "name": name,
            "finished": kind.finished,
            "failed": kind.failed,
            "per_minute": kind.per_minute,
            "wait_seconds": seconds(&kind.wait),
            "run_seconds": seconds(&kind.run),
        })
    };
    json!({
        "states": queues::counts(|state| stats.count(state), &State::ALL),
        "kinds": stats.kinds.iter().map(kind).collect::<Vec<_>>(),
    })
}
