//! `legwork flows`: lists, shows, cancels and retries what programs have enqueued.

use legwork::{Chain, NewJob};
use serde_json::json;

use crate::common::place;

fn shell(command: &str) -> NewJob {
    NewJob::of_kind("legwork.shell", json!({ "argv": [command] })).retry(legwork::Retry::none())
}

#[test]
fn a_flow_is_listed_shown_retried_and_cancelled() {
    let place = place();
    place.open();
    place.line("flows list").coded(3);
    let chain =
        Chain::new("nightly 1").property("host", "a").then(shell("false")).then(shell("true"));
    let flow = place.open().enqueue_flow(chain).unwrap();
    let id = flow.id;
    let row = |state: &str, rest: &str| format!("{id}\tchain\tnightly 1\t{state}\t2\t{rest}\t");
    let listed = place.line("flows list").good();
    assert!(listed.starts_with(&row("running", "0\t0\t0")), "{listed}");
    place.line("work --until-empty").coded(1);
    let listed = place.line("flows list").good();
    assert!(listed.starts_with(&row("failed", "0\t1\t1")), "{listed}");
    let shown = place.line(&format!("flows show {id} --json")).json();
    assert_eq!(shown["flow"]["state"], "failed");
    assert_eq!(shown["flow"]["properties"], json!({ "host": "a" }));
    assert_eq!(shown["jobs"].as_array().unwrap().len(), 2);
    let second = place.line(&format!("retry {}", flow.members[1])).coded(4);
    assert!(second.stderr.contains("waits for job"), "{second:?}");
    assert_eq!(place.line(&format!("flows retry {id}")).good(), "1\t0\n");
    let shown = place.line(&format!("flows show {id}")).good();
    assert_eq!(
        shown,
        format!(
            "{}\tlegwork.shell\tblocked\t1\n{}\tlegwork.shell\tready\t\n",
            flow.members[1], flow.members[0]
        )
    );
    assert_eq!(place.line(&format!("flows cancel {id} --json")).json()["changed"], 2);
    assert_eq!(place.line("flows list --json").json()["flows"][0]["state"], "cancelled");
    assert_eq!(place.line(&format!("list flow:{id}")).good().lines().count(), 2);
    place.line("list flow:x").coded(2);
    place.line("flows show 4711").coded(3);
}
