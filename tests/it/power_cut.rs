//! The power is cut at every write boundary of a recorded run.
//!
//! A process lives under strace ([`life`]); its writes, syncs and acknowledgements are read from the
//! log ([`recording`]) and replayed against a disk that keeps what was synced and a random part of
//! the rest ([`disk`]). What it leaves is opened and compared with what was acknowledged
//! ([`account`]).
//!
//! `LEGWORK_POWER_CUTS` is the number of states at the default level, 5,000 if it is not set.
//! `LEGWORK_POWER_SEED` repeats the choices of a run; the recorded process has its own order each time.

mod account;
mod disk;
mod life;
mod recording;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use legwork::Durability;
use tempfile::TempDir;

use self::account::{Account, Verdict};
use self::disk::{Disk, Image};
use self::life::Life;
use self::recording::{Call, DATABASE, Event, FILES, Recording, WAL};
use crate::common::{self, Child, place};

#[test]
#[ignore = "child process of the power cuts"]
fn child() {
    let Some(file) = common::child_file() else { return };
    Life::from_role(&common::child_role()).live(&file);
}

/// Lets a child live under strace; `None` if there is no strace here.
fn record(life: Life) -> Option<Recording> {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if found.is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must have strace");
        println!("skipped: there is no strace here");
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
    honours: fn(&Call) -> bool,
}

/// How a number of states turned out.
#[derive(Default, Debug)]
struct Outcome {
    states: usize,
    lost: usize,
    lost_of_app: usize,
    undone: usize,
    unfinished: usize,
    broken: usize,
    /// The first of the worst.
    examples: Vec<String>,
}

impl Outcome {
    fn add(&mut self, cut: usize, seed: u64, verdict: &Verdict) {
        self.states += 1;
        self.lost += usize::from(!verdict.lost.is_empty());
        self.lost_of_app += usize::from(!verdict.lost_of_app.is_empty());
        self.undone += usize::from(!verdict.undone.is_empty());
        self.unfinished += usize::from(!verdict.unfinished.is_empty());
        self.broken += usize::from(!verdict.broken.is_empty());
        if *verdict != Verdict::default() && self.examples.len() < 5 {
            self.examples.push(format!("after event {cut} with seed {seed}: {verdict:?}"));
        }
    }
}

fn seed() -> u64 {
    let seed = std::env::var("LEGWORK_POWER_SEED").map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|_| fastrand::u64(..));
    eprintln!("seed {seed}");
    seed
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
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.replay(recording, &cuts, &next, &outcome));
            }
        });
        outcome.into_inner().unwrap()
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
            outcome.lock().unwrap().add(cut, seed, &verdict);
        }
    }
}

/// The events after which the power is cut: all that change what may be found; if there are more
/// than `states`, first those beside a sync or an acknowledgement and the others spread evenly; if
/// there are fewer, again and again.
fn choose(recording: &Recording, states: usize) -> Vec<usize> {
    let events = &recording.events;
    let matters = |at: usize| match &events[at] {
        Event::Issued(_) | Event::Mark(_) => true,
        Event::Returned(call) => is_sync(&recording.calls[*call]),
    };
    let telling = |at: usize| match &events[at] {
        Event::Mark(_) => true,
        Event::Issued(call) | Event::Returned(call) => is_sync(&recording.calls[*call]),
    };
    let all: Vec<usize> = (0..events.len()).filter(|&at| matters(at)).collect();
    let near = |at: usize| (at.saturating_sub(1)..events.len().min(at + 2)).any(telling);
    let (near, far): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&at| near(at));
    let mut chosen: Vec<usize> = if all.len() <= states {
        (0..states).map(|state| all[state * all.len() / states]).collect()
    } else {
        let left = states.saturating_sub(near.len());
        let spread = |from: &[usize], number: usize| {
            (0..number).map(|state| from[state * from.len() / number]).collect::<Vec<_>>()
        };
        [spread(&near, states - left), spread(&far, left)].concat()
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

fn honest(_: &Call) -> bool {
    true
}

/// A file that legwork makes, and one that the app has made.
fn cut_the_power(level: Durability, states: usize) -> Option<Outcome> {
    let seed = seed();
    let mut total = Outcome::default();
    for (new_file, work, states) in
        [(true, 10, states * 3 / 10), (false, 40, states - states * 3 / 10)]
    {
        let recording = record(Life { level, new_file, work })?;
        let started = std::time::Instant::now();
        let outcome = Cuts { states, seed, honours: honest }.of(&recording);
        eprintln!("{} calls, {:?}, {:?}", recording.calls.len(), outcome, started.elapsed());
        total.states += outcome.states;
    }
    Some(total)
}

#[test]
fn by_default_a_power_cut_at_any_write_loses_no_acknowledged_job_and_corrupts_nothing() {
    cut_the_power(Durability::Synced, 1000);
    cut_the_power(Durability::Strict, 1000);
    cut_the_power(Durability::Relaxed, 1000);
}
