//! Gates: conditions of the machine or the app that jobs can wait for.

use crate::error::Result;
use crate::event::Event;
use crate::record::GateRecord;
use crate::rules::name;
use crate::store::Control;

use super::Jobs;
#[cfg(doc)]
use crate::error::Error;
#[cfg(doc)]
use crate::new_job::NewJob;

impl Jobs {
    /// Closes a gate: jobs [with it](NewJob::gate) are not started, durably and in all processes, until it
    /// is opened. They show as `blocked`, and waiting uses no attempt. What runs goes on. A gate that was
    /// never closed is open; closing what is closed changes nothing. However many jobs wait, none is
    /// moved.
    ///
    /// [`EngineBuilder::gate`](crate::EngineBuilder::gate) lets a probe do it.
    ///
    /// ```
    /// # use legwork::{Jobs, NewJob, State};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// jobs.close_gate("online")?;
    /// let id = jobs.enqueue(NewJob::of_kind("upload", serde_json::json!({})).gate("online"))?;
    /// assert_eq!(jobs.get(id)?.state, State::Blocked);
    /// jobs.open_gate("online")?;
    /// assert_eq!(jobs.get(id)?.state, State::Ready);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::InTransaction`]; those of writing.
    pub fn close_gate(&self, name: &str) -> Result<()> {
        self.set_gate(name, false)
    }

    /// Opens a gate: the jobs behind it can be started, at once. Opening what is open changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::InTransaction`]; those of writing.
    pub fn open_gate(&self, name: &str) -> Result<()> {
        self.set_gate(name, true)
    }

    pub(crate) fn set_gate(&self, name: &str, open: bool) -> Result<()> {
        let (verb, name) = (if open { "open_gate" } else { "close_gate" }, name.to_owned());
        self.refuse_inside_transaction(verb)?;
        name::check("gate name", &name)?;
        let control = if open { Control::OpenGate } else { Control::CloseGate };
        if !self.0.store.control(control(name.clone()))?.gate_moved {
            return Ok(());
        }
        log::info!("legwork: {verb} {name:?}");
        self.tell(|| match open {
            true => Event::GateOpened { name },
            false => Event::GateClosed { name },
        });
        Ok(())
    }

    /// The gates, by name: those that are closed, and those that jobs of this file have ever named.
    ///
    /// ```
    /// # use legwork::Jobs;
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// # jobs.close_gate("online")?;
    /// for gate in jobs.gates()? {
    ///     match gate.closed_since {
    ///         Some(since) => println!("{} is closed since {since}", gate.name),
    ///         None => println!("{} is open", gate.name),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of reading.
    pub fn gates(&self) -> Result<Vec<GateRecord>> {
        self.0.store.gates()
    }
}
