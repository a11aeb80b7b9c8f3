//! `legwork health`: for a probe.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::{NO_WORKER, REFUSED};
use super::{Done, times};
use crate::jobs::Jobs;
use crate::record::{Backlog, InstanceRecord};
use crate::rules::amount;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// How long a ready job may wait that a live worker serves (30s, 5m).
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    max_age: Option<Duration>,
}

/// What a probe wants to know.
struct Report {
    /// Live processes with at least one worker.
    processes: usize,
    workers: usize,
    /// What has waited longest of what a live worker serves and nobody has paused.
    oldest: Option<Backlog>,
    /// Queues in which something is ready that no live worker serves.
    unserved: BTreeSet<String>,
    max_age: Option<Duration>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let report = Report::read(&globals.open()?, arguments.max_age)?;
    let (status, code) = report.status();
    let why = report.why();
    match globals.output() {
        Output::Json => output::json(json!({
            "status": status,
            "why": why,
            "processes": report.processes,
            "workers": report.workers,
            "oldest": report.oldest.as_ref().map(|oldest| json!({
                "queue": oldest.queue,
                "kind": oldest.kind,
                "seconds": oldest.oldest.as_secs_f64(),
            })),
            "unserved": report.unserved,
        }))?,
        Output::Tsv => output::tsv([vec![status.to_owned(), why]])?,
        Output::Table { .. } => {
            output::print(format_args!("{status}: {}\n", output::escape(&why, false)))?;
        }
    }
    if code == NO_WORKER {
        globals.say("start `legwork work`, or the program that runs the jobs");
    }
    for queue in report.unserved.iter().filter(|_| code != NO_WORKER) {
        globals.say(format_args!("no live worker serves queue {queue}"));
    }
    Ok(ExitCode::from(code))
}

impl Report {
    fn read(jobs: &Jobs, max_age: Option<Duration>) -> crate::error::Result<Report> {
        let mut live = jobs.instances()?;
        live.retain(|instance| instance.alive && instance.workers() > 0);
        let serves = |waits: &Backlog| live.iter().any(|instance| instance.serves(&waits.queue));
        let mut backlog = jobs.backlog()?;
        backlog.retain(|waits| !waits.paused);
        let (served, unserved): (Vec<_>, Vec<_>) = backlog.into_iter().partition(serves);
        Ok(Report {
            processes: live.len(),
            workers: live.iter().map(InstanceRecord::workers).sum(),
            oldest: served.into_iter().max_by_key(|waits| waits.oldest),
            unserved: unserved.into_iter().map(|waits| waits.queue).collect(),
            max_age,
        })
    }

    /// A job that is too old, and the bound.
    fn too_old(&self) -> Option<(&Backlog, Duration)> {
        let (oldest, max_age) = (self.oldest.as_ref()?, self.max_age?);
        (oldest.oldest > max_age).then_some((oldest, max_age))
    }

    fn status(&self) -> (&'static str, u8) {
        if self.processes == 0 {
            ("no worker", NO_WORKER)
        } else if self.too_old().is_some() {
            ("late", REFUSED)
        } else {
            ("ok", 0)
        }
    }

    fn why(&self) -> String {
        if self.processes == 0 {
            return "no live process has workers".to_owned();
        }
        if let Some((Backlog { queue, kind, oldest, .. }, max_age)) = self.too_old() {
            let (oldest, max_age) = (amount::span(*oldest), amount::span(max_age));
            return format!(
                "a ready {kind} in queue {queue} has waited {oldest}, longer than {max_age}"
            );
        }
        let works = match (self.processes, self.workers) {
            (1, 1) => "1 process with 1 worker".to_owned(),
            (1, workers) => format!("1 process with {workers} workers"),
            (processes, workers) => format!("{processes} processes with {workers} workers"),
        };
        match &self.oldest {
            Some(waits) => {
                format!("{works}; the oldest ready job has waited {}", amount::span(waits.oldest))
            }
            None => format!("{works}; nothing is ready"),
        }
    }
}
