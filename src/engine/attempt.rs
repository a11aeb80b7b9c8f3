//! One attempt, from the claim to the verdict: set up, run, decide, and afterwards tell.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Core;
use super::registry::Handler;
use crate::clock::{Micros, between, from_micros, micros_of};
use crate::context::{Attempt, Said, Signals};
use crate::error::Result;
use crate::event::Event;
use crate::failure::{Failure, Interrupt};
use crate::job::{JobResult, Outcome};
use crate::new_job::{LATEST, Overrides};
use crate::perform;
use crate::rules::retry::{Decision, Retry};
use crate::rules::text;
use crate::state::State;
use crate::store::{Claimed, Ending, Finish, Finished, Told, Verdict};

/// An attempt that has run, and its end.
pub(super) struct Ended {
    pub(super) attempt: Arc<Attempt>,
    pub(super) finish: Finish,
}

impl Ended {
    /// On its way to the writer, who tells what became of it.
    pub(super) fn into_ending(self) -> Ending {
        Ending { finish: self.finish, told: Some(self.attempt) }
    }
}

/// What one job has of its own; what another version wrote and this one cannot read counts as
/// nothing.
fn overrides(claimed: &Claimed) -> Overrides {
    let Some(json) = &claimed.options else { return Overrides::default() };
    serde_json::from_str(json).unwrap_or_else(|error| {
        log::warn!(job = claimed.claim.id.0; "legwork: its options do not decode, the kind's are used: {error}");
        Overrides::default()
    })
}

impl Core {
    /// Runs a claimed job and decides how its attempt ended.
    pub(super) fn run(&self, claimed: Claimed, worker: &Arc<str>) -> Ended {
        // Claims name registered kinds only; a job of another kind goes back.
        let handler = self.registry.get(&claimed.kind).cloned();
        let own = overrides(&claimed);
        let attempt = self.attempt(&claimed, worker, &own, handler.as_deref());
        self.jobs.attempts_here().start(&attempt);
        self.supervisor.watch(&attempt);
        self.tell_started(&attempt);

        let Some(handler) = handler else {
            return self.ended(attempt, Verdict::GiveBack { why: None });
        };
        let result = perform::perform(&attempt, &attempt.args, &self.middleware, &|| {
            (handler.perform)(&attempt, &attempt.args)
        });
        let rules = Rules::of(&handler, &attempt);
        // The error's own texts are the app's code, too.
        let verdict =
            perform::catch(|| self.decide(&attempt, result, &rules)).unwrap_or_else(|panic| {
                Verdict::Fail { error: text::cut(&panic.report(), text::ERROR_BYTES) }
            });
        self.ended(attempt, verdict)
    }

    fn attempt(
        &self,
        claimed: &Claimed,
        worker: &Arc<str>,
        own: &Overrides,
        handler: Option<&Handler>,
    ) -> Arc<Attempt> {
        let meta = claimed.meta.as_deref().and_then(|meta| serde_json::from_str(meta).ok());
        Arc::new(Attempt {
            jobs: self.jobs.clone(),
            claim: Some(claimed.claim),
            unique: claimed.unique.clone(),
            limits: claimed.limits.clone(),
            flow: claimed.flow,
            had_steps: claimed.has_steps,
            kind: Arc::clone(&claimed.kind),
            queue: Arc::clone(&claimed.queue),
            args: claimed.args.clone(),
            number: claimed.attempts.saturating_add(1),
            meta: meta.unwrap_or_default(),
            worker: Arc::clone(worker),
            first_started_at: claimed.first_started_at.unwrap_or(claimed.started_at),
            started_at: claimed.started_at,
            started_awake: self.jobs.clock().awake(),
            tally: Arc::clone(&self.tally),
            slow_after: self.slow_after,
            timeout: own.timeout.or_else(|| handler.and_then(|handler| handler.options.timeout)),
            overdue: handler.map(|handler| handler.options.overdue).unwrap_or_default(),
            retry: own.retry.clone(),
            attempts: own.attempts,
            keep: own.keep,
            signals: Signals::default(),
            said: Mutex::new(Said::default()),
            steps: Mutex::default(),
            settle: AtomicBool::new(false),
        })
    }

    fn ended(&self, attempt: Arc<Attempt>, verdict: Verdict) -> Ended {
        attempt.said().took = attempt.elapsed();
        let finish = attempt.finish(verdict).expect("a claimed attempt has a claim");
        Ended { attempt, finish }
    }

    fn decide(&self, attempt: &Arc<Attempt>, result: JobResult, rules: &Rules<'_>) -> Verdict {
        let now = self.jobs.clock().micros();
        let asked = attempt.signals.get();
        let settle = attempt.settle.load(Ordering::Acquire);
        if settle && self.is_completed(attempt) {
            // Nobody has failed or given up, whatever was returned; the writer finds the row moved.
            return Verdict::Complete { output: None };
        }
        let failure = match result {
            Ok(_) if settle => {
                Failure::msg("finish_in was called, but its transaction was not committed")
            }
            Ok(Outcome::Done) => {
                return Verdict::Complete { output: attempt.said().output.clone() };
            }
            Ok(Outcome::Snooze(delay)) => {
                let untried = attempt.said().untried;
                return Verdict::Snooze { run_at: later(now, delay), untried };
            }
            Ok(Outcome::Cancel(reason)) => {
                let reason = text::cut(&reason, text::ERROR_BYTES);
                return Verdict::Cancel { reason, error: None };
            }
            Err(failure) => failure,
        };
        match failure.interrupt() {
            Some(Interrupt::Cancelled) if asked.cancel => {
                return Verdict::Cancel { reason: "cancelled while running".into(), error: None };
            }
            Some(Interrupt::Stopping) if asked.stop => {
                return Verdict::GiveBack {
                    why: Some("interrupted: the engine was stopped".into()),
                };
            }
            _ => {}
        }
        let error = text::cut(&failure.report(), text::ERROR_BYTES);
        if asked.cancel {
            return Verdict::Cancel {
                reason: format!("cancelled while running; then: {error}"),
                error: Some(error),
            };
        }
        self.decide_failed(attempt, &failure, error, now, rules)
    }

    /// Whether the transaction of a `finish_in` has committed. If the row cannot be read now the
    /// writer will find out, and the attempt counts as failed for hooks and events.
    fn is_completed(&self, attempt: &Attempt) -> bool {
        self.jobs.get(attempt.id()).is_ok_and(|job| job.state == State::Completed)
    }

    fn decide_failed(
        &self,
        attempt: &Arc<Attempt>,
        failure: &Failure,
        error: String,
        now: Micros,
        rules: &Rules<'_>,
    ) -> Verdict {
        let since_first = between(attempt.first_started_at, now);
        let chance = self.jobs.random().fraction();
        // A policy may call the app's own function.
        let decision =
            perform::catch(|| rules.retry.decide(failure, attempt.number, since_first, chance))
                .unwrap_or_else(|panic| {
                    log::error!(job = attempt.id().0; "legwork: the retry policy {panic}");
                    Decision::GiveUp
                });
        match decision {
            Decision::RetryIn(delay) => Verdict::Retry { run_at: later(now, delay), error },
            Decision::Discard => {
                Verdict::Cancel { reason: format!("discarded: {error}"), error: Some(error) }
            }
            Decision::GiveUp => {
                if let Err(panic) =
                    perform::catch(|| (rules.handler.gave_up)(attempt, &attempt.args, failure))
                {
                    log::error!(job = attempt.id().0; "legwork: the gave_up hook {panic}");
                }
                Verdict::Fail { error }
            }
        }
    }

    /// The end of a job that was claimed and will not be started.
    pub(super) fn give_back(&self, claimed: Claimed, worker: &Arc<str>) -> Ended {
        let attempt = self.attempt(&claimed, worker, &overrides(&claimed), None);
        self.ended(attempt, Verdict::GiveBack { why: None })
    }

    /// The end of an attempt that is abandoned: failed by its time-out, whatever it still does.
    pub(super) fn time_out(&self, attempt: &Arc<Attempt>) -> Ended {
        let timeout = attempt.timeout.unwrap_or_default();
        let failure =
            Failure::msg(format!("abandoned: still running after its time-out of {timeout:?}"));
        let handler = self.registry.get(&attempt.kind).cloned();
        let verdict = match &handler {
            None => Verdict::GiveBack { why: None },
            Some(handler) => self.decide_failed(
                attempt,
                &failure,
                failure.report(),
                self.jobs.clock().micros(),
                &Rules::of(handler, attempt),
            ),
        };
        let mut ended = self.ended(Arc::clone(attempt), verdict);
        // Its thread goes on with what the limits are there for.
        ended.finish.keeps_slots = true;
        ended
    }

    fn tell_started(&self, attempt: &Attempt) {
        let id = attempt.id();
        log::debug!(job = id.0, kind = &*attempt.kind, attempt = attempt.number; "legwork: started");
        self.jobs.tell(|| Event::Started {
            id,
            kind: attempt.kind.to_string(),
            queue: attempt.queue.to_string(),
            attempt: attempt.number,
            worker: attempt.worker.to_string(),
        });
    }
}

impl Told for Attempt {
    fn told(&self, finish: &Finish, recorded: &Result<Finished>) {
        self.jobs.attempts_here().end(self);
        let took = self.said().took;
        if self.slow_after.is_some_and(|threshold| took > threshold) {
            self.jobs.tell(|| Event::Slow { id: self.id(), kind: self.kind.to_string(), took });
        }
        match recorded {
            Ok(Finished::Settled) => {
                self.tally.count(State::Completed);
                self.tell_finished(State::Completed, took);
            }
            Ok(Finished::Stale) => {
                log::warn!(job = self.id().0, kind = &*self.kind; "legwork: a finish came too late and changed nothing");
            }
            Ok(Finished::Recorded { state, children }) => {
                self.tally.count(*state);
                for (done, row) in children.iter().zip(&finish.children) {
                    self.jobs.tell_inserted(*done, || (row.kind.clone(), row.queue.clone()));
                }
                self.tell_recorded(finish, *state, took);
            }
            Err(error) => {
                log::error!(job = self.id().0; "legwork: its end could not be recorded: {error}");
            }
        }
    }
}

impl Attempt {
    fn tell_recorded(&self, finish: &Finish, state: State, took: Duration) {
        let (id, kind) = (self.id(), &*self.kind);
        match (state, &finish.verdict) {
            (State::Retrying, Verdict::Retry { run_at, error }) => {
                let (attempts, run_at) = (self.number, from_micros(*run_at));
                log::info!(job = id.0, kind = kind, attempt = attempts; "legwork: retry at {run_at}: {error}");
                self.jobs.tell(|| Event::Retrying {
                    id,
                    kind: kind.to_owned(),
                    attempts,
                    run_at,
                    error: error.clone(),
                });
            }
            (State::Failed, verdict) => {
                let error = match verdict {
                    Verdict::Fail { error } => error.clone(),
                    _ => "its end could not be recorded".to_owned(),
                };
                log::warn!(job = id.0, kind = kind, attempt = self.number; "legwork: failed: {error}");
                self.jobs.tell(|| Event::Failed {
                    id,
                    kind: kind.to_owned(),
                    attempts: self.number,
                    error,
                });
            }
            (State::Scheduled, Verdict::Snooze { run_at, .. }) => {
                let run_at = from_micros(*run_at);
                log::debug!(job = id.0, kind = kind; "legwork: snoozed until {run_at}");
                self.jobs.tell(|| Event::Snoozed { id, kind: kind.to_owned(), run_at });
            }
            (State::Ready, Verdict::GiveBack { why: None }) => {}
            (State::Ready, _) => {
                log::info!(job = id.0, kind = kind; "legwork: given back");
                self.jobs.tell(|| Event::Rescued { id });
            }
            _ => self.tell_finished(state, took),
        }
    }

    fn tell_finished(&self, state: State, took: Duration) {
        let id = self.id();
        log::debug!(job = id.0, kind = &*self.kind; "legwork: {state} in {took:?}");
        let kind = Some(self.kind.to_string());
        self.jobs.tell(|| Event::Finished { id, kind, state, took: Some(took) });
    }
}

/// `delay` after `now`, at the latest the last time that can be told.
fn later(now: Micros, delay: Duration) -> Micros {
    now.saturating_add(micros_of(delay)).min(LATEST)
}

/// What decides about a failure.
struct Rules<'a> {
    handler: &'a Handler,
    retry: Cow<'a, Retry>,
}

impl<'a> Rules<'a> {
    /// The kind's, but for what the job has of its own.
    fn of(handler: &'a Handler, attempt: &Attempt) -> Rules<'a> {
        let retry = match attempt.retry.clone() {
            Some(own) => Cow::Owned(Retry::from_plan(own)),
            None => Cow::Borrowed(&handler.options.retry),
        };
        let retry = match attempt.attempts {
            Some(attempts) => Cow::Owned(retry.with_attempts(attempts)),
            None => retry,
        };
        Rules { handler, retry }
    }
}
