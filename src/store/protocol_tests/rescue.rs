//! The rescue protocol: what a dead process held is given back once, what a living one holds never.
//!
//! Two or three processes share one job. Each has a writer, which claims, records, renews its lock
//! file and rescues, one after the other, and a worker. Any of them may die between any two steps;
//! somebody may clear lock files away; a stranger from another space of process ids may make a file
//! of the same name; an attempt may be abandoned, so that its end comes late.

use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;

use super::{Model, Next, Step, assert_found, assert_holds};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// A lock on another file of the same name counts.
    SkipsTheInode,
    /// A missing lock file counts as a death.
    TrustsAMissingFile,
    /// What was proven before the write lock was taken is not looked at again.
    LooksOnce,
    /// The row is committed before the lock is taken.
    JoinsBeforeLocking,
    /// The old lock is let go before the row names the new one.
    DropsTheOldLockFirst,
    /// The dead one's lock file is removed before the rescue is committed.
    ClearsTooEarly,
    /// A finish counts for whoever holds the job.
    FinishesWithoutToken,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    processes: usize,
    deaths: u8,
    /// Lock files that somebody clears away.
    cleared: u8,
    strangers: u8,
    abandons: u8,
    /// The processes see each other's ids.
    same_space: bool,
    broken: Option<Break>,
}

const QUIET: Setup = Setup {
    processes: 2,
    deaths: 1,
    cleared: 0,
    strangers: 0,
    abandons: 0,
    same_space: true,
    broken: None,
};

type Inode = usize;
/// A process and its count of claims.
type Claim = (usize, u8);

/// What a row says of its lock file; names are never given twice but by strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Named {
    name: usize,
    inode: Inode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Ready,
    Claimed(Claim),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    None,
    Runs(Claim),
    Ended(Claim),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    /// Has no lock file yet.
    Outside,
    /// Made, not locked.
    Made(Named),
    /// Locked, no row yet.
    Locked,
    Works,
    // Renewal.
    Remade(Named),
    Relocked(Named),
    RenewsRow(Named),
    Adopts(Named),
    // Rescue of another one, with or without the write lock.
    Reads {
        of: usize,
        locked: bool,
    },
    Opened {
        of: usize,
        locked: bool,
        file: Option<Inode>,
        row: Named,
    },
    Compared {
        of: usize,
        locked: bool,
        file: Option<Inode>,
    },
    Proven {
        of: usize,
        locked: bool,
    },
    TakesOver {
        of: usize,
    },
    Clears {
        row: Named,
    },
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    job: Row,
    rows: Vec<Option<Named>>,
    /// The directory: which file has a name.
    directory: Vec<Option<Inode>>,
    /// Who has a lock on a file. One process may hold several.
    held: Vec<Option<usize>>,
    write_lock: Option<usize>,
    writers: Vec<Writer>,
    own: Vec<Option<Named>>,
    workers: Vec<Job>,
    /// Abandoned attempts whose end is still to come.
    late: Vec<Option<Claim>>,
    tokens: Vec<u8>,
    rescues: Vec<u8>,
    left: [u8; 4],
    bad: Option<&'static str>,
}

#[derive(Clone)]
struct Processes {
    setup: Arc<Setup>,
    state: State,
}

impl Setup {
    fn start(self) -> Processes {
        let n = self.processes;
        let state = State {
            job: Row::Ready,
            rows: vec![None; n],
            directory: Vec::new(),
            held: Vec::new(),
            write_lock: None,
            writers: vec![Writer::Outside; n],
            own: vec![None; n],
            workers: vec![Job::None; n],
            late: vec![None; n],
            tokens: vec![0; n],
            rescues: vec![0; n],
            left: [self.deaths, self.cleared, self.strangers, self.abandons],
            bad: None,
        };
        Processes { setup: Arc::new(self), state }
    }
}

struct Steps<'a> {
    from: &'a Processes,
    next: &'a mut Vec<Next<Processes>>,
    process: usize,
}

impl Steps<'_> {
    fn step(&mut self, what: &'static str, act: impl FnOnce(&mut State)) {
        self.add(what, false, act);
    }

    fn add(&mut self, what: &'static str, outside: bool, act: impl FnOnce(&mut State)) {
        let mut model = self.from.clone();
        act(&mut model.state);
        let step = Step { who: "process", which: self.process, what };
        self.next.push(Next { step, outside, model });
    }
}

impl Model for Processes {
    fn fingerprint(&self, hasher: &mut DefaultHasher) {
        self.state.hash(hasher);
    }

    fn steps(&self, next: &mut Vec<Next<Processes>>) {
        for process in 0..self.setup.processes {
            let mut steps = Steps { from: self, next, process };
            if self.state.writers[process] != Writer::Dead {
                self.writer(process, &mut steps);
                self.worker(process, &mut steps);
                self.dies(process, &mut steps);
            }
            self.others(process, &mut steps);
        }
    }

    fn wrong(&self) -> Option<String> {
        let state = &self.state;
        if let Some(bad) = state.bad {
            return Some(bad.into());
        }
        for (process, worker) in state.workers.iter().enumerate() {
            if state.writers[process] == Writer::Works && state.rows[process].is_none() {
                return Some(format!("process {process} lives and has lost its row"));
            }
            let (Job::Runs(claim) | Job::Ended(claim)) = worker else { continue };
            if state.job != Row::Claimed(*claim) {
                return Some(format!("process {process} lives and has lost its job"));
            }
        }
        let twice = state.rescues.iter().position(|count| *count > 1);
        twice.map(|process| format!("process {process} is rescued twice"))
    }

    fn is_settled(&self) -> bool {
        let state = &self.state;
        let living =
            state.writers.iter().any(|writer| !matches!(writer, Writer::Dead | Writer::Outside));
        let works =
            |writer: &Writer| matches!(writer, Writer::Works | Writer::Dead | Writer::Outside);
        let buried = (0..self.setup.processes)
            .all(|process| state.writers[process] != Writer::Dead || state.rows[process].is_none());
        let quiet = state.workers.iter().all(|worker| *worker == Job::None)
            && state.late.iter().all(Option::is_none);
        state.writers.iter().all(works)
            && (!living || (state.job == Row::Done && buried))
            && (quiet || !living)
    }

    fn describe(&self) -> String {
        format!("{:?}", self.state)
    }
}

impl Processes {
    fn is_broken(&self, broken: Break) -> bool {
        self.setup.broken == Some(broken)
    }

    fn writer(&self, me: usize, steps: &mut Steps<'_>) {
        let state = &self.state;
        let free = state.write_lock.is_none();
        let early = self.is_broken(Break::JoinsBeforeLocking);
        match state.writers[me] {
            Writer::Outside => steps.add("makes its lock file", true, |state| {
                let named = state.make();
                state.writers[me] = Writer::Made(named);
            }),
            Writer::Made(named) if early && state.own[me].is_none() => {
                if free {
                    steps.step("commits its row", |state| {
                        state.rows[me] = Some(named);
                        state.own[me] = Some(named);
                    });
                }
            }
            Writer::Made(named) => steps.step("locks it", |state| {
                state.held[named.inode] = Some(me);
                state.own[me] = Some(named);
                state.writers[me] = if early { Writer::Works } else { Writer::Locked };
            }),
            Writer::Locked if free => steps.step("commits its row", |state| {
                state.rows[me] = state.own[me];
                state.writers[me] = Writer::Works;
            }),
            Writer::Works => self.works(me, steps),
            Writer::Remade(named) => steps.step("locks the new lock file", |state| {
                state.held[named.inode] = Some(me);
                state.writers[me] = Writer::Relocked(named);
            }),
            Writer::Relocked(named) if free => {
                steps.step("takes the write lock to renew", |state| {
                    state.write_lock = Some(me);
                    state.writers[me] = Writer::RenewsRow(named);
                })
            }
            Writer::RenewsRow(named) => steps.step("commits the renewed row", |state| {
                state.rows[me] = Some(named);
                state.write_lock = None;
                state.writers[me] = Writer::Adopts(named);
            }),
            Writer::Adopts(named) => steps.step("lets the old lock go", |state| {
                state.let_go(me);
                state.own[me] = Some(named);
                state.writers[me] = Writer::Works;
            }),
            Writer::Locked | Writer::Relocked(_) | Writer::Dead => {}
            rescue => self.rescue(me, rescue, steps),
        }
    }

    fn works(&self, me: usize, steps: &mut Steps<'_>) {
        let state = &self.state;
        let named = state.own[me].expect("it has joined");
        if state.directory[named.name] != Some(named.inode) {
            let early = self.is_broken(Break::DropsTheOldLockFirst);
            steps.step("finds its lock file gone and makes another", |state| {
                let renewed = state.make();
                if early {
                    state.let_go(me);
                }
                state.writers[me] = Writer::Remade(renewed);
            });
        }
        let free = state.write_lock.is_none();
        for of in (0..self.setup.processes).filter(|of| *of != me && state.rows[*of].is_some()) {
            if self.is_broken(Break::LooksOnce) {
                steps.step("reads another one's row beside the lock", |state| {
                    state.writers[me] = Writer::Reads { of, locked: false };
                });
            } else if free {
                steps.step("takes the write lock to rescue", |state| {
                    state.write_lock = Some(me);
                    state.writers[me] = Writer::Reads { of, locked: true };
                });
            }
        }
        if free && state.job == Row::Ready && state.workers[me] == Job::None && state.tokens[me] < 3
        {
            steps.step("commits a claim", |state| {
                let claim = (me, state.tokens[me]);
                state.tokens[me] += 1;
                state.job = Row::Claimed(claim);
                state.workers[me] = Job::Runs(claim);
            });
        }
        if free && let Job::Ended(claim) = state.workers[me] {
            self.records(me, claim, "commits its end", steps);
        }
        if free && let Some(claim) = state.late[me] {
            self.records(me, claim, "commits the end of an abandoned attempt", steps);
        }
    }

    fn records(&self, me: usize, claim: Claim, what: &'static str, steps: &mut Steps<'_>) {
        let any = self.is_broken(Break::FinishesWithoutToken);
        steps.step(what, |state| {
            if state.job == Row::Claimed(claim) || (any && matches!(state.job, Row::Claimed(_))) {
                if state.job != Row::Claimed(claim) {
                    state.bad = Some("a finish counts for another claim");
                }
                state.job = Row::Done;
            }
            if state.late[me] == Some(claim) {
                state.late[me] = None;
            } else {
                state.workers[me] = Job::None;
            }
        });
    }

    fn rescue(&self, me: usize, at: Writer, steps: &mut Steps<'_>) {
        let alive = |of: usize| self.state.writers[of] != Writer::Dead;
        match at {
            Writer::Reads { of, locked } => match self.state.rows[of] {
                None => steps.step("finds the row gone", |state| state.gives_up(me, locked)),
                Some(row) => steps.step("opens the other's lock file", |state| {
                    let file = state.directory[row.name];
                    state.writers[me] = Writer::Opened { of, locked, file, row };
                }),
            },
            Writer::Opened { of, locked, file, row } => {
                let skips = self.is_broken(Break::SkipsTheInode);
                steps.step("compares its inode with the row", |state| {
                    let same = skips || state.directory[row.name] == Some(row.inode);
                    let file = file.filter(|_| same);
                    state.writers[me] = Writer::Compared { of, locked, file };
                });
            }
            Writer::Compared { of, locked, file: Some(file) } => match self.state.held[file] {
                None => steps.step("gets the lock", |state| {
                    state.writers[me] = Writer::Proven { of, locked };
                }),
                Some(_) => steps.step("does not get the lock", |state| state.gives_up(me, locked)),
            },
            Writer::Compared { of, locked, file: None } => {
                let gone = (self.setup.same_space && !alive(of))
                    || self.is_broken(Break::TrustsAMissingFile);
                match gone {
                    true => steps.step("finds the process gone", |state| {
                        state.writers[me] = Writer::Proven { of, locked };
                    }),
                    false => steps.step("has no proof", |state| state.gives_up(me, locked)),
                }
            }
            Writer::Proven { of, locked: true } => {
                let early = self.is_broken(Break::ClearsTooEarly);
                steps.step("takes over", |state| {
                    if early && let Some(row) = state.rows[of] {
                        state.directory[row.name] = None;
                    }
                    state.writers[me] = Writer::TakesOver { of };
                });
            }
            Writer::Proven { of, locked: false } if self.state.write_lock.is_none() => {
                steps.step("takes the write lock and does not look again", |state| {
                    state.write_lock = Some(me);
                    state.writers[me] = Writer::TakesOver { of };
                });
            }
            Writer::TakesOver { of } => steps.step("commits the rescue", |state| {
                let row = state.rows[of].take();
                state.rescues[of] += 1;
                if matches!(state.job, Row::Claimed((holder, _)) if holder == of) {
                    state.job = Row::Ready;
                }
                state.write_lock = None;
                state.writers[me] = match row {
                    Some(row) => Writer::Clears { row },
                    None => Writer::Works,
                };
            }),
            Writer::Clears { row } => steps.step("clears the lock file away", |state| {
                // Unless another one stands under its name.
                if state.directory[row.name] == Some(row.inode) {
                    state.directory[row.name] = None;
                }
                state.writers[me] = Writer::Works;
            }),
            _ => {}
        }
    }

    fn worker(&self, me: usize, steps: &mut Steps<'_>) {
        if let Job::Runs(claim) = self.state.workers[me] {
            steps.step("ends its job", |state| state.workers[me] = Job::Ended(claim));
            let free = self.state.write_lock.is_none() && self.state.writers[me] == Writer::Works;
            if free && self.state.left[3] > 0 {
                steps.add("commits that its attempt is abandoned", true, |state| {
                    state.left[3] -= 1;
                    state.job = Row::Ready;
                    state.workers[me] = Job::None;
                    state.late[me] = Some(claim);
                });
            }
        }
    }

    fn dies(&self, me: usize, steps: &mut Steps<'_>) {
        if self.state.left[0] == 0 {
            return;
        }
        steps.add("dies", true, |state| {
            state.left[0] -= 1;
            for holder in &mut state.held {
                *holder = holder.filter(|holder| *holder != me);
            }
            state.write_lock = state.write_lock.filter(|holder| *holder != me);
            state.writers[me] = Writer::Dead;
            state.workers[me] = Job::None;
            state.late[me] = None;
        });
    }

    /// What people and strangers do to the lock file that a row names.
    fn others(&self, of: usize, steps: &mut Steps<'_>) {
        let Some(row) = self.state.rows[of] else { return };
        if self.state.left[1] > 0 && self.state.directory[row.name].is_some() {
            steps.add("has its lock file cleared away", true, |state| {
                state.left[1] -= 1;
                state.directory[row.name] = None;
            });
        }
        if self.state.left[2] > 0 && self.state.directory[row.name].is_none() {
            steps.add("has a stranger make a file of that name and die", true, |state| {
                state.left[2] -= 1;
                state.held.push(None);
                state.directory[row.name] = Some(state.held.len() - 1);
            });
        }
    }
}

impl State {
    /// A new file under a new name.
    fn make(&mut self) -> Named {
        self.held.push(None);
        let inode = self.held.len() - 1;
        self.directory.push(Some(inode));
        Named { name: self.directory.len() - 1, inode }
    }

    fn let_go(&mut self, me: usize) {
        if let Some(old) = self.own[me] {
            self.held[old.inode] = None;
        }
    }

    fn gives_up(&mut self, me: usize, locked: bool) {
        if locked {
            self.write_lock = None;
        }
        self.writers[me] = Writer::Works;
    }
}

#[test]
fn a_dead_process_is_rescued_once_and_a_living_one_never() {
    assert_holds(QUIET.start());
    assert_holds(Setup { processes: 3, ..QUIET }.start());
}

#[test]
fn rescuers_may_die_too() {
    assert_holds(Setup { processes: 3, deaths: 2, ..QUIET }.start());
}

#[test]
fn a_process_that_is_hidden_from_the_others_is_rescued_by_its_lock_alone() {
    assert_holds(Setup { same_space: false, deaths: 2, ..QUIET }.start());
}

#[test]
fn clearing_lock_files_away_kills_nobody_and_saves_no_dead() {
    assert_holds(Setup { cleared: 2, ..QUIET }.start());
    assert_holds(Setup { cleared: 1, strangers: 1, deaths: 1, ..QUIET }.start());
}

#[test]
fn a_late_end_of_an_abandoned_attempt_changes_nothing() {
    assert_holds(Setup { abandons: 1, ..QUIET }.start());
}

fn broken(setup: Setup, broken: Break) -> Processes {
    Setup { broken: Some(broken), ..setup }.start()
}

#[test]
fn the_explorer_finds_the_living_rescued_if_the_inode_is_not_compared() {
    let setup = Setup { cleared: 1, strangers: 1, deaths: 0, ..QUIET };
    assert_found(broken(setup, Break::SkipsTheInode), "lives and has lost its");
}

#[test]
fn the_explorer_finds_the_living_rescued_if_a_missing_file_is_trusted() {
    let setup = Setup { cleared: 1, deaths: 0, ..QUIET };
    assert_found(broken(setup, Break::TrustsAMissingFile), "lives and has lost its");
}

#[test]
fn the_explorer_finds_the_second_rescue_if_nobody_looks_again_under_the_lock() {
    let setup = Setup { processes: 3, ..QUIET };
    assert_found(broken(setup, Break::LooksOnce), "rescued twice");
}

#[test]
fn the_explorer_finds_the_living_buried_if_the_row_comes_before_the_lock() {
    let setup = Setup { deaths: 0, ..QUIET };
    assert_found(broken(setup, Break::JoinsBeforeLocking), "lives and has lost its");
}

#[test]
fn the_explorer_finds_the_living_rescued_if_the_old_lock_is_let_go_too_early() {
    let setup = Setup { cleared: 1, deaths: 0, ..QUIET };
    assert_found(broken(setup, Break::DropsTheOldLockFirst), "lives and has lost its");
}

#[test]
fn the_explorer_finds_the_dead_that_nobody_can_prove_if_the_lock_file_goes_before_the_commit() {
    let setup = Setup { processes: 3, deaths: 2, same_space: false, ..QUIET };
    assert_found(broken(setup, Break::ClearsTooEarly), "cannot settle");
}

#[test]
fn the_explorer_finds_the_finish_that_counts_for_another_claim_without_its_token() {
    let setup = Setup { abandons: 1, deaths: 0, ..QUIET };
    assert_found(broken(setup, Break::FinishesWithoutToken), "for another claim");
}
