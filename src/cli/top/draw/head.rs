//! The head: the file, who works, how many jobs there are, how fast they go.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Sparkline;

use super::super::model::{Model, Seen};
use super::super::text::{clip, one_line, short, width};
use super::{BOLD, Paint, REVERSED};
use crate::rules::amount;
use crate::state::State;

pub(super) const LINES: u16 = 3;

/// Seconds of the sparkline, and its columns.
const MINUTE: u16 = 60;

const WAITING: [State; 5] =
    [State::Ready, State::Running, State::Scheduled, State::Retrying, State::Blocked];
const FINISHED: [State; 3] = [State::Completed, State::Failed, State::Cancelled];

pub(super) fn draw(model: &Model, paint: Paint, frame: &mut Frame<'_>, area: Rect) {
    let [first, second, third] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    frame.render_widget(first_line(model, paint, first.width), first);
    let Some(seen) = &model.seen else { return };
    let room = usize::from(area.width);
    let mut waiting = counts(seen, &WAITING, paint);
    if let Some(age) = seen.oldest_ready {
        let age = amount::span(model.aged(age));
        waiting.push((format!("oldest {age}"), Style::new()));
    }
    frame.render_widget(fitting(waiting, room), second);
    draw_pace(model, seen, paint, frame, third);
}

/// The file on the left, who works on the right.
fn first_line(model: &Model, paint: Paint, columns: u16) -> Line<'static> {
    let room = usize::from(columns);
    let (workers, style) = workers(model, paint);
    let workers = clip(&workers, room);
    let mark = if model.frozen { " FROZEN " } else { "" };
    let left = room.saturating_sub(width(&workers) + 2 + mark.len());
    let path = one_line(&model.setting.path);
    let file = clip(&path_end(&path, left), left);
    let gap = left.saturating_sub(width(&file)) + 1;
    Line::from(vec![
        Span::styled(file, BOLD),
        Span::raw(" "),
        Span::styled(mark, REVERSED),
        Span::raw(" ".repeat(gap)),
        Span::styled(workers, style),
    ])
}

/// The end of a path says more than its beginning.
fn path_end(path: &str, room: usize) -> String {
    if width(path) <= room {
        return path.to_owned();
    }
    let mut end = path;
    while let Some((at, _)) = end.char_indices().nth(1) {
        end = &end[at..];
        if width(end) < room {
            break;
        }
    }
    format!("…{end}")
}

fn workers(model: &Model, paint: Paint) -> (String, Style) {
    let count = |count: usize, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    match &model.seen {
        None => ("reading…".to_owned(), Style::new()),
        Some(seen) if seen.processes == 0 && seen.dead > 0 => {
            (format!("{}, none lives", count(seen.dead, "process", "processes")), paint.bad())
        }
        Some(seen) if seen.processes == 0 => ("no worker is running".to_owned(), paint.bad()),
        Some(seen) => {
            let processes = count(seen.processes, "process", "processes");
            let workers = count(seen.workers, "worker", "workers");
            let dead = if seen.dead > 0 { format!(", {} dead", seen.dead) } else { String::new() };
            (format!("{processes}, {workers}{dead}"), Style::new())
        }
    }
}

/// The states in which there are jobs.
fn counts(seen: &Seen, states: &[State], paint: Paint) -> Vec<(String, Style)> {
    let some = states.iter().copied().filter(|state| seen.count(*state) > 0);
    some.map(|state| (format!("{} {state}", short(seen.count(state))), paint.state(state)))
        .collect()
}

/// As many of these as there is room for, whole.
fn fitting(items: Vec<(String, Style)>, room: usize) -> Line<'static> {
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut used = 0;
    for (text, style) in items {
        let gap = if spans.is_empty() { "" } else { "  " };
        used += gap.len() + width(&text);
        if used > room {
            break;
        }
        spans.push(Span::raw(gap));
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

/// What is done, how much of it in a second, and that for each second of the last minute.
fn draw_pace(model: &Model, seen: &Seen, paint: Paint, frame: &mut Frame<'_>, area: Rect) {
    let mut items = counts(seen, &FINISHED, paint);
    if let Some(rate) = model.throughput.now() {
        items.push((rate_words(rate), BOLD));
    }
    let line = fitting(items, usize::from(area.width));
    let used = u16::try_from(line.width()).unwrap_or(area.width);
    frame.render_widget(line, area);
    let room = area.width.saturating_sub(used + 2).min(MINUTE);
    let bars = model.throughput.last(usize::from(room));
    if room < 8 || bars.iter().all(|bar| *bar == 0) {
        return;
    }
    let right = Rect { x: area.right() - room, width: room, ..area };
    frame
        .render_widget(Sparkline::default().data(bars).style(paint.state(State::Completed)), right);
}

fn rate_words(rate: f64) -> String {
    match rate {
        0.0 => "0/s".to_owned(),
        rate if rate < 100.0 => format!("{rate:.1}/s"),
        rate => format!("{rate:.0}/s"),
    }
}
