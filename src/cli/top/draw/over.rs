//! What lies over the panels: the help, and all about a job.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::super::model::{Details, Model};
use super::super::text::{clip, wrap};
use super::{DIM, REVERSED};

const MOVING: [(&str, &str); 7] = [
    ("Tab, 1 2 3", "another panel"),
    ("arrows j k", "another row; PgUp PgDn Home End"),
    ("Enter", "all about the job; a queue's jobs"),
    ("/", "only jobs that match, as in `list`"),
    ("Esc", "all jobs again; otherwise leave"),
    ("Space", "freeze what is shown, and go on"),
    ("q, Ctrl-C", "leave; Ctrl-Z: to the shell"),
];

const CHANGING: [(&str, &str); 5] = [
    ("r", "retry the job, with all its attempts"),
    ("n", "make its next attempt now"),
    ("c", "cancel the job"),
    ("d", "delete the job"),
    ("p", "pause the queue, or resume it"),
];

pub(super) fn help(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let mut lines = lines(&MOVING);
    if model.setting.read_only {
        lines.push("Started with --read-only: nothing is changed.".to_owned());
    } else {
        lines.extend(self::lines(&CHANGING));
    }
    show(frame, area, "help", &lines);
}

fn lines(keys: &[(&str, &str)]) -> Vec<String> {
    keys.iter().map(|(key, does)| format!("{key:<11} {does}")).collect()
}

pub(super) fn details(details: &Details, frame: &mut Frame<'_>, area: Rect) {
    let wide = usize::from(area.width);
    let rest = details.lines.iter().skip(details.top).take(usize::from(area.height));
    let lines: Vec<String> = rest
        .flat_map(|line| if line.is_empty() { vec![String::new()] } else { wrap(line, wide) })
        .collect();
    show(frame, area, &format!("job {}", details.id), &lines);
}

fn show(frame: &mut Frame<'_>, area: Rect, title: &str, lines: &[String]) {
    let title = Span::styled(format!(" {title} "), REVERSED);
    let block = Block::new().borders(Borders::TOP).border_style(DIM).title(title);
    let wide = usize::from(area.width);
    let lines: Vec<Line<'_>> = lines.iter().map(|line| Line::raw(clip(line, wide))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
