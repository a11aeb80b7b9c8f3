//! The write connection, and what the writer knows in memory of the file behind it.
//!
//! Everything kept here is valid for one `PRAGMA data_version`: when another connection has
//! committed, [`Book::begin`] reads again what may have changed. After a rollback everything is
//! forgotten and read anew.
//!
//! Hot queries name their index with `INDEXED BY`: what `PRAGMA optimize` learns of a file must not
//! change their plan.

mod catch_up;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use rusqlite::Connection;

pub(super) use self::catch_up::NEXT_DUE;
#[cfg(test)]
pub(super) use self::catch_up::NEXT_PRUNE;

use super::counter::Counter;
use super::ends::Flows;
use super::enqueue::find_or_create_lane;
use super::errors::{self, storing};
use super::instance::Instance;
use super::lanes::{Key, LaneId, Lanes};
use super::unique::Waits;
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::record::Scope;
use crate::state::State;
use crate::store::{ClaimRef, InstanceId, PoolId, PoolSpec};

pub(super) struct Book {
    pub(super) conn: Connection,
    pub(super) lanes: Lanes,
    /// `PRAGMA data_version` for which the rest holds; `None`: nothing holds.
    version: Option<i64>,
    /// All lanes are in memory (only programs that claim need them).
    lanes_loaded: bool,
    synced: Option<bool>,
    /// As read, and as this transaction will leave it.
    counter: Counter,
    counter_moved: bool,
    /// What others keep in memory besides lanes changes with this transaction.
    pub(super) rules_moved: bool,
    /// The next transaction reads everything again.
    all_anew: bool,
    /// The instances of this process.
    pub(super) own: BTreeSet<InstanceId>,
    /// The same before this transaction, if it has changed them.
    own_before: Option<BTreeSet<InstanceId>>,
    /// The others, which learn of new work from the counter and by their bells.
    pub(super) others: Vec<Instance>,
    /// `legwork_counter.roster` for which `others` holds.
    roster_read: Option<i64>,
    /// Others have news to look at, once this transaction has committed.
    news_for_others: bool,
    /// Another connection has committed since the writer last asked.
    news: bool,
    /// Somebody has asked running jobs to stop since the writer last looked.
    asked_changed: bool,
    pub(super) made_ready: BTreeSet<LaneId>,
    created: Vec<LaneId>,
    /// Files of instances whose rows go with this transaction: removed once it has committed, since
    /// a row without its lock file may never be proven dead.
    pub(super) litter: Vec<PathBuf>,
    /// When the next waiting job falls due.
    pub(super) next_due: Option<Micros>,
    /// When the next job expires that has not started.
    pub(super) next_expiry: Option<Micros>,
    /// Jobs with an expiry that were claimed here and have not ended: they may come back unstarted.
    pub(super) expiring: HashMap<ClaimRef, Micros>,
    /// Those of them that this transaction gives back.
    pub(super) given_back: Vec<ClaimRef>,
    /// When the next finished job may be pruned.
    pub(super) next_prune: Option<Micros>,
    /// When a line is to be looked at that only the time moves on.
    pub(super) next_look: Option<Micros>,
    /// What the clock showed when lines were last moved on.
    pub(super) clock_seen: Micros,
    /// Lines in which something may go on.
    pub(super) lines: BTreeSet<String>,
    /// Jobs that this transaction has made next in their lines, with their lanes, and not claimed.
    pub(super) nexts: HashMap<i64, LaneId>,
    /// This transaction starts jobs that have limits, or lets others start them.
    pub(super) starts_limited: bool,
    /// So many commits in a row have left the checkpoint to the next one.
    pub(super) checkpoints_put_off: u32,
    pub(super) flows: Flows,
    /// Jobs that claims of this transaction could not start.
    pub(super) passed_by: usize,
    pub(super) last_token: i64,
    /// Counts the draws of pools whose queues have weights.
    pub(super) draws: usize,
    /// What is paused has changed since the writer last asked.
    pauses_changed: bool,
    /// Suspects may be ready.
    pub(super) suspects: bool,
    /// A transaction of these operations has failed, and it is not known by which.
    pub(super) careful: bool,
    /// At how many deaths a suspect is quarantined, 0 for never; of the engine that joined last.
    pub(super) crash_limit: u32,
    /// `cron_changes` in `legwork_meta`, as last seen.
    #[cfg(feature = "cron")]
    pub(super) cron_stamp: i64,
    /// Cron entries have changed since the writer last asked.
    #[cfg(feature = "cron")]
    pub(super) cron_news: bool,
}

/// Whether a failed operation has taken its whole transaction with it.
pub(super) enum Undone {
    /// Only the operation was rolled back; the error is its answer.
    Operation(Error),
    /// The transaction is gone, and everything in it.
    Everything(Error),
}

impl Book {
    pub(super) fn new(conn: Connection) -> Book {
        Book {
            conn,
            lanes: Lanes::default(),
            version: None,
            lanes_loaded: false,
            synced: None,
            counter: Counter::default(),
            counter_moved: false,
            rules_moved: false,
            all_anew: false,
            own: BTreeSet::new(),
            own_before: None,
            others: Vec::new(),
            roster_read: None,
            news_for_others: false,
            news: false,
            asked_changed: false,
            made_ready: BTreeSet::new(),
            created: Vec::new(),
            litter: Vec::new(),
            next_due: None,
            next_expiry: None,
            expiring: HashMap::new(),
            given_back: Vec::new(),
            next_prune: None,
            next_look: None,
            clock_seen: Micros::MIN,
            lines: BTreeSet::new(),
            nexts: HashMap::new(),
            starts_limited: false,
            checkpoints_put_off: 0,
            flows: Flows::default(),
            passed_by: 0,
            last_token: 0,
            draws: 0,
            pauses_changed: false,
            suspects: false,
            careful: false,
            crash_limit: 0,
            #[cfg(feature = "cron")]
            cron_stamp: 0,
            #[cfg(feature = "cron")]
            cron_news: false,
        }
    }

    /// Chooses whether the next commit is synced: `FULL` syncs the WAL at each commit, `NORMAL`
    /// only around checkpoints, so that the file stays sound either way.
    pub(super) fn set_synced(&mut self, synced: bool) -> Result<()> {
        if self.synced != Some(synced) {
            let pragma =
                if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.conn.execute_batch(pragma).map_err(storing)?;
            self.synced = Some(synced);
        }
        Ok(())
    }

    /// Whether commits are synced as was last chosen.
    pub(super) fn is_synced(&self) -> bool {
        self.synced == Some(true)
    }

    /// Whether another connection has committed since the last transaction here.
    pub(super) fn has_news(&self) -> Result<bool> {
        Ok(self.version != Some(self.read_version()?))
    }

    /// Changes when another connection has committed.
    pub(super) fn read_version(&self) -> Result<i64> {
        let mut ask = self.conn.prepare_cached("PRAGMA data_version").map_err(storing)?;
        ask.query_row([], |row| row.get(0)).map_err(storing)
    }

    /// Opens a pool. The lanes are read anew: those of kinds that nobody here knew have been set
    /// aside, and without any pool they are not followed at all.
    pub(super) fn open_pool(&mut self, pool: PoolId, spec: PoolSpec) {
        self.lanes.open_pool(pool, spec);
        self.lanes_loaded = false;
    }

    /// Takes the write lock at once (a deferred `BEGIN` can fail later whatever the time-out) and
    /// catches up with what others have committed. `Ok(false)`: somebody else has the lock.
    pub(super) fn begin(&mut self) -> Result<bool> {
        match self.run("BEGIN IMMEDIATE") {
            Ok(()) => {}
            Err(error) if errors::is_busy(&error) => return Ok(false),
            Err(error) => return Err(storing(error)),
        }
        match self.catch_up() {
            Ok(()) => Ok(true),
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    pub(super) fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// An instance of this process has come or gone.
    pub(super) fn set_own(&mut self, id: InstanceId, here: bool) {
        self.own_before.get_or_insert_with(|| self.own.clone());
        if here {
            self.own.insert(id);
        } else {
            self.own.remove(&id);
        }
    }

    /// An instance has come, gone or changed.
    pub(super) fn roster_moved(&mut self) {
        self.counter.roster += 1;
        self.counter_moved = true;
        self.news_for_others = true;
    }

    /// Others have something to look at.
    pub(super) fn news_for_others(&mut self) {
        self.news_for_others = true;
    }

    /// What is paused or closed has changed, for others too.
    pub(super) fn rules_changed(&mut self) {
        self.rules_moved = true;
        self.news_for_others = true;
    }

    /// A job that another instance holds was asked to stop.
    pub(super) fn ask_other(&mut self, holder: InstanceId) {
        if !self.own.contains(&holder) {
            self.counter.asked += 1;
            self.counter_moved = true;
            self.news_for_others = true;
        }
    }

    /// Whether another connection has committed since the last call.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether somebody has asked running jobs to stop since the last call.
    pub(super) fn take_asked_changed(&mut self) -> bool {
        std::mem::take(&mut self.asked_changed)
    }

    /// Runs one operation inside a savepoint: it happens whole or not at all, and its failure
    /// leaves the operations beside it alone.
    pub(super) fn operation<T>(
        &mut self,
        work: impl FnOnce(&mut Book) -> Result<T>,
    ) -> Result<T, Undone> {
        self.run("SAVEPOINT operation").map_err(|error| self.undone(storing(error)))?;
        let (created, litter) = (self.created.len(), self.litter.len());
        let (lines, next_look) = (self.lines.clone(), self.next_look);
        let (clock_seen, given_back) = (self.clock_seen, self.given_back.len());
        let flows = self.flows.clone();
        let done = work(self).and_then(|value| {
            self.run("RELEASE operation").map_err(storing)?;
            Ok(value)
        });
        done.map_err(|error| {
            // A full disk or an I/O error may have ended the transaction already.
            let rolled_back = !self.conn.is_autocommit()
                && self.run("ROLLBACK TO operation").is_ok()
                && self.run("RELEASE operation").is_ok();
            for lane in self.created.drain(created..) {
                self.lanes.unlearn(lane);
                self.made_ready.remove(&lane);
            }
            self.litter.truncate(litter);
            // What it has moved on has not moved, and what others have named still has to.
            (self.lines, self.next_look, self.flows) = (lines, next_look, flows);
            self.clock_seen = clock_seen;
            self.given_back.truncate(given_back);
            match error {
                error if errors::of_the_file(&error) => Undone::Everything(error),
                error if rolled_back => Undone::Operation(error),
                error => Undone::Everything(error),
            }
        })
    }

    fn undone(&self, error: Error) -> Undone {
        Undone::Everything(error)
    }

    /// Writes what the transaction has moved, and commits it. `true`: others have to be told.
    pub(super) fn commit(&mut self) -> Result<bool> {
        debug_assert!(self.lines.is_empty(), "a line that was named has to be moved on");
        debug_assert!(self.flows.unsettled.is_empty(), "children have to hear of an end");
        if self.roster_read != Some(self.counter.roster) {
            self.read_roster()?;
        }
        // Others are rung for them as soon as they may start.
        self.starts_limited |= !self.nexts.is_empty();
        self.made_ready.extend(self.nexts.drain().map(|(_, lane)| lane));
        if !self.others.is_empty() {
            // A new lane, too: another process may be the one that makes its first job ready.
            for &lane in self.made_ready.iter().chain(&self.created) {
                self.counter.lane_changed(lane);
            }
            if self.rules_moved {
                self.counter.rules += 1;
            }
            let moved = self.rules_moved || !self.made_ready.is_empty() || !self.created.is_empty();
            self.news_for_others |= !self.made_ready.is_empty();
            self.counter_moved |= moved;
        }
        if self.counter_moved {
            self.counter.write(&self.conn)?;
        }
        self.commit_and_checkpoint()?;
        for file in self.litter.drain(..) {
            // What a copied database names was never here.
            let _ = std::fs::remove_file(file);
        }
        let tell = self.news_for_others && !self.others.is_empty();
        for claim in self.given_back.drain(..) {
            self.expiring.remove(&claim);
        }
        self.end_transaction();
        Ok(tell)
    }

    /// Gives everything in the transaction up and forgets what was learnt in it.
    pub(super) fn roll_back(&mut self) {
        if !self.conn.is_autocommit() {
            // If even this fails the connection is broken, and the next BEGIN will say so.
            if let Err(error) = self.conn.execute_batch("ROLLBACK") {
                log::error!("legwork: rolling back failed: {error}");
            }
        }
        if let Some(own) = self.own_before.take() {
            self.own = own;
        }
        self.end_transaction();
        // A step of the clock that was seen in it has to be seen again.
        self.clock_seen = Micros::MAX;
        self.version = None;
        self.roster_read = None;
        self.flows.cancelled.clear();
        self.flows.ended.clear();
        // What was raised here is not in the file: the next value seen is a new one.
        self.counter.asked = -1;
        #[cfg(feature = "cron")]
        {
            self.cron_stamp = -1;
        }
        // What was taken out of the trays for a pause may have been undone with it.
        self.pauses_changed = true;
        self.lanes_loaded = false;
        self.lanes.forget();
    }

    fn end_transaction(&mut self) {
        self.counter_moved = false;
        self.rules_moved = false;
        self.news_for_others = false;
        self.own_before = None;
        self.made_ready.clear();
        self.created.clear();
        self.litter.clear();
        self.lines.clear();
        self.given_back.clear();
        self.flows.unsettled.clear();
        self.flows.bitten = false;
        self.nexts.clear();
        self.starts_limited = false;
    }

    /// The ids up to this one are given out.
    pub(super) fn gave_ids(&mut self, last: i64) {
        self.counter_moved |= last != self.counter.last_job;
        self.counter.last_job = last;
    }

    /// The last id that was given out.
    pub(super) fn last_id(&self) -> i64 {
        self.counter.last_job
    }

    /// What a job's end, or a replaced row, lets go on.
    pub(super) fn goes_on(&mut self, waits: Option<Waits>) {
        match waits {
            Some(Waits { state: State::Ready, lane, place, .. }) => self.ready(lane, place),
            Some(Waits { state: State::Scheduled, place, .. }) => self.due_at(place.run_at),
            Some(_) | None => {}
        }
    }

    /// The number of the next claim.
    pub(super) fn next_token(&mut self) -> i64 {
        self.last_token += 1;
        self.last_token
    }

    /// Whether something was paused or resumed since the last call.
    pub(super) fn take_pauses_changed(&mut self) -> bool {
        std::mem::take(&mut self.pauses_changed)
    }

    /// The number of the next instance, never given before.
    pub(super) fn next_instance(&mut self) -> Result<i64> {
        self.conn
            .query_row(
                "UPDATE legwork_counter SET last_instance = last_instance + 1 RETURNING last_instance",
                [],
                |row| row.get(0),
            )
            .map_err(storing)
    }

    /// The lane of a queue, kind and gate (`""`: none), created if it is new.
    pub(super) fn lane(&mut self, queue: &str, kind: &str, gate: &str) -> Result<LaneId> {
        if let Some(id) = self.lanes.id(queue, kind, gate) {
            return Ok(id);
        }
        let (id, created) = find_or_create_lane(&self.conn, queue, kind, gate)?;
        if created {
            self.created.push(id);
        }
        let bound = if created { None } else { Some(Key::LOWEST) };
        self.lanes.learn(id, (queue, kind, gate), bound);
        Ok(id)
    }

    /// A job of the lane became ready.
    pub(super) fn ready(&mut self, lane: LaneId, key: Key) {
        self.lanes.lower(lane, key);
        self.made_ready.insert(lane);
    }

    /// A suspect became claimable. Its lane's bound is about the others.
    pub(super) fn suspect_ready(&mut self, lane: LaneId) {
        self.suspects = true;
        self.rules_moved = true;
        self.made_ready.insert(lane);
    }

    /// A job now waits for this time.
    pub(super) fn due_at(&mut self, at: Micros) {
        self.rules_moved = true;
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
    }

    /// A finished job may be pruned at this time.
    pub(super) fn prune_at(&mut self, at: Micros) {
        if at == Micros::MAX {
            return;
        }
        self.next_prune = Some(self.next_prune.map_or(at, |next| next.min(at)));
    }
}

pub(super) fn scope_from(scope: &str, name: String) -> Scope {
    match scope {
        "queue" => Scope::Queue(name),
        "kind" => Scope::Kind(name),
        _ => Scope::All,
    }
}
