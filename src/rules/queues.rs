//! Which queues a pool serves, and in which order.

use crate::clock::Random;
use crate::error::{Error, Result};
use crate::rules::name;

/// The queues of a pool: a list of patterns, strict in its order or weighted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Queues {
    entries: Vec<Entry>,
    excluded: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    pattern: Pattern,
    /// `None`: strictly after the entries before it.
    weight: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
enum Pattern {
    All,
    Prefix(String),
    Exactly(String),
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern> {
        if text == "*" {
            return Ok(Pattern::All);
        }
        name::check("queue pattern", text)?;
        Ok(match text.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Exactly(text.to_owned()),
        })
    }

    fn matches(&self, queue: &str) -> bool {
        match self {
            Pattern::All => true,
            Pattern::Prefix(prefix) => queue.starts_with(prefix.as_str()),
            Pattern::Exactly(name) => queue == name,
        }
    }
}

impl Queues {
    /// Parses `"high"`, `"mail*"`, `"*"` and `"-name"`, each with an optional weight.
    ///
    /// Either all included entries have a weight or none. Only exclusions means all other queues.
    pub(crate) fn parse(list: &[(String, Option<u32>)]) -> Result<Queues> {
        let mut queues = Queues { entries: Vec::new(), excluded: Vec::new() };
        for (text, weight) in list {
            match text.strip_prefix('-') {
                Some(excluded) => queues.excluded.push(Pattern::parse(excluded)?),
                None if *weight == Some(0) => {
                    return Err(Error::invalid("queue weight", format!("{text:?} has weight 0")));
                }
                None => {
                    queues.entries.push(Entry { pattern: Pattern::parse(text)?, weight: *weight })
                }
            }
        }
        if queues.entries.is_empty() {
            queues.entries.push(Entry { pattern: Pattern::All, weight: None });
        }
        let weighted = queues.entries.iter().filter(|entry| entry.weight.is_some()).count();
        if weighted != 0 && weighted != queues.entries.len() {
            return Err(Error::invalid(
                "queue list",
                "either every queue has a weight or none has".to_owned(),
            ));
        }
        Ok(queues)
    }

    /// How many ranks there are: the entries of the list.
    pub(crate) fn ranks(&self) -> usize {
        self.entries.len()
    }

    /// Whether a pool with this list serves `queue`; an invalid one serves none.
    pub(crate) fn serve(list: &[(String, Option<u32>)], queue: &str) -> bool {
        Queues::parse(list).is_ok_and(|queues| queues.rank(queue).is_some())
    }

    /// The position of the first entry that matches `queue`, or `None` if the pool does not serve it.
    pub(crate) fn rank(&self, queue: &str) -> Option<usize> {
        if self.excluded.iter().any(|pattern| pattern.matches(queue)) {
            return None;
        }
        self.entries.iter().position(|entry| entry.pattern.matches(queue))
    }

    /// Whether queues are drawn at random instead of taken in the order of the list.
    pub(crate) fn is_weighted(&self) -> bool {
        self.entries[0].weight.is_some()
    }

    /// The order in which the ranks are asked for work this time: as listed, or drawn by weight.
    pub(crate) fn order(&self, random: &Random) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.entries.len()).collect();
        if !self.is_weighted() {
            return left;
        }
        let weight = |rank: usize| u64::from(self.entries[rank].weight.unwrap_or(1));
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let total: u64 = left.iter().map(|&rank| weight(rank)).sum();
            let mut draw = random.below(total);
            let at = left
                .iter()
                .position(|&rank| match draw.checked_sub(weight(rank)) {
                    Some(rest) => {
                        draw = rest;
                        false
                    }
                    None => true,
                })
                .unwrap_or(left.len() - 1);
            order.push(left.remove(at));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(list: &[&str]) -> Queues {
        Queues::parse(&list.iter().map(|&q| (q.to_owned(), None)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn lists_are_strict_in_their_order() {
        let queues = strict(&["high", "default", "low"]);
        assert_eq!(queues.rank("default"), Some(1));
        assert_eq!(queues.rank("other"), None);
        assert_eq!(queues.order(&Random::seeded(1)), [0, 1, 2]);
    }

    #[test]
    fn star_prefix_and_exclusion_match() {
        let queues = strict(&["mail*", "*", "-mail_slow", "-tmp*"]);
        assert_eq!(queues.rank("mail_fast"), Some(0));
        assert_eq!(queues.rank("mail"), Some(0));
        assert_eq!(queues.rank("mail_slow"), None);
        assert_eq!(queues.rank("tmp7"), None);
        assert_eq!(queues.rank("default"), Some(1));
        assert_eq!(strict(&["-a"]).rank("b"), Some(0));
        assert_eq!(strict(&["-a"]).rank("a"), None);
    }

    #[test]
    fn weights_decide_how_often_a_queue_goes_first() {
        let queues = Queues::parse(&[("a".into(), Some(3)), ("b".into(), Some(1))]).unwrap();
        let random = Random::seeded(7);
        let first = (0..4_000).filter(|_| queues.order(&random)[0] == 0).count();
        assert!((2_850..3_150).contains(&first), "{first}");
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(Queues::parse(&[("a".into(), Some(0))]).is_err());
        assert!(Queues::parse(&[("a".into(), Some(1)), ("b".into(), None)]).is_err());
        assert!(Queues::parse(&[("".into(), None)]).is_err());
        assert!(Queues::parse(&[("-".into(), None)]).is_err());
    }
}
