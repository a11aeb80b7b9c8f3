//! What is read of the file, on the store's readers.

use std::collections::HashMap;
use std::time::Duration;

#[cfg(feature = "cron")]
use super::cron;
use super::news::{self, Enqueued};
use super::{Store, gates, instance, kinds, query};
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;
use crate::record::{
    AttemptRecord, Backlog, FailureGroup, Filter, GateRecord, InstanceRecord, JobRecord, LogLine,
    Page, Scope, Stats, WorkerRecord,
};
use crate::store::InstanceId;
#[cfg(feature = "cron")]
use crate::store::cron::CronRow;

impl Store {
    pub(crate) fn get(&self, id: JobId) -> Result<Option<JobRecord>> {
        query::get(&*self.reader()?, id)
    }

    pub(crate) fn list(
        &self,
        filter: &Filter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Page> {
        query::list(&*self.reader()?, filter, before, limit)
    }

    pub(crate) fn count(&self, filter: &Filter) -> Result<u64> {
        query::count(&*self.reader()?, filter)
    }

    pub(crate) fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>> {
        query::attempts(&*self.reader()?, id)
    }

    pub(crate) fn logs(&self, id: JobId, after: i64) -> Result<Vec<LogLine>> {
        query::logs(&*self.reader()?, id, after)
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        query::stats(&*self.reader()?, self.settings().clock.micros())
    }

    pub(crate) fn oldest_ready(&self) -> Result<Option<Duration>> {
        query::oldest_ready(&*self.reader()?, self.settings().clock.micros())
    }

    /// What is ready, by queue and kind.
    pub(crate) fn backlog(&self) -> Result<Vec<Backlog>> {
        query::backlog(&*self.reader()?, self.settings().clock.micros())
    }

    /// The failures of the jobs that match, by what they have in common.
    pub(crate) fn failures(&self, filter: &Filter, limit: usize) -> Result<Vec<FailureGroup>> {
        query::failures(&*self.reader()?, filter, limit)
    }

    /// What is paused.
    pub(crate) fn paused(&self) -> Result<Vec<Scope>> {
        query::paused(&*self.reader()?)
    }

    /// The closed gates, and those that jobs have named.
    pub(crate) fn gates(&self) -> Result<Vec<GateRecord>> {
        gates::all(&*self.reader()?)
    }

    /// When the next waiting job falls due.
    pub(crate) fn next_due(&self) -> Result<Option<Micros>> {
        query::next_due(&*self.reader()?)
    }

    /// All cron entries, by name.
    #[cfg(feature = "cron")]
    pub(crate) fn crons(&self) -> Result<Vec<CronRow>> {
        cron::rows(&*self.reader()?)
    }

    /// One cron entry.
    #[cfg(feature = "cron")]
    pub(crate) fn cron(&self, name: &str) -> Result<Option<CronRow>> {
        cron::row(&*self.reader()?, name)
    }

    /// The numbers of all instances in the file.
    pub(crate) fn instance_numbers(&self) -> Result<Vec<InstanceId>> {
        instance::numbers(&*self.reader()?)
    }

    /// All instances, each with what it has in hand.
    pub(crate) fn workers(&self) -> Result<Vec<WorkerRecord>> {
        instance::workers(&*self.reader()?, self.path())
    }

    pub(crate) fn instances(&self) -> Result<Vec<InstanceRecord>> {
        instance::records(&*self.reader()?, self.path())
    }

    /// The processes of all instances in the file, with their doorbells.
    pub(crate) fn bells(&self) -> Result<Vec<(i64, String)>> {
        let instances = instance::instances(&*self.reader()?)?;
        Ok(instances.into_iter().map(|other| (other.identity.pid, other.identity.bell())).collect())
    }

    /// The newest job there is, or 0.
    pub(crate) fn newest(&self) -> Result<i64> {
        news::newest(&*self.reader()?)
    }

    /// At most so many jobs that were enqueued after one, in this order, finished ones included.
    pub(crate) fn enqueued_after(&self, id: i64, limit: i64) -> Result<Vec<Enqueued>> {
        news::enqueued_after(&*self.reader()?, id, limit)
    }

    /// All kinds that engines have recorded, with their options as JSON.
    pub(crate) fn kinds(&self) -> Result<HashMap<String, String>> {
        kinds::all(&*self.reader()?)
    }

    /// The options of one kind as JSON.
    pub(crate) fn kind(&self, kind: &str) -> Result<Option<String>> {
        self.check_alive()?;
        // A process that enqueues one job and ends has no use for a second connection.
        if !self.file.readers.are_open()
            && let Some(Ok(found)) = self.file.desk.look_up(|conn| kinds::one(conn, kind))
        {
            return Ok(found);
        }
        kinds::one(&*self.reader()?, kind)
    }

    /// Shows every job that is not finished, with its kind and arguments.
    pub(crate) fn each_pending(&self, visit: &mut dyn FnMut(JobId, &str, &str)) -> Result<()> {
        kinds::each_pending(&*self.reader()?, visit)
    }
}
