//! What the file knows of kinds: their options for whoever has not their type, and what nobody knows.

use std::time::Duration;

use legwork::{
    CheckReport, Context, Engine, Job, JobId, JobOptions, JobRecord, JobResult, Jobs, NewJob,
    Outcome, Retention, State, spread,
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::{place, stopped_clock};

#[derive(Serialize, Deserialize)]
struct Mail {
    to: i64,
}

impl Job for Mail {
    const KIND: &'static str = "mail";
    const ALIASES: &'static [&'static str] = &["email"];
    type State = ();
    fn options() -> JobOptions {
        JobOptions::new()
            .queue("out")
            .priority(-7)
            .delay(Duration::from_millis(90_500))
            .tag("slow")
            .tag("post")
            .retention(Retention::all(Duration::from_secs(60)).failed(Duration::from_secs(90)))
    }
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// The same kind in a later build.
#[derive(Serialize, Deserialize)]
struct NewMail {
    to: String,
}

impl Job for NewMail {
    const KIND: &'static str = "mail";
    type State = ();
    fn options() -> JobOptions {
        JobOptions::new().queue("elsewhere")
    }
    fn perform(&self, _: &Context) -> JobResult {
        Ok(Outcome::Done)
    }
}

/// Lets an engine of the builder's kinds have been here.
fn know<J: Job<State = ()>>(jobs: &Jobs) {
    Engine::builder(jobs).register::<J>().manual().unwrap();
}

fn by_sql(conn: &Connection, kind: &str, columns: &str, values: &str) -> JobId {
    let sql = format!(
        "INSERT INTO legwork_enqueue (kind, args{columns}) VALUES ('{kind}', '{{\"to\":1}}'{values})"
    );
    conn.execute(&sql, []).unwrap();
    conn.query_row("SELECT last_job FROM legwork_counter", [], |row| row.get(0).map(JobId)).unwrap()
}

/// All that a kind's options decide about a row.
fn decided(conn: &Connection, jobs: &Jobs, id: JobId) -> (JobRecord, Option<String>) {
    let sql = "SELECT options FROM legwork_jobs WHERE id = ?1";
    let options = conn.query_row(sql, [id.0], |row| row.get(0)).unwrap();
    let mut job = jobs.get(id).unwrap();
    job.run_at -= job.enqueued_at - time::OffsetDateTime::UNIX_EPOCH;
    job.enqueued_at = time::OffsetDateTime::UNIX_EPOCH;
    job.id = JobId(0);
    job.kind.clear();
    (job, options)
}

#[test]
fn a_job_without_its_type_gets_the_options_of_its_kind() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    assert!(jobs.known_options("mail").unwrap().is_none());
    know::<Mail>(&jobs);
    let typed = decided(&conn, &jobs, jobs.enqueue(Mail { to: 1 }).unwrap());
    assert_eq!(
        (typed.0.queue.as_str(), typed.0.priority, typed.0.state),
        ("out", -7, State::Scheduled)
    );
    assert!(typed.1.is_some());
    for kind in ["mail", "email"] {
        assert_eq!(decided(&conn, &jobs, by_sql(&conn, kind, "", "")), typed, "{kind}");
        let options = jobs.known_options(kind).unwrap().unwrap();
        let job = NewJob::of_kind(kind, json!({ "to": 1 })).options(options);
        assert_eq!(decided(&conn, &jobs, jobs.enqueue(job).unwrap()), typed, "{kind}");
    }
}

#[test]
fn what_a_call_sets_wins_over_the_kind() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    know::<Mail>(&jobs);
    let columns = ", queue, priority, run_at, tags";
    let id = by_sql(&conn, "mail", columns, r#", 'here', 0, 1000, '["mine", "slow"]'"#);
    let job = jobs.get(id).unwrap();
    assert_eq!((job.queue.as_str(), job.priority, job.state), ("here", 0, State::Ready));
    assert_eq!(job.run_at.unix_timestamp(), 1000);
    assert_eq!(job.tags, ["mine", "post", "slow"]);
    assert_eq!(jobs.get(by_sql(&conn, "mail", ", delay", ", 0")).unwrap().state, State::Ready);
}

#[test]
fn engines_record_a_kind_when_it_is_new_or_differs_and_write_nothing_otherwise() {
    let place = place();
    let jobs = place.open();
    let conn = place.connect();
    conn.execute_batch(
        "CREATE TABLE seen (kind TEXT);
         CREATE TRIGGER seen_new AFTER INSERT ON legwork_kinds
             BEGIN INSERT INTO seen VALUES (NEW.kind); END;
         CREATE TRIGGER seen_changed AFTER UPDATE ON legwork_kinds
             BEGIN INSERT INTO seen VALUES (NEW.kind); END;",
    )
    .unwrap();
    let writes = || -> Vec<String> {
        let mut ask = conn.prepare("SELECT kind FROM seen ORDER BY rowid").unwrap();
        ask.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    know::<Mail>(&jobs);
    assert_eq!(writes(), ["email", "mail"]);
    know::<Mail>(&jobs);
    assert_eq!(writes(), ["email", "mail"]);
    know::<NewMail>(&jobs);
    assert_eq!(writes(), ["email", "mail", "mail"]);
    let id = by_sql(&conn, "mail", "", "");
    assert_eq!(jobs.get(id).unwrap().queue, "elsewhere");
}

#[test]
fn a_check_names_the_kinds_that_nobody_knows() {
    let place = place();
    let jobs = place.open();
    assert!(jobs.check().unwrap().is_ok());
    let first = jobs.enqueue(Mail { to: 1 }).unwrap();
    assert_eq!(jobs.check().unwrap().unknown[0].kind, "mail");
    know::<Mail>(&jobs);
    assert!(jobs.check().unwrap().is_ok());
    // More than are read at once, and than are named.
    let lost = (0..1200).map(|n| NewJob::of_kind(if n % 2 == 0 { "lost" } else { "b" }, json!(n)));
    let ids = jobs.enqueue_many(lost).unwrap();
    let report = jobs.check().unwrap();
    let found: Vec<_> =
        report.unknown.iter().map(|found| (found.kind.as_str(), found.count)).collect();
    assert_eq!(found, [("b", 600), ("lost", 600)]);
    assert_eq!(report.unknown[1].ids, [0, 2, 4, 6, 8].map(|at| ids[at]));
    // What has ended is no trouble.
    for id in &ids {
        jobs.cancel(*id).unwrap();
    }
    assert!(jobs.check().unwrap().is_ok());
    assert_eq!(jobs.get(first).unwrap().state, State::Scheduled);
}

#[test]
fn a_check_by_the_apps_builder_tries_the_arguments_on_its_types() {
    let place = place();
    let jobs = place.open();
    let old = jobs.enqueue(Mail { to: 1 }).unwrap();
    let new = jobs.enqueue(NewMail { to: "Anna".into() }).unwrap();
    let other = jobs.enqueue(NewJob::of_kind("other", json!({}))).unwrap();
    let report = Engine::builder(&jobs).register::<NewMail>().check().unwrap();
    assert_eq!((report.unknown.len(), report.undecodable.len()), (1, 1));
    assert_eq!((report.unknown[0].kind.as_str(), &report.unknown[0].ids), ("other", &vec![other]));
    let found = &report.undecodable[0];
    assert_eq!((found.kind.as_str(), found.count, &found.ids), ("mail", 1, &vec![old]));
    assert!(found.error.as_deref().unwrap().contains("do not decode"), "{found:?}");
    jobs.cancel(other).unwrap();
    let report = Engine::builder(&jobs).register::<Mail>().check().unwrap();
    assert_eq!(report.undecodable[0].ids, [new]);
    // Nothing was started or recorded by looking.
    assert!(jobs.instances().unwrap().is_empty());
    assert!(jobs.known_options("mail").unwrap().is_none());
    let twice = Engine::builder(&jobs).register::<Mail>().register::<NewMail>();
    assert!(twice.check().is_err());
}

#[test]
fn a_check_names_the_cron_entries_that_cannot_fire() {
    let place = place();
    let jobs = place.open();
    jobs.schedule("mail", "@daily", Mail { to: 1 }).unwrap();
    jobs.schedule("other", "@daily", NewJob::of_kind("other", json!({}))).unwrap();
    know::<Mail>(&jobs);
    let names = |report: &CheckReport| -> Vec<(String, Option<String>)> {
        report.crons.iter().map(|found| (found.name.clone(), found.unknown_kind.clone())).collect()
    };
    let unknown = ("other".to_owned(), Some("other".to_owned()));
    assert_eq!(names(&jobs.check().unwrap()), std::slice::from_ref(&unknown));
    let report = Engine::builder(&jobs).register::<NewMail>().check().unwrap();
    assert_eq!(names(&report), [("mail".to_owned(), None), unknown]);
    assert!(report.crons[0].error.contains("do not decode"), "{report:?}");
    jobs.unschedule("other").unwrap();
    assert!(jobs.check().unwrap().is_ok());
    // As another version, or another hand, may have left them.
    let spoilt = |column: &str, value: &str, says: &str| {
        let conn = place.connect();
        let sql = format!("UPDATE legwork_cron SET {column} = ?1");
        conn.execute(&sql, [value]).unwrap();
        let report = jobs.check().unwrap();
        assert_eq!(names(&report), [("mail".to_owned(), None)], "{column}");
        assert!(report.crons[0].error.contains(says), "{column}: {report:?}");
    };
    spoilt("job", r#"{"kind":4}"#, "stored job");
    spoilt("expression", "61 * * * *", "cron expression");
    spoilt("expression", "@daily", "stored job");
    spoilt("zone", "Mars/Olympus", "time zone");
}

#[test]
fn a_bulk_is_spread_evenly_over_its_period_in_its_order() {
    let place = place();
    let jobs = place.builder().clock(stopped_clock()).open().unwrap();
    let now = jobs.clock().now();
    let bulk = (0..5).map(|n| NewJob::of_kind("k", json!(n)));
    let ids = jobs.enqueue_many(spread(bulk, Duration::from_secs(10))).unwrap();
    let after = |id: JobId| (jobs.get(id).unwrap().run_at - now).whole_milliseconds();
    assert_eq!(ids.iter().map(|id| after(*id)).collect::<Vec<_>>(), [0, 2000, 4000, 6000, 8000]);
    assert_eq!(jobs.get(ids[0]).unwrap().state, State::Ready);
    // On top of what the jobs have of their own.
    let at = now + Duration::from_secs(100);
    let bulk = [Mail { to: 1 }.into(), NewJob::of_kind("k", json!(1)).run_at(at)];
    let ids = jobs.enqueue_many(spread(bulk, Duration::from_secs(4))).unwrap();
    assert_eq!([after(ids[0]), after(ids[1])], [90_500, 102_000]);
    let bulk = [NewJob::of_kind("k", json!(0)), NewJob::of_kind("k", json!(1)).run_at(at)];
    assert!(jobs.enqueue_many(spread(bulk, Duration::MAX)).is_err());
    assert_eq!(spread(Vec::<NewJob>::new(), Duration::from_secs(1)).len(), 0);
}
