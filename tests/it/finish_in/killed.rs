//! Processes that are killed around the commit.

use legwork::{Engine, Filter, JobId, Jobs, Pool, State};

use super::{Effect, TABLE, connect, effects};
use crate::common::{self, Child, SOON, place, say};

#[test]
#[ignore = "child process of `each_effect_happens_once_...`"]
fn effect_child() {
    let Some(db) = common::child_file() else {
        return;
    };
    let jobs = Jobs::open(&db).unwrap();
    connect(&db).execute_batch(TABLE).unwrap();
    let engine = Engine::builder(&jobs)
        .register_with::<Effect>(db)
        .pool(Pool::new(["*"]).workers(2))
        // Killed on purpose, and mostly in the middle of a job.
        .crash_limit(0)
        .start()
        .unwrap();
    while common::child_role() == "for ever" {
        let ids = jobs.enqueue_many((0..3).map(|_| Effect {})).unwrap();
        ids.iter().for_each(|id| say(&format!("acked {id}")));
        for id in ids {
            jobs.wait(id, SOON).unwrap();
        }
    }
    engine.run_until_empty().unwrap();
    engine.stop(SOON).unwrap();
}

fn ids<'a>(lines: &'a [String], word: &'a str) -> impl Iterator<Item = JobId> + 'a {
    lines.iter().filter_map(move |line| line.strip_prefix(word)?.trim().parse().ok())
}

#[test]
fn each_effect_happens_once_however_often_its_process_is_killed_around_the_commit() {
    const ROUNDS: usize = 100;
    let place = place();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut acked = Vec::new();
    // Jobs that were cut off between saying "before" and "after", by whether they had committed.
    let mut cut_off = [0, 0];
    for _ in 0..ROUNDS {
        let child = Child::start("finish_in::killed::effect_child", &place.path, "for ever");
        let word = if random.u8(..) < 200 { "before" } else { "after" };
        let mut left = random.usize(1..6);
        let mut lines = Vec::new();
        while left > 0 {
            let line = child.line().expect("the child lives until it is killed");
            left -= usize::from(line.starts_with(word));
            lines.push(line);
        }
        lines.extend(child.kill());
        acked.extend(ids(&lines, "acked"));
        for id in ids(&lines, "before").filter(|id| !ids(&lines, "after").any(|done| done == *id)) {
            let committed = effects(&place, id);
            assert!(committed <= 1, "job {id} had {committed} effects");
            cut_off[usize::from(committed == 1)] += 1;
        }
    }
    Child::start("finish_in::killed::effect_child", &place.path, "to the end").end();

    eprintln!(
        "{ROUNDS} kills, {} jobs, cut off before and after the commit: {cut_off:?}",
        acked.len()
    );
    let jobs = place.open();
    let conn = place.connect();
    let mut ask = conn.prepare("SELECT job FROM effects ORDER BY job").unwrap();
    let rows = ask.query_map([], |row| row.get(0).map(JobId)).unwrap();
    let rows: Vec<JobId> = rows.collect::<Result<_, _>>().unwrap();
    assert!(rows.is_sorted_by(|one, next| one < next), "a job had its effect twice");
    for id in &acked {
        assert!(rows.contains(id), "job {id} had no effect");
    }
    assert_eq!(jobs.count(&Filter::new().state(State::Completed)).unwrap(), rows.len() as u64);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), rows.len() as u64);
    // Otherwise the kills have missed the commits, and nothing was tested.
    assert!(cut_off[0] > 0 && cut_off[1] > 0, "{cut_off:?}");
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
