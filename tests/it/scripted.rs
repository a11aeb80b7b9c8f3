//! A job that does what the test's closure says.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use legwork::{
    Context, Engine, EngineBuilder, Failure, Job, JobOptions, JobResult, Jobs, Outcome, Retry,
};
use serde::{Deserialize, Serialize};

use crate::common::SOON;

type Script = dyn Fn(&Act, &Context<Acts>) -> JobResult + Send + Sync;
type GaveUp = dyn Fn(&Act, &Failure) + Send + Sync;

pub struct Acts {
    script: Box<Script>,
    gave_up: Box<GaveUp>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Act {
    pub n: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("rate limited")]
pub struct RateLimited;

#[derive(Debug, thiserror::Error)]
#[error("gone")]
pub struct Gone;

impl Job for Act {
    const KIND: &'static str = "act";
    type State = Acts;

    fn options() -> JobOptions {
        JobOptions::new().retry(
            Retry::fixed(Duration::from_secs(10))
                .jitter(0.0)
                .attempts(3)
                .on::<RateLimited>(Retry::fixed(Duration::from_secs(60)).jitter(0.0).attempts(2))
                .discard_on::<Gone>(),
        )
    }

    fn perform(&self, cx: &Context<Acts>) -> JobResult {
        (cx.state().script)(self, cx)
    }

    fn gave_up(&self, cx: &Context<Acts>, failure: &Failure) {
        (cx.state().gave_up)(self, failure);
    }
}

pub fn acting(
    jobs: &Jobs,
    script: impl Fn(&Act, &Context<Acts>) -> JobResult + Send + Sync + 'static,
) -> EngineBuilder<Acts> {
    acting_with_hook(jobs, script, |_, _| {})
}

/// An engine whose jobs say that they have begun, and complete once they are told to.
pub fn holding(jobs: &Jobs) -> (EngineBuilder<Acts>, Receiver<()>, Sender<()>) {
    let (started, has_started) = bounded(1);
    let (go, gone) = bounded::<()>(1);
    let engine = acting(jobs, move |_, _| {
        started.send(()).unwrap();
        gone.recv_timeout(SOON)?;
        Ok(Outcome::Done)
    });
    (engine, has_started, go)
}

pub fn acting_with_hook(
    jobs: &Jobs,
    script: impl Fn(&Act, &Context<Acts>) -> JobResult + Send + Sync + 'static,
    gave_up: impl Fn(&Act, &Failure) + Send + Sync + 'static,
) -> EngineBuilder<Acts> {
    Engine::builder(jobs)
        .state(Acts { script: Box::new(script), gave_up: Box::new(gave_up) })
        .register::<Act>()
}
