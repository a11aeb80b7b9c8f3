//! What a command says of its progress: lines that it writes to a descriptor of their own.

use std::time::{Duration, Instant};

use crate::record::Progress;

/// A longer line is cut. More of a message would not be kept anyway.
const LINE: usize = 4 * 1024;
/// A report at most this often, a little less often than reports are written to the file: one that is
/// too early for that would wait there for the next.
const EVERY: Duration = Duration::from_millis(300);

/// Reads the lines; the last one wins.
#[derive(Default)]
pub(super) struct Reports {
    line: Vec<u8>,
    now: Progress,
    is_new: bool,
    told: Option<Instant>,
}

impl Reports {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        self.append(parts.next().unwrap_or_default());
        for part in parts {
            self.end_line();
            self.append(part);
        }
    }

    fn append(&mut self, part: &[u8]) {
        let room = LINE.saturating_sub(self.line.len());
        self.line.extend(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if !line.trim().is_empty() {
            understand(line.trim(), &mut self.now);
            self.is_new = true;
        }
    }

    /// What is new, now and then.
    pub(super) fn next(&mut self) -> Option<Progress> {
        if !self.is_new || self.told.is_some_and(|at| at.elapsed() < EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        self.is_new = false;
        Some(self.now.clone())
    }

    /// What is new at the end, when a line needs no end either.
    pub(super) fn last(&mut self) -> Option<Progress> {
        self.end_line();
        std::mem::take(&mut self.is_new).then(|| self.now.clone())
    }
}

/// `3/12`, `3/12 message`, `25%`, `25% message`; everything else is a message.
fn understand(line: &str, progress: &mut Progress) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let message = match numbers(word) {
        Some((done, total)) => {
            (progress.done, progress.total) = (done, total);
            rest.trim()
        }
        None => line,
    };
    if !message.is_empty() {
        progress.message = Some(message.to_owned());
    }
}

fn numbers(word: &str) -> Option<(u64, u64)> {
    if let Some(percent) = word.strip_suffix('%') {
        let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        return Some((number(whole)?, 100)).filter(|(whole, _)| is_number && *whole <= 100);
    }
    let (done, total) = word.split_once('/')?;
    Some((number(done)?, number(total)?))
}

/// Digits alone: a sign is none of a number of units.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(writes: &[&[u8]]) -> Option<(u64, u64, Option<String>)> {
        let mut reports = Reports::default();
        writes.iter().for_each(|bytes| reports.take(bytes));
        reports.last().map(|progress| (progress.done, progress.total, progress.message))
    }

    fn said(text: &str) -> (u64, u64, Option<String>) {
        last(&[text.as_bytes()]).unwrap()
    }

    #[test]
    fn numbers_percentages_and_messages_are_understood() {
        let message = |text: &str| Some(text.to_owned());
        assert_eq!(said("3/12\n"), (3, 12, None));
        assert_eq!(said("3/12  chapter three\r\n"), (3, 12, message("chapter three")));
        assert_eq!(said("25%\n"), (25, 100, None));
        assert_eq!(said("99.9% nearly"), (99, 100, message("nearly")));
        assert_eq!(said("1/2 a\nresting\n"), (1, 2, message("resting")));
        assert_eq!(said("a\n2/2\n"), (2, 2, message("a")), "the message stays");
        assert_eq!(last(&[b"1/", b"3\n2", b"/3"]), Some((2, 3, None)));
        for free in [
            "3/4-inch pipes",
            "-1/2",
            "+1/2",
            "140%",
            "1.x%",
            "%",
            "/",
            "1/",
            "99999999999999999999/1",
        ] {
            assert_eq!(said(free), (0, 0, message(free)));
        }
    }

    #[test]
    fn garbage_does_no_harm() {
        assert_eq!(last(&[b"\n \n\r\n"]), None);
        assert_eq!(said("a\0\u{1b}[31m").2.unwrap(), "a\0\u{1b}[31m");
        assert_eq!(last(&[b"\xff\xfe\n"]).unwrap().2.unwrap(), "\u{fffd}\u{fffd}");
        let long = vec![b'x'; 10 * LINE];
        assert_eq!(last(&[&long, b"\n1/2\n"]).unwrap().0, 1);
        assert_eq!(last(&[&long]).unwrap().2.unwrap().len(), LINE);
    }

    #[test]
    fn a_flood_of_lines_is_told_now_and_then() {
        let mut reports = Reports::default();
        reports.take(b"1/9\n");
        assert_eq!(reports.next().map(|progress| progress.done), Some(1));
        reports.take(b"2/9\n3/9\n");
        assert_eq!(reports.next(), None);
        assert_eq!(reports.last().map(|progress| progress.done), Some(3));
        assert_eq!(reports.last(), None);
    }
}
