//! How an attempt fails: any error, with what the engine must know about it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

/// Why a running job was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupt {
    /// Somebody cancelled the job.
    Cancelled,
    /// The attempt has used up its time-out.
    TimedOut,
    /// The engine is stopping; the job goes back to its queue and the attempt is not counted.
    Stopping,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interrupt::Cancelled => "the job was cancelled",
            Interrupt::TimedOut => "the attempt ran out of time",
            Interrupt::Stopping => "the engine is stopping",
        })
    }
}

impl StdError for Interrupt {}

/// A failed attempt. Any error becomes one through `?`; retry rules look at the error inside.
///
/// ```
/// use legwork::{Failure, ResultExt};
/// fn parse(text: &str) -> Result<u16, Failure> {
///     let port = text.parse::<u16>()?;                    // retried
///     let port = u16::try_from(u32::from(port) * 2).fatal()?; // never retried
///     if port == 0 {
///         return Err(Failure::msg("port 0"));
///     }
///     Ok(port)
/// }
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// assert!(parse("65535").unwrap_err().is_fatal());
/// ```
pub struct Failure {
    cause: Cause,
    fatal: bool,
}

enum Cause {
    Error(Box<dyn StdError + Send + Sync>),
    Panic { message: String, location: Option<String> },
}

impl Failure {
    /// A failure that is only a message.
    pub fn msg(message: impl Into<String>) -> Failure {
        Failure::from_boxed(Box::new(Message(message.into())))
    }

    /// A failure from an error whose type is already erased.
    pub fn from_boxed(error: Box<dyn StdError + Send + Sync>) -> Failure {
        Failure { cause: Cause::Error(error), fatal: false }
    }

    /// Marks the failure as final: the job is `failed` at once, whatever its retry policy says.
    pub fn into_fatal(self) -> Failure {
        Failure { fatal: true, ..self }
    }

    /// Whether retrying was ruled out by [`into_fatal`](Failure::into_fatal) or
    /// [`.fatal()`](ResultExt::fatal).
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// Whether the job panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.cause, Cause::Panic { .. })
    }

    /// The request to stop that the job passed on with `cx.checkpoint()?`, if that is what ended
    /// the attempt.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.find::<Interrupt>().copied()
    }

    /// The first error of type `E` in the failure's chain of sources, the error itself included.
    pub fn find<E: StdError + 'static>(&self) -> Option<&E> {
        self.chain().find_map(|error| error.downcast_ref::<E>())
    }

    /// The error and its sources, outermost first; empty for a panic.
    pub fn chain(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let first: Option<&(dyn StdError + 'static)> = match &self.cause {
            Cause::Error(error) => Some(error.as_ref()),
            Cause::Panic { .. } => None,
        };
        let mut next = first;
        std::iter::from_fn(move || {
            let error = next?;
            next = error.source();
            Some(error)
        })
    }

    /// The whole chain as one text, `outer: inner: innermost`, as it is stored with the attempt.
    pub(crate) fn report(&self) -> String {
        match &self.cause {
            Cause::Panic { .. } => self.to_string(),
            Cause::Error(_) => {
                let mut report = String::new();
                for error in self.chain() {
                    let text = error.to_string();
                    // Many errors repeat their source in their own text; say it once.
                    if report.ends_with(&text) {
                        continue;
                    }
                    if !report.is_empty() {
                        report.push_str(": ");
                    }
                    report.push_str(&text);
                }
                report
            }
        }
    }

    pub(crate) fn panic(payload: &(dyn Any + Send), location: Option<String>) -> Failure {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        Failure { cause: Cause::Panic { message, location }, fatal: false }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::from_boxed(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Error(error) => error.fmt(f),
            Cause::Panic { message, location: Some(at) } => {
                write!(f, "panicked at {at}: {message}")
            }
            Cause::Panic { message, location: None } => write!(f, "panicked: {message}"),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("report", &self.report())
            .field("fatal", &self.fatal)
            .finish()
    }
}

#[derive(Debug)]
struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Message {}

/// `.fatal()` on any result whose error can become a [`Failure`].
pub trait ResultExt<T> {
    /// Turns the error into a [`Failure`] that is never retried.
    ///
    /// # Errors
    /// The given error, marked as final.
    fn fatal(self) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> ResultExt<T> for Result<T, E> {
    fn fatal(self) -> Result<T, Failure> {
        self.map_err(|error| error.into().into_fatal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("sending failed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_found_anywhere_in_the_chain_and_reported_whole() {
        let failure = Failure::from(Outer(std::io::Error::other("connection refused")));
        assert!(failure.find::<std::io::Error>().is_some());
        assert!(failure.find::<Interrupt>().is_none());
        assert_eq!(failure.report(), "sending failed: connection refused");
    }

    #[test]
    fn a_checkpoint_that_was_wrapped_is_still_an_interrupt() {
        #[derive(Debug, thiserror::Error)]
        #[error("export")]
        struct Wrapped(#[from] Interrupt);
        let failure = Failure::from(Wrapped(Interrupt::TimedOut));
        assert_eq!(failure.interrupt(), Some(Interrupt::TimedOut));
    }
}
