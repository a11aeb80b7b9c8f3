//! What happens here, said to those who listen in other processes.
//!
//! The thread `legwork-ears` is there only while somebody listens. It takes the events as every other
//! receiver does, so that the engine waits for it as little as for those.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, after, bounded, never, select};
use serde_json::{Value, json};

use super::lock;
use crate::clock::Clock;
use crate::event::{Event, Events, Hub};
use crate::rules::text;
use crate::store::{Mouth, Said};

/// Said in one go at most. An ear hears no more than a few times that, if it does not listen.
pub(super) const LONGEST: usize = 32 * 1024;
/// Events that have more than this as JSON lose the ends of their longest texts.
const LONG: usize = 12 * 1024;
const LONG_TEXT: usize = 512;
/// How long to wait for an ear that is full, if it was not so before.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often to try whether it has room again, if nothing happens that is to be said.
const AGAIN: Duration = Duration::from_millis(500);

/// Says what happens on a file in this process.
pub(super) struct Ears {
    /// Known once the file is open.
    path: OnceLock<PathBuf>,
    events: Arc<Hub>,
    clock: Clock,
    talk: Mutex<Option<Talk>>,
}

/// The thread, and how it learns that ears have come or gone. Without the sender it ends.
struct Talk {
    changed: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ears {
    pub(super) fn new(events: Arc<Hub>, clock: Clock) -> Ears {
        Ears { path: OnceLock::new(), events, clock, talk: Mutex::new(None) }
    }

    /// The file is open.
    pub(super) fn of(&self, path: &Path) {
        let _ = self.path.set(path.to_owned());
    }

    /// Ears may have come or gone.
    pub(super) fn look(&self) {
        let Some(Ok(mouth)) = self.path.get().map(|path| Mouth::new(path)) else { return };
        let mut talk = lock(&self.talk);
        if mouth.ears().is_empty() {
            *talk = None;
            return;
        }
        if talk.as_ref().is_none_or(|talk| !talk.is_told()) {
            match self.start(mouth) {
                Ok(started) => *talk = Some(started),
                Err(error) => log::warn!("legwork: nobody hears what happens here: {error}"),
            }
        }
    }

    fn start(&self, mouth: Mouth) -> std::io::Result<Talk> {
        let (changed, told) = bounded(1);
        let (hub, clock) = (Arc::clone(&self.events), self.clock.clone());
        let speaker = Speaker { mouth, clock, ears: Vec::new() };
        // Here and not in the thread: what happens until that runs is heard, too.
        let events = hub.subscribe();
        let thread = thread::Builder::new()
            .name("legwork-ears".into())
            .spawn(move || speaker.talk(&hub, events, &told))?;
        let talk = Talk { changed: Some(changed), thread: Some(thread) };
        talk.is_told();
        Ok(talk)
    }
}

impl Talk {
    /// `false`: the thread is gone.
    fn is_told(&self) -> bool {
        let Some(changed) = &self.changed else { return false };
        // Full: it has still to look, and then it sees this too.
        !matches!(changed.try_send(()), Err(TrySendError::Disconnected(())))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.changed = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("legwork: the thread that tells what happens had panicked");
        }
    }
}

/// An ear, and what it has missed.
struct Ear {
    name: String,
    missed: u64,
}

struct Speaker {
    mouth: Mouth,
    clock: Clock,
    ears: Vec<Ear>,
}

impl Speaker {
    fn talk(mut self, hub: &Hub, events: Events, told: &Receiver<()>) {
        let mut first = Some(events);
        while told.recv().is_ok() {
            // Before the ears are told that they hear something.
            let events = first.take().unwrap_or_else(|| hub.subscribe());
            self.find_ears();
            while !self.ears.is_empty() {
                let lagging = self.ears.iter().any(|ear| ear.missed > 0);
                let again = if lagging { after(AGAIN) } else { never() };
                select! {
                    recv(again) -> _ => self.each_ear(|ear, speaker| ear.is_told_what_it_missed(speaker)),
                    recv(events.from) -> event => match event {
                        Ok(event) => self.say(event, &events),
                        Err(_) => return,
                    },
                    recv(told) -> told => match told {
                        Ok(()) => self.find_ears(),
                        Err(_) => {
                            while let Some(event) = events.try_recv() {
                                self.say(event, &events);
                            }
                            return;
                        }
                    },
                }
            }
        }
    }

    /// Greets those that are new: what happens from now on they hear.
    fn find_ears(&mut self) {
        let names = self.mouth.ears();
        self.ears.retain(|ear| names.contains(&ear.name));
        for name in names {
            if !self.ears.iter().any(|ear| ear.name == name) {
                let mut ear = Ear { name, missed: 0 };
                if ear.hear(&self.mouth, &self.line(json!({ "hello": true })), 0) {
                    self.ears.push(ear);
                }
            }
        }
    }

    /// Says an event, together with those that are waiting behind it.
    fn say(&mut self, event: Event, more: &Events) {
        let (mut lines, mut count, mut next) = (String::new(), 0, Some(event));
        while let Some(event) = next {
            lines += &self.line(as_json(&event));
            count += 1;
            next = if lines.len() < LONGEST - LONG { more.try_recv() } else { None };
        }
        self.each_ear(|ear, speaker| {
            let there = ear.is_told_what_it_missed(speaker);
            if there && ear.missed > 0 {
                ear.missed += count;
                return true;
            }
            there && ear.hear(&speaker.mouth, &lines, count)
        });
    }

    /// `false`: the ear is gone.
    fn each_ear(&mut self, mut is_there: impl FnMut(&mut Ear, &Speaker) -> bool) {
        let mut ears = std::mem::take(&mut self.ears);
        ears.retain_mut(|ear| is_there(ear, self));
        self.ears = ears;
    }

    fn line(&self, mut what: Value) -> String {
        what["process"] = json!(std::process::id());
        what["at"] = json!(self.clock.micros());
        format!("{what}\n")
    }
}

impl Ear {
    /// If it is still full it stays untold. `false`: it is gone.
    fn is_told_what_it_missed(&mut self, speaker: &Speaker) -> bool {
        if self.missed == 0 {
            return true;
        }
        let note = speaker.line(as_json(&Event::Missed(self.missed)));
        let said = speaker.mouth.say(&self.name, note.as_bytes());
        if said == Said::Heard {
            self.missed = 0;
        }
        said != Said::Gone
    }

    /// `false`: it is gone.
    fn hear(&mut self, mouth: &Mouth, lines: &str, count: u64) -> bool {
        let since = Instant::now();
        loop {
            match mouth.say(&self.name, lines.as_bytes()) {
                Said::Heard => return true,
                Said::Gone => return false,
                Said::Full if since.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(1));
                }
                Said::Full => {
                    self.missed += count;
                    return true;
                }
            }
        }
    }
}

/// An event as JSON that fits.
fn as_json(event: &Event) -> Value {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if value.to_string().len() > LONG {
        for field in value.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
            if let Value::String(long) = field {
                *long = text::cut(long, LONG_TEXT);
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::JobId;

    #[test]
    fn an_event_with_long_texts_fits() {
        let long = "\u{1}".repeat(8 * 1024);
        let event = Event::Failed { id: JobId(1), kind: "k".to_owned(), attempts: 1, error: long };
        let value = as_json(&event);
        assert!(value.to_string().len() < LONG);
        assert!(value["error"].as_str().unwrap().ends_with("bytes cut)"));
    }
}
