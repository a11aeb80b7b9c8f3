//! Webhooks over HTTP to two hosts that fail now and then: each host gets ten requests a second at most, as
//! all of its webhooks together; what fails is tried again, later and later; a host that says when to
//! come again (429, `Retry-After`) is believed, and that uses no attempt.
//!
//! `cargo run --example webhooks`
//!
//! It ends by itself, and fails if anything was not as it says here.

mod receiver;

use std::error::Error;
use std::time::{Duration, Instant};

use legwork::{
    Context, Engine, Failure, Filter, Job, JobOptions, JobResult, Jobs, Limit, Outcome, Pool,
    Retry, State,
};
use serde::{Deserialize, Serialize};
use ureq::Agent;

use crate::receiver::{Delivery, Receiver};

/// So many for each host.
const WEBHOOKS: u32 = 24;
const A_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Webhook {
    host: String,
    number: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("the host answers {0}")]
struct Refused(u16);

impl Job for Webhook {
    const KIND: &'static str = "webhook";
    type State = Agent;

    fn options() -> JobOptions {
        JobOptions::new()
            .limit(Limit::rate("webhooks", A_SECOND, SECOND).by(["host"]))
            .retry(Retry::exponential(Duration::from_millis(200)).attempts(6))
    }

    fn perform(&self, cx: &Context<Agent>) -> JobResult {
        // The number is the same in each attempt, so that the host can tell what it has already.
        let answer = cx
            .state()
            .post(format!("http://{}/hook", self.host))
            .header("webhook-number", self.number.to_string())
            .send(format!(r#"{{"event":"order.paid","number":{}}}"#, self.number))?;
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|text| text.to_str().ok()?.parse().ok());
        match (answer.status().as_u16(), retry_after) {
            (200..=299, _) => Ok(Outcome::Done),
            (429 | 503, Some(seconds)) => Ok(Outcome::snooze(Duration::from_secs(seconds))),
            // Nobody is there any more who wants it.
            (410, _) => Err(Failure::from(Refused(410)).into_fatal()),
            (status, _) => Err(Refused(status).into()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let jobs = Jobs::open(directory.path().join("webhooks.db"))?;
    let hosts = [Receiver::start()?, Receiver::start()?];
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        // An answer is an answer; what it means is decided above.
        .http_status_as_error(false)
        .build()
        .into();
    let engine = Engine::builder(&jobs)
        .state(agent)
        .register::<Webhook>()
        .pool(Pool::new(["*"]).workers(4))
        .start()?;

    let started = Instant::now();
    let webhook = |number| hosts.iter().map(move |to| Webhook { host: to.host(), number });
    let ids = jobs.enqueue_many((1..=WEBHOOKS).flat_map(webhook))?;
    for &id in &ids {
        jobs.wait(id, Duration::from_secs(60))?;
    }
    println!("{} webhooks to {} hosts in {:.1?}", ids.len(), hosts.len(), started.elapsed());
    engine.stop(Duration::from_secs(5))?;

    hosts.iter().try_for_each(told)?;
    let in_state = |state| jobs.count(&Filter::new().kind(Webhook::KIND).state(state));
    let (completed, failed) = (in_state(State::Completed)?, in_state(State::Failed)?);
    println!("{completed} jobs completed, {failed} failed for good");
    let gone = 2 * u64::from(WEBHOOKS / 11);
    holds(failed == gone, "only what nobody wants any more fails")?;
    holds(completed == ids.len() as u64 - gone, "everything else is delivered")
}

/// Says what a host has seen, and whether that is what it was promised.
fn told(host: &Receiver) -> Result<(), Box<dyn Error>> {
    let book = host.book();
    let answered = |status| book.values().map(|delivery| delivery.answered(status)).sum::<usize>();
    let most = most_in_a_second(book.values());
    println!(
        "{}: {} taken, {} told to wait, {} failed, {} gone; {most} requests in a second at most",
        host.host(),
        answered(200),
        answered(429),
        answered(503),
        answered(410),
    );
    holds(answered(429) > 0 && answered(503) > 0, "the host has made it hard")?;
    holds(book.len() == WEBHOOKS as usize, "every webhook has come")?;
    holds(book.values().all(|one| one.answered(200) <= 1), "none is taken twice")?;
    holds(!book.values().any(Delivery::came_too_soon), "who is told to wait waits")?;
    // One more than ten, as one that is late is made up for; a way that is not always as long may add one.
    holds(most <= A_SECOND as usize + 2, "no host gets more than it should")
}

fn most_in_a_second<'a>(deliveries: impl Iterator<Item = &'a Delivery>) -> usize {
    let came: Vec<Instant> =
        deliveries.flat_map(|one| one.requests.iter().map(|(came, _)| *came)).collect();
    let from =
        |from: &Instant| came.iter().filter(|at| **at >= *from && **at - *from < SECOND).count();
    came.iter().map(from).max().unwrap_or(0)
}

fn holds(so: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if so { Ok(()) } else { Err(format!("this did not hold: {what}").into()) }
}
