//! One slot: empty, being filled by one attempt, or holding a value.
//!
//! # Invariants
//!
//! - One attempt at a time. An attempt has a number; only the attempt that the slot is at may fill it,
//!   so a late result of one that was given up is dropped.
//! - A slot that has left the registry is never filled: whoever still holds it looks for the key again.
//! - The state's lock is held for a few assignments, never while an init runs or a value is dropped.
//! - Every way out of an attempt (value, error, panic, given up) wakes all who wait for it.

mod attempt;
mod info;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

pub(super) use self::attempt::Attempt;
use self::attempt::Failed;
pub use self::info::{SlotInfo, SlotState};
use super::data::{DataType, Tenure};
use super::policy::{self, Fit, MadeWith, Policy};
use super::service::Interface;
use super::wait::{Graph, ThreadToken};
use super::{Author, Expected, InitFailure, Key, RegistryError, Value, What};

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
    /// The generation that has asked for it first.
    since: u64,
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
            let asked = author.generation;
            let user = User { since: asked, asked, current: Some(asked) };
            self.users.insert(Arc::clone(&author.plugin), user);
        }
    }
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
                let is_makers_gone =
                    ready.users.get(&ready.author.plugin).is_some_and(|of| of.current.is_none());
                let maker = (!is_makers_gone).then_some(&ready.author);
                policy::fit(&self.key, &ready.made_with, maker, author, expected)
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

    /// Notes a use by a generation that serves.
    pub(super) fn note_user(&self, author: &Author) {
        if let Content::Ready(ready) = &mut self.state.lock().content {
            ready.note_user(author);
        }
    }

    /// Plugins other than `plugin` that use the value, each with its generation. Those that are gone use nothing.
    pub(super) fn other_users(&self, plugin: &str) -> Vec<Author> {
        let Content::Ready(ready) = &self.state.lock().content else { return Vec::new() };
        let others = ready.users.iter().filter(|(user, _)| ***user != *plugin);
        let alive = others.filter_map(|(user, known)| Some((user, known.current?)));
        alive.map(|(plugin, generation)| Author { plugin: Arc::clone(plugin), generation }).collect()
    }

    /// Says that a plugin has gone back to code that served as generation `origin`: where later code has asked for the value
    /// first, and this has not, the plugin does not use it.
    pub(super) fn note_roll_back(&self, plugin: &str, origin: u64) {
        if let Content::Ready(ready) = &mut self.state.lock().content {
            ready.users.retain(|user, known| {
                let asks = known.current.is_none_or(|current| known.asked >= current);
                **user != *plugin || known.since <= origin || asks
            });
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
        } else if let (Value::Data(tenure), What::Data(ty)) = (&ready.value, expected.what) {
            let found = tenure.owner().0;
            let is_told_apart = found.name() != ty.name();
            let shown =
                |of: &DataType| -> Box<str> { if is_told_apart { of.name() } else { of.full_name() }.into() };
            return Err(RegistryError::OtherData {
                key: self.key.clone(),
                found: shown(&found),
                path: found.full_name().split('<').next().unwrap_or_default().into(),
                expected: shown(ty),
                author: ready.author.clone(),
            });
        } else if !expected.accepts(&ready.value) {
            return Err(RegistryError::WrongType {
                key: self.key.clone(),
                found: ready.value.type_name().into_owned(),
                expected: expected.name(),
                author: ready.author.clone(),
            });
        }
        if expected.counts {
            ready.note_user(author);
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Ok(ready.value.clone())
    }
}
