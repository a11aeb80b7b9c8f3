//! Waiting until jobs are finished, wherever they run.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::output::{self, Output};
use super::trouble::{FAILED, NO_WORKER, TIMED_OUT, Trouble};
use crate::error::Error;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::record::JobRecord;
use crate::state::State;

/// How long to wait for one job before looking whether somebody is still there to run it.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where another of the jobs may be the first.
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
        // First who is there: the last one may run the jobs and leave before they are looked at.
        let is_alone = timeout.is_none() && is_alone(jobs)?;
        let (finished, next) = look(jobs, ids)?;
        if finished.len() == ids.len() || (any && !finished.is_empty()) {
            return Ok(finished);
        }
        match timeout {
            Some(timeout) if started.elapsed() >= timeout => {
                let left = ids.len() - finished.len();
                let text = format!("{left} of {} not finished within {timeout:?}", ids.len());
                return Err(Trouble::new(TIMED_OUT, text)
                    .hint("see where a job stands with `legwork show ID`"));
            }
            None if is_alone => {
                return Err(Trouble::new(NO_WORKER, "no worker is running")
                    .hint("start `legwork work`, or wait with `legwork wait ID --timeout SPAN`"));
            }
            _ => {}
        }
        let patience = if any { LOOK_EVERY } else { PATIENCE };
        let left = timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        if let Some(next) = next {
            match jobs.wait(next, left.map_or(patience, |left| left.min(patience))) {
                Ok(_) | Err(Error::Timeout { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether no process is there that could run anything.
pub(super) fn is_alone(jobs: &Jobs) -> Result<bool, Error> {
    Ok(!jobs.instances()?.iter().any(|instance| instance.alive))
}

/// Those that are finished, and the first that is not.
fn look(jobs: &Jobs, ids: &[JobId]) -> Result<(Vec<JobRecord>, Option<JobId>), Error> {
    let mut found = ids.iter().map(|&id| jobs.get(id)).collect::<Result<Vec<_>, _>>()?;
    let next = found.iter().find(|job| !job.state.is_finished()).map(|job| job.id);
    found.retain(|job| job.state.is_finished());
    Ok((found, next))
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
