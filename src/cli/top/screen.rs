//! The terminal while the view has it, and as it was before.

use std::io::{self, Stdout, Write, stdout};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::draw;
use super::model::Model;

/// The alternate screen. It is left when this is dropped, and before a panic of any thread is told.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    /// The view has the terminal.
    on: Arc<AtomicBool>,
}

impl Screen {
    pub(super) fn enter(color: bool) -> io::Result<Screen> {
        // Here it is decided already, by --color and NO_COLOR.
        force_color_output(color);
        let on = Arc::new(AtomicBool::new(false));
        tell_panics_on_the_plain_screen(Arc::clone(&on));
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        let mut screen = Screen { terminal, on };
        screen.take()?;
        Ok(screen)
    }

    fn take(&mut self) -> io::Result<()> {
        self.on.store(true, Ordering::Release);
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        self.terminal.hide_cursor()?;
        self.terminal.clear()
    }

    pub(super) fn draw(&mut self, model: &Model) -> io::Result<()> {
        if self.on.load(Ordering::Acquire) {
            self.terminal.draw(|frame| draw::draw(model, frame))?;
        }
        Ok(())
    }

    /// Draws all of it at the next time.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Stops this process as Ctrl-Z does, until it is continued.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back(&self.on);
        emulate_default_handler(SIGTSTP)?;
        self.take()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&self.on);
    }
}

/// Once, whoever comes first. If the terminal has gone away there is nothing to restore.
fn give_back(on: &AtomicBool) {
    if on.swap(false, Ordering::AcqRel) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = stdout().flush();
    }
}

fn tell_panics_on_the_plain_screen(on: Arc<AtomicBool>) {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        give_back(&on);
        tell(panic);
    }));
}
