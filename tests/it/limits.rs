//! Limits: how many run at once by a key, how many start in a time, and who goes on when.

mod rates;
mod slots;
mod witness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use legwork::{
    Context, Engine, Job, JobId, JobOptions, JobResult, Jobs, Limit, ManualEngine, NewJob, OnBusy,
    Outcome, Pool, State,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{Place, SOON, place, stopped_clock};
use crate::scripted::{Act, Acts, acting};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn act(n: i64) -> NewJob {
    NewJob::new(Act { n })
}

/// Jobs on a stopped clock, and an engine that remembers which have run.
struct Ran {
    engine: ManualEngine,
    ran: Arc<Mutex<Vec<i64>>>,
}

impl Ran {
    fn at(place: &Place) -> Ran {
        let jobs = place.builder().clock(stopped_clock()).open().unwrap();
        let ran = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&ran);
        let script = move |act: &Act, _: &Context<Acts>| {
            all.lock().unwrap().push(act.n);
            Ok(Outcome::Done)
        };
        Ran { engine: acting(&jobs, script).manual().unwrap(), ran }
    }

    fn jobs(&self) -> &Jobs {
        self.engine.jobs()
    }

    /// What has run since it was last asked.
    fn take(&self) -> Vec<i64> {
        std::mem::take(&mut self.ran.lock().unwrap())
    }
}

fn state(jobs: &Jobs, id: JobId) -> State {
    jobs.get(id).unwrap().state
}

/// A job that waits for nobody.
const PASSES: i64 = 9;

/// An engine whose jobs say that they have begun, and go on when they are told to.
struct Held {
    engine: Engine,
    begun: crossbeam_channel::Receiver<i64>,
    go_on: crossbeam_channel::Sender<()>,
}

impl Held {
    fn at(jobs: &Jobs, workers: usize) -> Held {
        let (say, begun) = unbounded();
        let (go_on, told) = unbounded::<()>();
        let script = move |act: &Act, _: &Context<Acts>| {
            say.send(act.n).unwrap();
            if act.n != PASSES {
                told.recv_timeout(SOON).unwrap();
            }
            Ok(Outcome::Done)
        };
        let pool = Pool::new(["*"]).workers(workers);
        Held { engine: acting(jobs, script).pool(pool).start().unwrap(), begun, go_on }
    }

    fn next(&self) -> i64 {
        self.begun.recv_timeout(SOON).unwrap()
    }

    fn end(self, left: usize) {
        (0..left).for_each(|_| self.go_on.send(()).unwrap());
        self.engine.run_until_empty().unwrap();
        assert!(self.engine.stop(SOON).unwrap().is_empty());
    }
}

#[test]
fn a_job_that_is_not_to_wait_ends_as_cancelled_with_the_reason() {
    let place = place();
    let jobs = place.open();
    let held = Held::at(&jobs, 2);
    jobs.enqueue(act(1).limit("k", 1)).unwrap();
    assert_eq!(held.next(), 1);
    let busy = jobs.enqueue(act(2).limit("k", 1).on_busy(OnBusy::Discard)).unwrap();
    let ended = jobs.wait(busy, SOON).unwrap();
    assert_eq!(ended.state, State::Cancelled);
    assert!(ended.reason.as_deref().unwrap().contains("\"k\""), "{ended:?}");
    held.end(1);
}

#[test]
fn run_again_by_hand_it_goes_by_its_limits_as_before() {
    let place = place();
    let ran = Ran::at(&place);
    let jobs = ran.jobs();
    let first = jobs.enqueue(act(1).rate("r", 1, DAY)).unwrap();
    ran.engine.run_due().unwrap();
    jobs.retry(first).unwrap();
    assert_eq!(ran.engine.run_due().unwrap(), 0);
    assert_eq!(state(jobs, first), State::Blocked);
    ran.engine.advance(DAY);
    assert_eq!(ran.engine.run_due().unwrap(), 1);
    assert_eq!(ran.take(), [1, 1]);
}

#[test]
fn limits_of_a_kind_are_made_of_the_arguments_and_the_calls_number_wins() {
    #[derive(Serialize, Deserialize)]
    struct Import {
        account: i64,
    }
    impl Job for Import {
        const KIND: &'static str = "import";
        type State = ();
        fn options() -> JobOptions {
            JobOptions::new().limit(Limit::at_once("account", 1).by(["account"]))
        }
        fn perform(&self, _: &Context) -> JobResult {
            Ok(Outcome::Done)
        }
    }
    let place = place();
    let jobs = place.open();
    let import = |account| NewJob::new(Import { account });
    let of = |new: NewJob| state(&jobs, jobs.enqueue(new).unwrap());
    assert_eq!(of(import(7)), State::Ready);
    assert_eq!(of(import(7)), State::Blocked);
    assert_eq!(of(import(8)), State::Ready);
    assert_eq!(of(import(8).unlimited()), State::Ready);
    assert_eq!(of(import(8).limited(Limit::at_once("account", 9).by(["account"]))), State::Ready);
    // So are they for whoever enqueues by SQL or without the type.
    Engine::builder(&jobs).register::<Import>().manual().unwrap();
    let sql = "INSERT INTO legwork_enqueue (kind, args) VALUES ('import', '{\"account\": 7}')";
    let conn = place.connect();
    conn.execute(sql, []).unwrap();
    let id = conn.query_row("SELECT last_job FROM legwork_counter", [], |row| row.get(0)).unwrap();
    assert_eq!(jobs.get(JobId(id)).unwrap().limits, [Limit::at_once("account:7", 1)]);
    let known = jobs.known_options("import").unwrap().unwrap();
    let untyped = NewJob::of_kind("import", json!({ "account": 7 })).options(known);
    assert_eq!(of(untyped), State::Blocked);
    let bad = NewJob::of_kind("k", json!({})).limit("k", 0);
    assert!(matches!(jobs.enqueue(bad), Err(legwork::Error::Invalid { what: "limit", .. })));
}
