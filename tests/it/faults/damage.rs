//! Damaged, foreign and read-only files: what cannot be used is refused as it is, and damage that
//! is met at work is told and not written over.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use legwork::{
    Chain, Error, Event, Failure, Filter, FlowId, JobId, Jobs, NewJob, Outcome, Pool, Scope,
};
use rusqlite::Connection;

use super::{Small, all, assert_sound};
use crate::common::{self, Child, Place, place, say};
use crate::scripted::{Act, acting};

const PAGE: u64 = 4096;

/// A closed file with something in every table.
fn lived_in() -> Place {
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |act, cx| {
        cx.log("a line");
        if act.n % 5 == 0 { Err(Failure::msg("as told")) } else { Ok(Outcome::Done) }
    })
    .manual()
    .unwrap();
    let tagged = |n| NewJob::new(Act { n }).tag("tag");
    jobs.enqueue_many((0..50).map(tagged)).unwrap();
    engine.run_due().unwrap();
    jobs.enqueue_many((100..200).map(tagged)).unwrap();
    jobs.enqueue(NewJob::new(Act { n: 7 }).delay(Duration::from_secs(600))).unwrap();
    jobs.pause(Scope::Queue("other".into())).unwrap();
    place
}

/// The tables and indexes of legwork, and where their first pages stand in the file.
fn trees(path: &Path) -> Vec<(String, u64)> {
    let conn = Connection::open(path).unwrap();
    let mut ask = conn
        .prepare("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0 AND tbl_name LIKE 'legwork%'")
        .unwrap();
    let rows = ask.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).unwrap();
    rows.map(|row| row.map(|(name, page)| (name, (page.unsigned_abs() - 1) * PAGE)).unwrap())
        .collect()
}

/// Nobody has the file open.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Whether an answer was the damage.
fn met<T>(what: &str, done: legwork::Result<T>) -> bool {
    match done {
        Ok(_) => false,
        Err(Error::Corrupt(_)) => true,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// Uses everything there is; whether any answer was the damage.
fn use_it(tree: &str, jobs: &Jobs) -> bool {
    let events = jobs.events();
    let what = |verb: &str| format!("{verb} with a damaged {tree}");
    let mut wrote = met(&what("enqueue"), jobs.enqueue(Act { n: 1 }));
    let engine = acting(jobs, |act, cx| {
        cx.log("another line");
        if act.n == 3 { Err(Failure::msg("as told")) } else { Ok(Outcome::Done) }
    })
    .pool(Pool::new(["*"]).workers(2))
    .start();
    wrote |= met(&what("enqueue_many"), jobs.enqueue_many((2..6).map(|n| Act { n })));
    let job = |n| NewJob::new(Act { n }).limit("one", 1).rate("often", 9, Duration::from_secs(1));
    let chain = Chain::new("c").then(job(6).unique_key("k")).then(job(7)).on_finish(Act { n: 8 });
    wrote |= met(&what("enqueue_flow"), jobs.enqueue_flow(chain));
    wrote |= met(&what("pause"), jobs.pause(Scope::Queue("q".into())));
    wrote |= met(&what("cancel"), jobs.cancel(Filter::new().queue("none")));
    let mut read = met(&what("list"), jobs.list(&Filter::new(), None, 1000));
    read |= met(&what("tags"), jobs.list(&Filter::new().tag("tag"), None, 1000));
    read |= met(&what("stats"), jobs.stats());
    read |= met(&what("flows"), jobs.flows(None, 10));
    read |= met(&what("members"), jobs.list(&Filter::new().flow(FlowId(1)), None, 10));
    read |= met(&what("attempts"), jobs.attempts(JobId(1)));
    read |= met(&what("logs"), jobs.logs(JobId(1)));
    let mut told = false;
    match engine {
        Ok(engine) => {
            // Until nothing happens any more.
            while let Some(event) = events.recv_timeout(Duration::from_millis(150)) {
                told |= matches!(event, Event::Damaged { .. });
            }
            if let Err(error) = engine.stop(Duration::ZERO) {
                panic!("{}: {error:?}", what("stop"));
            }
        }
        Err(error) => wrote |= met(&what("start"), Err::<(), _>(error)),
    }
    told |= std::iter::from_fn(|| events.try_recv()).any(|e| matches!(e, Event::Damaged { .. }));
    assert!(told || !wrote, "{tree}: the writer met damage and did not tell");
    told || read
}

#[test]
fn damage_in_any_table_or_index_is_reported_and_not_written_over() {
    let place = lived_in();
    let whole = fs::read(&place.path).unwrap();
    let mut reported = 0;
    let trees = trees(&place.path);
    assert!(trees.len() >= 15, "{trees:?}");
    for (tree, at) in &trees {
        let here = common::place();
        fs::write(&here.path, &whole).unwrap();
        overwrite(&here.path, *at, &[0xff; 8]);
        let damaged = match Jobs::open(&here.path) {
            Ok(jobs) => use_it(tree, &jobs),
            Err(error) => met(tree, Err::<(), _>(error)),
        };
        // Closed by now, unless a worker still waits for its end to be recorded; a look by another
        // process takes nobody's locks away.
        let dump = Command::new("od")
            .args(["-An", "-tx1", "-N8", "-j", &at.to_string()])
            .arg(&here.path)
            .output()
            .unwrap();
        let dump = String::from_utf8(dump.stdout).unwrap();
        assert_eq!(dump.trim(), "ff ff ff ff ff ff ff ff", "{tree} was written over");
        println!("{tree}: {}", if damaged { "reported" } else { "not met" });
        reported += usize::from(damaged);
    }
    assert!(reported * 3 > trees.len() * 2, "{reported} of {} were reported", trees.len());
}

/// An engine on a file of which it cannot claim.
#[test]
#[ignore = "child process of the tests of damage"]
fn child() {
    let Some(file) = common::child_file() else { return };
    let jobs = Jobs::open(file).unwrap();
    let events = jobs.events();
    let engine =
        acting(&jobs, |_, _| Ok(Outcome::Done)).pool(Pool::new(["*"]).workers(4)).start().unwrap();
    common::wait_for(&events, |event| matches!(event, Event::Damaged { .. }));
    say("damaged");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let more = std::iter::from_fn(|| events.try_recv());
    say(&format!("told {}", more.filter(|event| matches!(event, Event::Damaged { .. })).count()));
    engine.stop(Duration::ZERO).unwrap();
}

#[test]
fn an_engine_that_cannot_claim_for_damage_says_so_once_and_does_not_spin() {
    let place = lived_in();
    let trees = trees(&place.path);
    let (_, at) = trees.iter().find(|(name, _)| name == "legwork_next_ready").unwrap();
    overwrite(&place.path, *at, &[0xff; 8]);
    let mut child = Child::start("faults::damage::child", &place.path, "");
    child.wait_for("damaged");
    let before = switches(child.id());
    let window = Duration::from_secs(5);
    super::pass(window);
    // It tries again after 50 ms, then ever later.
    let woken = switches(child.id()) - before;
    assert!(woken < 60, "{woken} wake-ups in {window:?}");
    child.tell("end");
    assert_eq!(child.wait_for("told"), "0");
    child.end();
}

/// Voluntary context switches of all threads of a process.
fn switches(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .map(|status| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
            line.rsplit(|c: char| c.is_whitespace()).next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

/// A copy of the file as a process that was killed would leave it, `-wal` included.
fn killed(place: &Place) -> Place {
    let image = common::place();
    for suffix in ["", "-wal"] {
        // By another program: nobody but SQLite may open the file here.
        let copied = Command::new("cp")
            .arg(format!("{}{suffix}", place.path.display()))
            .arg(format!("{}{suffix}", image.path.display()))
            .status();
        assert!(copied.unwrap().success());
    }
    image
}

#[test]
fn a_damaged_wal_ends_at_its_damage_and_leaves_a_sound_file() {
    let place = place();
    let jobs = place.open();
    (0..30).for_each(|n| assert!(jobs.enqueue(Act { n }).is_ok()));
    let image = killed(&place);
    let wal = format!("{}-wal", image.path.display());
    let (db, wal_bytes) = (fs::read(&image.path).unwrap(), fs::read(&wal).unwrap());
    let mut counts = Vec::new();
    for part in 0..20 {
        let at = wal_bytes.len() * part / 20;
        let mut bad = wal_bytes.clone();
        bad[at..at + 8].iter_mut().for_each(|byte| *byte = !*byte);
        let here = common::place();
        fs::write(&here.path, &db).unwrap();
        fs::write(format!("{}-wal", here.path.display()), bad).unwrap();
        let jobs = Jobs::open(&here.path).unwrap();
        counts.push(all(&jobs).len());
        jobs.enqueue(Act { n: 99 }).unwrap();
        drop(jobs);
        assert_sound(&here.path);
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(counts[0] < 30, "{counts:?}");
}

#[test]
fn a_picture_is_refused_and_left_as_it_is() {
    let place = place();
    let mut picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    picture.resize(20_000, 0x5a);
    fs::write(&place.path, &picture).unwrap();
    let error = Jobs::open(&place.path).err().unwrap();
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    assert_eq!(fs::read(&place.path).unwrap(), picture);
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_on_a_file_system_mounted_read_only_is_refused_and_left_as_it_is() {
    let Some(small) = Small::mount("4m") else { return };
    Jobs::open(small.db()).unwrap().enqueue(Act { n: 1 }).unwrap();
    let before = fs::read(small.db()).unwrap();
    small.remount("ro");
    for path in [small.db(), small.dir.path().join("new.db")] {
        let error = Jobs::open(&path).err().unwrap();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    }
    assert_eq!(fs::read(small.db()).unwrap(), before);
    small.remount("rw");
    assert_eq!(all(&Jobs::open(small.db()).unwrap()).len(), 1);
}
