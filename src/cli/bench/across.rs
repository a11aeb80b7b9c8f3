//! From the call of enqueue in one process to the first line of the job in another.
//!
//! What the other process adds is compared with the same done bare: after the synced commit a
//! datagram, a claim without a sync in the process that it wakes, and another thread woken there.

use std::thread;
use std::time::Duration;

use super::Bench;
use super::child::{Child, Role};
use super::error::{Error, Result};
use super::figure::{Figure, Reach};
use super::measure::{in_turn, percentile};
use super::start::{GAP, Waiting, parts};

/// So much later a job of another process may start than one of this process, in microseconds,
/// where a process is woken in 50.
const ADDED: f64 = 150.0;
/// So much more than bare it may add where that takes longer: as `start` allows.
const OVER_BARE: f64 = 1.35;
/// A job of another process that has not started by then never will.
const PATIENCE: Duration = Duration::from_secs(2);

/// Against the same within one process, on a file of its own; and what the other process adds
/// against what it adds bare.
pub(super) fn across(bench: &Bench) -> Result<Vec<Figure>> {
    let (rounds, samples, warm) = parts(bench);
    let within = Waiting::start(bench, warm)?;
    let here = Waiting::start(bench, warm)?;
    let mut there = Child::start(Role::Enqueuer, &here.file())?;
    there.line()?;
    if sample(&mut there, &here)?.is_none() {
        return never(&within, samples).map(|figure| vec![figure]);
    }
    let mut bare = bare::Pair::start(bench, warm)?;
    let mut bare_added = Vec::new();
    let (inside, outside) = in_turn(
        rounds,
        || {
            bare_added.push(bare.added(samples)?);
            (0..samples).map(|_| within.sample()).collect::<Result<Vec<_>>>()
        },
        || {
            let sample = |_| {
                sample(&mut there, &here)?
                    .ok_or_else(|| Error::Missed(format!("one did not start in {PATIENCE:?}")))
            };
            (0..samples).map(sample).collect()
        },
    )?;
    there.end()?;
    bare.end()?;
    within.stop()?;
    here.stop()?;
    let (inside, outside) = (inside.concat(), outside.concat());
    let bare_added = percentile(&bare_added.concat(), 0.5);
    let p50 = percentile(&inside, 0.5);
    // Beside much other load noise can say that it took less than nothing.
    let added = (percentile(&outside, 0.5) - p50).max(0.0);
    let may_add = ADDED.max(OVER_BARE * bare_added);
    Ok(vec![
        Figure::new("p50", "µs", p50, percentile(&outside, 0.5), Reach::AtMost(p50 + may_add))
            .note("raw: within one process"),
        Figure::new("added by the other process", "µs", bare_added, added, Reach::AtMost(may_add))
            .note(format!("reach: {ADDED} µs, or {OVER_BARE} x bare where that is more")),
        Figure::new(
            "p99",
            "µs",
            percentile(&inside, 0.99),
            percentile(&outside, 0.99),
            Reach::Told,
        ),
    ])
}

/// What is said if jobs of another process do not start here by themselves.
fn never(within: &Waiting, samples: usize) -> Result<Figure> {
    let inside = (0..samples).map(|_| within.sample()).collect::<Result<Vec<_>>>()?;
    let inside = percentile(&inside, 0.5);
    let figure = Figure::new("p50", "µs", inside, 0.0, Reach::AtMost(inside + ADDED));
    Ok(Figure { legwork: None, ..figure }.note(format!(
        "a job of another process did not start within {PATIENCE:?}; raw: within one process"
    )))
}

/// The child idles, takes the time and enqueues; the job here tells when it started. `None`: it
/// did not.
fn sample(there: &mut Child, here: &Waiting) -> Result<Option<f64>> {
    there.tell(&GAP.as_micros().to_string())?;
    let called = nanos_of(&there.line()?)?;
    let started = here.next_within(PATIENCE);
    Ok(started.map(|started| started.nanos.saturating_sub(called) as f64 / 1e3))
}

fn nanos_of(line: &str) -> Result<u128> {
    line.parse().map_err(|_| Error::Missed("a child process said no time".to_owned()))
}

pub(super) use self::bare::take as take_bare;

mod bare {
    use std::net::UdpSocket;
    use std::path::Path;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::cli::bench::child::{nanos_now, say};
    use crate::cli::bench::place::Scratch;
    use crate::cli::bench::raw::Raw;

    /// This process, and one that claims what is inserted here.
    pub(super) struct Pair {
        raw: Raw,
        taker: Child,
        to: UdpSocket,
        _scratch: Scratch,
    }

    impl Pair {
        pub(super) fn start(bench: &Bench, warm: usize) -> Result<Pair> {
            let scratch = bench.scratch()?;
            let mut raw = Raw::open(&scratch.file())?;
            raw.warm_up(warm)?;
            raw.finish_all()?;
            let taker = Child::start(Role::BareTaker, &scratch.file())?;
            let to = UdpSocket::bind(("127.0.0.1", 0))?;
            let port = taker.line()?;
            let port: u16 = port
                .parse()
                .map_err(|_| Error::Missed(format!("a child process said {port:?}, no port")))?;
            to.connect(("127.0.0.1", port))?;
            Ok(Pair { raw, taker, to, _scratch: scratch })
        }

        /// From the commit to the thread that would run the job, in microseconds, for each sample.
        pub(super) fn added(&mut self, samples: usize) -> Result<Vec<f64>> {
            let mut added = Vec::with_capacity(samples);
            for _ in 0..samples {
                thread::sleep(GAP);
                self.raw.insert(1)?;
                let committed = nanos_now();
                self.to.send(&[1])?;
                let awake = nanos_of(&self.taker.line()?)?;
                added.push(awake.saturating_sub(committed) as f64 / 1e3);
            }
            Ok(added)
        }

        pub(super) fn end(self) -> Result<()> {
            // An empty datagram is the end.
            self.to.send(&[])?;
            self.taker.end()
        }
    }

    /// The other process.
    pub(in super::super) fn take(file: &Path) -> Result<()> {
        let mut raw = Raw::open(file)?;
        let bell = UdpSocket::bind(("127.0.0.1", 0))?;
        let (wake, woken) = unbounded();
        let worker =
            thread::spawn(move || woken.iter().try_for_each(|()| say(&nanos_now().to_string())));
        say(&bell.local_addr()?.port().to_string())?;
        while bell.recv(&mut [0; 1])? > 0 {
            let claimed = raw.claim(1)?;
            if claimed.is_empty() || wake.send(()).is_err() {
                return Err(Error::Missed("a bare job cannot be claimed".to_owned()));
            }
            raw.finish(&claimed)?;
        }
        drop(wake);
        worker.join().map_err(|_| Error::Missed("a bare worker panicked".to_owned()))?
    }
}
