//! What the live view knows and where its user stands in it. Plain data: keys and reports change it, drawing
//! reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

use super::super::queues::Queue;
use super::act::{Action, Target};
use super::throughput::Throughput;
use crate::id::JobId;
use crate::record::{Progress, Scope};
use crate::state::State;

/// What does not change while it is shown.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// How the program is called.
    pub(super) program: String,
    pub(super) path: String,
    pub(super) read_only: bool,
    pub(super) color: bool,
}

/// What was read of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Processes that run jobs, and how many workers they have.
    pub(super) processes: usize,
    pub(super) workers: usize,
    /// Processes that have died and still hold something.
    pub(super) dead: usize,
    pub(super) states: BTreeMap<State, u64>,
    /// When `states` and `queues` were counted, since the start of the view.
    pub(super) read_at: Duration,
    /// Until when nothing has changed since.
    pub(super) counted_at: Duration,
    /// How long the oldest ready job had waited when it was counted.
    pub(super) oldest_ready: Option<Duration>,
    pub(super) queues: Vec<Queue>,
    pub(super) paused: Vec<Scope>,
    pub(super) running: Vec<Running>,
    pub(super) failed: Vec<Failed>,
}

/// A job that is running.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) id: JobId,
    pub(super) kind: String,
    pub(super) about: String,
    pub(super) started_at: OffsetDateTime,
    pub(super) progress: Option<Progress>,
    pub(super) attempt: u32,
    /// That of its worker.
    pub(super) process: Option<u32>,
    /// It was asked to stop.
    pub(super) stopping: bool,
}

/// A job that has failed, for good or until its next attempt.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) id: JobId,
    pub(super) kind: String,
    pub(super) state: State,
    /// When it failed.
    pub(super) at: OffsetDateTime,
    pub(super) error: String,
}

impl Seen {
    pub(super) fn count(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// How many have finished.
    pub(super) fn finished(&self) -> u64 {
        [State::Completed, State::Failed, State::Cancelled]
            .map(|state| self.count(state))
            .iter()
            .sum()
    }
}

/// A part of the screen in which rows can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Queues,
    Running,
    Failed,
}

impl Panel {
    pub(super) const ALL: [Panel; 3] = [Panel::Queues, Panel::Running, Panel::Failed];

    pub(super) fn next(self, by: usize) -> Panel {
        Panel::ALL[(self as usize + by) % Panel::ALL.len()]
    }
}

/// What a row is about, so that it stays chosen where the next look finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowKey {
    Queue(String),
    Job(JobId),
}

/// The chosen row of a panel.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub(super) row: usize,
    key: Option<RowKey>,
}

/// What keys do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They move about and begin things.
    Panels,
    Help,
    /// They write a query.
    Typing(String),
    /// They answer a question.
    Asking(Action),
    /// They scroll in what is known of a job.
    Details(Details),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) id: JobId,
    pub(super) lines: Vec<String>,
    /// The first line that is seen.
    pub(super) top: usize,
}

/// A line for the user, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    pub(super) bad: bool,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) setting: Setting,
    pub(super) mode: Mode,
    pub(super) panel: Panel,
    chosen: [Chosen; 3],
    /// The query that the jobs shown match; empty: all.
    pub(super) filter: String,
    pub(super) frozen: bool,
    pub(super) note: Option<Note>,
    /// Why the last look was in vain.
    pub(super) trouble: Option<String>,
    /// `None` before the first look.
    pub(super) seen: Option<Seen>,
    pub(super) throughput: Throughput,
    /// By the clock, and since the start of the view; both stand still while it is frozen.
    pub(super) now: OffsetDateTime,
    pub(super) elapsed: Duration,
}

impl Model {
    pub(super) fn new(setting: Setting, now: OffsetDateTime) -> Model {
        Model {
            setting,
            mode: Mode::Panels,
            panel: Panel::Running,
            chosen: Default::default(),
            filter: String::new(),
            frozen: false,
            note: None,
            trouble: None,
            seen: None,
            throughput: Throughput::default(),
            now,
            elapsed: Duration::ZERO,
        }
    }

    /// The time goes on.
    pub(super) fn tick(&mut self, now: OffsetDateTime, elapsed: Duration) {
        if !self.frozen {
            (self.now, self.elapsed) = (now, elapsed);
        }
    }

    /// The file was read. What was chosen stays so, wherever it stands now.
    pub(super) fn see(&mut self, seen: Seen) {
        let is_new = self.seen.as_ref().is_none_or(|last| last.counted_at < seen.counted_at);
        if is_new {
            self.throughput.add(seen.counted_at, seen.finished());
        }
        self.trouble = None;
        self.seen = Some(seen);
        for panel in Panel::ALL {
            let chosen = &self.chosen[panel as usize];
            let found = (0..self.rows(panel))
                .find(|row| chosen.key.is_some() && self.key(panel, *row) == chosen.key);
            self.choose(panel, found.unwrap_or(chosen.row));
        }
    }

    /// How long something waits that had waited so long when it was counted.
    pub(super) fn aged(&self, age: Duration) -> Duration {
        let read_at = self.seen.as_ref().map_or(self.elapsed, |seen| seen.read_at);
        age + self.elapsed.saturating_sub(read_at)
    }

    /// How many rows a panel has.
    pub(super) fn rows(&self, panel: Panel) -> usize {
        let Some(seen) = &self.seen else { return 0 };
        match panel {
            Panel::Queues => seen.queues.len(),
            Panel::Running => seen.running.len(),
            Panel::Failed => seen.failed.len(),
        }
    }

    /// The row that is chosen in a panel, if it has any.
    pub(super) fn chosen(&self, panel: Panel) -> Option<usize> {
        let row = self.chosen[panel as usize].row;
        (row < self.rows(panel)).then_some(row)
    }

    /// This row of a panel, or its last.
    pub(super) fn choose(&mut self, panel: Panel, row: usize) {
        let row = row.min(self.rows(panel).saturating_sub(1));
        self.chosen[panel as usize] = Chosen { row, key: self.key(panel, row) };
    }

    fn key(&self, panel: Panel, row: usize) -> Option<RowKey> {
        let seen = self.seen.as_ref()?;
        match panel {
            Panel::Queues => Some(RowKey::Queue(seen.queues.get(row)?.name.clone())),
            Panel::Running => Some(RowKey::Job(seen.running.get(row)?.id)),
            Panel::Failed => Some(RowKey::Job(seen.failed.get(row)?.id)),
        }
    }

    /// The queue that is chosen, if the user is among the queues.
    pub(super) fn queue(&self) -> Option<&Queue> {
        if self.panel != Panel::Queues {
            return None;
        }
        self.seen.as_ref()?.queues.get(self.chosen(self.panel)?)
    }

    /// The job that is chosen, if the user is among the jobs.
    pub(super) fn job(&self) -> Option<Target> {
        let (seen, row) = (self.seen.as_ref()?, self.chosen(self.panel)?);
        match self.panel {
            Panel::Queues => None,
            Panel::Running => seen.running.get(row).map(|job| Target {
                id: job.id,
                state: State::Running,
                kind: job.kind.clone(),
                about: job.about.clone(),
            }),
            Panel::Failed => seen.failed.get(row).map(|job| Target {
                id: job.id,
                state: job.state,
                kind: job.kind.clone(),
                about: job.error.clone(),
            }),
        }
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.note = Some(Note { text: text.into(), bad: false });
    }

    pub(super) fn complain(&mut self, text: impl Into<String>) {
        self.note = Some(Note { text: text.into(), bad: true });
    }
}
