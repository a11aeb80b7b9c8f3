//! A file that is removed or replaced while it is open: what is written to it no longer counts, and
//! is not acknowledged.

#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;
use legwork::{Engine, Error, Event, NewJob, Outcome, Scope, State};

use crate::common::{Place, SOON, place, wait_for};
use crate::scripted::{Act, acting};

fn job() -> NewJob {
    NewJob::of_kind("anything", serde_json::json!({}))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn remove_all(place: &Place) {
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(beside(&place.path, suffix)).unwrap();
    }
}

fn replace(path: &Path) {
    let new = beside(path, "-new");
    // Not a copy: nobody but SQLite may open the file.
    fs::write(&new, b"another file\n").unwrap();
    fs::rename(&new, path).unwrap();
}

fn gone<T>(what: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Gone { .. }) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what} succeeded"),
    }
}

#[test]
fn nothing_is_acknowledged_in_a_file_or_wal_that_was_removed_or_replaced() {
    type Way = fn(&Place);
    let ways: [(&str, Way); 5] = [
        ("the database file was removed", remove_all),
        ("the database file was removed", |place| fs::remove_file(&place.path).unwrap()),
        ("the database file was replaced", |place| replace(&place.path)),
        ("its -wal was removed", |place| fs::remove_file(beside(&place.path, "-wal")).unwrap()),
        ("its -wal was replaced", |place| replace(&beside(&place.path, "-wal"))),
    ];
    for (expected, way) in ways {
        let place = place();
        let jobs = place.open();
        jobs.enqueue(job()).unwrap();
        way(&place);
        match jobs.enqueue(job()) {
            Err(Error::Gone { path, why }) => {
                assert_eq!(path, jobs.path());
                assert_eq!(why, expected);
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_handle_on_a_file_that_is_gone_refuses_everything_hangs_nowhere_and_says_so_once() {
    let place = place();
    let jobs = place.open();
    let (started, told) = bounded(1);
    let (go_on, may_go_on) = bounded::<()>(0);
    let engine = acting(&jobs, move |_, _| {
        started.send(()).unwrap();
        let _ = may_go_on.recv();
        Ok(Outcome::Done)
    })
    .start()
    .unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    told.recv_timeout(SOON).unwrap();
    // A reader is open; none can be opened later.
    jobs.get(id).unwrap();
    let waiting = std::thread::spawn({
        let jobs = jobs.clone();
        move || jobs.wait(id, Duration::from_secs(3600))
    });
    let mut conn = place.connect();
    let events = jobs.events();

    remove_all(&place);
    gone("enqueue", jobs.enqueue(job()));
    let event = wait_for(&events, |event| matches!(event, Event::Gone { .. }));
    assert!(format!("{event:?}").contains("removed"), "{event:?}");
    gone("a wait that had begun", waiting.join().unwrap());
    gone("enqueue", jobs.enqueue(job()));
    gone("enqueue_in", jobs.enqueue_in(&conn, job()));
    gone("transaction", jobs.transaction(&mut conn, |_| Ok::<_, Error>(())));
    gone("get", jobs.get(id));
    gone("wait", jobs.wait(id, Duration::from_secs(3600)));
    gone("cancel", jobs.cancel(id));
    gone("pause", jobs.pause(Scope::All));
    gone("wake", jobs.wake());
    gone("health", jobs.health());
    gone("backup", jobs.backup(place.dir.path().join("copy.db")));
    gone("run_until_empty", engine.run_until_empty());
    gone("start", Engine::builder(&jobs).start());
    // The job under way cannot be recorded as done; its thread ends all the same.
    drop(go_on);
    gone("stop", engine.stop(SOON));
    let more = std::iter::from_fn(|| events.try_recv());
    assert_eq!(more.filter(|event| matches!(event, Event::Gone { .. })).count(), 0);
}

#[test]
fn the_end_of_a_job_is_found_to_be_lost_within_a_second_of_work() {
    let place = place();
    let jobs = place.open();
    let events = jobs.events();
    let left = ["", "-wal", "-shm"].map(|suffix| beside(&place.path, suffix)).to_vec();
    let engine = acting(&jobs, {
        let left = std::sync::Mutex::new(left);
        move |_, _| {
            left.lock().unwrap().drain(..).for_each(|path| fs::remove_file(path).unwrap());
            // Never completed: claims and ends go on without any synced group.
            Ok(Outcome::snooze(Duration::ZERO))
        }
    })
    .start()
    .unwrap();
    jobs.enqueue(Act { n: 1 }).unwrap();
    wait_for(&events, |event| matches!(event, Event::Gone { .. }));
    gone("enqueue", jobs.enqueue(job()));
    gone("stop", engine.stop(SOON));
}

#[test]
fn a_file_that_was_made_anew_is_another_file_with_a_new_writer() {
    let place = place();
    let old = place.open();
    let lost = old.enqueue(job()).unwrap();
    old.get(lost).unwrap();
    remove_all(&place);
    // Found by the opening, although the old handle has not written since.
    let new = place.open();
    let id = new.enqueue(job()).unwrap();
    gone("enqueue", old.enqueue(job()));
    gone("get", old.get(lost));
    assert_eq!(new.get(id).unwrap().state, State::Ready);
    let third = place.open();
    third.enqueue(job()).unwrap();
    assert_eq!(new.count(&legwork::Filter::new()).unwrap(), 2);
    // Closing the old one takes nothing from the new one.
    drop(old);
    new.enqueue(job()).unwrap();
    drop((new, third));
    assert_eq!(place.open().count(&legwork::Filter::new()).unwrap(), 3);
}

#[test]
fn after_its_wal_was_removed_a_file_is_opened_again_and_sound() {
    let place = place();
    let old = place.open();
    let id = old.enqueue(job()).unwrap();
    old.get(id).unwrap();
    fs::remove_file(beside(&place.path, "-wal")).unwrap();
    gone("enqueue", old.enqueue(job()));
    let new = place.open();
    let id = new.enqueue(job()).unwrap();
    assert_eq!(new.get(id).unwrap().state, State::Ready);
    drop((old, new));
    let check = "PRAGMA integrity_check";
    let sound: String = place.connect().query_row(check, [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[test]
fn a_database_whose_wal_is_gone_is_not_written_to_when_it_is_closed() {
    let place = place();
    let jobs = place.open();
    jobs.enqueue(job()).unwrap();
    let facts = || {
        let meta = fs::metadata(&place.path).unwrap();
        (meta.len(), meta.modified().unwrap())
    };
    let before = facts();
    replace(&beside(&place.path, "-wal"));
    gone("enqueue", jobs.enqueue(job()));
    drop(jobs);
    assert_eq!(facts(), before);
    // Nor is what stands under the name of the WAL removed.
    assert_eq!(fs::read(beside(&place.path, "-wal")).unwrap(), b"another file\n");
}
