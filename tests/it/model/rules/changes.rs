//! Jobs that wait, moved and edited; new jobs after others.

use legwork::State;
use time::OffsetDateTime;

use super::keys::Period;
use super::{Answer, Known, Model};
use crate::model::steps::*;

impl Known {
    pub(super) fn waits_for_its_time(&self, now: OffsetDateTime) -> bool {
        self.state != State::Blocked || self.run_at > now
    }

    /// Somebody gives it another time.
    pub(super) fn move_to(&mut self, at: OffsetDateTime, now: OffsetDateTime) {
        self.expires_at = self.expires_at.map(|expires| at.max(now) + (expires - self.run_at));
        self.run_at = at;
        self.state = match self.state {
            State::Blocked => State::Blocked,
            State::Retrying if at > now => State::Retrying,
            _ if at > now => State::Scheduled,
            _ => State::Ready,
        };
    }

    pub(super) fn become_as(&mut self, edit: Edited) {
        self.queue = QUEUES[edit.queue];
        (self.priority, self.gated) = (edit.priority, edit.gated);
    }
}

impl Model {
    /// A new job like this one.
    pub(super) fn clone_job(&mut self, of: i64) -> Answer {
        let id = self.last_id + 1;
        let old = &self.jobs[&of];
        let mut state = State::Ready;
        if let Some((key, held)) = old.key {
            let now = self.now;
            let slots = &mut self.keys[key];
            let keeps_last = held == Held::KeepLast;
            let over = |period: Option<Period>| period.is_some_and(|it| it.is_over(now));
            let free = slots.waits.is_none_or(|(_, period)| over(period));
            if !free || (slots.runs.is_some() && !keeps_last) {
                let waiting = slots.waits.map(|(id, _)| id);
                let holder = if keeps_last { waiting } else { slots.runs.or(waiting) };
                return Answer::NotUnique(holder.expect("it is taken"));
            }
            if slots.runs.is_some() {
                state = State::Blocked;
            }
            let none = Period { until: now, length: std::time::Duration::ZERO };
            slots.waits = Some((id, matches!(held, Held::Period(_)).then_some(none)));
        }
        let new = Known {
            queue: old.queue,
            kind: old.kind,
            priority: old.priority,
            run_at: self.now,
            state,
            attempts: 0,
            recorded: (0, 0),
            gated: old.gated,
            expires_at: None,
            key: old.key,
            steps: 0,
            limit: old.limit,
            parents: Vec::new(),
            cause: None,
            flow: None,
            told_to_stop: false,
        };
        self.last_id = id;
        self.jobs.insert(id, new);
        Answer::New(id)
    }
}
