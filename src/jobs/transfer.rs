//! Moving jobs to another file: exporting and importing.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::exported::{ExportedJob, ImportRow, Imported, ImportedLines};
use crate::id::JobId;
use crate::record::Filter;
use crate::store::{Import, ImportMark};

use super::Jobs;

/// An import under way: remembers which jobs have become which, for those who wait for them.
///
/// ```
/// # use legwork::{Filter, ImportRun, Jobs, NewJob};
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let old = Jobs::open(dir.path().join("old.db"))?;
/// # old.enqueue(NewJob::of_kind("mail", serde_json::json!({ "to": 7 })))?;
/// # let new = Jobs::open(dir.path().join("new.db"))?;
/// let mut run = ImportRun::new();
/// let mut after = None;
/// loop {
///     let jobs = old.export(&Filter::new(), after, 500)?;
///     let Some(last) = jobs.last() else { break };
///     after = Some(last.id);
///     new.import(jobs, &mut run)?;
/// }
/// # assert_eq!(new.list(&Filter::new(), None, 10)?.jobs[0].args, r#"{"to":7}"#);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ImportRun {
    ids: HashMap<JobId, JobId>,
    history: bool,
    export: Option<String>,
    line: Option<u64>,
    reached: Option<ImportedLines>,
}

impl ImportRun {
    /// Imports jobs that are not finished.
    pub fn new() -> ImportRun {
        ImportRun::default()
    }

    /// Finished jobs are added to the history as well.
    pub fn with_history(self) -> ImportRun {
        ImportRun { history: true, ..self }
    }

    /// The jobs come from the export with this name. The file remembers how far it has come in it, and until
    /// [`Jobs::end_import`] which jobs those have become that others wait for, so that a later run can
    /// go on.
    pub fn of(self, export: impl Into<String>) -> ImportRun {
        ImportRun { export: Some(export.into()), ..self }
    }

    /// Goes on behind these lines of its export, as [`Jobs::imported_lines`] has told: if another
    /// import of it has gone on meanwhile, nothing more is imported by this one.
    pub fn behind(self, lines: ImportedLines) -> ImportRun {
        ImportRun { reached: Some(lines), ..self }
    }

    /// The next jobs reach to this line of the export that the run is [of](ImportRun::of): remembered with
    /// them in the file, and asked for by [`Jobs::imported_lines`].
    pub fn mark(&mut self, line: u64) {
        self.line = Some(line);
    }

    fn take_mark(&mut self) -> Option<ImportMark> {
        let (line, export) = (self.line.take()?, self.export.clone()?);
        let reached = self.reached.unwrap_or_default().up_to(line, self.history);
        Some(ImportMark { export, reached, after: self.reached })
    }
}

impl Jobs {
    /// Reads jobs that match, with all that is needed to make them anew: at most `limit` with ids above
    /// `after`, by rising id. To read all, ask again with the last id until nothing comes; what is
    /// enqueued meanwhile comes as well.
    ///
    /// # Errors
    /// Those of reading.
    pub fn export(
        &self,
        filter: &Filter,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<ExportedJob>> {
        self.store().export(filter, after.unwrap_or(JobId(0)), limit.clamp(1, 10_000))
    }

    /// Enqueues exported jobs as new jobs with new ids, all of them or none, durably. Their times, attempts,
    /// unique keys and limits stay; those that were running begin that attempt again. Jobs that wait
    /// for others come after those, in this call or an earlier one of the same run. Finished ones are
    /// left out, unless the run [has the history](ImportRun::with_history).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Json`] for a job that cannot be enqueued like this;
    /// [`Error::NotFound`] if a parent was not imported before; [`Error::Invalid`] of `import` if somebody
    /// else imports the same export; those of writing.
    pub fn import(&self, jobs: Vec<ExportedJob>, run: &mut ImportRun) -> Result<Imported> {
        self.refuse_inside_transaction("import")?;
        let (mut rows, mut left_out, mut parents) = (Vec::new(), 0, Vec::new());
        for job in jobs {
            if job.state.is_finished() && !run.history {
                left_out += 1;
                continue;
            }
            if job.is_parent {
                parents.push(job.id);
            }
            rows.push(self.checked(job, run)?);
        }
        let mark = run.take_mark();
        let reached = mark.as_ref().map(|mark| mark.reached);
        let done = self.store().import(Import { jobs: rows, mark })?;
        run.reached = run.reached.map(|before| reached.unwrap_or(before));
        // The others are nobody's parents: they need not be remembered.
        run.ids.extend(done.ids.into_iter().filter(|(old, _)| parents.contains(old)));
        Ok(Imported { left_out, ..done.imported })
    }

    /// What [`import`](Jobs::import) would do with these jobs, of which it does nothing: whether each could be
    /// enqueued, and whether those are there that it waits for. Unique keys are not looked at. It takes a
    /// run of its own, for all parts of an import.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Json`], [`Error::NotFound`] as [`import`](Jobs::import); those of reading.
    pub fn try_import(&self, jobs: &[ExportedJob], run: &mut ImportRun) -> Result<Imported> {
        let mut done = Imported::default();
        let mut here = HashSet::new();
        for job in jobs {
            let finished = job.state.is_finished();
            if finished && !run.history {
                done.left_out += 1;
                continue;
            }
            self.check_import(job)?;
            if finished {
                done.finished += 1;
            } else {
                self.find_parents(job, run, &here)?;
                done.enqueued += 1;
            }
            here.insert(job.id);
            if job.is_parent {
                run.ids.insert(job.id, JobId::UNSTORED);
            }
        }
        Ok(done)
    }

    /// Whether all that a job waits for was imported before it.
    fn find_parents(
        &self,
        job: &ExportedJob,
        run: &ImportRun,
        here: &HashSet<JobId>,
    ) -> Result<()> {
        for &parent in &job.after {
            let before = || match &run.export {
                Some(export) => self.store().imported_parent(export, parent),
                None => Ok(false),
            };
            if !here.contains(&parent) && !run.ids.contains_key(&parent) && !before()? {
                return Err(Error::NotFound(parent));
            }
        }
        Ok(())
    }

    /// Whether an exported job could be imported, as far as it can be said of it alone.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Json`] as [`import`](Jobs::import).
    pub fn check_import(&self, job: &ExportedJob) -> Result<()> {
        job.clone().into_row(self.clock().micros(), self.0.max_args).map(drop)
    }

    fn checked(&self, job: ExportedJob, run: &ImportRun) -> Result<ImportRow> {
        let mut row = job.into_row(self.clock().micros(), self.0.max_args)?;
        let known = row.after.iter().filter_map(|parent| run.ids.get(parent));
        // Some have become none: there is nothing to wait for.
        row.row.parents = known.copied().filter(|parent| *parent != JobId::UNSTORED).collect();
        row.after.retain(|parent| !run.ids.contains_key(parent));
        Ok(row)
    }

    /// All of an export that a run was [of](ImportRun::of) is imported: what a later run would have needed to go on is
    /// forgotten. The mark itself stays.
    ///
    /// # Errors
    /// Those of writing.
    pub fn end_import(&self, export: &str) -> Result<()> {
        self.refuse_inside_transaction("end_import")?;
        self.store().end_import(export.to_owned())
    }

    /// How far an export has been imported into this file, as [marked](ImportRun::mark); 0 if it was not.
    ///
    /// # Errors
    /// Those of reading.
    pub fn imported_lines(&self, export: &str) -> Result<ImportedLines> {
        self.store().imported_lines(export)
    }
}
