//! Tables for people, as wide as the terminal: words stay whole, and what fits into no columns stands
//! one below the other.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Terminals less wide than this, and those that do not tell it, get long lines.
const NARROWEST: u16 = 24;

/// Words up to this long stay whole as long as there is room,
const LONG_WORD: u16 = 24;
/// and up to this long in any case. A whole cell of this length is such a word: `12m 30s ago`.
const SHORT_WORD: u16 = 11;

/// On each side of a cell a blank.
const PADDING: u16 = 2;

/// The width of the terminal on stdout.
pub(super) fn width() -> Option<u16> {
    Table::new().width()
}

/// The table's lines, without blanks at their ends.
pub(super) fn text(
    heading: &[&str],
    rows: Vec<Vec<Cell>>,
    color: bool,
    width: Option<u16>,
) -> String {
    let heading: Vec<Cell> = heading.iter().map(|word| Cell::new(word.to_uppercase())).collect();
    let text = match width.filter(|width| *width >= NARROWEST) {
        // Better long lines than columns of letters.
        None => columns(heading, rows, color).to_string(),
        Some(width) => match least_widths(&heading, &rows, width) {
            Some(least) => fitted(columns(heading, rows, color), &least, width).to_string(),
            None => records(&heading, rows, color, width),
        },
    };
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn columns(heading: Vec<Cell>, rows: Vec<Vec<Cell>>, color: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if color {
        table.enforce_styling();
    }
    if !heading.is_empty() {
        table.set_header(heading);
    }
    table.add_rows(rows);
    table
}

/// The same in this width; no column is narrower than these.
fn fitted(mut table: Table, least: &[u16], width: u16) -> Table {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    for (column, least) in table.column_iter_mut().zip(least) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least + PADDING)));
    }
    table
}

/// How wide each column must be for its words, with room for as long ones as there can be; none if there is
/// no room for short ones.
fn least_widths(heading: &[Cell], rows: &[Vec<Cell>], width: u16) -> Option<Vec<u16>> {
    let words = |text: &str| Cell::new(text.replace(' ', "\n"));
    let values = |cell: &Cell| {
        let text = cell.content();
        if text.chars().count() <= SHORT_WORD.into() { Cell::new(text) } else { words(&text) }
    };
    // A table of words tells how wide they are.
    let heading = heading.iter().map(|name| words(&name.content())).collect();
    let rows = rows.iter().map(|row| row.iter().map(values).collect()).collect();
    let longest = columns(heading, rows, false).column_max_content_widths();
    let at_most = |cap: u16| -> Vec<u16> { longest.iter().map(|word| *word.min(&cap)).collect() };
    (SHORT_WORD..=LONG_WORD).rev().map(at_most).find(|least| {
        let all: u32 = least.iter().map(|least| u32::from(least + PADDING)).sum();
        all <= width.into()
    })
}

/// Each row by itself, a line or more for each cell that is not empty.
fn records(heading: &[Cell], rows: Vec<Vec<Cell>>, color: bool, width: u16) -> String {
    let names = columns(Vec::new(), heading.iter().map(|name| vec![name.clone()]).collect(), false);
    let names = names.column_max_content_widths();
    let record = |row: Vec<Cell>| {
        let pairs = heading.iter().cloned().zip(row);
        let pairs = pairs.filter(|(_, cell)| !cell.content().is_empty());
        let pairs = pairs.map(|(name, cell)| vec![name, cell]).collect();
        fitted(columns(Vec::new(), pairs, color), &names, width).to_string()
    };
    rows.into_iter().map(record).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: [&str; 4] = ["id", "kind", "attempts", "about"];

    fn shown(rows: &[[&str; 4]], width: u16) -> String {
        let rows = rows.iter().map(|row| row.iter().map(Cell::new).collect()).collect();
        text(&HEADING, rows, false, Some(width))
    }

    #[test]
    fn words_stay_whole_and_what_is_long_gives_way() {
        let rows = [["7", "welcome_email", "12", "sent to anna at home, and then to paul"]];
        assert_eq!(
            shown(&rows, 44),
            " ID  KIND           ATTEMPTS  ABOUT\n \
             7   welcome_email  12        sent to anna\n                              \
             at home, and\n                              then to paul\n"
        );
        assert!(shown(&rows, 100).ends_with("  sent to anna at home, and then to paul\n"));
    }

    #[test]
    fn a_terminal_too_narrow_for_columns_gets_a_line_for_each_cell() {
        let rows = [["7", "welcome_email", "", "not sent"], ["8", "日本語メール", "1", "送信済み"]];
        assert_eq!(
            shown(&rows, 30),
            " ID        7\n KIND      welcome_email\n ABOUT     not sent\n\n \
             ID        8\n KIND      日本語メール\n ATTEMPTS  1\n ABOUT     送信済み\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = "a_name_of_many_letters_without_a_blank_or_any_other_place_to_break_it";
        for width in 24..200 {
            for line in shown(&[["7", long, "12", long], ["8", "", "", "x y z"]], width).lines() {
                assert!(line.chars().count() <= width.into(), "{width}: {line}");
            }
        }
        assert_eq!(shown(&[["7", long, "", ""]], 10).lines().count(), 2);
    }
}
