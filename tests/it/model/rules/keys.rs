//! Unique keys: who has one, until when, and who takes it again.

use std::time::Duration;

use legwork::State;
use time::OffsetDateTime;

use super::Model;
use crate::model::steps::*;

/// Who has a key: the one that waits, or has it altogether, with the end of a period; the one that runs
/// beside it.
#[derive(Default)]
pub struct Slots {
    pub(super) waits: Option<(i64, Option<Period>)>,
    pub(super) runs: Option<i64>,
}

/// How long a period holds a key.
#[derive(Clone, Copy)]
pub(super) struct Period {
    pub(super) until: OffsetDateTime,
    pub(super) length: Duration,
}

impl Period {
    /// Its end has come, or it began by a clock that was ahead.
    pub(super) fn is_over(self, now: OffsetDateTime) -> bool {
        self.until <= now || self.until - now > 2 * self.length
    }
}

impl Model {
    /// A job has ended, or is gone.
    pub(super) fn free(&mut self, id: i64, key: Option<(usize, Held)>, never_started: bool) {
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

    /// A job that has run is to wait again; whether it may.
    pub(super) fn wait_again(&mut self, id: i64) -> bool {
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

    /// A finished job takes its key again; or who has it.
    pub(super) fn revive(&mut self, id: i64) -> Result<State, i64> {
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
