//! Steps and cursors: how a long job goes on where it was.

use std::marker::PhantomData;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Attempt, Context};
use crate::error::{Error, Result};
use crate::failure::{Failure, ResultExt};
use crate::rules::steps::{Named, Refused, Sort, Visits};
use crate::rules::{name, text};
use crate::store::Save;

/// Between two tries to store a result.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a result waits for somebody else's transaction. It ends, since that may be one that this
/// very thread has left open.
const LONGEST_BUSY: Duration = Duration::from_secs(60);

impl<S> Context<S> {
    /// Runs `work` once in the life of the job, and stores what it returns: later attempts, after a
    /// failure, a crash or a restart, get the stored value and do not run it. When this returns, the
    /// value is committed and synced, so that a power cut does not undo it either (see
    /// [`Durability`](crate::Durability)).
    ///
    /// ```
    /// # use legwork::{Context, Failure, JobResult, Outcome};
    /// # struct Shop;
    /// # impl Shop {
    /// #     fn charge(&self, order: i64) -> Result<String, std::io::Error> { Ok("r1".into()) }
    /// #     fn send_receipt(&self, order: i64, receipt: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # }
    /// fn perform(order: i64, cx: &Context<Shop>) -> JobResult {
    ///     let receipt: String = cx.step("charge", || Ok(cx.state().charge(order)?))?;
    ///     cx.step("receipt", || Ok(cx.state().send_receipt(order, &receipt)?))?;
    ///     Ok(Outcome::Done)
    /// }
    /// ```
    ///
    /// An error is not stored: the step runs again in the next attempt. So it does if the process dies after
    /// the work and before the value is stored: what it does outside must bear that, by an idempotency key, say.
    /// If the file cannot be written just then, storing is tried again for as long as the attempt may run
    /// (a foreign lock: for a minute).
    ///
    /// Every attempt must come to its steps in the same order, under the same names, since that is how
    /// they are known again. Names are 1 to 255 bytes without control characters, and each is used once in an
    /// attempt. Steps may stand inside steps; while one is under way, a step in another thread is refused.
    /// Values are JSON of at most 1 MiB. They are kept while the job is not completed, and go with its end.
    ///
    /// An attempt that [should stop](Context::checkpoint) begins no further step. In `perform_now` nothing
    /// is stored, and each step runs.
    ///
    /// # Errors
    /// That of `work`. In the [`Failure`]: [`Error::StepChanged`] if earlier attempts had another step in
    /// this place, and then nothing is run; [`Error::StepValue`] if the stored value does not fit `T`;
    /// [`Error::Invalid`] for a bad name, one that was used before, or a step under way in another thread; an
    /// [`Interrupt`](crate::Interrupt); [`Error::LostClaim`]; those of writing. A value that cannot be
    /// stored, since it has no JSON or too much, fails the job for good: each retry would do the work again.
    ///
    /// A thread that has a write transaction of its own open on the file must not begin a step: it would wait
    /// for itself, and end with [`Error::Busy`].
    pub fn step<T, F>(&self, name: &str, work: F) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Result<T, Failure>,
    {
        let attempt = &self.attempt;
        attempt.jobs.refuse_inside_transaction("step")?;
        let here = attempt.visit(name, Sort::Step)?;
        if let Some(stored) = &here.value {
            return Ok(decode(&here.named, stored)?);
        }
        self.checkpoint()?;
        let under_way = UnderWay::begin(attempt);
        let json = encode("result of a step", &work()?).fatal()?;
        let last = under_way.end();
        if let Some(save) = attempt.save((here.place, last), json.clone(), true) {
            self.keep(&save)?;
            attempt.stored(here.place, last);
        }
        // What later attempts get, in this one too.
        Ok(decode(&here.named, &json)?)
    }

    /// Stores the result of work that has been done. While the file cannot be written it goes on trying,
    /// as long as the attempt may run: otherwise a retry would do the work again.
    fn keep(&self, save: &Save) -> Result<()> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt.jobs.store().save(save.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let again = match error {
                Error::Busy { .. } => began.elapsed() < LONGEST_BUSY,
                // Storing twice what was stored changes nothing.
                Error::OutcomeUnknown(_) => true,
                _ => error.is_transient(),
            };
            if !again || self.wait(pause).is_err() {
                return Err(error);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A place in a long iteration that later attempts go on from.
    ///
    /// ```
    /// # use legwork::{Context, JobResult, Outcome};
    /// fn perform(cx: &Context<Vec<String>>) -> JobResult {
    ///     let cursor = cx.cursor::<usize>("lines")?;
    ///     let first = cursor.get().map_or(0, |last| last + 1);
    ///     for (at, line) in cx.state().iter().enumerate().skip(first) {
    ///         println!("{line}");
    ///         cursor.save(&at)?;
    ///         cx.checkpoint()?;
    ///     }
    ///     Ok(Outcome::Done)
    /// }
    /// ```
    ///
    /// A cursor is a step that goes on: it has its place among the [steps](Context::step), and the same rules
    /// hold for its name and order. In `perform_now` it begins empty and stores nothing.
    ///
    /// # Errors
    /// [`Error::StepChanged`], [`Error::StepValue`], [`Error::Invalid`]; those of reading.
    pub fn cursor<T: Serialize + DeserializeOwned>(&self, name: &str) -> Result<Cursor<T>> {
        let here = self.attempt.visit(name, Sort::Cursor)?;
        let position = match &here.value {
            Some(stored) => Some(decode(&here.named, stored)?),
            None => None,
        };
        let attempt = Arc::clone(&self.attempt);
        Ok(Cursor { attempt, place: here.place, position, saves: PhantomData })
    }
}

/// Where a long iteration is: see [`Context::cursor`].
pub struct Cursor<T> {
    attempt: Arc<Attempt>,
    place: usize,
    position: Option<T>,
    saves: PhantomData<fn(&T)>,
}

impl<T: Serialize + DeserializeOwned> Cursor<T> {
    /// Where the attempts before this one have come to: the last position that they saved; `None` if
    /// there is none. What this attempt saves does not change it.
    pub fn get(&self) -> Option<&T> {
        self.position.as_ref()
    }

    /// Saves the position: committed when it returns, so that it survives a kill. It is not synced: a
    /// power cut may take the job back by the last moments ([`Durability::Strict`](crate::Durability)
    /// syncs it). At most 1 MiB of JSON.
    ///
    /// What was done between two saves is done again after a kill. A save costs some ten microseconds;
    /// where an item costs less, save every so many.
    ///
    /// # Errors
    /// [`Error::LostClaim`] if the job is no longer this attempt's: stop. [`Error::Json`],
    /// [`Error::Invalid`] if it is too large; those of writing.
    pub fn save(&self, position: &T) -> Result<()> {
        self.attempt.jobs.refuse_inside_transaction("save")?;
        let json = encode("position of a cursor", position)?;
        if let Some(save) = self.attempt.save((self.place, self.place), json, false) {
            self.attempt.jobs.store().save(save)?;
            self.attempt.stored(self.place, self.place);
        }
        Ok(())
    }

    /// Saves the position inside the app's transaction on the same file: what the transaction does for
    /// the items up to there happens exactly once. It is as durable as that transaction.
    ///
    /// ```no_run
    /// # use legwork::{Context, JobResult, Outcome};
    /// # fn perform(cx: &Context<()>, mut conn: rusqlite::Connection) -> JobResult {
    /// let cursor = cx.cursor::<i64>("orders")?;
    /// let mut last = cursor.get().copied().unwrap_or(0);
    /// loop {
    ///     let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    ///     let some = "UPDATE orders SET bonus = bonus + 1 WHERE id > ?1 AND id <= ?1 + 100";
    ///     if tx.execute(some, [last])? == 0 { break }
    ///     last += 100;
    ///     cursor.save_in(&tx, &last)?;
    ///     tx.commit()?;
    ///     cx.checkpoint()?;
    /// }
    /// # Ok(Outcome::Done) }
    /// ```
    ///
    /// # Errors
    /// [`Error::LostClaim`] if the job is no longer this attempt's: do not commit. [`Error::Invalid`] if no
    /// transaction is open, [`Error::Foreign`] if the connection is on another file; those of
    /// [`save`](Cursor::save).
    pub fn save_in(&self, tx: &Connection, position: &T) -> Result<()> {
        let json = encode("position of a cursor", position)?;
        match self.attempt.save((self.place, self.place), json, false) {
            // Whether it is stored is up to the app.
            Some(save) => self.attempt.jobs.store().save_in(tx, &save),
            None => Ok(()),
        }
    }
}

/// Where an attempt is among its steps.
struct Here {
    place: usize,
    named: Named,
    /// What an earlier attempt has stored, as JSON.
    value: Option<String>,
}

/// A step whose work has begun; however that ends, it is no longer under way then.
struct UnderWay<'a>(Option<&'a Attempt>);

impl UnderWay<'_> {
    fn begin(attempt: &Attempt) -> UnderWay<'_> {
        if let Some(visits) = &mut *attempt.visits() {
            visits.begin(thread::current().id());
        }
        UnderWay(Some(attempt))
    }

    /// The last place inside it.
    fn end(mut self) -> usize {
        self.end_now()
    }

    fn end_now(&mut self) -> usize {
        let Some(attempt) = self.0.take() else { return 0 };
        attempt.visits().as_mut().map_or(0, Visits::end)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.end_now();
    }
}

impl Attempt {
    fn visits(&self) -> MutexGuard<'_, Option<Visits>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt comes to this step. What earlier ones have stored is read at the first.
    fn visit(&self, step: &str, sort: Sort) -> Result<Here> {
        name::check("step name", step)?;
        let named = Named { name: step.to_owned(), sort };
        let mut steps = self.visits();
        let visits = match &mut *steps {
            Some(visits) => visits,
            none => none.insert(match self.claim {
                Some(claim) => Visits::after(self.jobs.store().step_names(claim.id)?),
                None => Visits::default(),
            }),
        };
        let place = visits
            .visit(named.clone(), thread::current().id())
            .map_err(|refused| self.refused(step, refused))?;
        let value = match self.claim {
            Some(claim) if visits.is_stored(place) => {
                // If it cannot be read the step has not been visited: it can be tried again.
                let value = self.jobs.store().step_value(claim.id, place);
                value.inspect_err(|_| visits.take_back())?
            }
            _ => None,
        };
        if value.is_some() {
            visits.pass_by(place);
        }
        Ok(Here { place, named, value })
    }

    fn refused(&self, step: &str, refused: Refused) -> Error {
        match refused {
            Refused::Twice => Error::invalid(
                "step name",
                format!("`{step}` is used for the second time in this attempt"),
            ),
            Refused::Elsewhere => Error::invalid(
                "step",
                format!("`{step}` is begun while another step is under way in another thread"),
            ),
            Refused::Changed { place, stored, visited } => Error::StepChanged {
                id: self.id(),
                place,
                stored: told(&stored),
                visited: told(&visited),
            },
        }
    }

    /// What is to be stored for a place it has visited, and that ends with the place `last`; `None` in
    /// `perform_now`.
    fn save(&self, (place, last): (usize, usize), value: String, synced: bool) -> Option<Save> {
        let claim = self.claim?;
        let (named, names) = self.visits().as_ref()?.to_store(place, last);
        let at = self.jobs.clock().micros();
        Some(Save { claim, place, named, last, names, value, at, synced })
    }

    fn stored(&self, place: usize, last: usize) {
        if let Some(visits) = &mut *self.visits() {
            visits.is_in_file(place, last);
        }
    }

    /// Whether the file may have steps of the job. A later attempt that came to none, since it found
    /// nothing left to do, may still have inherited some.
    pub(super) fn may_have_steps(&self) -> bool {
        self.had_steps || self.visits().is_some()
    }
}

fn told(named: &Named) -> String {
    format!("{} `{}`", named.sort.word(), named.name)
}

fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<String> {
    let json = serde_json::to_string(value).map_err(|source| Error::Json { what, source })?;
    if json.len() > text::STEP_BYTES {
        let (size, most) = (json.len(), text::STEP_BYTES);
        let why = format!("it has {size} bytes of JSON, at most {most} are kept");
        return Err(Error::invalid(what, why));
    }
    Ok(json)
}

fn decode<T: DeserializeOwned>(named: &Named, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|source| Error::StepValue { step: told(named), source })
}
