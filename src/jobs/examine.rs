//! Examining a file, whatever state it is in.

use std::path::Path;

use crate::clock::Clock;
use crate::finding::{Finding, Report};
use crate::store::{self, Examined};

use super::Jobs;

impl Jobs {
    /// Examines a file, the machine that it lies on and the processes that use it, and says what is
    /// wrong and what to do about it. It opens nothing for use and changes nothing, so it works on files
    /// that cannot be opened as well: that is a finding, too. `legwork doctor` prints what it returns.
    ///
    /// It checks the file's pages for five seconds at most; [`examine_fully`](Jobs::examine_fully) checks
    /// all of them. It reads every job that is not finished once, and otherwise little.
    ///
    /// ```
    /// use legwork::{Jobs, Severity};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("app.db");
    /// let jobs = Jobs::open(&path)?;
    /// let report = Jobs::examine(&path);
    /// assert!(report.usable);
    /// for finding in &report.findings {
    ///     if finding.severity > Severity::Note {
    ///         println!("{}: {} {}", finding.code, finding.says, finding.advice);
    ///     }
    /// }
    /// assert!(!Jobs::examine(dir.path().join("none.db")).usable);
    /// # Ok(()) }
    /// ```
    pub fn examine(path: impl AsRef<Path>) -> Report {
        examine(path.as_ref(), false)
    }

    /// As [`examine`](Jobs::examine), and checks every page and every index of the file, as long as it
    /// takes: minutes for a file of some gigabytes.
    pub fn examine_fully(path: impl AsRef<Path>) -> Report {
        examine(path.as_ref(), true)
    }
}

fn examine(path: &Path, full: bool) -> Report {
    let now = Clock::system().micros();
    let mut examined = store::examine(path, full, now);
    let crons = cron_findings(&examined, now);
    examined.findings.extend(crons);
    Report::new(examined.usable, examined.findings)
}

#[cfg(feature = "cron")]
fn cron_findings(examined: &Examined, now: crate::clock::Micros) -> Vec<Finding> {
    let knows = |kind: &str, _: &str| Ok(examined.kinds.iter().any(|known| known == kind));
    let troubles = examined
        .crons
        .iter()
        .filter_map(|row| super::check::cron_trouble(row, now, usize::MAX, &knows));
    let finding = |trouble: super::CronTrouble| {
        // One that only nobody knows so far may be another program's.
        let code = if trouble.unknown_kind.is_some() { "cron_unknown_kind" } else { "bad_cron" };
        Finding::warning(code, format!("cron entry {}: {}", trouble.name, trouble.error))
            .of(trouble.unknown_kind.unwrap_or(trouble.name))
            .advice("put it right or remove it: `legwork cron add`, `legwork cron remove`")
    };
    troubles.map(finding).collect()
}

#[cfg(not(feature = "cron"))]
fn cron_findings(_: &Examined, _: crate::clock::Micros) -> Vec<Finding> {
    Vec::new()
}
