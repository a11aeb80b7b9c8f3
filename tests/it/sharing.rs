//! One file, one writer: what the handles of a process share, what is each one's own, and what is
//! left of them in a child made by fork.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crossbeam_channel::bounded;
use legwork::{
    Clock, Durability, Engine, Error, Event, Interrupt, Jobs, JobsBuilder, NewJob, Outcome, Pool,
    Random, Retention, State,
};

use crate::common::{Place, SOON, place, stopped_clock};
use crate::scripted::{Act, acting};

fn job() -> NewJob {
    NewJob::of_kind("anything", serde_json::json!({}))
}

/// Whether what is enqueued on one is told by the other: they share a writer.
fn together(one: &Jobs, other: &Jobs) -> bool {
    let events = other.events();
    let id = one.enqueue(job()).unwrap();
    // Told before `enqueue` returns.
    std::iter::from_fn(|| events.try_recv())
        .any(|event| matches!(event, Event::Enqueued { id: told, .. } if told == id))
}

fn invalid(what: &str, result: legwork::Result<Jobs>) {
    match result {
        Err(Error::Invalid { what: found, why }) => {
            assert_eq!(found, what);
            assert!(why.contains("this process has the file open with"), "{why}");
        }
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} was accepted"),
    }
}

#[test]
fn two_opens_of_one_file_share_a_writer() {
    let place = place();
    let first = place.open();
    let second = place.open();
    assert!(together(&first, &second));
    assert!(together(&second, &first));
    // It ends with the last of them.
    drop(first);
    let id = second.enqueue(job()).unwrap();
    assert!(together(&second, &place.open()));
    drop(second);
    assert_eq!(place.open().get(id).unwrap().state, State::Ready);
}

#[test]
fn two_files_do_not_share_a_writer() {
    let (one, other) = (place(), place());
    assert!(!together(&one.open(), &other.open()));
}

#[cfg(unix)]
#[test]
fn a_file_has_one_writer_under_all_its_names() {
    let place = place();
    let link = place.dir.path().join("link.db");
    // The link stands there before the file does.
    std::os::unix::fs::symlink(&place.path, &link).unwrap();
    let by_link = Jobs::open(&link).unwrap();
    let dotted = place.dir.path().join(".").join("test.db");
    assert!(together(&by_link, &place.open()));
    assert!(together(&by_link, &Jobs::open(dotted).unwrap()));
    assert!(together(&by_link, &Jobs::open(&link).unwrap()));
}

#[test]
fn threads_that_open_a_file_at_once_get_one_writer() {
    for _ in 0..20 {
        let place = Arc::new(place());
        let start = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (place, start) = (Arc::clone(&place), Arc::clone(&start));
                std::thread::spawn(move || {
                    start.wait();
                    place.open()
                })
            })
            .collect();
        let handles: Vec<Jobs> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(handles.iter().all(|handle| together(&handles[0], handle)));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn opening_one_file_does_not_hold_up_the_opening_of_another() {
    let descriptors = |place: &Place| {
        let file = std::fs::canonicalize(&place.path).unwrap();
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|entry| {
                let entry = entry.as_ref().unwrap();
                std::fs::read_link(entry.path()).is_ok_and(|target| target == file)
            })
            .count()
    };
    let (slow, other) = (place(), place());
    // The tables cannot be made while this transaction lasts.
    let holder = slow.connect();
    holder.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE; CREATE TABLE orders (id)").unwrap();
    let before = descriptors(&slow);
    let (opened, told) = bounded(1);
    let builder = slow.builder().busy_timeout(Duration::from_secs(3600));
    let thread = std::thread::spawn(move || opened.send(builder.open().map(drop)).unwrap());
    while descriptors(&slow) == before {
        std::thread::yield_now();
    }
    other.open().enqueue(job()).unwrap();
    assert!(told.is_empty(), "the slow file was opened, the test shows nothing");
    holder.execute_batch("COMMIT").unwrap();
    told.recv_timeout(SOON).unwrap().unwrap();
    thread.join().unwrap();
}

#[test]
fn settings_of_the_writer_are_inherited_and_others_are_refused_by_name() {
    let place = place();
    let clock = stopped_clock();
    let random = Random::seeded(7);
    let keep = Retention::default().completed(Duration::from_secs(60));
    let _first = place
        .builder()
        .durability(Durability::Strict)
        .retention(keep)
        .history_rows(1000)
        .clock(clock.clone())
        .random(random.clone())
        .sweep(Duration::ZERO)
        .open()
        .unwrap();

    let inherited = place.open();
    assert_eq!(inherited.clock().now(), clock.now());
    clock.advance(Duration::from_secs(60));
    assert_eq!(inherited.clock().now(), clock.now());

    let same: [fn(JobsBuilder) -> JobsBuilder; 5] = [
        |builder| builder.durability(Durability::Strict),
        |builder| builder.retention(Retention::default().completed(Duration::from_secs(60))),
        |builder| builder.history_rows(1000),
        |builder| builder.sweep(Duration::ZERO),
        |builder| builder.allow_network_fs(false),
    ];
    for (at, same) in same.iter().enumerate() {
        same(place.builder()).open().unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    place.builder().clock(clock).random(random).open().unwrap();

    invalid("durability", place.builder().durability(Durability::Synced).open());
    invalid("retention", place.builder().retention(Retention::default()).open());
    invalid("history_rows", place.builder().history_rows(1001).open());
    invalid("sweep", place.builder().sweep(Duration::from_secs(5)).open());
    invalid("allow_network_fs", place.builder().allow_network_fs(true).open());
    invalid("clock", place.builder().clock(stopped_clock()).open());
    invalid("clock", place.builder().clock(Clock::system()).open());
    invalid("random", place.builder().random(Random::seeded(7)).open());
}

#[test]
fn the_systems_clock_is_one_clock_however_often_it_is_made() {
    let place = place();
    let first = place.open();
    assert!(together(&first, &place.builder().clock(Clock::system()).open().unwrap()));
}

#[test]
fn a_file_that_was_closed_is_opened_with_new_settings() {
    let place = place();
    drop(place.builder().durability(Durability::Strict).open().unwrap());
    let jobs = place.builder().durability(Durability::Relaxed).open().unwrap();
    jobs.enqueue(job()).unwrap();
}

#[test]
fn each_handle_has_its_own_patience_limits_and_code() {
    let place = place();
    let patient = place.builder().busy_timeout(Duration::from_secs(3600)).open().unwrap();
    let seen = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&seen);
    let hasty = place
        .builder()
        .busy_timeout(Duration::from_millis(1))
        .max_args(10)
        .on_enqueue(move |job| {
            counts.fetch_add(1, Ordering::SeqCst);
            Ok(job)
        })
        .open()
        .unwrap();
    assert!(together(&patient, &hasty));
    assert_eq!(seen.load(Ordering::SeqCst), 0);

    let large = || NewJob::of_kind("large", serde_json::json!({ "n": "0123456789" }));
    assert!(matches!(hasty.enqueue(large()), Err(Error::Invalid { .. })));
    patient.enqueue(large()).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);

    let holder = place.connect();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (done, told) = bounded(1);
    let waits = patient.clone();
    let thread = std::thread::spawn(move || done.send(waits.enqueue(job())).unwrap());
    assert!(matches!(hasty.enqueue(job()), Err(Error::Busy { .. })));
    assert!(told.is_empty());
    holder.execute_batch("COMMIT").unwrap();
    told.recv_timeout(SOON).unwrap().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_wait_and_a_cancel_on_one_handle_reach_the_engine_of_the_other() {
    let place = place();
    let (first, second) = (place.open(), place.open());
    let (started, told) = bounded(1);
    let engine = acting(&first, move |_, cx| {
        started.send(()).unwrap();
        assert_eq!(cx.wait(SOON), Err(Interrupt::Cancelled));
        Ok(Outcome::cancel("asked"))
    })
    .start()
    .unwrap();
    let id = second.enqueue(Act { n: 1 }).unwrap();
    told.recv_timeout(SOON).unwrap();
    second.cancel(id).unwrap();
    assert_eq!(second.wait(id, SOON).unwrap().state, State::Cancelled);
    engine.stop(SOON).unwrap();
}

/// How many lock files there are.
fn locks_in(side: &std::path::Path) -> usize {
    let files = std::fs::read_dir(side).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|kind| kind == "lock")).count()
}

#[test]
fn engines_of_two_handles_work_side_by_side_with_an_instance_each() {
    let place = place();
    let (first, second) = (place.open(), place.open());
    let engine = |jobs: &Jobs, queue: &str| {
        Engine::builder(jobs).pool(Pool::new([queue]).workers(2)).start().unwrap()
    };
    let (one, two) = (engine(&first, "one"), engine(&second, "two"));
    let instances = || -> i64 {
        let count = "SELECT count(*) FROM legwork_instances";
        place.connect().query_row(count, [], |row| row.get(0)).unwrap()
    };
    let side = place.dir.path().join("test.db-legwork");
    let locks = || locks_in(&side);
    assert_eq!((instances(), locks()), (2, 2));
    assert_eq!(first.health().unwrap().workers, 4);
    one.stop(SOON).unwrap();
    drop(one);
    assert_eq!((instances(), locks()), (1, 1));
    two.run_until_empty().unwrap();
    two.stop(SOON).unwrap();
}

#[test]
fn a_poisoned_writer_is_not_handed_out() {
    let place = place();
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let clock = Clock::from_fn(move || {
        let in_writer = std::thread::current().name() == Some("legwork-writer");
        assert!(!(in_writer && breaks.load(Ordering::SeqCst)), "breaks, as the test wants");
        time::OffsetDateTime::now_utc()
    });
    let first = place.builder().clock(clock).open().unwrap();
    let kept = first.enqueue(job()).unwrap();
    broken.store(true, Ordering::SeqCst);
    // A lone enqueue would be recorded in this thread; this is for the writer's.
    first.wake().unwrap();
    assert!(matches!(first.wait(kept, SOON), Err(Error::Poisoned)));
    // At once, while the thread may still be unwinding, and with the system's clock.
    let second = place.open();
    second.enqueue(job()).unwrap();
    assert_eq!(second.get(kept).unwrap().state, State::Ready);
    assert!(matches!(first.enqueue(job()), Err(Error::Poisoned)));
    assert!(together(&second, &place.open()));
}

#[cfg(feature = "cron")]
#[test]
fn a_panic_of_a_worker_or_of_the_cron_thread_outside_the_apps_code_poisons_the_handle() {
    for thread in ["legwork-cron", "legwork-mill-1"] {
        let place = place();
        let broken = Arc::new(AtomicBool::new(false));
        let breaks = Arc::clone(&broken);
        let clock = Clock::from_fn(move || {
            let here = std::thread::current().name() == Some(thread);
            assert!(!(here && breaks.load(Ordering::SeqCst)), "breaks, as the test wants");
            time::OffsetDateTime::now_utc()
        });
        let jobs = place.builder().clock(clock).open().unwrap();
        let engine = acting(&jobs, |_, _| Ok(Outcome::Done))
            .pool(Pool::new(["*"]).name("mill").workers(1))
            .cron("often", "@every 1s", || Act { n: 1 })
            .start()
            .unwrap();
        let kept = jobs.enqueue(job()).unwrap();
        broken.store(true, Ordering::SeqCst);
        // What the thread is there for is no longer done: nobody is left to believe that it is.
        assert!(matches!(jobs.wait(kept, SOON), Err(Error::Poisoned)), "{thread}");
        assert!(matches!(jobs.enqueue(job()), Err(Error::Poisoned)), "{thread}");
        drop(engine);
    }
}

// ---- fork ------------------------------------------------------------------------------------

#[cfg(unix)]
mod fork {
    use super::*;
    use crate::common::{Child, child_file, say};

    /// Forks. `inside` runs in the child, which then ends without unwinding into the test.
    fn forked(inside: impl FnOnce()) -> bool {
        #[allow(unsafe_code, reason = "the library's behaviour after a real fork is the test")]
        // SAFETY: the child runs only `inside` and ends; it takes no lock that another thread of
        // this process may have held, since these threads sleep.
        unsafe {
            match libc::fork() {
                0 => {
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(inside));
                    libc::_exit(if done.is_ok() { 0 } else { 1 });
                }
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    status == 0
                }
            }
        }
    }

    fn refused<T>(what: &str, result: Result<T, Error>) {
        match result {
            Err(Error::Forked) => say(&format!("refused {what}")),
            Err(error) => panic!("{what}: {error:?}"),
            Ok(_) => panic!("{what} succeeded"),
        }
    }

    #[test]
    fn a_forked_child_gets_typed_errors_hangs_nowhere_and_takes_nothing_from_its_parent() {
        let place = place();
        let child = Child::start("sharing::fork::child", &place.path, "fork");
        child.wait_for("child done");
        assert_eq!(child.wait_for("parent done"), "completed");
        child.end();
    }

    #[test]
    #[ignore = "child process of `a_forked_child_gets_typed_errors_...`"]
    fn child() {
        let Some(file) = child_file() else { return };
        let closed = file.with_extension("closed");
        let kept = Jobs::open(&closed).unwrap().enqueue(job()).unwrap();
        let jobs = Jobs::open(&file).unwrap();
        let id = jobs.enqueue(job()).unwrap();
        // A reader is open too.
        jobs.get(id).unwrap();
        let engine = acting(&jobs, |_, _| Ok(Outcome::Done)).start().unwrap();
        let manual = acting(&jobs, |_, _| Ok(Outcome::Done)).manual().unwrap();
        let side = file.with_file_name("test.db-legwork");
        let locks = || super::locks_in(&side);
        assert_eq!(locks(), 2);

        let mut held = Some((jobs, engine, manual));
        let well = forked(|| {
            let (jobs, engine, manual) = held.take().unwrap();
            let mut conn = rusqlite::Connection::open_in_memory().unwrap();
            refused("enqueue", jobs.enqueue(job()));
            refused("enqueue_in", jobs.enqueue_in(&conn, job()));
            refused("transaction", jobs.transaction(&mut conn, |_| Ok::<_, Error>(())));
            refused("cancel", jobs.cancel(id));
            refused("pause", jobs.pause(legwork::Scope::All));
            refused("wake", jobs.wake());
            refused("get", jobs.get(id));
            refused("stats", jobs.stats());
            refused("wait", jobs.wait(id, Duration::from_secs(3600)));
            refused("health", jobs.health());
            refused("backup", jobs.backup(file.with_extension("copy")));
            refused("run_one", manual.run_one());
            refused("run_until_empty", engine.run_until_empty());
            refused("stop", engine.stop(Duration::from_secs(3600)));
            refused("start", Engine::builder(&jobs).start());
            refused("open", Jobs::open(&file));
            drop((engine, manual));
            drop(jobs);
            refused("open after the handle is dropped", Jobs::open(&file));
            // What the parent had closed before is free, and so is what nobody had open.
            let again = Jobs::open(&closed).unwrap();
            assert_eq!(again.get(kept).unwrap().state, State::Ready);
            again.enqueue(job()).unwrap();
            drop(again);
            Jobs::open(file.with_extension("own")).unwrap().enqueue(job()).unwrap();
            say("child done");
        });
        assert!(well);

        let (jobs, engine, manual) = held.take().unwrap();
        assert_eq!(locks(), 2);
        let id = jobs.enqueue(Act { n: 1 }).unwrap();
        let state = jobs.wait(id, SOON).unwrap().state;
        drop(manual);
        engine.stop(SOON).unwrap();
        drop((engine, jobs));
        assert_eq!(locks(), 0);
        say(&format!("parent done {state}"));
    }
}
