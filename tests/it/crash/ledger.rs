//! The ledger: what the children write, and what of it must not be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::common::say;

pub(super) struct Ledger(File);

impl Ledger {
    pub(super) fn of(db: &Path) -> Ledger {
        Ledger(OpenOptions::new().create(true).append(true).open(Ledger::path(db)).unwrap())
    }

    pub(super) fn path(db: &Path) -> PathBuf {
        db.with_extension("ledger")
    }

    pub(super) fn write(&self, lines: &str) {
        let written = (&self.0).write(format!("{lines}\n").as_bytes()).unwrap();
        assert_eq!(written, lines.len() + 1);
    }

    /// Writes to the ledger, then tells the parent that there is news.
    pub(super) fn write_and_say(&self, lines: &str) {
        self.write(lines);
        say(lines);
    }
}

/// A start of a job, as the ledger has it.
struct Start {
    line: usize,
    attempt: u32,
    process: u32,
    told_to_fail: bool,
    /// Its end was told as recorded.
    recorded: bool,
}

/// What the ledger tells.
#[derive(Default)]
pub(super) struct Account {
    pub(super) acked: BTreeSet<i64>,
    pub(super) ended: BTreeSet<i64>,
    killed: BTreeSet<u32>,
    starts: BTreeMap<i64, Vec<Start>>,
    /// Where each process wrote last.
    last_word: HashMap<u32, usize>,
}

impl Account {
    pub(super) fn of(ledger: &str) -> Account {
        let mut account = Account::default();
        for (at, line) in ledger.lines().enumerate() {
            account.line(at, line);
        }
        account
    }

    fn line(&mut self, at: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let process = words[1].parse().unwrap();
        let id = || words[2].parse::<i64>().unwrap();
        if words[0] == "killed" {
            self.killed.insert(process);
            return;
        }
        self.last_word.insert(process, at);
        match words[0] {
            "acked" => assert!(self.acked.insert(id()), "{line}: an id was given twice"),
            "end" => drop(self.ended.insert(id())),
            "fail" => {
                let start = self.starts.get_mut(&id()).and_then(|starts| starts.last_mut());
                start.unwrap().told_to_fail = true;
            }
            "recorded" => {
                let starts = self.starts.get_mut(&id()).unwrap();
                // The retry may have been started before it was told.
                let attempt: Option<u32> = words.get(3).map(|attempt| attempt.parse().unwrap());
                let own = starts.iter_mut().rev().find(|start| {
                    start.process == process
                        && attempt.is_none_or(|attempt| attempt == start.attempt)
                });
                own.unwrap().recorded = true;
            }
            "start" => {
                let attempt = words[3].parse().unwrap();
                let start =
                    Start { line: at, attempt, process, told_to_fail: false, recorded: false };
                self.starts.entry(id()).or_default().push(start);
            }
            _ => panic!("{line}: no line of the ledger"),
        }
    }

    /// Whether `next` may follow `start`: because it failed as told, or because it was cut off.
    fn is_explained(&self, start: &Start, next: &Start) -> bool {
        let failed = start.told_to_fail && next.attempt == start.attempt + 1;
        failed || (self.was_cut_off(start, next) && next.attempt == start.attempt)
    }

    /// Whether the process of `start` was killed, had said its last word before `next`, and had not
    /// told that the end of `start` was recorded.
    fn was_cut_off(&self, start: &Start, next: &Start) -> bool {
        self.killed.contains(&start.process)
            && self.last_word[&start.process] < next.line
            && !start.recorded
    }

    /// Starts that nothing explains.
    pub(super) fn unexplained(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, starts) in &self.starts {
            if starts[0].attempt != 1 {
                found.push(format!("job {id} began with attempt {}", starts[0].attempt));
            }
            for pair in starts.windows(2).filter(|pair| !self.is_explained(&pair[0], &pair[1])) {
                let (line, next) = (pair[0].line + 1, pair[1].line + 1);
                found.push(format!("job {id}, started in lines {line} and {next}"));
            }
        }
        found
    }

    /// How often a job was started again because its process was killed.
    pub(super) fn started_again(&self) -> usize {
        let pairs = self.starts.values().flat_map(|starts| starts.windows(2));
        pairs.filter(|pair| pair[0].attempt == pair[1].attempt).count()
    }
}

#[test]
fn the_account_finds_what_must_not_happen() {
    for (ledger, found) in [
        // Started twice in one process; taken from a living one; from one that dies later.
        ("start 7 1 1|start 7 1 1", true),
        ("start 7 1 1|start 8 1 1|end 7 1", true),
        ("start 7 1 1|start 8 1 1|end 7 1|killed 7", true),
        // Its end had been recorded.
        ("start 7 1 1|end 7 1|recorded 7 1|killed 7|start 8 1 1", true),
        // Nobody told it to fail; the kill has used up an attempt.
        ("start 7 1 1|start 7 1 2", true),
        ("start 7 1 1|killed 7|start 8 1 2", true),
        ("start 7 1 1|killed 7|start 8 1 1", false),
        ("start 7 1 1|end 7 1|killed 7|start 8 1 1", false),
        ("start 7 1 1|start 8 1 1|killed 7", false),
        ("start 7 1 1|fail 7 1|start 8 1 2", false),
        ("start 7 1 1|fail 7 1|killed 7|start 8 1 1|fail 8 1|start 8 1 2", false),
    ] {
        let account = Account::of(&ledger.replace('|', "\n"));
        assert_eq!(!account.unexplained().is_empty(), found, "{ledger}");
    }
    let account = Account::of("acked 7 1\nacked 7 2\nend 7 1");
    assert_eq!(account.acked.difference(&account.ended).collect::<Vec<_>>(), [&2]);
}
