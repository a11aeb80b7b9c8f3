//! Arguments of commands, which need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

/// An argument, a path or a value: a string, or its bytes if they are no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(in crate::cli) enum Text {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl Text {
    pub(super) fn to_os(&self) -> OsString {
        match self {
            Text::Utf8(text) => OsString::from(text),
            Text::Bytes(bytes) => OsString::from_vec(bytes.clone()),
        }
    }

    /// For people; bytes that are no UTF-8 become U+FFFD.
    pub(super) fn lossy(&self) -> String {
        self.to_os().to_string_lossy().into_owned()
    }
}

impl From<&OsStr> for Text {
    fn from(text: &OsStr) -> Text {
        match text.to_str() {
            Some(text) => Text::Utf8(text.to_owned()),
            None => Text::Bytes(text.as_bytes().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_utf8_comes_back_byte_for_byte() {
        for bytes in [&b"plain"[..], b"\xff\xfe/x", "Grüße".as_bytes()] {
            let text = Text::from(OsStr::from_bytes(bytes));
            let json = serde_json::to_string(&text).unwrap();
            assert_eq!(serde_json::from_str::<Text>(&json).unwrap().to_os().as_bytes(), bytes);
        }
        assert_eq!(serde_json::to_string(&Text::from(OsStr::new("ls"))).unwrap(), "\"ls\"");
    }
}
