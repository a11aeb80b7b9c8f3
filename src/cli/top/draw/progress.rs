//! How far a job is, in a few columns.

use super::super::text::{one_line, short};
use crate::record::Progress;

/// The columns of a bar and its percentage.
pub(super) const COLUMNS: u16 = 13;

const BAR: usize = 8;

/// `████░░░░  50%`; without a known total what is done, otherwise what it says.
pub(super) fn words(progress: &Progress) -> String {
    match (progress.done, progress.total) {
        (0, 0) => one_line(progress.message.as_deref().unwrap_or_default()),
        (done, 0) => format!("{} done", short(done)),
        (done, total) => {
            let of = |whole: usize| {
                (u128::from(done.min(total)) * whole as u128 / u128::from(total)) as usize
            };
            let full = of(BAR);
            let bar = "█".repeat(full) + &"░".repeat(BAR - full);
            format!("{bar} {:>3}%", of(100))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        let words = |done, total| words(&Progress { done, total, message: Some("m\x07".into()) });
        assert_eq!(words(0, 3), "░░░░░░░░   0%");
        assert_eq!(words(999, 1_000), "███████░  99%");
        assert_eq!(words(29, 50), "████░░░░  58%");
        assert_eq!(words(9, 3), "████████ 100%");
        assert_eq!(words(u64::MAX, u64::MAX), "████████ 100%");
        assert_eq!(words(7, 0), "7 done");
        assert_eq!(words(0, 0), "m\\u{7}");
    }
}
