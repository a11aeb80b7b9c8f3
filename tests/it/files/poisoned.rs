//! A panic in legwork's own work: the handle says so, nothing hangs, no job is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use legwork::{Clock, Engine, Error, Filter, Pool, Scope, State};

use super::Quick;
use crate::common::{SOON, place};

/// A clock that panics in the writer's thread once it is told to.
fn treacherous_clock() -> (Clock, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let clock = Clock::from_fn(move || {
        let in_writer = std::thread::current().name() == Some("legwork-writer");
        assert!(
            !(in_writer && breaks.load(Ordering::SeqCst)),
            "the clock breaks, as the test wants"
        );
        time::OffsetDateTime::now_utc()
    });
    (clock, broken)
}

fn poisoned<T>(what: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Poisoned) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what} succeeded"),
    }
}

/// A clock that panics in a thread of this name when it is read the second time after the break:
/// the first is for the job's own times, outside the writer's work.
fn clock_that_breaks_a_caller() -> (Clock, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let read = std::sync::atomic::AtomicU32::new(0);
    let clock = Clock::from_fn(move || {
        let caller = std::thread::current().name() == Some("caller");
        if caller && breaks.load(Ordering::SeqCst) {
            let before = read.fetch_add(1, Ordering::SeqCst);
            assert_eq!(before, 0, "the clock breaks, as the test wants");
        }
        time::OffsetDateTime::now_utc()
    });
    (clock, broken)
}

#[test]
fn a_panic_while_a_caller_records_his_own_job_poisons_the_handle_and_nothing_hangs() {
    let place = place();
    let (clock, broken) = clock_that_breaks_a_caller();
    let jobs = place.builder().clock(clock).open().unwrap();
    let kept = jobs.enqueue(Quick).unwrap();
    let waiting = std::thread::spawn({
        let jobs = jobs.clone();
        move || jobs.wait(kept, Duration::from_secs(3600))
    });
    broken.store(true, Ordering::SeqCst);
    let caller = std::thread::Builder::new().name("caller".into()).spawn({
        let jobs = jobs.clone();
        move || jobs.enqueue(Quick).map(drop)
    });
    assert!(caller.unwrap().join().is_err(), "the panic is the caller's");
    poisoned("a wait that had begun", waiting.join().unwrap());
    poisoned("enqueue", jobs.enqueue(Quick));
    poisoned("get", jobs.get(kept));
    drop(jobs);
    let jobs = place.open();
    assert_eq!(jobs.get(kept).unwrap().state, State::Ready);
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 1, "what was not committed is not there");
}

#[test]
fn a_panic_in_the_writer_poisons_the_handle_and_nothing_hangs_and_no_job_is_lost() {
    let place = place();
    let (clock, broken) = treacherous_clock();
    let jobs = place.builder().clock(clock).open().unwrap();
    let engine = Engine::builder(&jobs)
        .register::<Quick>()
        .pool(Pool::new(["*"]).name("all").workers(3))
        .start()
        .unwrap();
    jobs.pause(Scope::All).unwrap();
    let ids = jobs.enqueue_many((0..20).map(|_| Quick)).unwrap();
    let mut conn = place.connect();
    let waiting = std::thread::spawn({
        let (jobs, id) = (jobs.clone(), ids[0]);
        move || jobs.wait(id, Duration::from_secs(3600))
    });

    broken.store(true, Ordering::SeqCst);
    // What a lone caller enqueues is recorded in his own thread; this is for the writer's.
    jobs.wake().unwrap();
    poisoned("a wait that had begun", waiting.join().unwrap());
    poisoned("wait", jobs.wait(ids[0], Duration::from_secs(3600)));
    poisoned("enqueue", jobs.enqueue(Quick));
    poisoned("enqueue_many", jobs.enqueue_many([Quick]));
    poisoned("enqueue_in", jobs.enqueue_in(&conn, Quick));
    poisoned("transaction", jobs.transaction(&mut conn, |_| Ok::<_, Error>(())));
    poisoned("wake", jobs.wake());
    poisoned("get", jobs.get(ids[0]));
    poisoned("list", jobs.list(&Filter::new(), None, 10));
    poisoned("count", jobs.count(&Filter::new()));
    poisoned("stats", jobs.stats());
    poisoned("attempts", jobs.attempts(ids[0]));
    poisoned("logs", jobs.logs(ids[0]));
    poisoned("output", jobs.output::<i64>(ids[0]));
    poisoned("health", jobs.health());
    poisoned("retry", jobs.retry(ids[0]));
    poisoned("cancel", jobs.cancel(ids[0]));
    poisoned("delete", jobs.delete(Filter::new()));
    poisoned("pause", jobs.pause(Scope::All));
    poisoned("resume", jobs.resume(Scope::All));
    poisoned("backup", jobs.backup(place.dir.path().join("copy.db")));
    poisoned("run_until_empty", engine.run_until_empty());
    poisoned("resize", engine.resize("all", 4));
    poisoned("a second engine", Engine::builder(&jobs).register::<Quick>().start());
    let stopping = Instant::now();
    poisoned("stop", engine.stop(SOON));
    assert!(stopping.elapsed() < SOON, "the workers did not end by themselves");
    drop((engine, jobs, conn));

    let jobs = place.open();
    assert_eq!(jobs.count(&Filter::new()).unwrap(), 20);
    let engine = Engine::builder(&jobs).register::<Quick>().start().unwrap();
    jobs.resume(Scope::All).unwrap();
    for id in ids {
        assert_eq!(jobs.wait(id, SOON).unwrap().state, State::Completed);
    }
    engine.stop(SOON).unwrap();
}
