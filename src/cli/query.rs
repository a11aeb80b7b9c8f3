//! The query language: `state:failed kind:mail args.user_id:7 since:1h timeout`.

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

const TERMS: &str = "terms are id:, state:, kind:, queue:, tag:, flow:, error:, args.PATH:, since:, \
until: and failed:; any other word is looked for as text, and anything in quotation marks";

/// What stands between blanks.
#[derive(Debug, PartialEq)]
struct Term {
    text: String,
    /// It begins with a quotation mark: a text, whatever it looks like.
    quoted: bool,
}

/// Reads the terms. Several of a name: any of them for id, state, kind and queue, all of them for the
/// others.
pub(super) fn parse(words: &[String], now: OffsetDateTime) -> Result<Query, Trouble> {
    let mut query = Query { filter: Filter::new(), has_state: false };
    for word in words {
        for term in split(word)? {
            query = query.with(&term, now)?;
        }
    }
    Ok(query)
}

impl Query {
    fn with(self, term: &Term, now: OffsetDateTime) -> Result<Query, Trouble> {
        let Term { text: term, quoted } = term;
        let bad =
            |why: &str| Trouble::usage(format_args!("query term {term:?}: {why}")).hint(TERMS);
        let Query { filter, has_state } = self;
        let (name, value) = match term.split_once(':') {
            Some(parts) if !quoted => parts,
            _ => return Ok(Query { filter: filter.text(term), has_state }),
        };
        if value.is_empty() {
            return Err(bad("it has no value"));
        }
        let filter = match name {
            "state" => {
                let state = State::ALL
                    .into_iter()
                    .find(|state| state.as_str() == value)
                    .ok_or_else(|| bad(&format!("the states are {}", states())))?;
                return Ok(Query { filter: filter.state(state), has_state: true });
            }
            "id" => filter.id(value.parse().map_err(|_| bad("an id is a number"))?),
            "kind" => filter.kind(value),
            "queue" => filter.queue(value),
            "tag" => filter.tag(value),
            "flow" => filter.flow(value.parse().map_err(|_| bad("a flow has a number"))?),
            "since" => filter.since(times::past(value, now).map_err(|why| bad(&why))?),
            "until" => filter.until(times::past(value, now).map_err(|why| bad(&why))?),
            "error" => filter.error(value),
            "failed" => filter.failed_since(times::past(value, now).map_err(|why| bad(&why))?),
            _ => match name.strip_prefix("args.") {
                Some(path) if path.split('.').all(|part| !part.is_empty()) => {
                    filter.arg(path, value)
                }
                Some(_) => return Err(bad("a path is made of names with dots between them")),
                None => return Err(bad("there is no such name")),
            },
        };
        Ok(Query { filter, has_state })
    }
}

fn states() -> String {
    State::ALL.map(State::as_str).join(", ")
}

/// The terms of one argument, between blanks; `"` keeps blanks together.
fn split(word: &str) -> Result<Vec<Term>, Trouble> {
    let mut terms = Vec::new();
    let mut term = Term { text: String::new(), quoted: false };
    let mut in_quotes = false;
    for c in word.chars().chain([' ']) {
        match c {
            '"' => {
                term.quoted |= term.text.is_empty();
                in_quotes = !in_quotes;
            }
            c if c.is_whitespace() && !in_quotes => {
                let done =
                    std::mem::replace(&mut term, Term { text: String::new(), quoted: false });
                if !done.text.is_empty() {
                    terms.push(done);
                }
            }
            c => term.text.push(c),
        }
    }
    if in_quotes {
        return Err(Trouble::usage("the query has a quotation mark that is not closed"));
    }
    Ok(terms)
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
        for bad in [
            "state:done",
            "colour:red",
            "kind:",
            "since:soon",
            "id:x",
            "flow:x",
            "args.:x",
            "args.a..b:1",
            "args.a.:1",
            "args:1",
            "failed:soon",
        ] {
            let trouble = format!("{:?}", query(&["queue:x", bad]).unwrap_err());
            assert!(trouble.contains(bad), "{trouble}");
        }
    }

    #[test]
    fn words_without_a_name_and_what_stands_in_quotation_marks_are_text() {
        let filter = Filter::new().text("timeout").text("state:failed a").error("no such user");
        let one = query(&["timeout \"state:failed a\"", "error:\"no such user\""]).unwrap();
        assert_eq!(one, Query { filter, has_state: false });
        assert!(query(&["\"two words"]).is_err());
        assert_eq!(query(&["\"\""]).unwrap().filter, Filter::new());
    }

    #[test]
    fn a_path_leads_into_the_arguments() {
        let filter = Filter::new().arg("to.name", "Anna B").arg("list.0", "http://x:1");
        let one = query(&["args.to.name:\"Anna B\" args.list.0:http://x:1"]).unwrap();
        assert_eq!(one.filter, filter);
    }
}
