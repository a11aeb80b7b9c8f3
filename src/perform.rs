//! Running one attempt in the calling thread: through the middleware, with panics caught.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};

use crate::context::Attempt;
use crate::failure::Failure;
use crate::job::JobResult;
use crate::middleware::{Middleware, Next, Running};

thread_local! {
    static PERFORMING: Cell<bool> = const { Cell::new(false) };
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `perform` inside `chain`; a panic becomes a failure with its message and location.
pub(crate) fn perform(
    attempt: &Attempt,
    args: &str,
    chain: &[Arc<dyn Middleware>],
    perform: &dyn Fn() -> JobResult,
) -> JobResult {
    let running = Running {
        id: attempt.id(),
        kind: &attempt.kind,
        queue: &attempt.queue,
        attempt: attempt.number,
        args,
        meta: &attempt.meta,
    };
    catch(|| Next::new(&running, chain, perform).run()).unwrap_or_else(Err)
}

/// Runs `work`, catching a panic as a failure.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    note_locations();
    // A job that runs another with `perform_now` nests.
    let outer = PERFORMING.replace(true);
    // What a panicking job leaves half done is its own: nothing of the engine is behind it.
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    PERFORMING.set(outer);
    done.map_err(|payload: Box<dyn Any + Send>| {
        Failure::panic(payload.as_ref(), PANICKED_AT.take())
    })
}

/// The place of a panic is told to the panic hook alone. Ours is put before the one that is there,
/// once, notes the place if a job is running in the thread, and passes on.
fn note_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if PERFORMING.get() {
                PANICKED_AT.set(info.location().map(ToString::to_string));
            }
            others(info);
        }));
    });
}
