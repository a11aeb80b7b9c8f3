//! The drain rate beside much that waits or has finished, against legwork's own with little.

use std::time::Duration;

use super::Bench;
use super::error::Result;
use super::figure::{Figure, Reach};
use super::measure::{in_turn, median, rate};
use super::place::Scratch;
use super::raw;
use super::work::{Crew, Noop, enqueue};
use crate::jobs::Jobs;
use crate::new_job::NewJob;
use crate::record::Scope;

const WORKERS: usize = 4;
/// A time that no experiment lives to see.
pub(super) const FAR: Duration = Duration::from_secs(30 * 86_400);

/// How many jobs are there: many, few, and those that a round runs.
pub(super) struct Amounts {
    pub(super) many: usize,
    pub(super) few: usize,
    pub(super) round: usize,
    pub(super) rounds: usize,
}

impl Amounts {
    pub(super) fn of(bench: &Bench) -> Amounts {
        let (many, few, round, rounds) =
            bench.amount((1_000_000, 1_000, 25_000, 9), (20_000, 200, 1_000, 1));
        Amounts { many, few, round, rounds }
    }
}

/// A paused engine on a file of its own. Dropped in this order: the file last.
pub(super) struct Site {
    crew: Crew,
    _scratch: Scratch,
}

impl Site {
    pub(super) fn make(bench: &Bench, fill: impl FnOnce(&Scratch) -> Result<Jobs>) -> Result<Site> {
        let scratch = bench.scratch()?;
        let jobs = fill(&scratch)?;
        jobs.pause(Scope::All)?;
        Ok(Site { crew: Crew::start(jobs, WORKERS)?, _scratch: scratch })
    }

    /// Adds ready jobs and drains all that are ready: jobs a second.
    pub(super) fn drain(&self, count: usize, job: &dyn Fn(usize) -> NewJob) -> Result<f64> {
        Ok(rate(count, self.drain_once(count, job)?))
    }

    fn drain_once(&self, count: usize, job: &dyn Fn(usize) -> NewJob) -> Result<Duration> {
        self.crew.jobs.pause(Scope::All)?;
        enqueue(&self.crew.jobs, count, job)?;
        self.crew.drain_paused()
    }

    /// The same in small heaps, as many as make up a round: jobs a second.
    fn drain_heaps(&self, heap: usize, total: usize, job: &dyn Fn(usize) -> NewJob) -> Result<f64> {
        let heaps = (total / heap).max(1);
        let took: Result<Duration> = (0..heaps).map(|_| self.drain_once(heap, job)).sum();
        Ok(rate(heaps * heap, took?))
    }
}

pub(super) fn ready(_: usize) -> NewJob {
    NewJob::new(Noop::new())
}

/// Over four queues and three priorities, all mixed.
pub(super) fn spread(n: usize) -> NewJob {
    const QUEUES: [&str; 4] = ["a", "b", "c", "d"];
    const PRIORITIES: [i64; 3] = [-1, 0, 1];
    ready(n).queue(QUEUES[n % 4]).priority(PRIORITIES[n / 4 % 3])
}

/// Rates with a million that wait, against a thousand. `raw` is legwork's own rate with few.
pub(super) fn backlog(bench: &Bench) -> Result<Vec<Figure>> {
    let amounts = Amounts::of(bench);
    Ok(vec![
        beside_scheduled(bench)?,
        out_of_ready(bench, &amounts, "ready in one lane", 0.8, &ready)?,
        out_of_ready(bench, &amounts, "ready, 4 queues x 3 priorities", 0.45, &spread)?,
    ])
}

/// The same number of ready jobs is drained beside few and beside many scheduled ones.
fn beside_scheduled(bench: &Bench) -> Result<Figure> {
    let amounts = Amounts::of(bench);
    let with = |count: usize| {
        Site::make(bench, |scratch| {
            let jobs = Jobs::open(scratch.file())?;
            enqueue(&jobs, count, |n| ready(n).delay(FAR))?;
            Ok(jobs)
        })
    };
    let (few, many) = (with(amounts.few)?, with(amounts.many)?);
    let drained = |site: &Site| site.drain(amounts.round, &ready);
    let (few, many) = in_turn(amounts.rounds, || drained(&few), || drained(&many))?;
    Ok(compared("scheduled", &amounts, &few, &many, 0.8))
}

/// So many jobs of a large heap run, against small heaps that are drained one after the other.
pub(super) fn out_of_ready(
    bench: &Bench,
    amounts: &Amounts,
    shape: &str,
    reach: f64,
    job: &dyn Fn(usize) -> NewJob,
) -> Result<Figure> {
    let few = Site::make(bench, |scratch| Ok(Jobs::open(scratch.file())?))?;
    let many = Site::make(bench, |scratch| {
        let jobs = Jobs::open(scratch.file())?;
        // What the rounds take away comes on top.
        enqueue(&jobs, amounts.many + amounts.rounds * amounts.round, job)?;
        Ok(jobs)
    })?;
    let (few, many) = in_turn(
        amounts.rounds,
        || few.drain_heaps(amounts.few, amounts.round, job),
        || Ok(rate(amounts.round, many.crew.run_some_of_paused(amounts.round)?)),
    )?;
    Ok(compared(shape, amounts, &few, &many, reach))
}

pub(super) fn compared(
    shape: &str,
    amounts: &Amounts,
    few: &[f64],
    many: &[f64],
    reach: f64,
) -> Figure {
    let reach = Reach::RatioAtLeast(reach);
    Figure::new(shape, "jobs/s", median(few), median(many), reach)
        .note(format!("legwork: {} waiting; raw: legwork with {}", amounts.many, amounts.few))
}

/// The drain rate with a million finished jobs, against none. Both files may keep more than that:
/// what is pruned is another question.
pub(super) fn history(bench: &Bench) -> Result<Vec<Figure>> {
    let amounts = Amounts::of(bench);
    let open = |scratch: &Scratch| -> Result<Jobs> {
        Ok(Jobs::builder(scratch.file()).history_rows(u64::MAX / 2).open()?)
    };
    let many = Site::make(bench, |scratch| {
        // The file must be legwork's before raw SQL adds to it.
        let now = open(scratch)?.clock().micros();
        raw::add_completed(&scratch.file(), amounts.many, now)?;
        open(scratch)
    })?;
    let (none, many) = in_turn(
        amounts.rounds,
        || {
            let site = Site::make(bench, open)?;
            let rate = site.drain(amounts.round, &ready)?;
            site.crew.stop().map(|()| rate)
        },
        || many.drain(amounts.round, &ready),
    )?;
    let reach = Reach::RatioAtLeast(0.9);
    let measure = format!("{} finished", amounts.many);
    Ok(vec![
        Figure::new(measure, "jobs/s", median(&none), median(&many), reach)
            .note("raw: legwork with none"),
    ])
}
