//! The smallest program: one job, enqueued, run and waited for.
//!
//! `cargo run --example hello`

use std::time::Duration;

use legwork::{Context, Engine, Job, JobResult, Jobs, Outcome};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Job for Greet {
    const KIND: &'static str = "greet";
    type State = ();

    fn perform(&self, cx: &Context) -> JobResult {
        let greeting = format!("Hello, {}!", self.name);
        cx.output(&greeting)?;
        Ok(Outcome::Done)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let jobs = Jobs::open(directory.path().join("hello.db"))?;
    let engine = Engine::builder(&jobs).register::<Greet>().start()?;

    let id = jobs.enqueue(Greet { name: "world".into() })?;
    println!("job {id} is enqueued: from here on it survives a crash");

    let job = jobs.wait(id, Duration::from_secs(30))?;
    let greeting: Option<String> = jobs.output(id)?;
    println!("job {id} is {}: {}", job.state, greeting.unwrap_or_default());

    engine.stop(Duration::from_secs(5))?;
    Ok(())
}
