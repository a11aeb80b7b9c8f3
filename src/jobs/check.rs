//! What waits that nobody could run: a gate for deploys.

#[cfg(feature = "cron")]
use std::fmt::Display;

use serde::Serialize;

use super::Jobs;
use crate::error::Result;
use crate::id::JobId;
use crate::kinds;
use crate::new_job::JobOptions;
#[cfg(feature = "cron")]
use crate::{clock::Micros, new_job::NewJob, rules::cron::Schedule, store::cron::CronRow};

/// Whether a job of a kind with these arguments could run: `Ok(false)` if the kind is unknown, and what
/// is wrong with the arguments.
pub(crate) type Judge<'a> = dyn Fn(&str, &str) -> std::result::Result<bool, String> + 'a;

/// So many ids are named of each kind.
const NAMED: usize = 5;

/// What [`Jobs::check`] and [`EngineBuilder::check`](crate::EngineBuilder::check) have found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Kinds of waiting jobs that nobody knows.
    pub unknown: Vec<KindTrouble>,
    /// Kinds of waiting jobs whose arguments do not decode as the kind's type.
    pub undecodable: Vec<KindTrouble>,
    /// Cron entries that cannot fire, or whose jobs could not run. Empty without the feature `cron`.
    pub crons: Vec<CronTrouble>,
}

/// A cron entry with which something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronTrouble {
    /// Its name.
    pub name: String,
    /// What is wrong: its expression, its zone, its job, or that nobody knows the kind.
    pub error: String,
    /// The kind of its job, if that is what nobody knows.
    pub unknown_kind: Option<String>,
}

impl CronTrouble {
    #[cfg(feature = "cron")]
    fn new(name: &str, error: impl ToString) -> CronTrouble {
        CronTrouble { name: name.to_owned(), error: error.to_string(), unknown_kind: None }
    }
}

/// The jobs of one kind with the same trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KindTrouble {
    /// The kind.
    pub kind: String,
    /// How many of its jobs, waiting or running.
    pub count: u64,
    /// The first of them, at most five.
    pub ids: Vec<JobId>,
    /// What is wrong with the first, if more can be said than that the kind is unknown.
    pub error: Option<String>,
}

impl CheckReport {
    /// Whether nothing was found.
    pub fn is_ok(&self) -> bool {
        self.unknown.is_empty() && self.undecodable.is_empty() && self.crons.is_empty()
    }

    pub(crate) fn found_unknown(&mut self, id: JobId, kind: &str) {
        add(&mut self.unknown, id, kind, || None);
    }

    pub(crate) fn found_undecodable(
        &mut self,
        id: JobId,
        kind: &str,
        says: impl FnOnce() -> String,
    ) {
        add(&mut self.undecodable, id, kind, || Some(says()));
    }
}

/// Counts a job among its kind's; kinds stand in their order.
fn add(kinds: &mut Vec<KindTrouble>, id: JobId, kind: &str, says: impl FnOnce() -> Option<String>) {
    let at = match kinds.binary_search_by(|known| known.kind.as_str().cmp(kind)) {
        Ok(at) => at,
        Err(at) => {
            let new =
                KindTrouble { kind: kind.to_owned(), count: 0, ids: Vec::new(), error: says() };
            kinds.insert(at, new);
            at
        }
    };
    let found = &mut kinds[at];
    found.count += 1;
    if found.ids.len() < NAMED {
        found.ids.push(id);
    }
}

/// What is wrong with a cron entry, if anything is.
#[cfg(feature = "cron")]
pub(crate) fn cron_trouble(
    row: &CronRow,
    now: Micros,
    max_args: usize,
    judge: &Judge<'_>,
) -> Option<CronTrouble> {
    let trouble = |error: &dyn Display| Some(CronTrouble::new(&row.name, error));
    if let Err(error) = Schedule::parse(&row.expression, &row.zone) {
        return trouble(&error);
    }
    // The jobs of other entries are made by an engine's builder.
    let job: NewJob = match serde_json::from_str(row.job.as_deref()?) {
        Ok(job) => job,
        Err(error) => return trouble(&format!("its stored job cannot be read: {error}")),
    };
    let job = match job.into_row(now, max_args) {
        Ok(job) => job,
        Err(error) => return trouble(&error),
    };
    match judge(&job.kind, &job.args) {
        Ok(true) => None,
        Ok(false) => Some(CronTrouble {
            unknown_kind: Some(job.kind.clone()),
            ..CronTrouble::new(&row.name, format!("nobody knows the kind {:?}", job.kind))
        }),
        Err(error) => trouble(&error),
    }
}

impl Jobs {
    /// Looks for jobs that are not finished and whose kind no engine has ever known that ran on this
    /// file. A program that has its types at hand asks
    /// [`EngineBuilder::check`](crate::EngineBuilder::check), which goes by what it registers and tries the
    /// arguments too. Cron entries are looked at as well: expression, zone, stored job and its kind.
    ///
    /// It reads every job that is not finished, some at a time, and keeps only counts and a few ids.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// jobs.enqueue(NewJob::of_kind("mial", serde_json::json!({})))?;
    /// let report = jobs.check()?;
    /// assert_eq!(report.unknown[0].kind, "mial");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading.
    pub fn check(&self) -> Result<CheckReport> {
        let known = self.store().kinds()?;
        let mut report = CheckReport::default();
        self.store().each_pending(&mut |id, kind, _| {
            if !known.contains_key(kind) {
                report.found_unknown(id, kind);
            }
        })?;
        self.check_crons(&mut report, &|kind, _| Ok(known.contains_key(kind)))?;
        Ok(report)
    }

    /// Looks at every cron entry. `judge`: whether a job of this kind, with these arguments, could run;
    /// `Ok(false)` if its kind is unknown.
    #[cfg(feature = "cron")]
    pub(crate) fn check_crons(&self, report: &mut CheckReport, judge: &Judge<'_>) -> Result<()> {
        let (now, max_args) = (self.clock().micros(), self.0.max_args);
        let rows = self.store().crons()?;
        let troubles = rows.iter().filter_map(|row| cron_trouble(row, now, max_args, judge));
        report.crons.extend(troubles);
        Ok(())
    }

    /// Without the feature there is nothing to look at.
    #[cfg(not(feature = "cron"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn check_crons(&self, _: &mut CheckReport, _: &Judge<'_>) -> Result<()> {
        Ok(())
    }

    /// What engines have recorded of a kind's options: queue, priority, delay, tags, retention, gate,
    /// expiry, unique rule and limits, as the last engine that started had them. `None`: no engine has
    /// known the kind. For programs that do not have its type; they give it to [`NewJob::options`](crate::NewJob::options).
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// let mut mail = NewJob::of_kind("mail", serde_json::json!({ "to": 7 }));
    /// if let Some(options) = jobs.known_options("mail")? {
    ///     mail = mail.options(options);
    /// }
    /// jobs.enqueue(mail)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading; [`Error::Json`](crate::Error::Json) if another hand has spoilt them.
    pub fn known_options(&self, kind: &str) -> Result<Option<JobOptions>> {
        self.store().kind(kind)?.as_deref().map(kinds::from_json).transpose()
    }
}
