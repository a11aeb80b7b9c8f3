//! What waits that nobody could run: a gate for deploys.

use serde::Serialize;

use super::Jobs;
use crate::error::Result;
use crate::id::JobId;
use crate::kinds;
use crate::new_job::JobOptions;

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
        self.unknown.is_empty() && self.undecodable.is_empty()
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

impl Jobs {
    /// Looks for jobs that are not finished and whose kind no engine has ever known that ran on this
    /// file. A program that has its types at hand asks
    /// [`EngineBuilder::check`](crate::EngineBuilder::check), which goes by what it registers and tries the
    /// arguments too.
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
        Ok(report)
    }

    /// What engines have recorded of a kind's options: queue, priority, delay, tags and retention, as
    /// the last engine that started had them. `None`: no engine has known the kind. For programs that
    /// do not have its type; they give it to [`NewJob::options`](crate::NewJob::options).
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
