//! Side directories that are cleared away, backups, copies.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use super::*;
use crate::common::place;

fn side(db: &Path) -> std::path::PathBuf {
    let mut side = db.as_os_str().to_owned();
    side.push("-legwork");
    side.into()
}

/// The lock file that the first instance's row names.
fn lock_of(place: &Place) -> std::path::PathBuf {
    let name = "SELECT lock_file FROM legwork_instances ORDER BY id LIMIT 1";
    side(&place.path).join(ask::<String>(place, name))
}

fn is_rung(bell: &Path) -> bool {
    UnixDatagram::unbound().unwrap().send_to(&[1], bell).is_ok()
}

#[test]
fn an_engine_whose_side_directory_is_cleared_keeps_its_job_and_makes_lock_and_bell_anew() {
    let place = place();
    let mut robbed = process(&place, "sweep 200 workers 2");
    let id = robbed.enqueued("hold");
    robbed.hear(&format!("start {id}"));
    fs::remove_dir_all(side(&place.path)).unwrap();
    // By the evidence of its process id it lives.
    let mut newcomer = process(&place, "sweep 200 workers 1");
    let own = newcomer.enqueued("hold");
    newcomer.tell(&format!("release {own}"));
    let jobs = place.open();
    jobs.wait(own, SOON).unwrap();
    assert_eq!(jobs.get(id).unwrap().state, State::Running);
    assert!(jobs.instances().unwrap().iter().all(|instance| instance.alive));

    until("the lock is there again", || lock_of(&place).exists());
    let bell = lock_of(&place).with_extension("bell");
    until("the bell hangs again", || is_rung(&bell));
    let said = newcomer.end();
    assert!(!said.contains(&format!("start {id}")), "taken from the living");
    let next = jobs.enqueue(work(0)).unwrap();
    robbed.hear(&format!("start {next}"));
    robbed.tell(&format!("release {id}"));
    completed_undisturbed(&jobs, id);
    robbed.end();
}

#[test]
fn the_jobs_of_a_backup_are_claimable_wherever_it_is_opened() {
    let place = place();
    let mut busy = process(&place, "sweep 0 workers 1");
    let id = busy.enqueued("hold");
    busy.hear(&format!("start {id}"));
    let elsewhere = crate::common::place();
    let kept = place.dir.path().join("kept.db");
    {
        let jobs = place.open();
        jobs.backup(&elsewhere.path).unwrap();
        jobs.backup(&kept).unwrap();
    }
    assert_eq!(ask::<i64>(&elsewhere, "SELECT count(*) FROM legwork_instances"), 0);
    let mut there = process(&elsewhere, "sweep 0 workers 1");
    there.hear(&format!("start {id}"));
    there.kill();

    busy.kill();
    for ending in ["", "-wal", "-shm"] {
        let mut name = place.path.as_os_str().to_owned();
        name.push(ending);
        let _ = fs::remove_file(name);
    }
    fs::rename(&kept, &place.path).unwrap();
    let mut restored = process(&place, "sweep 0 workers 1");
    restored.hear(&format!("start {id}"));
    assert_eq!(ask::<i64>(&place, "SELECT count(*) FROM legwork_instances"), 1);
    restored.tell(&format!("release {id}"));
    let jobs = place.open();
    completed_undisturbed(&jobs, id);
    drop(jobs);
    restored.end();
}

#[test]
fn the_engine_of_a_copied_file_takes_the_copied_jobs_and_leaves_the_original_alone() {
    let place = place();
    let mut original = process(&place, "sweep 0 workers 1");
    let id = original.enqueued("hold");
    original.hear(&format!("start {id}"));
    let copied = crate::common::place();
    // By another process: closing the file here would free the locks of this one.
    for ending in ["", "-wal"] {
        let name = |path: &Path| format!("{}{ending}", path.display());
        let done = Command::new("cp").args([name(&place.path), name(&copied.path)]).status();
        assert!(done.unwrap().success());
    }
    let lock = lock_of(&place);
    let mut copy = process(&copied, "sweep 0 workers 1");
    copy.hear(&format!("start {id}"));
    assert_eq!(ask::<i64>(&copied, "SELECT count(*) FROM legwork_instances"), 1);
    assert!(lock.exists() && is_rung(&lock.with_extension("bell")));
    let jobs = place.open();
    assert!(jobs.instances().unwrap()[0].alive);
    original.tell(&format!("release {id}"));
    completed_undisturbed(&jobs, id);
    copy.kill();
    original.end();
}

#[test]
fn a_copied_row_that_has_the_names_of_a_living_engine_takes_nothing_from_it() {
    let place = place();
    let engine = process(&place, "foreign sweep 0 workers 1");
    assert_eq!(ask::<i64>(&place, "SELECT count(*) FROM legwork_instances"), 1);
    let lock = lock_of(&place);
    let first = format!("{}-0-0.lock", engine.id());
    assert!(lock.ends_with(&first), "{lock:?} is not the name that was copied");
    assert!(lock.exists() && is_rung(&lock.with_extension("bell")));
    engine.end();
}
