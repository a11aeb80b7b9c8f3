//! The model: what the rules say of every job, kept in memory.

use super::*;

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Copy => "copy",
            Kind::Send => "send",
        }
    }

    /// Attempts in all, and the seconds between them.
    pub(super) fn retries(self) -> (u32, u64) {
        match self {
            Kind::Copy => (3, 7),
            Kind::Send => (2, 0),
        }
    }

    pub(super) fn options(self) -> JobOptions {
        let (attempts, delay) = self.retries();
        JobOptions::new()
            .retry(Retry::fixed(Duration::from_secs(delay)).attempts(attempts).jitter(0.0))
    }
}

pub(super) struct Model {
    pub(super) pools: Pools,
    pub(super) now: OffsetDateTime,
    pub(super) last_id: i64,
    pub(super) jobs: BTreeMap<i64, Known>,
    pub(super) paused: HashSet<Scope>,
    pub(super) gate_closed: bool,
    pub(super) keys: [Slots; 2],
    /// Some key's period is over. It may have been pruned by now, or not: that goes by real time.
    pub(super) period_over: bool,
}

/// Who has a key: the one that waits, or has it altogether, with the end of a period; the one that runs
/// beside it.
#[derive(Default)]
pub(super) struct Slots {
    waits: Option<(i64, Option<Period>)>,
    runs: Option<i64>,
}

/// How long a period holds a key.
#[derive(Clone, Copy)]
struct Period {
    until: OffsetDateTime,
    length: Duration,
}

impl Period {
    /// Its end has come, or it began by a clock that was ahead.
    fn is_over(self, now: OffsetDateTime) -> bool {
        self.until <= now || self.until - now > 2 * self.length
    }
}

pub(super) struct Known {
    pub(super) queue: &'static str,
    kind: Kind,
    priority: i64,
    pub(super) run_at: OffsetDateTime,
    pub(super) state: State,
    pub(super) attempts: u32,
    /// Attempts that were recorded as failed, and as interrupted.
    pub(super) recorded: (usize, usize),
    gated: bool,
    expires_at: Option<OffsetDateTime>,
    key: Option<(usize, Held)>,
    /// How many are stored.
    steps: usize,
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Model {
    pub(super) fn pick(&self, pick: Pick) -> i64 {
        // One past the last: no such job.
        1 + i64::try_from(pick).unwrap() % (self.last_id + 1)
    }

    /// What an enqueue answers.
    pub(super) fn enqueue(&mut self, new: &New) -> Enqueue {
        let id = self.last_id + 1;
        let run_at = self.now + seconds(new.delay);
        let mut state = if new.delay > 0 { State::Scheduled } else { State::Ready };
        if let Some(rule) = new.unique {
            let slots = &mut self.keys[rule.key];
            let keeps_last = rule.held == Held::KeepLast;
            let over = |period: Option<Period>| period.is_some_and(|it| it.is_over(self.now));
            let free = slots.waits.is_none_or(|(_, period)| over(period));
            if !free || (slots.runs.is_some() && !keeps_last) {
                let waiting = slots.waits.map(|(id, _)| id);
                let holder =
                    if keeps_last { waiting } else { slots.runs.or(waiting) }.expect("it is taken");
                return match rule.conflict {
                    Conflict::Reject => Err(holder),
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
            slots.waits = Some((id, period));
            if slots.runs.is_some() {
                state = State::Blocked;
            }
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
            },
        );
        Ok(id)
    }

    /// A job that waits becomes the new one; a running or finished one stays as it is.
    fn replace(&mut self, id: i64, new: &New) {
        let run_at = self.now + seconds(new.delay);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state.is_finished() || job.state == State::Running {
            return;
        }
        (job.queue, job.kind, job.priority) = (QUEUES[new.queue], new.kind, new.priority);
        job.gated = new.gated;
        job.expires_at = new.expires.map(|within| run_at + seconds(within));
        // It is new work.
        (job.run_at, job.attempts, job.steps) = (run_at, 0, 0);
        if job.state != State::Blocked {
            job.state = if new.delay > 0 { State::Scheduled } else { State::Ready };
        }
    }

    /// A job has ended, or is gone.
    fn free(&mut self, id: i64, key: Option<(usize, Held)>, never_started: bool) {
        let Some((key, held)) = key else { return };
        if matches!(held, Held::Period(_)) && !never_started {
            return;
        }
        let slots = &mut self.keys[key];
        slots.waits = slots.waits.filter(|(waits, _)| *waits != id);
        slots.runs = slots.runs.filter(|runs| *runs != id);
        if held == Held::KeepLast
            && let Some((next, _)) = slots.waits
            && let Some(job) = self.jobs.get_mut(&next)
            && job.state == State::Blocked
        {
            job.state = if job.run_at <= self.now { State::Ready } else { State::Scheduled };
        }
    }

    /// An attempt starts.
    fn start(&mut self, id: i64) {
        let job = self.jobs.get_mut(&id).unwrap();
        job.expires_at = None;
        job.state = State::Running;
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

    /// A job that has run is to wait again; whether it may.
    fn wait_again(&mut self, id: i64) -> bool {
        let now = self.now;
        let Some((key, held)) = self.jobs[&id].key else { return true };
        let slots = &mut self.keys[key];
        let over = |(_, it): (i64, Option<Period>)| it.is_some_and(|it| it.is_over(now));
        match held {
            Held::Finished | Held::Period(_) => return true,
            Held::Started if slots.waits.is_none_or(over) => slots.waits = Some((id, None)),
            Held::KeepLast if slots.waits.is_none() && slots.runs == Some(id) => {
                (slots.waits, slots.runs) = (Some((id, None)), None);
            }
            Held::Started | Held::KeepLast => {}
        }
        slots.waits.is_none_or(|(waits, _)| waits == id)
    }

    /// What has fallen due is ready, and stays so if the clock is set back; what could not start in time
    /// has ended.
    pub(super) fn turn(&mut self) {
        let mut expired = Vec::new();
        for (&id, job) in &mut self.jobs {
            if matches!(job.state, State::Scheduled | State::Retrying) && job.run_at <= self.now {
                job.state = State::Ready;
            }
            let waits = !job.state.is_finished() && job.state != State::Running;
            if waits && job.expires_at.is_some_and(|at| at <= self.now) {
                job.state = State::Cancelled;
                expired.push((id, job.key));
            }
        }
        for (id, key) in expired {
            self.free(id, key, true);
        }
        let now = self.now;
        let over =
            |slots: &Slots| slots.waits.and_then(|(_, it)| it).is_some_and(|it| it.until <= now);
        self.period_over |= self.keys.iter().any(over);
    }

    /// As it is shown.
    pub(super) fn shown(&self, job: &Known) -> State {
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

    /// The job that runs next: of the first pool, of its first queue, that have any.
    pub(super) fn next(&self) -> Option<i64> {
        self.pools.iter().find_map(|queues| {
            self.jobs
                .iter()
                .filter(|(_, job)| job.state == State::Ready && !self.is_paused(job))
                .filter_map(|(&id, job)| {
                    let rank =
                        queues.iter().position(|&queue| queue == "*" || queue == job.queue)?;
                    Some((rank, job.priority, job.run_at, id))
                })
                .min()
                .map(|(.., id)| id)
        })
    }

    /// The steps that run when the job comes to so many.
    pub(super) fn steps_of(&self, id: i64, count: usize) -> Vec<&'static str> {
        STEPS[..count].iter().skip(self.jobs[&id].steps).copied().collect()
    }

    /// A job runs; what it has enqueued meanwhile.
    pub(super) fn run(&mut self, id: i64, run: Run) -> Option<Enqueue> {
        self.start(id);
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
            _ if run.cancelled => State::Cancelled,
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
        job.recorded.1 += usize::from(matches!(run.end, End::Crash));
        let key = job.key;
        job.steps = if job.state == State::Completed { 0 } else { job.steps.max(run.steps) };
        if !job.state.is_finished() && !self.wait_again(id) {
            // A newer one has taken its place.
            let job = self.jobs.get_mut(&id).unwrap();
            (job.state, job.run_at) = (State::Cancelled, run_at);
        }
        if self.jobs[&id].state.is_finished() {
            self.free(id, key, false);
        }
        enqueued
    }

    /// What a verb answers: done, or why not.
    pub(super) fn control(&mut self, id: i64, verb: Verb) -> Answer {
        let Some(job) = self.jobs.get(&id) else { return Answer::NotFound };
        let (state, key, never_started) = (job.state, job.key, job.attempts == 0);
        let waits = !state.is_finished();
        match verb {
            Verb::Cancel if waits => {
                self.jobs.get_mut(&id).unwrap().state = State::Cancelled;
                self.free(id, key, never_started);
            }
            Verb::Retry if state.is_finished() || state == State::Retrying => {
                let mut becomes = State::Ready;
                if state.is_finished() {
                    match self.revive(id) {
                        Ok(state) => becomes = state,
                        Err(holder) => return Answer::NotUnique(holder),
                    }
                }
                let now = self.now;
                let job = self.jobs.get_mut(&id).unwrap();
                (job.state, job.attempts, job.run_at) = (becomes, 0, now);
                job.expires_at = None;
            }
            Verb::Delete => {
                self.jobs.remove(&id);
                if waits {
                    self.free(id, key, never_started);
                }
            }
            _ => return Answer::WrongState(self.shown(&self.jobs[&id])),
        }
        Answer::Done
    }

    /// A finished job takes its key again; or who has it.
    fn revive(&mut self, id: i64) -> Result<State, i64> {
        let Some((key, held)) = self.jobs[&id].key else { return Ok(State::Ready) };
        let now = self.now;
        let slots = &mut self.keys[key];
        let free = slots.waits.is_none_or(|(_, it)| it.is_some_and(|it| it.is_over(now)));
        if let Held::Period(_) = held {
            if free {
                slots.waits = Some((id, Some(Period { until: now, length: Duration::ZERO })));
                return Ok(State::Ready);
            }
            let holder = slots.runs.or(slots.waits.map(|(id, _)| id));
            return holder.filter(|&holder| holder != id).map_or(Ok(State::Ready), Err);
        }
        if free && (slots.runs.is_none() || held == Held::KeepLast) {
            slots.waits = Some((id, None));
            return Ok(if slots.runs.is_some() { State::Blocked } else { State::Ready });
        }
        let holder = slots.waits.map(|(id, _)| id).or(slots.runs);
        holder.filter(|&holder| holder != id).map_or(Ok(State::Ready), Err)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Cancel,
    Retry,
    Delete,
}

#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Done,
    NotFound,
    WrongState(State),
    NotUnique(i64),
}
