//! The writer: takes mail and what the tray holds, commits, answers, fills the tray.

use std::time::Duration;

use super::steps::Steps;
use super::{
    At, Break, Enqueuer, JobNo, Mail, Process, Row, Waiter, claim_of, claimed, last_of, number,
};
use crate::store::tray::{Place, Started};

impl Process {
    pub(super) fn writer(&self, steps: &mut Steps<'_>) {
        let mut step = |what: &'static str, act: &dyn Fn(&mut Process)| {
            steps.step("writer", 0, what, act);
        };
        let writer = &self.rest.writer;
        match writer.at {
            At::SetsItsAlarm => step("sets its alarm unless mail is there", &|model| {
                model.rest.writer.at = match model.rest.mail.is_empty() {
                    true => At::Sleeps { alarm: model.watch().is_some() },
                    false => At::TakesMail,
                };
            }),
            At::Sleeps { alarm } => {
                if !self.rest.mail.is_empty() {
                    step("wakes by mail", &|model| model.rest.writer.at = At::TakesMail);
                }
                if alarm {
                    step("wakes by its alarm", &|model| model.rest.writer.at = At::TakesMail);
                }
                if self.setup.sweep && self.rest.others != writer.seen {
                    step("wakes to sweep", &|model| {
                        model.rest.writer.look = true;
                        model.rest.writer.at = At::TakesMail;
                    });
                }
            }
            At::TakesMail => step("takes its mail and the ends in the tray", &|model| {
                model.take_mail();
                if !model.rest.writer.closed {
                    model.take_ends();
                }
                model.rest.writer.at = At::TakesStarts;
            }),
            At::TakesStarts => step("asks the tray for unknown starts", &|model| {
                if !model.rest.writer.closed {
                    let starts = model.tray.unknown_starts(model.now);
                    let starts = starts.iter().map(|start| start.claim.id.0 as JobNo);
                    model.rest.writer.starts = starts.collect();
                }
                model.rest.writer.at = At::TakesStale;
            }),
            At::TakesStale => step("takes stale jobs out of the tray", &|model| {
                if !model.rest.writer.closed {
                    let stale = model.tray.take_stale(model.now);
                    model.rest.writer.reclaimed.extend(stale.iter().map(number));
                }
                model.rest.writer.at = At::Serves;
            }),
            At::Serves => step("serves a parked worker from the tray", &Process::serve),
            At::Locks if self.rest.locked && !self.is_broken(Break::LooksBesideTheLock) => {
                if !self.rest.mail.is_empty() {
                    step("takes mail while it waits for the lock", &Process::take_mail);
                }
            }
            At::Locks if self.rest.locked => {
                step("looks beside the lock", &|model| {
                    model.rest.writer.look = false;
                    model.rest.writer.at = At::AnswersEmptyHanded;
                });
            }
            At::Locks => self.commits(steps),
            At::Answers => step("answers and hands over", &Process::answer),
            At::Puts => step("puts jobs into the tray", &|model| {
                let ahead = std::mem::take(&mut model.rest.writer.ahead);
                let place = |job: JobNo| Place { rank: 0, priority: 0, run_at: 0, id: job as i64 };
                let jobs = ahead.iter().map(|&job| (place(job), claimed(job))).collect();
                let late = model.tray.put(jobs);
                model.rest.writer.reclaimed.extend(late.iter().map(number));
                model.rest.writer.at = At::AnswersEmptyHanded;
            }),
            At::AnswersEmptyHanded => step("answers the others", &Process::answer_empty_handed),
        }
    }

    /// One step for each number of jobs that may be claimed ahead; the room in the tray bounds it.
    fn commits(&self, steps: &mut Steps<'_>) {
        let mut most = 0;
        let mut probe = self.clone();
        probe.apply();
        let writer = &probe.rest.writer;
        if !writer.closed && self.tray.in_use(self.now) {
            most = probe.rest.jobs.iter().filter(|row| **row == Row::Ready).count();
        }
        for count in 0..=most {
            steps.step("writer", count, "commits (claims so many ahead)", |model| {
                model.apply();
                for _ in 0..count {
                    let job = model.first_ready().expect("as many are ready");
                    model.rest.jobs[job] = Row::Claimed { started: false };
                    model.rest.writer.ahead.push(job);
                    model.rest.writer.running.push(job);
                }
                if most > 0 {
                    model.rest.writer.bound = model.first_ready().is_some();
                }
                model.rest.writer.at = At::Answers;
            });
        }
    }

    fn watch(&mut self) -> Option<Duration> {
        if self.rest.writer.closed {
            return None;
        }
        let alarm = self.tray.watch();
        alarm.filter(|_| !self.is_broken(Break::SleepsOnAUsedTray))
    }

    fn take_mail(&mut self) {
        for mail in std::mem::take(&mut self.rest.mail) {
            self.sort(mail);
        }
    }

    fn take_ends(&mut self) {
        let ends = self.tray.take_ends();
        let ends = ends.iter().map(|ending| (last_of(ending), None));
        self.rest.writer.finishes.extend(ends);
    }

    fn sort(&mut self, mail: Mail) {
        match mail {
            Mail::Work { worker, last, claim } => {
                if let Some(epoch) = claim {
                    let crossed =
                        self.rest.writer.closed && !self.is_broken(Break::KeepsLateRequests);
                    let called_off =
                        epoch < self.rest.writer.epoch && !self.is_broken(Break::ForgetsEpochs);
                    self.rest.writer.parked.push((worker, crossed || called_off));
                }
                if let Some(last) = last {
                    self.rest.writer.finishes.push((last, Some(worker)));
                }
            }
            Mail::Insert(job) => self.rest.writer.inserts.push(job),
            Mail::Call => {}
            Mail::Look => self.rest.writer.look = true,
            Mail::Rung => {
                if !self.is_broken(Break::BellFallsAfterTheLook) {
                    self.rest.ringing = false;
                }
                self.rest.writer.look = true;
            }
            Mail::ClosePool => {
                self.unpark();
                if !self.is_broken(Break::LeavesTheTray) {
                    let back = self.tray.close();
                    self.rest.writer.reclaimed.extend(back.iter().map(number));
                }
                if !self.is_broken(Break::DropsTheEnds) {
                    self.take_ends();
                }
                self.rest.writer.epoch = 0;
                self.rest.writer.closed = true;
                if std::mem::take(&mut self.rest.writer.when_empty) {
                    self.rest.waiter = Waiter::Refused;
                }
            }
            Mail::Unpark(epoch) => {
                self.rest.writer.epoch = epoch.max(self.rest.writer.epoch);
                self.unpark();
            }
            Mail::WhenEmpty => {
                self.rest.writer.when_empty = true;
                self.rest.writer.look = true;
            }
        }
    }

    fn unpark(&mut self) {
        for (worker, _) in std::mem::take(&mut self.rest.writer.parked) {
            self.rest.inbox[worker].claim = Some(None);
        }
    }

    fn serve(&mut self) {
        if !self.rest.writer.closed
            && !self.rest.writer.parked.is_empty()
            && let Some(claimed) = self.tray.take(0, self.now)
        {
            let (worker, _) = self.rest.writer.parked.remove(0);
            self.rest.inbox[worker].claim = Some(Some(number(&claimed)));
            return;
        }
        self.rest.writer.at = if self.has_work() { At::Locks } else { At::AnswersEmptyHanded };
    }

    /// Whether there is anything to take the write lock for.
    fn has_work(&self) -> bool {
        let writer = &self.rest.writer;
        let waiting = !writer.parked.is_empty();
        writer.look
            || !writer.finishes.is_empty()
            || !writer.inserts.is_empty()
            || !writer.starts.is_empty()
            || !writer.reclaimed.is_empty()
            || (waiting && writer.bound && !self.is_broken(Break::ParksBesideReadyJobs))
            || (waiting && self.rest.others != writer.seen)
    }

    fn first_ready(&self) -> Option<JobNo> {
        self.rest.jobs.iter().position(|row| *row == Row::Ready)
    }

    /// Everything of a transaction but the claims ahead.
    fn apply(&mut self) {
        let rest = &mut self.rest;
        let writer = &mut rest.writer;
        if writer.seen != rest.others {
            writer.seen = rest.others;
            writer.bound = true;
        }
        for job in std::mem::take(&mut writer.reclaimed) {
            if rest.jobs[job] == (Row::Claimed { started: false }) {
                rest.jobs[job] = Row::Ready;
                writer.bound = true;
            }
            writer.running.retain(|j| *j != job);
        }
        for job in std::mem::take(&mut writer.starts) {
            if rest.jobs[job] == (Row::Claimed { started: false }) {
                rest.jobs[job] = Row::Claimed { started: true };
            }
            writer.known.push(job);
        }
        for (last, worker) in std::mem::take(&mut writer.finishes) {
            if !matches!(rest.jobs[last.job], Row::Claimed { .. }) {
                rest.bad = Some("a finish comes without a claim");
            }
            rest.jobs[last.job] = if last.back { Row::Ready } else { Row::Done };
            writer.bound |= last.back;
            writer.running.retain(|j| *j != last.job);
            writer.told.extend(worker);
        }
        for job in std::mem::take(&mut writer.inserts) {
            rest.jobs[job] = Row::Ready;
            writer.bound = true;
            writer.answered.push(job);
        }
        writer.look = false;
        if writer.closed {
            return;
        }
        while !writer.parked.is_empty() && writer.bound {
            let Some(job) = rest.jobs.iter().position(|row| *row == Row::Ready) else {
                writer.bound = false;
                break;
            };
            rest.jobs[job] = Row::Claimed { started: true };
            let (worker, _) = writer.parked.remove(0);
            writer.claims.push((worker, job));
            writer.running.push(job);
        }
        writer.running.sort_unstable();
    }

    /// One answer: the commit has been made.
    fn answer(&mut self) {
        let writer = &mut self.rest.writer;
        if !writer.told.is_empty() || !writer.answered.is_empty() {
            for worker in std::mem::take(&mut writer.told) {
                self.rest.inbox[worker].finished = true;
            }
            for job in std::mem::take(&mut writer.answered) {
                self.rest.sources[job] = Enqueuer::Done;
            }
        } else if !writer.known.is_empty() {
            let known = std::mem::take(&mut writer.known);
            let started = |&job: &JobNo| Started { claim: claim_of(job), at: 0 };
            let known: Vec<Started> = known.iter().map(started).collect();
            if !writer.closed {
                self.tray.known(&known);
            }
        } else if !writer.claims.is_empty() {
            let (worker, job) = writer.claims.remove(0);
            if !writer.closed {
                self.tray.begin(&claimed(job), self.now, true);
            }
            self.rest.inbox[worker].claim = Some(Some(job));
        }
        let writer = &mut self.rest.writer;
        let more = !writer.known.is_empty() || !writer.claims.is_empty();
        let then = if writer.ahead.is_empty() { At::AnswersEmptyHanded } else { At::Puts };
        writer.at = if more { At::Answers } else { then };
    }

    fn answer_empty_handed(&mut self) {
        let ready = self.first_ready().is_some();
        let claimed = self.rest.jobs.iter().any(|row| matches!(row, Row::Claimed { .. }));
        let early = self.is_broken(Break::TellsEmptyTooEarly);
        let rest = &mut self.rest;
        let writer = &mut rest.writer;
        let (late, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut writer.parked).into_iter().partition(|(_, at_once)| *at_once);
        writer.parked = stay;
        for (worker, _) in late {
            rest.inbox[worker].claim = Some(None);
        }
        if writer.when_empty {
            let has_ready = !writer.closed && writer.bound && ready;
            let idle = writer.running.is_empty() || early;
            if idle && !has_ready {
                writer.when_empty = false;
                rest.waiter = Waiter::Told;
                if claimed {
                    rest.bad = Some("told to be empty while a job is claimed");
                }
            }
        }
        writer.at = At::SetsItsAlarm;
        if self.is_broken(Break::BellFallsAfterTheLook) {
            self.rest.ringing = false;
        }
    }
}
