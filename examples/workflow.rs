//! Flows: an order whose card is declined at first, and a search whose jobs add others to it.
//!
//! `cargo run --example workflow`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use legwork::{
    Batch, Context, Engine, Failure, Filter, FlowState, Job, JobResult, Jobs, Outcome, Workflow,
};
use serde::{Deserialize, Serialize};

const SOON: Duration = Duration::from_secs(30);

/// What the jobs share: whether the card is good.
type Card = Arc<AtomicBool>;

#[derive(Serialize, Deserialize)]
struct Charge {
    cents: u32,
}

impl Job for Charge {
    const KIND: &'static str = "charge";
    type State = Card;

    fn perform(&self, cx: &Context<Card>) -> JobResult {
        if !cx.state().load(Ordering::Relaxed) {
            // Another attempt would not help.
            return Err(Failure::msg("the card is declined").into_fatal());
        }
        println!("  charged");
        cx.output(&self.cents)?;
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Receipt {}

impl Job for Receipt {
    const KIND: &'static str = "receipt";
    type State = Card;

    fn perform(&self, cx: &Context<Card>) -> JobResult {
        let cents: u32 =
            cx.parent_output("charge")?.ok_or_else(|| Failure::msg("nothing was paid"))?;
        println!("  wrote a receipt");
        cx.output(&format!("a receipt for {}.{:02}", cents / 100, cents % 100))?;
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Pack {
    books: u32,
}

impl Job for Pack {
    const KIND: &'static str = "pack";
    type State = Card;

    fn perform(&self, cx: &Context<Card>) -> JobResult {
        println!("  packed");
        cx.output(&(self.books * 400))?;
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Ship {}

impl Job for Ship {
    const KIND: &'static str = "ship";
    type State = Card;

    fn perform(&self, cx: &Context<Card>) -> JobResult {
        let missing = || Failure::msg("a parent has put out nothing");
        let receipt: String = cx.parent_output("receipt")?.ok_or_else(missing)?;
        let grams: u32 = cx.parent_output("pack")?.ok_or_else(missing)?;
        cx.output(&format!("{grams} g and {receipt}"))?;
        Ok(Outcome::Done)
    }
}

/// Finds two more folders in each, down to a depth.
#[derive(Serialize, Deserialize)]
struct Folder {
    depth: u32,
}

impl Job for Folder {
    const KIND: &'static str = "folder";
    type State = Card;

    fn perform(&self, cx: &Context<Card>) -> JobResult {
        if let Some(depth) = self.depth.checked_sub(1) {
            cx.enqueue_member(Folder { depth })?;
            cx.enqueue_member(Folder { depth })?;
        }
        Ok(Outcome::Done)
    }
}

/// A callback: how a flow has ended.
#[derive(Serialize, Deserialize)]
struct Report {}

impl Job for Report {
    const KIND: &'static str = "report";
    type State = Card;

    fn perform(&self, cx: &Context<Card>) -> JobResult {
        let id = cx.flow()?.ok_or_else(|| Failure::msg("it is of no flow"))?;
        let flow = cx.jobs().flow(id)?;
        let report =
            format!("{} {}, {} of {}", flow.name, flow.state, flow.completed, flow.members);
        println!("  report: {report}");
        cx.output(&report)?;
        Ok(Outcome::Done)
    }
}

fn holds(so: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if so { Ok(()) } else { Err(format!("this did not hold: {what}").into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let jobs = Jobs::open(directory.path().join("workflow.db"))?;
    let card = Card::default();
    let engine = Engine::builder(&jobs)
        .state(Arc::clone(&card))
        .register::<Charge>()
        .register::<Receipt>()
        .register::<Pack>()
        .register::<Ship>()
        .register::<Folder>()
        .register::<Report>()
        .start()?;

    println!("an order: charge, then a receipt and a parcel, and with both the shipment");
    let mut order = Workflow::new("order").on_failure(Report {}).on_success(Report {});
    let charge = order.add(Charge { cents: 1999 }, []);
    let receipt = order.add(Receipt {}, [charge]);
    let pack = order.add(Pack { books: 3 }, [charge]);
    let ship = order.add(Ship {}, [receipt, pack]);
    let order = jobs.enqueue_flow(order)?;
    let ended = jobs.wait_flow(order.id, SOON)?;
    engine.run_until_empty()?;
    for job in jobs.list(&Filter::new().flow(order.id), None, 10)?.jobs {
        println!("  {} is {}: {}", job.kind, job.state, job.reason.unwrap_or_default());
    }
    holds(ended.state == FlowState::Failed, "one that has failed makes it a failure")?;
    holds((ended.failed, ended.cancelled) == (1, 3), "nothing runs without the payment")?;

    println!("the card is good now, and the charge is tried again");
    card.store(true, Ordering::Relaxed);
    let again = jobs.retry_flow(order.id)?;
    holds(again.changed == 1, "only what has failed itself is run again")?;
    let ended = jobs.wait_flow(order.id, SOON)?;
    holds(ended.state == FlowState::Completed, "what the failure had cancelled came back")?;
    let shipped: Option<String> = jobs.output(order.job(ship).ok_or("no such member")?)?;
    println!("  shipped: {}", shipped.as_deref().unwrap_or_default());
    let expected = "1200 g and a receipt for 19.99";
    holds(shipped.as_deref() == Some(expected), "children read what their parents put out")?;

    println!("a search: each folder adds those inside it");
    let search = Batch::new("search").add(Folder { depth: 2 }).on_finish(Report {});
    let search = jobs.enqueue_flow(search)?;
    let ended = jobs.wait_flow(search.id, SOON)?;
    holds(ended.completed == 7, "one, two and four: it ends with the last one added")?;

    engine.run_until_empty()?;
    engine.stop(Duration::from_secs(5))?;
    let mut reports = Vec::new();
    for job in jobs.list(&Filter::new().kind("report"), None, 10)?.jobs {
        reports.extend(jobs.output::<String>(job.id)?);
    }
    reports.sort();
    let expected = ["order completed, 4 of 4", "order failed, 0 of 4", "search completed, 7 of 7"];
    holds(reports == expected, "each end calls back once")
}
