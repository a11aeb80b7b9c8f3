//! Steps: which one a job is at, and whether it comes the way that earlier attempts have come.

use std::collections::HashSet;
use std::thread::ThreadId;

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

/// What is stored at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) named: Named,
    /// The last place that was visited inside this step; its own, if there is none.
    pub(crate) last: usize,
}

/// Why a visit is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The name was visited before in this attempt.
    Twice,
    /// A step is under way in another thread: which of the two comes first would be chance.
    Elsewhere,
    /// Earlier attempts have had something else in this place.
    Changed { place: usize, stored: Named, visited: Named },
}

/// The steps that one attempt has visited, against those that earlier attempts have stored.
///
/// Every attempt visits them in the same order; so a step is known by its *place*, from 1, and its
/// name tells whether that is still true. What is stored has no gaps: with a value go the names of all
/// that were visited before it, those too that have no value since they failed and the job went on.
/// Otherwise a step that was renamed could slip into such a gap, and run twice.
///
/// Steps that are visited inside another have the places after it. Once that one has a result, they are
/// passed by with it.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    stored: Vec<Stored>,
    visited: Vec<Named>,
    names: HashSet<String>,
    /// The steps under way, each inside the one before it, and where.
    open: Vec<ThreadId>,
    /// After a change nothing more is let through: what follows was not meant to run without it.
    changed: Option<Refused>,
}

impl Visits {
    /// An attempt that finds these stored, in the order of their places.
    pub(crate) fn after(stored: Vec<Stored>) -> Visits {
        Visits { stored, ..Visits::default() }
    }

    /// The job comes to this step; at which place that is.
    pub(crate) fn visit(&mut self, visited: Named, here: ThreadId) -> Result<usize, Refused> {
        if let Some(changed) = &self.changed {
            return Err(changed.clone());
        }
        if self.names.contains(&visited.name) {
            return Err(Refused::Twice);
        }
        if self.open.iter().any(|thread| *thread != here) {
            return Err(Refused::Elsewhere);
        }
        let place = self.visited.len() + 1;
        let stored = self.stored.get(place - 1).map(|stored| &stored.named);
        if let Some(stored) = stored.filter(|stored| **stored != visited) {
            let changed = Refused::Changed { place, stored: stored.clone(), visited };
            self.changed = Some(changed.clone());
            return Err(changed);
        }
        self.names.insert(visited.name.clone());
        self.visited.push(visited);
        Ok(place)
    }

    /// The step visited last was not, after all.
    pub(crate) fn take_back(&mut self) {
        if let Some(last) = self.visited.pop() {
            self.names.remove(&last.name);
        }
    }

    /// The step visited last has a result: the job passes by what is inside it.
    pub(crate) fn pass_by(&mut self, place: usize) {
        let last = self.stored.get(place - 1).map_or(place, |stored| stored.last);
        for inside in self.stored.get(place..last).unwrap_or_default() {
            self.names.insert(inside.named.name.clone());
            self.visited.push(inside.named.clone());
        }
    }

    /// The work of the step visited last begins in this thread.
    pub(crate) fn begin(&mut self, here: ThreadId) {
        self.open.push(here);
    }

    /// The work that began last has ended; the last place inside it.
    pub(crate) fn end(&mut self) -> usize {
        self.open.pop();
        self.visited.len()
    }

    /// Whether the file has an entry for this place.
    pub(crate) fn is_stored(&self, place: usize) -> bool {
        place <= self.stored.len()
    }

    /// What goes into the file with a value for this place, that ends with the place `last`: its name,
    /// and those of all others up to there that are not in the file yet.
    pub(crate) fn to_store(&self, place: usize, last: usize) -> (Named, Vec<(usize, Named)>) {
        let names = (self.stored.len() + 1..=last).filter(|other| *other != place);
        let name = |place: usize| self.visited[place - 1].clone();
        (name(place), names.map(|other| (other, name(other))).collect())
    }

    /// That is in the file now.
    pub(crate) fn is_in_file(&mut self, place: usize, last: usize) {
        for at in self.stored.len()..last {
            self.stored.push(Stored { named: self.visited[at].clone(), last: at + 1 });
        }
        self.stored[place - 1].last = last;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn step(name: &str) -> Named {
        Named { name: name.to_owned(), sort: Sort::Step }
    }

    fn cursor(name: &str) -> Named {
        Named { name: name.to_owned(), sort: Sort::Cursor }
    }

    fn after(stored: impl IntoIterator<Item = Named>) -> Visits {
        let stored = stored.into_iter().enumerate();
        Visits::after(stored.map(|(at, named)| Stored { named, last: at + 1 }).collect())
    }

    fn visit(visits: &mut Visits, named: Named) -> Result<usize, Refused> {
        visits.visit(named, thread::current().id())
    }

    #[test]
    fn the_same_order_is_let_through_and_goes_on_after_what_is_stored() {
        let mut visits = after([step("a"), cursor("b")]);
        assert_eq!(visit(&mut visits, step("a")), Ok(1));
        assert_eq!(visit(&mut visits, cursor("b")), Ok(2));
        assert_eq!(visit(&mut visits, step("c")), Ok(3));
        assert!(visits.is_stored(2) && !visits.is_stored(3));
    }

    #[test]
    fn another_name_another_order_or_another_sort_is_a_change() {
        for [first, second] in [
            [step("x"), step("b")],
            [step("b"), step("a")],
            [step("a"), step("c")],
            [step("a"), cursor("b")],
            [step("new"), step("a")],
        ] {
            let mut visits = after([step("a"), step("b")]);
            let refused =
                visit(&mut visits, first.clone()).and_then(|_| visit(&mut visits, second.clone()));
            assert!(matches!(refused, Err(Refused::Changed { .. })), "{first:?} {second:?}");
        }
    }

    #[test]
    fn after_a_change_nothing_more_is_let_through() {
        let mut visits = after([step("a")]);
        let refused = visit(&mut visits, step("x"));
        assert!(refused.is_err());
        assert_eq!(visit(&mut visits, step("y")), refused);
    }

    #[test]
    fn a_name_is_visited_once_in_an_attempt() {
        let mut visits = Visits::default();
        assert_eq!(visit(&mut visits, step("a")), Ok(1));
        assert_eq!(visit(&mut visits, step("a")), Err(Refused::Twice));
        assert_eq!(visit(&mut visits, cursor("a")), Err(Refused::Twice));
        assert_eq!(visit(&mut visits, step("b")), Ok(2), "what was refused has no place");
    }

    #[test]
    fn a_visit_that_is_taken_back_can_be_made_again() {
        let mut visits = after([step("a")]);
        assert_eq!(visit(&mut visits, step("a")), Ok(1));
        visits.take_back();
        assert_eq!(visit(&mut visits, step("a")), Ok(1));
    }

    #[test]
    fn with_a_value_go_the_names_before_it_that_are_not_stored() {
        let mut visits = after([step("a")]);
        for name in ["a", "failed", "b"] {
            visit(&mut visits, step(name)).unwrap();
        }
        assert_eq!(visits.to_store(3, 3), (step("b"), vec![(2, step("failed"))]));
        visits.is_in_file(3, 3);
        assert_eq!(
            visits.to_store(2, 2),
            (step("failed"), vec![]),
            "one that ends later goes alone"
        );
        visits.is_in_file(2, 2);
        assert!(visits.is_stored(3));
    }

    #[test]
    fn what_is_inside_a_step_that_has_a_result_is_passed_by() {
        let here = thread::current().id();
        let mut visits = Visits::default();
        let outer = visit(&mut visits, step("outer")).unwrap();
        visits.begin(here);
        let inner = visit(&mut visits, step("inner")).unwrap();
        let last = visits.end();
        assert_eq!((outer, inner, last), (1, 2, 2));
        // Even one that has no value.
        assert_eq!(visits.to_store(outer, last), (step("outer"), vec![(2, step("inner"))]));
        visits.is_in_file(outer, last);

        let mut next = Visits::after(visits.stored);
        assert_eq!(visit(&mut next, step("outer")), Ok(1));
        next.pass_by(1);
        assert_eq!(visit(&mut next, step("after")), Ok(3));
    }

    #[test]
    fn while_a_step_is_under_way_other_threads_are_refused() {
        let elsewhere = thread::spawn(|| thread::current().id()).join().unwrap();
        let mut visits = Visits::default();
        visit(&mut visits, step("a")).unwrap();
        visits.begin(thread::current().id());
        assert_eq!(visits.visit(step("b"), elsewhere), Err(Refused::Elsewhere));
        visits.end();
        assert_eq!(visits.visit(step("b"), elsewhere), Ok(2));
    }
}
