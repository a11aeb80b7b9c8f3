//! A shop: every order enqueues a payment, a stock booking, a confirmation by mail, analytics, a
//! notification, and a review reminder a week ahead. Each is a job of its own that runs, is
//! retried and is watched on its own.
//!
//! `cargo run --release --example order_flow`
//!
//! Kill it in the middle and run it again: the next run finishes the rest. No order that was
//! taken is lost, and none is paid for twice.

mod flags;
mod mail;
mod shop;
mod watch;
mod work;

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use legwork::{Engine, Filter, Jobs, Pool, State};

use crate::flags::{Asked, Flags};
use crate::shop::{Ledger, Shop, Till};

/// An error that can cross threads.
type Fault = Box<dyn Error + Send + Sync>;

/// Orders come in from this many threads at once.
const TILLS: u64 = 4;

fn main() -> ExitCode {
    let done = match Flags::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Help) => {
            print!("{}", flags::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Run(flags)) => run(&flags),
        Err(wrong) => Err(format!("{wrong} (try --help)").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("order_flow: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Fault> {
    let started = Instant::now();
    let jobs = Jobs::open(&flags.db)?;
    let mail_server = mail::Server::start()?;
    let ledger = Ledger::open(flags.ledger.as_deref())?;
    shop::create_tables(&shop::connect(&flags.db)?)?;
    watch::say_what_was_left(&flags.db)?;

    let expected = flags.orders * work::AT_ONCE + jobs.count(&to_do_now())?;
    let watcher = watch::Watcher::start(jobs.events(), expected);
    let shop = Shop::open(flags, &ledger, mail_server.address())?;
    let engine = start(&jobs, shop, flags)?;
    take_orders(&jobs, &ledger, flags)?;
    finish_what_can_be_finished(&engine)?;
    engine.stop(Duration::from_secs(5))?;

    // With the last handle the events end, and with them the watcher.
    drop((engine, jobs));
    watcher.join();
    watch::summary(flags, mail_server.delivered(), started.elapsed())
}

/// Mail has workers of its own: they mostly wait for the mail server, and hold up nothing else.
fn start(jobs: &Jobs, shop: Shop, flags: &Flags) -> legwork::Result<Engine> {
    Engine::builder(jobs)
        .state(shop)
        .register::<work::Payment>()
        .register::<work::Inventory>()
        .register::<work::Confirmation>()
        .register::<work::Analytics>()
        .register::<work::Notification>()
        .register::<work::ReviewReminder>()
        .pool(Pool::new(["payments", "default"]).name("shop").workers(4))
        .pool(Pool::new(["mail"]).name("mail").workers(8))
        // Who keeps a ledger kills the shop to see what is left: no job is to blame for that.
        .crash_limit(if flags.ledger.is_some() { 0 } else { 3 })
        .start()
}

/// Takes the orders of this run, while the engine is at work on the first of them already.
fn take_orders(jobs: &Jobs, ledger: &Ledger, flags: &Flags) -> Result<(), Fault> {
    thread::scope(|scope| {
        let tills: Vec<_> = (0..TILLS)
            .map(|till| {
                let orders = flags.orders / TILLS + u64::from(till < flags.orders % TILLS);
                scope.spawn(move || Till::open(jobs, ledger, flags, till)?.take(orders))
            })
            .collect();
        for till in tills {
            till.join().map_err(|_| "a till has panicked")??;
        }
        Ok(())
    })
}

/// The jobs that have to be done before the shop can close: all but those scheduled ahead.
fn to_do_now() -> Filter {
    let filter = Filter::new().state(State::Ready).state(State::Running).state(State::Retrying);
    work::KINDS.iter().fold(filter, |filter, kind| filter.kind(*kind))
}

/// Works until only the reminders are left.
fn finish_what_can_be_finished(engine: &Engine) -> legwork::Result<()> {
    let jobs = engine.jobs();
    loop {
        engine.run_until_empty()?;
        // Listening before looking: whatever changes after the look is heard.
        let events = jobs.events();
        if jobs.count(&to_do_now())? == 0 {
            return Ok(());
        }
        // What is left waits for its retry. Anything that happens is a reason to look again; that
        // nothing does for so long is one too.
        events.recv_timeout(Duration::from_secs(5));
    }
}
