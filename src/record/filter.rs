//! Which jobs.

use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::id::{FlowId, JobId};
use crate::state::State;

/// Most names in a path into arguments.
const DEEPEST: usize = 16;
/// Most conditions of the sorts that each are looked at for each job.
const MOST_CONDITIONS: usize = 100;
/// Most names and ids.
const MOST_NAMES: usize = 10_000;

/// Which jobs: every condition that is set must hold, an empty one holds for all.
///
/// ```
/// use legwork::{Filter, State};
/// let filter = Filter::new().state(State::Failed).kind("welcome_email").tag("eu");
/// let filter = filter.error("timed out").arg("to.country", "NO");
/// ```
///
/// Texts are compared without regard to the case of the letters A to Z, and nothing in them stands for
/// anything but itself. A filter of more than 100 conditions on tags, errors, arguments and texts, of more
/// than 10,000 states, kinds, queues and ids, or with a path of more than 16 names is
/// [`Error::Invalid`] where it is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub(crate) ids: Vec<JobId>,
    pub(crate) states: Vec<State>,
    pub(crate) kinds: Vec<String>,
    pub(crate) queues: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) errors: Vec<String>,
    pub(crate) args: Vec<Arg>,
    pub(crate) texts: Vec<String>,
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) until: Option<OffsetDateTime>,
    pub(crate) failed_since: Option<OffsetDateTime>,
    pub(crate) flow: Option<FlowId>,
}

/// What stands at a place in the arguments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arg {
    /// Keys of objects and positions in arrays, from the outside in.
    pub(crate) path: Vec<String>,
    pub(crate) value: String,
}

impl Filter {
    /// All jobs.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// The job with this id; several calls: any of them.
    pub fn id(mut self, id: JobId) -> Filter {
        self.ids.push(id);
        self
    }

    /// Jobs in this state; several calls: in any of them.
    pub fn state(mut self, state: State) -> Filter {
        self.states.push(state);
        self
    }

    /// Jobs of this kind; several calls: of any of them.
    pub fn kind(mut self, kind: impl Into<String>) -> Filter {
        self.kinds.push(kind.into());
        self
    }

    /// Jobs in this queue; several calls: in any of them.
    pub fn queue(mut self, queue: impl Into<String>) -> Filter {
        self.queues.push(queue.into());
        self
    }

    /// Jobs with this tag; several calls: with all of them.
    pub fn tag(mut self, tag: impl Into<String>) -> Filter {
        self.tags.push(tag.into());
        self
    }

    /// Jobs that failed and whose reason contains this text, and jobs of which the last failed attempt
    /// has it in its error, whatever became of them since; several calls: all of them.
    pub fn error(mut self, text: impl Into<String>) -> Filter {
        self.errors.push(text.into());
        self
    }

    /// Jobs with this value at this place in their arguments; several calls: all of them.
    ///
    /// The path is made of the keys of objects and the positions in arrays, from 0, with dots between
    /// them: `"user_id"`, `"to.name"`, `"list.0"`. A key that has a dot itself cannot be named.
    ///
    /// The value is compared whole: with a text as it stands, the case of its letters included, with a
    /// number as a number (`"7"` finds `7`, `7.0` and `"7"`), with `true`, `false` and `null` by
    /// these words. It never equals an array or an object. Arguments that are not JSON match nothing.
    ///
    /// ```
    /// # use legwork::{Filter, Jobs, NewJob};
    /// # fn main() -> legwork::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let jobs = Jobs::open(dir.path().join("app.db"))?;
    /// jobs.enqueue(NewJob::of_kind("mail", serde_json::json!({ "to": { "id": 7 } })))?;
    /// assert_eq!(jobs.count(&Filter::new().arg("to.id", "7"))?, 1);
    /// # Ok(()) }
    /// ```
    pub fn arg(mut self, path: &str, value: impl Into<String>) -> Filter {
        let path = path.split('.').map(str::to_owned).collect();
        self.args.push(Arg { path, value: value.into() });
        self
    }

    /// Jobs that have this text in their kind, their queue, their tags, their arguments or the reason why
    /// they failed or were cancelled; several calls: all of them. Tags and arguments are looked at
    /// as the JSON in which they are stored: a quotation mark in them stands there as `\"`.
    pub fn text(mut self, text: impl Into<String>) -> Filter {
        self.texts.push(text.into());
        self
    }

    /// The members of this flow.
    pub fn flow(mut self, id: FlowId) -> Filter {
        self.flow = Some(id);
        self
    }

    /// Jobs enqueued at or after this.
    pub fn since(mut self, at: OffsetDateTime) -> Filter {
        self.since = Some(at);
        self
    }

    /// Jobs enqueued before this.
    pub fn until(mut self, at: OffsetDateTime) -> Filter {
        self.until = Some(at);
        self
    }

    /// Jobs that failed for good at or after this, and jobs whose last failed attempt ended then.
    pub fn failed_since(mut self, at: OffsetDateTime) -> Filter {
        self.failed_since = Some(at);
        self
    }

    /// # Errors
    /// [`Error::Invalid`] if it is more than one statement should hold.
    pub(crate) fn check(&self) -> Result<()> {
        let names = self.ids.len() + self.states.len() + self.kinds.len() + self.queues.len();
        let conditions = self.tags.len() + self.errors.len() + self.args.len() + self.texts.len();
        let why = if self.args.iter().any(|arg| arg.path.len() > DEEPEST) {
            format!("a path into the arguments has more than {DEEPEST} names")
        } else if conditions > MOST_CONDITIONS {
            format!("{conditions} conditions, and at most {MOST_CONDITIONS} are allowed")
        } else if names > MOST_NAMES {
            format!("{names} names and ids, and at most {MOST_NAMES} are allowed")
        } else {
            return Ok(());
        };
        Err(Error::invalid("filter", why))
    }
}
