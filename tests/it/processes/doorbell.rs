//! What another process commits is heard of at once; what nobody rings for is found by the sweep.

use super::*;
use crate::common::place;

#[test]
fn what_another_process_enqueues_starts_by_the_doorbell_alone() {
    let place = place();
    let mut idle = idle_engine(&place, "sweep 0 workers 2");
    let mut other = process(&place, "sweep 0");
    for order in ["enqueue", "enqueue_in", "transaction", "delay 200", "enqueue"] {
        let id = other.enqueued(order);
        idle.hear(&format!("start {id}"));
    }
    other.end();
    idle.end();
}

#[test]
fn a_queue_that_another_process_resumes_goes_on_by_the_doorbell_alone() {
    let place = place();
    let mut idle = idle_engine(&place, "sweep 0 workers 2");
    let mut other = process(&place, "sweep 0");
    other.tell("pause");
    other.wait_for("paused");
    let id = other.enqueued("enqueue");
    other.tell("resume");
    other.wait_for("resumed");
    idle.hear(&format!("start {id}"));
    other.end();
    idle.end();
}

#[test]
fn a_job_of_a_process_whose_engine_is_gone_gets_its_alarm_elsewhere() {
    let place = place();
    let mut idle = idle_engine(&place, "sweep 0 workers 1");
    let mut other = process(&place, "sweep 0 workers 1");
    let id = other.enqueued("delay 1500");
    other.end();
    idle.hear(&format!("start {id}"));
    idle.end();
}

/// A job by somebody who rings nobody and tells nobody what has changed.
const PLAIN: &str = r#"
BEGIN IMMEDIATE;
UPDATE legwork_counter SET last_job = last_job + 1;
INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args)
SELECT counter.last_job, lane.id, 3, 0, 1, 1, '{"deed":{"Work":0}}'
  FROM legwork_counter AS counter, legwork_lanes AS lane
 WHERE lane.queue = 'default' AND lane.kind = 'told';
COMMIT;"#;

#[test]
fn plain_sql_is_found_by_the_sweep_although_a_group_has_come_between() {
    let place = place();
    let mut idle = idle_engine(&place, "sweep 1500 workers 1");
    // The lane of the plain job, apart from that of the group.
    let other = place.open().enqueue(work(1).queue("other")).unwrap();
    idle.hear(&format!("start {other}"));
    // By its claim the other lane is known to be empty.
    let own = idle.enqueued("enqueue");
    idle.hear(&format!("start {own}"));
    let conn = place.connect();
    conn.busy_timeout(SOON).unwrap();
    conn.execute_batch(&PLAIN.replace("'default'", "'other'")).unwrap();
    let id: i64 =
        conn.query_row("SELECT last_job FROM legwork_counter", [], |row| row.get(0)).unwrap();
    let own = idle.enqueued("enqueue");
    idle.hear(&format!("start {own}"));
    idle.hear(&format!("start {id}"));
    idle.end();
}

#[test]
fn plain_sql_is_found_by_the_sweep() {
    let place = place();
    let mut idle = idle_engine(&place, "sweep 200 workers 1");
    let conn = place.connect();
    conn.busy_timeout(SOON).unwrap();
    for _ in 0..3 {
        conn.execute_batch(PLAIN).unwrap();
        let id: i64 =
            conn.query_row("SELECT last_job FROM legwork_counter", [], |row| row.get(0)).unwrap();
        let since = Instant::now();
        idle.hear(&format!("start {id}"));
        eprintln!("found after {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(10));
    }
    idle.end();
}
