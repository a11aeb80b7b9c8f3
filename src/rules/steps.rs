//! Steps: which one a job is at, and whether it comes the way that earlier attempts have come.

use std::collections::HashSet;

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Step,
    Cursor,
}

impl Sort {
    /// As it stands in the file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Sort::Step => "step",
            Sort::Cursor => "cursor",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Sort> {
        [Sort::Step, Sort::Cursor].into_iter().find(|sort| sort.word() == word)
    }
}

/// A step or cursor by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) sort: Sort,
}

/// Why a visit is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The name was visited before in this attempt.
    Twice,
    /// Earlier attempts have had something else in this place.
    Changed { place: usize, stored: Named, visited: Named },
}

/// The steps that one attempt has visited, against those that earlier attempts have stored.
///
/// Every attempt visits them in the same order; so a step is known by its *place*, from 1, and its
/// name tells whether that is still true. What is stored has no gaps: with a value go the names of all
/// that were visited before it, those too that have no value since they failed and the job went on.
/// Otherwise a step that was renamed could slip into such a gap, and run twice.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    stored: Vec<Named>,
    visited: Vec<Named>,
    names: HashSet<String>,
    /// After a change nothing more is let through: what follows was not meant to run without it.
    changed: Option<Refused>,
}

impl Visits {
    /// An attempt that finds these stored, in the order of their places.
    pub(crate) fn after(stored: Vec<Named>) -> Visits {
        Visits { stored, ..Visits::default() }
    }

    /// The job comes to this step; at which place that is.
    pub(crate) fn visit(&mut self, visited: Named) -> Result<usize, Refused> {
        if let Some(changed) = &self.changed {
            return Err(changed.clone());
        }
        if self.names.contains(&visited.name) {
            return Err(Refused::Twice);
        }
        let place = self.visited.len() + 1;
        if let Some(stored) = self.stored.get(place - 1).filter(|stored| **stored != visited) {
            let changed = Refused::Changed { place, stored: stored.clone(), visited };
            self.changed = Some(changed.clone());
            return Err(changed);
        }
        self.names.insert(visited.name.clone());
        self.visited.push(visited);
        Ok(place)
    }

    /// Whether the file has an entry for this place.
    pub(crate) fn is_stored(&self, place: usize) -> bool {
        place <= self.stored.len()
    }

    /// What goes into the file with a value for this place: the place itself, last, and before it all
    /// that are not there yet.
    pub(crate) fn to_store(&self, place: usize) -> Vec<(usize, Named)> {
        let first = self.stored.len().min(place - 1);
        let places = first + 1..=place;
        places.zip(self.visited[first..place].iter().cloned()).collect()
    }

    /// Everything up to this place is in the file.
    pub(crate) fn stored_up_to(&mut self, place: usize) {
        let new = self.stored.len()..place;
        self.stored.extend(self.visited.get(new).unwrap_or_default().iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> Named {
        Named { name: name.to_owned(), sort: Sort::Step }
    }

    fn cursor(name: &str) -> Named {
        Named { name: name.to_owned(), sort: Sort::Cursor }
    }

    #[test]
    fn the_same_order_is_let_through_and_goes_on_after_what_is_stored() {
        let mut visits = Visits::after(vec![step("a"), cursor("b")]);
        assert_eq!(visits.visit(step("a")), Ok(1));
        assert_eq!(visits.visit(cursor("b")), Ok(2));
        assert_eq!(visits.visit(step("c")), Ok(3));
        assert!(visits.is_stored(2) && !visits.is_stored(3));
    }

    #[test]
    fn another_name_another_order_or_another_sort_is_a_change() {
        let stored = || vec![step("a"), step("b")];
        for (first, second) in [
            (step("x"), step("b")),
            (step("b"), step("a")),
            (step("a"), step("c")),
            (step("a"), cursor("b")),
            (step("new"), step("a")),
        ] {
            let mut visits = Visits::after(stored());
            let refused = visits.visit(first.clone()).and_then(|_| visits.visit(second.clone()));
            assert!(matches!(refused, Err(Refused::Changed { .. })), "{first:?} {second:?}");
        }
    }

    #[test]
    fn after_a_change_nothing_more_is_let_through() {
        let mut visits = Visits::after(vec![step("a")]);
        let refused = visits.visit(step("x"));
        assert!(refused.is_err());
        assert_eq!(visits.visit(step("y")), refused);
    }

    #[test]
    fn a_name_is_visited_once_in_an_attempt() {
        let mut visits = Visits::default();
        assert_eq!(visits.visit(step("a")), Ok(1));
        assert_eq!(visits.visit(step("a")), Err(Refused::Twice));
        assert_eq!(visits.visit(cursor("a")), Err(Refused::Twice));
        assert_eq!(visits.visit(step("b")), Ok(2), "what was refused has no place");
    }

    #[test]
    fn with_a_value_go_the_names_before_it_that_are_not_stored() {
        let mut visits = Visits::after(vec![step("a")]);
        for name in ["a", "failed", "b"] {
            visits.visit(step(name)).unwrap();
        }
        assert_eq!(visits.to_store(3), [(2, step("failed")), (3, step("b"))]);
        visits.stored_up_to(3);
        assert_eq!(
            visits.to_store(2),
            [(2, step("failed"))],
            "one that ends later is stored alone"
        );
        visits.stored_up_to(2);
        assert!(visits.is_stored(3));
    }
}
