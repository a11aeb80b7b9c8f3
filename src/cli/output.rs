//! Answers: tables on a terminal, TSV off it, JSON when asked. Data goes to stdout, talk to stderr.

use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{Cell, Color};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::table;
use crate::record::JobRecord;
use crate::state::State;

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Json,
    Tsv,
    Table { color: bool },
}

/// The version of all JSON that is printed.
pub(super) const VERSION: u32 = 1;

/// Prints one line of JSON, with its version.
pub(super) fn json(mut value: Value) -> io::Result<()> {
    value["v"] = json!(VERSION);
    print(format_args!("{value}\n"))
}

/// Prints rows for programs: fields between tabs, a row a line, without a heading.
pub(super) fn tsv(rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    let mut text = String::new();
    for row in rows {
        let fields: Vec<String> = row.iter().map(|field| escape(field, false)).collect();
        text += &fields.join("\t");
        text.push('\n');
    }
    print(text)
}

/// Prints rows for people, as wide as the terminal.
pub(super) fn table(heading: &[&str], rows: Vec<Vec<Cell>>, color: bool) -> io::Result<()> {
    print(table::text(heading, rows, color, table::width()))
}

/// Text on its way to a table.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(escape(text.as_ref(), false))
}

/// A state, in its colour.
pub(super) fn state_cell(state: State, color: bool) -> Cell {
    let cell = Cell::new(state);
    match state {
        _ if !color => cell,
        State::Running => cell.fg(Color::Cyan),
        State::Retrying | State::Cancelled => cell.fg(Color::Yellow),
        State::Completed => cell.fg(Color::Green),
        State::Failed => cell.fg(Color::Red),
        _ => cell,
    }
}

/// Prints to stdout at once.
pub(super) fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.to_string().as_bytes())?;
    out.flush()
}

/// Whether somebody still reads stdout: a pipe whose other end is closed says so before anything is written.
pub(super) fn is_read() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut fds, Some(&now)).is_err() || !fds[0].revents().intersects(gone)
}

/// Says a line on stderr. If nobody can hear it there is nobody to tell.
pub(super) fn talk(line: impl Display) {
    let line = escape(&line.to_string(), true);
    super::progress::beside(|| {
        let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
    });
}

/// Control characters, which would steer a terminal or break a row, become escapes; backslashes
/// too, so that it can be undone. `lines`: ends of lines and tabs may stand, and nothing is undone.
pub(super) fn escape(text: &str, lines: bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' if lines => safe.push(c),
            '\\' if lines => safe.push(c),
            '\\' => safe += "\\\\",
            '\n' => safe += "\\n",
            '\r' => safe += "\\r",
            '\t' => safe += "\\t",
            c if is_unsafe(c) => safe += &format!("\\u{{{:x}}}", u32::from(c)),
            c => safe.push(c),
        }
    }
    safe
}

/// Control characters, and those that turn the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A job as JSON: the record, with arguments and output as the JSON that they are.
pub(super) fn job(job: &JobRecord) -> Value {
    let mut value = serde_json::to_value(job).unwrap_or_default();
    value["args"] = parsed(&job.args);
    value["output"] = job.output.as_deref().map_or(Value::Null, parsed);
    value
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_or_break_a_row_is_escaped() {
        assert_eq!(
            escape("a\tb\nc\\d\u{1b}[31m\u{202e}", false),
            "a\\tb\\nc\\\\d\\u{1b}[31m\\u{202e}"
        );
        assert_eq!(escape("a\tb\n\r\\\u{9b}", true), "a\tb\n\\r\\\\u{9b}");
        assert_eq!(escape("Grüße 👍", false), "Grüße 👍");
    }
}
