//! What errors of one sort have in common: their first line, without what differs from one to the next.

/// Longest text of a group, in characters.
const LONGEST: usize = 160;

/// A number right behind one of these says what sort of error it is, and stands.
const NAMING: [&str; 7] = ["code", "errno", "error", "exit", "http", "signal", "status"];
/// Such a number has at most so many digits.
const CODE_DIGITS: usize = 5;

/// Stands for a number.
const NUMBER: char = '#';
/// Stands for what is between quotation marks, and for what was cut.
const ANYTHING: char = '…';

/// The first line of an error, cut to 160 characters.
pub(crate) fn first_line(error: &str) -> String {
    cut(error.trim_start().lines().next().unwrap_or_default().trim_end())
}

/// The first line of an error in which numbers, also hexadecimal ones and UUIDs, are `#`, and what stands
/// between quotation marks is `…`; at most 160 characters. A number that follows a word such as
/// `code` or `status` stands.
pub(crate) fn general(error: &str) -> String {
    let line = error.trim_start().lines().next().unwrap_or_default().trim_end();
    // What differs may be long; what is beyond this is cut in any case.
    let chars: Vec<char> = line.chars().take(20 * LONGEST).collect();
    let mut general = General { out: String::new(), last_word: String::new() };
    let mut at = 0;
    while at < chars.len() {
        at = general.next(&chars, at);
    }
    cut(&general.out)
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        None => line.to_owned(),
        Some(_) => line.chars().take(LONGEST - 1).chain([ANYTHING]).collect(),
    }
}

struct General {
    out: String,
    /// In lower case, while only blanks and punctuation have followed it.
    last_word: String,
}

impl General {
    /// Takes in what begins at `at`; where the next thing begins.
    fn next(&mut self, chars: &[char], at: usize) -> usize {
        let first = chars[at];
        if first.is_alphanumeric() {
            return self.word(chars, at);
        }
        if let Some(end) = closing(chars, at) {
            self.out.extend([first, ANYTHING, first]);
            self.last_word.clear();
            return end + 1;
        }
        self.out.push(first);
        at + 1
    }

    fn word(&mut self, chars: &[char], at: usize) -> usize {
        if is_uuid(&chars[at..]) {
            self.number();
            return at + UUID;
        }
        let end = end_of(chars, at, |c| c.is_alphanumeric() || c == '_');
        let word = &chars[at..end];
        if word.iter().all(char::is_ascii_digit) {
            return self.digits(chars, at, end);
        }
        if is_hexadecimal(word) {
            self.number();
            return end;
        }
        let mut in_digits = false;
        for &c in word {
            if !c.is_ascii_digit() {
                self.out.push(c);
            } else if !in_digits {
                self.out.push(NUMBER);
            }
            in_digits = c.is_ascii_digit();
        }
        self.last_word = word.iter().flat_map(|c| c.to_lowercase()).collect();
        end
    }

    /// A number, with all that belongs to it: `1,000.5`, `12:30:05`, `10.0.0.1`.
    fn digits(&mut self, chars: &[char], at: usize, end: usize) -> usize {
        let mut after = end;
        while matches!(chars.get(after), Some('.' | ',' | ':'))
            && chars.get(after + 1).is_some_and(char::is_ascii_digit)
        {
            after = end_of(chars, after + 1, |c| c.is_ascii_digit());
        }
        if after == end && end - at <= CODE_DIGITS && NAMING.contains(&self.last_word.as_str()) {
            self.out.extend(&chars[at..end]);
            self.last_word.clear();
            return end;
        }
        self.number();
        after
    }

    fn number(&mut self) {
        self.out.push(NUMBER);
        self.last_word.clear();
    }
}

fn end_of(chars: &[char], at: usize, belongs: impl Fn(char) -> bool) -> usize {
    chars[at..].iter().position(|c| !belongs(*c)).map_or(chars.len(), |length| at + length)
}

/// Where the quotation closes that opens at `at`. An apostrophe opens none inside a word.
fn closing(chars: &[char], at: usize) -> Option<usize> {
    let mark = chars[at];
    let in_word = |at: usize| chars.get(at).is_some_and(|c| c.is_alphanumeric());
    if !matches!(mark, '"' | '`' | '\'') || mark == '\'' && at > 0 && in_word(at - 1) {
        return None;
    }
    let mut from = at + 1;
    loop {
        let end = from + chars[from..].iter().position(|c| *c == mark)?;
        let escaped = chars[end - 1] == '\\' && end > at + 1;
        let apostrophe = mark == '\'' && in_word(end + 1);
        if !escaped && !apostrophe {
            return Some(end);
        }
        from = end + 1;
    }
}

/// The length of a UUID.
const UUID: usize = 36;

fn is_uuid(chars: &[char]) -> bool {
    let fits = |(at, c): (usize, &char)| match at {
        8 | 13 | 18 | 23 => *c == '-',
        _ => c.is_ascii_hexdigit(),
    };
    chars.len() >= UUID
        && chars[..UUID].iter().enumerate().all(fits)
        && !chars.get(UUID).is_some_and(|c| c.is_alphanumeric())
}

/// `0x1f`, or at least six hexadecimal digits with a number among them.
fn is_hexadecimal(word: &[char]) -> bool {
    let digits = match word {
        ['0', 'x' | 'X', digits @ ..] if !digits.is_empty() => digits,
        word if word.len() >= 6 && word.iter().any(char::is_ascii_digit) => word,
        _ => return false,
    };
    digits.iter().all(char::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_one_to_the_next_is_left_out() {
        for (error, expected) in [
            ("timed out after 12s", "timed out after #s"),
            ("timed out after 1.5 s\nsecond line", "timed out after # s"),
            ("\n  connect 10.0.0.17:5432: refused  \n", "connect #: refused"),
            ("user 7 not found", "user # not found"),
            ("no file \"a b.txt\" in `/tmp/x1`", "no file \"…\" in `…`"),
            ("can't open 'it's here'", "can't open '…'"),
            ("a quote \"that never ends", "a quote \"that never ends"),
            ("bad \"a \\\"b\\\" c\" there", "bad \"…\" there"),
            ("job 550e8400-e29b-41d4-a716-446655440000 gone", "job # gone"),
            ("at 0x7ffe: commit 9fceb02d0a", "at #: commit #"),
            ("decade of a facade", "decade of a facade"),
            ("worker_12 of v2", "worker_# of v#"),
            ("at 2026-05-01T12:30:05Z", "at #-#-#T#:#Z"),
            ("", ""),
        ] {
            assert_eq!(general(error), expected, "{error}");
        }
    }

    #[test]
    fn a_number_that_names_the_error_stands() {
        for same in ["exit code 3: no", "HTTP 404", "http status: 503", "(os error 13)", "signal 9"]
        {
            assert_eq!(general(same), same);
        }
        assert_eq!(general("status 12345678"), "status #");
        assert_eq!(general("error 1.5"), "error #");
    }

    #[test]
    fn it_is_cut_at_a_length_whatever_it_is() {
        let long = general(&"ü ".repeat(5_000));
        assert_eq!(long.chars().count(), LONGEST);
        assert!(long.ends_with('…'));
        assert_eq!(general(&"9".repeat(100_000)), "#");
        assert_eq!(first_line(&format!("{}\nx", "ü".repeat(161))).chars().count(), LONGEST);
    }

    #[test]
    fn it_panics_at_nothing() {
        let signs = ['"', '\'', '`', '\\', 'a', '7', 'x', '0', '-', '.', ' ', '#', 'ß', '\u{301}'];
        let mut seed: usize = 7;
        for _ in 0..20_000 {
            let text: String = (0..seed % 12)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    signs[(seed >> 33) % signs.len()]
                })
                .collect();
            general(&text);
            seed = seed.wrapping_add(0x9e37_79b9);
        }
    }
}
