//! Code around every attempt, and before every enqueue.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::id::JobId;
use crate::job::JobResult;
use crate::new_job::NewJob;

/// The attempt that a middleware stands around.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Running<'a> {
    /// The job; [`JobId::UNSTORED`] in `perform_now`.
    pub id: JobId,
    /// Its kind.
    pub kind: &'a str,
    /// Its queue.
    pub queue: &'a str,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Its arguments, as JSON text.
    pub args: &'a str,
    /// Its free keys and values.
    pub meta: &'a BTreeMap<String, String>,
}

/// Code that runs around every attempt: timing, tracing, set-up and clean-up.
///
/// Closures are middleware:
/// ```
/// # use std::time::Instant;
/// # fn main() -> legwork::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let jobs = legwork::Jobs::builder(dir.path().join("app.db"))
///     .middleware(|running: &legwork::Running<'_>, next: legwork::Next<'_>| {
///         let started = Instant::now();
///         let result = next.run();
///         log::info!("{} took {:?}", running.kind, started.elapsed());
///         result
///     })
///     .open()?;
/// # Ok(()) }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Runs the attempt by calling `next.run()`, or decides in its place.
    ///
    /// # Errors
    /// An error counts as the attempt's own.
    fn call(&self, running: &Running<'_>, next: Next<'_>) -> JobResult;
}

impl<F> Middleware for F
where
    F: Fn(&Running<'_>, Next<'_>) -> JobResult + Send + Sync + 'static,
{
    fn call(&self, running: &Running<'_>, next: Next<'_>) -> JobResult {
        self(running, next)
    }
}

/// The rest of an attempt, seen from a middleware.
pub struct Next<'a> {
    running: &'a Running<'a>,
    rest: &'a [Arc<dyn Middleware>],
    perform: &'a dyn Fn() -> JobResult,
}

impl<'a> Next<'a> {
    pub(crate) fn new(
        running: &'a Running<'a>,
        chain: &'a [Arc<dyn Middleware>],
        perform: &'a dyn Fn() -> JobResult,
    ) -> Next<'a> {
        Next { running, rest: chain, perform }
    }

    /// Runs the rest: the middleware further in, and then the job.
    ///
    /// # Errors
    /// The attempt's failure.
    pub fn run(self) -> JobResult {
        match self.rest.split_first() {
            Some((first, rest)) => first.call(self.running, Next { rest, ..self }),
            None => (self.perform)(),
        }
    }
}

/// What [`JobsBuilder::on_enqueue`](crate::JobsBuilder::on_enqueue) takes.
pub(crate) type OnEnqueue = Arc<dyn Fn(NewJob) -> Result<NewJob> + Send + Sync>;
