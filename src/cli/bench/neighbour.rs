//! The app's own transactions in the same file, while legwork has all it can do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Bench;
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{as_micros, in_turn, median, percentile, rate};
use super::raw::App;
use super::work::{Crew, Noop};
use crate::jobs::Jobs;

const CALLERS: usize = 4;
const WORKERS: usize = 4;
const CALL: usize = 100;
/// The callers hold back beyond it: the load is to last, not to pile up.
const MOST_WAITING: usize = 20_000;
/// What the app does between two transactions.
const PAUSE: Duration = Duration::from_millis(1);

/// One-row transactions beside four callers and four workers, against the same alone.
pub(super) fn neighbour(bench: &Bench) -> Result<Vec<Figure>> {
    let window = Duration::from_millis(bench.amount(4_000, 300));
    let mut rates = Vec::new();
    let (alone, beside) = in_turn(
        bench.amount(3, 1),
        || {
            let scratch = bench.scratch()?;
            drop(Jobs::open(scratch.file())?);
            orders(&App::open(&scratch.file())?, window)
        },
        || {
            let scratch = bench.scratch()?;
            let crew = Crew::start(Jobs::open(scratch.file())?, WORKERS)?;
            let app = App::open(&scratch.file())?;
            let before = (Instant::now(), crew.tally.ran());
            let times = under_load(&crew, || orders(&app, window))?;
            rates.push(rate(crew.tally.ran() - before.1, before.0.elapsed()));
            crew.stop()?;
            Ok(times)
        },
    )?;
    let millis = |times: &[Vec<f64>]| times.concat().iter().map(|t| t / 1e3).collect::<Vec<_>>();
    let (alone, beside) = (millis(&alone), millis(&beside));
    let figure = |measure, share, reach| {
        Figure::new(measure, "ms", percentile(&alone, share), percentile(&beside, share), reach)
    };
    Ok(vec![
        figure("p50", 0.5, Reach::Told).note("raw: the app alone"),
        figure("p99", 0.99, Reach::AtMost(50.0)),
        figure("longest", 1.0, Reach::Told),
        Figure::alone("legwork meanwhile", "jobs/s", median(&rates), Reach::Told),
    ])
}

/// How long each transaction took, for as long as the window is open.
fn orders(app: &App, window: Duration) -> Result<Vec<f64>> {
    let until = Instant::now() + window;
    let mut times = Vec::new();
    while Instant::now() < until || times.is_empty() {
        thread::sleep(PAUSE);
        let started = Instant::now();
        match app.order() {
            // Locked out for all its busy time-out: that is a time like any other, a bad one.
            Err(Error::Raw(error)) if is_busy(&error) => {}
            done => done?,
        }
        times.push(as_micros(started.elapsed()));
    }
    Ok(times)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// Does `work` while callers bring jobs as fast as they are run.
fn under_load<T>(crew: &Crew, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    let brought = AtomicUsize::new(crew.tally.ran());
    let call = || -> crate::error::Result<()> {
        while !over.load(Ordering::Relaxed) {
            if brought.load(Ordering::Relaxed) > crew.tally.ran() + MOST_WAITING {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            brought.fetch_add(CALL, Ordering::Relaxed);
            crew.jobs.enqueue_many((0..CALL).map(|_| Noop::new()))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        let done = work();
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().map_err(|_| Error::Missed("a caller panicked".to_owned()))??;
        }
        done
    })
}
