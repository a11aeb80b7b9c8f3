//! A job that kills its process is quarantined, and those beside it are not blamed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use legwork::{
    Clock, Context, Engine, EngineBuilder, Event, Failure, Filter, Job, JobId, JobOptions,
    JobRecord, JobResult, Jobs, ManualEngine, Outcome, Pool, Retry, State,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::common::{self, Child, Place, SOON, place, say, wait_for};

// ---- what the jobs do ------------------------------------------------------------------------

/// Works for a moment, then ends like this.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Deed {
    ms: u64,
    then: Then,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Then {
    Done,
    Fail,
    Panic,
    Snooze,
    /// Takes the process with it, where that is allowed.
    Abort,
}

/// How the jobs of an engine behave.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Manners {
    /// None of them ends before it is told to.
    hold: bool,
    /// Those that abort do not.
    harmless: bool,
}

impl Job for Deed {
    const KIND: &'static str = "deed";
    type State = Manners;

    fn options() -> JobOptions {
        // Longer than any test.
        JobOptions::new().retry(Retry::fixed(Duration::from_secs(3600)))
    }

    fn perform(&self, cx: &Context<Manners>) -> JobResult {
        let id = cx.id();
        if cx.state().hold {
            say(&format!("holding {id}"));
            cx.wait(SOON)?;
        }
        say(&format!("start {id}"));
        cx.wait(Duration::from_millis(self.ms))?;
        match self.then {
            Then::Fail => return Err(Failure::msg("told to")),
            // Without the hook, which would print it.
            Then::Panic => std::panic::resume_unwind(Box::new("told to")),
            Then::Abort if !cx.state().harmless => std::process::abort(),
            Then::Abort | Then::Done | Then::Snooze => {}
        }
        say(&format!("end {id}"));
        match self.then {
            Then::Snooze => Ok(Outcome::snooze(Duration::from_millis(1))),
            _ => Ok(Outcome::Done),
        }
    }
}

fn deed(ms: u64, then: Then) -> Deed {
    Deed { ms, then }
}

fn engine(jobs: &Jobs, manners: Manners) -> EngineBuilder {
    Engine::builder(jobs).register_with::<Deed>(manners).pool(Pool::new(["*"]).workers(4))
}

// ---- the child -------------------------------------------------------------------------------

/// A process that runs jobs.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Process {
    manners: Manners,
    engines: usize,
    /// `None`: the default.
    crash_limit: Option<u32>,
    /// What its clock is ahead.
    minutes: i64,
    /// Lives until it is killed; otherwise until nothing is left to run.
    stays: bool,
}

const PLAIN: Process = Process {
    manners: Manners { hold: false, harmless: false },
    engines: 1,
    crash_limit: None,
    minutes: 0,
    stays: false,
};

impl Process {
    fn start(&self, place: &Place) -> Child {
        let role = serde_json::to_string(self).unwrap();
        Child::start("suspects::child", &place.path, &role)
    }

    /// Runs it until it ends by itself; whether it lived to see its jobs done.
    fn run(&self, place: &Place) -> bool {
        self.start(place).end_somehow().1
    }
}

#[test]
#[ignore = "child process of the tests about suspects"]
fn child() {
    let Some(db) = common::child_file() else {
        return;
    };
    let process: Process = serde_json::from_str(&common::child_role()).unwrap();
    let ahead = time::Duration::minutes(process.minutes);
    let clock = Clock::from_fn(move || OffsetDateTime::now_utc() + ahead);
    let jobs = Jobs::builder(&db).clock(clock).open().unwrap();
    let start = |_| {
        let builder = engine(&jobs, process.manners);
        let builder = match process.crash_limit {
            Some(limit) => builder.crash_limit(limit),
            None => builder,
        };
        builder.start().unwrap()
    };
    let engines: Vec<Engine> = (0..process.engines).map(start).collect();
    say("started");
    if process.stays {
        io::stdin().read_line(&mut String::new()).unwrap();
    }
    for engine in &engines {
        engine.run_until_empty().unwrap();
    }
    for engine in &engines {
        engine.stop(SOON).unwrap();
    }
}

const HOLDING: Process =
    Process { manners: Manners { hold: true, harmless: false }, stays: true, ..PLAIN };
const HARMLESS: Process = Process { manners: Manners { hold: false, harmless: true }, ..PLAIN };

/// Kills a process in the middle of these jobs, beside those that it finds.
fn cut_off(place: &Place, deeds: &[Deed]) -> Vec<JobId> {
    let jobs = place.open();
    let ids = jobs.enqueue_many(deeds.iter().copied()).unwrap();
    let child = HOLDING.start(place);
    for _ in 0..jobs.count(&Filter::new()).unwrap() {
        child.wait_for("holding");
    }
    child.kill();
    ids
}

fn crashes(jobs: &Jobs, ids: &[JobId]) -> Vec<Option<u32>> {
    ids.iter().map(|&id| jobs.get(id).unwrap().crashes).collect()
}

fn manual(jobs: &Jobs) -> ManualEngine {
    engine(jobs, Manners::default()).manual().unwrap()
}

/// Attempts of a job that were used up, and those that were cut off.
fn attempts(jobs: &Jobs, id: JobId) -> (usize, usize) {
    let all = jobs.attempts(id).unwrap();
    let counted = all.iter().filter(|attempt| attempt.counted).count();
    (counted, all.len() - counted)
}

// ---- the promises ----------------------------------------------------------------------------

/// Completed by one attempt, whatever happened beside it.
fn assert_unblamed(jobs: &Jobs, id: JobId) {
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.attempts, job.crashes), (State::Completed, 1, None), "{job:?}");
    assert_eq!(attempts(jobs, id).0, 0, "{job:?}");
}

#[test]
fn a_job_that_aborts_its_process_is_quarantined_while_its_fifty_neighbours_finish_unblamed() {
    let place = place();
    let jobs = place.open();
    let some = || (0..25).map(|_| deed(3, Then::Done));
    let mut neighbours = jobs.enqueue_many(some()).unwrap();
    let killer = jobs.enqueue(deed(1, Then::Abort)).unwrap();
    neighbours.extend(jobs.enqueue_many(some()).unwrap());

    let mut deaths = 0;
    while !PLAIN.run(&place) {
        deaths += 1;
        assert!(deaths < 10, "quarantined at last");
        for job in neighbours.iter().map(|&id| jobs.get(id).unwrap()) {
            assert!(job.crashes.is_none_or(|deaths| deaths == 0), "blamed: {job:?}");
        }
    }
    assert_eq!(deaths, 4, "one among the others, three under suspicion");
    neighbours.iter().for_each(|&id| assert_unblamed(&jobs, id));
    let cut_off: usize = neighbours.iter().map(|&id| attempts(&jobs, id).1).sum();
    assert!(cut_off > 0, "nobody ran beside it, and nothing was tested");

    let job = jobs.get(killer).unwrap();
    assert_eq!((job.state, job.attempts, job.crashes), (State::Failed, 0, None));
    let reason = job.reason.unwrap();
    assert_eq!(reason, "quarantined: its process died 3 times within 72 h while it ran");
    assert_eq!(attempts(&jobs, killer), (0, 4), "a death uses up no attempt");

    // It can be run again by hand, and then starts anew.
    jobs.retry(killer).unwrap();
    assert!(!PLAIN.run(&place));
    assert!(!PLAIN.run(&place));
    assert_eq!(jobs.get(killer).unwrap().crashes, Some(0));
    assert!(HARMLESS.run(&place));
    assert_unblamed(&jobs, killer);
}

#[test]
fn a_quarantine_is_told_and_wakes_whoever_waits_for_the_job() {
    let place = place();
    let limit = Process { crash_limit: Some(1), ..PLAIN };
    let jobs = place.open();
    let killer = jobs.enqueue(deed(0, Then::Abort)).unwrap();
    assert!(!limit.run(&place));
    assert!(!limit.run(&place));
    let events = jobs.events();
    let waiting = jobs.clone();
    let waiter = std::thread::spawn(move || waiting.wait(killer, SOON).unwrap());
    let engine = engine(&jobs, HARMLESS.manners).crash_limit(1).start().unwrap();
    let told = wait_for(&events, |event| matches!(event, Event::Quarantined { .. }));
    let Event::Quarantined { id, kind, deaths, reason } = told else { unreachable!() };
    assert_eq!((id, kind.as_str(), deaths), (killer, Deed::KIND, 1));
    assert_eq!(waiter.join().unwrap().reason, Some(reason));
    engine.stop(SOON).unwrap();
}

/// Lines about who ran beside whom.
struct Overlap {
    most_suspects: usize,
    suspect_beside_another: bool,
    ended: BTreeSet<JobId>,
}

fn overlap(lines: &[String], suspects: &[JobId]) -> Overlap {
    let mut running = BTreeSet::new();
    let mut seen =
        Overlap { most_suspects: 0, suspect_beside_another: false, ended: BTreeSet::new() };
    for line in lines {
        let Some((word, id)) = line.split_once(' ') else { continue };
        let Ok(id) = id.parse::<JobId>() else { continue };
        match word {
            "start" => drop(running.insert(id)),
            "end" => {
                running.remove(&id);
                seen.ended.insert(id);
            }
            _ => continue,
        }
        let now = running.iter().filter(|id| suspects.contains(id)).count();
        seen.most_suspects = seen.most_suspects.max(now);
        seen.suspect_beside_another |= now > 0 && running.len() > now;
    }
    seen
}

#[test]
fn a_suspect_never_runs_beside_another_one_of_its_process_but_beside_all_others() {
    for engines in [1, 2] {
        let place = place();
        let suspects = cut_off(&place, &[deed(15, Then::Done); 4]);
        let others = place.open().enqueue_many([deed(15, Then::Done); 12]).unwrap();
        let lines = Process { engines, ..PLAIN }.start(&place).end();
        let seen = overlap(&lines, &suspects);
        assert_eq!(seen.most_suspects, 1, "{engines} engines: {lines:?}");
        assert!(seen.suspect_beside_another, "{engines} engines: {lines:?}");
        assert_eq!(seen.ended.len(), suspects.len() + others.len());
    }
}

#[test]
fn an_attempt_that_ends_clears_a_suspect_and_a_panic_is_no_crash() {
    let place = place();
    let ends = [Then::Fail, Then::Panic, Then::Snooze, Then::Done];
    let ids = cut_off(&place, &ends.map(|then| deed(0, then)));
    let jobs = place.open();
    let engine = manual(&jobs);
    assert_eq!(crashes(&jobs, &ids), [Some(0); 4]);
    for at in 0..ids.len() {
        assert_eq!(engine.run_one().unwrap(), Some(ids[at]));
        let cleared: Vec<_> = (0..4).map(|other| (other > at).then_some(0)).collect();
        assert_eq!(crashes(&jobs, &ids), cleared);
    }
    let panicked = jobs.get(ids[1]).unwrap();
    assert_eq!((panicked.state, panicked.attempts), (State::Retrying, 1));
}

#[test]
fn with_a_crash_limit_of_0_nobody_is_suspected_however_often_a_process_dies() {
    let place = place();
    let jobs = place.open();
    let killer = jobs.enqueue(deed(0, Then::Abort)).unwrap();
    let never = Process { crash_limit: Some(0), ..PLAIN };
    for _ in 0..6 {
        assert!(!never.run(&place));
        assert_eq!(jobs.get(killer).unwrap().crashes, None);
    }
    assert!(Process { crash_limit: Some(0), ..HARMLESS }.run(&place));
    assert_unblamed(&jobs, killer);
    assert_eq!(attempts(&jobs, killer), (0, 6));
}

#[test]
fn deaths_older_than_72_hours_do_not_count() {
    let place = place();
    let jobs = place.open();
    let killer = jobs.enqueue(deed(0, Then::Abort)).unwrap();
    // Hours ahead, and the deaths that count once the process has taken over.
    let lives = [(0, None), (1, Some(0)), (2, Some(1)), (3, Some(2)), (76, Some(1)), (77, Some(2))];
    for (hours, counted) in lives {
        assert!(!Process { minutes: hours * 60, ..PLAIN }.run(&place));
        assert_eq!(jobs.get(killer).unwrap().crashes, counted, "after {hours} h");
    }
    assert!(Process { minutes: 77 * 60, ..PLAIN }.run(&place));
    assert_eq!(jobs.get(killer).unwrap().state, State::Failed);
}

#[test]
fn the_jobs_of_a_stopped_engine_are_no_suspects() {
    let place = place();
    let jobs = place.open();
    let engine = engine(&jobs, Manners { hold: true, harmless: false }).start().unwrap();
    let events = jobs.events();
    let id = jobs.enqueue(deed(0, Then::Done)).unwrap();
    wait_for(&events, |event| matches!(event, Event::Started { .. }));
    engine.stop(Duration::ZERO).unwrap();
    drop(engine);
    let again = manual(&jobs);
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.crashes), (State::Ready, None));
    assert_eq!(again.run_one().unwrap(), Some(id));
    assert_unblamed(&jobs, id);
}

#[test]
fn a_restart_of_the_machine_makes_no_suspects_and_is_not_counted() {
    let place = place();
    let ids = cut_off(&place, &[deed(0, Then::Done)]);
    // That one, a suspect now, is cut off once more, and another one beside it.
    let others = cut_off(&place, &[deed(0, Then::Done)]);
    place.connect().execute("UPDATE legwork_instances SET boot_id = 'earlier'", []).unwrap();
    let jobs = place.open();
    let _engine = manual(&jobs);
    assert_eq!(crashes(&jobs, &ids), [Some(0)]);
    assert_eq!(crashes(&jobs, &others), [None]);
    assert_eq!(attempts(&jobs, ids[0]), (0, 2));
}

// ---- random kills ----------------------------------------------------------------------------

const JOBS: usize = 8;

fn rounds() -> usize {
    std::env::var("LEGWORK_SUSPECT_ROUNDS").map_or(300, |rounds| rounds.parse().unwrap())
}

/// Until every job has ended twice in this process: the first of these ends is in the file.
fn until_all_have_run(child: &Child) {
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    let started = Instant::now();
    while ended.len() < JOBS || ended.values().any(|&times| times < 2) {
        assert!(started.elapsed() < SOON, "not all run: {ended:?}");
        *ended.entry(child.wait_for("end")).or_default() += 1;
    }
}

/// The jobs live through all the rounds: each run ends with a snooze. So what is not cleared adds up.
///
/// Chance can build a case too: three processes in a row that die while they run the same suspect. A
/// program that dies so quickly is sick; so each third process here lives until all jobs have run.
#[test]
fn random_kills_never_quarantine_a_healthy_job() {
    let place = place();
    let jobs = place.open();
    let ms = |at: usize| (at % 3) as u64;
    let ids = jobs.enqueue_many((0..JOBS).map(|at| deed(ms(at), Then::Snooze))).unwrap();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut suspected, mut counted, mut most) = (0, 0, 0);
    for round in 0..rounds() {
        let child = Process { stays: true, ..PLAIN }.start(&place);
        if round % 3 == 2 {
            until_all_have_run(&child);
        }
        // A short life ends while suspects run, or before any job does.
        let lines = if random.bool() { random.usize(0..10) } else { random.usize(10..60) };
        for _ in 0..lines {
            child.line().expect("the child lives until it is killed");
        }
        if random.bool() {
            std::thread::sleep(Duration::from_micros(random.u64(0..3_000)));
        }
        child.kill();
        for job in jobs.list(&Filter::new(), None, 100).unwrap().jobs {
            assert!(!job.state.is_finished(), "seed {seed}, round {round}: {job:?}");
            suspected += usize::from(job.crashes.is_some());
            counted += usize::from(job.crashes > Some(0));
            most = most.max(job.crashes.unwrap_or(0));
        }
    }
    eprintln!(
        "{suspected} times a suspect was left, {counted} with a death against it, {most} at most"
    );
    // Otherwise the kills have come at harmless moments only, and nothing was tested.
    assert!(suspected > rounds() / 10, "suspects were left only {suspected} times");
    let engine = manual(&jobs);
    let left: Vec<JobRecord> = ids.iter().map(|&id| jobs.get(id).unwrap()).collect();
    assert!(left.iter().all(|job| job.attempts == 0), "a kill has used up an attempt: {left:?}");
    drop(engine);
}
