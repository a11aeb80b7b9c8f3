//! EXPLAIN QUERY PLAN of every hot query: it uses the index that is named after it, and neither
//! scans nor sorts.

use rusqlite::Connection;
use rusqlite::types::Null;

use super::{
    book, claim, clones, contents, edges, expiry, finish, flows, instance, kinds, limits, migrate,
    news, prune, query, rescue, steps, suspects, transfer, unique, upkeep, waiting,
};
use crate::id::{FlowId, JobId};
use crate::record::Filter;
use crate::state::State;

/// A migrated file with some rows in each table, analysed, so that the planner chooses as it
/// would in use.
fn file() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    migrate::migrate(&conn).unwrap();
    conn.execute_batch(
        "INSERT INTO legwork_lanes (id, queue, kind) VALUES (1, 'a', 'k'), (2, 'b', 'k');
         WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO legwork_lanes SELECT i, 'q' || i, 'k', CASE i % 2 WHEN 0 THEN 'g' ELSE '' END FROM n;
         INSERT INTO legwork_gates VALUES ('g', 1), ('h', 2);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args)
         SELECT i, 1 + i % 2, CASE i % 3 WHEN 0 THEN 1 WHEN 1 THEN 3 ELSE 5 END, i % 5, i, i, '{}' FROM n;
         UPDATE legwork_jobs SET state = 4, instance = 1, token = id, started_at = 1 WHERE id <= 8;
         UPDATE legwork_jobs SET expires_at = id WHERE instance IS NULL AND id % 7 = 0;
         UPDATE legwork_jobs SET crashes = '[]' WHERE id = 8 OR state = 3 AND id % 10 = 1;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO legwork_history (id, lane, state, priority, run_at, enqueued_at, attempts,
                                      finished_at, prune_at, args)
         SELECT 10000 + i, 1, CASE WHEN i % 10 < 8 THEN 6 ELSE i % 10 - 1 END, 0, i, i, 1, i, i, '{}' FROM n;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO legwork_unique SELECT 'k' || i, i % 2, i, CASE i % 3 WHEN 0 THEN i END,
                CASE i % 3 WHEN 0 THEN 1 END FROM n;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO legwork_slots SELECT 'k' || i % 50, i % 7, i, i FROM n;
         INSERT INTO legwork_rates SELECT 'k' || token % 50, token, 1, token,
                CASE token WHEN 0 THEN 0 END FROM legwork_slots;
         INSERT INTO legwork_lines SELECT 'rate:k' || token, token FROM legwork_slots;
         UPDATE legwork_jobs SET state = 2 + id % 2, limits = '{}', waits_on = 'limit:k' || id % 20,
                                 waits_as = '{}', crashes = NULL
          WHERE instance IS NULL AND id % 4 = 0;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO legwork_edges SELECT i, i + 1 + i % 40, i % 2, i % 3 = 0 FROM n;
         INSERT INTO legwork_flows SELECT 20000 + parent, 'batch', 'b', '{}', 1, NULL, 9, 1, 0, 0,
                CASE parent % 2 WHEN 0 THEN 1 END, CASE parent % 2 WHEN 0 THEN parent END
           FROM legwork_edges;
         INSERT INTO legwork_callbacks SELECT id, 'finish', '{}', CASE id % 2 WHEN 0 THEN id END FROM legwork_flows;
         UPDATE legwork_jobs SET flow = 20000 + id % 300 WHERE id % 5 = 0;
         UPDATE legwork_history SET flow = 20000 + id % 300 WHERE id % 5 = 0;
         ANALYZE;",
    )
    .unwrap();
    conn
}

fn plan(conn: &Connection, sql: &str) -> String {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let nulls = vec![Null; explain.parameter_count()];
    let rows = explain
        .query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>(3))
        .unwrap();
    rows.collect::<Result<Vec<_>, _>>().unwrap().join("\n")
}

#[track_caller]
fn assert_uses(conn: &Connection, sql: &str, index: &str) {
    let plan = plan(conn, sql);
    assert!(plan.contains(index), "not by {index}:\n{sql}\n{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "sorts:\n{sql}\n{plan}");
    for line in plan.lines().filter(|line| line.starts_with("SCAN")) {
        // The closed gates are few, and all of them are wanted; a subquery is what was found; the lanes are
        // searched for a text once. JSON has no index.
        let may_scan =
            ["INDEX", "VIRTUAL TABLE", "SCAN gate", "SCAN (subquery", "SCAN legwork_lanes"];
        assert!(may_scan.iter().any(|may| line.contains(may)), "scans:\n{sql}\n{plan}");
    }
}

const BY_ID: &str = "USING INTEGER PRIMARY KEY";

#[test]
fn a_claim_finds_the_first_job_of_a_lane_in_its_index() {
    assert_uses(&file(), claim::NEXT_READY, "legwork_next_ready (lane=?)");
}

#[test]
fn suspects_are_found_in_indexes_of_their_own() {
    let conn = file();
    assert_uses(&conn, suspects::NEXT_SUSPECT, "legwork_next_suspect");
    assert_uses(&conn, suspects::RUNS_SUSPECT, "legwork_running_suspects");
}

#[test]
fn the_job_that_has_been_ready_longest_is_sought_among_the_ready_ones_only() {
    let conn = file();
    for (sql, index) in
        query::OLDEST_READY.iter().zip(["legwork_next_ready", "legwork_next_suspect"])
    {
        assert_uses(&conn, sql, index);
    }
}

#[test]
fn due_jobs_are_found_and_foreseen_in_their_index() {
    let conn = file();
    for (at, index) in ["legwork_next_scheduled", "legwork_next_retrying"].iter().enumerate() {
        assert_uses(&conn, claim::DUE[at], &format!("{index} (run_at<?)"));
        assert_uses(&conn, book::NEXT_DUE[at], index);
    }
}

#[test]
fn what_was_enqueued_lately_is_read_from_there_on_and_no_further() {
    let plan = plan(&file(), news::ENQUEUED_AFTER);
    assert_eq!(plan.matches("INTEGER PRIMARY KEY (rowid>?)").count(), 2, "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn finishes_reach_their_row_by_its_id() {
    let conn = file();
    for sql in [finish::MOVE_CLAIMED, finish::FREE_CLAIMED, finish::REMOVE] {
        assert_uses(&conn, sql, BY_ID);
    }
}

#[test]
fn a_job_that_is_changed_or_cloned_is_reached_by_its_id() {
    let conn = file();
    for sql in [waiting::READ, waiting::STAND, contents::READ, contents::REWRITE] {
        assert_uses(&conn, sql, BY_ID);
    }
    for sql in clones::READ {
        assert_uses(&conn, sql, BY_ID);
    }
}

#[test]
fn what_an_instance_holds_is_found_in_its_index() {
    assert_uses(&file(), rescue::HELD, "legwork_held (instance=?)");
}

#[test]
fn jobs_that_expire_are_found_and_foreseen_in_their_index() {
    let conn = file();
    assert_uses(&conn, expiry::EXPIRED, "legwork_next_expiry (expires_at>? AND expires_at<?)");
    assert_uses(&conn, expiry::NEXT_EXPIRY, "legwork_next_expiry");
}

#[test]
fn old_and_exported_jobs_are_found_in_the_order_of_their_ids() {
    let conn = file();
    for sql in [upkeep::OLD, upkeep::IS_OLD] {
        assert_uses(&conn, sql, BY_ID);
    }
    // They walk over what is left to settle, too: a few rows, if any.
    for sql in [upkeep::OLD_FLOW, upkeep::IS_OLD_FLOW] {
        let plan = plan(&conn, sql);
        assert!(plan.starts_with("SEARCH flow USING INTEGER PRIMARY KEY"), "{plan}");
    }
    assert_uses(&conn, transfer::PARENTS, "legwork_parents (child=?)");
    assert_uses(&conn, transfer::IS_PARENT, "PRIMARY KEY (parent=?)");
    assert_uses(&conn, transfer::UNTIL, "PRIMARY KEY (key=? AND slot=?)");
}

#[test]
fn what_outlives_its_retention_is_found_in_its_index() {
    let conn = file();
    assert_uses(&conn, prune::EXPIRED, "legwork_next_prune (prune_at<?)");
    assert_uses(&conn, book::NEXT_PRUNE, "legwork_next_prune");
}

#[cfg(feature = "cron")]
#[test]
fn ticks_are_found_and_pruned_by_their_key() {
    let conn = file();
    for sql in [super::cron::HAS_TICK, super::cron::OLD_TICKS, super::cron::DELETE_TICKS] {
        assert_uses(&conn, sql, "PRIMARY KEY (name=? AND tick");
    }
    assert_uses(&conn, super::cron::READ_STAMP, "PRIMARY KEY (key=?)");
}

#[test]
fn steps_are_reached_by_their_key_and_saved_by_the_id_of_their_job() {
    let conn = file();
    for sql in [steps::NAMES, steps::VALUE, steps::LIST, steps::FORGET] {
        assert_uses(&conn, sql, "PRIMARY KEY (job=?");
    }
    assert_uses(&conn, steps::SAVE, BY_ID);
    assert_uses(&conn, steps::MARK, BY_ID);
}

#[test]
fn a_unique_key_is_taken_moved_and_freed_by_its_own_key() {
    let conn = file();
    for sql in [
        unique::HOLDER,
        unique::UNTIL,
        unique::IN_SLOT,
        unique::FREE,
        unique::START,
        unique::WAIT_AGAIN,
    ] {
        assert_uses(&conn, sql, "PRIMARY KEY (key=?");
    }
    // An insert has no plan to speak of: it goes by the primary key or fails there.
    assert_eq!(plan(&conn, unique::TAKE), "");
    assert_uses(&conn, unique::LET_GO, "PRIMARY KEY (key=? AND slot=?)");
    for sql in [unique::IS_SAME, unique::REPLACE, unique::WAITING, unique::UNBLOCK, unique::BLOCK] {
        assert_uses(&conn, sql, BY_ID);
    }
}

#[test]
fn periods_that_are_over_are_found_and_foreseen_in_their_index() {
    let conn = file();
    assert_uses(&conn, unique::NEXT_OVER, "legwork_unique_until");
    assert_uses(&conn, unique::OVER, "legwork_unique_until (until>? AND until<?)");
}

#[test]
fn what_a_limit_has_taken_is_counted_by_its_key() {
    let conn = file();
    assert_uses(&conn, limits::TAKEN, "PRIMARY KEY (key=?)");
    assert_uses(&conn, limits::FREE_SLOT, "PRIMARY KEY (key=? AND instance=? AND token=?)");
    assert_uses(&conn, limits::PACED, "PRIMARY KEY (key=? AND at=?)");
    assert_uses(&conn, limits::SPENT, "PRIMARY KEY (key=? AND at>?)");
    assert_uses(&conn, limits::NO_LONGER_COUNTS, "PRIMARY KEY (key=? AND at>? AND at<?)");
    assert_uses(&conn, limits::RATES_OVER, "legwork_rates_over (until<?)");
    for sql in [limits::FREE_SLOTS_OF, limits::FREE_SLOTS_OF_CLAIM] {
        assert_uses(&conn, sql, "legwork_slots_of_instance (instance=?");
    }
}

#[test]
fn a_line_is_looked_at_from_its_front_and_never_walked() {
    let conn = file();
    let line = "legwork_waiting (waits_on=? AND waits_as=? AND lane=? AND state=?";
    for sql in [limits::HOW_MANY_NEXT, limits::HOW_MANY_BEFORE, limits::FIRST_WAITING] {
        assert_uses(&conn, sql, line);
    }
    let lane = "legwork_waiting (waits_on=? AND waits_as=? AND lane>?)";
    assert_uses(&conn, limits::NEXT_GROUP[0], lane);
    assert_uses(&conn, limits::NEXT_GROUP[1], "legwork_waiting (waits_on=? AND waits_as>?)");
    for sql in [limits::MAKE_NEXT, limits::WAIT, limits::LEAVE_LINE] {
        assert_uses(&conn, sql, BY_ID);
    }
    assert_uses(&conn, limits::LOOKS_DUE, "legwork_next_look (look_at<?)");
    assert_uses(&conn, limits::NEXT_LOOK, "legwork_next_look");
}

#[test]
fn parents_and_children_are_found_by_either_side_of_an_edge() {
    let conn = file();
    assert_uses(&conn, edges::CHILDREN, "PRIMARY KEY (parent=? AND child>?)");
    for sql in [edges::LEFT, edges::IN_VAIN] {
        assert_uses(&conn, sql, "legwork_parents (child=?");
    }
    assert_uses(&conn, edges::FORGET[0], "PRIMARY KEY (parent=?)");
    assert_uses(&conn, edges::FORGET[1], "legwork_parents (child=?)");
}

#[test]
fn a_flow_counts_in_its_row_and_finds_its_members_in_their_index() {
    let conn = file();
    for sql in [flows::JOIN, flows::COUNT_END, flows::COUNT_RETURN] {
        assert_uses(&conn, sql, BY_ID);
    }
    assert_uses(&conn, flows::CALLBACKS, "PRIMARY KEY (flow=?)");
    assert_uses(&conn, flows::CALLBACK_OF, "legwork_callback_jobs (id=?)");
    assert_uses(&conn, flows::NEXT_PRUNE, "legwork_next_flow_prune");
    // It walks over what is left to settle, too: a few rows, if any.
    let expired = plan(&conn, flows::EXPIRED);
    assert!(expired.contains("legwork_next_flow_prune (prune_at>? AND prune_at<?)"), "{expired}");
    assert_uses(&conn, flows::MEMBERS, "legwork_finished_members (flow=?)");
    for (finished, index) in [(false, "legwork_members"), (true, "legwork_finished_members")] {
        let filter = Filter::new().flow(FlowId(1));
        let sql = list_sql(&conn, &filter, finished).unwrap();
        assert_uses(&conn, &sql, &format!("{index} (flow=?"));
    }
}

fn list_sql(conn: &Connection, filter: &Filter, finished: bool) -> Option<String> {
    let conditions = query::Conditions::with_index(conn, filter, finished).unwrap()?;
    Some(query::list_sql(&conditions, finished))
}

#[test]
fn lists_walk_the_ids_or_the_index_of_their_state_and_never_sort() {
    let conn = file();
    let filters = [
        Filter::new(),
        Filter::new().kind("k"),
        Filter::new().queue("a").tag("t"),
        Filter::new().state(State::Completed),
        Filter::new().state(State::Blocked),
        Filter::new().state(State::Blocked).state(State::Ready).kind("k"),
        Filter::new().since(time::OffsetDateTime::UNIX_EPOCH).text("x").error("x").arg("a.0", "x"),
    ];
    for filter in filters {
        for finished in [false, true] {
            if let Some(sql) = list_sql(&conn, &filter, finished) {
                assert_uses(&conn, &sql, "job USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)");
            }
        }
    }
    for (state, index) in
        [(State::Failed, "legwork_list_failed"), (State::Cancelled, "legwork_list_cancelled")]
    {
        let sql = list_sql(&conn, &Filter::new().state(state).kind("k"), true).unwrap();
        assert_uses(&conn, &sql, index);
        let conditions = query::Conditions::of(&Filter::new().state(state), true).unwrap();
        assert_uses(&conn, &query::failed_sql(&conditions, true), index);
    }
}

#[test]
fn the_few_jobs_of_a_state_are_found_in_its_index_and_reached_by_their_ids() {
    let conn = file();
    for (state, index) in [
        (State::Scheduled, "legwork_next_scheduled"),
        (State::Retrying, "legwork_next_retrying"),
        (State::Ready, "legwork_next_ready"),
        (State::Ready, "legwork_next_suspect"),
        (State::Running, "legwork_held"),
    ] {
        let sql = list_sql(&conn, &Filter::new().state(state), false).unwrap();
        let plan = plan(&conn, &sql);
        assert!(plan.contains(index), "{state}: not by {index}:\n{plan}");
        assert!(plan.contains("job USING INTEGER PRIMARY KEY (rowid=?)"), "{state}:\n{plan}");
    }
    let sql = list_sql(&conn, &Filter::new().id(JobId(7)), true).unwrap();
    assert!(plan(&conn, &sql).contains("job USING INTEGER PRIMARY KEY (rowid=?)"));
}

#[test]
fn a_list_keeps_to_its_index_though_sqlite_has_learnt_that_there_is_one_row() {
    let conn = file();
    conn.execute_batch("UPDATE sqlite_stat1 SET stat = '1 1 1 1'; ANALYZE sqlite_schema;").unwrap();
    for (filter, finished, index) in [
        (Filter::new().state(State::Failed), true, "legwork_list_failed"),
        (Filter::new().flow(FlowId(20_007)), false, "legwork_members"),
        (Filter::new().state(State::Running), false, "legwork_held"),
    ] {
        let sql = list_sql(&conn, &filter, finished).unwrap();
        let plan = plan(&conn, &sql);
        assert!(plan.contains(index), "not by {index}:\n{sql}\n{plan}");
    }
}

#[test]
fn what_is_ready_is_counted_in_its_index_and_what_all_hold_in_theirs() {
    let conn = file();
    assert_uses(&conn, query::BACKLOG[0], "job USING INDEX legwork_next_ready");
    assert!(plan(&conn, query::BACKLOG[1]).contains("job USING INDEX legwork_next_suspect"));
    assert_uses(&conn, instance::HELD_BY_ALL, "legwork_held");
}

#[test]
fn what_waits_is_walked_by_its_ids_a_page_at_a_time() {
    assert_uses(&file(), kinds::PENDING, "SEARCH job USING INTEGER PRIMARY KEY (rowid>?)");
}

#[test]
fn a_query_without_its_index_is_noticed() {
    let conn = file();
    conn.execute_batch("DROP INDEX legwork_next_ready").unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_uses(&conn, claim::NEXT_READY, "legwork_next_ready");
    }));
    assert!(found.is_err());
}
