//! Unique jobs: a search index is brought up to date, however often it is asked for.
//!
//! `cargo run --example unique`

use std::time::Duration;

use legwork::{
    Conflict, Context, Engine, Enqueued, Job, JobOptions, JobResult, Jobs, NewJob, Outcome, Unique,
};
use serde::{Deserialize, Serialize};

/// Brings the index up to a version. Only the last one asked for counts.
#[derive(Serialize, Deserialize)]
struct Reindex {
    version: u32,
}

impl Job for Reindex {
    const KIND: &'static str = "reindex";
    type State = ();

    fn options() -> JobOptions {
        JobOptions::new().unique(Unique::by_key("reindex").on_conflict(Conflict::KeepLast))
    }

    fn perform(&self, cx: &Context) -> JobResult {
        println!("  the index is brought up to version {}", self.version);
        if self.version == 1 {
            // While this runs there is more to index, and more, and more.
            for version in 2..=100 {
                cx.jobs().enqueue(Reindex { version })?;
            }
            println!("  99 newer versions were asked for meanwhile");
        }
        Ok(Outcome::Done)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let jobs = Jobs::open(dir.path().join("unique.db"))?;
    let engine = Engine::builder(&jobs).register::<Reindex>().start()?;

    println!("keep the last: one runs, one waits");
    jobs.enqueue(Reindex { version: 1 })?;
    engine.run_until_empty()?;

    println!("one mail a day for each user");
    let daily = Unique::by_fields(["user"]).for_period(Duration::from_secs(86_400));
    let mail = |user, text| {
        let args = serde_json::json!({ "user": user, "text": text });
        NewJob::of_kind("mail", args).unique(daily.clone())
    };
    for done in jobs.enqueue_each([mail(1, "hello"), mail(2, "hello"), mail(1, "hello again")])? {
        match done {
            Enqueued::New(id) => println!("  job {id} is new"),
            other => println!("  job {} is there already", other.id()),
        }
    }

    engine.stop(Duration::from_secs(10))?;
    let ran = jobs.count(&legwork::Filter::new().kind("reindex"))?;
    assert_eq!(ran, 2, "version 1, and the newest");
    Ok(())
}
