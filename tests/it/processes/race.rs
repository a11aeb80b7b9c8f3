//! Many processes want the same jobs.

use std::collections::BTreeMap;

use super::*;
use crate::common::place;

#[test]
fn processes_that_open_a_new_file_at_once_all_get_it() {
    for _ in 0..5 {
        let place = place();
        let children: Vec<Child> =
            (0..6).map(|_| Child::start("processes::worker", &place.path, "workers 1")).collect();
        for mut child in children {
            child.wait_for("ready");
            child.tell("end");
            child.end();
        }
    }
}

#[test]
fn twenty_processes_race_for_5000_jobs_and_run_each_once() {
    let place = place();
    let children: Vec<Process> = (0..20).map(|_| process(&place, "sweep 5000 workers 2")).collect();
    let jobs = place.builder().busy_timeout(SOON).open().unwrap();
    let since = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..50 {
        let note = || NewJob::new(Told { deed: Deed::Note });
        ids.extend(jobs.enqueue_many((0..100).map(|_| note())).unwrap());
    }
    for &id in &ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().attempts, 1);
    }
    eprintln!("5000 jobs in {:?}", since.elapsed());
    children.into_iter().for_each(|child| drop(child.end()));

    let text = std::fs::read_to_string(ledger(&place.path)).unwrap();
    let mut ran = Vec::new();
    let mut by_process: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines() {
        let (id, process) = line.split_once(' ').unwrap();
        ran.push(id.parse::<JobId>().unwrap());
        *by_process.entry(process).or_default() += 1;
    }
    ran.sort_unstable();
    assert_eq!(ran, ids, "each once");
    assert!(by_process.len() > 1, "one process has run them all, that was no race");
    eprintln!("by process: {:?}", by_process.values().collect::<Vec<_>>());
    assert_eq!(ask::<i64>(&place, "SELECT count(*) FROM legwork_instances"), 0);
}
