//! How far something is that takes its time: a bar on a terminal, a line each second elsewhere. On
//! stderr, and nothing of it with `--quiet`.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::globals::Globals;
use super::output;
use crate::rules::amount;

/// Between lines, and between drawings of the bar if nothing moves.
const EVERY: Duration = Duration::from_secs(1);

/// The whole of a line; what is left of it between the words is the bar.
const BAR: &str = "{msg} {wide_bar} {count} {rate} {left}";

/// Of a rate and of what is left, so that the bar stands still while they change.
const WIDTH: usize = 7;

/// The bar that is drawn now, for those who write to the same terminal.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn drawn(bar: Option<ProgressBar>) {
    *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Writes to stderr, above the bar if there is one.
pub(super) fn beside(write: impl FnOnce()) {
    let bar = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

pub(super) struct Progress {
    shown: Shown,
    /// `pruned`.
    verb: &'static str,
    /// `jobs`.
    unit: Unit,
    total: Option<u64>,
    done: u64,
    began: Instant,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Jobs,
    Bytes,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
    Not,
}

impl Progress {
    /// `total`: `None` if it is not known.
    pub(super) fn new(
        globals: &Globals,
        verb: &'static str,
        unit: Unit,
        total: Option<u64>,
    ) -> Progress {
        let shown = if globals.quiet {
            Shown::Not
        } else if std::io::stderr().is_terminal() {
            Shown::Bar(bar(verb, unit, total))
        } else {
            Shown::Lines { last: None }
        };
        Progress { shown, verb, unit, total, done: 0, began: Instant::now() }
    }

    /// So much is done, of so much, as far as that is known now.
    pub(super) fn at(&mut self, done: u64, total: Option<u64>) {
        (self.done, self.total) = (done, total);
        match &mut self.shown {
            Shown::Bar(bar) => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(done);
            }
            Shown::Lines { last } if last.unwrap_or(self.began).elapsed() >= EVERY => {
                *last = Some(Instant::now());
                self.line();
            }
            Shown::Lines { .. } | Shown::Not => {}
        }
    }

    /// Takes the bar away; elsewhere the last line stands.
    pub(super) fn end(self) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.finish_and_clear();
                drawn(None);
            }
            Shown::Lines { .. } => self.line(),
            Shown::Not => {}
        }
    }

    fn line(&self) {
        output::talk(line(self.verb, self.unit, self.done, self.total, self.began.elapsed()));
    }
}

fn bar(verb: &'static str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let count = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&of(unit, state.pos(), state.len()));
    };
    let rate = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:>WIDTH$}", speed(unit, state.per_sec()));
    };
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        if state.len().is_some() {
            let _ = write!(out, "ETA {:<WIDTH$}", amount::span(state.eta().max(EVERY)));
        }
    };
    let style = ProgressStyle::with_template(BAR)
        .expect("the template is one")
        .with_key("count", count)
        .with_key("rate", rate)
        .with_key("left", left)
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_message(verb);
    bar.enable_steady_tick(EVERY);
    drawn(Some(bar.clone()));
    bar
}

/// `pruned 1,200 of 5,000 jobs, 300/s`.
fn line(verb: &str, unit: Unit, done: u64, total: Option<u64>, took: Duration) -> String {
    let per_second = done as f64 / took.as_secs_f64().max(0.001);
    let what = if unit == Unit::Jobs { " jobs" } else { "" };
    format!("{verb} {}{what}, {}", of(unit, done, total), speed(unit, per_second))
}

fn of(unit: Unit, done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{}/{}", told(unit, done), told(unit, total)),
        None => told(unit, done),
    }
}

fn told(unit: Unit, amount: u64) -> String {
    match unit {
        Unit::Jobs => HumanCount(amount).to_string(),
        Unit::Bytes => amount::size(amount),
    }
}

/// `300/s`, or `1.5/s` where whole numbers would tell little; of what is slower than that by the minute.
fn speed(unit: Unit, per_second: f64) -> String {
    match unit {
        Unit::Jobs if per_second <= 0.0 => "0/s".to_owned(),
        Unit::Jobs if per_second < 0.1 => format!("{:.1}/min", per_second * 60.0),
        Unit::Jobs if per_second < 10.0 => format!("{per_second:.1}/s"),
        _ => format!("{}/s", told(unit, per_second as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_much_of_what_and_how_fast() {
        let ten = Duration::from_secs(10);
        let jobs = line("pruned", Unit::Jobs, 1_200, Some(5_000), ten);
        assert_eq!(jobs, "pruned 1,200/5,000 jobs, 120/s");
        let slow = |per_second| speed(Unit::Jobs, per_second);
        assert_eq!([12.7, 2.34, 0.05, 0.0].map(slow), ["12/s", "2.3/s", "3.0/min", "0/s"]);
        let bytes = line("freed", Unit::Bytes, 10 << 20, None, ten);
        assert_eq!(bytes, "freed 10.0 MiB, 1.0 MiB/s");
    }
}
