//! Cutting long texts at their stated sizes, visibly.

/// Longest stored report of one failed attempt, in bytes.
pub(crate) const ERROR_BYTES: usize = 8 * 1024;
/// Longest stored log line, in bytes.
pub(crate) const LOG_LINE_BYTES: usize = 4 * 1024;
/// Log lines kept of one attempt.
pub(crate) const LOG_LINES: u32 = 1_000;
/// Longest stored progress message, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 1024;
/// Largest stored output, in bytes of JSON. Larger ones are refused, since half a JSON is none.
pub(crate) const OUTPUT_BYTES: usize = 1024 * 1024;
/// Largest stored result of a step or position of a cursor, in bytes of JSON; larger ones are refused.
pub(crate) const STEP_BYTES: usize = 1024 * 1024;

/// Cuts `text` to at most `limit` bytes at a character boundary and says how much is missing.
/// NUL characters, which end a text for many readers of SQLite, become U+FFFD.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let text = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() };
    if text.len() <= limit {
        return text;
    }
    // Room for the note itself.
    let mut end = limit.saturating_sub(40);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… ({} bytes cut)", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_visibly_and_never_over_its_limit() {
        assert_eq!(cut("short", 100), "short");
        let long = "ü".repeat(5_000);
        let cut = cut(&long, ERROR_BYTES);
        assert!(cut.len() <= ERROR_BYTES);
        assert!(cut.ends_with(" bytes cut)"), "{}", &cut[cut.len() - 30..]);
    }
}
