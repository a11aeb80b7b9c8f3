//! An expression in plain English words.

use croner::CronPattern;

/// croner's sentence, made to stand inside another one.
pub(super) fn of(pattern: &CronPattern) -> String {
    pattern.describe().trim_end_matches('.').to_owned()
}

/// "a", "a and b", "a, b and c".
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
