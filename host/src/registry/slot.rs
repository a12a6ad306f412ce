//! One slot: empty, being filled by one attempt, or holding a value.
//!
//! # Invariants
//!
//! - One attempt at a time. An attempt has a number; only the attempt that the slot is at may fill it,
//!   so a late result of one that was given up is dropped.
//! - A slot that has left the registry is never filled: whoever still holds it looks for the key again.
//! - The state's lock is held for a few assignments, never while an init runs or a value is dropped.
//! - Every way out of an attempt (value, error, panic, given up) wakes all who wait for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::data::Tenure;
use super::policy::{self, Fit, MadeWith, Policy};
use super::service::Interface;
use super::wait::{Graph, ThreadToken};
use super::{Author, Expected, InitFailure, Key, RegistryError, Value, What, redact, unix_ms};

/// Back-off after the second failure in a row; it doubles from there.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
/// The longest back-off: a database that came back is found within this time.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// A slot of the registry.
#[derive(Debug)]
pub(super) struct Slot {
    key: Key,
    /// The slot whose place it is to take.
    old: Option<Weak<Slot>>,
    state: Mutex<State>,
    /// Signalled whenever an attempt ends.
    changed: Condvar,
    /// Look-ups that found the value. Written by `turn` and `peek`, read by faces.
    hits: AtomicU64,
    /// Failed attempts since the slot exists. Written by `fail`, read by faces.
    failures: AtomicU64,
}

#[derive(Debug)]
struct State {
    content: Content,
    /// Set once, when the slot leaves the registry. It is empty then.
    is_gone: bool,
    /// Values made under the key, in this slot and those whose place it took.
    made: u64,
    /// Number of the last attempt that began.
    attempts: u64,
    /// The last failure, until a value is made.
    failed: Option<Failed>,
    /// The last failure ever, for faces.
    last_failure: Option<(SystemTime, Author, InitFailure)>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Opening { author: Author, thread: ThreadToken, since: Instant, deadline: Instant, timeout: Duration },
    Ready(Ready),
}

#[derive(Debug)]
struct Ready {
    value: Value,
    author: Author,
    at: SystemTime,
    serial: u64,
    made_with: MadeWith,
    /// Plugins that have used the value.
    users: BTreeMap<Arc<str>, User>,
    reloads_survived: u64,
}

/// What is known of a plugin that has used a value.
#[derive(Clone, Copy, Debug)]
struct User {
    /// The newest generation that has asked for it.
    asked: u64,
    /// The generation that the plugin is at; `None` once it is gone.
    current: Option<u64>,
}

impl Ready {
    /// Whether nobody has asked for the value since those who know it were reloaded.
    fn is_orphan(&self) -> bool {
        self.users.values().all(|user| user.current.is_none_or(|current| user.asked < current))
    }

    fn note_user(&mut self, author: &Author) {
        if let Some(user) = self.users.get_mut(&author.plugin) {
            user.asked = user.asked.max(author.generation);
            // One of this name is back.
            user.current = Some(user.current.unwrap_or(author.generation));
        } else {
            let user = User { asked: author.generation, current: Some(author.generation) };
            self.users.insert(Arc::clone(&author.plugin), user);
        }
    }
}

#[derive(Clone, Debug)]
struct Failed {
    /// Which attempt.
    attempt: u64,
    author: Author,
    failure: InitFailure,
    /// How many in a row.
    in_a_row: u32,
    /// When the next attempt of the same generation may begin.
    next_try: Instant,
}

/// What a caller of a slot has to do.
pub(super) enum Turn {
    /// Nothing: here is the value.
    Ready(Value),
    /// Make the value.
    Init(Attempt),
    /// Look for the key again: this slot, or the value that was waited for, has left the registry.
    Gone,
}

/// The right, and the duty, to fill a slot. Dropped without a result it counts as a failure.
pub(super) struct Attempt {
    slot: Arc<Slot>,
    number: u64,
    author: Author,
    done: bool,
}

/// A slot as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SlotInfo {
    /// Namespace; empty for the common one.
    pub module: String,
    /// Name within the module.
    pub key: String,
    /// What the slot is at.
    pub state: SlotState,
    /// Name of the value's type.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// How the value survives.
    pub kind: Option<&'static str>,
    /// Who made the value.
    pub created_by: Option<AuthorInfo>,
    /// When, in milliseconds since the Unix epoch.
    pub created_at_ms: Option<u64>,
    /// Look-ups that found the value.
    pub hits: u64,
    /// Failed attempts since the slot exists.
    pub failures: u64,
    /// Values made under the key: 1 says that it was connected once.
    pub made: u64,
    /// Reloads, of plugins that use it, since the value was made.
    pub reloads_survived: u64,
    /// Plugins that have used the value.
    pub used_by: Vec<String>,
    /// Whether nobody has asked for the value since those plugins were reloaded, or they are gone.
    pub is_orphan: bool,
    /// When it makes room for a new one: `keep`, `restart` with each reload, `configuration`.
    pub policy: Option<&'static str>,
    /// The configuration it was made from, without secrets.
    pub config: Option<serde_json::Value>,
    /// Milliseconds since the init that is running began.
    pub opening_ms: Option<u64>,
    /// The last failure, if there ever was one.
    pub last_error: Option<FailureInfo>,
    /// What the value says of itself.
    pub value: Option<serde_json::Value>,
}

/// What a slot is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Nobody has made a value, or it was removed.
    Empty,
    /// An init is running.
    Opening,
    /// It holds a value.
    Ready,
    /// The last attempts failed; the next try is not due yet.
    BackingOff,
}

/// An [`Author`] as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AuthorInfo {
    /// Name of the plugin.
    pub plugin: String,
    /// Number of the generation.
    pub generation: u64,
}

/// A failed attempt as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FailureInfo {
    /// What happened.
    pub message: String,
    /// Whose init it was.
    pub by: AuthorInfo,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Failures in a row so far; 0 once a value was made.
    pub attempts: u32,
    /// Milliseconds until the next attempt may begin; 0: now.
    pub next_try_in_ms: u64,
}

impl From<&Author> for AuthorInfo {
    fn from(author: &Author) -> AuthorInfo {
        AuthorInfo { plugin: author.plugin.to_string(), generation: author.generation }
    }
}

impl Slot {
    pub(super) fn new(key: Key) -> Slot {
        Slot {
            key,
            old: None,
            state: Mutex::new(State {
                content: Content::Empty,
                is_gone: false,
                made: 0,
                attempts: 0,
                failed: None,
                last_failure: None,
            }),
            changed: Condvar::new(),
            hits: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// A slot that is to take the place of `old`.
    pub(super) fn succeeding(old: &Arc<Slot>) -> Slot {
        let slot = Slot { old: Some(Arc::downgrade(old)), ..Slot::new(old.key.clone()) };
        slot.state.lock().made = old.state.lock().made;
        slot
    }

    /// Whether it is to take the place of `old`.
    pub(super) fn succeeds(&self, old: &Arc<Slot>) -> bool {
        self.old.as_ref().is_some_and(|of| std::ptr::eq(of.as_ptr(), Arc::as_ptr(old)))
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Leaves the registry, unless it is being filled: then `None`. Else the value, if there is one.
    pub(super) fn leave(&self) -> Option<Option<Value>> {
        let mut state = self.state.lock();
        let value = match std::mem::replace(&mut state.content, Content::Empty) {
            Content::Opening { author, thread, since, deadline, timeout } => {
                state.content = Content::Opening { author, thread, since, deadline, timeout };
                return None;
            }
            Content::Ready(ready) => Some(ready.value),
            Content::Empty => None,
        };
        state.is_gone = true;
        Some(value)
    }

    /// Leaves the registry if it is empty; tells whether it did.
    pub(super) fn leave_if_empty(&self) -> bool {
        let mut state = self.state.lock();
        let is_empty = matches!(state.content, Content::Empty);
        state.is_gone |= is_empty;
        is_empty
    }

    /// Whether the slot holds a value or is being filled.
    pub(super) fn is_taken(&self) -> bool {
        !matches!(self.state.lock().content, Content::Empty)
    }

    /// The thread that runs `attempt`, if the slot is at that attempt.
    pub(super) fn owner(&self, attempt: u64) -> Option<ThreadToken> {
        let state = self.state.lock();
        match &state.content {
            Content::Opening { thread, .. } if state.attempts == attempt => Some(*thread),
            _ => None,
        }
    }

    /// Finds out what a caller has to do: waits for a running attempt, or begins one.
    pub(super) fn turn(
        self: &Arc<Self>,
        author: &Author,
        expected: Expected<'_>,
        timeout: Duration,
        waits: &Graph,
    ) -> Result<Turn, RegistryError> {
        let mut state = self.state.lock();
        if state.is_gone {
            return Ok(Turn::Gone);
        }
        match &mut state.content {
            Content::Ready(ready) => return self.found(ready, author, expected).map(Turn::Ready),
            Content::Opening { .. } => {}
            Content::Empty => return self.begin(&mut state, author, timeout).map(Turn::Init),
        }
        let attempt = state.attempts;
        drop(state);

        let wait = waits
            .announce(self, attempt)
            .map_err(|path| RegistryError::Recursive { key: self.key.clone(), path })?;
        let outcome = self.wait_for(attempt, author, expected, timeout);
        drop(wait);
        outcome
    }

    /// The value, if there is one; counts as a use.
    pub(super) fn peek(
        &self,
        author: &Author,
        expected: Expected<'_>,
    ) -> Option<Result<Value, RegistryError>> {
        match &mut self.state.lock().content {
            Content::Ready(ready) => Some(self.found(ready, author, expected)),
            _ => None,
        }
    }

    /// What the value is to a caller, by the rules of its key. An empty slot suits everybody.
    pub(super) fn fit(&self, author: &Author, expected: Expected<'_>) -> Fit {
        match &self.state.lock().content {
            Content::Ready(ready) => {
                policy::fit(&self.key, &ready.made_with, &ready.author, author, expected)
            }
            _ => Fit::Use,
        }
    }

    /// Whether a caller may use what it was just given.
    pub(super) fn suits(&self, author: &Author, expected: Expected<'_>) -> bool {
        !matches!(self.fit(author, expected), Fit::Replace)
    }

    /// Takes the value out, with its number in the order of creation.
    pub(super) fn take(&self) -> Option<(u64, Value)> {
        self.take_with_author().map(|(serial, value, _)| (serial, value))
    }

    /// As `take`, with who made it.
    pub(super) fn take_with_author(&self) -> Option<(u64, Value, Author)> {
        self.take_if(|_| true)
    }

    /// Takes the value out if `maker` made it.
    pub(super) fn take_of(&self, maker: &Author) -> Option<Value> {
        self.take_if(|author| author == maker).map(|(_, value, _)| value)
    }

    fn take_if(&self, is_meant: impl FnOnce(&Author) -> bool) -> Option<(u64, Value, Author)> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.content, Content::Empty) {
            Content::Ready(ready) if is_meant(&ready.author) => {
                Some((ready.serial, ready.value, ready.author))
            }
            other => {
                state.content = other;
                None
            }
        }
    }

    /// Whether a service of this interface may take the place of what is there.
    pub(super) fn may_become(&self, interface: &Interface) -> Result<(), RegistryError> {
        match &self.state.lock().content {
            Content::Ready(Ready { value: Value::Service(service), .. })
                if service.interface().name == interface.name =>
            {
                Ok(())
            }
            Content::Ready(ready) => Err(RegistryError::WrongType {
                key: self.key.clone(),
                found: ready.value.type_name().into_owned(),
                expected: interface.type_name(),
                author: ready.author.clone(),
            }),
            Content::Empty | Content::Opening { .. } => Ok(()),
        }
    }

    /// Puts a value in, whatever is there, and returns what was. An attempt that runs comes too late.
    pub(super) fn put(&self, value: Value, author: Author, serial: u64) -> Option<Value> {
        let mut state = self.state.lock();
        state.attempts += 1;
        state.failed = None;
        state.made += 1;
        let mut fresh = Ready {
            value,
            author: author.clone(),
            at: SystemTime::now(),
            serial,
            made_with: Policy::default().into(),
            users: BTreeMap::new(),
            reloads_survived: 0,
        };
        if let Content::Ready(ready) = &mut state.content {
            // Who used the old one will ask for the new one.
            fresh.users.append(&mut ready.users);
        }
        fresh.note_user(&author);
        let old = std::mem::replace(&mut state.content, Content::Ready(fresh));
        self.changed.notify_all();
        match old {
            Content::Ready(ready) => Some(ready.value),
            Content::Empty | Content::Opening { .. } => None,
        }
    }

    /// The data in the slot, if that is what it holds.
    pub(super) fn data(&self) -> Option<Arc<Tenure>> {
        match &self.state.lock().content {
            Content::Ready(Ready { value: Value::Data(tenure), .. }) => Some(Arc::clone(tenure)),
            _ => None,
        }
    }

    /// Plugins other than `plugin` that have used the value.
    pub(super) fn other_users(&self, plugin: &str) -> Vec<Arc<str>> {
        match &self.state.lock().content {
            Content::Ready(ready) => ready.users.keys().filter(|user| ***user != *plugin).cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Puts upgraded data in the place of the old, or nothing if `new` is `None`; false if something else is
    /// there by now.
    pub(super) fn replace(&self, old: &Arc<Tenure>, new: Option<Arc<Tenure>>) -> bool {
        let mut state = self.state.lock();
        let is_there = matches!(&state.content,
            Content::Ready(Ready { value: Value::Data(tenure), .. }) if Arc::ptr_eq(tenure, old));
        if !is_there {
            return false;
        }
        // The old value is `old`'s still: nothing is dropped under the lock.
        match (&mut state.content, new) {
            (Content::Ready(ready), Some(new)) => ready.value = Value::Data(new),
            (content, _) => *content = Content::Empty,
        }
        true
    }

    pub(super) fn note_reload(&self, plugin: &str, generation: u64) {
        if let Content::Ready(ready) = &mut self.state.lock().content
            && let Some(user) = ready.users.get_mut(plugin)
        {
            user.current = Some(generation);
            ready.reloads_survived += 1;
        }
    }

    pub(super) fn note_gone(&self, plugin: &str) {
        if let Content::Ready(ready) = &mut self.state.lock().content
            && let Some(user) = ready.users.get_mut(plugin)
        {
            user.current = None;
        }
    }

    fn found(
        &self,
        ready: &mut Ready,
        author: &Author,
        expected: Expected<'_>,
    ) -> Result<Value, RegistryError> {
        if let (Value::Data(tenure), What::Data(ty)) = (&ready.value, expected.what)
            && let (found, owner) = tenure.owner()
            && found.is_akin(ty)
        {
            if !found.is_same(ty) {
                return Err(RegistryError::Outdated {
                    key: self.key.clone(),
                    type_name: ty.name().to_owned(),
                    author: owner,
                    reason: found.difference(ty),
                });
            }
        } else if let (Value::Service(service), What::Service(interface)) = (&ready.value, expected.what)
            && service.interface().name == interface.name
        {
            if service.interface() != interface {
                return Err(RegistryError::Interface {
                    key: self.key.clone(),
                    author: service.maker().clone(),
                    found: service.interface().clone(),
                    expected: interface.clone(),
                });
            }
        } else if !expected.accepts(&ready.value) {
            return Err(RegistryError::WrongType {
                key: self.key.clone(),
                found: ready.value.type_name().into_owned(),
                expected: expected.name(),
                author: ready.author.clone(),
            });
        }
        ready.note_user(author);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Ok(ready.value.clone())
    }

    /// Begins an attempt, unless the same generation has to wait after its failures. Another
    /// generation is other code, and may try at once.
    fn begin(
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
    fn wait_for(
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

    /// The slot as the faces show it. Describes the value without the lock.
    pub(super) fn info(&self) -> SlotInfo {
        let now = Instant::now();
        let state = self.state.lock();
        let next_try =
            state.failed.as_ref().map_or(Duration::ZERO, |f| f.next_try.saturating_duration_since(now));
        let attempts = state.failed.as_ref().map_or(0, |f| f.in_a_row);
        let mut info = SlotInfo {
            module: self.key.module.to_string(),
            key: self.key.name.to_string(),
            state: match &state.content {
                Content::Ready(_) => SlotState::Ready,
                Content::Opening { .. } => SlotState::Opening,
                Content::Empty if next_try.is_zero() => SlotState::Empty,
                Content::Empty => SlotState::BackingOff,
            },
            type_name: None,
            kind: None,
            created_by: None,
            created_at_ms: None,
            hits: self.hits.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            made: state.made,
            reloads_survived: 0,
            used_by: Vec::new(),
            is_orphan: false,
            policy: None,
            config: None,
            opening_ms: None,
            last_error: state.last_failure.as_ref().map(|(at, by, failure)| FailureInfo {
                message: failure.to_string(),
                by: by.into(),
                at_ms: unix_ms(*at),
                attempts,
                next_try_in_ms: u64::try_from(next_try.as_millis()).unwrap_or(u64::MAX),
            }),
            value: None,
        };
        let mut value = None;
        let mut config = None;
        if let Content::Ready(ready) = &state.content {
            info.type_name = Some(ready.value.type_name().into_owned());
            info.kind = Some(ready.value.kind());
            info.created_by = Some((&ready.author).into());
            info.created_at_ms = Some(unix_ms(ready.at));
            info.reloads_survived = ready.reloads_survived;
            info.used_by = ready.users.keys().map(ToString::to_string).collect();
            info.is_orphan = ready.is_orphan();
            info.policy = Some(ready.made_with.name());
            config = ready.made_with.config.clone();
            value = Some(ready.value.clone());
        } else if let Content::Opening { author, since, .. } = &state.content {
            info.created_by = Some(author.into());
            info.opening_ms = Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        drop(state);
        info.config = config.map(|config| redact::shown(&config));
        info.value = value.map(|value| value.describe());
        info
    }
}

impl Attempt {
    /// Runs `init`, without any lock, and turns a panic into a failure.
    pub(super) fn run(
        &self,
        init: impl FnOnce() -> Result<Value, InitFailure>,
    ) -> Result<Value, InitFailure> {
        crate::panic::catch(init).unwrap_or_else(|message| Err(InitFailure::Panicked(message)))
    }

    /// Ends the attempt with what the init brought.
    pub(super) fn finish(
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
