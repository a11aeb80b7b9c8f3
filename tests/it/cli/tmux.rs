//! A terminal that tmux draws, and what is kept of what was seen there.
//!
//! `LEGWORK_PICTURES=overwrite cargo test` keeps the pictures anew.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::until;
use crate::common::Place;

/// A shell in a terminal of 80 columns and 24 lines.
pub struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// `None`: there is no tmux. CI has it.
    pub fn start(place: &Place) -> Option<Tmux> {
        let found = Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_ok();
        if !found {
            assert!(std::env::var_os("CI").is_none(), "CI must have tmux");
            println!("skipped: there is no tmux here");
            return None;
        }
        let tmux = Tmux { socket: place.file("tmux") };
        let mut start = tmux.command(["-f", "/dev/null", "new-session", "-d", "-x", "80"]);
        let status = start
            .args(["-y", "24", "exec sh"])
            .env("LEGWORK_DB", &place.path)
            .env_remove("NO_COLOR")
            .env_remove("ENV")
            .env_remove("TMUX")
            .current_dir(place.dir.path())
            .status();
        assert!(status.unwrap().success());
        Some(tmux)
    }

    fn command<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).args(args);
        command
    }

    /// Types a line.
    pub fn line(&self, line: &str) {
        assert!(self.command(["send-keys", "-l", line]).status().unwrap().success());
        self.key("Enter");
    }

    pub fn key(&self, key: &str) {
        assert!(self.command(["send-keys", key]).status().unwrap().success());
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        let shown = self.command(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }

    /// Waits until all of this is on the screen, which it returns.
    #[track_caller]
    pub fn until(&self, wanted: &[&str]) -> String {
        let mut screen = String::new();
        until(&format!("{wanted:?} on\n{}", self.screen()), || {
            screen = self.screen();
            wanted.iter().all(|text| screen.contains(text))
        });
        screen
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command(["kill-server"]).status();
    }
}

/// With the picture that is kept under this name.
#[track_caller]
pub fn compare(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/pictures").join(name);
    if std::env::var_os("LEGWORK_PICTURES").is_some_and(|how| how == "overwrite") {
        std::fs::write(&path, drawn).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == kept, "{name} is now\n{drawn}\nand was\n{kept}");
}
