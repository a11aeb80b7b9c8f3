//! Sessions of the command line, compared word by word: `sessions/*.trycmd`.
//!
//! Each runs in a directory of its own, in which a database `shop.db` stands that an app has worked
//! with (below), and `LEGWORK_DB` names a `jobs.db` that is not there yet. `terminal legwork ...`
//! answers as on a terminal of 80 columns (or of `$COLS`), everything else as in a script. stdout and stderr stand
//! together; `[..]` is what differs from run to run, and backslashes are shown as slashes.
//!
//! `TRYCMD=overwrite cargo test --all-features --test it cli::sessions` writes the answers anew, and
//! `trycmd=NAME` after a `--` runs one alone. Look at what it has changed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use legwork::{
    Chain, Clock, Context, Engine, Failure, Job, JobOptions, JobResult, Jobs, NewJob, Outcome,
    Retention, Retry, Scope,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

use super::LEGWORK;

const SESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/sessions");

#[test]
fn the_answers_of_every_command_are_these() {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("shop.db");
    shop_at(&shop);
    for entry in fs::read_dir(SESSIONS).unwrap() {
        let session = entry.unwrap().path();
        if session.extension().is_some_and(|extension| extension == "trycmd") {
            let here = dir.path().join(session.file_name().unwrap());
            // What is overwritten is the source.
            std::os::unix::fs::symlink(&session, &here).unwrap();
            let template = here.with_extension("in");
            fs::create_dir(&template).unwrap();
            fs::copy(&shop, template.join("shop.db")).unwrap();
            // With it a session runs in a copy of the template.
            fs::create_dir(here.with_extension("out")).unwrap();
        }
    }
    let programs = Path::new(LEGWORK).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    trycmd::TestCases::new()
        .register_bin("legwork", Path::new(LEGWORK))
        .register_bin("sh", Path::new("/bin/sh"))
        .register_bin("terminal", &*Path::new(SESSIONS).join("terminal"))
        .env("PATH", format!("{}:{SESSIONS}:{path}", programs.display()))
        .env("LEGWORK_DB", "jobs.db")
        .env("NO_COLOR", "")
        .timeout(crate::common::SOON)
        .case(dir.path().join("*.trycmd"))
        .run();
}

#[test]
fn every_command_has_a_session() {
    let sessions: String = fs::read_dir(SESSIONS)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for command in super::everywhere::all_commands(&crate::common::place()) {
        let typed = format!("legwork {command}");
        let is_there = sessions.lines().any(|line| line.starts_with("$ ") && line.contains(&typed));
        assert!(is_there, "no session has `{typed}`");
    }
}

#[derive(Serialize, Deserialize)]
struct WelcomeEmail {
    user_id: i64,
}

impl Job for WelcomeEmail {
    const KIND: &'static str = "welcome_email";
    type State = ();
    fn options() -> JobOptions {
        JobOptions::new().queue("mail").retry(Retry::fixed(Duration::from_secs(60)).attempts(3))
    }
    fn perform(&self, cx: &Context) -> JobResult {
        if self.user_id == 2 {
            return Err(Failure::msg("user 2 has no address").into_fatal());
        }
        let address = cx.step("look up", || Ok("a@example.org".to_owned()))?;
        cx.log(format!("to {address}"));
        if self.user_id == 3 {
            return Err(Failure::msg("the mail server does not answer"));
        }
        cx.progress(1, 1);
        cx.output(&json!({ "sent": true }))?;
        Ok(Outcome::Done)
    }
}

/// Jobs in all states but `running`, which needs somebody who runs them. Everything was done a while
/// ago, so that how long ago does not change during a session.
pub fn shop_at(path: &Path) {
    let ago = time::Duration::days(3) + time::Duration::hours(4) + time::Duration::minutes(30);
    let then = (OffsetDateTime::now_utc() - ago).replace_nanosecond(0).unwrap();
    let jobs = Jobs::builder(path).clock(Clock::stopped(then)).open().unwrap();
    let engine = Engine::builder(&jobs).register::<WelcomeEmail>().manual().unwrap();
    let email = |user_id| NewJob::new(WelcomeEmail { user_id });
    jobs.enqueue(email(1).tag("eu").meta("request", "r-1").unique_key("user-1")).unwrap();
    jobs.enqueue(email(2)).unwrap();
    jobs.enqueue(email(3)).unwrap();
    engine.run_due().unwrap();
    jobs.close_gate("online").unwrap();
    jobs.enqueue(email(4).delay(Duration::from_secs(1000 * 86_400))).unwrap();
    jobs.enqueue(email(5).gate("online")).unwrap();
    jobs.cancel(jobs.enqueue(email(6)).unwrap()).unwrap();
    let report = NewJob::of_kind("report", json!({ "month": "2026-04", "format": "pdf" }));
    let report = report.priority(5).limit("reports", 1).tag("eu").tag("monthly");
    let retry = Retry::exponential(Duration::from_secs(30)).cap(Duration::from_secs(3600));
    let report = report.retry(retry.attempts(8)).timeout(Duration::from_secs(600));
    let keep = Retention::default().failed(Duration::from_secs(90 * 86_400));
    jobs.enqueue(report.retention(keep)).unwrap();
    let step = |step: &str| NewJob::of_kind("step", json!({ "name": step }));
    let chain = Chain::new("nightly").property("host", "a").then(step("dump")).then(step("copy"));
    jobs.enqueue_flow(chain).unwrap();
    jobs.pause(Scope::Queue("low".to_owned())).unwrap();
    rotate(&jobs);
    drop((engine, jobs));
}

#[cfg(feature = "cron")]
fn rotate(jobs: &Jobs) {
    let every = legwork::Cron::new("@every 1000d");
    jobs.schedule("rotate", every, NewJob::of_kind("rotate", json!({}))).unwrap();
}

#[cfg(not(feature = "cron"))]
fn rotate(_: &Jobs) {}
