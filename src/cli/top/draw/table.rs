//! Rows in columns that fit: each cell is clipped to its own.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::text::{clip, width};
use super::{BOLD, REVERSED};

/// A column and its heading.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) wide: Constraint,
    /// Numbers stand on the right.
    pub(super) right: bool,
}

impl Column {
    pub(super) fn left(name: &'static str, wide: Constraint) -> Column {
        Column { name, wide, right: false }
    }

    pub(super) fn right(name: &'static str, columns: u16) -> Column {
        Column { name, wide: Constraint::Length(columns), right: true }
    }
}

/// What stands in a row and a column.
#[derive(Clone, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, style: Style::new() }
    }
}

/// A heading and as many rows as there is room for, among them the chosen one.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column],
    rows: &[Vec<Cell>],
    chosen: Option<usize>,
) {
    let widths = columns.iter().map(|column| column.wide);
    let places = Layout::horizontal(widths).spacing(1).split(area);
    let mut line = |y: u16, cells: &[Cell], style: Style| {
        let row = Rect { y, height: 1, ..area };
        frame.buffer_mut().set_style(row, style);
        for ((cell, place), column) in cells.iter().zip(places.iter()).zip(columns) {
            let room = usize::from(place.width);
            let text = clip(&cell.text, room);
            let pad = if column.right { room - width(&text) } else { 0 };
            let span = Span::styled(" ".repeat(pad) + &text, cell.style);
            frame.render_widget(Line::from(span), Rect { y, height: 1, ..*place });
        }
    };
    if area.height == 0 {
        return;
    }
    let heading: Vec<Cell> =
        columns.iter().map(|column| Cell::from(column.name.to_uppercase())).collect();
    line(area.y, &heading, BOLD);
    let room = usize::from(area.height - 1);
    let first = chosen.map_or(0, |row| (row + 1).saturating_sub(room));
    for (row, y) in (first..rows.len()).zip(area.y + 1..area.bottom()) {
        line(y, &rows[row], if chosen == Some(row) { REVERSED } else { Style::new() });
    }
}
