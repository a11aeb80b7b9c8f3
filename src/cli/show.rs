//! `legwork show ID`.

use std::process::ExitCode;

use comfy_table::Cell;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::globals::Globals;
use super::output::{self, Output};
use super::shell::{self, ShellJob, Stream};
use super::{Done, ids, times};
use crate::id::JobId;
use crate::job::Job;
use crate::jobs::Jobs;
use crate::new_job::Retention;
use crate::record::{AttemptRecord, JobRecord, LogLine, OwnOptions, StepRecord};
use crate::rules::amount;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The job.
    #[arg(value_parser = ids::job)]
    id: JobId,
}

/// All that is known of one job.
struct All {
    job: JobRecord,
    attempts: Vec<AttemptRecord>,
    logs: Vec<LogLine>,
    steps: Vec<StepRecord>,
    /// What the last attempt of a shell job has written.
    stdout: Option<String>,
    stderr: Option<String>,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let all = All::read(&globals.open()?, arguments.id)?;
    match globals.output() {
        Output::Json => output::json(all.json())?,
        Output::Tsv => output::tsv(all.rows(times::exact).into_iter().map(Vec::from))?,
        Output::Table { color } => all.print(color)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The same for the live view: what a table would have, line by line, and what a command has written.
#[cfg(feature = "tui")]
pub(super) fn lines(jobs: &Jobs, id: JobId) -> crate::error::Result<Vec<String>> {
    let all = All::read(jobs, id)?;
    let now = OffsetDateTime::now_utc();
    let time = |at| format!("{} ({})", times::exact(at), times::relative(at, now));
    let mut lines = Vec::new();
    for [name, value] in all.rows(time) {
        if name == "stdout" || name == "stderr" {
            lines.extend([String::new(), format!("--- {name}")]);
            lines.extend(value.trim_end().lines().map(|line| output::escape(line, false)));
        } else {
            lines.push(format!("{name:<10} {}", output::escape(&value, false)));
        }
    }
    Ok(lines)
}

impl All {
    fn read(jobs: &Jobs, id: JobId) -> crate::error::Result<All> {
        let job = jobs.get(id)?;
        let captured = |stream| {
            let is_shell = job.kind == ShellJob::KIND;
            is_shell.then(|| shell::read(jobs.path(), id, stream)).flatten()
        };
        Ok(All {
            attempts: jobs.attempts(id)?,
            logs: jobs.logs(id)?,
            steps: jobs.steps(id)?,
            stdout: captured(Stream::Stdout),
            stderr: captured(Stream::Stderr),
            job,
        })
    }

    fn json(&self) -> Value {
        json!({
            "job": output::job(&self.job),
            "attempts": self.attempts,
            "logs": self.logs,
            "steps": self.steps,
            "stdout": self.stdout,
            "stderr": self.stderr,
        })
    }

    /// Names and values; several rows of a name for attempts, steps and log lines.
    fn rows(&self, time: impl Fn(OffsetDateTime) -> String) -> Vec<[String; 2]> {
        let job = &self.job;
        let mut rows: Vec<[String; 2]> = Vec::new();
        let mut row = |name: &str, value: Option<String>| {
            rows.extend(value.map(|value| [name.to_owned(), value]));
        };
        row("id", Some(job.id.to_string()));
        row("state", Some(job.state.to_string()));
        row("kind", Some(job.kind.clone()));
        row("queue", Some(job.queue.clone()));
        row("gate", job.gate.clone());
        row("priority", Some(job.priority.to_string()));
        row("attempts", Some(job.attempts.to_string()));
        let OwnOptions { attempts, retry, timeout, keep, .. } = &job.own;
        row("attempts in all", attempts.map(|attempts| attempts.to_string()));
        row("retry", retry.clone());
        row("timeout", timeout.map(amount::set_span));
        row("keep", keep.map(kept));
        row("enqueued", Some(time(job.enqueued_at)));
        row("run at", Some(time(job.run_at)));
        row("expires", job.expires_at.map(&time));
        row("started", job.started_at.map(&time));
        row("finished", job.finished_at.map(&time));
        row("cancel", job.cancel_requested.then(|| "requested".to_owned()));
        row("reason", job.reason.clone());
        row("unique key", job.unique_key.clone());
        for limit in &job.limits {
            row("limit", Some(limit.to_string()));
        }
        row("waits on", job.waits_on.clone());
        row("tags", (!job.tags.is_empty()).then(|| job.tags.join(",")));
        for (key, value) in &job.meta {
            row("meta", Some(format!("{key}={value}")));
        }
        row(
            "progress",
            job.progress.as_ref().map(|progress| {
                let message = progress.message.as_deref().unwrap_or_default();
                format!("{}/{} {message}", progress.done, progress.total)
            }),
        );
        row("args", Some(job.args.clone()));
        row("output", job.output.clone());
        for attempt in &self.attempts {
            row("attempt", Some(self.attempt(attempt, &time)));
        }
        for step in &self.steps {
            let sort = if step.cursor { "cursor" } else { "step" };
            let size =
                step.bytes.map_or("no value yet".to_owned(), |bytes| format!("{bytes} bytes"));
            row(sort, Some(format!("{} {size} {}", time(step.stored_at), step.name)));
        }
        for log in &self.logs {
            row("log", Some(format!("{} {} {}", time(log.at), log.attempt, log.line)));
        }
        row("stdout", self.stdout.clone());
        row("stderr", self.stderr.clone());
        rows
    }

    fn attempt(&self, attempt: &AttemptRecord, time: &impl Fn(OffsetDateTime) -> String) -> String {
        let counted = if attempt.counted { "" } else { " (not counted)" };
        let started = time(attempt.started_at);
        format!("{} {started}{counted} {}", attempt.attempt, attempt.error)
    }

    /// For people: what a command has written stands below the table, with its lines.
    fn print(&self, color: bool) -> std::io::Result<()> {
        let now = OffsetDateTime::now_utc();
        let time = |at| format!("{} ({})", times::exact(at), times::relative(at, now));
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        for [name, value] in self.rows(time) {
            match name.as_str() {
                "stdout" | "stderr" => {}
                "state" => {
                    rows.push(vec![output::cell(name), output::state_cell(self.job.state, color)]);
                }
                _ => rows.push(vec![output::cell(name), output::cell(value)]),
            }
        }
        output::table(&[], rows, color)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if let Some(text) = text {
                output::print(format_args!(
                    "\n--- {name}\n{}\n",
                    output::escape(text.trim_end(), true)
                ))?;
            }
        }
        Ok(())
    }
}

/// `completed 1d, cancelled 1d, failed 30d`.
fn kept(keep: Retention) -> String {
    keep.spans().map(|(state, span)| format!("{state} {}", amount::set_span(span))).join(", ")
}
