//! `legwork check`, and the options of kinds that `legwork enqueue` does not know itself.

use std::time::Duration;

use legwork::{Context, Engine, Job, JobOptions, JobResult, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::place;

#[derive(Serialize, Deserialize)]
struct Mail {}

impl Job for Mail {
    const KIND: &'static str = "mail";
    type State = ();
    fn options() -> JobOptions {
        JobOptions::new().queue("out").priority(4).tag("post").delay(Duration::from_secs(900))
    }
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

#[test]
fn check_refuses_while_a_kind_waits_that_nobody_knows() {
    let place = place();
    place.line("check").coded(5);
    // The command line's own kind is known before any worker has run.
    place.line("run -- true").good();
    assert_eq!(place.line("check").good(), "");
    let id = place.line("enqueue mail").id();
    let refused = place.line("check").coded(4);
    assert_eq!(refused.stdout, format!("unknown kind\tmail\t1\t{id}\n"));
    let refused = place.line("check --json").coded(4).json();
    assert_eq!(refused["ok"], false);
    assert_eq!(
        refused["unknown"],
        json!([{ "kind": "mail", "count": 1, "ids": [id], "error": null }])
    );
    Engine::builder(&place.open()).register::<Mail>().manual().unwrap();
    assert_eq!(place.line("check --json").coded(0).json()["ok"], true);
}

#[test]
fn check_refuses_while_a_cron_entry_cannot_fire() {
    let place = place();
    place.args(["cron", "add", "tidy", "@daily", "legwork.shell", r#"{"argv":["true"]}"#]).good();
    assert_eq!(place.line("check").good(), "");
    place.connect().execute("UPDATE legwork_cron SET zone = 'Mars/Olympus'", []).unwrap();
    let refused = place.line("check").coded(4).stdout;
    assert!(refused.starts_with("cron entry: ") && refused.contains("\ttidy\t"), "{refused}");
    let report = place.line("check --json").coded(4).json();
    assert_eq!((&report["ok"], &report["crons"][0]["name"]), (&json!(false), &json!("tidy")));
}

#[test]
fn enqueue_takes_what_is_not_given_from_the_kind() {
    let place = place();
    Engine::builder(&place.open()).register::<Mail>().manual().unwrap();
    let job = place.show(place.line("enqueue mail").id())["job"].take();
    assert_eq!(
        (&job["queue"], &job["priority"], &job["state"]),
        (&json!("out"), &json!(4), &json!("scheduled"))
    );
    assert_eq!(job["tags"], json!(["post"]));
    let id = place.line("enqueue mail --queue here --priority 1 --in 0s --tag mine").id();
    let job = place.show(id)["job"].take();
    assert_eq!(
        (&job["queue"], &job["priority"], &job["state"]),
        (&json!("here"), &json!(1), &json!("ready"))
    );
    assert_eq!(job["tags"], json!(["mine", "post"]));
}
