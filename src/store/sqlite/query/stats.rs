//! Numbers: how many jobs there are of what, how long they wait, how long they take.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::super::book::scope_from;
use super::super::errors::storing;
use super::in_snapshot;
use crate::clock::{Micros, between};
use crate::error::Result;
use crate::record::{Backlog, KindStats, Percentiles, Scope, Stats};
use crate::state::State;

/// The earliest start time of the ready jobs, above suspicion and not, save those behind closed
/// gates; an index serves each.
pub(in crate::store::sqlite) const OLDEST_READY: [&str; 2] = [
    "SELECT min(run_at) FROM legwork_jobs INDEXED BY legwork_next_ready
      WHERE state = 3 AND instance IS NULL AND crashes IS NULL
        AND lane NOT IN (SELECT lane.id FROM legwork_lanes AS lane
                           JOIN legwork_gates AS gate ON gate.name = lane.gate)",
    "SELECT min(run_at) FROM legwork_jobs INDEXED BY legwork_next_suspect
      WHERE state = 3 AND instance IS NULL AND crashes IS NOT NULL
        AND lane NOT IN (SELECT lane.id FROM legwork_lanes AS lane
                           JOIN legwork_gates AS gate ON gate.name = lane.gate)",
];

/// The same for each lane, with how many there are.
pub(in crate::store::sqlite) const BACKLOG: [&str; 2] = [
    "SELECT lane.queue, lane.kind, count(*), min(job.run_at)
       FROM legwork_jobs AS job INDEXED BY legwork_next_ready
       JOIN legwork_lanes AS lane ON lane.id = job.lane
      WHERE job.state = 3 AND job.instance IS NULL AND job.crashes IS NULL
        AND lane.gate NOT IN (SELECT name FROM legwork_gates)
      GROUP BY job.lane",
    "SELECT lane.queue, lane.kind, count(*), min(job.run_at)
       FROM legwork_jobs AS job INDEXED BY legwork_next_suspect
       JOIN legwork_lanes AS lane ON lane.id = job.lane
      WHERE job.state = 3 AND job.instance IS NULL AND job.crashes IS NOT NULL
        AND lane.gate NOT IN (SELECT name FROM legwork_gates)
      GROUP BY job.lane",
];

/// Counted here and not there: a sum that SQLite keeps for each lane and state takes it twice the time.
const STANDING: &str = "SELECT lane, state, run_at FROM legwork_jobs";
const LANES: &str = "SELECT id, queue, gate FROM legwork_lanes";

/// How long the job that has been ready longest has waited.
pub(in crate::store::sqlite) fn oldest_ready(
    conn: &Connection,
    now: Micros,
) -> Result<Option<Duration>> {
    let mut oldest: Option<Micros> = None;
    for sql in OLDEST_READY {
        let first: Option<Micros> = conn
            .prepare_cached(sql)
            .and_then(|mut ask| ask.query_row([], |row| row.get(0)))
            .map_err(storing)?;
        oldest = oldest.into_iter().chain(first).min();
    }
    Ok(oldest.map(|at| between(at, now)))
}

/// What is ready, by queue and kind.
pub(in crate::store::sqlite) fn backlog(conn: &Connection, now: Micros) -> Result<Vec<Backlog>> {
    in_snapshot(conn, |conn| {
        let mut found: BTreeMap<(String, String), (u64, Micros)> = BTreeMap::new();
        for sql in BACKLOG {
            let mut ask = conn.prepare_cached(sql)?;
            let mut rows = ask.query([])?;
            while let Some(row) = rows.next()? {
                let (count, first) = (row.get::<_, i64>(2)?.unsigned_abs(), row.get(3)?);
                let entry = found.entry((row.get(0)?, row.get(1)?)).or_insert((0, first));
                *entry = (entry.0 + count, entry.1.min(first));
            }
        }
        let paused: HashSet<Scope> = read_pauses(conn)?.into_iter().collect();
        let is_paused = |queue: &str, kind: &str| {
            paused.contains(&Scope::All)
                || paused.contains(&Scope::Queue(queue.to_owned()))
                || paused.contains(&Scope::Kind(kind.to_owned()))
        };
        let backlog =
            |((queue, kind), (ready, first)): ((String, String), (u64, Micros))| Backlog {
                paused: is_paused(&queue, &kind),
                queue,
                kind,
                ready,
                oldest: between(first, now),
            };
        Ok(found.into_iter().map(backlog).collect())
    })
}

pub(in crate::store::sqlite) fn stats(conn: &Connection, now: Micros) -> Result<Stats> {
    in_snapshot(conn, |conn| {
        let mut stats = Stats::default();
        count_live(conn, now, &mut stats)?;
        let history = |condition: &str| {
            let sql = format!("SELECT count(*) FROM legwork_history{condition}");
            conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        };
        let (all, failed, cancelled) =
            (history("")?, history(" WHERE state = 7")?, history(" WHERE state = 8")?);
        for (state, count) in [
            (State::Completed, all.saturating_sub(failed + cancelled)),
            (State::Failed, failed),
            (State::Cancelled, cancelled),
        ] {
            if count > 0 {
                stats.states.insert(state, count);
            }
        }
        stats.paused = read_pauses(conn)?;
        stats.kinds = kinds(conn)?;
        Ok(stats)
    })
}

/// How many jobs of each lane are in each state as it stands in their rows, and the earliest `run_at`.
fn standing(conn: &Connection) -> rusqlite::Result<HashMap<(i64, i64), (u64, Micros)>> {
    let mut found: HashMap<(i64, i64), (u64, Micros)> = HashMap::new();
    let mut ask = conn.prepare_cached(STANDING)?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        let run_at: Micros = row.get(2)?;
        let entry = found.entry((row.get(0)?, row.get(1)?)).or_insert((0, run_at));
        *entry = (entry.0 + 1, entry.1.min(run_at));
    }
    Ok(found)
}

/// Counts the jobs that are not finished, as people see them: what is ready behind a closed gate is
/// blocked.
fn count_live(conn: &Connection, now: Micros, stats: &mut Stats) -> rusqlite::Result<()> {
    let mut closed = conn.prepare_cached("SELECT name FROM legwork_gates")?;
    let closed: HashSet<String> =
        closed.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut lanes = conn.prepare_cached(LANES)?;
    let lanes: HashMap<i64, (String, String)> = lanes
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect::<rusqlite::Result<_>>()?;
    for ((lane, state), (count, first)) in standing(conn)? {
        let Some((name, gate)) = lanes.get(&lane) else { continue };
        let stands = State::from_code(state).unwrap_or(State::Blocked);
        let behind_gate = stands == State::Ready && closed.contains(gate);
        let state = if behind_gate { State::Blocked } else { stands };
        let queue = stats.queues.entry(name.clone()).or_default();
        if behind_gate {
            *queue.gates.entry(gate.clone()).or_default() += count;
        }
        *queue.states.entry(state).or_default() += count;
        *stats.states.entry(state).or_default() += count;
        if state == State::Ready {
            queue.oldest_ready = queue.oldest_ready.max(Some(between(first, now)));
        }
    }
    Ok(())
}

fn read_pauses(conn: &Connection) -> rusqlite::Result<Vec<Scope>> {
    let mut ask = conn.prepare_cached("SELECT scope, name FROM legwork_pauses")?;
    ask.query_map([], |row| Ok(scope_from(&row.get::<_, String>(0)?, row.get(1)?)))?.collect()
}

/// What is paused.
pub(in crate::store::sqlite) fn paused(conn: &Connection) -> Result<Vec<Scope>> {
    read_pauses(conn).map_err(storing)
}

/// How many finished jobs the figures per kind are taken from.
const SAMPLE: i64 = 10_000;

#[derive(Default)]
struct Sample {
    failed: u64,
    finished: Vec<Micros>,
    waits: Vec<Duration>,
    runs: Vec<Duration>,
}

fn kinds(conn: &Connection) -> rusqlite::Result<BTreeMap<String, KindStats>> {
    let mut ask = conn.prepare_cached(
        "SELECT lane.kind, job.state, job.run_at, job.started_at, job.finished_at
           FROM (SELECT * FROM legwork_history ORDER BY id DESC LIMIT (?1+0)) AS job
           JOIN legwork_lanes AS lane ON lane.id = job.lane",
    )?;
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    let mut rows = ask.query(params![SAMPLE])?;
    while let Some(row) = rows.next()? {
        let (run_at, finished_at): (Micros, Micros) = (row.get(2)?, row.get(4)?);
        let sample = samples.entry(row.get(0)?).or_default();
        sample.finished.push(finished_at);
        sample.failed += u64::from(row.get::<_, i64>(1)? == State::Failed.code());
        if let Some(started_at) = row.get::<_, Option<Micros>>(3)? {
            sample.waits.push(between(run_at, started_at));
            sample.runs.push(between(started_at, finished_at));
        }
    }
    Ok(samples.into_iter().map(|(kind, sample)| (kind, figures(sample))).collect())
}

fn figures(sample: Sample) -> KindStats {
    let first = sample.finished.iter().min().copied().unwrap_or(0);
    let last = sample.finished.iter().max().copied().unwrap_or(0);
    let minutes = between(first, last).as_secs_f64() / 60.0;
    let finished = sample.finished.len() as u64;
    KindStats {
        finished,
        failed: sample.failed,
        per_minute: if minutes > 0.0 { finished as f64 / minutes } else { 0.0 },
        wait: Percentiles::of(sample.waits),
        run: Percentiles::of(sample.runs),
    }
}
