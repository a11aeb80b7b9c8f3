//! Expiry: a job that could not start in time ends as cancelled.
//!
//! The writer has an alarm for the first of them, whatever keeps it from running: a paused queue, a
//! closed gate, a kind that nobody knows. The claim looks once more, since an alarm can come late.
//! The first start clears the time; so what has one has not started, and retries never expire.

use rusqlite::params;

use super::book::Book;
use super::ends::Why;
use super::errors::storing;
use crate::clock::Micros;
use crate::error::Result;
use crate::id::JobId;
use crate::new_job::Retention;
use crate::store::ClaimRef;

/// When the next job expires.
pub(super) const NEXT_EXPIRY: &str = "
SELECT expires_at FROM legwork_jobs INDEXED BY legwork_next_expiry
 WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1";
/// Jobs whose time is over, the earliest first.
pub(super) const EXPIRED: &str = "
SELECT id FROM legwork_jobs INDEXED BY legwork_next_expiry
 WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT 256";
/// A job that was claimed and has not started after all.
const EXPIRES_AGAIN: &str = "UPDATE legwork_jobs SET expires_at = ?2 WHERE id = ?1";

/// So many may end in one transaction, by the alarm and by claims; then claims wait for the next one.
pub(super) const MOST: usize = 512;

pub(super) const REASON: &str = "expired: it could not start in time";

impl Book {
    /// A job now expires at this time, unless it starts.
    pub(super) fn expires_at(&mut self, at: Micros) {
        self.rules_moved = true;
        if !self.lanes.has_pools() {
            // The alarm is for others to set.
            self.news_for_others();
        }
        self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
    }

    /// Ends jobs that have expired: a bite of them, as of those that fall due. `next_expiry` tells
    /// whether more are left.
    pub(super) fn expire_due(&mut self, now: Micros, keep: Retention) -> Result<Vec<JobId>> {
        let expired: Vec<i64> = self
            .conn
            .prepare_cached(EXPIRED)
            .and_then(|mut ask| ask.query_map([now], |row| row.get(0))?.collect())
            .map_err(storing)?;
        for &id in &expired {
            self.end_waiting(id, Why::reason(REASON), now, keep)?;
        }
        self.read_alarms()?;
        Ok(expired.into_iter().map(JobId).collect())
    }

    /// The end of a claim: of a job that never started, the expiry counts again.
    pub(super) fn claim_ended(&mut self, claim: ClaimRef, started: bool) -> Result<()> {
        if self.expiring.is_empty() {
            return Ok(());
        }
        if started {
            self.expiring.remove(&claim);
        } else if let Some(&at) = self.expiring.get(&claim) {
            // Once that is committed.
            self.given_back.push(claim);
            self.conn
                .prepare_cached(EXPIRES_AGAIN)
                .and_then(|mut again| again.execute(params![claim.id.0, at]))
                .map_err(storing)?;
            self.expires_at(at);
        }
        Ok(())
    }
}
