//! What `failures`, `queues`, `workers`, `stats` and `health` answer; queries by error, argument and text.

use legwork::Scope;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{pids, until};
use crate::common::place;

#[test]
fn a_query_finds_by_id_error_argument_and_text() {
    let place = place();
    place
        .args(["enqueue", "mail", r#"{"user_id":7,"to":{"name":"Anna B"}}"#, "--tag", "eu"])
        .good();
    place.args(["enqueue", "mail", r#"{"user_id":8,"note":"50% off_now"}"#]).good();
    place.script("", "echo Time is out >&2; exit 3");
    place.work().coded(1);
    let ids = |query: &[&str]| {
        let found = place.args(["list"].iter().chain(query));
        let ids: Vec<&str> =
            found.stdout.lines().map(|line| line.split('\t').next().unwrap()).collect();
        ids.join(" ")
    };
    assert_eq!(ids(&["id:1", "id:3"]), "3 1");
    assert_eq!(ids(&["args.user_id:7"]), "1");
    assert_eq!(ids(&["args.to.name:\"Anna B\""]), "1");
    assert_eq!(ids(&["error:\"time is OUT\""]), "3");
    assert_eq!(ids(&["failed:1h"]), "3");
    assert_eq!(ids(&["\"time is out\""]), "3");
    assert_eq!(ids(&["anna", "EU"]), "1");
    assert_eq!(ids(&["50%"]), "2");
    assert_eq!(ids(&["50_"]), "");
    assert_eq!(ids(&["kind:mail anna"]), "1");
    let deep = format!("args.{}:1", vec!["a"; 1_000].join("."));
    let long = format!("args.{}:1", "a".repeat(100_000));
    assert!(place.args(["list", &deep]).coded(2).stderr.contains("more than 16 names"));
    place.args(["list", &long]).coded(3);
    place.args(["list", "args.\"a.'[0]$\":x') OR 1=1 --"]).coded(3);
    let ended = place.args(["list", "\"two"]).coded(2);
    assert!(ended.stderr.contains("not closed"), "{ended:?}");
    let ended = place.args(["list", "colour:red"]).coded(2);
    assert!(ended.stderr.contains("error:, args.PATH:"), "{ended:?}");

    assert_eq!(place.args(["cancel", "--yes", "--filter", "args.user_id:8"]).good(), "1\t1\t0\n");
    assert_eq!(place.args(["retry", "--yes", "--filter", "error:time"]).good(), "1\t1\t0\n");
    place.args(["cancel", "--yes", "--filter", "args.user_id:9"]).coded(3);
}

#[test]
fn failures_answer_to_people_in_tsv_and_in_json() {
    let place = place();
    place.line("enqueue mail").good();
    let ended = place.line("failures").coded(3);
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", "nothing has failed that matches\n"));
    for seconds in [12, 13] {
        place.script("", &format!("echo timed out after {seconds}s >&2; exit 1"));
    }
    place.script("", "exit 7");
    place.work().coded(1);

    let tsv = place.line("failures").good();
    let rows: Vec<Vec<&str>> = tsv.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..3], ["2", "legwork.shell", "exit code 1: timed out after #s"]);
    assert!(rows[0][3].ends_with('Z') && rows[0][4].ends_with('Z'), "{tsv}");
    assert!(["3,2", "2,3"].contains(&rows[0][5]), "{tsv}");
    assert_eq!(rows[1][..3], ["1", "legwork.shell", "exit code 7"]);
    assert_eq!(rows[1][6], "exit code 7");

    let found = place.line("failures --json --limit 1 --since 1h kind:legwork.shell").json();
    let group = &found["failures"][0];
    assert_eq!((&group["count"], found["failures"].as_array().unwrap().len()), (&json!(2), 1));
    assert_eq!(group["newest"], json!([3, 2]));
    assert!(group["last"].as_str().unwrap().ends_with('Z'), "{group}");

    let table = place.on_terminal("failures --color never", "").good();
    assert!(table.contains("COUNT  KIND"), "{table}");
    assert!(table.contains("exit code 1: timed out after #s"), "{table}");
    place.line("failures kind:none").coded(3);
    place.line("failures --since 2020-01-01T00:00:00Z kind:legwork.shell").good();
    assert!(place.line("failures state:failed").coded(2).stderr.contains("--retrying"));
    place.line("failures --since soon").coded(2);
}

#[test]
fn failures_take_in_what_will_be_tried_again_if_asked() {
    let place = place();
    let id = place.script("--attempts 2", "exit 9");
    let worker = place.worker("work");
    until("the first attempt has failed", || place.state(id) == "retrying");
    drop(worker);
    place.line("failures").coded(3);
    let tsv = place.line("failures --retrying").good();
    assert!(tsv.starts_with("1\tlegwork.shell\texit code 9\t"), "{tsv}");
}

#[test]
fn queues_tell_how_much_waits_and_for_what() {
    let place = place();
    let jobs = place.open();
    assert_eq!(place.line("queues").coded(3).stderr, "no job waits in any queue\n");
    place.line("enqueue mail --queue high").good();
    place.line("enqueue mail --queue high --gate online").good();
    place.line("enqueue mail --queue low --in 1h").good();
    jobs.close_gate("online").unwrap();
    jobs.pause(Scope::Queue("idle".into())).unwrap();

    let ended = place.line("queues --json");
    assert!(ended.stderr.contains("no worker is running; start `legwork work`"), "{ended:?}");
    let queues = ended.json()["queues"].clone();
    let names: Vec<_> = queues.as_array().unwrap().iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["high", "idle", "low"]);
    assert_eq!(queues[0]["states"]["ready"], 1);
    assert_eq!(queues[0]["states"]["blocked"], 1);
    assert_eq!(queues[0]["gates"], json!([{ "name": "online", "jobs": 1 }]));
    assert!(queues[0]["oldest_ready_seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!((&queues[0]["paused"], &queues[1]["paused"]), (&json!(false), &json!(true)));
    assert_eq!(queues[0]["served"], false);
    assert_eq!(queues[2]["oldest_ready_seconds"], json!(null));

    let tsv = place.line("queues").good();
    let rows: Vec<Vec<&str>> = tsv.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..6], ["high", "1", "0", "0", "0", "1"]);
    assert_eq!(rows[0][7..], ["active", "unserved", "online"]);
    assert_eq!(rows[1], ["idle", "0", "0", "0", "0", "0", "", "paused", "unserved", ""]);
    let table = place.on_terminal("queues", "").good();
    assert!(table.contains("QUEUE  READY  RUNNING  SCHEDULED"), "{table}");
    assert!(table.contains("gate online, a worker") && table.contains("paused"), "{table}");

    let worker = place.worker("work -q low");
    until("the worker is seen", || {
        place.line("queues --json").json()["queues"][2]["served"] == true
    });
    let ended = place.line("queues");
    assert!(ended.stderr.starts_with("no live worker serves queue high; start"), "{ended:?}");
    assert!(place.line("status").stderr.contains("no live worker serves queue high"));
    jobs.pause(Scope::Queue("high".into())).unwrap();
    assert_eq!(place.line("queues").stderr, "");
    drop(worker);
}

#[test]
fn workers_tell_who_runs_what_and_who_is_dead() {
    let place = place();
    place.line("enqueue mail").good();
    let ended = place.line("workers").coded(3);
    assert_eq!(
        (&*ended.stdout, &*ended.stderr),
        ("", "no worker is running; start `legwork work`\n")
    );
    let file = place.file("pid");
    let id = place.script("--queue low", &format!("echo $$ > {}; exec sleep 120", file.display()));
    let worker = place.worker("work -q high,low:2 -q tmp*:1 --every 1m");
    let command = pids(&file, 1)[0];
    until("both pools are known", || {
        let pools = place.line("workers --json").json()["workers"][0]["pools"].clone();
        (&pools[0]["workers"], &pools[1]["workers"]) == (&json!(2), &json!(1))
    });

    let found = place.line("workers --json").json()["workers"][0].clone();
    assert_eq!((&found["alive"], &found["held"]), (&json!(true), &json!(1)));
    let pool = json!({ "name": "high,low:2", "queues": ["high", "low"], "weights": [], "workers": 2, "every_seconds": 60.0 });
    assert_eq!(found["pools"][0], pool);
    let job = &found["running"][0];
    assert_eq!((&job["id"], &job["kind"]), (&json!(id), &json!("legwork.shell")));
    assert_eq!((&job["attempt"], &job["progress"]), (&json!(1), &json!(null)));
    assert!(job["seconds"].as_f64().unwrap() >= 0.0, "{job}");
    assert!(job["started_at"].as_str().unwrap().ends_with('Z'), "{job}");
    let (instance, pid) = (found["id"].clone(), found["pid"].clone());
    assert_eq!(place.line("status --json").json()["processes"][0]["pools"][0], pool);

    let tsv = place.line("workers").good();
    let rows: Vec<&str> = tsv.lines().collect();
    assert!(rows[0].starts_with(&format!("process\t{instance}\t{pid}\t20")), "{tsv}");
    assert!(rows[0].ends_with("Z\ttrue\t1"), "{tsv}");
    assert_eq!(rows[1], format!("pool\t{instance}\thigh,low:2\thigh,low\t2\t60"));
    assert_eq!(rows[2], format!("pool\t{instance}\ttmp*:1\ttmp*\t1\t60"));
    assert_eq!(rows[3], format!("kind\t{instance}\tlegwork.shell"));
    assert!(
        rows[4].starts_with(&format!("job\t{instance}\t{id}\tlegwork.shell\tlow\t1\t20")),
        "{tsv}"
    );
    let table = place.on_terminal("workers", "").good();
    assert!(table.contains(&format!("instance {instance}: process {pid}, started")), "{table}");
    assert!(table.contains("3 workers, 1 running"), "{table}");
    assert!(table.contains("  pool high,low:2: high low; 2 workers, every 1m"), "{table}");
    assert!(table.contains("JOB  KIND           QUEUE  ATTEMPT  FOR"), "{table}");

    drop(worker);
    let ended = place.line("workers --json");
    assert!(ended.stderr.contains("no worker is running"), "{ended:?}");
    let found = ended.json()["workers"][0].clone();
    assert_eq!((&found["pid"], &found["alive"], &found["held"]), (&pid, &json!(false), &json!(1)));
    assert_eq!(found["running"][0]["id"], json!(id));
    let table = place.on_terminal("workers", "").good();
    let dead = format!("process {pid} is dead and holds 1 job; the next worker takes over");
    assert!(table.contains(&dead), "{table}");
    kill_process(Pid::from_raw(command as i32).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn stats_tell_how_many_and_how_long() {
    let place = place();
    place.open();
    assert!(place.on_terminal("stats", "").good().contains("no jobs yet"));
    place.script("", "exit 0");
    place.script("", "exit 1");
    place.line("enqueue mail").good();
    place.work().coded(1);

    let stats = place.line("stats --json").json();
    assert_eq!((&stats["states"]["completed"], &stats["states"]["ready"]), (&json!(1), &json!(1)));
    let kind = &stats["kinds"][0];
    assert_eq!(
        (&kind["name"], &kind["finished"], &kind["failed"]),
        (&json!("legwork.shell"), &json!(2), &json!(1))
    );
    for span in ["wait_seconds", "run_seconds"] {
        for point in ["p50", "p95", "p99"] {
            assert!(kind[span][point].as_f64().unwrap() >= 0.0, "{kind}");
        }
    }
    let tsv = place.line("stats").good();
    assert!(
        tsv.starts_with("state\tscheduled\t0\n") && tsv.contains("state\tfailed\t1\n"),
        "{tsv}"
    );
    let row: Vec<&str> = tsv.lines().last().unwrap().split('\t').collect();
    assert_eq!((row.len(), &row[..4]), (11, &["kind", "legwork.shell", "2", "1"][..]));
    let table = place.on_terminal("stats", "").good();
    assert!(table.contains("1 ready, 1 completed, 1 failed"), "{table}");
    assert!(table.contains("KIND           FINISHED  FAILED  A "), "{table}");
}

#[test]
fn health_tells_a_probe_by_its_exit_code() {
    let place = place();
    let jobs = place.open();
    let ended = place.line("health").coded(69);
    assert_eq!(ended.stdout, "no worker\tno live process has workers\n");
    assert!(ended.stderr.contains("start `legwork work`"), "{ended:?}");
    // A dead one is none, and one that waits for nothing is well.
    let worker = place.worker("work -q high:2");
    until("the worker is seen", || place.line("health").code == 0);
    assert_eq!(place.line("health").good(), "ok\t1 process with 2 workers; nothing is ready\n");

    // No worker knows this kind; it is served by its queue all the same.
    place.line("enqueue mail --queue high").good();
    place.line("enqueue mail --queue low").good();
    place.line("health --max-age 1h").good();
    let ended = place.line("health");
    assert!(
        ended.stdout.starts_with("ok\t1 process with 2 workers; the oldest ready"),
        "{ended:?}"
    );
    assert_eq!(ended.stderr, "no live worker serves queue low\n");
    let ended = place.line("health --max-age 0s --json").coded(4);
    let report = ended.json();
    assert_eq!((&report["status"], &report["processes"]), (&json!("late"), &json!(1)));
    assert_eq!(
        (&report["oldest"]["queue"], &report["unserved"]),
        (&json!("high"), &json!(["low"]))
    );
    assert!(report["why"].as_str().unwrap().contains("a ready mail in queue high"), "{report}");
    let table = place.on_terminal("health --max-age 1h", "").good();
    assert!(table.contains("ok: 1 process with 2 workers"), "{table}");

    jobs.pause(Scope::Kind("mail".into())).unwrap();
    assert_eq!(
        place.line("health --max-age 0s").good(),
        "ok\t1 process with 2 workers; nothing is ready\n"
    );
    drop(worker);
    place.line("health --max-age 1h").coded(69);
    place.line("health --max-age soon").coded(2);
}

#[test]
fn none_of_them_makes_a_file() {
    let place = place();
    for line in ["failures", "queues", "workers", "stats", "health"] {
        assert!(place.line(line).coded(5).stderr.contains("there is no "), "{line}");
        assert!(!place.path.exists(), "{line}");
    }
}
