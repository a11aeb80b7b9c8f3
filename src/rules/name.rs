//! What may be a name: of a kind, a queue, a tag, a key.

use crate::error::{Error, Result};

/// Longest name, in bytes of UTF-8.
pub(crate) const MAX_BYTES: usize = 255;

/// Checks that `name` is 1 to 255 bytes of UTF-8 without control characters.
pub(crate) fn check(what: &'static str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(what, "it is empty"));
    }
    if name.len() > MAX_BYTES {
        return Err(Error::invalid(
            what,
            format!("it has {} bytes, at most {MAX_BYTES} are allowed", name.len()),
        ));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(what, format!("it contains the control character {bad:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_1_to_255_bytes_without_control_characters() {
        for good in ["a", "Grüße", "'; DROP TABLE x --", "<b>", &"x".repeat(255)] {
            assert!(check("name", good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a\0b", "\u{7f}", "\u{85}", &"x".repeat(256), &"ü".repeat(128)] {
            assert!(check("name", bad).is_err(), "{bad:?}");
        }
    }
}
