//! What is drawn of a model, compared with kept pictures, and what keys do to it.
//!
//! `LEGWORK_PICTURES=overwrite cargo test` draws the pictures anew.

mod pressing;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use time::OffsetDateTime;
use time::macros::datetime;

use super::super::queues::Queue;
use super::act::{Action, Target};
use super::draw;
use super::keys::Wish;
use super::model::{Details, Failed, Mode, Model, Panel, Running, Seen, Setting};
use crate::id::JobId;
use crate::record::{Progress, QueueStats, Scope};
use crate::state::State;

const NOW: OffsetDateTime = datetime!(2026-05-01 12:00 UTC);

fn setting() -> Setting {
    Setting {
        program: "myapp jobs".into(),
        path: "/var/lib/myapp/app.db".into(),
        read_only: false,
        color: false,
    }
}

fn empty() -> Model {
    let mut model = Model::new(setting(), NOW);
    model.see(Seen::default());
    model
}

/// A file in which much happens.
fn busy() -> Model {
    let mut model = Model::new(setting(), NOW);
    for second in 0..=90u64 {
        let finished = second * second / 4;
        let at = Duration::from_secs(second);
        model.throughput.add(at, 1_234_000 + finished);
        model.tick(NOW, at);
    }
    model.see(seen());
    model
}

fn seen() -> Seen {
    let ago = NOW - time::Duration::seconds(200);
    Seen {
        processes: 2,
        workers: 8,
        dead: 1,
        states: BTreeMap::from([
            (State::Ready, 123_456),
            (State::Running, 3),
            (State::Scheduled, 12),
            (State::Retrying, 1),
            (State::Blocked, 4),
            (State::Completed, 1_236_023),
            (State::Failed, 2),
        ]),
        read_at: Duration::from_secs(90),
        counted_at: Duration::from_secs(90),
        oldest_ready: Some(Duration::from_secs(185)),
        queues: queues(),
        paused: vec![Scope::Queue("reports".into())],
        running: vec![
            running(4_711, "welcome_email", r#"{"user_id":7}"#, None),
            running(4_712, "import", r#"{"file":"orders.csv"}"#, Some((450, 1_000, "reading"))),
            running(1_234_567, "legwork.shell", "./upload.sh 'a b'\x1b[2J", Some((7, 0, ""))),
        ],
        failed: vec![
            Failed {
                id: JobId(4_700),
                kind: "日本語日本語日本語".into(),
                state: State::Retrying,
                at: ago,
                error: "connection refused (os error 111) by 192.168.178.27\nat line 7".into(),
            },
            Failed {
                id: JobId(4_699),
                kind: "import".into(),
                state: State::Failed,
                at: ago - time::Duration::hours(3),
                error: "\x1b[31mno such file\x07: 日本語日本語日本語日本語日本語日本語日本語"
                    .into(),
            },
        ],
    }
}

fn queues() -> Vec<Queue> {
    let states = |counts: &[(State, u64)]| counts.iter().copied().collect::<BTreeMap<_, _>>();
    let queue = |name: &str, stats: QueueStats| Queue {
        name: name.into(),
        paused: name == "reports",
        served: name != "mail",
        stats,
    };
    vec![
        queue(
            "default",
            QueueStats {
                states: states(&[(State::Running, 3), (State::Scheduled, 12)]),
                ..QueueStats::default()
            },
        ),
        queue(
            "mail",
            QueueStats {
                states: states(&[(State::Ready, 123_000), (State::Blocked, 4)]),
                gates: BTreeMap::from([("online".to_owned(), 4)]),
                oldest_ready: Some(Duration::from_secs(185)),
            },
        ),
        queue(
            "reports",
            QueueStats {
                states: states(&[(State::Ready, 456), (State::Retrying, 1)]),
                oldest_ready: Some(Duration::from_millis(1_500)),
                ..QueueStats::default()
            },
        ),
    ]
}

fn running(id: i64, kind: &str, about: &str, progress: Option<(u64, u64, &str)>) -> Running {
    Running {
        id: JobId(id),
        kind: kind.into(),
        about: about.into(),
        started_at: NOW - time::Duration::seconds(id % 1_000),
        progress: progress.map(|(done, total, message)| Progress {
            done,
            total,
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        attempt: 1,
        process: Some(4_242),
        stopping: id == 4_711,
    }
}

/// The screen as lines, without the blanks at their ends.
fn picture(model: &Model, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw::draw(model, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..lines {
        let (mut line, mut x) = (String::new(), 0);
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line += symbol;
            // A wide character covers the next cell.
            x += u16::try_from(super::text::width(symbol)).unwrap().max(1);
        }
        assert_eq!(super::text::width(&line), usize::from(columns), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[track_caller]
fn compare(name: &str, model: &Model, (columns, lines): (u16, u16)) {
    let drawn = picture(model, columns, lines);
    let name = format!("{name}_{columns}x{lines}.txt");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/tests/pictures").join(&name);
    if std::env::var_os("LEGWORK_PICTURES").is_some_and(|how| how == "overwrite") {
        std::fs::write(&path, &drawn).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == kept, "{name} is now\n{drawn}\nand was\n{kept}");
}

const SIZES: [(u16, u16); 3] = [(80, 24), (40, 12), (120, 40)];

#[test]
fn a_busy_file_is_drawn_at_each_size() {
    for size in SIZES {
        compare("busy", &busy(), size);
    }
}

#[test]
fn an_empty_file_tells_what_to_do() {
    for size in SIZES {
        compare("empty", &empty(), size);
    }
}

#[test]
fn the_other_panels_have_the_small_screen_to_themselves() {
    let mut model = busy();
    for (panel, name) in [(Panel::Queues, "queues"), (Panel::Failed, "failed")] {
        model.panel = panel;
        compare(name, &model, (40, 12));
    }
}

#[test]
fn many_rows_share_the_screen_and_the_chosen_one_is_seen() {
    let mut model = busy();
    let mut seen = seen();
    seen.running = (0..50).map(|id| running(id, "mail", "{}", Some((id as u64, 50, "")))).collect();
    let one = seen.failed[1].clone();
    seen.failed = (0..50).map(|id| Failed { id: JobId(100 + id), ..one.clone() }).collect();
    model.see(seen);
    model.panel = Panel::Running;
    model.choose(Panel::Running, 30);
    compare("many", &model, (80, 24));
}

#[test]
fn questions_queries_and_notes_stand_at_the_foot() {
    let mut model = busy();
    let job = Target {
        id: JobId(4_712),
        state: State::Running,
        kind: "import".into(),
        about: "{\"file\":\"orders.csv\",\"and\":\"very much more that does not fit in here\"}"
            .into(),
    };
    let foot =
        |model: &Model, columns| picture(model, columns, 12).lines().last().unwrap().to_owned();
    model.mode = Mode::Asking(Action::Cancel(job));
    assert_eq!(
        foot(&model, 80),
        "cancel job 4712, import: {\"file\":\"orders.csv\",\"and\":\"very much more that d…? y/n"
    );
    assert_eq!(foot(&model, 40), "cancel job 4712, import: {\"file\":\"…? y/n");
    model.mode = Mode::Typing("kind:import error:\"日本".into());
    assert_eq!(foot(&model, 80), "/kind:import error:\"日本");
    assert_eq!(foot(&model, 24), "/ind:import error:\"日本");
    model.mode = Mode::Panels;
    model.trouble = Some("the database was locked".into());
    assert_eq!(foot(&model, 80), "the file cannot be read now: the database was locked");
    model.say("job 7\n was \x1b[2Jcancelled");
    assert_eq!(foot(&model, 80), "job 7");
    model.complain("no \x1b[2J");
    assert_eq!(foot(&model, 80), "no \\u{1b}[2J");
}

#[test]
fn help_and_details_lie_over_the_panels() {
    let mut model = busy();
    model.mode = Mode::Help;
    compare("help", &model, (80, 24));
    compare("help", &model, (40, 12));
    model.mode = Mode::Details(Details {
        id: JobId(7),
        lines: (0..40).map(|line| format!("{line:<10} {}", "word ".repeat(line * 2))).collect(),
        top: 1,
    });
    compare("details", &model, (80, 24));
}

#[test]
fn a_frozen_view_and_a_filter_are_told_of() {
    let mut model = busy();
    (model.frozen, model.filter) = (true, "kind:import".into());
    let mut seen = seen();
    seen.failed.clear();
    model.see(seen);
    compare("filtered", &model, (80, 24));
}

#[test]
fn clocks_stand_still_while_it_is_frozen() {
    let mut model = busy();
    model.frozen = true;
    let before = picture(&model, 80, 24);
    model.tick(NOW + time::Duration::HOUR, Duration::from_secs(3_600));
    assert_eq!(picture(&model, 80, 24), before);
    model.frozen = false;
    model.tick(NOW + time::Duration::HOUR, Duration::from_secs(3_690));
    let after = picture(&model, 80, 24);
    assert!(after.contains("oldest 1h 3m") && after.contains("4h 3m ago"), "{after}");
}

#[test]
fn no_colour_means_none() {
    let draw = |color: bool| {
        let mut model = busy();
        model.setting.color = color;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw::draw(&model, frame)).unwrap();
        let cells = terminal.backend().buffer().content().to_vec();
        cells.iter().any(|cell| cell.fg != ratatui::style::Color::Reset)
    };
    assert!(draw(true));
    assert!(!draw(false));
}

#[test]
fn any_size_is_drawn() {
    for columns in (0..130).step_by(7) {
        for lines in 0..30 {
            let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
            for mode in [Mode::Panels, Mode::Help, Mode::Typing("日本語".into())] {
                let mut model = busy();
                model.mode = mode;
                terminal.draw(|frame| draw::draw(&model, frame)).unwrap();
            }
        }
    }
}
