//! A worker: looks at its pool, visits the tray, posts to the writer, runs its job.

use super::steps::Steps;
use super::{Inbox, Last, Mail, Process, Stop, Worker, claim_of, ending, last_of, number};
use crate::store::tray::Visit;

impl Process {
    pub(super) fn worker(&self, which: usize, steps: &mut Steps<'_>) {
        let mut step = |what: &'static str, act: &dyn Fn(&mut Process)| {
            steps.step("worker", which, what, act);
        };
        match self.rest.workers[which] {
            Worker::Looks { last } => step("looks at its pool", &|model| {
                let pool = &mut model.rest.pool;
                let ends = pool.closed || pool.live > pool.target;
                pool.live -= usize::from(ends);
                model.rest.workers[which] = match (ends, last) {
                    (false, last) => Worker::Visits { last, epoch: pool.epoch },
                    (true, Some(last)) => Worker::Hands { last },
                    (true, None) => Worker::Ended,
                };
            }),
            Worker::Visits { last, epoch } => step("visits the tray", &|model| {
                model.rest.workers[which] = match model.tray.visit(last.map(ending), 0, model.now) {
                    Visit::Next { claimed, call: true } => Worker::Calls { job: number(&claimed) },
                    Visit::Next { claimed, call: false } => {
                        Worker::Starts { job: number(&claimed) }
                    }
                    Visit::Empty(last) => {
                        Worker::Posts { last: last.as_ref().map(last_of), claim: Some(epoch) }
                    }
                };
            }),
            Worker::Calls { job } => step("calls the writer", &|model| {
                model.rest.mail.push(Mail::Call);
                model.rest.workers[which] = Worker::Starts { job };
            }),
            Worker::Hands { last } => step("tells the tray of its end", &|model| {
                model.tray.ended(claim_of(last.job), model.now);
                model.rest.workers[which] = Worker::Posts { last: Some(last), claim: None };
            }),
            Worker::Posts { last, claim } => step("posts its end and its request", &|model| {
                model.rest.mail.push(Mail::Work { worker: which, last, claim });
                let leaves = claim.is_none();
                let next = leaves.then_some(None);
                model.rest.workers[which] =
                    Worker::Waits { recorded: last.is_none(), next, leaves };
            }),
            Worker::Waits { recorded, next, leaves } => {
                let inbox = self.rest.inbox[which];
                if inbox == Inbox::default() {
                    return;
                }
                step("gets an answer", &|model| {
                    model.rest.inbox[which] = Inbox::default();
                    let recorded = recorded || inbox.finished;
                    model.rest.workers[which] = match next.or(inbox.claim) {
                        Some(next) if recorded => match next {
                            Some(job) => Worker::Starts { job },
                            None if leaves => Worker::Ended,
                            None => Worker::Looks { last: None },
                        },
                        next => Worker::Waits { recorded, next, leaves },
                    };
                });
            }
            Worker::Starts { job } => step("starts its job unless it is to stop", &|model| {
                model.rest.workers[which] = if model.rest.stopping {
                    Worker::Looks { last: Some(Last { job, back: true }) }
                } else {
                    model.rest.runs[job] += 1;
                    Worker::Runs { job }
                };
            }),
            Worker::Runs { job } => {
                // A job may run for as long as it likes, until it is asked to stop.
                let outside = self.rest.stop == Stop::Runs;
                steps.add("worker", which, "ends its job", outside, |model| {
                    let last = Last { job, back: false };
                    model.rest.workers[which] = Worker::Looks { last: Some(last) };
                });
            }
            Worker::Ended => {}
        }
    }
}
