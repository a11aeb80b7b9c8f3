//! Retry policies: whether and when a failed job runs again.

use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::rules::amount::set_span;

/// Jitter of every policy unless [`Retry::jitter`] says otherwise: each delay is stretched by a
/// random share of up to this fraction.
const JITTER: f64 = 0.15;

/// The longest delay of every policy unless [`Retry::cap`] says otherwise.
const CAP: Duration = Duration::from_secs(365 * 86_400);

/// What the function of [`Retry::custom`] looks like.
pub type CustomRetry = fn(&Failure, u32) -> Option<Duration>;

/// When a failed job runs again, and when it gives up.
///
/// `n` below counts the attempts that have failed, from 1. Every delay is stretched by a uniformly
/// random share of 0 to 15 % ([`jitter`](Retry::jitter)), so that jobs that failed together do not
/// return together.
///
/// | policy | delay after the n-th failure | attempts in all, by default |
/// |---|---|---|
/// | [`none`](Retry::none) | | 1 |
/// | [`fixed`](Retry::fixed)`(d)` | d | 25 |
/// | [`linear`](Retry::linear)`(d)` | d · n | 25 |
/// | [`exponential`](Retry::exponential)`(d)` | d · 2ⁿ⁻¹ | 25 |
/// | [`polynomial`](Retry::polynomial), the default | n⁴ seconds | 25, over about three weeks |
/// | [`custom`](Retry::custom)`(f)` | what `f` says; `None` gives up | no limit |
///
/// The polynomial is Sidekiq's. No delay exceeds [`cap`](Retry::cap), one year by default.
///
/// ```
/// # use std::time::Duration;
/// use legwork::Retry;
/// #[derive(Debug, thiserror::Error)] #[error("mail server says no")] struct SmtpError;
/// #[derive(Debug, thiserror::Error)] #[error("gone")] struct NotFound;
///
/// let retry = Retry::exponential(Duration::from_secs(5))
///     .cap(Duration::from_secs(3600))
///     .attempts(8)
///     .on::<SmtpError>(Retry::fixed(Duration::from_secs(300)).attempts(3))
///     .discard_on::<NotFound>();
/// ```
#[derive(Clone)]
pub struct Retry {
    plan: Plan,
    custom: Option<CustomRetry>,
    rules: Vec<Rule>,
}

/// The part of a policy that can be stored with a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    backoff: Backoff,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    cap: Duration,
    jitter: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_most: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Backoff {
    Fixed(Duration),
    Linear(Duration),
    Exponential(Duration),
    Polynomial,
}

#[derive(Clone)]
struct Rule {
    error: &'static str,
    matches: fn(&Failure) -> bool,
    then: Then,
}

#[derive(Clone)]
enum Then {
    Retry(Box<Retry>),
    Discard,
}

/// What a policy says of one failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Decision {
    RetryIn(Duration),
    GiveUp,
    Discard,
}

impl Retry {
    fn new(backoff: Backoff, attempts: u32) -> Retry {
        Retry {
            plan: Plan {
                backoff,
                attempts: Some(attempts),
                cap: CAP,
                jitter: JITTER,
                at_most: None,
            },
            custom: None,
            rules: Vec::new(),
        }
    }

    /// One attempt, no retry. If a job is given [more](crate::NewJob::attempts) all the same, the delays are
    /// those of [`polynomial`](Retry::polynomial).
    pub fn none() -> Retry {
        Retry::new(Backoff::Polynomial, 1)
    }

    /// The same delay each time.
    pub fn fixed(delay: Duration) -> Retry {
        Retry::new(Backoff::Fixed(delay), 25)
    }

    /// A delay that grows by `step` each time.
    pub fn linear(step: Duration) -> Retry {
        Retry::new(Backoff::Linear(step), 25)
    }

    /// A delay that starts at `first` and doubles each time.
    pub fn exponential(first: Duration) -> Retry {
        Retry::new(Backoff::Exponential(first), 25)
    }

    /// n⁴ seconds after the n-th failure: 1 s, 16 s, 81 s, ... The default.
    pub fn polynomial() -> Retry {
        Retry::new(Backoff::Polynomial, 25)
    }

    /// Asks `decide` after each failure, with the number of attempts that have failed (from 1):
    /// the delay before the next attempt, or `None` to give up. [`attempts`](Retry::attempts) and
    /// [`for_at_most`](Retry::for_at_most) bound it from outside.
    ///
    /// Such a policy belongs to a kind ([`JobOptions::retry`](crate::JobOptions::retry)): a
    /// function cannot be stored with a single job.
    pub fn custom(decide: CustomRetry) -> Retry {
        let mut retry = Retry::fixed(Duration::ZERO).jitter(0.0);
        retry.plan.attempts = None;
        retry.custom = Some(decide);
        retry
    }

    /// How many attempts there are in all, the first included; 0 counts as 1.
    pub fn attempts(mut self, attempts: u32) -> Retry {
        self.plan.attempts = Some(attempts.max(1));
        self
    }

    /// The longest delay, before jitter.
    pub fn cap(mut self, longest: Duration) -> Retry {
        self.plan.cap = longest;
        self
    }

    /// The largest random share by which a delay is stretched; 0.15 by default, 0 turns it off.
    /// Values outside 0 to 1 are brought into it.
    pub fn jitter(mut self, share: f64) -> Retry {
        self.plan.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// No attempt starts later than `period` after the job's first attempt started: a retry that
    /// would is given up instead.
    pub fn for_at_most(mut self, period: Duration) -> Retry {
        self.plan.at_most = Some(period);
        self
    }

    /// Another policy for failures with an `E` in their chain of sources. The first rule that
    /// matches decides; `policy`'s number of attempts counts all attempts of the job.
    pub fn on<E: StdError + 'static>(self, policy: Retry) -> Retry {
        self.rule::<E>(Then::Retry(Box::new(policy)))
    }

    /// Failures with an `E` in their chain of sources end the job as `cancelled`, without retry
    /// and without counting as a failure.
    pub fn discard_on<E: StdError + 'static>(self) -> Retry {
        self.rule::<E>(Then::Discard)
    }

    fn rule<E: StdError + 'static>(mut self, then: Then) -> Retry {
        self.rules.push(Rule {
            error: type_name::<E>(),
            matches: |failure| failure.find::<E>().is_some(),
            then,
        });
        self
    }

    /// The storable part, or why there is none.
    pub(crate) fn plan(&self) -> Result<Plan, &'static str> {
        if self.custom.is_some() {
            return Err(
                "a custom function cannot be stored with one job; set it in `Job::options`",
            );
        }
        if !self.rules.is_empty() {
            return Err(
                "rules for error types cannot be stored with one job; set them in `Job::options`",
            );
        }
        Ok(self.plan.clone())
    }

    pub(crate) fn from_plan(plan: Plan) -> Retry {
        Retry { plan, custom: None, rules: Vec::new() }
    }

    /// The same with so many attempts in all, whatever it said; its rules for error types keep their own
    /// number if that is smaller.
    pub(crate) fn with_attempts(&self, attempts: u32) -> Retry {
        let mut retry = self.clone().attempts(attempts);
        for rule in &mut retry.rules {
            if let Then::Retry(policy) = &mut rule.then {
                let most = policy.plan.attempts.map_or(attempts, |most| most.min(attempts));
                **policy = policy.with_attempts(most);
            }
        }
        retry
    }

    /// Decides on the failure of attempt number `attempt` (from 1), `since_first` after the first
    /// attempt started; `chance` is uniform in 0..1.
    pub(crate) fn decide(
        &self,
        failure: &Failure,
        attempt: u32,
        since_first: Duration,
        chance: f64,
    ) -> Decision {
        if let Some(rule) = self.rules.iter().find(|rule| (rule.matches)(failure)) {
            return match &rule.then {
                Then::Discard => Decision::Discard,
                Then::Retry(policy) => policy.decide(failure, attempt, since_first, chance),
            };
        }
        if failure.is_fatal() || self.plan.attempts.is_some_and(|most| attempt >= most) {
            return Decision::GiveUp;
        }
        let delay = match self.custom {
            Some(decide) => match decide(failure, attempt) {
                Some(delay) => delay,
                None => return Decision::GiveUp,
            },
            None => self.plan.backoff.delay(attempt),
        };
        let delay = stretch(delay.min(self.plan.cap), self.plan.jitter * chance);
        if self.plan.at_most.is_some_and(|most| since_first.saturating_add(delay) > most) {
            return Decision::GiveUp;
        }
        Decision::RetryIn(delay)
    }
}

impl Plan {
    /// How many attempts there are in all, if there is an end to them.
    pub(crate) fn attempts(&self) -> Option<u32> {
        self.attempts
    }
}

/// In words, without the number of attempts: `exponential from 5s, no delay over 1h`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.backoff {
            Backoff::Fixed(delay) => write!(f, "every {}", set_span(delay))?,
            Backoff::Linear(step) => write!(f, "linear by {}", set_span(step))?,
            Backoff::Exponential(first) => write!(f, "exponential from {}", set_span(first))?,
            Backoff::Polynomial => f.write_str("polynomial")?,
        }
        if self.cap != CAP {
            write!(f, ", no delay over {}", set_span(self.cap))?;
        }
        if self.jitter != JITTER {
            write!(f, ", jitter {}", self.jitter)?;
        }
        if let Some(period) = self.at_most {
            write!(f, ", for at most {}", set_span(period))?;
        }
        Ok(())
    }
}

fn stretch(delay: Duration, share: f64) -> Duration {
    delay.saturating_add(
        Duration::try_from_secs_f64(delay.as_secs_f64() * share).unwrap_or_default(),
    )
}

impl Backoff {
    fn delay(self, n: u32) -> Duration {
        match self {
            Backoff::Fixed(delay) => delay,
            Backoff::Linear(step) => step.saturating_mul(n),
            Backoff::Exponential(first) => {
                first.saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX))
            }
            Backoff::Polynomial => Duration::from_secs(u64::from(n).saturating_pow(4)),
        }
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry::polynomial()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self.rules.iter().map(|rule| rule.error).collect();
        f.debug_struct("Retry")
            .field("plan", &self.plan)
            .field("custom", &self.custom.is_some())
            .field("rules", &rules)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn delay(retry: &Retry, attempt: u32) -> Option<Duration> {
        match retry.decide(&Failure::msg("x"), attempt, Duration::ZERO, 0.0) {
            Decision::RetryIn(delay) => Some(delay),
            _ => None,
        }
    }

    #[test]
    fn delays_follow_their_formula() {
        let five =
            |retry: &Retry| (1..=5).map(|n| delay(retry, n).unwrap().as_secs()).collect::<Vec<_>>();
        assert_eq!(five(&Retry::fixed(S)), [1, 1, 1, 1, 1]);
        assert_eq!(five(&Retry::linear(S)), [1, 2, 3, 4, 5]);
        assert_eq!(five(&Retry::exponential(S)), [1, 2, 4, 8, 16]);
        assert_eq!(five(&Retry::exponential(S).cap(3 * S)), [1, 2, 3, 3, 3]);
        assert_eq!(five(&Retry::polynomial()), [1, 16, 81, 256, 625]);
        assert_eq!(delay(&Retry::none(), 1), None);
    }

    #[test]
    fn a_plan_is_told_in_words_with_what_is_not_as_always() {
        let told = |retry: Retry| retry.plan().unwrap().to_string();
        assert_eq!(told(Retry::default()), "polynomial");
        assert_eq!(told(Retry::fixed(90 * S).attempts(3)), "every 1m 30s");
        assert_eq!(told(Retry::fixed(S / 4)), "every 250ms");
        assert_eq!(
            told(Retry::linear(3 * S / 2).cap(60 * S).jitter(0.5).for_at_most(3600 * S)),
            "linear by 1.5s, no delay over 1m, jitter 0.5, for at most 1h"
        );
        assert_eq!(told(Retry::exponential(5 * S)), "exponential from 5s");
    }

    #[test]
    fn the_default_is_25_attempts_over_about_three_weeks() {
        let retry = Retry::default();
        let total: Duration = (1..25).map(|n| delay(&retry, n).unwrap()).sum();
        assert!((20 * 86_400..22 * 86_400).contains(&total.as_secs()), "{total:?}");
        assert_eq!(delay(&retry, 25), None);
    }

    #[test]
    fn jitter_stretches_by_at_most_its_share() {
        let failure = Failure::msg("x");
        let at = |chance| Retry::fixed(100 * S).decide(&failure, 1, Duration::ZERO, chance);
        assert_eq!(at(0.0), Decision::RetryIn(100 * S));
        assert_eq!(at(1.0), Decision::RetryIn(115 * S));
    }

    #[test]
    fn retries_end_with_their_period() {
        let retry = Retry::fixed(10 * S).for_at_most(60 * S);
        let failure = Failure::msg("x");
        assert_eq!(retry.decide(&failure, 5, 50 * S, 0.0), Decision::RetryIn(10 * S));
        assert_eq!(retry.decide(&failure, 5, 51 * S, 0.0), Decision::GiveUp);
    }

    #[test]
    fn a_rule_for_an_error_type_decides_before_the_policy() {
        let retry = Retry::fixed(S)
            .on::<std::io::Error>(Retry::fixed(9 * S).attempts(2))
            .discard_on::<std::fmt::Error>();
        let io = Failure::from(std::io::Error::other("x"));
        assert_eq!(retry.decide(&io, 1, S, 0.0), Decision::RetryIn(9 * S));
        assert_eq!(retry.decide(&io, 2, S, 0.0), Decision::GiveUp);
        assert_eq!(retry.decide(&Failure::from(std::fmt::Error), 1, S, 0.0), Decision::Discard);
        assert_eq!(retry.decide(&Failure::msg("x"), 2, S, 0.0), Decision::RetryIn(S));
    }

    #[test]
    fn another_number_of_attempts_leaves_delays_and_discards_and_raises_no_rule() {
        let retry = Retry::linear(S)
            .attempts(2)
            .on::<std::io::Error>(Retry::fixed(9 * S).attempts(3))
            .discard_on::<std::fmt::Error>();
        let io = Failure::from(std::io::Error::other("x"));
        let more = retry.with_attempts(5);
        assert_eq!((delay(&more, 4), delay(&more, 5)), (Some(4 * S), None));
        assert_eq!(more.decide(&io, 2, S, 0.0), Decision::RetryIn(9 * S));
        assert_eq!(more.decide(&io, 3, S, 0.0), Decision::GiveUp);
        assert_eq!(more.decide(&Failure::from(std::fmt::Error), 1, S, 0.0), Decision::Discard);
        let fewer = retry.with_attempts(1);
        assert_eq!(fewer.decide(&io, 1, S, 0.0), Decision::GiveUp);
        // What never retried does not do so without a pause.
        assert_eq!(delay(&Retry::none().with_attempts(3), 2), Some(16 * S));
        let custom = Retry::custom(|_, n| (n < 9).then_some(S)).with_attempts(2);
        assert_eq!((delay(&custom, 1), delay(&custom, 2)), (Some(S), None));
    }

    #[test]
    fn a_fatal_failure_is_never_retried() {
        let failure = Failure::msg("x").into_fatal();
        assert_eq!(Retry::fixed(S).decide(&failure, 1, S, 0.0), Decision::GiveUp);
        assert_eq!(Retry::custom(|_, _| Some(S)).decide(&failure, 1, S, 0.0), Decision::GiveUp);
    }

    #[test]
    fn custom_functions_decide_and_are_not_storable() {
        let retry = Retry::custom(|_, n| (n < 3).then_some(S));
        assert_eq!(delay(&retry, 2), Some(S));
        assert_eq!(delay(&retry, 3), None);
        assert!(retry.plan().is_err());
        assert!(Retry::fixed(S).discard_on::<std::fmt::Error>().plan().is_err());
    }

    #[test]
    fn a_plan_survives_being_stored() {
        let retry = Retry::exponential(S).attempts(4).for_at_most(99 * S).jitter(0.5);
        let json = serde_json::to_string(&retry.plan().unwrap()).unwrap();
        let back = Retry::from_plan(serde_json::from_str(&json).unwrap());
        assert_eq!(back.plan, retry.plan);
    }

    #[test]
    fn huge_numbers_saturate() {
        assert_eq!(Backoff::Exponential(S).delay(200), S.saturating_mul(u32::MAX));
        assert_eq!(
            delay(&Retry::fixed(Duration::MAX).attempts(u32::MAX).cap(Duration::MAX), 1),
            Some(Duration::MAX)
        );
    }
}
