//! The jobs that an engine can run, by kind; here the user's types end and concrete ones begin.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::context::{Attempt, Context};
use crate::error::{Error, Result};
use crate::failure::Failure;
use crate::job::{Job, JobResult};
use crate::kinds::{self, KindOptions};
use crate::new_job::{JobOptions, NewJob};
use crate::rules::name;

type Perform = dyn Fn(&Arc<Attempt>, &str) -> JobResult + Send + Sync;
type Decodes = dyn Fn(&str) -> Result<(), Failure> + Send + Sync;
type NewJobs = dyn Fn(&str) -> serde_json::Result<NewJob> + Send + Sync;
type GaveUp = dyn Fn(&Arc<Attempt>, &str, &Failure) + Send + Sync;

/// One registered kind.
pub(super) struct Handler {
    pub(super) options: JobOptions,
    pub(super) perform: Box<Perform>,
    pub(super) gave_up: Box<GaveUp>,
    pub(super) decodes: Box<Decodes>,
    pub(super) new_job: Box<NewJobs>,
}

#[derive(Default)]
pub(super) struct Registry {
    handlers: HashMap<String, Arc<Handler>>,
}

/// Arguments that no longer fit the type: the job fails for good, keeps them, and can be retried
/// by a build that understands them.
fn decode<J: Job>(args: &str) -> Result<J, Failure> {
    serde_json::from_str(args).map_err(|error| {
        Failure::msg(format!("the arguments do not decode as {}: {error}", J::KIND)).into_fatal()
    })
}

impl Registry {
    pub(super) fn add<J: Job>(&mut self, state: &Arc<J::State>) -> Result<()> {
        let for_perform = Arc::clone(state);
        let for_hook = Arc::clone(state);
        let handler = Arc::new(Handler {
            options: J::options(),
            perform: Box::new(move |attempt, args| {
                let cx = Context::new(Arc::clone(attempt), Arc::clone(&for_perform));
                decode::<J>(args)?.perform(&cx)
            }),
            gave_up: Box::new(move |attempt, args, failure| {
                let cx = Context::new(Arc::clone(attempt), Arc::clone(&for_hook));
                match decode::<J>(args) {
                    Ok(job) => job.gave_up(&cx, failure),
                    Err(_) => {
                        log::debug!("legwork: no gave_up hook for arguments that do not decode")
                    }
                }
            }),
            decodes: Box::new(|args| decode::<J>(args).map(drop)),
            new_job: Box::new(|args| serde_json::from_str::<J>(args).map(NewJob::new)),
        });
        for kind in std::iter::once(&J::KIND).chain(J::ALIASES) {
            name::check("kind", kind)?;
            if self.handlers.insert((*kind).to_owned(), Arc::clone(&handler)).is_some() {
                return Err(Error::invalid("kind", format!("{kind:?} is registered twice")));
            }
        }
        Ok(())
    }

    pub(super) fn kinds(&self) -> HashSet<String> {
        self.handlers.keys().cloned().collect()
    }

    /// What the file is to keep of the kinds, aliases included.
    pub(super) fn options(&self) -> Result<KindOptions> {
        let record = |(kind, handler): (&String, &Arc<Handler>)| {
            Ok((kind.clone(), kinds::to_json(&handler.options)?))
        };
        self.handlers.iter().map(record).collect()
    }

    pub(super) fn get(&self, kind: &str) -> Option<&Arc<Handler>> {
        self.handlers.get(kind)
    }
}
