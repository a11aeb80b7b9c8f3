//! The part of a filter that one table can hold, as SQL.
//!
//! Nothing of a filter is ever part of the text: its values are bound. Where an index leads to the rows it
//! is named, whatever SQLite has learnt of the file.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::gates;
use crate::clock::to_micros;
use crate::record::{Arg, Filter};
use crate::state::State;

/// The end of the last failed attempt of a job.
pub(super) const LAST_FAILURE: &str = "(SELECT attempt.COLUMN FROM legwork_attempts AS attempt
    WHERE attempt.job = job.id AND attempt.counted = 1 ORDER BY attempt.seq DESC LIMIT 1)";

/// So few rows of an index are sorted rather than sought along the ids.
const FEW: i64 = 4_000;

/// `?1`: ids below, `?2`: ids from there on.
pub(in crate::store::sqlite) struct Conditions {
    /// The table as `job`, with what leads to its rows.
    pub(in crate::store::sqlite) from: String,
    /// ` WHERE ...`
    pub(in crate::store::sqlite) sql: String,
    /// From `?3` on.
    pub(in crate::store::sqlite) values: Vec<Value>,
    /// It looks at the job's lane.
    pub(super) joins: bool,
    /// `from` names the few rows or their index: there is no need to go along the ids.
    pub(super) indexed: bool,
}

impl Conditions {
    /// `None`: the table has nothing of it.
    pub(in crate::store::sqlite) fn of(filter: &Filter, finished: bool) -> Option<Conditions> {
        let table = if finished { "legwork_history AS job" } else { "legwork_jobs AS job" };
        let mut all = Conditions {
            from: table.to_owned(),
            sql: String::from(" WHERE job.id < ?1 AND job.id >= ?2"),
            values: Vec::new(),
            joins: false,
            indexed: false,
        };
        all.names(filter, finished);
        all.states(filter, finished)?;
        for tag in &filter.tags {
            let tag = all.place(tag.clone());
            all.sql += &format!(
                " AND EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(job.tags) THEN job.tags
                                                      ELSE '[]' END) WHERE value = {tag})"
            );
        }
        for text in &filter.errors {
            let text = all.place(text.clone());
            all.failure(finished, "reason", "error", |it| {
                format!("instr(lower({it}), lower({text}))")
            });
        }
        if let Some(at) = filter.failed_since {
            let at = all.place(to_micros(at));
            all.failure(finished, "finished_at", "ended_at", |it| format!("{it} >= {at}"));
        }
        for arg in &filter.args {
            all.arg(arg);
        }
        for text in &filter.texts {
            all.text(text, finished);
        }
        if let Some(since) = filter.since {
            let since = all.place(to_micros(since));
            all.sql += &format!(" AND job.enqueued_at >= {since}");
        }
        if let Some(until) = filter.until {
            let until = all.place(to_micros(until));
            all.sql += &format!(" AND job.enqueued_at < {until}");
        }
        Some(all)
    }

    /// The same; where few rows are in the filter's states, by an index.
    pub(in crate::store::sqlite) fn with_index(
        conn: &Connection,
        filter: &Filter,
        finished: bool,
    ) -> rusqlite::Result<Option<Conditions>> {
        let Some(mut all) = Conditions::of(filter, finished) else { return Ok(None) };
        if !finished
            && !all.indexed
            && let Some(few) = few(conn, filter)?
        {
            all.only(&few);
        }
        Ok(Some(all))
    }

    /// Only these ids, each once: they lead to the rows, unless something else does.
    fn only(&mut self, ids: &str) {
        if !self.indexed {
            self.indexed = true;
            self.from = format!("({ids}) AS named CROSS JOIN {} ON job.id = named.id", self.from);
        }
    }

    /// This index leads to the rows, unless something else does.
    fn by(&mut self, index: &str) {
        if !self.indexed {
            self.indexed = true;
            self.from += &format!(" INDEXED BY {index}");
        }
    }

    /// A place for a value. Nothing of a filter is ever part of the text but by this.
    fn place(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len() + 2)
    }

    fn places<T: Clone + Into<Value>>(&mut self, values: &[T]) -> String {
        let places: Vec<String> = values.iter().map(|value| self.place(value.clone())).collect();
        places.join(", ")
    }

    fn states(&mut self, filter: &Filter, finished: bool) -> Option<()> {
        if filter.states.is_empty() {
            return Some(());
        }
        let states: Vec<State> =
            filter.states.iter().copied().filter(|state| state.is_finished() == finished).collect();
        match states[..] {
            [] => return None,
            // Alone these have an index each; as literals, so that it is seen to apply.
            [state @ (State::Failed | State::Cancelled)] => {
                self.sql += &format!(" AND job.state = {}", state.code());
                self.by(match state {
                    State::Failed => "legwork_list_failed",
                    _ => "legwork_list_cancelled",
                });
            }
            _ => {
                // `+` keeps the list in the order of ids instead of an index of the claims.
                let codes: Vec<String> = states.iter().map(|s| s.code().to_string()).collect();
                // Only these two are not always shown as they stand.
                let as_it_stands =
                    states.contains(&State::Ready) == states.contains(&State::Blocked);
                let as_it_stands = finished || as_it_stands;
                self.joins |= !as_it_stands;
                let state = if as_it_stands { "job.state" } else { gates::SHOWN };
                self.sql += &format!(" AND +({state}) IN ({})", codes.join(", "));
            }
        }
        Some(())
    }

    fn names(&mut self, filter: &Filter, finished: bool) {
        if !filter.ids.is_empty() {
            let ids: BTreeSet<i64> = filter.ids.iter().map(|id| id.0).collect();
            let ids = self.place(serde_json::json!(ids).to_string());
            self.only(&format!("SELECT value AS id FROM json_each({ids})"));
        }
        if let Some(flow) = filter.flow {
            let flow = self.place(flow.0);
            self.sql += &format!(" AND job.flow = {flow}");
            self.by(if finished { "legwork_finished_members" } else { "legwork_members" });
        }
        if let Some(lanes) = lanes(filter, &mut |names| self.places(names)) {
            // A number to compare, and not a lane to find for each job.
            self.sql += &format!(" AND +job.lane IN ({lanes})");
        }
    }

    /// What a failed job tells in one column of its own, or the last failed attempt of any in another.
    fn failure(
        &mut self,
        finished: bool,
        own: &str,
        of_attempt: &str,
        condition: impl Fn(&str) -> String,
    ) {
        let attempt = condition(&LAST_FAILURE.replace("COLUMN", of_attempt));
        if finished {
            let own = condition(&format!("job.{own}"));
            self.sql +=
                &format!(" AND (job.state = {} AND {own} OR {attempt})", State::Failed.code());
        } else {
            self.sql += &format!(" AND {attempt}");
        }
    }

    /// A step down for each name of the path: whether it is a key or a position is seen at each. A text that
    /// is no JSON has nothing below it.
    fn arg(&mut self, arg: &Arg) {
        let mut from = String::new();
        let mut on = Vec::new();
        for (at, name) in arg.path.iter().enumerate() {
            let above = match at {
                0 => "CASE WHEN json_valid(job.args) THEN job.args END".to_owned(),
                _ => format!(
                    "CASE WHEN at{0}.type IN ('object', 'array') THEN at{0}.value END",
                    at - 1
                ),
            };
            let comma = if at == 0 { "" } else { ", " };
            from += &format!("{comma}json_each({above}) AS at{at}");
            let name = self.place(name.clone());
            on.push(format!("CAST(at{at}.key AS TEXT) = {name}"));
        }
        let last = arg.path.len() - 1;
        let word = self.place(arg.value.clone());
        let mut equals = format!(
            "(at{last}.type = 'text' AND at{last}.atom = {word}
              OR at{last}.type IN ('true', 'false', 'null') AND at{last}.type = {word}"
        );
        if let Some(number) = number(&arg.value) {
            let number = self.place(number);
            equals +=
                &format!(" OR at{last}.type IN ('integer', 'real') AND at{last}.atom = {number}");
        }
        self.sql +=
            &format!(" AND EXISTS (SELECT 1 FROM {from} WHERE {} AND {equals}))", on.join(" AND "));
    }

    fn text(&mut self, text: &str, finished: bool) {
        let text = self.place(text.to_owned());
        let has = |column: &str| format!("instr(lower({column}), lower({text}))");
        let mut found = vec![
            // Once for each lane, and not for each job.
            format!(
                "+job.lane IN (SELECT id FROM legwork_lanes WHERE {} OR {})",
                has("kind"),
                has("queue")
            ),
            has("job.tags"),
            has("job.args"),
        ];
        if finished {
            found.push(has("job.reason"));
        }
        self.sql += &format!(" AND ({})", found.join(" OR "));
    }

    pub(in crate::store::sqlite) fn bound(
        &self,
        below: i64,
        from: i64,
    ) -> impl Iterator<Item = Value> {
        [Value::from(below), Value::from(from)].into_iter().chain(self.values.iter().cloned())
    }
}

/// The number that a text is in JSON.
fn number(text: &str) -> Option<Value> {
    match text.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => text.parse().ok().filter(|real: &f64| real.is_finite()).map(Value::from),
    }
}

/// The lanes of a filter's kinds and queues; `None`: it names neither.
fn lanes(filter: &Filter, places: &mut dyn FnMut(&[String]) -> String) -> Option<String> {
    let mut conditions = Vec::new();
    for (column, names) in [("kind", &filter.kinds), ("queue", &filter.queues)] {
        if !names.is_empty() {
            conditions.push(format!("{column} IN ({})", places(names)));
        }
    }
    let lanes = "SELECT id FROM legwork_lanes WHERE ";
    (!conditions.is_empty()).then(|| lanes.to_owned() + &conditions.join(" AND "))
}

/// Whether any job, finished or not, can be in a lane of the filter.
pub(super) fn has_lanes(conn: &Connection, filter: &Filter) -> rusqlite::Result<bool> {
    let mut values: Vec<String> = Vec::new();
    let lanes = lanes(filter, &mut |names| {
        let first = values.len() + 1;
        values.extend(names.iter().cloned());
        let places: Vec<String> = (first..=values.len()).map(|at| format!("?{at}")).collect();
        places.join(", ")
    });
    match lanes {
        Some(lanes) => conn.prepare_cached(&lanes)?.exists(params_from_iter(values)),
        None => Ok(true),
    }
}

/// Where the jobs stand that are in this state and not finished; `None`: no index knows it.
fn where_in_state(state: State) -> Option<&'static str> {
    Some(match state {
        State::Scheduled => {
            "SELECT id FROM legwork_jobs INDEXED BY legwork_next_scheduled WHERE state = 1"
        }
        State::Ready => {
            "SELECT id FROM legwork_jobs INDEXED BY legwork_next_ready
              WHERE state = 3 AND instance IS NULL AND crashes IS NULL
             UNION ALL
             SELECT id FROM legwork_jobs INDEXED BY legwork_next_suspect
              WHERE state = 3 AND instance IS NULL AND crashes IS NOT NULL
             UNION ALL
             SELECT id FROM legwork_jobs INDEXED BY legwork_held
              WHERE instance IS NOT NULL AND state = 3"
        }
        State::Running => {
            "SELECT id FROM legwork_jobs INDEXED BY legwork_held
              WHERE instance IS NOT NULL AND state = 4"
        }
        State::Retrying => {
            "SELECT id FROM legwork_jobs INDEXED BY legwork_next_retrying WHERE state = 5"
        }
        _ => return None,
    })
}

/// The few jobs that can be in the filter's states, if they are few and indexes know them all.
pub(in crate::store::sqlite) fn few(
    conn: &Connection,
    filter: &Filter,
) -> rusqlite::Result<Option<String>> {
    let live: BTreeSet<State> =
        filter.states.iter().copied().filter(|state| !state.is_finished()).collect();
    let parts = live.into_iter().map(where_in_state).collect::<Option<Vec<_>>>();
    let Some(parts) = parts else {
        return Ok(None);
    };
    if parts.is_empty() {
        return Ok(None);
    }
    let all = parts.join(" UNION ALL ");
    let counted = format!("SELECT count(*) FROM ({all} LIMIT {})", FEW + 1);
    let found: i64 = conn.prepare_cached(&counted)?.query_row([], |row| row.get(0))?;
    Ok((found <= FEW).then_some(all))
}
