//! Failures that are alike, counted together, in bounded memory.

use std::cmp::Reverse;
use std::collections::HashMap;

use time::OffsetDateTime;

use super::likeness::{first_line, general};
use crate::id::JobId;
use crate::record::FailureGroup;

/// So many groups are told apart; what comes then is counted by its kind alone.
const MOST_GROUPS: usize = 5_000;
/// So many ids are kept of a group.
const NEWEST: usize = 5;

/// A job that failed.
pub(crate) struct Failed {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    pub(crate) at: OffsetDateTime,
    pub(crate) error: String,
}

/// The groups so far, by kind and what the errors have in common.
#[derive(Default)]
pub(crate) struct Groups(HashMap<(String, String), FailureGroup>);

impl Groups {
    pub(crate) fn add(&mut self, failed: Failed) {
        let Failed { id, kind, at, error } = failed;
        let mut key = (kind, general(&error));
        if self.0.len() >= MOST_GROUPS && !self.0.contains_key(&key) {
            key.1.clear();
        }
        let group = self.0.entry(key).or_insert_with_key(|(kind, error)| FailureGroup {
            kind: kind.clone(),
            error: error.clone(),
            example: String::new(),
            count: 0,
            first: at,
            last: at,
            newest: Vec::new(),
        });
        group.count += 1;
        group.first = group.first.min(at);
        group.last = group.last.max(at);
        let place = group.newest.partition_point(|newer| *newer > id);
        if place == 0 {
            group.example = first_line(&error);
        }
        if place < NEWEST {
            group.newest.insert(place, id);
            group.newest.truncate(NEWEST);
        }
    }

    /// The groups with the most jobs first, then the ones last seen; at most so many.
    pub(crate) fn into_largest(self, limit: usize) -> Vec<FailureGroup> {
        let mut groups: Vec<FailureGroup> = self.0.into_values().collect();
        groups.sort_unstable_by(|one, other| {
            let order = |group: &FailureGroup| (Reverse(group.count), Reverse(group.last));
            order(one)
                .cmp(&order(other))
                .then_with(|| (&one.kind, &one.error).cmp(&(&other.kind, &other.error)))
        });
        groups.truncate(limit);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(id: i64, kind: &str, error: &str) -> Failed {
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(id);
        Failed { id: JobId(id), kind: kind.to_owned(), at, error: error.to_owned() }
    }

    #[test]
    fn failures_that_are_alike_are_counted_together_the_most_frequent_first() {
        let mut groups = Groups::default();
        for id in [9, 8, 7, 3, 4, 5, 6] {
            groups.add(failed(id, "mail", &format!("timed out after {id} s\nat smtp")));
        }
        groups.add(failed(1, "mail", "no such user"));
        groups.add(failed(2, "digest", "no such user"));
        let all = groups.into_largest(10);
        let counts: Vec<_> = all.iter().map(|g| (&*g.kind, &*g.error, g.count)).collect();
        let expected = [
            ("mail", "timed out after # s", 7),
            ("digest", "no such user", 1),
            ("mail", "no such user", 1),
        ];
        assert_eq!(counts, expected);
        assert_eq!(all[0].newest, [9, 8, 7, 6, 5].map(JobId));
        assert_eq!(all[0].example, "timed out after 9 s");
        assert_eq!(all[0].first, OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(3));
        assert_eq!(all[0].last, OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(9));
    }

    #[test]
    fn what_is_too_different_is_counted_by_its_kind_alone() {
        let mut groups = Groups::default();
        let word = |at: usize| format!("{}x", "y".repeat(at % 70) + &"z".repeat(at / 70));
        for at in 0..MOST_GROUPS + 10 {
            groups.add(failed(at as i64, "mail", &word(at)));
        }
        let all = groups.into_largest(usize::MAX);
        assert_eq!(all.len(), MOST_GROUPS + 1);
        assert_eq!((&*all[0].error, all[0].count), ("", 10));
        assert_eq!(all.iter().map(|group| group.count).sum::<u64>(), MOST_GROUPS as u64 + 10);
    }
}
