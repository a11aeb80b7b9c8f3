//! Waiting until jobs are finished, wherever they run.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::instances;
use super::output::{self, Output};
use super::trouble::{FAILED, NO_WORKER, TIMED_OUT, Trouble};
use crate::error::Error;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::record::JobRecord;
use crate::state::State;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until all of the jobs, or with `any` one of them, are finished; those that are, in the
/// order of the ids. Without a time-out somebody must be there to run them.
pub(super) fn finished(
    jobs: &Jobs,
    ids: &[JobId],
    any: bool,
    timeout: Option<Duration>,
) -> Result<Vec<JobRecord>, Trouble> {
    let started = Instant::now();
    loop {
        let finished = look(jobs, ids)?;
        if finished.len() == ids.len() || (any && !finished.is_empty()) {
            return Ok(finished);
        }
        match timeout {
            Some(timeout) if started.elapsed() >= timeout => {
                let left = ids.len() - finished.len();
                let text = format!("{left} of {} not finished within {timeout:?}", ids.len());
                return Err(Trouble::new(TIMED_OUT, text));
            }
            None if instances::live(jobs.path()) == 0 => {
                return Err(Trouble::new(NO_WORKER, "no worker is running")
                    .hint("start `legwork work`, or wait with --timeout"));
            }
            _ => {}
        }
        pause(timeout.map(|timeout| timeout.saturating_sub(started.elapsed())));
    }
}

/// A stopgap until `Jobs::wait` is told of ends that other processes record.
fn pause(left: Option<Duration>) {
    thread::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY));
}

fn look(jobs: &Jobs, ids: &[JobId]) -> Result<Vec<JobRecord>, Error> {
    let mut found = ids.iter().map(|&id| jobs.get(id)).collect::<Result<Vec<_>, _>>()?;
    found.retain(|job| job.state.is_finished());
    Ok(found)
}

/// 0 if all have completed.
pub(super) fn exit_code(finished: &[JobRecord]) -> ExitCode {
    if finished.iter().all(|job| job.state == State::Completed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}

/// Prints how the jobs have ended.
pub(super) fn show(output: Output, finished: &[JobRecord]) -> io::Result<()> {
    let reason = |job: &JobRecord| job.reason.clone().unwrap_or_default();
    match output {
        Output::Json => {
            let jobs: Vec<_> = finished.iter().map(output::job).collect();
            output::json(json!({ "jobs": jobs }))
        }
        Output::Tsv => output::tsv(
            finished.iter().map(|job| vec![job.id.to_string(), job.state.to_string(), reason(job)]),
        ),
        Output::Table { color } => {
            let rows = finished.iter().map(|job| {
                vec![
                    output::cell(job.id.to_string()),
                    output::state_cell(job.state, color),
                    output::cell(reason(job)),
                ]
            });
            output::table(&["id", "state", "reason"], rows.collect(), color)
        }
    }
}
