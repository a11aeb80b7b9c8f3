//! The key of a unique job, and how long its row is held.

use std::hash::Hasher;
use std::time::Duration;

use serde_json::Value;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::clock::{Micros, micros_of};
use crate::error::{Error, Result};
use crate::rules::name;
use crate::unique::{By, Conflict, Unique, Window};

/// When a job's key is freed; the numbers stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(crate) enum Hold {
    UntilStarted = 1,
    UntilFinished = 2,
    Period = 3,
    /// One runs, one waits.
    KeepLast = 4,
}

impl Hold {
    pub(crate) fn code(self) -> i64 {
        self as i64
    }

    pub(crate) fn from_code(code: i64) -> Option<Hold> {
        [Hold::UntilStarted, Hold::UntilFinished, Hold::Period, Hold::KeepLast]
            .into_iter()
            .find(|hold| hold.code() == code)
    }

    /// Whether a start changes what is held, so that the job cannot be claimed ahead.
    pub(crate) fn moves_at_start(self) -> bool {
        matches!(self, Hold::UntilStarted | Hold::KeepLast)
    }
}

/// A job's claim to a key, as the store takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) hold: Hold,
    /// For a period: its end.
    pub(crate) until: Option<Micros>,
    pub(crate) conflict: Conflict,
    /// A refusal is an answer and not an error.
    pub(crate) report: bool,
}

/// The key that a job claims.
///
/// # Errors
/// [`Error::Invalid`] for a bad key, or fields of arguments that are no object.
pub(crate) fn key(unique: &Unique, kind: &str, args: &str, now: Micros) -> Result<Key> {
    let name = name_by(&unique.by, kind, args)?;
    let (hold, until) = match (unique.conflict, unique.window) {
        (Conflict::KeepLast, _) => (Hold::KeepLast, None),
        (_, Window::Started) => (Hold::UntilStarted, None),
        (_, Window::Finished) => (Hold::UntilFinished, None),
        (_, Window::Period(period)) if period < Duration::from_micros(1) => {
            return Err(Error::invalid("unique period", "it must be longer than zero"));
        }
        (_, Window::Period(period)) => (Hold::Period, Some(now.saturating_add(micros_of(period)))),
    };
    Ok(Key { name, hold, until, conflict: unique.conflict, report: false })
}

fn name_by(by: &By, kind: &str, args: &str) -> Result<String> {
    match by {
        By::Key(key) => {
            name::check("unique key", key)?;
            Ok(key.clone())
        }
        By::Args => Ok(by_value(kind, &parse(args)?)),
        By::Fields(fields) => {
            let Value::Object(args) = parse(args)? else {
                let why = "unique fields need arguments that are a JSON object";
                return Err(Error::invalid("unique key", why));
            };
            let chosen = fields
                .iter()
                .map(|field| (field.clone(), args.get(field).cloned().unwrap_or(Value::Null)));
            Ok(by_value(kind, &Value::Object(chosen.collect())))
        }
    }
}

/// Whether a key may have been made of arguments.
pub(crate) fn is_of_args(name: &str, kind: &str) -> bool {
    name.strip_prefix("args:").and_then(|rest| rest.strip_prefix(kind)).is_some()
}

/// Whether it looks like a key that was made of arguments.
pub(crate) fn is_made_of_args(name: &str, kind: &str) -> bool {
    let hash = name.strip_prefix("args:").and_then(|rest| rest.strip_prefix(kind));
    let hash = hash.and_then(|rest| rest.strip_prefix(':'));
    hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The key that a job with this one has once its arguments are other ones. A key does not say of which
/// fields it was made; but if all arguments make it, or the rule of its kind, so they do again.
///
/// # Errors
/// [`Error::Invalid`] if neither makes it.
pub(crate) fn renamed(
    name: &str,
    kind: &str,
    old: &str,
    new: &str,
    rule: Option<&Unique>,
) -> Result<String> {
    let made = |by: &By| name_by(by, kind, old).is_ok_and(|made| made == name);
    let mut rules = [&By::Args].into_iter().chain(rule.map(|rule| &rule.by));
    match rules.find(|by| made(by)) {
        Some(by) => name_by(by, kind, new),
        None => Err(Error::invalid(
            "edit",
            "the unique key was made of fields of the arguments, and nobody knows of which; \
             cancel the job and enqueue another one",
        )),
    }
}

fn parse(args: &str) -> Result<Value> {
    serde_json::from_str(args).map_err(|source| Error::Json { what: "arguments", source })
}

/// 128 bits: two of 2^40 different arguments meet with a probability of one in 2^49.
fn by_value(kind: &str, value: &Value) -> String {
    let mut hasher = SipHasher24::new_with_keys(0x6c65_6777_6f72_6b31, 0x756e_6971_7565_6b31);
    write_canonical(value, &mut hasher);
    format!("args:{kind}:{:032x}", hasher.finish128().as_u128())
}

/// Feeds a value in one form: whatever the order of an object's fields.
fn write_canonical(value: &Value, hasher: &mut SipHasher24) {
    match value {
        Value::Array(items) => {
            hasher.write(b"[");
            for item in items {
                write_canonical(item, hasher);
                hasher.write(b",");
            }
            hasher.write(b"]");
        }
        Value::Object(fields) => {
            // Sorted by hand: whether serde_json keeps the order is up to features of the app.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            hasher.write(b"{");
            for (name, value) in fields {
                hasher.write(Value::String(name.clone()).to_string().as_bytes());
                hasher.write(b":");
                write_canonical(value, hasher);
                hasher.write(b",");
            }
            hasher.write(b"}");
        }
        plain => hasher.write(plain.to_string().as_bytes()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;
    use std::time::Duration;

    fn named(unique: &Unique, kind: &str, args: &str) -> String {
        key(unique, kind, args, 0).unwrap().name
    }

    #[test]
    fn by_arguments_their_order_makes_no_difference_and_everything_else_does() {
        let by = Unique::by_args();
        let one = named(&by, "k", r#"{"a":1,"b":{"c":[1,"2"],"d":null}}"#);
        assert_eq!(one, named(&by, "k", r#"{ "b": {"d":null,"c":[1,"2"]}, "a": 1 }"#));
        for other in [
            r#"{"a":1,"b":{"c":[1,2],"d":null}}"#,
            r#"{"a":1,"b":{"c":["2",1],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,"2"]}}"#,
            r#"{"a":1}"#,
        ] {
            assert_ne!(one, named(&by, "k", other), "{other}");
        }
        assert_ne!(one, named(&by, "l", r#"{"a":1,"b":{"c":[1,"2"],"d":null}}"#));
        // Written to files: it must never change.
        assert_eq!(named(&by, "k", "{}"), "args:k:6c41b16f42a8be91ddf12d81f4f28985");
    }

    #[test]
    fn by_fields_the_others_make_no_difference() {
        let by = Unique::by_fields(["user"]);
        assert_eq!(
            named(&by, "k", r#"{"user":1,"at":5}"#),
            named(&by, "k", r#"{"at":6,"user":1}"#)
        );
        assert_ne!(named(&by, "k", r#"{"user":1}"#), named(&by, "k", r#"{"user":2}"#));
        assert_eq!(named(&by, "k", r#"{"user":null}"#), named(&by, "k", "{}"));
        let refused = key(&by, "k", "[1]", 0);
        assert!(matches!(refused, Err(Error::Invalid { what: "unique key", .. })));
    }

    #[test]
    fn a_key_of_arguments_is_made_anew_if_it_is_known_how() {
        let (old, new) = (r#"{"user":1,"at":5}"#, r#"{"user":2,"at":5}"#);
        let fields = Unique::by_fields(["user"]);
        let all = named(&Unique::by_args(), "k", old);
        assert_eq!(
            renamed(&all, "k", old, new, None).unwrap(),
            named(&Unique::by_args(), "k", new)
        );
        let one = named(&fields, "k", old);
        let renewed = renamed(&one, "k", old, new, Some(&fields)).unwrap();
        assert_eq!(renewed, named(&fields, "k", new));
        assert!(renamed(&one, "k", old, "[]", Some(&fields)).is_err());
        assert!(matches!(
            renamed(&one, "k", old, new, None),
            Err(Error::Invalid { what: "edit", .. })
        ));
        assert!(is_of_args(&one, "k") && !is_of_args("k", "k") && !is_of_args(&one, "l"));
    }

    #[test]
    fn a_period_counts_from_the_enqueue_and_keep_last_is_a_hold_of_its_own() {
        let period = Unique::by_key("x").for_period(Duration::from_secs(2));
        let found = key(&period, "k", "{}", 1_000_000).unwrap();
        assert_eq!((found.hold, found.until), (Hold::Period, Some(3_000_000)));
        let last = key(&period.on_conflict(Conflict::KeepLast), "k", "{}", 0).unwrap();
        assert_eq!((last.hold, last.until), (Hold::KeepLast, None));
        for bad in ["", "a\nb"] {
            assert!(key(&Unique::by_key(bad), "k", "{}", 0).is_err());
        }
    }
}
