//! `legwork top`: the live view.
//!
//! Four threads: this one draws, and waits for what the others tell. One reads keys, one listens to signals,
//! one reads the file and does what it is told, so that the view answers while the database is slow.

mod act;
mod draw;
mod keys;
mod model;
mod reader;
mod screen;
#[cfg(test)]
mod tests;
mod text;
mod throughput;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};
use time::OffsetDateTime;

use self::keys::Wish;
use self::model::{Details, Mode, Model, Setting};
use self::reader::{Order, Reader, Report};
use self::screen::Screen;
use super::globals::Globals;
use super::output::Output;
use super::trouble::{DATABASE, SIGNALLED, Trouble};
use super::{Done, times};
use crate::jobs::Jobs;

/// How soon the thread that reads keys finds that it is to stop.
const KEYS_LOOK: Duration = Duration::from_millis(100);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// How often to look, at least 100ms.
    #[arg(long, value_name = "SPAN", value_parser = every, default_value = "1s")]
    every: Duration,
    /// Change nothing: retry, cancel, delete and pause are refused.
    #[arg(long)]
    read_only: bool,
}

fn every(text: &str) -> Result<Duration, String> {
    let span = times::span(text)?;
    if span < Duration::from_millis(100) {
        return Err("at least 100ms".to_owned());
    }
    Ok(span)
}

/// What the view waits for.
enum Notice {
    Terminal(Event),
    Report(Report),
    Signal(i32),
    /// A thread has ended, and why.
    Lost(String),
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    if globals.json {
        return Err(Trouble::usage("top is for people").hint("see `legwork status --json`"));
    }
    let Output::Table { color } = globals.output() else { return Err(no_terminal()) };
    if !io::stdin().is_terminal() {
        return Err(no_terminal());
    }
    let jobs = globals.open()?;
    let setting = Setting {
        program: globals.app.program.clone(),
        path: jobs.path().display().to_string(),
        read_only: arguments.read_only,
        color,
    };
    let (helpers, told) = Helpers::start(jobs, arguments.every)?;
    let model = Model::new(setting, OffsetDateTime::now_utc());
    let ended = match Screen::enter(color) {
        Ok(screen) => {
            View { screen, model, orders: &helpers.orders, told, started: helpers.started }.run()
        }
        Err(error) => Err(lost(error)),
    };
    helpers.stop();
    ended
}

fn no_terminal() -> Trouble {
    Trouble::usage("top needs a terminal to draw on and to read keys from")
        .hint("off a terminal `legwork status` tells how things stand")
}

fn lost(error: impl std::fmt::Display) -> Trouble {
    Trouble::new(DATABASE, format_args!("the terminal: {error}"))
}

/// The threads beside this one.
struct Helpers {
    started: Instant,
    orders: Sender<Order>,
    stop: Arc<AtomicBool>,
    signals: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    fn start(jobs: Jobs, every: Duration) -> Result<(Helpers, Receiver<Notice>), Trouble> {
        let (tell, told) = unbounded();
        let (orders, taken) = unbounded();
        let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGTSTP]).map_err(lost)?;
        let handle = signals.handle();

        let tell_report = tell.clone();
        // Nobody listens any more: the view has ended. So with the others.
        let report = move |report| drop(tell_report.send(Notice::Report(report)));
        let reader = Reader::new(jobs, every, started, report);
        let (tell_signal, tell_event, stopped) = (tell.clone(), tell.clone(), Arc::clone(&stop));
        let threads = vec![
            spawn("reader", &tell, move || reader.run(&taken))?,
            spawn("signals", &tell, move || {
                for signal in signals.forever() {
                    let _ = tell_signal.send(Notice::Signal(signal));
                }
            })?,
            spawn("keys", &tell, move || read_keys(&tell_event, &stopped))?,
        ];
        Ok((Helpers { started, orders, stop, signals: handle, threads }, told))
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.signals.close();
        let _ = self.orders.send(Order::Stop);
        for thread in self.threads {
            // A panic has been told by its hook.
            let _ = thread.join();
        }
    }
}

/// A thread that tells when it has ended, whether or not it was meant to.
fn spawn(
    name: &'static str,
    tell: &Sender<Notice>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Trouble> {
    struct Last(&'static str, Sender<Notice>);
    impl Drop for Last {
        fn drop(&mut self) {
            let _ = self.1.send(Notice::Lost(format!("the thread {} has ended", self.0)));
        }
    }
    let last = Last(name, tell.clone());
    thread::Builder::new()
        .name(format!("legwork-top-{name}"))
        .spawn(move || {
            let _last = last;
            work();
        })
        .map_err(lost)
}

fn read_keys(tell: &Sender<Notice>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let event = match event::poll(KEYS_LOOK) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        match event {
            Ok(event) => drop(tell.send(Notice::Terminal(event))),
            Err(error) => return drop(tell.send(Notice::Lost(error.to_string()))),
        }
    }
}

struct View<'a> {
    screen: Screen,
    model: Model,
    orders: &'a Sender<Order>,
    told: Receiver<Notice>,
    started: Instant,
}

impl View<'_> {
    fn run(mut self) -> Done {
        loop {
            self.model.tick(OffsetDateTime::now_utc(), self.started.elapsed());
            self.screen.draw(&self.model).map_err(lost)?;
            let first = self.told.recv().map_err(lost)?;
            let more: Vec<Notice> = self.told.try_iter().collect();
            for notice in std::iter::once(first).chain(more) {
                if let Some(code) = self.hear(notice)? {
                    return Ok(code);
                }
            }
        }
    }

    /// An exit code ends the view.
    fn hear(&mut self, notice: Notice) -> Result<Option<ExitCode>, Trouble> {
        match notice {
            Notice::Terminal(Event::Key(key)) => {
                return match keys::press(&mut self.model, key) {
                    Some(wish) => self.grant(wish),
                    None => Ok(None),
                };
            }
            // It is drawn anew in any case.
            Notice::Terminal(_) => {}
            Notice::Signal(SIGTSTP) => self.screen.suspend().map_err(lost)?,
            Notice::Signal(signal) => {
                let code = SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or_default());
                return Ok(Some(ExitCode::from(code)));
            }
            Notice::Lost(why) => return Err(lost(why)),
            Notice::Report(report) => self.take(report)?,
        }
        Ok(None)
    }

    fn take(&mut self, report: Report) -> Result<(), Trouble> {
        let model = &mut self.model;
        match report {
            Report::Seen(seen) => {
                model.tick(OffsetDateTime::now_utc(), self.started.elapsed());
                model.see(*seen);
            }
            Report::Trouble(why) => model.trouble = Some(why),
            Report::Gone(why) => {
                return Err(Trouble::new(DATABASE, why)
                    .hint("start it again when the file is back in its place"));
            }
            Report::Done(what) => model.say(what),
            Report::Refused(why) => model.complain(why),
            Report::Shown(id, lines) if model.mode == Mode::Panels => {
                model.mode = Mode::Details(Details { id, lines, top: 0 });
            }
            // Its user has gone on to something else.
            Report::Shown(..) => {}
        }
        Ok(())
    }

    fn grant(&mut self, wish: Wish) -> Result<Option<ExitCode>, Trouble> {
        let order = match wish {
            Wish::Quit => return Ok(Some(ExitCode::SUCCESS)),
            Wish::Suspend => {
                self.screen.suspend().map_err(lost)?;
                return Ok(None);
            }
            Wish::Redraw => {
                self.screen.clear().map_err(lost)?;
                return Ok(None);
            }
            Wish::Show(id) => Order::Show(id),
            Wish::Filter => Order::Filter(self.model.filter.clone()),
            Wish::Freeze => Order::Freeze(self.model.frozen),
            Wish::Do(action) => Order::Act(action),
        };
        self.orders.send(order).map_err(lost)?;
        Ok(None)
    }
}
