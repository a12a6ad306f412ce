//! An attempt to fill a slot: how it begins, what those wait for who come meanwhile, and how it ends.
//!
//! Owns deadlines, failures and the back-off after them. Does not own the init, which is the caller's, nor who waits for whom,
//! which `wait` knows.
//!
//! # Invariants
//!
//! - Only the attempt whose number the slot is at fills it or fails it.
//! - Who waited for an attempt gets its value or its error, whoever ended it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::MutexGuard;

use super::{Content, Ready, Slot, State, Turn};
use crate::registry::wait::ThreadToken;
use crate::registry::{Author, Expected, InitFailure, RegistryError, Value};

/// Back-off after the second failure in a row; it doubles from there.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
/// The longest back-off: a database that came back is found within this time.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// Which attempt.
    pub(super) attempt: u64,
    pub(super) author: Author,
    pub(super) failure: InitFailure,
    /// How many in a row.
    pub(super) in_a_row: u32,
    /// When the next attempt of the same generation may begin.
    pub(super) next_try: Instant,
}

/// The right, and the duty, to fill a slot. Dropped without a result it counts as a failure.
pub(in crate::registry) struct Attempt {
    slot: Arc<Slot>,
    number: u64,
    author: Author,
    done: bool,
}

impl Slot {
    /// Begins an attempt, unless the same generation has to wait after its failures. Another
    /// generation is other code, and may try at once.
    pub(super) fn begin(
        self: &Arc<Self>,
        state: &mut State,
        author: &Author,
        timeout: Duration,
    ) -> Result<Attempt, RegistryError> {
        let now = Instant::now();
        if let Some(failed) = &state.failed
            && failed.author == *author
            && failed.next_try > now
        {
            return Err(RegistryError::BackingOff {
                key: self.key.clone(),
                attempts: failed.in_a_row,
                retry_in: failed.next_try - now,
                failure: failed.failure.clone(),
            });
        }
        state.attempts += 1;
        state.content = Content::Opening {
            author: author.clone(),
            thread: ThreadToken::current(),
            since: now,
            deadline: now + timeout,
            timeout,
        };
        Ok(Attempt { slot: Arc::clone(self), number: state.attempts, author: author.clone(), done: false })
    }

    /// Waits until `attempt` has ended, and returns what it brought.
    pub(super) fn wait_for(
        &self,
        attempt: u64,
        author: &Author,
        expected: Expected<'_>,
        timeout: Duration,
    ) -> Result<Turn, RegistryError> {
        let begun = Instant::now();
        let mut state = self.state.lock();
        loop {
            if let Some(failed) = &state.failed
                && failed.attempt >= attempt
            {
                return Err(self.init_error(failed));
            }
            let current = state.attempts;
            match &mut state.content {
                Content::Ready(ready) => return self.found(ready, author, expected).map(Turn::Ready),
                Content::Opening { author: maker, deadline, timeout: allowed, .. } if current == attempt => {
                    let (maker, deadline, allowed) = (maker.clone(), *deadline, *allowed);
                    let now = Instant::now();
                    if now >= deadline {
                        self.fail(&mut state, attempt, &maker, InitFailure::TimedOut(allowed));
                        continue;
                    }
                    if now >= begun + timeout {
                        let waited = now - begun;
                        return Err(RegistryError::TimedOut { key: self.key.clone(), author: maker, waited });
                    }
                    self.changed.wait_until(&mut state, deadline.min(begun + timeout));
                }
                // The attempt brought a value that was removed before this caller woke, and perhaps a
                // later attempt is running: the key is as it is for one who comes now.
                Content::Opening { .. } | Content::Empty => return Ok(Turn::Gone),
            }
        }
    }

    /// Empties the slot after a failed attempt and wakes everybody.
    fn fail(&self, state: &mut MutexGuard<'_, State>, attempt: u64, author: &Author, failure: InitFailure) {
        let in_a_row = match &state.failed {
            Some(before) if before.author == *author => before.in_a_row.saturating_add(1),
            _ => 1,
        };
        state.content = Content::Empty;
        state.last_failure = Some((SystemTime::now(), author.clone(), failure.clone()));
        state.failed = Some(Failed {
            attempt,
            author: author.clone(),
            failure,
            in_a_row,
            next_try: Instant::now() + back_off(in_a_row),
        });
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// What the caller of an attempt gets that was given up before it ended: the value that is there instead.
    fn instead_of(
        &self,
        state: &mut State,
        late: &Attempt,
        expected: Expected<'_>,
    ) -> Result<Value, RegistryError> {
        if let Content::Ready(ready) = &mut state.content {
            return self.found(ready, &late.author, expected);
        }
        Err(match state.failed.as_ref().filter(|failed| failed.attempt == late.number) {
            Some(failed) => self.init_error(failed),
            None => RegistryError::Init {
                key: self.key.clone(),
                author: late.author.clone(),
                attempt: 1,
                failure: InitFailure::Late,
            },
        })
    }

    fn init_error(&self, failed: &Failed) -> RegistryError {
        RegistryError::Init {
            key: self.key.clone(),
            author: failed.author.clone(),
            attempt: failed.in_a_row,
            failure: failed.failure.clone(),
        }
    }
}

impl Attempt {
    /// Runs `init`, without any lock, and turns a panic into a failure.
    pub(in crate::registry) fn run(
        &self,
        init: impl FnOnce() -> Result<Value, InitFailure>,
    ) -> Result<Value, InitFailure> {
        crate::panic::catch(init).unwrap_or_else(|message| Err(InitFailure::Panicked(message)))
    }

    /// Ends the attempt with what the init brought.
    pub(in crate::registry) fn finish(
        mut self,
        outcome: Result<Value, InitFailure>,
        expected: Expected<'_>,
        serial: u64,
    ) -> Result<Value, RegistryError> {
        self.done = true;
        let slot = Arc::clone(&self.slot);
        let (outcome, wrong) = match outcome {
            Ok(value) if !expected.accepts(&value) => {
                let made = value.type_name().into_owned();
                (Err(InitFailure::WrongType { expected: expected.name(), made }), Some(value))
            }
            other => (other, None),
        };
        let mut state = slot.state.lock();
        let since = match &state.content {
            Content::Opening { since, .. } if state.attempts == self.number => *since,
            // Given up meanwhile: the result comes too late, whatever it is.
            _ => {
                let instead = slot.instead_of(&mut state, &self, expected);
                drop(state);
                // Dropped without the lock: closing connections takes time.
                drop((outcome, wrong));
                return instead;
            }
        };
        tracing::debug!(key = %slot.key, elapsed = ?since.elapsed(), ok = outcome.is_ok(), "init ended");
        let result = match outcome {
            Ok(value) => {
                state.failed = None;
                state.content = Content::Ready(Ready {
                    value: value.clone(),
                    author: self.author.clone(),
                    at: SystemTime::now(),
                    serial,
                    made_with: expected.policy.into(),
                    users: BTreeMap::new(),
                    reloads_survived: 0,
                });
                if let Content::Ready(ready) = &mut state.content {
                    ready.note_user(&self.author);
                }
                state.made += 1;
                slot.changed.notify_all();
                Ok(value)
            }
            Err(failure) => {
                slot.fail(&mut state, self.number, &self.author, failure);
                let failed = state.failed.as_ref().expect("`fail` has just stored it");
                Err(slot.init_error(failed))
            }
        };
        drop(state);
        drop(wrong);
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.done {
            let slot = Arc::clone(&self.slot);
            let mut state = slot.state.lock();
            if state.attempts == self.number && matches!(state.content, Content::Opening { .. }) {
                let failure = InitFailure::Panicked("the attempt was dropped without a result".to_owned());
                slot.fail(&mut state, self.number, &self.author, failure);
            }
        }
    }
}

/// How long the same generation waits after its `in_a_row`-th failure: nothing after the first, which
/// may have been chance, then doubling.
fn back_off(in_a_row: u32) -> Duration {
    match in_a_row {
        0 | 1 => Duration::ZERO,
        n => FIRST_BACK_OFF.saturating_mul(1 << (n - 2).min(16)).min(LONGEST_BACK_OFF),
    }
}
