//! What goes on around the writer and its workers: time, who enqueues and rings, who stops, resizes
//! and waits.

use std::time::Instant;

use super::steps::Steps;
use super::{
    Bell, Break, Enqueuer, JobNo, Mail, Process, Resize, Row, Source, Stop, Waiter, Worker,
};
use crate::store::tray::PATIENCE;

impl Process {
    pub(super) fn time(&self, steps: &mut Steps<'_>) {
        let young = |at: Instant| self.now.duration_since(at) < PATIENCE;
        if self.tray.last_visit.is_some_and(young) || self.tray.out.iter().any(|o| young(o.since)) {
            steps.step("time", 0, "the tray's patience passes", |model| model.now += PATIENCE);
        }
    }

    pub(super) fn enqueuer(&self, job: JobNo, steps: &mut Steps<'_>) {
        let at = self.rest.sources[job];
        match (self.setup.jobs[job], at) {
            (Source::Here, Enqueuer::Idle) => {
                steps.outside("caller", job, "posts a job", |model| {
                    model.rest.mail.push(Mail::Insert(job));
                    model.rest.sources[job] = Enqueuer::Half;
                })
            }
            (Source::App, Enqueuer::Idle) if !self.rest.locked => {
                steps.outside("app", job, "begins a transaction", |model| {
                    model.rest.locked = true;
                    model.rest.sources[job] = Enqueuer::Half;
                });
            }
            (Source::App, Enqueuer::Half) => {
                steps.step("app", job, "enqueues and posts a look", |model| {
                    model.rest.mail.push(Mail::Look);
                    model.rest.sources[job] = Enqueuer::More;
                })
            }
            (Source::App, Enqueuer::More) => steps.step("app", job, "commits", |model| {
                model.rest.locked = false;
                model.rest.jobs[job] = Row::Ready;
                model.rest.others += 1;
                model.rest.sources[job] = Enqueuer::Done;
            }),
            (Source::Other, _) if self.is_broken(Break::RingsTooEarly) => {
                self.ringer_too_early(job, steps);
            }
            (Source::Other, Enqueuer::Idle) if !self.rest.locked => {
                steps.outside("other process", job, "commits a job", |model| {
                    model.rest.jobs[job] = Row::Ready;
                    model.rest.others += 1;
                    model.rest.sources[job] = Enqueuer::Half;
                });
            }
            (Source::Other, Enqueuer::Half) => {
                steps.step("other process", job, "rings", |model| {
                    model.rest.datagram = true;
                    model.rest.sources[job] = Enqueuer::Done;
                });
                steps.outside("other process", job, "is killed", |model| {
                    model.rest.sources[job] = Enqueuer::Killed;
                });
            }
            _ => {}
        }
    }

    fn ringer_too_early(&self, job: JobNo, steps: &mut Steps<'_>) {
        match self.rest.sources[job] {
            Enqueuer::Idle => steps.outside("other process", job, "rings", |model| {
                model.rest.datagram = true;
                model.rest.sources[job] = Enqueuer::Half;
            }),
            Enqueuer::Half if !self.rest.locked => {
                steps.step("other process", job, "commits a job", |model| {
                    model.rest.jobs[job] = Row::Ready;
                    model.rest.others += 1;
                    model.rest.sources[job] = Enqueuer::Done;
                });
            }
            _ => {}
        }
    }

    pub(super) fn bell(&self, steps: &mut Steps<'_>) {
        match self.rest.bell {
            Bell::Sleeps if self.rest.datagram => {
                steps.step("doorbell", 0, "hears a ring", |model| {
                    model.rest.datagram = false;
                    model.rest.bell = Bell::Heard;
                })
            }
            Bell::Sleeps => {}
            Bell::Heard => steps.step("doorbell", 0, "raises its flag", |model| {
                let raised = std::mem::replace(&mut model.rest.ringing, true);
                model.rest.bell = if raised { Bell::Sleeps } else { Bell::Posts };
            }),
            Bell::Posts => steps.step("doorbell", 0, "posts the ring", |model| {
                model.rest.mail.push(Mail::Rung);
                model.rest.bell = Bell::Sleeps;
            }),
        }
    }

    pub(super) fn stopper(&self, steps: &mut Steps<'_>) {
        let ended = self.rest.workers.iter().all(|worker| *worker == Worker::Ended);
        let mut step = |what: &'static str, act: &dyn Fn(&mut Process)| {
            steps.step("stop", 0, what, act);
        };
        match self.rest.stop {
            Stop::Flagged => step("closes the pool", &|model| {
                model.rest.pool.closed = true;
                model.rest.stop = Stop::Closed;
            }),
            Stop::Closed => step("posts the closing", &|model| {
                model.rest.mail.push(Mail::ClosePool);
                model.rest.stop = Stop::Posted;
            }),
            Stop::Posted if ended => {
                step("finds all workers ended", &|model| model.rest.stop = Stop::Returned);
            }
            Stop::Runs if self.setup.stops => steps.outside("stop", 0, "says so", |model| {
                model.rest.stopping = true;
                model.rest.stop = Stop::Flagged;
            }),
            _ => {}
        }
        match self.rest.resize {
            Resize::Not if self.setup.resizes => {
                steps.outside("resize", 0, "counts one worker less", |model| {
                    model.rest.pool.target -= 1;
                    model.rest.pool.epoch += 1;
                    model.rest.resize = Resize::Counted;
                });
            }
            Resize::Counted => steps.step("resize", 0, "calls the workers off", |model| {
                model.rest.mail.push(Mail::Unpark(model.rest.pool.epoch));
                model.rest.resize = Resize::Posted;
            }),
            _ => {}
        }
    }

    pub(super) fn waiter(&self, steps: &mut Steps<'_>) {
        match self.rest.waiter {
            Waiter::Idle if self.setup.waits => {
                steps.outside("run_until_empty", 0, "looks whether it stops", |model| {
                    model.rest.waiter =
                        if model.rest.stopping { Waiter::Refused } else { Waiter::Checked };
                });
            }
            Waiter::Checked => steps.step("run_until_empty", 0, "asks to be told", |model| {
                model.rest.mail.push(Mail::WhenEmpty);
                model.rest.waiter = Waiter::Waits;
            }),
            _ => {}
        }
    }
}
