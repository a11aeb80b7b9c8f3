//! The power is cut at every write boundary of a recorded run.
//!
//! A process lives under strace ([`life`]); its writes, syncs and acknowledgements are read from the
//! log ([`recording`]) and replayed against a disk that keeps what was synced and a random part of
//! the rest ([`disk`]). What it leaves is opened and compared with what was acknowledged
//! ([`account`]).
//!
//! `LEGWORK_POWER_CUTS` is the number of states at the default level; if it is not set there is one for
//! each boundary, and 5,000 at least. The other levels get 3 for each 20 of them. `LEGWORK_POWER_SEED` repeats the choices of a run, but the
//! recorded process goes its own way each time: what was found wrong is kept as an image.

mod account;
mod disk;
mod life;
mod recording;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fastrand::Rng;
use legwork::Durability;
use tempfile::TempDir;

use self::account::{Account, Verdict};
use self::disk::{Disk, Image};
use self::life::Life;
use self::recording::{Call, Event, FILES, Recording, WAL};
use crate::common::{self, Child, place};

#[test]
#[ignore = "child process of the power cuts"]
fn child() {
    let Some(file) = common::child_file() else { return };
    Life::from_role(&common::child_role()).live(&file);
}

/// Lets a child live under strace; `None` if there is no strace here.
fn record(life: Life) -> Option<Recording> {
    if !common::has_strace() {
        return None;
    }
    let place = place();
    let log = place.dir.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "70000", "-e", recording::CALLS, "-o"]).arg(&log);
    Child::start_under(strace, "power_cut::child", &place.path, &life.role()).end();
    let recording = Recording::read(&log, &place.path);
    recorded_whole(&recording, &place.path);
    Some(recording)
}

/// All that changed the files was seen: replayed to its end it makes them as they are.
fn recorded_whole(recording: &Recording, database: &Path) {
    let mut disk = Disk::new(recording);
    recording.events.iter().for_each(|event| disk.apply(event));
    let image = disk.as_it_is();
    for (suffix, replayed) in FILES.iter().zip(image) {
        let file = std::fs::read(beside(database, suffix)).ok();
        assert!(file == replayed, "the recording of {suffix:?} is not whole");
    }
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Cuts in one recording.
struct Cuts {
    states: usize,
    seed: u64,
    /// Which syncs the disk carries out.
    honours: fn(&Call) -> bool,
    /// What must hold; `None`: it is only counted.
    promised: Option<Durability>,
}

/// How a number of states turned out: in how many something was lost.
#[derive(Default, Debug)]
struct Outcome {
    states: usize,
    lost: usize,
    undone: usize,
    forgotten: usize,
    unfinished: usize,
    broken: usize,
    /// The first that break the promise; one image is kept.
    wrong: Vec<String>,
}

impl Outcome {
    fn add(&mut self, verdict: &Verdict) {
        self.states += 1;
        self.lost += usize::from(!verdict.lost.is_empty());
        self.undone += usize::from(!verdict.undone.is_empty());
        self.forgotten += usize::from(!verdict.forgotten.is_empty());
        self.unfinished += usize::from(!verdict.unfinished.is_empty());
        self.broken += usize::from(!verdict.broken.is_empty());
    }

    fn wrong(&mut self, image: &Image, what: String) {
        if self.wrong.is_empty() {
            let kept = tempfile::Builder::new().prefix("legwork-power-cut-").tempdir().unwrap();
            write(image, &kept.path().join("test.db"));
            eprintln!("the image is kept in {}", kept.keep().display());
        }
        if self.wrong.len() < 5 {
            self.wrong.push(what);
        }
    }
}

fn seed() -> u64 {
    let seed = std::env::var("LEGWORK_POWER_SEED").map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|_| fastrand::u64(..));
    eprintln!("seed {seed}");
    seed
}

/// The number of states that was asked for.
fn asked() -> Option<usize> {
    std::env::var("LEGWORK_POWER_CUTS").ok().map(|states| states.parse().unwrap())
}

/// The share of the levels that are not the default.
fn fewer() -> Option<usize> {
    Some(asked().unwrap_or(5000) * 3 / 20)
}

/// In memory if the machine has such a place: nothing here needs a real disk any more.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

impl Cuts {
    fn of(&self, recording: &Recording) -> Outcome {
        let cuts = choose(recording, self.states);
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let next = AtomicUsize::new(0);
        let outcome = Mutex::new(Outcome::default());
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.replay(recording, &cuts, &next, &outcome));
            }
        });
        let outcome = outcome.into_inner().unwrap();
        eprintln!("{:?} for {outcome:?}", started.elapsed());
        outcome
    }

    /// Replays the whole recording and takes the cuts that no other thread has taken.
    fn replay(
        &self,
        recording: &Recording,
        cuts: &[usize],
        next: &AtomicUsize,
        outcome: &Mutex<Outcome>,
    ) {
        let scratch = scratch();
        let database = scratch.path().join("test.db");
        let mut disk = Disk::that_honours(recording, self.honours);
        let mut account = Account::default();
        let mut applied = 0;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&cut) = cuts.get(number) else { return };
            for event in &recording.events[applied..=cut] {
                disk.apply(event);
                if let Event::Mark(mark) = event {
                    account.note(mark);
                }
            }
            applied = cut + 1;
            let seed = self.seed.wrapping_add(number as u64);
            let image = disk.cut(&mut Rng::with_seed(seed));
            write(&image, &database);
            let verdict = account.check(&database);
            let mut outcome = outcome.lock().unwrap();
            outcome.add(&verdict);
            if self.promised.is_some_and(|level| verdict.breaks(level)) {
                let what = format!("after event {cut} of the recording, seed {seed}: {verdict:?}");
                outcome.wrong(&image, what);
            }
        }
    }
}

/// The events after which something else may be found, or has to be.
fn boundaries(recording: &Recording) -> Vec<usize> {
    let matters = |event: &Event| match event {
        Event::Issued(_) | Event::Mark(_) => true,
        Event::Returned(call) => is_sync(&recording.calls[*call]),
    };
    let events = recording.events.iter().enumerate();
    events.filter(|(_, event)| matters(event)).map(|(at, _)| at).collect()
}

/// The events after which the power is cut. Each boundary at least once; if there are more of them
/// than `states`, first those beside a sync or an acknowledgement, and the others spread evenly.
fn choose(recording: &Recording, states: usize) -> Vec<usize> {
    let all = boundaries(recording);
    let telling = |event: &Event| match event {
        Event::Mark(_) => true,
        Event::Issued(call) | Event::Returned(call) => is_sync(&recording.calls[*call]),
    };
    let near = |at: usize| {
        let until = recording.events.len().min(at + 2);
        recording.events[at.saturating_sub(1)..until].iter().any(telling)
    };
    let spread = |from: &[usize], number: usize| {
        (0..number).map(|state| from[state * from.len() / number]).collect::<Vec<_>>()
    };
    let mut chosen = if all.len() <= states {
        spread(&all, states)
    } else {
        let (near, far): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&at| near(at));
        let first = states.min(near.len());
        [spread(&near, first), spread(&far, states - first)].concat()
    };
    chosen.sort_unstable();
    chosen
}

fn is_sync(call: &Call) -> bool {
    matches!(call, Call::Sync(_) | Call::SyncDirectory)
}

/// Makes the files as in the image; the `-shm` is gone with the power.
fn write(image: &Image, database: &Path) {
    for (suffix, content) in FILES.iter().zip(image) {
        let path = beside(database, suffix);
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
    }
    drop(std::fs::remove_file(beside(database, "-shm")));
}

fn every_sync(_: &Call) -> bool {
    true
}

/// Cuts a run on a file that legwork has made, and one on a file of the app.
///
/// `None`: a state for each boundary, 5,000 at least.
fn cut_the_power(level: Durability, states: Option<usize>) -> Option<[Outcome; 2]> {
    let seed = seed();
    let cut = |new_file, work, share| {
        let recording = record(Life { level, new_file, work })?;
        let begun = begun(&recording);
        let boundaries = boundaries(&recording).len();
        eprintln!("{level:?}: {boundaries} boundaries, the WALs were begun {begun:?} times");
        assert!(
            new_file || begun.iter().all(|&times| times > 1),
            "they must begin anew: {begun:?}"
        );
        let states = states.map(|states| states * share / 100);
        let states = states.unwrap_or(boundaries.max(5000 * share / 100));
        Some(Cuts { states, seed, honours: every_sync, promised: Some(level) }.of(&recording))
    };
    let outcomes = [cut(true, 2, 25)?, cut(false, 26, 75)?];
    for outcome in &outcomes {
        assert!(outcome.wrong.is_empty(), "seed {seed}: {:#?}", outcome.wrong);
    }
    Some(outcomes)
}

/// How often each WAL was begun, from its creation to its removal.
fn begun(recording: &Recording) -> Vec<usize> {
    let mut begun = vec![0];
    for call in &recording.calls {
        match call {
            Call::Write { file: WAL, at: 0, .. } => *begun.last_mut().unwrap() += 1,
            Call::Remove(WAL) => begun.push(0),
            _ => {}
        }
    }
    assert_eq!(begun.pop(), Some(0), "the last session ends without a WAL");
    begun
}

#[test]
fn by_default_a_power_cut_at_any_write_loses_no_acknowledged_job_and_corrupts_nothing() {
    cut_the_power(Durability::Synced, asked());
}

#[test]
fn with_strict_a_power_cut_at_any_write_loses_no_finish_either() {
    cut_the_power(Durability::Strict, fewer());
}

#[test]
fn with_relaxed_power_cuts_lose_acknowledged_jobs_and_corrupt_nothing() {
    let Some(outcomes) = cut_the_power(Durability::Relaxed, fewer()) else { return };
    let forgotten: usize = outcomes.iter().map(|outcome| outcome.forgotten).sum();
    assert!(forgotten > 0, "the harness sees no lost step where there must be some: {outcomes:?}");
    for outcome in outcomes {
        assert!(outcome.lost > 0, "the harness sees no loss where there must be some: {outcome:?}");
    }
}

#[test]
fn without_its_syncs_the_same_run_would_lose_acknowledged_jobs() {
    let life = Life { level: Durability::Synced, new_file: false, work: 8 };
    let Some(recording) = record(life) else { return };
    let wal_not = |call: &Call| *call != Call::Sync(WAL);
    let cuts = |honours| Cuts { states: 200, seed: seed(), honours, promised: None };
    let without = cuts(wal_not).of(&recording);
    assert!(without.lost > 0, "{without:?}");
    let with = cuts(every_sync).of(&recording);
    let kept = (with.lost, with.undone, with.forgotten, with.broken);
    assert_eq!(kept, (0, 0, 0, 0), "{with:?}");
}

/// Each round lives anew.
#[test]
#[ignore = "soak: minutes"]
fn soak_of_power_cuts_loses_no_acknowledged_job() {
    let mut left = asked().unwrap_or(100_000);
    while left > 0 {
        let round = left.min(10_000);
        cut_the_power(Durability::Synced, Some(round));
        left -= round;
    }
}
