//! Reading flows, parents and children, on the store's readers.

use super::errors::storing;
use super::{Store, flows, query};
use crate::error::{Error, Result};
use crate::flow::{EnqueuedFlow, FlowPage, FlowRecord, FlowRow};
use crate::id::{FlowId, JobId};
use crate::record::JobRecord;
use rusqlite::Connection;

const CHILDREN_OF: &str = "SELECT child FROM legwork_edges WHERE parent = ?1 ORDER BY child";

impl Store {
    /// Enqueues a flow on a connection of the app, in its transaction if it has one open.
    pub(crate) fn insert_flow_in(&self, conn: &Connection, flow: &FlowRow) -> Result<EnqueuedFlow> {
        self.check_alive()?;
        self.check_same_file(conn)?;
        let (now, keep) = (self.settings().clock.micros(), self.settings().retention);
        let mut done = None;
        super::finish::all_or_nothing(conn, || {
            done = Some(flows::enqueue_on(conn, flow, now, keep)?);
            Ok(())
        })?;
        let _ = self.look();
        done.ok_or(Error::Poisoned)
    }

    pub(crate) fn flow(&self, id: FlowId) -> Result<Option<FlowRecord>> {
        flows::record(&*self.reader()?, id)
    }

    pub(crate) fn flows(&self, before: Option<FlowId>, limit: usize) -> Result<FlowPage> {
        flows::list(&*self.reader()?, before, limit)
    }

    /// The flow whose callback a job is.
    pub(crate) fn called_by(&self, id: JobId) -> Result<Option<FlowId>> {
        flows::called_by(&*self.reader()?, id)
    }

    /// The parents of a job that are still there, by rising id.
    pub(crate) fn parents(&self, id: JobId) -> Result<Vec<JobRecord>> {
        query::parents(&*self.reader()?, id)
    }

    /// The children of a job, by rising id.
    pub(crate) fn children(&self, id: JobId) -> Result<Vec<JobId>> {
        let reader = self.reader()?;
        let mut ask = reader.prepare_cached(CHILDREN_OF).map_err(storing)?;
        ask.query_map([id.0], |row| row.get(0).map(JobId))
            .and_then(Iterator::collect)
            .map_err(storing)
    }
}
