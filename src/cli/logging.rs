//! The library's log lines, on stderr.

use std::fmt::Write as _;
#[cfg(feature = "tui")]
use std::io::IsTerminal;

use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

use super::Verb;
use super::globals::Globals;
use super::output;

struct Logger;

/// A worker tells what it does; the other commands only what is wrong.
pub(super) fn start(globals: &Globals, verb: &Verb) {
    let level = match verb {
        // It would be written into the picture.
        #[cfg(feature = "tui")]
        Verb::Top(_) if std::io::stderr().is_terminal() => LevelFilter::Off,
        _ if globals.verbose => LevelFilter::Debug,
        _ if globals.quiet => LevelFilter::Error,
        Verb::Work(_) => LevelFilter::Info,
        _ => LevelFilter::Warn,
    };
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = record.args().to_string();
        // A visitor that writes into a string does not fail.
        let _ = record.key_values().visit(&mut Pairs(&mut line));
        output::talk(line);
    }

    fn flush(&self) {}
}

/// Puts ` key=value` at the end of a line.
struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let _ = write!(self.0, " {key}={value}");
        Ok(())
    }
}
