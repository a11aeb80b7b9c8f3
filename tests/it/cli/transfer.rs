//! `legwork export` and `import`: what goes out comes in, once, or says why not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use legwork::{
    Error, Filter, ImportRun, JobId, JobRecord, Jobs, Limit, NewJob, Retry, State, Unique,
};
use serde_json::{Value, json};

use super::until;
use crate::common::{Place, place};

fn all(place: &Place) -> Vec<JobRecord> {
    let mut jobs = place.open().list(&Filter::new(), None, 10_000).unwrap().jobs;
    jobs.reverse();
    jobs
}

/// The records, with ids counted from 0.
fn without_ids(jobs: Vec<JobRecord>) -> Vec<JobRecord> {
    let numbered = jobs.into_iter().enumerate();
    numbered.map(|(at, job)| with_id(job, at)).collect()
}

fn with_id(mut job: JobRecord, at: usize) -> JobRecord {
    job.id = JobId(at as i64);
    job.cause = None;
    job
}

/// Jobs of every sort.
fn fill(place: &Place) {
    let jobs = place.open();
    let hour = Duration::from_secs(3600);
    let mail = |to: i64| {
        NewJob::of_kind_json("mail", format!("{{ \"to\":\t{to}, \"big\": 9007199254740993 }}"))
    };
    let parent = jobs.enqueue(mail(1).tag("b").tag("a").meta("k", "v").priority(-3)).unwrap();
    jobs.enqueue(mail(2).after([parent])).unwrap();
    jobs.enqueue(mail(3).delay(hour).queue("later").gate("online").expires_after(hour)).unwrap();
    jobs.enqueue(mail(4).unique(Unique::by_key("one").for_period(hour))).unwrap();
    jobs.enqueue(mail(5).unique_key("two").timeout(hour).retry(Retry::fixed(hour).attempts(5)))
        .unwrap();
    jobs.enqueue(mail(6).limited(Limit::at_once("l", 1)).limited(Limit::rate("r", 5, hour)))
        .unwrap();
    drop(jobs);
    place.script("--attempts 3", "exit 7");
    place.script("--tag done", "echo out");
    place.script("", "exit 1");
    let cancelled = place.line("run -- true").id();
    place.line(&format!("cancel {cancelled}")).good();
    place.work().coded(1);
    // Not due while it is looked at, however slow that is.
    place.line("reschedule --filter state:retrying --in 1h").good();
}

#[test]
fn export_and_import_give_equal_jobs_with_new_ids() {
    let (old, new) = (place(), place());
    fill(&old);
    let lines = old.line("export").good();
    assert_eq!(lines.lines().count(), 1 + all(&old).len());
    // An id is taken there already.
    let first = new.line("run -- true").id();
    new.line(&format!("cancel {first}")).good();
    new.open().delete(first).unwrap();
    let done = new.with_stdin("import --history --json", &lines).json();
    assert_eq!(
        (&done["enqueued"], &done["finished"], &done["left_out"]),
        (&json!(7), &json!(3), &json!(0))
    );
    assert_eq!(all(&new)[0].id, JobId(2));
    assert_eq!(without_ids(all(&new)), without_ids(all(&old)));
    let retrying =
        |place: &Place| all(place).into_iter().find(|job| job.state == State::Retrying).unwrap();
    assert_eq!(retrying(&new).attempts, 1);
    // What the records do not tell, too.
    let hidden = |place: &Place| {
        let sql =
            "SELECT coalesce(options, '') || coalesce(limits, '') || coalesce(unique_hold, '')
                     FROM legwork_jobs ORDER BY id";
        let app = place.connect();
        let mut ask = app.prepare(sql).unwrap();
        ask.query_map([], |row| row.get::<_, String>(0))
            .unwrap()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    };
    assert_eq!(hidden(&new), hidden(&old));
    assert!(new.line("doctor --full --json").json()["usable"] == true);
}

#[test]
fn an_imported_child_starts_after_its_parent_and_keys_are_held() {
    let (old, new) = (place(), place());
    let parent = old.script("--in 0s", "echo p >> order");
    old.script(&format!("--after {parent}"), "echo c >> order");
    let lines = old.line("export").good();
    new.with_stdin("import", &lines).good();
    assert_eq!(
        all(&new).iter().map(|job| job.state).collect::<Vec<_>>(),
        [State::Ready, State::Blocked]
    );
    new.work().good();
    assert_eq!(fs::read_to_string(old.file("order")).unwrap(), "p\nc\n");
    old.open().enqueue(NewJob::of_kind("k", json!({})).unique_key("held")).unwrap();
    new.open().enqueue(NewJob::of_kind("k", json!({})).unique_key("held")).unwrap();
    let lines = old.line("export kind:k").good();
    assert_eq!(new.with_stdin("import", &lines).good(), "0\t0\t0\t1\t0\n");
}

#[test]
fn finished_jobs_come_only_with_the_history_and_a_query_chooses() {
    let (old, new) = (place(), place());
    fill(&old);
    let lines = old.line("export state:failed state:scheduled").good();
    assert_eq!(lines.lines().count(), 3);
    assert_eq!(new.with_stdin("import --dry-run", &lines).good(), "1\t0\t1\t0\t0\n");
    assert_eq!(all(&new), []);
    assert_eq!(new.with_stdin("import", &lines).good(), "1\t0\t1\t0\t0\n");
    assert_eq!(all(&new)[0].state, State::Scheduled);
    // A child without its parent.
    let child = old.line("export state:blocked").good();
    let refused = new.with_stdin("import", &child).coded(4);
    assert!(refused.stderr.contains("for which it waits"), "{refused:?}");
    assert_eq!(all(&new).len(), 1);
    let told = new.with_stdin("import --dry-run", &child).coded(4);
    assert_eq!(told.stderr, refused.stderr);
    assert!(told.stderr.contains("together with those that they wait for"), "{told:?}");
}

#[test]
fn a_dry_run_tells_of_parents_across_transactions_and_interruptions_as_the_import_does() {
    let place = place();
    let mut jobs = vec![json!({}); 600];
    jobs[3] = json!({ "is_parent": true });
    jobs[599] = json!({ "after": [4] });
    let whole = export_of("e", &jobs);
    assert_eq!(place.with_stdin("import --dry-run", &whole).good(), "600\t0\t0\t0\t0\n");
    let half: Vec<&str> = whole.lines().take(550).collect();
    place.with_stdin("import", &(half.join("\n") + "\nbroken")).coded(2);
    assert_eq!(place.with_stdin("import --dry-run", &whole).good(), "100\t0\t0\t0\t500\n");
    jobs[599] = json!({ "after": [5] });
    let orphan = export_of("e", &jobs);
    let told = place.with_stdin("import --dry-run", &orphan).coded(4);
    assert!(
        told.stderr.contains("lines 502 to 601: job 5, for which one of them waits,"),
        "{told:?}"
    );
    assert_eq!(all(&place).len(), 500);
    assert_eq!(place.with_stdin("import", &whole).good(), "100\t0\t0\t0\t500\n");
}

#[test]
fn the_history_of_an_export_can_be_imported_later_and_once() {
    let (old, new) = (place(), place());
    let end = json!({ "state": "failed", "finished_at": "2026-01-01T00:00:00Z", "prune_at": "2999-01-01T00:00:00Z" });
    let mut jobs = vec![json!({}); 1_100];
    for at in (0..1_100).step_by(2) {
        jobs[at] = end.clone();
    }
    let whole = export_of("e", &jobs);
    assert_eq!(new.with_stdin("import", &whole).good(), "550\t0\t550\t0\t0\n");
    let dry = new.with_stdin("import --history --dry-run", &whole).good();
    assert_eq!(dry, "0\t550\t0\t0\t550\n");
    // It is interrupted, and goes on.
    let half: Vec<&str> = whole.lines().take(1_090).collect();
    new.with_stdin("import --history", &(half.join("\n") + "\nbroken")).coded(2);
    let done = new.with_stdin("import --history --json", &whole).json();
    assert_eq!((&done["finished"], &done["skipped"]), (&json!(50), &json!(1_050)));
    assert_eq!(new.with_stdin("import --history", &whole).good(), "0\t0\t0\t0\t1100\n");
    assert_eq!(new.with_stdin("import", &whole).good(), "0\t0\t0\t0\t1100\n");
    assert_eq!(all(&new).len(), 1_100);
    // All at once is the same, and nothing is left for later.
    assert_eq!(old.with_stdin("import --history", &whole).good(), "550\t550\t0\t0\t0\n");
    assert_eq!(old.with_stdin("import", &whole).good(), "0\t0\t0\t0\t1100\n");
    // With some of it imported without, the rest comes whole.
    let mixed = place();
    mixed.with_stdin("import", &(half[..600].join("\n") + "\nbroken")).coded(2);
    assert_eq!(mixed.with_stdin("import --history", &whole).good(), "300\t550\t0\t0\t250\n");
}

#[test]
fn the_same_export_is_imported_once_and_goes_on_where_it_stopped() {
    let (old, new) = (place(), place());
    old.open().enqueue_many((0..1_200).map(|n| NewJob::of_kind("k", json!(n)))).unwrap();
    old.line("export -o all.jsonl").good();
    let file = old.file("all.jsonl");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(old.line("export -o all.jsonl").coded(4).stderr.contains("overwrites"));
    let text = fs::read_to_string(&file).unwrap();
    let broken: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(at, line)| if at == 800 { "{\"kind\":".to_owned() } else { line.to_owned() })
        .collect();
    fs::write(new.file("broken.jsonl"), broken.join("\n")).unwrap();
    let stopped = new.line("import broken.jsonl").coded(2);
    assert!(
        stopped.stderr.contains("line 801: ") && stopped.stderr.contains("up to 501"),
        "{stopped:?}"
    );
    assert_eq!(all(&new).len(), 500);
    let import = format!("import {}", file.display());
    let done = new.line(&format!("{import} --json")).json();
    assert_eq!((&done["enqueued"], &done["skipped"]), (&json!(700), &json!(500)));
    let args: Vec<String> = all(&new).into_iter().map(|job| job.args).collect();
    assert_eq!(args, (0..1_200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(new.line(&import).good(), "0\t0\t0\t0\t1200\n");
    let again = new.on_terminal(&format!("{import} --again"), "").good();
    assert!(again.contains("enqueued 1200 jobs"), "{again}");
    assert_eq!(all(&new).len(), 2_400);
}

/// A header and jobs that are ready but for what is given, as lines.
fn export_of(id: &str, jobs: &[Value]) -> String {
    let mut text = json!({ "legwork_export": 1, "id": id, "exported_at": "2026-01-01T00:00:00Z" })
        .to_string()
        + "\n";
    for (at, given) in jobs.iter().enumerate() {
        let mut job = json!({
            "id": at + 1, "kind": "k", "queue": "q", "state": "ready", "priority": 0, "attempts": 0,
            "enqueued_at": "2026-01-01T00:00:00Z", "run_at": "2026-01-01T00:00:00Z", "args": "{}",
        });
        job.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        text += &(job.to_string() + "\n");
    }
    text
}

#[test]
fn an_import_that_was_interrupted_still_knows_the_parents_that_it_has_imported() {
    let place = place();
    let mut jobs = vec![json!({}); 600];
    jobs[3] = json!({ "is_parent": true });
    jobs[599] = json!({ "after": [4] });
    let whole = export_of("e", &jobs);
    let half: Vec<&str> = whole.lines().take(550).collect();
    let stopped = place.with_stdin("import", &(half.join("\n") + "\nbroken")).coded(2);
    assert!(stopped.stderr.contains("up to 501"), "{stopped:?}");
    let stopped = place.with_stdin("import", &(half.join("\n") + "\nbroken")).coded(2);
    assert!(stopped.stderr.contains("up to 501"), "{stopped:?}");
    assert_eq!(place.with_stdin("import", &whole).good(), "100\t0\t0\t0\t500\n");
    let jobs = all(&place);
    assert_eq!((jobs.len(), jobs[599].state), (600, State::Blocked));
    place.line("cancel 4").good();
    assert_eq!(all(&place)[599].cause, Some(JobId(4)));
    let sql = "SELECT count(*) FROM legwork_meta WHERE key LIKE 'import%'";
    let marks: i64 = place.connect().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(marks, 1, "only how far it has come");
}

#[test]
fn two_imports_of_one_export_do_not_both_enqueue_it() {
    let place = place();
    let whole = export_of("e", &vec![json!({}); 1_000]);
    let jobs = place.open();
    let mut run = ImportRun::new().of("e").behind(jobs.imported_lines("e").unwrap());
    run.mark(1_001);
    place.with_stdin("import", &whole).good();
    let late = jobs.import(jobs.export(&Filter::new(), None, 500).unwrap(), &mut run);
    assert!(matches!(late, Err(Error::Invalid { what: "import", .. })), "{late:?}");
    assert_eq!(all(&place).len(), 1_000);
}

#[test]
fn a_child_of_a_job_whose_key_outlives_its_holder_waits_for_nothing() {
    let place = place();
    let period = json!({ "key": "one", "hold": 3, "until": "2999-01-01T00:00:00Z" });
    place.line("run --unique one --unique-until 1d -- true").good();
    place.work().good();
    place.line("prune --all-finished").good();
    let lines =
        export_of("e", &[json!({ "unique": period, "is_parent": true }), json!({ "after": [1] })]);
    assert_eq!(place.with_stdin("import", &lines).good(), "1\t0\t0\t1\t0\n");
    assert_eq!(all(&place).last().unwrap().state, State::Ready);
}

#[test]
fn a_running_job_does_not_keep_the_newer_one_with_its_key_out() {
    for options in ["--unique-until started", "--on-conflict keep-last"] {
        let (old, new) = (place(), place());
        let worker = old.worker("work --workers 1");
        let older = old
            .script(&format!("--unique key {options}"), "while [ ! -e go ]; do sleep 0.05; done");
        until("it runs", || old.state(older) == "running");
        let newer = old.script(&format!("--unique key {options}"), "true");
        assert_ne!(older, newer);
        let lines = old.line("export").good();
        assert_eq!(new.with_stdin("import", &lines).good(), "2\t0\t0\t0\t0\n", "{options}");
        let args = |place: &Place| all(place).into_iter().map(|job| job.args).collect::<Vec<_>>();
        assert_eq!(args(&new), args(&old));
        fs::write(old.file("go"), "").unwrap();
        drop(worker);
    }
}

#[test]
fn what_is_no_export_is_refused() {
    let place = place();
    let header = r#"{"legwork_export":1,"id":"x","exported_at":"2026-01-01T00:00:00Z"}"#;
    let job: Value = json!({
        "id": 1, "kind": "k", "queue": "q", "state": "ready", "priority": 0, "attempts": 0,
        "enqueued_at": "2026-01-01T00:00:00Z", "run_at": "2026-01-01T00:00:00Z", "args": "{}",
    });
    let with = |key: &str, value: Value| {
        let mut job = job.clone();
        job[key] = value;
        format!("{header}\n{job}\n")
    };
    for (text, code, says) in [
        (String::new(), 2, "line 1"),
        ("{}\n".to_owned(), 2, "line 1"),
        (header.replace(":1,", ":2,"), 4, "version 2"),
        ("\0".repeat(70_000), 2, "line 1: it is longer than 64 KiB"),
        (with("attempts", json!(u32::MAX)), 2, "more attempts than can be counted"),
        (format!("{header}\nx\n"), 2, "line 2"),
        (with("args", json!("{")), 2, "line 2: arguments"),
        (with("queue", json!("")), 2, "line 2: invalid queue name"),
        (with("state", json!("done")), 2, "line 2"),
        (with("state", json!("failed")), 2, "does not say when"),
        (with("unique", json!({ "key": "k", "hold": 9 })), 2, "line 2"),
        (with("limits", json!({ "limits": "x" })), 2, "line 2"),
        (with("unique", json!({ "key": "a\nb", "hold": 2 })), 2, "line 2: invalid unique key"),
        (
            with("args", json!("[".repeat(1_001) + &"]".repeat(1_001))),
            2,
            "line 2: invalid arguments",
        ),
        (with("meta", json!({ "k": "v".repeat(4_097) })), 2, "line 2: invalid meta value"),
    ] {
        let refused = place.with_stdin("import", &text).coded(code);
        assert!(refused.stderr.contains(says), "{text}: {refused:?}");
    }
    assert_eq!(place.with_stdin("import", &with("x", json!(1))).good(), "1\t0\t0\t0\t0\n");
    place.line("import none.jsonl").coded(2);
    place.line("export colour:red").coded(2);
    assert!(Jobs::open(&place.path).unwrap().get(JobId(1)).is_ok());
}
