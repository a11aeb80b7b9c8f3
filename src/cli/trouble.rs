//! What goes wrong, with its exit code and what to do next.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use super::app::App;
use super::output;
use crate::error::Error;
use crate::state::State;

/// A job failed or was cancelled.
pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const NOTHING_MATCHED: u8 = 3;
pub(super) const REFUSED: u8 = 4;
pub(super) const DATABASE: u8 = 5;
pub(super) const NO_WORKER: u8 = 69;
pub(super) const TIMED_OUT: u8 = 124;
/// What is added to a signal's number.
pub(super) const SIGNALLED: u8 = 128;

/// Why a command ends early.
#[derive(Debug)]
pub(super) struct Trouble {
    code: u8,
    /// Empty: there is nothing to say.
    text: String,
    hint: Option<String>,
}

impl Trouble {
    pub(super) fn new(code: u8, text: impl Display) -> Trouble {
        Trouble { code, text: text.to_string(), hint: None }
    }

    pub(super) fn usage(text: impl Display) -> Trouble {
        Trouble::new(USAGE, text)
    }

    /// What to do next.
    pub(super) fn hint(self, hint: impl Display) -> Trouble {
        Trouble { hint: Some(hint.to_string()), ..self }
    }

    /// Said before what to do next.
    pub(super) fn beforehand(self, says: impl Display) -> Trouble {
        let hint = match &self.hint {
            Some(hint) => format!("{says}; {hint}"),
            None => says.to_string(),
        };
        self.hint(hint)
    }

    /// What went wrong, without what to do next.
    #[cfg(feature = "tui")]
    pub(super) fn line(&self) -> &str {
        &self.text
    }

    /// Says it on stderr, in the program's name; the exit code. Texts and hints name `legwork`, however the
    /// program is called.
    pub(super) fn tell(self, app: &App) -> ExitCode {
        if !self.text.is_empty() {
            output::talk(format_args!("{}: {}", app.program, app.named(&self.text)));
        }
        if let Some(hint) = &self.hint {
            output::talk(format_args!("  {}", app.named(hint)));
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        let code = match &error {
            Error::NotFound(_) | Error::UnknownCron(_) | Error::NoFlow(_) => NOTHING_MATCHED,
            Error::WrongState { .. }
            | Error::NotUnique { .. }
            | Error::HeldByParent { .. }
            | Error::FlowEnded(_) => REFUSED,
            Error::Invalid { .. } | Error::Json { .. } => USAGE,
            Error::Timeout { .. } | Error::FlowTimeout { .. } => TIMED_OUT,
            _ => DATABASE,
        };
        let trouble = Trouble::new(code, &error);
        match hint(&error) {
            Some(hint) => trouble.hint(hint),
            None => trouble,
        }
    }
}

fn hint(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NotFound(_) => "see what there is with `legwork list`",
        Error::NotUnique { .. } => "see it with `legwork show ID`",
        Error::NoFlow(_) => "see what there is with `legwork flows list`",
        Error::UnknownCron(_) => "see what there is with `legwork cron list`",
        Error::WrongState { state, verb, .. } if state.is_finished() && *verb != "cancel" => {
            "run it again with `legwork retry ID`, or a copy of it with `legwork clone ID`"
        }
        Error::WrongState { state: State::Running, .. } => {
            "wait for its end with `legwork wait ID`, or stop it with `legwork cancel ID`"
        }
        Error::WrongState { .. } => "see where it stands with `legwork show ID`",
        Error::Json { what: "arguments", source } if source.is_data() => {
            "nothing was stored: they are not what the kind's type in this program takes"
        }
        Error::Invalid { what: "arguments", .. } | Error::Json { what: "arguments", .. } => {
            "a shell takes double quotes away: write JSON between single ones, '{\"user_id\":7}'"
        }
        Error::Busy { .. } => "another program holds the write lock; try again",
        Error::Full(_) => "free some space and try again",
        Error::Newer { .. } => "a newer legwork is needed for it",
        Error::Corrupt(_) => "restore a backup",
        Error::NoDatabase { exists: false, .. } => {
            "`legwork work`, `enqueue` and `run` create a database"
        }
        Error::NoDatabase { exists: true, .. } => {
            "`legwork migrate`, `work`, `enqueue` and `run` make its tables there"
        }
        Error::Foreign { .. } => "name the database with --db FILE or LEGWORK_DB",
        Error::ReadOnly { .. } => "legwork writes to the file and to its directory",
        Error::NetworkFs { .. } => "put the database on a local disk",
        _ => return None,
    })
}

/// Writing to stdout failed. A reader that has seen enough is no trouble.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Trouble::new(0, "")
        } else {
            Trouble::new(DATABASE, format_args!("writing the answer failed: {error}"))
        }
    }
}
