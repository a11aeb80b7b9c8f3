//! Durable means synced: what the kernel is asked for before each acknowledgement, seen by strace.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use legwork::{Durability, Jobs, NewJob, Outcome, Scope};

use crate::common::{self, Child, place, say};
use crate::scripted::{Act, acting};

const STEPS: i64 = 20;

/// Enqueues, controls, and runs jobs, marking each acknowledgement by a line.
#[test]
#[ignore = "child process of the durability tests"]
fn child() {
    let Some(file) = common::child_file() else { return };
    let durability = match common::child_role().as_str() {
        "strict" => Durability::Strict,
        "relaxed" => Durability::Relaxed,
        _ => Durability::Synced,
    };
    let jobs = Jobs::builder(file).durability(durability).open().unwrap();
    say("mark enqueues");
    for n in 0..STEPS {
        jobs.enqueue(Act { n }).unwrap();
        say("mark ack");
    }
    say("mark controls");
    let last = jobs.enqueue(NewJob::new(Act { n: -1 }).priority(9)).unwrap();
    say("mark ack");
    jobs.pause(Scope::All).unwrap();
    say("mark ack");
    jobs.resume(Scope::All).unwrap();
    say("mark ack");
    jobs.cancel(last).unwrap();
    say("mark ack");
    let engine = acting(&jobs, |_, cx| {
        cx.progress(1, 1);
        Ok(Outcome::Done)
    })
    .manual()
    .unwrap();
    say("mark claims");
    assert_eq!(engine.run_due().unwrap(), STEPS.unsigned_abs() as usize);
    say("mark end");
}

/// What stands between two marks: the mark, and the completed syncs of the WAL before it.
type Trace = Vec<(String, u32)>;

/// Runs the child under strace; `None` if there is no strace here.
fn trace(durability: &str) -> Option<Trace> {
    if !common::has_strace() {
        return None;
    }
    let place = place();
    let log = place.dir.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o"]).arg(&log);
    Child::start_under(strace, "durability::child", &place.path, durability).end();
    Some(read(&log))
}

/// Reads a log of `strace -f -y`. A call that another thread's overtakes is split over two lines;
/// it counts when it has come back.
fn read(log: &Path) -> Trace {
    let mut trace = Vec::new();
    let mut syncs = 0;
    let mut under_way: HashSet<String> = HashSet::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let of_wal = (call.starts_with("fsync(") || call.starts_with("fdatasync("))
            && call.contains(".db-wal>");
        if of_wal && call.ends_with("<unfinished ...>") {
            under_way.insert(thread.to_owned());
        } else if of_wal || call.contains("sync resumed>") && under_way.remove(thread) {
            syncs += 1;
        } else if let Some((_, mark)) = call.split_once("\"mark ") {
            let mark = mark.split("\\n").next().unwrap();
            trace.push((mark.to_owned(), std::mem::take(&mut syncs)));
        }
    }
    trace
}

/// The syncs before each acknowledgement between two marks.
fn acks(trace: &Trace, from: &str, to: &str) -> Vec<u32> {
    let from = trace.iter().position(|(mark, _)| mark == from).unwrap();
    let to = trace.iter().position(|(mark, _)| mark == to).unwrap();
    trace[from + 1..to].iter().map(|(_, syncs)| *syncs).collect()
}

fn syncs_of_claims(trace: &Trace) -> u32 {
    trace.iter().find(|(mark, _)| mark == "end").unwrap().1
}

#[test]
fn by_default_every_enqueue_and_control_is_synced_before_its_acknowledgement() {
    let Some(trace) = trace("synced") else { return };
    let enqueues = acks(&trace, "enqueues", "controls");
    assert_eq!(enqueues.len(), STEPS.unsigned_abs() as usize);
    assert!(enqueues.iter().all(|&syncs| syncs >= 1), "{enqueues:?}");
    let controls = acks(&trace, "controls", "claims");
    assert_eq!(controls.len(), 4);
    assert!(controls.iter().all(|&syncs| syncs >= 1), "{controls:?}");
    assert_eq!(syncs_of_claims(&trace), 0, "claims, progress and finishes alone are not synced");
}

#[test]
fn strict_syncs_finishes_too() {
    let Some(trace) = trace("strict") else { return };
    assert!(acks(&trace, "enqueues", "controls").iter().all(|&syncs| syncs >= 1));
    assert!(syncs_of_claims(&trace) >= STEPS.unsigned_abs() as u32);
}

#[test]
fn relaxed_syncs_nothing_before_an_acknowledgement() {
    let Some(trace) = trace("relaxed") else { return };
    assert!(acks(&trace, "enqueues", "controls").iter().all(|&syncs| syncs == 0));
    assert!(acks(&trace, "controls", "claims").iter().all(|&syncs| syncs == 0));
    assert_eq!(syncs_of_claims(&trace), 0);
}
