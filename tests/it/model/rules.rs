//! The model: what the rules say of every job, kept in memory.

mod changes;
mod cron;
mod flows;
mod keys;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use legwork::{Conflict, Scope, State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use self::cron::Ticks;
use self::flows::{Edge, Fate, Flow, Standing, fate};
use self::keys::{Period, Slots};
use super::steps::*;
use super::world::{Enqueue, Refused};

pub struct Model {
    pub pools: Pools,
    pub now: OffsetDateTime,
    pub last_id: i64,
    pub jobs: BTreeMap<i64, Known>,
    pub paused: HashSet<Scope>,
    pub gate_closed: bool,
    pub keys: [Slots; 2],
    /// Some key's period is over. It may have been pruned by now, or not: that goes by real time.
    pub period_over: bool,
    /// The last start by each key's even rate, and all by its burst.
    paced: [Option<OffsetDateTime>; 2],
    pub bursts: [Vec<OffsetDateTime>; 2],
    pub flows: BTreeMap<i64, Flow>,
    /// Jobs of whose end, or return, their children have still to hear.
    unsettled: BTreeSet<i64>,
    cron: Ticks,
}

pub struct Known {
    pub queue: &'static str,
    kind: Kind,
    priority: i64,
    pub run_at: OffsetDateTime,
    pub state: State,
    pub attempts: u32,
    /// Attempts that were recorded as failed, and as interrupted.
    pub recorded: (usize, usize),
    gated: bool,
    expires_at: Option<OffsetDateTime>,
    key: Option<(usize, Held)>,
    /// How many are stored.
    steps: usize,
    pub limit: Option<Limited>,
    parents: Vec<Edge>,
    /// The parent whose end has cancelled it.
    cause: Option<i64>,
    flow: Option<i64>,
    /// Somebody has asked it to stop as it ran.
    pub told_to_stop: bool,
}

impl Known {
    /// For how many parents it waits.
    pub fn parents_left(&self) -> u64 {
        if self.state.is_finished() {
            return 0;
        }
        self.parents.iter().filter(|edge| !edge.done).count() as u64
    }
}

impl Model {
    pub fn new(pools: Pools, now: OffsetDateTime) -> Model {
        Model {
            pools,
            now,
            last_id: 0,
            jobs: BTreeMap::new(),
            paused: HashSet::new(),
            gate_closed: false,
            keys: [Slots::default(), Slots::default()],
            period_over: false,
            paced: [None, None],
            bursts: [Vec::new(), Vec::new()],
            flows: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            cron: Ticks::from(now),
        }
    }

    /// Whether something counts no longer that would count again if the clock were set back.
    pub fn forgets(&self) -> bool {
        self.period_over || self.bursts.iter().any(|starts| !starts.is_empty())
    }

    pub fn pick(&self, pick: Pick) -> i64 {
        // One past the last: no such job.
        1 + i64::try_from(pick).unwrap() % (self.last_id + 1)
    }

    /// What an enqueue answers.
    pub fn enqueue(&mut self, new: &New) -> Enqueue {
        let done = self.insert(new, None);
        self.settle();
        done
    }

    fn insert(&mut self, new: &New, flow: Option<i64>) -> Enqueue {
        let id = self.last_id + 1;
        let run_at = self.now + seconds(new.delay);
        let mut state = if new.delay > 0 { State::Scheduled } else { State::Ready };
        let mut takes = None;
        if let Some(rule) = new.unique {
            let slots = &self.keys[rule.key];
            let keeps_last = rule.held == Held::KeepLast;
            let over = |period: Option<Period>| period.is_some_and(|it| it.is_over(self.now));
            let free = slots.waits.is_none_or(|(_, period)| over(period));
            if !free || (slots.runs.is_some() && !keeps_last) {
                let waiting = slots.waits.map(|(id, _)| id);
                let holder =
                    if keeps_last { waiting } else { slots.runs.or(waiting) }.expect("it is taken");
                return match rule.conflict {
                    Conflict::Reject if new.way == Way::View => Err(Refused::TakenBySomebody),
                    Conflict::Reject => Err(Refused::Taken(holder)),
                    Conflict::Replace | Conflict::KeepLast => {
                        self.replace(holder, new);
                        Ok(holder)
                    }
                    _ => Ok(holder),
                };
            }
            let period = match rule.held {
                Held::Period(length) => {
                    let length = seconds(length);
                    Some(Period { until: self.now + length, length })
                }
                _ => None,
            };
            takes = Some((rule.key, period));
            if slots.runs.is_some() {
                state = State::Blocked;
            }
        }
        let mut parents = Vec::new();
        if let Some(After { parent, anyway }) = new.after {
            let parent = parent as i64;
            let standing = self.standing(parent);
            if standing == Standing::Gone {
                return Err(Refused::NoParent(parent));
            }
            let fate = fate(standing, anyway);
            if matches!(fate, Fate::Cancel) {
                self.unsettled.insert(parent);
            }
            let done = matches!(fate, Fate::Go);
            if !done {
                state = State::Blocked;
            }
            parents.push(Edge { parent, anyway, done });
        }
        if let Some((key, period)) = takes {
            self.keys[key].waits = Some((id, period));
        }
        self.last_id = id;
        self.jobs.insert(
            id,
            Known {
                queue: QUEUES[new.queue],
                kind: new.kind,
                priority: new.priority,
                run_at,
                state,
                attempts: 0,
                recorded: (0, 0),
                gated: new.gated,
                expires_at: new.expires.map(|within| run_at + seconds(within)),
                key: new.unique.map(|rule| (rule.key, rule.held)),
                steps: 0,
                limit: new.limit,
                parents,
                cause: None,
                flow,
                told_to_stop: false,
            },
        );
        Ok(id)
    }

    // ---- limits ------------------------------------------------------------------------------

    /// Whether a limit lets one more start now.
    fn has_room(&self, limit: Limited) -> bool {
        let per = seconds(PER[limit.key]);
        match limit.terms {
            Terms::AtOnce => !self.jobs.values().any(|job| {
                let same = |it: Limited| (it.key, it.terms) == (limit.key, Terms::AtOnce);
                job.state == State::Running && job.limit.is_some_and(same)
            }),
            // A start that lies further ahead was made by a wrong clock.
            Terms::Paced => self.paced[limit.key]
                .is_none_or(|last| self.now >= last + per || last > self.now + per),
            // Up to two hundredths later than it was.
            Terms::Burst => !self.bursts[limit.key]
                .iter()
                .any(|&at| at + per + Duration::from_secs(1) > self.now),
        }
    }

    /// A job that waits becomes the new one; a running or finished one stays as it is.
    fn replace(&mut self, id: i64, new: &New) {
        let run_at = self.now + seconds(new.delay);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state.is_finished() || job.state == State::Running {
            return;
        }
        // All arguments are the same here, so that only another kind is new work.
        let same = job.kind == new.kind;
        (job.queue, job.kind, job.priority) = (QUEUES[new.queue], new.kind, new.priority);
        (job.gated, job.limit) = (new.gated, new.limit);
        if same && job.state == State::Retrying {
            job.expires_at = None;
            return;
        }
        (job.run_at, job.expires_at) = (run_at, new.expires.map(|within| run_at + seconds(within)));
        if !same {
            (job.attempts, job.steps) = (0, 0);
        }
        if job.state != State::Blocked {
            job.state = if new.delay > 0 { State::Scheduled } else { State::Ready };
        }
    }

    /// An attempt starts.
    pub fn start(&mut self, id: i64) {
        let job = self.jobs.get_mut(&id).unwrap();
        job.expires_at = None;
        job.state = State::Running;
        match job.limit {
            Some(Limited { key, terms: Terms::Paced, .. }) => self.paced[key] = Some(self.now),
            Some(Limited { key, terms: Terms::Burst, .. }) => self.bursts[key].push(self.now),
            _ => {}
        }
        let Some((key, held)) = job.key else { return };
        let slots = &mut self.keys[key];
        if slots.waits.is_some_and(|(waits, _)| waits == id) {
            match held {
                Held::Started => slots.waits = None,
                Held::KeepLast => (slots.waits, slots.runs) = (None, Some(id)),
                Held::Finished | Held::Period(_) => {}
            }
        }
    }

    /// What has fallen due is ready, and stays so if the clock is set back; what could not start in time
    /// has ended.
    pub fn turn(&mut self) {
        let mut expired = Vec::new();
        for (&id, job) in &mut self.jobs {
            if matches!(job.state, State::Scheduled | State::Retrying) && job.run_at <= self.now {
                job.state = State::Ready;
            }
            let waits = !job.state.is_finished() && job.state != State::Running;
            if let Some(at) = job.expires_at.filter(|&at| waits && at <= self.now) {
                expired.push((at, id));
            }
        }
        expired.sort_unstable();
        for (_, id) in expired {
            self.end_waiting(id, None);
        }
        self.settle();
        let now = self.now;
        let over =
            |slots: &Slots| slots.waits.and_then(|(_, it)| it).is_some_and(|it| it.until <= now);
        self.period_over |= self.keys.iter().any(over);
    }

    /// As it is shown.
    pub fn shown(&self, job: &Known) -> State {
        match job.state {
            State::Ready if job.gated && self.gate_closed => State::Blocked,
            state => state,
        }
    }

    fn is_paused(&self, job: &Known) -> bool {
        (job.gated && self.gate_closed)
            || self.paused.contains(&Scope::All)
            || self.paused.contains(&Scope::Queue(job.queue.to_owned()))
            || self.paused.contains(&Scope::Kind(job.kind.name().to_owned()))
    }

    /// The job that runs next: of the first pool, of its first queue, that have any. Those before it whose
    /// limits have no room are passed by, or end.
    pub fn claim(&mut self) -> Option<i64> {
        let next = self.pools.iter().find_map(|queues| self.claim_for(queues));
        self.settle();
        next
    }

    fn claim_for(&mut self, queues: &[&str]) -> Option<i64> {
        loop {
            let first = self
                .jobs
                .iter()
                .filter(|(_, job)| job.state == State::Ready && !self.is_paused(job))
                .filter(|(_, job)| {
                    job.limit.is_none_or(|limit| !limit.waits || self.has_room(limit))
                })
                .filter_map(|(&id, job)| {
                    let rank =
                        queues.iter().position(|&queue| queue == "*" || queue == job.queue)?;
                    Some((rank, job.priority, job.run_at, id))
                })
                .min()
                .map(|(.., id)| id)?;
            match self.jobs[&first].limit {
                Some(limit) if !self.has_room(limit) => self.end_waiting(first, None),
                _ => return Some(first),
            }
        }
    }

    /// The steps that run when the job comes to so many.
    pub fn steps_of(&self, id: i64, count: usize) -> Vec<&'static str> {
        STEPS[..count].iter().skip(self.jobs[&id].steps).copied().collect()
    }

    /// A job runs; what it has enqueued meanwhile.
    pub fn run(&mut self, id: i64, run: Run) -> Option<Enqueue> {
        self.start(id);
        self.end(id, run)
    }

    /// A job that was started does what it is told; what it has enqueued meanwhile.
    pub fn end(&mut self, id: i64, run: Run) -> Option<Enqueue> {
        self.now += seconds(run.takes);
        self.turn();
        let enqueued = run.meanwhile.map(|new| self.enqueue(&new));
        let now = self.now;
        let job = self.jobs.get_mut(&id).unwrap();
        let (attempts, delay) = job.kind.retries();
        let run_at = job.run_at;
        let failed = match run.end {
            End::Fail | End::Panic | End::Fatal => 1,
            _ => 0,
        };
        job.state = match run.end {
            End::Done => State::Completed,
            End::Heed if !run.cancelled => State::Completed,
            // Cancelled meanwhile and not completed: it is not tried again, whatever it says.
            _ if run.cancelled || job.told_to_stop => State::Cancelled,
            End::Heed | End::Cancel => State::Cancelled,
            End::Fatal => State::Failed,
            End::Fail | End::Panic if job.attempts + 1 >= attempts => State::Failed,
            End::Fail | End::Panic => {
                job.run_at = now + seconds(delay);
                State::Retrying
            }
            End::Snooze(delay) => {
                job.run_at = now + seconds(delay);
                State::Scheduled
            }
            // Nobody counts a crash against it.
            End::Crash => State::Ready,
        };
        job.attempts += failed + u32::from(job.state == State::Completed);
        job.recorded.0 += failed as usize;
        job.recorded.1 += usize::from(run.end == End::Crash);
        job.told_to_stop = false;
        let key = job.key;
        job.steps = if job.state == State::Completed { 0 } else { job.steps.max(run.steps) };
        if !job.state.is_finished() && !self.wait_again(id) {
            // A newer one has taken its place.
            let job = self.jobs.get_mut(&id).unwrap();
            (job.state, job.run_at) = (State::Cancelled, run_at);
        }
        let (state, flow) = (self.jobs[&id].state, self.jobs[&id].flow);
        if state.is_finished() {
            self.free(id, key, false);
            self.ended(id, flow, state);
        }
        self.settle();
        enqueued
    }

    /// What a verb answers: done, or why not.
    pub fn control(&mut self, id: i64, verb: Verb) -> Answer {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else { return Answer::NotFound };
        let waits = !job.state.is_finished() && job.state != State::Running;
        let (state, key, never_started) = (job.state, job.key, job.attempts == 0);
        match verb {
            Verb::Cancel if state == State::Running => job.told_to_stop = true,
            Verb::Cancel if !state.is_finished() => self.end_waiting(id, None),
            Verb::Retry if state.is_finished() => {
                if let Some(parent) = self.waits_in_vain_for(id) {
                    return Answer::HeldByParent(parent);
                }
                let waits = self.jobs[&id].parents.iter().any(|edge| !edge.done);
                match self.revive(id) {
                    Ok(_) if waits => self.run_again(id, State::Blocked),
                    Ok(state) => self.run_again(id, state),
                    Err(holder) => return Answer::NotUnique(holder),
                }
            }
            Verb::Retry if state == State::Retrying => {
                (job.state, job.attempts, job.run_at) = (State::Ready, 0, self.now);
            }
            Verb::Delete if state != State::Running => {
                let flow = job.flow;
                self.jobs.remove(&id);
                if state.is_finished() {
                    self.forget_parent(id);
                } else {
                    self.free(id, key, never_started);
                    self.ended(id, flow, State::Cancelled);
                }
            }
            Verb::Reschedule(by) if waits => job.move_to(now + time::Duration::seconds(by), now),
            Verb::RunNow if waits && state != State::Ready && job.waits_for_its_time(now) => {
                job.move_to(now, now);
            }
            Verb::Edit(edit) if waits => job.become_as(edit),
            Verb::Clone => return self.clone_job(id),
            _ => return Answer::WrongState(self.shown(&self.jobs[&id])),
        }
        self.settle();
        Answer::Done
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Verb {
    Cancel,
    Retry,
    Delete,
    /// Seconds from now, or ago.
    Reschedule(i64),
    RunNow,
    Edit(Edited),
    Clone,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// There is this new job.
    New(i64),
    NotFound,
    WrongState(State),
    NotUnique(i64),
    HeldByParent(i64),
}

impl Answer {
    /// A job that could run but for a limit may be shown as either.
    pub fn blurred(self) -> Answer {
        match self {
            Answer::WrongState(State::Blocked) => Answer::WrongState(State::Ready),
            answer => answer,
        }
    }
}
