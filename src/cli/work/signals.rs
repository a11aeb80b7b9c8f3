//! What a worker does on signals beside INT and TERM: claim nothing more, and say what it is doing.

use std::thread;

use crossbeam_channel::Sender;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use super::super::output;
use super::super::trouble::{DATABASE, Trouble};
use super::{Notice, Work};
use crate::engine::AtWork;
use crate::rules::amount;

/// Passes signals on.
pub(super) fn listen(tell: Sender<Notice>) -> Result<Handle, Trouble> {
    let failed = |error| Trouble::new(DATABASE, format_args!("listening to signals: {error}"));
    let mut heard = vec![SIGINT, SIGTERM, SIGTSTP, SIGCONT, SIGUSR1];
    // The terminal is gone. Under `nohup` that is to be of no concern.
    if !is_ignored(SIGHUP) {
        heard.push(SIGHUP);
    }
    let mut signals = Signals::new(heard).map_err(failed)?;
    let handle = signals.handle();
    thread::Builder::new()
        .name("legwork-signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let notice = match signal {
                    SIGTSTP => Notice::Quiet(true),
                    SIGCONT => Notice::Quiet(false),
                    SIGUSR1 => Notice::Tell,
                    signal => Notice::Signal(u8::try_from(signal).unwrap_or_default()),
                };
                // Nobody listens any more: the work has ended.
                let _ = tell.send(notice);
            }
        })
        .map_err(failed)?;
    Ok(handle)
}

/// Whether whoever started this process has it ignore the signal; where that cannot be told, yes.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

impl Work {
    /// Starts no more jobs, or starts some again.
    pub(super) fn hold(&mut self, quiet: bool) {
        let was_held = std::mem::replace(&mut self.held, quiet);
        let held = if quiet { self.engine.quiet() } else { self.engine.resume() };
        match held {
            Ok(()) if quiet => output::talk("legwork: starting no more jobs, until SIGCONT"),
            Ok(()) if was_held => output::talk("legwork: starting jobs"),
            // It was stopped, as any process can be, and goes on.
            Ok(()) => {}
            Err(error) => log::warn!("legwork: {error}"),
        }
    }

    /// On stderr, even if it is to be quiet: it was asked.
    pub(super) fn tell_what_it_does(&self) {
        let at_work = self.engine.at_work();
        let pools: Vec<&str> = self.engine.pools().collect();
        let (busy, pools) = (at_work.len(), pools.join(" "));
        output::talk(format_args!("legwork: {busy} jobs under way; pools: {pools}"));
        for attempt in &at_work {
            output::talk(format_args!("  {}", line(attempt)));
        }
    }
}

fn line(attempt: &AtWork) -> String {
    let AtWork { worker, id, kind, attempt: number, .. } = attempt;
    let since = amount::span(attempt.running);
    let mut line = format!("{worker}: job {id} {kind}, attempt {number}, for {since}");
    if let Some(progress) = &attempt.progress {
        if progress.total > 0 {
            line += &format!(", {}/{}", progress.done, progress.total);
        }
        let message = progress.message.as_deref().unwrap_or_default();
        // Of a line that it gives it is but the end.
        line += &message.lines().next().map_or(String::new(), |text| format!(", {text}"));
    }
    if attempt.asked_to_stop {
        line += ", asked to stop";
    }
    line
}
