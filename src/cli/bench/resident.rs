//! What an engine costs that has nothing to do: read from `/proc`, of a process of its own.

use std::fs;
use std::thread;
use std::time::Duration;

use super::Bench;
use super::child::{Child, Role};
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::work::{Noop, enqueue};
use crate::jobs::Jobs;
use crate::new_job::NewJob;
use crate::record::Scope;

const MIB: f64 = 1024.0 * 1024.0;
/// For what follows the last commit.
const SETTLING: Duration = Duration::from_secs(1);
/// A time that no experiment lives to see.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// Wake-ups and bytes written of an engine of eight workers that has worked before.
pub(super) fn idle(bench: &Bench) -> Result<Vec<Figure>> {
    if !has_proc("idle") {
        return Ok(Vec::new());
    }
    let window = Duration::from_secs(bench.amount(30, 3));
    let scratch = bench.scratch()?;
    let child = settled(&scratch.file())?;
    let before = (switches(child.id())?, written(child.id())?);
    thread::sleep(window);
    let after = (switches(child.id())?, written(child.id())?);
    child.end()?;
    let woken = (after.0 - before.0) as f64 / window.as_secs_f64();
    let written = (after.1 - before.1) as f64;
    let seconds = window.as_secs();
    Ok(vec![
        Figure::alone(format!("{seconds} s, wake-ups"), "1/s", woken, Reach::AtMost(1.0)),
        Figure::alone(format!("{seconds} s, written"), "bytes", written, Reach::AtMost(0.0)),
    ])
}

/// Resident memory of the same process, on an empty file and on one where a million jobs wait.
pub(super) fn memory(bench: &Bench) -> Result<Vec<Figure>> {
    if !has_proc("memory") {
        return Ok(Vec::new());
    }
    let count = bench.amount(1_000_000, 20_000);
    let scratch = bench.scratch()?;
    let empty = resident(&scratch.file())?;
    let scratch = bench.scratch()?;
    {
        let jobs = Jobs::open(scratch.file())?;
        jobs.pause(Scope::Queue("paused".to_owned()))?;
        enqueue(&jobs, count, |n| match n % 2 {
            0 => NewJob::new(Noop::new()).delay(FAR),
            _ => NewJob::new(Noop::new()).queue("paused"),
        })?;
    }
    let full = resident(&scratch.file())?;
    let more = (full - empty).max(0.0);
    Ok(vec![
        Figure::alone("idle", "MiB", empty, Reach::AtMost(15.0)),
        Figure::alone(format!("{count} waiting: more by"), "MiB", more, Reach::AtMost(5.0))
            .note("half scheduled, half in a paused queue"),
    ])
}

pub(super) fn has_proc(name: &str) -> bool {
    let has = cfg!(target_os = "linux");
    if !has {
        eprintln!("legwork bench: {name}: skipped, it reads /proc as Linux has it");
    }
    has
}

fn settled(file: &std::path::Path) -> Result<Child> {
    let child = Child::start(Role::Engine, file)?;
    child.line()?;
    thread::sleep(SETTLING);
    Ok(child)
}

fn resident(file: &std::path::Path) -> Result<f64> {
    let child = settled(file)?;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    child.end()?;
    Ok(field(&status, "VmRSS:")? as f64 * 1024.0 / MIB)
}

/// Voluntary context switches over all threads.
pub(super) fn switches(process: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        sum += field(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

/// Bytes handed to `write`, whether they have reached a disk or not.
fn written(process: u32) -> Result<u64> {
    field(&fs::read_to_string(format!("/proc/{process}/io"))?, "wchar:")
}

/// A number of `/proc`, whatever its unit.
fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::Missed(format!("/proc does not tell {name}")))
}
