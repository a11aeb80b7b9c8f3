//! What must never be so, how the process comes to rest, and what tells two states apart.

use std::hash::{DefaultHasher, Hash};
use std::time::Instant;

use super::super::{Model, Next};
use super::steps::Steps;
use super::{
    At, Bell, Break, Enqueuer, Inbox, JobNo, Process, Resize, Row, Stop, TrayKey, Waiter, Worker,
    number,
};
use crate::store::tray::PATIENCE;

impl Model for Process {
    fn fingerprint(&self, hasher: &mut DefaultHasher) {
        self.rest.hash(hasher);
        self.tray_key().hash(hasher);
    }

    fn steps(&self, next: &mut Vec<Next<Process>>) {
        let mut steps = Steps { from: self, next };
        // A step that no other one can hinder, help or notice before it is done needs no
        // interleaving: taking it first leads to the same states.
        if self.writer_is_alone() {
            return self.writer(&mut steps);
        }
        let workers = 0..self.rest.workers.len();
        if let Some(which) = workers.into_iter().find(|&which| self.worker_is_alone(which)) {
            return self.worker(which, &mut steps);
        }
        self.time(&mut steps);
        self.writer(&mut steps);
        for which in 0..self.rest.workers.len() {
            self.worker(which, &mut steps);
        }
        for job in 0..self.rest.jobs.len() {
            self.enqueuer(job, &mut steps);
        }
        self.bell(&mut steps);
        self.stopper(&mut steps);
        self.waiter(&mut steps);
    }

    fn wrong(&self) -> Option<String> {
        if let Some(bad) = self.rest.bad {
            return Some(bad.into());
        }
        for (job, row) in self.rest.jobs.iter().enumerate() {
            let hands = self.hands(job);
            if hands > 1 {
                return Some(format!("job {job} is in {hands} hands"));
            }
            if hands > 0 && !matches!(row, Row::Claimed { .. }) {
                return Some(format!("job {job} is in somebody's hands and {row:?} in the file"));
            }
            if self.rest.runs[job] > 1 {
                return Some(format!("job {job} runs twice"));
            }
        }
        None
    }

    fn is_settled(&self) -> bool {
        let rest = &self.rest;
        let writer = &rest.writer;
        let asleep = matches!(writer.at, At::Sleeps { alarm: false }) && rest.mail.is_empty();
        let quiet = rest.bell == Bell::Sleeps && !rest.datagram && !rest.locked;
        let tray = self.tray.ahead.is_empty() && self.tray.ends.is_empty();
        let all = rest.workers.iter().all(|worker| match worker {
            Worker::Waits { recorded: true, next: None, .. } | Worker::Runs { .. } => {
                rest.stop == Stop::Runs && !writer.closed
            }
            Worker::Ended => true,
            _ => false,
        });
        let live = rest.workers.iter().filter(|worker| **worker != Worker::Ended).count();
        let staffed = live == rest.pool.live && (rest.pool.closed || live == rest.pool.target);
        let stopped = matches!(rest.stop, Stop::Runs | Stop::Returned);
        let told = matches!(rest.waiter, Waiter::Idle | Waiter::Told | Waiter::Refused)
            || (rest.waiter == Waiter::Waits && rest.workers.iter().any(Worker::runs));
        let begun = |source: &Enqueuer| matches!(source, Enqueuer::Half | Enqueuer::More);
        asleep
            && quiet
            && tray
            && all
            && staffed
            && stopped
            && told
            && !rest.sources.iter().any(begun)
            && rest.resize != Resize::Counted
            && writer.reclaimed.is_empty()
            && (0..rest.jobs.len()).all(|job| self.is_well(job))
    }

    fn describe(&self) -> String {
        format!("{:?} {:?}", self.rest, self.tray_key())
    }
}

impl Process {
    fn tray_key(&self) -> TrayKey {
        let tray = &self.tray;
        let old = |at: Instant| self.now.duration_since(at) >= PATIENCE;
        let mut out: Vec<(i64, bool, bool)> = tray
            .out
            .iter()
            .map(|out| (out.claim.id.0, out.known, !out.known && old(out.since)))
            .collect();
        out.sort_unstable();
        let fresh = tray.last_visit.is_some_and(|at| !old(at));
        TrayKey {
            ahead: tray.ahead.values().map(|job| job.claim.id.0).collect(),
            ends: tray.ends.iter().map(|end| end.finish.claim.id.0).collect(),
            out,
            low: tray.low,
            flags: [tray.watched, tray.called, tray.closed, fresh],
        }
    }

    /// In how many hands a claimed job is.
    fn hands(&self, job: JobNo) -> usize {
        let rest = &self.rest;
        let writer = &rest.writer;
        let workers = rest.workers.iter().filter(|worker| {
            matches!(worker, Worker::Calls { job: j } | Worker::Starts { job: j }
                | Worker::Runs { job: j } | Worker::Waits { next: Some(Some(j)), .. } if *j == job)
        });
        workers.count()
            + self.tray.ahead.values().filter(|claimed| number(claimed) == job).count()
            + writer.reclaimed.iter().filter(|j| **j == job).count()
            + writer.claims.iter().filter(|(_, j)| *j == job).count()
            + writer.ahead.iter().filter(|j| **j == job).count()
            + rest.inbox.iter().filter(|inbox| inbox.claim == Some(Some(job))).count()
    }

    /// Whether this is how a job may stay.
    fn is_well(&self, job: JobNo) -> bool {
        match self.rest.jobs[job] {
            Row::Absent | Row::Done => true,
            Row::Claimed { started } => {
                started && self.rest.workers.contains(&Worker::Runs { job })
            }
            // Nobody is free to run it, or nobody who could say so knows of it.
            Row::Ready => {
                self.rest.workers.iter().all(|worker| *worker == Worker::Ended || worker.runs())
                    || (self.rest.sources[job] == Enqueuer::Killed && !self.setup.sweep)
            }
        }
    }

    /// The writer's next step touches nothing that others touch meanwhile.
    fn writer_is_alone(&self) -> bool {
        let writer = &self.rest.writer;
        match writer.at {
            At::TakesStarts | At::TakesStale => {
                writer.closed
                    || (self.tray.ahead.is_empty() && self.tray.out.iter().all(|out| out.known))
            }
            At::Serves => writer.parked.is_empty(),
            // Answers are sent to who waits for them; what began is known to the file already.
            At::Answers => true,
            At::AnswersEmptyHanded => {
                !writer.when_empty && !self.is_broken(Break::BellFallsAfterTheLook)
            }
            _ => false,
        }
    }

    fn worker_is_alone(&self, which: usize) -> bool {
        let inbox = self.rest.inbox[which];
        match self.rest.workers[which] {
            Worker::Looks { .. } => !self.setup.stops && !self.setup.resizes,
            Worker::Starts { .. } => !self.setup.stops,
            Worker::Waits { .. } => inbox != Inbox::default(),
            _ => false,
        }
    }
}
