//! The rescue protocol: what a dead process held is given back once, what a living one holds never.
//!
//! Two or three processes share one job. Each has a writer, which claims, records, renews its lock
//! file and rescues, one after the other, and a worker. Any of them may die between any two steps;
//! somebody may clear lock files away; a stranger from another space of process ids may make a file
//! of the same name; an attempt may be abandoned, so that its end comes late.

mod steps;

use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;

use self::steps::Steps;
use super::{Model, Next, assert_found, assert_holds};

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
