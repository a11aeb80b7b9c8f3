//! What `enqueue` and `run` have in common: the options of a new job, and what follows.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::{Done, ensure, ids, times, until};
use crate::flow::AfterFailure;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::limit::{Limit, OnBusy};
use crate::new_job::NewJob;
use crate::state::State;
use crate::unique::{Conflict, Unique};

#[derive(clap::Args, Debug)]
pub(super) struct NewOptions {
    /// Run it no sooner than this long from now (30s, 5m, 2h).
    #[arg(long = "in", value_name = "SPAN", value_parser = times::span, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Run it no sooner than this (2026-05-01T08:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = times::instant)]
    at: Option<OffsetDateTime>,
    /// Run it once this job has completed; if that fails or is cancelled it is cancelled, and comes back
    /// when that is retried. May be given several times.
    #[arg(long = "after", value_name = "ID", value_parser = ids::job)]
    parents: Vec<JobId>,
    /// Run it once these jobs have finished, however.
    #[arg(long, requires = "parents")]
    anyway: bool,
    #[command(flatten)]
    options: JobOptions,
    /// Start a worker in the background if none lives. It ends when nothing is left to run.
    #[arg(long)]
    ensure_worker: bool,
    /// Wait until it is finished.
    #[arg(long)]
    wait: bool,
}

/// What holds for a job whenever it is enqueued.
#[derive(clap::Args, Debug)]
pub(super) struct JobOptions {
    /// Its queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Its priority: lower numbers run first.
    #[arg(long, value_name = "N", value_parser = ids::whole::<i64>, allow_negative_numbers = true)]
    priority: Option<i64>,
    /// A word to find it by; may be given several times.
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<String>,
    /// Unique by this key: while another job has it, this one is not enqueued.
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// How long the key is held: `started`, `finished`, or a span from now on (10m).
    #[arg(long, value_name = "WHEN", requires = "unique", value_parser = held, default_value = "finished")]
    unique_until: Held,
    /// What happens while another job has the key.
    #[arg(long, value_name = "WHAT", requires = "unique", value_enum, default_value = "ignore")]
    on_conflict: OnConflict,
    /// Run at most N jobs with this key at once (account-7=2); may be given several times.
    #[arg(long = "limit", value_name = "KEY=N", value_parser = at_once)]
    limits: Vec<Limit>,
    /// Start at most N jobs with this key in a time, evenly (api=10/1s), or together with `burst`
    /// (api=10/1s,burst), this one counting as more (api=10/1s,weight=3); may be given several times.
    #[arg(long = "rate", value_name = "KEY=N/SPAN", value_parser = rate)]
    rates: Vec<Limit>,
    /// What happens if it could start but for a limit.
    #[arg(long, value_name = "WHAT", value_enum)]
    on_busy: Option<Busy>,
    /// The gate that must be open for it to start.
    #[arg(long, value_name = "NAME")]
    gate: Option<String>,
    /// Cancel it if it has not started this long after it may run (30s, 5m, 2h).
    #[arg(long = "expires", value_name = "SPAN", value_parser = times::span)]
    expires_after: Option<Duration>,
    /// How long an attempt may take (30s, 5m, 2h); then a command gets TERM, and after five seconds KILL.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    timeout: Option<Duration>,
    /// How often it is tried at most. Default: as often as its kind says; a command once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
}

/// `KEY=N`; the key may contain `=` itself.
fn at_once(text: &str) -> Result<Limit, String> {
    let (key, most) = text.rsplit_once('=').ok_or("a key and a number, such as account-7=2")?;
    let most = most.parse().map_err(|_| format!("`{most}` is no number of jobs"))?;
    Ok(Limit::at_once(key, most))
}

/// `KEY=N/SPAN[,burst][,weight=W]`.
fn rate(text: &str) -> Result<Limit, String> {
    let says = "a key, a number and a span, such as api=10/1s, then `,burst` or `,weight=3`";
    let mut parts = text.split(',');
    let (key, numbers) = parts.next().and_then(|part| part.rsplit_once('=')).ok_or(says)?;
    let (most, per) = numbers.split_once('/').ok_or(says)?;
    let most = most.parse().map_err(|_| format!("`{most}` is no number of starts"))?;
    let mut rate = Limit::rate(key, most, times::span(per)?);
    for part in parts {
        rate = match part.split_once('=') {
            None if part == "burst" => rate.burst(),
            Some(("weight", weight)) => {
                rate.weight(weight.parse().map_err(|_| format!("`{weight}` is no weight"))?)
            }
            _ => return Err(says.to_owned()),
        };
    }
    Ok(rate)
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Busy {
    /// It waits until it may.
    Wait,
    /// It ends as cancelled.
    Discard,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Started,
    Finished,
    For(Duration),
}

fn held(word: &str) -> Result<Held, String> {
    match word {
        "started" => Ok(Held::Started),
        "finished" => Ok(Held::Finished),
        span => times::span(span)
            .map(Held::For)
            .map_err(|_| "`started`, `finished` or a span such as 10m".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnConflict {
    /// Print the id of the job that has the key.
    Ignore,
    /// Give the job that has the key the new arguments, if it still waits.
    Replace,
    /// Refuse it, with exit code 4.
    Reject,
    /// Let one run and one wait, with the newest arguments.
    KeepLast,
}

impl From<OnConflict> for Conflict {
    fn from(word: OnConflict) -> Conflict {
        match word {
            OnConflict::Ignore => Conflict::Ignore,
            OnConflict::Replace => Conflict::Replace,
            OnConflict::Reject => Conflict::Reject,
            OnConflict::KeepLast => Conflict::KeepLast,
        }
    }
}

impl NewOptions {
    /// Enqueues the job with these options, prints its id alone, and waits if told to.
    pub(super) fn enqueue(&self, globals: &Globals, jobs: &Jobs, job: NewJob) -> Done {
        let id = jobs.enqueue(self.set(job))?;
        match globals.output() {
            Output::Json => output::json(json!({ "id": id }))?,
            _ => output::print(format_args!("{id}\n"))?,
        }
        if self.ensure_worker {
            ensure::worker(globals, jobs, id)?;
        }
        if !self.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let finished = until::finished(jobs, &[id], false, None)?;
        if globals.json {
            until::show(Output::Json, &finished)?;
        }
        for job in finished.iter().filter(|job| job.state != State::Completed) {
            let reason = job.reason.as_deref().unwrap_or_default();
            globals.say(format_args!("job {} is {}: {reason}", job.id, job.state));
        }
        Ok(until::exit_code(&finished))
    }

    fn set(&self, mut job: NewJob) -> NewJob {
        if let Some(delay) = self.delay {
            job = job.delay(delay);
        }
        if let Some(at) = self.at {
            job = job.run_at(at);
        }
        job = job.after(self.parents.iter().copied());
        if self.anyway {
            job = job.after_failure(AfterFailure::Continue);
        }
        self.options.set(job)
    }
}

impl JobOptions {
    pub(super) fn set(&self, mut job: NewJob) -> NewJob {
        if let Some(queue) = &self.queue {
            job = job.queue(queue);
        }
        if let Some(priority) = self.priority {
            job = job.priority(priority);
        }
        if let Some(key) = &self.unique {
            let unique = Unique::by_key(key).on_conflict(self.on_conflict.into());
            job = job.unique(match self.unique_until {
                Held::Started => unique.until_started(),
                Held::Finished => unique,
                Held::For(period) => unique.for_period(period),
            });
        }
        for limit in self.limits.iter().chain(&self.rates) {
            job = job.limited(limit.clone());
        }
        match self.on_busy {
            Some(Busy::Wait) => job = job.on_busy(OnBusy::Wait),
            Some(Busy::Discard) => job = job.on_busy(OnBusy::Discard),
            None => {}
        }
        if let Some(gate) = &self.gate {
            job = job.gate(gate);
        }
        if let Some(within) = self.expires_after {
            job = job.expires_after(within);
        }
        if let Some(timeout) = self.timeout {
            job = job.timeout(timeout);
        }
        if let Some(attempts) = self.attempts {
            job = job.attempts(attempts);
        }
        self.tags.iter().fold(job, NewJob::tag)
    }
}
