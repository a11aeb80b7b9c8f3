//! Keys, and what comes of them.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cli::top::keys::press;

fn code(model: &mut Model, code: KeyCode) -> Option<Wish> {
    press(model, KeyEvent::new(code, KeyModifiers::NONE))
}

fn char(model: &mut Model, c: char) -> Option<Wish> {
    code(model, KeyCode::Char(c))
}

fn control(model: &mut Model, c: char) -> Option<Wish> {
    press(model, KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
}

fn typed(model: &mut Model, text: &str) {
    for c in text.chars() {
        assert_eq!(char(model, c), None);
    }
}

/// The text of the note.
fn note(model: &Model) -> &str {
    model.note.as_ref().map(|note| note.text.as_str()).unwrap_or_default()
}

#[test]
fn it_is_left_from_the_panels() {
    for key in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(code(&mut busy(), key), Some(Wish::Quit));
    }
    let mut model = busy();
    char(&mut model, '?');
    assert_eq!(control(&mut model, 'c'), Some(Wish::Quit), "from anywhere");
    assert_eq!(control(&mut model, 'z'), Some(Wish::Suspend));
    assert_eq!(control(&mut model, 'l'), Some(Wish::Redraw));
}

#[test]
fn the_panels_are_gone_through_both_ways_and_by_number() {
    let mut model = busy();
    let mut seen = Vec::new();
    for key in [KeyCode::Tab, KeyCode::Tab, KeyCode::BackTab, KeyCode::Char('2')] {
        code(&mut model, key);
        seen.push(model.panel);
    }
    assert_eq!(seen, [Panel::Failed, Panel::Queues, Panel::Failed, Panel::Running]);
}

#[test]
fn rows_are_chosen_within_their_panel() {
    let mut model = busy();
    let mut rows = Vec::new();
    for key in [
        KeyCode::Char('j'),
        KeyCode::Down,
        KeyCode::Down,
        KeyCode::Char('k'),
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Up,
    ] {
        code(&mut model, key);
        rows.push(model.chosen(Panel::Running).unwrap());
    }
    assert_eq!(rows, [1, 2, 2, 1, 0, 2, 0, 2, 1]);
    assert_eq!(model.chosen(Panel::Failed), Some(0));
}

#[test]
fn a_job_stays_chosen_wherever_it_goes() {
    let mut model = busy();
    code(&mut model, KeyCode::End);
    let chosen = model.job().unwrap().id;
    let mut moved = seen();
    moved.running.rotate_right(1);
    model.see(moved.clone());
    assert_eq!((model.chosen(Panel::Running), model.job().unwrap().id), (Some(0), chosen));
    moved.running.remove(0);
    model.see(moved);
    assert_eq!(model.chosen(Panel::Running), Some(0), "the one that has taken its place");
    model.see(Seen::default());
    assert_eq!((model.chosen(Panel::Running), model.job()), (None, None));
}

#[test]
fn what_changes_a_job_asks_before() {
    type Make = fn(Target) -> Action;
    let cases: [(char, Panel, Make); 5] = [
        ('r', Panel::Failed, Action::Retry),
        ('n', Panel::Failed, Action::RunNow),
        ('c', Panel::Running, Action::Cancel),
        ('d', Panel::Failed, Action::Delete),
        ('c', Panel::Failed, Action::Cancel),
    ];
    for (key, panel, action) in cases {
        let mut model = busy();
        model.panel = panel;
        let asked = action(model.job().unwrap());
        assert_eq!(char(&mut model, key), None);
        assert_eq!(model.mode, Mode::Asking(asked.clone()));
        assert!(asked.question().contains(&model.job().unwrap().id.to_string()));
        assert_eq!(char(&mut model, 'x'), None, "it goes on asking");
        assert_eq!(model.mode, Mode::Asking(asked.clone()));
        assert_eq!(char(&mut model, 'y'), Some(Wish::Do(asked)));
        assert_eq!(model.mode, Mode::Panels);
    }
}

#[test]
fn esc_and_all_that_is_no_yes_take_it_back() {
    for key in [KeyCode::Esc, KeyCode::Enter, KeyCode::Char('n'), KeyCode::Char('q')] {
        let mut model = busy();
        char(&mut model, 'c');
        assert_eq!(code(&mut model, key), None);
        assert_eq!((&model.mode, note(&model)), (&Mode::Panels, "nothing was changed"));
    }
}

#[test]
fn what_was_asked_is_done_to_the_job_that_was_named() {
    let mut model = busy();
    char(&mut model, 'c');
    let mut other = seen();
    other.running.remove(0);
    model.see(other);
    let Some(Wish::Do(Action::Cancel(job))) = char(&mut model, 'y') else { panic!("{model:?}") };
    assert_eq!(job.id, JobId(4_711));
}

#[test]
fn a_queue_is_paused_and_resumed() {
    let mut model = busy();
    model.panel = Panel::Queues;
    char(&mut model, 'p');
    assert_eq!(model.mode, Mode::Asking(Action::Pause(Scope::Queue("default".into()))));
    code(&mut model, KeyCode::Esc);
    code(&mut model, KeyCode::End);
    char(&mut model, 'p');
    let resume = Action::Resume(Scope::Queue("reports".into()));
    assert_eq!(resume.question(), "resume queue reports");
    assert_eq!(char(&mut model, 'y'), Some(Wish::Do(resume)));
    model.see(Seen { paused: vec![Scope::All], ..seen() });
    char(&mut model, 'p');
    assert_eq!(model.mode, Mode::Asking(Action::Resume(Scope::All)));
}

#[test]
fn what_cannot_be_done_is_said_at_once() {
    let mut model = busy();
    char(&mut model, 'r');
    assert_eq!(note(&model), "cannot retry job 4711: it is running");
    char(&mut model, 'd');
    assert_eq!(note(&model), "cannot delete job 4711: it is running");
    char(&mut model, 'p');
    assert!(note(&model).starts_with("choose a queue first"));
    model.panel = Panel::Failed;
    code(&mut model, KeyCode::Down);
    char(&mut model, 'n');
    assert_eq!(note(&model), "cannot run now job 4699: it is failed");
    char(&mut model, 'c');
    assert_eq!(note(&model), "cannot cancel job 4699: it is failed");
    model.panel = Panel::Queues;
    char(&mut model, 'c');
    assert!(note(&model).starts_with("choose a job first"));
    let mut model = empty();
    char(&mut model, 'c');
    assert_eq!(note(&model), "there is no job here");
    assert_eq!(model.mode, Mode::Panels);
}

#[test]
fn read_only_changes_nothing() {
    for (key, panel) in [('r', Panel::Failed), ('c', Panel::Running), ('p', Panel::Queues)] {
        let mut model = busy();
        model.setting.read_only = true;
        model.panel = panel;
        assert_eq!(char(&mut model, key), None);
        assert_eq!(model.mode, Mode::Panels);
        assert!(note(&model).contains("--read-only"));
    }
}

#[test]
fn a_query_is_typed_understood_and_cleared() {
    let mut model = busy();
    char(&mut model, '/');
    typed(&mut model, "kindd");
    code(&mut model, KeyCode::Backspace);
    typed(&mut model, ":x state:failed");
    assert_eq!(code(&mut model, KeyCode::Enter), None);
    assert!(note(&model).contains("may name no state"));
    control(&mut model, 'u');
    typed(&mut model, "colour:red");
    assert_eq!(code(&mut model, KeyCode::Enter), None);
    assert!(note(&model).contains("there is no such name"));
    control(&mut model, 'u');
    typed(&mut model, "kind:q ");
    assert_eq!(code(&mut model, KeyCode::Enter), Some(Wish::Filter));
    assert_eq!((model.filter.as_str(), &model.mode), ("kind:q", &Mode::Panels));
    char(&mut model, '/');
    assert_eq!(model.mode, Mode::Typing("kind:q".into()), "it can be mended");
    typed(&mut model, "x");
    assert_eq!(code(&mut model, KeyCode::Esc), None);
    assert_eq!(model.filter, "kind:q");
    assert_eq!(code(&mut model, KeyCode::Esc), Some(Wish::Filter));
    assert_eq!(model.filter, "");
    assert_eq!(code(&mut model, KeyCode::Esc), Some(Wish::Quit));
}

#[test]
fn enter_shows_a_job_and_the_jobs_of_a_queue() {
    let mut model = busy();
    assert_eq!(code(&mut model, KeyCode::Enter), Some(Wish::Show(JobId(4_711))));
    model.panel = Panel::Queues;
    assert_eq!(code(&mut model, KeyCode::Enter), Some(Wish::Filter));
    assert_eq!((model.filter.as_str(), model.panel), ("queue:\"default\"", Panel::Running));
    assert_eq!(code(&mut empty(), KeyCode::Enter), None);
}

#[test]
fn what_is_shown_scrolls_and_closes() {
    let mut model = busy();
    let lines = vec![String::new(); 30];
    model.mode = Mode::Details(Details { id: JobId(7), lines, top: 0 });
    let mut tops = Vec::new();
    for key in [KeyCode::Down, KeyCode::PageDown, KeyCode::End, KeyCode::Char('k'), KeyCode::Home] {
        code(&mut model, key);
        let Mode::Details(details) = &model.mode else { panic!("{:?}", model.mode) };
        tops.push(details.top);
    }
    assert_eq!(tops, [1, 11, 29, 28, 0]);
    assert_eq!(char(&mut model, 'c'), None, "no key acts here");
    assert!(matches!(model.mode, Mode::Details(_)));
    assert_eq!(code(&mut model, KeyCode::Esc), None);
    assert_eq!(model.mode, Mode::Panels);
}

#[test]
fn space_freezes_and_goes_on() {
    let mut model = busy();
    for frozen in [true, false] {
        assert_eq!(char(&mut model, ' '), Some(Wish::Freeze));
        assert_eq!(model.frozen, frozen);
    }
}

#[test]
fn help_is_closed_by_any_key() {
    let mut model = busy();
    char(&mut model, '?');
    assert_eq!(model.mode, Mode::Help);
    assert_eq!(char(&mut model, 'q'), None);
    assert_eq!(model.mode, Mode::Panels);
}
