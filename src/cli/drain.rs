//! `legwork drain`: works until there is nothing left, and shows how far it is.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::globals::{self, Globals};
use super::output::{self, Output};
use super::progress::{Progress, Unit};
use super::queues::{in_state, is_paused};
use super::work::{self, Asked, Watch};
use super::{Done, change, times};
use crate::jobs::Jobs;
use crate::record::{QueueStats, Stats};
use crate::rules::amount;
use crate::state::State;
use crate::tally::Tally;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// A pool, as in `work`. May be given several times; default: the program's own pools, or all
    /// queues.
    #[arg(short, long = "queues", value_name = "QUEUES[:WORKERS]", allow_hyphen_values = true, value_parser = Asked::parse)]
    queues: Vec<Asked>,
    /// Workers of each pool that names no number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Stop after this long (30s, 5m, 2h), finished or not: exit code 124.
    #[arg(long, value_name = "SPAN", value_parser = times::span)]
    timeout: Option<Duration>,
    /// How long running jobs get when it is stopped.
    #[arg(long, value_name = "SPAN", value_parser = times::span, default_value = "30s")]
    grace: Duration,
    /// Say only what went wrong.
    // Here -q names queues.
    #[arg(long, help_heading = globals::HEADING)]
    quiet: bool,
}

/// Between looks at what is left; longer if a look takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let jobs = globals.open()?;
    let began = Instant::now();
    let mut left = Left { jobs: &jobs, pools: &arguments.queues, total: 0 };
    let mut progress = Progress::new(globals, "finished", Unit::Jobs, None);
    let mut look = |tally: Tally| {
        let looked = Instant::now();
        if let Some((done, total)) = left.look(tally) {
            progress.at(done, Some(total));
        }
        LOOK_EVERY.max(looked.elapsed() * 20)
    };
    let until = arguments.timeout.and_then(|timeout| began.checked_add(timeout));
    let work = work::Arguments::drain(&arguments.queues, arguments.workers, arguments.grace);
    let watch = Watch { look: &mut look, until };
    let worked = work::work(globals, &jobs, &work, Some(watch));
    if let Ok(worked) = &worked {
        look(worked.tally);
    }
    progress.end();
    let worked = worked?;
    answer(globals, &worked.tally, began.elapsed())?;
    if worked.timed_out {
        globals.say("the time is over; what is left stays in its queue");
    } else if !worked.stopped {
        tell_rest(globals, &jobs.stats()?, &arguments.queues);
    }
    Ok(match worked.code() {
        // What had failed is told in any case.
        code if code == ExitCode::SUCCESS && worked.tally.failed > 0 => {
            ExitCode::from(super::trouble::FAILED)
        }
        code => code,
    })
}

/// The queues of the pools that were asked for; all if there are none.
fn queues_of<'a>(
    stats: &'a Stats,
    pools: &'a [Asked],
) -> impl Iterator<Item = (&'a String, &'a QueueStats)> {
    let is_meant = |queue: &str| pools.is_empty() || pools.iter().any(|pool| pool.serves(queue));
    stats.queues.iter().filter(move |(name, _)| is_meant(name))
}

/// How many jobs there are to do, in this process and others: what is blocked as well, since it waits for the
/// others or for room, but not what is paused or behind a closed gate.
fn to_do(stats: &Stats, pools: &[Asked]) -> u64 {
    let of_queue = |(name, queue): (&String, &QueueStats)| {
        let behind_gates = queue.gates.values().sum();
        let blocked = in_state(queue, State::Blocked).saturating_sub(behind_gates);
        let waiting = match is_paused(stats, name) {
            true => 0,
            false => in_state(queue, State::Ready) + blocked,
        };
        waiting + in_state(queue, State::Running)
    };
    queues_of(stats, pools).map(of_queue).sum()
}

/// Says what was not to be done now: nobody is to take the end for an empty queue.
fn tell_rest(globals: &Globals, stats: &Stats, pools: &[Asked]) {
    let count = |state| queues_of(stats, pools).map(|(_, queue)| in_state(queue, state)).sum();
    let rest: Vec<(State, u64)> = change::WAITING
        .iter()
        .map(|state| (*state, count(*state)))
        .filter(|(_, count)| *count > 0)
        .collect();
    if rest.is_empty() {
        return;
    }
    let told: Vec<String> = rest.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let why = match rest.iter().any(|(state, _)| *state == State::Ready) {
        true => " (what is ready is paused, or nobody here runs its queue or kind)",
        false => "",
    };
    globals.say(format_args!("left for later: {}{why}", told.join(", ")));
}

/// How far it is.
struct Left<'a> {
    jobs: &'a Jobs,
    pools: &'a [Asked],
    /// The most that there was to do so far; more may come.
    total: u64,
}

impl Left<'_> {
    /// How much of how much is done; `None`: it cannot be told at the moment.
    fn look(&mut self, tally: Tally) -> Option<(u64, u64)> {
        let left = to_do(&self.jobs.stats().ok()?, self.pools);
        self.total = self.total.max(tally.finished() + left);
        Some((self.total - left, self.total))
    }
}

fn answer(globals: &Globals, tally: &Tally, took: Duration) -> std::io::Result<()> {
    let Tally { completed, failed, cancelled, .. } = *tally;
    let seconds = took.as_secs_f64();
    match globals.output() {
        Output::Json => output::json(json!({
            "completed": completed,
            "failed": failed,
            "cancelled": cancelled,
            "seconds": seconds,
        })),
        Output::Tsv => {
            let counts = [completed, failed, cancelled].map(|count| count.to_string());
            output::tsv([counts.into_iter().chain([format!("{seconds:.3}")]).collect()])
        }
        Output::Table { .. } => output::print(format_args!(
            "{} completed, {failed} failed, {cancelled} cancelled in {}\n",
            amount::jobs(completed),
            amount::span(took)
        )),
    }
}
