//! The query language: `state:failed kind:mail queue:high tag:eu since:1h`.

use time::OffsetDateTime;

use super::times;
use super::trouble::Trouble;
use crate::record::Filter;
use crate::state::State;

/// A query that was understood.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    pub(super) filter: Filter,
    /// Whether it names a state.
    pub(super) has_state: bool,
}

const TERMS: &str = "terms are state:, kind:, queue:, tag:, since: and until:";

/// Reads the terms. Several of a name: any of them for state, kind and queue, all of them for tags.
pub(super) fn parse(words: &[String], now: OffsetDateTime) -> Result<Query, Trouble> {
    let mut query = Query { filter: Filter::new(), has_state: false };
    for word in words {
        for term in split(word) {
            query = query.with(&term, now)?;
        }
    }
    Ok(query)
}

impl Query {
    fn with(self, term: &str, now: OffsetDateTime) -> Result<Query, Trouble> {
        let bad =
            |why: &str| Trouble::usage(format_args!("query term {term:?}: {why}")).hint(TERMS);
        let Some((name, value)) = term.split_once(':') else {
            return Err(bad("it has no name"));
        };
        if value.is_empty() {
            return Err(bad("it has no value"));
        }
        let Query { filter, has_state } = self;
        let filter = match name {
            "state" => {
                let state = State::ALL
                    .into_iter()
                    .find(|state| state.as_str() == value)
                    .ok_or_else(|| bad(&format!("the states are {}", states())))?;
                return Ok(Query { filter: filter.state(state), has_state: true });
            }
            "kind" => filter.kind(value),
            "queue" => filter.queue(value),
            "tag" => filter.tag(value),
            "flow" => filter.flow(value.parse().map_err(|_| bad("a flow has a number"))?),
            "since" => filter.since(times::past(value, now).map_err(|why| bad(&why))?),
            "until" => filter.until(times::past(value, now).map_err(|why| bad(&why))?),
            _ => return Err(bad("there is no such name")),
        };
        Ok(Query { filter, has_state })
    }
}

fn states() -> String {
    State::ALL.map(State::as_str).join(", ")
}

/// The terms of one argument, between blanks; `"` keeps blanks together.
fn split(word: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut term = String::new();
    let mut quoted = false;
    for c in word.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !term.is_empty() {
                    terms.push(std::mem::take(&mut term));
                }
            }
            c => term.push(c),
        }
    }
    if !term.is_empty() {
        terms.push(term);
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-05-01 12:00 UTC);

    fn query(words: &[&str]) -> Result<Query, Trouble> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), NOW)
    }

    #[test]
    fn terms_come_in_one_argument_or_in_several() {
        let filter = Filter::new()
            .state(State::Failed)
            .kind("mail")
            .tag("two words")
            .since(datetime!(2026-05-01 11:00 UTC));
        let one = query(&["state:failed kind:mail tag:\"two words\" since:1h"]).unwrap();
        assert_eq!(one, Query { filter, has_state: true });
        assert_eq!(
            query(&["state:failed", "kind:mail", "tag:\"two words\"", "since:1h"]).unwrap(),
            one
        );
        assert!(!query(&["queue:a:b"]).unwrap().has_state);
    }

    #[test]
    fn a_bad_term_is_named() {
        for bad in ["state:done", "colour:red", "mail", "kind:", "since:soon"] {
            let trouble = format!("{:?}", query(&["queue:x", bad]).unwrap_err());
            assert!(trouble.contains(bad), "{trouble}");
        }
    }
}
