//! What each command answers: to people, in TSV and in JSON; exit codes; questions.

use legwork::{JobId, State};
use serde_json::json;

use crate::common::place;

#[test]
fn enqueue_and_run_print_the_id_alone() {
    let place = place();
    assert_eq!(place.line("enqueue mail").good(), "1\n");
    assert_eq!(place.line("enqueue mail {\"user\":7} --json").json()["id"], 2);
    assert_eq!(place.on_terminal("enqueue mail", "").good().trim_end(), "3");
    assert_eq!(place.line("run -- true").good(), "4\n");
    assert_eq!(place.open().get(JobId(2)).unwrap().args, r#"{"user":7}"#);
}

#[test]
fn enqueue_takes_all_options_and_arguments_from_stdin() {
    let place = place();
    let line = "enqueue mail - --in 2h --queue high --priority -5 --tag a --tag b";
    let id = place.with_stdin(line, r#"{"long": "text"}"#).id();
    let job = place.open().get(id).unwrap();
    assert_eq!((job.state, job.queue.as_str(), job.priority), (State::Scheduled, "high", -5));
    assert_eq!(
        (job.tags, job.args.as_str()),
        (vec!["a".into(), "b".into()], r#"{"long": "text"}"#)
    );
    assert_eq!(job.run_at - job.enqueued_at, time::Duration::HOUR * 2);
    let id = place.line("enqueue mail --at 2999-01-01T00:00:00+02:00").id();
    let at = time::macros::datetime!(2998-12-31 22:00 UTC);
    assert_eq!(place.open().get(id).unwrap().run_at, at);
}

#[test]
fn list_answers_with_a_table_with_tsv_and_with_json() {
    let place = place();
    place.line("enqueue mail {\"user\":7} --queue high --tag eu").good();
    place.script("", "echo no >&2; exit 3");
    place.work().coded(1);

    let tsv = place.line("list").good();
    let rows: Vec<Vec<&str>> = tsv.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..6], ["2", "failed", "legwork.shell", "default", "0", "1"]);
    assert!(rows[0][9].ends_with('Z'), "{tsv}");
    assert_eq!(rows[0][11], "exit code 3: no");
    assert_eq!(rows[1][..6], ["1", "ready", "mail", "high", "0", "0"]);
    assert_eq!(rows[1][8..], ["", "", "eu", "", ""]);

    let found = place.line("list --json --limit 1").json();
    assert_eq!(found["next"], 2);
    assert_eq!(found["jobs"][0]["reason"], "exit code 3: no");
    let found = place.line("list --json --before 2").json();
    assert_eq!(found["next"], json!(null));
    assert_eq!(found["jobs"][0]["args"], json!({ "user": 7 }));
    let enqueued = found["jobs"][0]["enqueued_at"].as_str().unwrap();
    assert!(enqueued.starts_with("20") && enqueued.ends_with('Z'), "{enqueued}");

    let table = place.on_terminal("list --color never", "").good();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("ID  STATE   KIND           QUEUE"), "{table}");
    assert!(lines[1].ends_with("ago   exit code 3: no") || lines[1].contains("now"), "{table}");
    assert!(lines[2].ends_with(r#"{"user":7}"#), "{table}");
}

#[test]
fn colour_is_for_terminals_and_for_those_who_want_it() {
    let place = place();
    place.script("", "exit 1");
    place.work().coded(1);
    let colour = "\u{1b}[";
    assert!(place.on_terminal("list", "").good().contains(colour));
    assert!(!place.on_terminal("list --color never", "").good().contains(colour));
    for (variables, is_coloured) in
        [("NO_COLOR=1", false), ("NO_COLOR=", true), ("TERM=dumb", false), ("TERM=screen", true)]
    {
        let of = |line: &str| place.on_terminal_with(variables, line, "").good().contains(colour);
        assert_eq!(of("list"), is_coloured, "{variables}");
        assert!(of("list --color always"), "{variables}");
    }
    assert!(!place.line("list --color always").good().contains(colour), "that is for tables");
    assert!(!place.line("list").good().contains(colour));
    assert!(!place.line("status").good().contains(colour));
}

#[test]
fn a_query_finds_by_state_kind_queue_tag_and_time() {
    let place = place();
    place.line("enqueue a --queue high --tag eu --tag new").good();
    place.line("enqueue b --queue high --tag eu").good();
    place.line("enqueue a --in 1h").good();
    let ids = |query: &str| {
        let found = place.line(&format!("list {query}"));
        let ids: Vec<&str> =
            found.stdout.lines().map(|line| line.split('\t').next().unwrap()).collect();
        ids.join(" ")
    };
    assert_eq!(ids(""), "3 2 1");
    assert_eq!(ids("kind:a"), "3 1");
    assert_eq!(ids("kind:a kind:b queue:high"), "2 1");
    assert_eq!(ids("tag:eu tag:new"), "1");
    assert_eq!(ids("state:scheduled"), "3");
    assert_eq!(ids("since:1h"), "3 2 1");
    assert_eq!(ids("until:1h"), "");
    assert_eq!(ids("since:2020-01-01T00:00:00Z until:2020-01-02T00:00:00Z"), "");
}

#[test]
fn show_tells_all_about_a_job() {
    let place = place();
    let id = place.script("--tag eu", "echo out; echo err >&2; exit 3");
    place.work().coded(1);

    let all = place.show(id);
    assert_eq!(all["job"]["tags"], json!(["eu"]));
    assert_eq!(all["job"]["args"]["shell"], true);
    assert_eq!(all["attempts"][0]["error"], "exit code 3: err");
    assert_eq!(all["attempts"][0]["counted"], true);
    assert_eq!((&all["stdout"], &all["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert_eq!(all["logs"], json!([]));

    let tsv = place.line(&format!("show {id}")).good();
    for row in ["state\tfailed\n", "tags\teu\n", "stdout\tout\\n\n", "stderr\terr\\n\n"] {
        assert!(tsv.contains(row), "{tsv}");
    }
    let table = place.on_terminal(&format!("show {id}"), "").good();
    for part in ["reason", "exit code 3: err", "--- stdout\r\nout\r\n", "--- stderr\r\nerr\r\n"] {
        assert!(table.contains(part), "{table}");
    }
}

#[test]
fn show_tells_the_progress_log_and_output_of_an_apps_job() {
    use crate::scripted::{Act, acting};
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, cx| {
        cx.log("half way");
        cx.progress(3, 4);
        cx.output(&json!({ "sum": 7 }))?;
        Ok(legwork::Outcome::Done)
    });
    let engine = engine.start().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    jobs.wait(id, crate::common::SOON).unwrap();
    let all = place.show(id);
    assert_eq!(all["logs"][0]["line"], "half way");
    assert_eq!(all["job"]["progress"], json!({ "done": 3, "total": 4, "message": null }));
    assert_eq!(all["job"]["output"], json!({ "sum": 7 }));
    drop(engine);
}

#[test]
fn show_lists_steps_and_retry_goes_on_after_them_or_from_scratch() {
    use crate::scripted::{Act, acting};
    let place = place();
    let jobs = place.open();
    let engine = acting(&jobs, |_, cx| {
        cx.step("charge", || Ok("r1".to_owned()))?;
        cx.cursor::<u32>("rows")?.save(&12)?;
        Err(legwork::Failure::msg("as told").into_fatal())
    });
    let engine = engine.manual().unwrap();
    let id = jobs.enqueue(Act { n: 1 }).unwrap();
    engine.run_due().unwrap();
    let steps = place.show(id)["steps"].clone();
    assert_eq!((&steps[0]["name"], &steps[0]["cursor"]), (&json!("charge"), &json!(false)));
    assert_eq!((&steps[1]["bytes"], &steps[1]["cursor"]), (&json!(2), &json!(true)));
    assert!(steps[0]["stored_at"].is_string());
    let tsv = place.line(&format!("show {id}")).good();
    assert!(tsv.contains("\nstep\t") && tsv.contains(" 4 bytes charge\n"), "{tsv}");
    assert!(tsv.contains("\ncursor\t") && tsv.contains(" 2 bytes rows\n"), "{tsv}");

    place.line(&format!("retry {id}")).good();
    assert_eq!(place.show(id)["steps"], steps);
    engine.run_due().unwrap();
    place.line(&format!("retry {id} --from-scratch")).good();
    assert_eq!(place.show(id)["steps"], json!([]));
}

#[test]
fn status_tells_of_queues_workers_and_the_file() {
    let place = place();
    place.line("enqueue mail --queue high").good();
    place.line("enqueue mail --queue high --in 1h").good();

    let bytes = place.path.metadata().unwrap().len();
    let status = place.line("status --json");
    assert!(status.stderr.contains("no worker is running; start `legwork work`"), "{status:?}");
    let status = status.json();
    assert_eq!(status["instances"], 0);
    assert_eq!(status["states"]["ready"], 1);
    assert_eq!(status["queues"][0]["name"], "high");
    assert_eq!(status["queues"][0]["states"]["scheduled"], 1);
    assert!(status["queues"][0]["oldest_ready_seconds"].as_f64().unwrap() >= 0.0);
    let sqlite = legwork::Jobs::sqlite();
    assert_eq!(status["sqlite"], sqlite.version);
    assert_eq!(status["wal_reset_bug"], sqlite.wal_reset_bug);
    assert_eq!(status["processes"], json!([]));
    assert_eq!(status["file"]["bytes"], bytes);

    let tsv = place.line("status").good();
    for row in ["instances\t0\n", "state\tready\t1\n", "queue\thigh\tscheduled\t1\n"] {
        assert!(tsv.contains(row), "{tsv}");
    }
    let table = place.on_terminal("status", "").good();
    assert!(table.contains("no worker is running"), "{table}");
    assert!(table.contains("1 scheduled, 1 ready"), "{table}");
    assert!(table.contains("QUEUE  READY  RUNNING  SCHEDULED"), "{table}");

    place.open().pause(legwork::Scope::Queue("high".into())).unwrap();
    assert_eq!(place.line("status --json").json()["paused"][0]["name"], "high");
    let worker = place.worker("work");
    super::until("the worker is seen", || place.line("status --json").json()["instances"] == 1);
    let process = place.line("status --json").json()["processes"][0].clone();
    assert_eq!(process["alive"], true);
    let pid = process["pid"].clone();
    let tsv = place.line("status").good();
    assert!(tsv.contains(&format!("process\t{}\t{pid}\t", process["id"])), "{tsv}");
    assert!(place.on_terminal("status", "").good().contains(&format!("process {pid}, started")));
    drop(worker);
    let status = place.line("status --json").json();
    assert_eq!(status["instances"], 0, "its lock went with it");
    assert_eq!(
        (&status["processes"][0]["pid"], &status["processes"][0]["alive"]),
        (&pid, &json!(false))
    );
    assert!(place.on_terminal("status", "").good().contains(&format!("process {pid} is dead")));
}

#[test]
fn gates_are_closed_opened_and_listed() {
    let place = place();
    let id = place.line("enqueue mail --gate online").id();
    assert_eq!(place.line("gate list").good(), "online\topen\t\n");
    let closed = place.line("gate close online").good();
    assert!(closed.starts_with("online\tclosed\t20") && closed.ends_with("Z\n"), "{closed}");
    assert_eq!(place.open().get(id).unwrap().state, State::Blocked);

    let listed = place.line("gate list --json").json();
    assert_eq!(listed["gates"][0]["name"], "online");
    assert!(listed["gates"][0]["closed_since"].as_str().unwrap().ends_with('Z'));
    let table = place.on_terminal("gate list", "").good();
    assert!(table.contains("GATE    STATE   SINCE") && table.contains("online  closed"), "{table}");

    let row = place.line("list state:blocked").good();
    assert!(row.starts_with(&format!("{id}\tblocked\t")) && row.ends_with("\tonline\n"), "{row}");
    assert!(place.on_terminal("list", "").good().contains("waits for gate online"));
    assert_eq!(place.line("list --json").json()["jobs"][0]["gate"], "online");
    assert!(place.line("show 1").good().contains("gate\tonline\n"));
    let status = place.line("status --json").json();
    assert_eq!(status["states"]["blocked"], 1);
    assert_eq!(status["gates"][0]["name"], "online");
    assert!(place.line("status").good().contains("gate\tonline\tclosed\t20"));
    assert!(place.on_terminal("status", "").good().contains("gate online: closed"));

    let opened = place.line("gate open online --json").json();
    assert_eq!((&opened["name"], &opened["closed_since"]), (&json!("online"), &json!(null)));
    let opened = place.on_terminal("gate open online", "").good();
    assert_eq!(opened.trim_end(), "gate online: open");
    assert_eq!(place.open().get(id).unwrap().state, State::Ready);
    place.line("gate close").coded(2);
    place.line("gate").coded(2);
}

#[test]
fn pause_and_resume_take_a_queue_a_kind_or_everything() {
    let place = place();
    place.line("enqueue mail").good();
    assert_eq!(place.line("pause").good(), "everything\n");
    assert_eq!(place.line("pause mail").good(), "everything\nqueue mail\n");
    let paused = place.line("pause --kind mail --json").json();
    let kind = json!({ "scope": "kind", "name": "mail" });
    assert!(paused["paused"].as_array().unwrap().contains(&kind), "{paused}");
    assert_eq!(place.line("resume").good(), "kind mail\nqueue mail\n");
    let said = place.on_terminal("resume mail", "").good();
    assert_eq!(said.trim_end(), "paused: kind mail");
    let said = place.on_terminal("resume --kind mail", "").good();
    assert_eq!(said.trim_end(), "nothing is paused");
    place.line("pause mail --kind mail").coded(2);
}

#[test]
fn enqueue_and_run_take_an_expiry() {
    let place = place();
    for line in ["enqueue mail --in 1h --expires 5m", "run --in 1h --expires 5m -- true"] {
        let id = place.line(line).id();
        let job = place.open().get(id).unwrap();
        assert_eq!(job.expires_at, Some(job.run_at + time::Duration::minutes(5)));
        assert!(place.line(&format!("show {id}")).good().contains("expires\t20"));
    }
}

#[test]
fn without_a_file_only_those_who_add_make_one() {
    let place = place();
    for line in [
        "status",
        "list",
        "show 1",
        "wait 1",
        "retry 1",
        "cancel 1",
        "delete 1",
        "reschedule 1 --in 1h",
        "run-now 1",
        "edit 1 --priority 1",
        "clone 1",
        "pause",
        "resume",
        "gate list",
        "gate close x",
    ] {
        let ended = place.line(line).coded(5);
        assert!(ended.stderr.contains("there is no "), "{ended:?}");
        assert!(!place.path.exists(), "{line}");
    }
    place.line("enqueue mail").good();
    assert!(place.path.exists());
}

#[test]
fn the_database_must_be_named() {
    let place = place();
    let mut command = place.command(["status"]);
    let ended = super::Ended::of(command.env_remove("LEGWORK_DB").output().unwrap()).coded(2);
    assert!(ended.stderr.contains("--db FILE") && ended.stderr.contains("LEGWORK_DB"), "{ended:?}");
    let other = place.file("other.db");
    place.args(["--db", other.to_str().unwrap(), "enqueue", "mail"]).good();
    assert!(other.exists() && !place.path.exists());
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let place = place();
    let id = place.line("enqueue mail").id();
    place.line("list kind:none").coded(3);
    place.line("show 99").coded(3);
    place.line("cancel 99").coded(3);
    place.line("cancel 98 99 --yes").coded(3);
    place.line("cancel --filter kind:none").coded(3);
    place.line(&format!("retry {id}")).coded(4);
    place.line("cancel").coded(2);
    place.line("cancel x").coded(2);
    place.line("nonsense").coded(2);
    place.line("enqueue mail {").coded(2);
    place.line("enqueue mail --in soon").coded(2);
    place.line("enqueue mail --at tomorrow").coded(2);
    place.line("run").coded(2);
    let ended = place.line("list state:done").coded(2);
    assert!(ended.stderr.contains("state:done"), "the bad term is named: {ended:?}");

    std::fs::write(place.file("text"), "this is no database, by any means at all").unwrap();
    place.line("--db text status").coded(5);
    assert_eq!(std::fs::read_to_string(place.file("text")).unwrap().len(), 40, "untouched");
}

#[test]
fn wait_tells_the_end_of_jobs_that_another_process_runs() {
    let place = place();
    let good = place.script("", "exit 0");
    let bad = place.script("", "exit 3");
    let ended = place.line(&format!("wait {good}")).coded(69);
    assert!(ended.stderr.contains("start `legwork work`"), "{ended:?}");
    place.line(&format!("wait {good} --timeout 10ms")).coded(124);

    let _worker = place.worker("work");
    assert_eq!(place.line(&format!("wait {good} --timeout 60s")).good(), "1\tcompleted\t\n");
    let ended = place.line(&format!("wait {good} {bad} --timeout 60s --json")).coded(1);
    assert_eq!(ended.json()["jobs"][1]["reason"], "exit code 3");
    let table = place.on_terminal(&format!("wait {bad}"), "").coded(1).stdout;
    assert!(table.contains("exit code 3"), "{table}");

    let never = place.line("enqueue mail").id();
    place.line(&format!("wait {never} {good} --any --timeout 60s")).good();
    place.line(&format!("wait {never} --timeout 50ms")).coded(124);
}

#[test]
fn enqueue_and_run_wait_if_told_to() {
    let place = place();
    place.line("run --wait -- true").coded(69);
    let _worker = place.worker("work");
    super::until("the worker lives", || place.line("status --json").json()["instances"] == 1);
    assert_eq!(place.line("run --wait -- true").good(), "2\n");
    let ended = place.line("run --wait -- false").coded(1);
    assert_eq!(ended.stdout, "3\n");
    assert!(ended.stderr.contains("job 3 is failed: exit code 1"), "{ended:?}");
}

#[test]
fn more_than_one_job_is_changed_only_when_somebody_says_yes() {
    let place = place();
    let ready = || place.line("list state:ready").stdout.lines().count();
    for _ in 0..3 {
        place.line("enqueue mail").good();
    }
    let ended = place.line("cancel --filter kind:mail").coded(4);
    assert!(ended.stderr.contains("--yes"), "{ended:?}");
    place.line("cancel 1 2").coded(4);
    // No, an empty line, no line at all, and a yes of somebody who was not asked.
    for typed in ["n\n", "\n", "\u{4}"] {
        let ended = place.on_terminal("cancel --filter kind:mail", typed).coded(4);
        assert!(ended.stdout.contains("cancel 3 jobs? [y/N]"), "{ended:?}");
        let is_on_its_line = ended.stdout.contains("\nlegwork: nothing was changed");
        assert!(is_on_its_line || typed.ends_with('\n'), "{ended:?}");
    }
    let ended = place.on_terminal("cancel --filter kind:mail 2>said", "y\n").coded(4);
    assert!(!ended.stdout.contains("cancelled"), "{ended:?}");
    assert_eq!(place.line("cancel --filter kind:mail --dry-run --json").json()["matched"], 3);
    assert_eq!(ready(), 3);

    let ended = place.on_terminal("cancel 1 2", "y\n").coded(0);
    assert!(ended.stdout.contains("cancelled 2 jobs"), "{ended:?}");
    assert_eq!(ready(), 1);
    place.line("cancel 3").good();
    assert_eq!(ready(), 0);
    let ended = place.line("retry --filter state:cancelled --yes --json").coded(0);
    assert_eq!(ended.json()["changed"], 3);
    assert_eq!(ready(), 3);
}

#[test]
fn a_filter_without_a_state_means_the_jobs_that_need_it() {
    let place = place();
    let good = place.script("", "exit 0");
    let bad = place.script("", "exit 1");
    place.work().coded(1);
    assert_eq!(place.line("retry --filter queue:default").good(), "1\t1\t0\n");
    assert_eq!((place.state(good), place.state(bad)), ("completed".into(), "ready".into()));
    assert_eq!(place.line("cancel --filter queue:default").good(), "1\t1\t0\n");
    place.line(&format!("cancel {good} {bad} --yes")).coded(4);
    place.line("cancel --filter").coded(2);
    place.args(["cancel", "--yes", "--filter", " "]).coded(2);
}

#[test]
fn limits_are_taken_and_shown() {
    let place = place();
    let first = place.line("enqueue mail --limit account=7=1 --rate api=10/1s,burst,weight=3").id();
    let second = place.line("enqueue mail --limit account=7=1 --on-busy wait").id();
    let job = place.show(first)["job"].take();
    assert_eq!(job["state"], "ready");
    assert_eq!(
        job["limits"],
        json!([
            { "key": "account=7", "at_once": 1 },
            { "key": "api", "rate": { "most": 10, "per": 1_000_000, "burst": true, "weight": 3 } },
        ])
    );
    let job = place.show(second)["job"].take();
    assert_eq!((&job["state"], &job["waits_on"]), (&json!("blocked"), &json!("limit:account=7")));
    let shown = place.on_terminal(&format!("show {second}"), "").good();
    assert!(shown.contains("account=7: 1 at once"), "{shown}");
    for bad in ["--limit k", "--limit k=x", "--rate k=1", "--rate k=1/1s,fast", "--rate k=1/0s"] {
        place.line(&format!("enqueue mail {bad}")).coded(2);
    }
}
