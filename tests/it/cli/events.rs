//! `legwork events -f`: what happens, as lines of JSON.

use legwork::Engine;
use rustix::process::Signal;
use serde_json::Value;

use super::logs::Live;
use super::until;
use crate::common::{SOON, place};
use crate::listen::Short;

#[test]
fn events_of_every_process_are_followed_until_a_signal() {
    let place = place();
    place.line("status").coded(5);
    let first = place.line("run -- true").id();
    let _worker = place.live_worker("work --no-cron");
    place.line(&format!("wait {first} --timeout 60s")).good();

    let events = Live::start(&place, "events -f");
    assert!(events.error_line().starts_with("listening"));
    let id = place.line("run -- false").id();
    let of_job = |wanted: &str| -> Value {
        loop {
            let event = events.json();
            if event["event"] == wanted {
                return event;
            }
        }
    };
    let enqueued = of_job("enqueued");
    assert_eq!((&enqueued["job"], &enqueued["kind"]), (&id.0.into(), &"legwork.shell".into()));
    assert!(enqueued["at"].is_string() && enqueued["process"].is_null(), "{enqueued}");
    let failed = of_job("failed");
    assert_eq!((&failed["job"], &failed["attempts"]), (&id.0.into(), &1.into()));
    assert!(failed["process"].is_number() && failed["error"] == "exit code 1", "{failed}");

    events.signal(Signal::INT);
    assert_eq!(events.end().0, 130);
    let ears = || {
        let side = std::fs::read_dir(place.file("test.db-legwork")).unwrap();
        side.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == "ear"))
            .count()
    };
    assert_eq!(ears(), 0);

    // One that is killed leaves its ear; it goes when something is said to it.
    let events = Live::start(&place, "events -f");
    events.error_line();
    events.signal(Signal::KILL);
    drop(events);
    assert_eq!(ears(), 1);
    place.line("run -- true").id();
    until("the dead ear is taken down", || ears() == 0);
}

#[test]
fn events_can_be_chosen_and_without_following_there_are_none() {
    let place = place();
    place.line("enqueue a").id();
    let refused = place.line("events").coded(2);
    assert!(refused.stderr.contains("legwork events -f"), "{refused:?}");
    let events = Live::start(&place, "events -f --kind b --kind c --event enqueued");
    events.error_line();
    for kind in ["a", "b", "a", "c"] {
        place.line(&format!("enqueue {kind}")).id();
    }
    assert_eq!(events.json()["kind"], "b");
    assert_eq!(events.json()["kind"], "c");
}

#[test]
fn one_who_does_not_listen_holds_up_nobody_and_is_told_what_was_missed() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs).register::<Short>().start().unwrap();
    let events = Live::start(&place, "events -f --event missed --event finished");
    events.error_line();
    events.signal(Signal::STOP);
    // Each of them is at least two events, and far more than a socket holds.
    jobs.enqueue_many((0..20_000).map(|_| Short)).unwrap();
    engine.run_until_empty().unwrap();
    events.signal(Signal::CONT);
    let told = loop {
        let event = events.json();
        if event["event"] == "missed" {
            break event;
        }
    };
    assert!(told["count"].as_u64().unwrap() > 1_000, "{told}");
    engine.stop(SOON).unwrap();
}
