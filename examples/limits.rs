//! Limits: two imports at once for each account, and calls of an API that allows ten a second.
//!
//! `cargo run --example limits`

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use legwork::{
    Context, Engine, Filter, Job, JobOptions, JobResult, Jobs, Limit, NewJob, OnBusy, Outcome,
    Pool, State,
};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);

/// What the jobs have seen of each other.
#[derive(Default)]
struct Seen {
    /// How many imports of an account run, and the most that ever did.
    imports: Mutex<HashMap<u32, (usize, usize)>>,
    calls: Mutex<Vec<Instant>>,
}

impl Seen {
    fn import(&self, account: u32, change: isize) {
        let mut imports = self.imports.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, most) = imports.entry(account).or_default();
        *now = now.saturating_add_signed(change);
        *most = (*most).max(*now);
    }

    fn most_at_once(&self) -> usize {
        let imports = self.imports.lock().unwrap_or_else(PoisonError::into_inner);
        imports.values().map(|(_, most)| *most).max().unwrap_or(0)
    }

    /// The most calls in any second.
    fn most_calls(&self) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let from = |from: &Instant| {
            calls.iter().filter(|at| **at >= *from && **at - *from < SECOND).count()
        };
        calls.iter().map(from).max().unwrap_or(0)
    }
}

#[derive(Serialize, Deserialize)]
struct Import {
    account: u32,
}

impl Job for Import {
    const KIND: &'static str = "import";
    type State = Arc<Seen>;

    fn options() -> JobOptions {
        // The key is made of the arguments: `account:7`.
        JobOptions::new().limit(Limit::at_once("account", 2).by(["account"]))
    }

    fn perform(&self, cx: &Context<Arc<Seen>>) -> JobResult {
        cx.state().import(self.account, 1);
        thread::sleep(Duration::from_millis(20));
        cx.state().import(self.account, -1);
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Call {}

impl Job for Call {
    const KIND: &'static str = "call";
    type State = Arc<Seen>;

    fn options() -> JobOptions {
        JobOptions::new().limit(Limit::rate("api.example.com", 10, SECOND))
    }

    fn perform(&self, cx: &Context<Arc<Seen>>) -> JobResult {
        cx.state().calls.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        Ok(Outcome::Done)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let jobs = Jobs::open(directory.path().join("limits.db"))?;
    jobs.enqueue_many((0..30).map(|n| Import { account: n % 3 }))?;
    jobs.enqueue_many((0..25).map(|_| Call {}))?;
    // One that is not to wait: when a worker comes to it, the rate is used up.
    let in_vain = jobs.enqueue(NewJob::new(Call {}).on_busy(OnBusy::Discard))?;
    let waiting = jobs.count(&Filter::new().state(State::Blocked))?;
    println!("{waiting} of 56 jobs wait in line, and hold up nobody");

    let seen = Arc::new(Seen::default());
    let engine = Engine::builder(&jobs)
        .state(Arc::clone(&seen))
        .register::<Import>()
        .register::<Call>()
        .pool(Pool::new(["*"]).workers(8))
        .start()?;
    engine.run_until_empty()?;
    engine.stop(Duration::from_secs(5))?;

    let (at_once, calls) = (seen.most_at_once(), seen.most_calls());
    println!("30 imports of 3 accounts: {at_once} at once for an account at most");
    println!("25 calls: {calls} in a second at most");
    let discarded = jobs.get(in_vain)?;
    println!("the one that was not to wait: {}", discarded.reason.unwrap_or_default());

    assert_eq!(jobs.count(&Filter::new().state(State::Completed))?, 55);
    assert_eq!(discarded.state, State::Cancelled);
    assert_eq!(at_once, 2, "two could, and never more");
    // Eleven, as one that is late is made up for; a machine that stands still may add one.
    assert!(calls <= 12, "ten a second, evenly");
    Ok(())
}
