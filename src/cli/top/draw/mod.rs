//! The model on a terminal: the head, the panels or what lies over them, and a line at the foot.

mod head;
mod over;
mod panels;
mod progress;
mod table;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::model::{Mode, Model};
use super::text::{clip, one_line, width};
use crate::state::State;

/// Less than this shows nothing of use.
const SMALLEST: (u16, u16) = (24, 6);

/// Colours, if there may be any.
#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn fg(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// As in the tables of the other commands.
    fn state(self, state: State) -> Style {
        match state {
            State::Running => self.fg(Color::Cyan),
            State::Retrying | State::Cancelled => self.fg(Color::Yellow),
            State::Completed => self.fg(Color::Green),
            State::Failed => self.fg(Color::Red),
            _ => Style::new(),
        }
    }

    fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return frame.render_widget(Paragraph::new("too small"), area);
    }
    let paint = Paint { color: model.setting.color };
    let parts = Layout::vertical([
        Constraint::Length(head::LINES),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [head, body, foot] = parts.areas(area);
    head::draw(model, paint, frame, head);
    match &model.mode {
        Mode::Help => over::help(model, frame, body),
        Mode::Details(details) => over::details(details, frame, body),
        _ => panels::draw(model, paint, frame, body),
    }
    frame.render_widget(foot_line(model, paint, foot), foot);
}

/// What is asked or typed, what has to be said, or which keys there are.
fn foot_line(model: &Model, paint: Paint, area: Rect) -> Line<'static> {
    let room = usize::from(area.width);
    match &model.mode {
        Mode::Asking(action) => {
            let asks = "? y/n";
            let question = clip(&action.question(), room.saturating_sub(width(asks)));
            return Line::styled(question + asks, REVERSED);
        }
        Mode::Typing(query) if model.note.is_none() => return typing_line(query, room),
        _ => {}
    }
    if let Some(note) = &model.note {
        let style = if note.bad { paint.bad() } else { BOLD };
        return Line::styled(clip(&one_line(&note.text), room), style);
    }
    if let Some(trouble) = &model.trouble {
        let text = format!("the file cannot be read now: {}", one_line(trouble));
        return Line::styled(clip(&text, room), paint.bad());
    }
    let keys = match &model.mode {
        Mode::Details(_) => "arrows scroll  Esc closes",
        Mode::Help => "any key closes",
        _ if model.setting.read_only => {
            "q quit  Tab panel  Enter show  / filter  Space freeze  ? help"
        }
        _ => "q quit  Tab panel  Enter show  / filter  r retry  c cancel  p pause  ? help",
    };
    // What is cut off is in the help.
    Line::styled(whole_words(keys, room), DIM)
}

/// The end of it, where one types.
fn typing_line(query: &str, room: usize) -> Line<'static> {
    let room = room.saturating_sub(2);
    let mut start = 0;
    while width(&query[start..]) > room {
        start += query[start..].chars().next().map_or(1, char::len_utf8);
    }
    let text = Span::raw(format!("/{}", one_line(&query[start..])));
    let end = if query.ends_with(' ') { "  " } else { " " };
    Line::from(vec![text, Span::styled(end, REVERSED)])
}

/// As many of the hints, which two blanks part, as there is room for.
fn whole_words(hints: &str, room: usize) -> String {
    let mut line = String::new();
    for hint in hints.split("  ") {
        let gap = if line.is_empty() { "" } else { "  " };
        if width(&line) + gap.len() + width(hint) > room {
            break;
        }
        line = line + gap + hint;
    }
    line
}
