//! Jobs by the calendar: an entry of the program, and one that is kept in the file.
//!
//! `cargo run --example cron`

use std::time::Duration;

use legwork::{Context, Cron, Engine, Event, Job, JobResult, Jobs, Missed, NewJob, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

/// A line about the state of things.
#[derive(Serialize, Deserialize)]
struct Digest {
    made_at: i64,
}

impl Job for Digest {
    const KIND: &'static str = "digest";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        println!("  digest, made {} s after midnight", self.made_at % 86_400);
        Ok(Outcome::Done)
    }
}

/// Work that somebody has put on the timetable, perhaps from another program.
#[derive(Serialize, Deserialize)]
struct CleanUp {
    directory: String,
}

impl Job for CleanUp {
    const KIND: &'static str = "clean_up";
    type State = ();

    fn perform(&self, _: &Context) -> JobResult {
        println!("  cleaning {}", self.directory);
        Ok(Outcome::Done)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let jobs = Jobs::open(directory.path().join("cron.db"))?;

    // Kept in the file: whichever program runs an engine on it enqueues these jobs.
    let night = Cron::new("30 3 * * 1-5").zone("Europe/Berlin").missed(Missed::Skip);
    jobs.schedule(
        "clean_up",
        night,
        NewJob::of_kind("clean_up", json!({ "directory": "/tmp/x" })),
    )?;

    // The program's own: the closure makes each job when its time has come.
    let now = || OffsetDateTime::now_utc().unix_timestamp();
    let engine = Engine::builder(&jobs)
        .register::<Digest>()
        .register::<CleanUp>()
        .cron("digest", "@every 1s", move || NewJob::new(Digest { made_at: now() }))
        .start()?;

    for entry in jobs.crons()? {
        let next = entry.next.map_or_else(|| "never".to_owned(), |next| next.to_string());
        println!("{}: {}; next {next}", entry.name, entry.words);
    }

    let events = jobs.events();
    println!("two ticks of the digest:");
    wait_for_jobs(&events, Digest::KIND, 2)?;

    jobs.pause_cron("digest")?;
    println!("the digest is paused; the clean-up is not due for hours, so ask for a run now:");
    jobs.run_cron("clean_up")?;
    wait_for_jobs(&events, CleanUp::KIND, 1)?;

    engine.stop(Duration::from_secs(5))?;
    Ok(())
}

/// Waits until so many jobs of a kind have finished.
fn wait_for_jobs(events: &legwork::Events, of: &str, mut count: usize) -> Result<(), &'static str> {
    while count > 0 {
        match events.recv_timeout(Duration::from_secs(30)) {
            Some(Event::Finished { kind: Some(kind), .. }) if kind == of => count -= 1,
            Some(_) => {}
            None => return Err("no job has finished for half a minute"),
        }
    }
    Ok(())
}
