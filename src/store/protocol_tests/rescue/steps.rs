//! The steps out of a state: of a writer at work, as it renews and as it rescues, of a worker, and of people.

use super::super::{Next, Step};
use super::{Break, Claim, Job, Processes, Row, State, Writer};

pub(super) struct Steps<'a> {
    pub(super) from: &'a Processes,
    pub(super) next: &'a mut Vec<Next<Processes>>,
    pub(super) process: usize,
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

impl Processes {
    fn is_broken(&self, broken: Break) -> bool {
        self.setup.broken == Some(broken)
    }

    pub(super) fn writer(&self, me: usize, steps: &mut Steps<'_>) {
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

    pub(super) fn worker(&self, me: usize, steps: &mut Steps<'_>) {
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

    pub(super) fn dies(&self, me: usize, steps: &mut Steps<'_>) {
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
    pub(super) fn others(&self, of: usize, steps: &mut Steps<'_>) {
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
