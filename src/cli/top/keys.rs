//! What keys mean.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::{query, trouble::Trouble};
use super::act::Action;
use super::model::{Details, Mode, Model, Panel};
use crate::id::JobId;
use crate::record::{Filter, Scope};

/// How far a page goes.
const PAGE: usize = 10;

/// What the view cannot do by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    /// Back to the shell, until it is brought to the front again.
    Suspend,
    Redraw,
    /// Look at a job.
    Show(JobId),
    /// The model has another filter.
    Filter,
    /// The model is frozen, or no longer.
    Freeze,
    /// It was asked for and agreed to.
    Do(Action),
}

/// A key was pressed.
pub(super) fn press(model: &mut Model, key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    model.note = None;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        match key.code {
            KeyCode::Char('c') => return Some(Wish::Quit),
            KeyCode::Char('z') => return Some(Wish::Suspend),
            KeyCode::Char('l') => return Some(Wish::Redraw),
            KeyCode::Char('u') => {}
            _ => return None,
        }
    }
    // Taken out, and put back unless something takes its place.
    match std::mem::replace(&mut model.mode, Mode::Panels) {
        Mode::Panels => in_panels(model, key.code),
        Mode::Help => None,
        Mode::Typing(text) => typing(model, key, text),
        Mode::Asking(action) => answer(model, key.code, action),
        Mode::Details(details) => {
            scroll(model, key.code, details);
            None
        }
    }
}

fn in_panels(model: &mut Model, key: KeyCode) -> Option<Wish> {
    match key {
        KeyCode::Char('q') => return Some(Wish::Quit),
        KeyCode::Esc if model.filter.is_empty() => return Some(Wish::Quit),
        KeyCode::Esc => return set_filter(model, String::new()),
        KeyCode::Char('?') => model.mode = Mode::Help,
        KeyCode::Char('/') => model.mode = Mode::Typing(model.filter.clone()),
        KeyCode::Char(' ') => {
            model.frozen = !model.frozen;
            return Some(Wish::Freeze);
        }
        KeyCode::Tab => model.panel = model.panel.next(1),
        KeyCode::BackTab => model.panel = model.panel.next(Panel::ALL.len() - 1),
        KeyCode::Char('1') => model.panel = Panel::Queues,
        KeyCode::Char('2') => model.panel = Panel::Running,
        KeyCode::Char('3') => model.panel = Panel::Failed,
        KeyCode::Enter => return open(model),
        KeyCode::Char('r') => on_job(model, Action::Retry),
        KeyCode::Char('n') => on_job(model, Action::RunNow),
        KeyCode::Char('c') => on_job(model, Action::Cancel),
        KeyCode::Char('d') => on_job(model, Action::Delete),
        KeyCode::Char('p') => on_queue(model),
        _ => {
            let row = model.chosen(model.panel).unwrap_or(0);
            if let Some(row) = moved(key, row, model.rows(model.panel)) {
                model.choose(model.panel, row);
            }
        }
    }
    None
}

/// Where a key leads among so many; `None`: it is not one of these.
fn moved(key: KeyCode, from: usize, count: usize) -> Option<usize> {
    let to = match key {
        KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => from + 1,
        KeyCode::PageUp => from.saturating_sub(PAGE),
        KeyCode::PageDown => from + PAGE,
        KeyCode::Home => 0,
        KeyCode::End => count,
        _ => return None,
    };
    Some(to.min(count.saturating_sub(1)))
}

/// A job is shown; a queue's jobs are.
fn open(model: &mut Model) -> Option<Wish> {
    if let Some(queue) = model.queue() {
        let name = queue.name.clone();
        if name.contains('"') {
            model.complain("a name with a quotation mark has to be looked for with /");
            return None;
        }
        model.panel = Panel::Running;
        return set_filter(model, format!("queue:\"{name}\""));
    }
    model.job().map(|job| Wish::Show(job.id))
}

fn on_job(model: &mut Model, action: fn(super::act::Target) -> Action) {
    let Some(job) = model.job() else {
        let why = match model.panel {
            Panel::Queues => {
                "choose a job first: 2 leads to the running ones, 3 to the failed ones"
            }
            _ => "there is no job here",
        };
        return model.complain(why);
    };
    let action = action(job);
    match action.refusal() {
        Some(why) => model.complain(why),
        None => ask(model, action),
    }
}

/// Pauses the queue, or ends what pauses it.
fn on_queue(model: &mut Model) {
    let Some(queue) = model.queue() else {
        return model.complain("choose a queue first: 1 leads to them");
    };
    let one = Scope::Queue(queue.name.clone());
    let paused = model.seen.as_ref().map(|seen| seen.paused.as_slice()).unwrap_or_default();
    let action = if paused.contains(&one) {
        Action::Resume(one)
    } else if paused.contains(&Scope::All) {
        Action::Resume(Scope::All)
    } else {
        Action::Pause(one)
    };
    ask(model, action);
}

fn ask(model: &mut Model, action: Action) {
    if model.setting.read_only {
        return model.complain("nothing can be changed: this view was started with --read-only");
    }
    model.mode = Mode::Asking(action);
}

fn answer(model: &mut Model, key: KeyCode, action: Action) -> Option<Wish> {
    match key {
        KeyCode::Char('y' | 'Y') => return Some(Wish::Do(action)),
        KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc | KeyCode::Enter => {
            model.say("nothing was changed");
        }
        _ => model.mode = Mode::Asking(action),
    }
    None
}

fn typing(model: &mut Model, key: KeyEvent, mut text: String) -> Option<Wish> {
    match key.code {
        KeyCode::Esc => return None,
        KeyCode::Enter => match understood(&text, model.now) {
            Ok(_) => return set_filter(model, text.trim().to_owned()),
            Err(why) => model.complain(why.line()),
        },
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
        KeyCode::Char(c) if !c.is_control() => text.push(c),
        _ => {}
    }
    model.mode = Mode::Typing(text);
    None
}

fn set_filter(model: &mut Model, text: String) -> Option<Wish> {
    model.filter = text;
    Some(Wish::Filter)
}

/// A query for the panels of jobs, which have their states already.
pub(super) fn understood(text: &str, now: time::OffsetDateTime) -> Result<Filter, Trouble> {
    let query = query::parse(&[text.to_owned()], now)?;
    if query.has_state {
        return Err(Trouble::usage(
            "running and failed jobs are shown: the query may name no state",
        ));
    }
    Ok(query.filter)
}

fn scroll(model: &mut Model, key: KeyCode, details: Details) {
    if matches!(key, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q')) {
        return;
    }
    let top = moved(key, details.top, details.lines.len()).unwrap_or(details.top);
    model.mode = Mode::Details(Details { top, ..details });
}
