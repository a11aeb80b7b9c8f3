//! The protocols as pure state machines, all interleavings of a small system explored.
//!
//! A model has one state for all that takes part, and steps that correspond one to one to what is
//! atomic in the code: a section under a lock, a message posted or received, a commit, a datagram,
//! a lock tried. The explorer walks through every order of steps, breadth first, so that what it
//! finds is told as the shortest list of steps that leads there. The guide's
//! [processes page](crate::guide::processes) draws the protocols with the same names.
//!
//! Two kinds of promise are checked: what must never be so in any state, and that every state
//! *settles*: whatever has happened so far, the system comes to rest as it should by its own steps,
//! without anything new from outside. A lost wake-up, a claim that nobody returns and a thread that
//! never ends are all states that cannot settle.
//!
//! Each model can be broken on purpose, and a test for each break says that the explorer finds it.

mod process;
mod rescue;
mod stop;
mod wake;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Who does what, with a number that tells one from the other.
#[derive(Clone, Copy, Debug)]
struct Step {
    who: &'static str,
    which: usize,
    what: &'static str,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.who, self.which, self.what)
    }
}

/// A step and the state after it.
struct Next<M> {
    step: Step,
    /// Nothing that the system may count on: a new job, a death.
    outside: bool,
    model: M,
}

trait Model: Sized {
    /// Hashes all of the state that decides what can happen from here. States are told apart by 64
    /// bits of it, which is much faster than keeping them; two of 100,000 that are taken
    /// for one are as likely as one in a billion.
    fn fingerprint(&self, hasher: &mut DefaultHasher);

    fn steps(&self, next: &mut Vec<Next<Self>>);

    /// What must never be so.
    fn wrong(&self) -> Option<String>;

    /// Whether this is how the system should come to rest.
    fn is_settled(&self) -> bool;

    /// More of the state, for whoever reads a counterexample.
    fn describe(&self) -> String;
}

/// What the explorer found wrong, and the shortest way there.
struct Counterexample {
    why: String,
    steps: Vec<Step>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} after {} steps:", self.why, self.steps.len())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// Larger than any model here; one that grows without bound must not eat the machine.
const MOST: usize = 300_000;

/// Walks through all states. `Ok`: how many there are, none of them wrong and each one settles.
fn explore<M: Model>(start: M) -> Result<usize, Counterexample> {
    let mut walk = Walk { known: HashMap::new(), came: Vec::new(), back: Vec::new() };
    let mut settled = Vec::new();
    let mut frontier = vec![start];
    walk.arrive(&frontier[0], None);
    let mut at = 0;
    let mut steps = Vec::new();
    let mut described = Vec::new();
    while !frontier.is_empty() {
        let mut further = Vec::new();
        for model in frontier {
            if let Some(why) = model.wrong() {
                return Err(walk.counterexample(at, why));
            }
            if model.is_settled() {
                settled.push(at);
            }
            model.steps(&mut steps);
            if steps.iter().all(|next| next.outside) && !model.is_settled() {
                described.push((at, model.describe()));
            }
            for Next { step, outside, model } in steps.drain(..) {
                let (to, new) = walk.arrive(&model, Some((at, step)));
                if !outside {
                    walk.back.push((to, at));
                }
                if new {
                    further.push(model);
                }
            }
            at += 1;
        }
        assert!(walk.came.len() < MOST, "the model has too many states");
        frontier = further;
    }
    match walk.unsettled(settled) {
        None => Ok(walk.came.len()),
        Some(lost) => {
            let rest = described.iter().find(|(at, _)| *at == lost);
            let rest = rest.map_or("it goes round and round", |(_, told)| told);
            Err(walk.counterexample(lost, format!("cannot settle ({rest})")))
        }
    }
}

struct Walk {
    known: HashMap<u64, usize>,
    /// Where each state was come to from first.
    came: Vec<Option<(usize, Step)>>,
    /// From each state to those before it, by steps of its own.
    back: Vec<(usize, usize)>,
}

impl Walk {
    fn arrive(&mut self, model: &impl Model, from: Option<(usize, Step)>) -> (usize, bool) {
        let mut hasher = DefaultHasher::new();
        model.fingerprint(&mut hasher);
        match self.known.entry(hasher.finish()) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(new) => {
                let at = self.came.len();
                new.insert(at);
                self.came.push(from);
                (at, true)
            }
        }
    }

    /// The first state from which no settled one can be reached by the system's own steps.
    fn unsettled(&mut self, settled: Vec<usize>) -> Option<usize> {
        self.back.sort_unstable();
        let mut settles = vec![false; self.came.len()];
        let mut todo = settled;
        while let Some(at) = todo.pop() {
            if std::mem::replace(&mut settles[at], true) {
                continue;
            }
            let first = self.back.partition_point(|(to, _)| *to < at);
            let before = self.back[first..].iter().take_while(|(to, _)| *to == at);
            todo.extend(before.map(|(_, from)| *from).filter(|from| !settles[*from]));
        }
        settles.iter().position(|settles| !settles)
    }

    fn counterexample(&self, mut at: usize, why: String) -> Counterexample {
        let mut steps = Vec::new();
        while let Some((from, step)) = self.came[at] {
            steps.push(step);
            at = from;
        }
        steps.reverse();
        Counterexample { why, steps }
    }
}

/// The model is as it should be in every state.
#[track_caller]
fn assert_holds<M: Model>(start: M) {
    match explore(start) {
        Ok(states) => println!("{states} states, all well"),
        Err(found) => panic!("{found}"),
    }
}

/// The explorer finds something wrong, which contains these words.
#[track_caller]
fn assert_found<M: Model>(start: M, words: &str) {
    match explore(start) {
        Ok(states) => panic!("nothing found in {states} states"),
        Err(found) => {
            println!("{found}");
            assert!(found.why.contains(words), "{found}");
        }
    }
}

/// The explorer itself: two counters that are read and written in two steps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Counters {
    value: u8,
    read: [Option<u8>; 2],
    left: [u8; 2],
    locked: bool,
}

impl Model for Counters {
    fn fingerprint(&self, hasher: &mut DefaultHasher) {
        self.hash(hasher);
    }

    fn steps(&self, next: &mut Vec<Next<Counters>>) {
        for who in 0..2 {
            let mut model = self.clone();
            let what = match self.read[who] {
                None if self.left[who] == 0 => continue,
                None if self.locked && self.read[1 - who].is_some() => continue,
                None => {
                    model.read[who] = Some(self.value);
                    "reads"
                }
                Some(read) => {
                    model.value = read + 1;
                    model.read[who] = None;
                    model.left[who] -= 1;
                    "writes"
                }
            };
            next.push(Next {
                step: Step { who: "counter", which: who, what },
                outside: false,
                model,
            });
        }
    }

    fn wrong(&self) -> Option<String> {
        (self.left == [0, 0] && self.value < 4).then(|| "an addition is lost".into())
    }

    fn is_settled(&self) -> bool {
        self.left == [0, 0]
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

#[test]
fn the_explorer_finds_the_shortest_way_to_a_lost_addition_and_none_under_a_lock() {
    let start = |locked| Counters { value: 0, read: [None; 2], left: [2; 2], locked };
    let found = explore(start(false)).expect_err("it is lost");
    assert_eq!(found.why, "an addition is lost");
    assert_eq!(found.steps.len(), 8, "{found}");
    assert!(explore(start(true)).is_ok());
}
