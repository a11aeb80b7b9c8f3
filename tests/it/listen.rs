//! Events of all processes, for whoever listens.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use legwork::{Context, Engine, Event, Job, JobId, JobResult, Jobs, Listener, Outcome, Told};
use serde::{Deserialize, Serialize};

use crate::common::{Child, SOON, child_file, child_role, place, say, until};

const CHILD: &str = "listen::a_process_beside_the_test";

/// Does nothing.
#[derive(Serialize, Deserialize)]
pub struct Short;

impl Job for Short {
    const KIND: &'static str = "short";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// Runs jobs, or enqueues as many as it is told, without running any.
#[test]
#[ignore = "a process of its own, started by the tests"]
fn a_process_beside_the_test() {
    let Some(file) = child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let role = child_role();
    let engine =
        (role == "engine").then(|| Engine::builder(&jobs).register::<Short>().start().unwrap());
    say(&format!("ready {}", std::process::id()));
    for line in std::io::stdin().lines() {
        match line.unwrap().parse::<u64>() {
            Ok(count) => {
                let ids: Vec<String> =
                    (0..count).map(|_| jobs.enqueue(Short).unwrap().to_string()).collect();
                say(&format!("ids {}", ids.join(" ")));
            }
            Err(_) => break,
        }
    }
    drop(engine);
}

fn beside(file: &std::path::Path, role: &str) -> (Child, u32) {
    let child = Child::start(CHILD, file, role);
    let process = child.wait_for("ready").parse().unwrap();
    (child, process)
}

fn enqueue(child: &mut Child, count: usize) -> Vec<JobId> {
    child.tell(&count.to_string());
    child.wait_for("ids").split(' ').map(|id| id.parse().unwrap()).collect()
}

/// Everything until `enough` says so.
fn hear(listener: &mut Listener, mut enough: impl FnMut(&Told) -> bool) -> Vec<Told> {
    let deadline = Instant::now() + SOON;
    let mut all = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let told = listener.recv_timeout(left).unwrap().expect("nothing was heard in time");
        all.push(told);
        if enough(&all[all.len() - 1]) {
            return all;
        }
    }
}

fn finished(told: &Told) -> Option<JobId> {
    match told.event() {
        Some(Event::Finished { id, .. }) => Some(id),
        _ => None,
    }
}

#[test]
fn a_listener_hears_every_process_that_runs_jobs_and_each_enqueue_once() {
    let place = place();
    let jobs = place.open();
    let before = jobs.enqueue(Short).unwrap();
    let (mut engine, process) = beside(&place.path, "engine");
    let (mut plain, _) = beside(&place.path, "plain");
    jobs.wait(before, SOON).unwrap();

    let mut listener = jobs.listen().unwrap();
    let mut ids = enqueue(&mut engine, 20);
    ids.extend(enqueue(&mut plain, 20));
    ids.push(jobs.enqueue(Short).unwrap());
    let mut left = ids.len();
    let all = hear(&mut listener, |told| {
        left -= usize::from(finished(told).is_some());
        left == 0
    });
    let mut sorts: HashMap<JobId, Vec<String>> = HashMap::new();
    for told in &all {
        if let Some(id) = told.json["job"].as_i64() {
            let sort = told.json["event"].as_str().unwrap().to_owned();
            sorts.entry(JobId(id)).or_default().push(sort);
        }
        if told.json["event"] != "enqueued" {
            assert_eq!(told.process, Some(process));
        }
    }
    for id in &ids {
        assert_eq!(sorts[id], ["enqueued", "started", "finished"], "job {id}");
    }
    // Its end may have been told a moment after it was recorded.
    sorts.remove(&before);
    assert_eq!(sorts.len(), ids.len(), "nothing of jobs from before");
}

#[test]
fn an_engine_that_joins_later_is_heard_from_its_first_job_on() {
    let place = place();
    let jobs = place.open();
    let ids: Vec<JobId> = (0..3).map(|_| jobs.enqueue(Short).unwrap()).collect();
    let mut listener = jobs.listen().unwrap();
    let (engine, process) = beside(&place.path, "engine");
    let mut heard = BTreeMap::new();
    hear(&mut listener, |told| {
        assert_eq!(told.process, Some(process));
        heard.extend(finished(told).map(|id| (id, ())));
        heard.len() == ids.len()
    });
    // One that is killed is heard no more, and keeps nobody from listening.
    engine.kill();
    assert_eq!(listener.recv_timeout(Duration::from_millis(1)).unwrap(), None);
    let _second = jobs.listen().unwrap();
}

#[test]
fn an_engine_talks_only_while_somebody_listens() {
    let place = place();
    let jobs = place.open();
    let (mut engine, process) = beside(&place.path, "engine");
    let talks = || {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok())
            .filter(|name| name.trim() == "legwork-ears")
            .count()
    };
    assert_eq!(talks(), 0);
    let mut listener = jobs.listen().unwrap();
    let second = jobs.listen().unwrap();
    assert_eq!(talks(), 1);
    drop(second);
    let ids = enqueue(&mut engine, 1);
    hear(&mut listener, |told| finished(told) == Some(ids[0]));
    assert_eq!(talks(), 1);
    drop(listener);
    until("nobody talks", || talks() == 0);
}
