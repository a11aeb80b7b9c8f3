//! The panels: queues, running jobs, failures.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

use super::super::super::queues::{Queue, in_state};
use super::super::super::times;
use super::super::model::{Failed, Model, Panel, Running, Seen};
use super::super::text::{one_line, short};
use super::table::{self, Cell, Column};
use super::{DIM, Paint, REVERSED, progress};
use crate::clock::{between, to_micros};
use crate::rules::amount;
use crate::state::State;

/// Below this only the panel is shown in which its user is.
const ROOM_FOR_ALL: u16 = 15;
/// Narrower than this leaves columns out.
const WIDE: u16 = 72;
/// From here on there is room for what a job says.
const WIDEST: u16 = 110;

pub(super) fn draw(model: &Model, paint: Paint, frame: &mut Frame<'_>, area: Rect) {
    if area.height < ROOM_FOR_ALL {
        return draw_panel(model, model.panel, paint, frame, area);
    }
    // A title, a heading and the rows; at least one, for why there are none.
    let needs = Panel::ALL.map(|panel| model.rows(panel).max(1) + 2);
    let heights = heights(usize::from(area.height), needs);
    let places = Layout::vertical(heights.map(Constraint::Length)).split(area);
    for (panel, place) in Panel::ALL.into_iter().zip(places.iter()) {
        draw_panel(model, panel, paint, frame, *place);
    }
}

/// Each gets what it needs, as long as there is enough; then an equal share, and what one leaves goes to the
/// others. What all leave goes to the last.
fn heights<const N: usize>(room: usize, needs: [usize; N]) -> [u16; N] {
    let mut given = [0; N];
    let mut left = room;
    while left > 0 {
        let hungry: Vec<usize> = (0..N).filter(|at| given[*at] < needs[*at]).collect();
        if hungry.is_empty() {
            given[N - 1] += left;
            break;
        }
        for at in hungry.into_iter().take(left) {
            given[at] += 1;
            left -= 1;
        }
    }
    given.map(|height| u16::try_from(height).unwrap_or(u16::MAX))
}

fn draw_panel(model: &Model, panel: Panel, paint: Paint, frame: &mut Frame<'_>, area: Rect) {
    let is_here = model.panel == panel;
    let title = title(model, panel);
    let title = Span::styled(title, if is_here { REVERSED } else { DIM });
    let block = Block::new().borders(Borders::TOP).border_style(DIM).title(title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let Some(seen) = &model.seen else { return };
    if let Some(why) = why_empty(model, seen, panel) {
        let text = Paragraph::new(Line::styled(why, DIM)).wrap(Wrap { trim: true });
        return frame.render_widget(text, inside);
    }
    let chosen = model.chosen(panel).filter(|_| is_here);
    let (columns, rows) = match panel {
        Panel::Queues => (
            queue_columns(area.width),
            rows(&seen.queues, |queue| queue_row(model, queue, area.width)),
        ),
        Panel::Running => (
            running_columns(area.width),
            rows(&seen.running, |job| running_row(model, job, paint, area.width)),
        ),
        Panel::Failed => (
            failed_columns(area.width),
            rows(&seen.failed, |job| failed_row(model, job, paint, area.width)),
        ),
    };
    table::draw(frame, inside, &columns, &rows, chosen);
}

fn rows<T>(of: &[T], row: impl Fn(&T) -> Vec<Cell>) -> Vec<Vec<Cell>> {
    of.iter().map(row).collect()
}

fn title(model: &Model, panel: Panel) -> String {
    let name = match panel {
        Panel::Queues => "1 queues",
        Panel::Running => "2 running",
        Panel::Failed => "3 failed",
    };
    if panel == Panel::Queues || model.filter.is_empty() {
        return format!(" {name} ");
    }
    format!(" {name}, only {} ", one_line(&model.filter))
}

/// Why a panel is empty and what to do about it; `None`: it is not.
fn why_empty(model: &Model, seen: &Seen, panel: Panel) -> Option<String> {
    if model.rows(panel) > 0 {
        return None;
    }
    let filtered = !model.filter.is_empty();
    let why = match panel {
        Panel::Queues => {
            "no job waits in any queue; add one with `legwork run -- CMD` or `legwork enqueue KIND`"
        }
        Panel::Running if seen.processes == 0 => "no worker is running; start `legwork work`",
        Panel::Running if filtered => "no running job matches; Esc shows all",
        Panel::Running if seen.queues.iter().any(waits_in_vain) => {
            "nothing runs: no live worker serves the queues in which jobs are ready; start the program \
             that does, or `legwork work -q QUEUE` for shell jobs"
        }
        Panel::Running if seen.queues.iter().any(|queue| ready(queue) > 0 && queue.paused) => {
            "nothing runs: what is ready is paused; 1 leads to the queues, p there resumes one"
        }
        Panel::Running if seen.count(State::Ready) > 0 => "nothing runs at this moment",
        Panel::Running => "nothing runs: no job is ready",
        Panel::Failed if filtered => "no failed job matches; Esc shows all",
        Panel::Failed => "no job has failed",
    };
    // As every command names the program.
    Some(why.replace("`legwork ", &format!("`{} ", model.setting.program)))
}

fn ready(queue: &Queue) -> u64 {
    in_state(&queue.stats, State::Ready)
}

fn waits_in_vain(queue: &Queue) -> bool {
    ready(queue) > 0 && !queue.paused && !queue.served
}

fn queue_columns(columns: u16) -> Vec<Column> {
    let mut all = vec![
        Column::left("queue", Constraint::Fill(1)),
        Column::right("ready", 5),
        Column::right("running", 7),
    ];
    if columns >= WIDE {
        all.push(Column::right("scheduled", 9));
        all.push(Column::right("retrying", 8));
        all.push(Column::right("blocked", 7));
        all.push(Column::right("oldest", 7));
    }
    all.push(Column::left("waits for", Constraint::Fill(1)));
    all
}

fn queue_row(model: &Model, queue: &Queue, columns: u16) -> Vec<Cell> {
    let mut row = vec![Cell::from(one_line(&queue.name))];
    let states = [State::Ready, State::Running, State::Scheduled, State::Retrying, State::Blocked];
    let shown = if columns >= WIDE { &states[..] } else { &states[..2] };
    row.extend(shown.iter().map(|state| Cell::from(short(in_state(&queue.stats, *state)))));
    if columns >= WIDE {
        let oldest = queue.stats.oldest_ready.map(|age| amount::span(model.aged(age)));
        row.push(Cell::from(oldest.unwrap_or_default()));
    }
    row.push(Cell::from(one_line(&queue.waits_for().join(", "))));
    row
}

fn running_columns(columns: u16) -> Vec<Column> {
    let mut all = vec![Column::right("id", 7), Column::left("kind", Constraint::Length(13))];
    if columns >= WIDE {
        all.push(Column::left("about", Constraint::Fill(2)));
    }
    all.push(Column::right("for", if columns >= WIDE { 8 } else { 4 }));
    all.push(Column::left("progress", Constraint::Length(progress::COLUMNS)));
    if columns >= WIDEST {
        all.push(Column::left("says", Constraint::Fill(1)));
    }
    if columns >= WIDE {
        all.push(Column::right("try", 3));
        all.push(Column::right("process", 7));
    }
    all
}

fn running_row(model: &Model, job: &Running, paint: Paint, columns: u16) -> Vec<Cell> {
    let runs = between(to_micros(job.started_at), to_micros(model.now));
    let shown = job.progress.as_ref().map(progress::words).unwrap_or_default();
    let shown = match job.stopping {
        true => Cell { text: "stopping".to_owned(), style: paint.state(State::Cancelled) },
        false => Cell { text: shown, style: paint.state(State::Running) },
    };
    let mut row = vec![Cell::from(job.id.to_string()), Cell::from(one_line(&job.kind))];
    if columns >= WIDE {
        row.push(Cell::from(one_line(&job.about)));
    }
    row.push(Cell::from(span(runs, columns)));
    row.push(shown);
    if columns >= WIDEST {
        let says = job.progress.as_ref().and_then(|progress| progress.message.as_deref());
        row.push(Cell::from(one_line(says.unwrap_or_default())));
    }
    if columns >= WIDE {
        row.push(Cell::from(job.attempt.to_string()));
        row.push(Cell::from(job.process.map(|pid| pid.to_string()).unwrap_or_default()));
    }
    row
}

/// In whole seconds, or in the largest unit alone where there is no room.
fn span(span: Duration, columns: u16) -> String {
    let words = amount::span(Duration::from_secs(span.as_secs().max(1)));
    match words.split_once(' ') {
        Some((largest, _)) if columns < WIDE => largest.to_owned(),
        _ => words,
    }
}

fn failed_columns(columns: u16) -> Vec<Column> {
    let mut all = vec![Column::right("id", 7), Column::left("kind", Constraint::Length(13))];
    if columns >= WIDE {
        all.push(Column::left("state", Constraint::Length(8)));
        all.push(Column::left("when", Constraint::Length(11)));
    }
    all.push(Column::left("error", Constraint::Fill(1)));
    all
}

fn failed_row(model: &Model, job: &Failed, paint: Paint, columns: u16) -> Vec<Cell> {
    let mut row = vec![Cell::from(job.id.to_string()), Cell::from(one_line(&job.kind))];
    if columns >= WIDE {
        row.push(Cell { text: job.state.to_string(), style: paint.state(job.state) });
        row.push(Cell::from(times::relative(job.at, model.now)));
    }
    row.push(Cell { text: one_line(&job.error), style: paint.state(job.state) });
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_panel_gets_what_it_needs_or_its_share() {
        assert_eq!(heights(20, [3, 4, 5]), [3, 4, 13]);
        assert_eq!(heights(20, [3, 50, 4]), [3, 13, 4]);
        assert_eq!(heights(20, [30, 50, 40]), [7, 7, 6]);
        assert_eq!(heights(0, [1, 1]), [0, 0]);
    }
}
