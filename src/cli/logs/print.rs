//! How what a job has written is shown: with headings on a terminal, byte for byte off it, by lines in
//! JSON.

use std::io::{self, Write};

use serde_json::json;
use time::OffsetDateTime;

use super::super::output::{self, Output};
use super::super::{shell, times};
use crate::record::LogLine;

/// A line of JSON that is longer is told in parts.
const LONGEST: usize = 64 * 1024;

/// What a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    stream: &'static str,
    attempt: u32,
}

/// The beginning of a line whose end is still to come; on a terminal, of a character.
#[derive(Default)]
struct Begun {
    of: Option<Origin>,
    bytes: Vec<u8>,
}

pub(super) struct Printer {
    output: Output,
    /// Of stdout and stderr.
    begun: [Begun; 2],
    /// What was printed last, on a terminal, and whether its line has an end.
    last: Option<Origin>,
    ended: bool,
}

impl Printer {
    pub(super) fn new(output: Output) -> Printer {
        Printer { output, begun: Default::default(), last: None, ended: true }
    }

    pub(super) fn log(&mut self, log: &LogLine) -> io::Result<()> {
        match self.output {
            Output::Json => output::json(json!({
                "stream": "log", "attempt": log.attempt, "at": times::exact(log.at), "line": log.line,
            })),
            Output::Tsv => output::print(format_args!("{}\n", log.line)),
            Output::Table { .. } => {
                self.head(Origin { stream: "log", attempt: log.attempt })?;
                self.show(&format!("{} {}\n", times::exact(log.at), log.line))
            }
        }
    }

    pub(super) fn bytes(
        &mut self,
        stream: &'static str,
        attempt: u32,
        at: Option<OffsetDateTime>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let origin = Origin { stream, attempt };
        match self.output {
            Output::Json => self.lines(origin, at, bytes),
            Output::Tsv => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Output::Table { .. } => {
                self.head(origin)?;
                let whole = self.begun(origin).whole_characters(bytes);
                self.show(&String::from_utf8_lossy(&whole))
            }
        }
    }

    /// Talk, unless the answer is JSON: it is no part of what the job has written.
    pub(super) fn missing(
        &mut self,
        stream: &'static str,
        attempt: u32,
        at: Option<OffsetDateTime>,
        missing: u64,
    ) -> io::Result<()> {
        let origin = Origin { stream, attempt };
        self.finish(origin, at)?;
        match self.output {
            Output::Json => output::json(json!({
                "stream": stream, "attempt": attempt, "at": at.map(times::exact), "missing": missing,
            })),
            Output::Tsv => {
                output::talk(format_args!("legwork: {stream}: {}", shell::cut(missing)));
                Ok(())
            }
            Output::Table { .. } => {
                self.head(origin)?;
                self.show(&format!("\n{}\n", shell::cut(missing)))
            }
        }
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) -> io::Result<()> {
        for origin in self.begun.each_ref().map(|begun| begun.of).into_iter().flatten() {
            self.finish(origin, None)?;
        }
        if !self.ended {
            output::print("\n")?;
        }
        Ok(())
    }

    fn begun(&mut self, origin: Origin) -> &mut Begun {
        let begun = &mut self.begun[usize::from(origin.stream == "stderr")];
        begun.of = Some(origin);
        begun
    }

    /// Prints what was begun, though its end has not come.
    fn finish(&mut self, origin: Origin, at: Option<OffsetDateTime>) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.begun(origin).bytes);
        match self.output {
            _ if bytes.is_empty() => Ok(()),
            Output::Json => line(origin, at, &bytes),
            _ => {
                self.head(origin)?;
                self.show(&String::from_utf8_lossy(&bytes))
            }
        }
    }

    fn lines(
        &mut self,
        origin: Origin,
        at: Option<OffsetDateTime>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let before = self.begun[usize::from(origin.stream == "stderr")].of;
        if let Some(before) = before.filter(|before| *before != origin) {
            // The attempt that began the line goes on no more.
            self.finish(before, at)?;
        }
        let begun = self.begun(origin);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.bytes.extend(part);
            if part.ends_with(b"\n") || begun.bytes.len() >= LONGEST {
                let whole = std::mem::take(&mut begun.bytes);
                line(origin, at, whole.strip_suffix(b"\n").unwrap_or(&whole))?;
            }
        }
        Ok(())
    }

    /// Says what follows, if it is something else than before.
    fn head(&mut self, origin: Origin) -> io::Result<()> {
        if self.last == Some(origin) {
            return Ok(());
        }
        let end = if self.ended { "" } else { "\n" };
        let gap = if self.last.is_none() { "" } else { "\n" };
        (self.last, self.ended) = (Some(origin), true);
        let Origin { stream, attempt } = origin;
        output::print(format_args!("{end}{gap}--- {stream} of attempt {attempt}\n"))
    }

    fn show(&mut self, text: &str) -> io::Result<()> {
        if let Some(last) = text.chars().last() {
            self.ended = last == '\n';
        }
        output::print(output::escape(text, true))
    }
}

fn line(origin: Origin, at: Option<OffsetDateTime>, bytes: &[u8]) -> io::Result<()> {
    output::json(json!({
        "stream": origin.stream,
        "attempt": origin.attempt,
        "at": at.map(times::exact),
        "line": String::from_utf8_lossy(bytes),
    }))
}

impl Begun {
    /// These bytes after those that were held back; what may be the beginning of a character is held
    /// back in turn.
    fn whole_characters(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.bytes);
        whole.extend(bytes);
        let end = match std::str::from_utf8(tail(&whole)) {
            Err(error) if error.error_len().is_none() => {
                whole.len() - (tail(&whole).len() - error.valid_up_to())
            }
            _ => whole.len(),
        };
        self.bytes = whole.split_off(end);
        whole
    }
}

/// The last bytes, from the beginning of a character on if there is one among them.
fn tail(bytes: &[u8]) -> &[u8] {
    let near = bytes.len().saturating_sub(3);
    let begins = |byte: &u8| *byte >= 0xc0;
    let start = bytes[near..].iter().rposition(begins).map_or(bytes.len(), |at| near + at);
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_in_two_parts_is_shown_whole_and_what_is_none_is_not_waited_for() {
        let text = "aü€👍z".as_bytes();
        for at in 0..=text.len() {
            let mut begun = Begun::default();
            let first = begun.whole_characters(&text[..at]);
            assert!(std::str::from_utf8(&first).is_ok(), "at {at}");
            let second = begun.whole_characters(&text[at..]);
            assert_eq!([first, second].concat(), text);
            assert!(begun.bytes.is_empty());
        }
        let mut begun = Begun::default();
        assert_eq!(begun.whole_characters(b"a\xff"), b"a\xff");
        assert_eq!(begun.whole_characters(b"b\xe2\x82"), b"b");
        assert_eq!(begun.whole_characters(b"c"), b"\xe2\x82c");
    }
}
