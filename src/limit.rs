//! How many jobs may run at once, and how many may start in a time.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Micros, micros_of};
use crate::error::{Error, Result};
use crate::rules::name;

/// Keeps jobs with one key from running too many at once, or from starting too often.
///
/// A key is one name for the whole file, over kinds, queues and processes; a limit and a rate of one
/// name are two things. A job may have several; it starts when all of them let it. Until then it is
/// `blocked`, uses no attempt and costs the others nothing. What is free is counted from what runs, or
/// has started, in the transaction of each start; so it is exact between processes, and nothing is lost
/// when one dies.
///
/// Jobs that name different numbers for one key each go by their own.
///
/// ```
/// # use std::time::Duration;
/// use legwork::{JobOptions, Limit, NewJob};
///
/// // Two at once for each account, by a field of the arguments: the key is `account:7`.
/// let options = JobOptions::new().limit(Limit::at_once("account", 2).by(["account_id"]));
///
/// // Ten a second, evenly spaced.
/// let job = NewJob::of_kind("call", serde_json::json!({})).rate("api.example.com", 10, Duration::from_secs(1));
///
/// // 5,000 an hour, however they come; this one counts as three.
/// let job = NewJob::of_kind("import", serde_json::json!({})).limited(
///     Limit::rate("api.example.com", 5_000, Duration::from_secs(3_600)).burst().weight(3),
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub(crate) key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) by: Vec<String>,
    /// The key and the fields that the key was made of, for when the arguments change; empty: of nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) of: Vec<String>,
    #[serde(flatten)]
    pub(crate) terms: Terms,
}

/// The numbers of a limit. As JSON they stand in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Terms {
    /// So many run at once.
    AtOnce(u32),
    /// So much starts in a time.
    Rate(Rate),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// Weight that may start in the time.
    pub(crate) most: u32,
    pub(crate) per: Micros,
    /// All of it may start together; otherwise evenly spaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) burst: bool,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) weight: u32,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// What happens to a job that could start but for a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnBusy {
    /// It waits until it may, in claim order. The default.
    #[default]
    Wait,
    /// It ends as `cancelled` at once, with the reason.
    Discard,
}

impl Limit {
    /// At most `most` jobs with this key run at once.
    pub fn at_once(key: impl Into<String>, most: u32) -> Limit {
        Limit { key: key.into(), by: Vec::new(), of: Vec::new(), terms: Terms::AtOnce(most) }
    }

    /// At most `most` attempts of jobs with this key start in any time of length `per`, evenly spaced:
    /// one each `per / most`. One that comes late is made up for by a little, so that a window may hold
    /// one start more, or two in a hundred.
    ///
    /// Evenly spaced starts are the generic cell rate algorithm (ITU-T I.371).
    pub fn rate(key: impl Into<String>, most: u32, per: Duration) -> Limit {
        let rate = Rate { most, per: micros_of(per), burst: false, weight: 1 };
        Limit { key: key.into(), by: Vec::new(), of: Vec::new(), terms: Terms::Rate(rate) }
    }

    /// Of a rate: all of it may start together; then nothing does until the first of them are `per`
    /// ago. No window of that length holds more than the rate. Starts are counted in hundredths of
    /// `per` and as one of them later, so that up to two in a hundred may go unused.
    pub fn burst(mut self) -> Limit {
        if let Terms::Rate(rate) = &mut self.terms {
            rate.burst = true;
        }
        self
    }

    /// Of a rate: how much one start counts, 1 to the rate itself. Default 1.
    ///
    /// A heavy job that is to start in a burst waits until there is room for all of it; lighter ones
    /// with the same key may start meanwhile.
    pub fn weight(mut self, weight: u32) -> Limit {
        if let Terms::Rate(rate) = &mut self.terms {
            rate.weight = weight;
        }
        self
    }

    /// A key for each value of these fields of the arguments, which must be a JSON object: `account` by
    /// `account_id` becomes `account:7`. A field that is missing counts as `null`.
    pub fn by<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Limit {
        self.by = fields.into_iter().map(Into::into).collect();
        self
    }

    /// The key, as far as it does not depend on arguments.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Refuses numbers that nothing could ever start by.
    pub(crate) fn check(&self) -> Result<()> {
        name::check("limit key", &self.key)?;
        match &self.terms {
            Terms::AtOnce(0) => Err(Error::invalid("limit", "it must let at least one run")),
            Terms::AtOnce(_) => Ok(()),
            Terms::Rate(rate) if rate.most == 0 || rate.per <= 0 => {
                Err(Error::invalid("rate", "it must let at least one start in more than no time"))
            }
            Terms::Rate(rate) if rate.weight == 0 || rate.weight > rate.most => {
                Err(Error::invalid(
                    "weight",
                    format!("it must be 1 to the rate's {}, not {}", rate.most, rate.weight),
                ))
            }
            Terms::Rate(_) => Ok(()),
        }
    }

    /// The limit with its key made of the arguments.
    pub(crate) fn resolved(self, args: &str) -> Result<Limit> {
        if self.by.is_empty() {
            return Ok(self);
        }
        let parsed = serde_json::from_str(args)
            .map_err(|source| Error::Json { what: "arguments", source })?;
        let Value::Object(args) = parsed else {
            let why = "a limit by fields needs arguments that are a JSON object";
            return Err(Error::invalid("limit key", why));
        };
        let mut key = self.key.clone();
        for field in &self.by {
            key.push(':');
            match args.get(field).unwrap_or(&Value::Null) {
                Value::String(text) => key.push_str(text),
                other => key.push_str(&other.to_string()),
            }
        }
        let of = [vec![self.key], self.by].concat();
        Ok(Limit { key, by: Vec::new(), of, terms: self.terms })
    }

    /// The limit as it was before its key was made of arguments.
    fn unresolved(self) -> Limit {
        match self.of.split_first() {
            Some((key, by)) => {
                Limit { key: key.clone(), by: by.to_vec(), of: Vec::new(), terms: self.terms }
            }
            None => self,
        }
    }

    /// Whether more than so many may start by it, if only in time.
    pub(crate) fn may_exceed(&self, number: u32) -> bool {
        match self.terms {
            Terms::AtOnce(most) => most > number,
            Terms::Rate(_) => true,
        }
    }

    /// The name of the line in which jobs wait for it, as the file has it.
    pub(crate) fn line(&self) -> String {
        match self.terms {
            Terms::AtOnce(_) => format!("limit:{}", self.key),
            Terms::Rate(_) => format!("rate:{}", self.key),
        }
    }
}

/// For people: `account:7: 2 at once`, `api: 10 in 1s, in a burst, this one 3`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.key)?;
        match &self.terms {
            Terms::AtOnce(most) => write!(f, "{most} at once"),
            Terms::Rate(rate) => {
                let per = Duration::from_micros(rate.per.unsigned_abs());
                write!(f, "{} in {per:?}", rate.most)?;
                if rate.burst {
                    f.write_str(", in a burst")?;
                }
                if rate.weight == 1 { Ok(()) } else { write!(f, ", this one {}", rate.weight) }
            }
        }
    }
}

/// All limits of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) limits: Vec<Limit>,
    #[serde(default)]
    pub(crate) on_busy: OnBusy,
}

impl Limits {
    /// Adds a limit, or takes it in place of one for the same key.
    pub(crate) fn put(list: &mut Vec<Limit>, limit: Limit) {
        let same = |other: &Limit| other.line() == limit.line() && other.by == limit.by;
        list.retain(|other| !same(other));
        list.push(limit);
    }

    /// Whether keys have still to be made of the arguments: of a job that came by SQL.
    pub(crate) fn is_unresolved(&self) -> bool {
        self.limits.iter().any(|limit| !limit.by.is_empty())
    }

    /// With the keys made of the arguments.
    pub(crate) fn resolved(&self, args: &str) -> Result<Option<Limits>> {
        Limits::of(self.limits.clone(), self.on_busy, args)
    }

    /// With the keys made anew, of other arguments.
    pub(crate) fn remade(&self, args: &str) -> Result<Option<Limits>> {
        let limits = self.limits.iter().cloned().map(Limit::unresolved).collect();
        Limits::of(limits, self.on_busy, args)
    }

    /// What a job is stored with: its limits with their keys; `None` for one that has none.
    pub(crate) fn of(list: Vec<Limit>, on_busy: OnBusy, args: &str) -> Result<Option<Limits>> {
        let mut limits: Vec<Limit> = Vec::with_capacity(list.len());
        for limit in list {
            let limit = limit.resolved(args)?;
            limit.check()?;
            Limits::put(&mut limits, limit);
        }
        Ok((!limits.is_empty()).then_some(Limits { limits, on_busy }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_by_fields_is_made_of_their_values() {
        let limit = Limit::at_once("account", 2).by(["id", "region"]);
        let key = |args: &str| limit.clone().resolved(args).map(|limit| limit.key);
        assert_eq!(key(r#"{"id":7,"region":"eu"}"#).unwrap(), "account:7:eu");
        assert_eq!(key("{}").unwrap(), "account:null:null");
        assert!(matches!(key("[7]"), Err(Error::Invalid { what: "limit key", .. })));
    }

    #[test]
    fn a_key_that_was_made_of_fields_is_made_anew_of_other_arguments() {
        let list = vec![Limit::at_once("account", 2).by(["id"]), Limit::at_once("fixed", 1)];
        let limits = Limits::of(list, OnBusy::Wait, r#"{"id":7}"#).unwrap().unwrap();
        let stored = serde_json::to_string(&limits).unwrap();
        let limits: Limits = serde_json::from_str(&stored).unwrap();
        let remade = limits.remade(r#"{"id":8}"#).unwrap().unwrap();
        let keys: Vec<&str> = remade.limits.iter().map(Limit::key).collect();
        assert_eq!(keys, ["account:8", "fixed"]);
        assert_eq!(remade.remade(r#"{"id":7}"#).unwrap().unwrap(), limits);
        assert!(limits.remade("[7]").is_err());
    }

    #[test]
    fn numbers_that_nothing_could_start_by_are_refused() {
        let second = Duration::from_secs(1);
        for (limit, what) in [
            (Limit::at_once("k", 0), "limit"),
            (Limit::at_once("", 1), "limit key"),
            (Limit::rate("k", 0, second), "rate"),
            (Limit::rate("k", 1, Duration::ZERO), "rate"),
            (Limit::rate("k", 3, second).weight(4), "weight"),
            (Limit::rate("k", 3, second).weight(0), "weight"),
        ] {
            match Limits::of(vec![limit], OnBusy::Wait, "{}") {
                Err(Error::Invalid { what: named, .. }) => assert_eq!(named, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn one_key_counts_once_and_the_later_number_wins() {
        let mut list = vec![Limit::at_once("k", 1)];
        Limits::put(&mut list, Limit::rate("k", 1, Duration::from_secs(1)));
        Limits::put(&mut list, Limit::at_once("k", 5));
        let limits = Limits::of(list, OnBusy::Wait, "{}").unwrap().unwrap().limits;
        assert_eq!(limits.len(), 2);
        assert_eq!(limits[1], Limit::at_once("k", 5));
    }

    #[test]
    fn it_is_told_in_words() {
        let rate = Limit::rate("api", 10, Duration::from_secs(1));
        assert_eq!(Limit::at_once("a:7", 2).to_string(), "a:7: 2 at once");
        assert_eq!(rate.clone().to_string(), "api: 10 in 1s");
        assert_eq!(rate.burst().weight(3).to_string(), "api: 10 in 1s, in a burst, this one 3");
    }

    #[test]
    fn it_is_stored_in_few_words_and_read_again() {
        let limits = Limits {
            limits: vec![
                Limit::at_once("a", 2),
                Limit::rate("b", 10, Duration::from_secs(1)),
                Limit::rate("c", 10, Duration::from_secs(1)).burst().weight(3),
            ],
            on_busy: OnBusy::Discard,
        };
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(
            json,
            r#"{"limits":[{"key":"a","at_once":2},{"key":"b","rate":{"most":10,"per":1000000}},{"key":"c","rate":{"most":10,"per":1000000,"burst":true,"weight":3}}],"on_busy":"discard"}"#
        );
        assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
    }
}
