//! What waits that nobody here could run: before a deploy, by the app's own kinds and types.

use super::registry::Registry;
use crate::error::Result;
use crate::jobs::{CheckReport, Jobs};

/// Tries the arguments of every job that is not finished, and of the cron entries', on its kind's type.
pub(super) fn check(jobs: &Jobs, registry: &Registry) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    jobs.store().each_pending(&mut |id, kind, args| match registry.get(kind) {
        None => report.found_unknown(id, kind),
        Some(handler) => {
            if let Err(failure) = (handler.decodes)(args) {
                report.found_undecodable(id, kind, || failure.to_string());
            }
        }
    })?;
    jobs.check_crons(&mut report, &|kind, args| match registry.get(kind) {
        None => Ok(false),
        Some(handler) => {
            (handler.decodes)(args).map(|()| true).map_err(|failure| failure.to_string())
        }
    })?;
    Ok(report)
}
