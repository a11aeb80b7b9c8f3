//! Text that fits, by the columns that it takes on a terminal.

use ratatui::style::Style;
use ratatui::text::Span;

use super::super::output;

/// How many columns it takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The first line that says something, with what would steer a terminal escaped.
pub(super) fn one_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    output::escape(line.trim(), false)
}

/// At most so many columns of it; `…` stands for the rest.
pub(super) fn clip(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut lines = wrap_line(text, most.saturating_sub(1));
    match lines.is_empty() || most == 0 {
        true => String::new(),
        false => lines.swap_remove(0) + "…",
    }
}

/// In lines of at most so many columns.
pub(super) fn wrap(text: &str, most: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrap_line(line, most)).collect()
}

fn wrap_line(line: &str, most: usize) -> Vec<String> {
    let (mut lines, mut used) = (vec![String::new()], 0);
    let span = Span::raw(line);
    for grapheme in span.styled_graphemes(Style::new()) {
        let takes = width(grapheme.symbol);
        if used + takes > most && used > 0 {
            lines.push(String::new());
            used = 0;
        }
        // Wider than a whole line.
        if takes <= most {
            used += takes;
            if let Some(last) = lines.last_mut() {
                last.push_str(grapheme.symbol);
            }
        }
    }
    lines
}

/// A number in at most five columns.
pub(super) fn short(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000 => format!("{}k", count / 1_000),
        1_000_000..1_000_000_000 => {
            let digits = if count < 100_000_000 { 1 } else { 0 };
            format!("{:.digits$}M", (count / 100_000) as f64 / 10.0)
        }
        _ => format!("{}G", count / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_clipped_by_the_columns_that_it_takes() {
        assert_eq!(clip("hello", 5), "hello");
        assert_eq!(clip("hello!", 5), "hell…");
        assert_eq!(clip("日本語", 6), "日本語");
        assert_eq!(clip("日本語", 5), "日本…");
        assert_eq!(clip("日本語", 4), "日…");
        assert_eq!(clip("日本語", 1), "…");
        assert_eq!(clip("日本語", 0), "");
        assert_eq!(clip("", 0), "");
        assert_eq!(clip("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
    }

    #[test]
    fn long_lines_are_wrapped() {
        assert_eq!(wrap("abcde\n\nf", 2), ["ab", "cd", "e", "", "f"]);
        assert_eq!(wrap("a日b", 2), ["a", "日", "b"]);
        assert_eq!(wrap("日", 1), [""]);
    }

    #[test]
    fn what_would_steer_the_terminal_is_escaped() {
        assert_eq!(one_line("\n  \x1b[2Jerror\tx\nmore"), "\\u{1b}[2Jerror\\tx");
    }

    #[test]
    fn large_numbers_are_rounded_down() {
        let shown = [0, 99_999, 123_456, 1_999_999, 123_456_789, 5_000_000_000].map(short);
        assert_eq!(shown, ["0", "99999", "123k", "1.9M", "123M", "5G"]);
    }
}
