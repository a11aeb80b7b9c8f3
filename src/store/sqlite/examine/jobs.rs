//! What waits, who runs it, and what keeps it from being run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::{Examined, files};
use crate::beside;
use crate::clock::{Micros, micros_of};
use crate::error::Result;
use crate::finding::Finding;
use crate::new_job::Overrides;
use crate::record::{InstanceRecord, Scope};
use crate::rules::amount;
use crate::rules::examine::{self as rules, Lane};
use crate::store::sqlite::errors::storing;
use crate::store::sqlite::instance::{self, Instance};
use crate::store::sqlite::lock_file::{Identity, is_dead};
use crate::store::sqlite::{gates, kinds, prune, query};

/// All lanes that have jobs: how many, how many may start or are overdue and held by nobody, the
/// earliest start time of those, how many are held.
const LANES: &str = "
SELECT lane.queue, lane.kind, lane.gate, count(*),
       sum(job.instance IS NULL AND (job.state = 3 OR (job.state IN (1, 5) AND job.run_at <= ?1))),
       min(CASE WHEN job.instance IS NULL AND (job.state = 3 OR (job.state IN (1, 5) AND job.run_at <= ?1))
                THEN job.run_at END),
       sum(job.instance IS NOT NULL)
  FROM legwork_jobs AS job JOIN legwork_lanes AS lane ON lane.id = job.lane GROUP BY job.lane";
/// The newest time that was written.
const NEWEST: &str = "
SELECT max(at) FROM (
    SELECT max(enqueued_at) AS at FROM (SELECT enqueued_at FROM legwork_jobs ORDER BY id DESC LIMIT 100)
    UNION ALL
    SELECT max(finished_at) FROM (SELECT finished_at FROM legwork_history ORDER BY id DESC LIMIT 100))";
const RUNNING: &str = "
SELECT job.id, lane.kind, job.started_at, job.options, job.instance
  FROM legwork_jobs AS job INDEXED BY legwork_held JOIN legwork_lanes AS lane ON lane.id = job.lane
 WHERE job.instance IS NOT NULL AND job.state = 4 ORDER BY job.id LIMIT 10000";
const HELD: &str = "SELECT count(*) FROM legwork_jobs INDEXED BY legwork_held WHERE instance = ?1";

struct Waiting {
    lane: Lane,
    gate: String,
    all: u64,
}

pub(super) fn look(conn: &Connection, path: &Path, now: Micros, seen: &mut Examined) {
    let read = clock(conn, now);
    seen.found_in("the clock's record", read);
    let read = instance::instances(conn);
    let instances = seen.read("the instances", read).unwrap_or_default();
    files::look_aside(path, &instances, seen);
    let dead = dead(path, &instances);
    let read = instances_found(conn, path, &instances, &dead);
    seen.found_in("the instances", read);
    let live = instances.len() - dead.len();
    let read = instance::records(conn, path);
    let records = seen.read("the pools", read).unwrap_or_default();
    let read = waiting(conn, now, &records);
    if let Some(waiting) = seen.read("the waiting jobs", read) {
        let read = may_start(conn, &waiting);
        if let Some((lanes, notes)) = seen.read("what is paused", read) {
            seen.found(rules::workers(&lanes, live, now));
            seen.found(notes);
        }
        let read = kinds::all(conn);
        if let Some(known) = seen.read("the kinds", read) {
            seen.found(unknown(&waiting, |kind| known.contains_key(kind)));
            seen.kinds = known.into_keys().collect();
        }
    }
    let read = overdue(conn, &dead, now);
    seen.found_in("the running jobs", read);
    #[cfg(feature = "cron")]
    {
        let read = crate::store::sqlite::cron::rows(conn);
        seen.crons = seen.read("the cron entries", read).unwrap_or_default();
    }
}

fn clock(conn: &Connection, now: Micros) -> Result<Vec<Finding>> {
    let newest: Option<Micros> = conn.query_row(NEWEST, [], |row| row.get(0)).map_err(storing)?;
    Ok(rules::clock(now, newest, prune::kept_trust(conn)?))
}

// ---- instances ---------------------------------------------------------------------------

fn dead(path: &Path, instances: &[Instance]) -> Vec<i64> {
    let (me, side) = (Identity::without_lock(path), beside::side(path));
    let dead = instances.iter().filter(|other| is_dead(&other.identity, &me, &side));
    dead.map(|other| other.id).collect()
}

fn instances_found(
    conn: &Connection,
    path: &Path,
    instances: &[Instance],
    dead: &[i64],
) -> Result<Vec<Finding>> {
    let me = Identity::without_lock(path);
    let mut found = Vec::new();
    for Instance { id, identity: other, .. } in instances {
        let (moved, copied) = (other.db_path != me.db_path, other.db_inode != me.db_inode);
        let finding = if moved && copied {
            let says =
                format!("it was copied from {} while jobs were claimed there", other.db_path);
            Finding::note("copied", says)
                .advice("the next worker gives those jobs back; copy with `legwork backup`")
        } else if dead.contains(id) {
            let held: i64 = conn.query_row(HELD, [id], |row| row.get(0)).map_err(storing)?;
            let held = held.unsigned_abs();
            let says = format!("process {} is dead and holds {}", other.pid, amount::jobs(held));
            // Others that live take it over within a second or two.
            let alone = dead.len() == instances.len();
            if alone && held > 0 {
                Finding::warning("dead_instance", says)
                    .advice("start a worker: it takes over what they hold")
            } else {
                Finding::note("dead_instance", says).advice("the next worker takes it over")
            }
        } else if moved {
            let says = format!(
                "it was moved from {} while process {} had it open",
                other.db_path, other.pid
            );
            Finding::problem("moved", says).advice("restart that process on the new path")
        } else if copied {
            let says = format!("another file stands here than process {} has open", other.pid);
            Finding::problem("replaced", says)
                .advice("restart that process; what it wrote since may be lost")
        } else {
            continue;
        };
        found.push(finding.of(id.to_string()));
    }
    Ok(found)
}

// ---- jobs --------------------------------------------------------------------------------

fn waiting(conn: &Connection, now: Micros, engines: &[InstanceRecord]) -> Result<Vec<Waiting>> {
    let mut ask = conn.prepare(LANES).map_err(storing)?;
    ask.query_map(params![now], |row| {
        let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let (queue, kind): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(Waiting {
            lane: Lane {
                served: engines.iter().any(|engine| engine.runs(&kind, &queue)),
                queue,
                kind,
                ready: count(4)?,
                since: row.get::<_, Option<Micros>>(5)?.unwrap_or(now),
                held: count(6)?,
            },
            gate: row.get(2)?,
            all: count(3)?,
        })
    })
    .and_then(Iterator::collect)
    .map_err(storing)
}

/// The lanes that nothing keeps from being started, and what does so of the others.
fn may_start(conn: &Connection, waiting: &[Waiting]) -> Result<(Vec<Lane>, Vec<Finding>)> {
    let paused = query::paused(conn)?;
    let gates = gates::all(conn)?;
    let is_closed =
        |name: &str| gates.iter().any(|gate| gate.closed_since.is_some() && gate.name == name);
    let is_paused = |lane: &Lane| {
        paused.iter().any(|scope| match scope {
            Scope::All => true,
            Scope::Queue(name) => *name == lane.queue,
            Scope::Kind(name) => *name == lane.kind,
        })
    };
    let may = waiting.iter().filter(|one| !is_closed(&one.gate) && !is_paused(&one.lane));
    let lanes = may.map(|one| one.lane.clone()).collect();
    let pauses = paused.iter().map(|scope| {
        let (of, resume) = match scope {
            Scope::All => ("everything".to_owned(), "`legwork resume`".to_owned()),
            Scope::Queue(name) => (format!("queue {name}"), format!("`legwork resume {name}`")),
            Scope::Kind(name) => {
                (format!("kind {name}"), format!("`legwork resume --kind {name}`"))
            }
        };
        let lifts = format!("{resume} lifts the pause");
        Finding::note("paused", format!("{of} is paused")).of(of).advice(lifts)
    });
    let closed = gates.iter().filter(|gate| gate.closed_since.is_some()).map(|gate| {
        let name = &gate.name;
        Finding::note("gate_closed", format!("gate {name} is closed"))
            .of(name)
            .advice(format!("`legwork gate open {name}` opens it"))
    });
    Ok((lanes, pauses.chain(closed).collect()))
}

/// The kinds of waiting jobs that no engine has known.
fn unknown(waiting: &[Waiting], knows: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for one in waiting.iter().filter(|one| !knows(&one.lane.kind)) {
        *kinds.entry(&one.lane.kind).or_default() += one.all;
    }
    let finding = |(kind, count): (&str, u64)| {
        let says = format!(
            "{} of kind {kind}, which no engine has known on this file",
            amount::jobs(count)
        );
        Finding::warning("unknown_kind", says).of(kind).advice(
            "start the program that knows the kind, or cancel them: `legwork check` names them",
        )
    };
    kinds.into_iter().map(finding).collect()
}

/// Jobs that run for longer than they may, or for very long.
fn overdue(conn: &Connection, dead: &[i64], now: Micros) -> Result<Vec<Finding>> {
    /// Between the time-out and its effect.
    const SLACK: Duration = Duration::from_secs(60);
    const VERY_LONG: Duration = Duration::from_secs(86_400);
    let mut ask = conn.prepare(RUNNING).map_err(storing)?;
    let mut rows = ask.query([]).map_err(storing)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(storing)? {
        let read = || -> rusqlite::Result<(i64, String, Micros, Option<String>, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let (id, kind, started, options, instance) = read().map_err(storing)?;
        if dead.contains(&instance) {
            continue;
        }
        let own = options.and_then(|options| serde_json::from_str::<Overrides>(&options).ok());
        let timeout = own.and_then(|own| own.timeout);
        let runs = now.saturating_sub(started);
        let says = format!("job {id} ({kind}) runs for {}", rules::for_people(runs));
        let finding = match timeout {
            Some(timeout) if runs > micros_of(timeout + SLACK) => Finding::warning(
                "stuck",
                format!("{says}, and its time-out is {}", rules::for_people(micros_of(timeout))),
            )
            .advice("it does not heed its time-out, or the machine slept: see what it does"),
            None if runs > micros_of(VERY_LONG) => Finding::note("long_running", says)
                .advice("if it hangs, `legwork cancel` asks it to stop; give its kind a time-out"),
            _ => continue,
        };
        found.push(finding.of(id.to_string()));
    }
    Ok(found)
}
