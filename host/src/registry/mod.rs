//! Process-global registry of persistent handles.
//!
//! A value belongs to the process, not to the plugin that asked for it: a reload replaces code, and
//! the next generation finds the same value under the same key. This is the pseudo-module that
//! mod_python's users were told to stash in `sys.modules`.
//!
//! This room knows neither plugins nor databases: values are [`Resource`]s, callers are names and
//! numbers.
//!
//! # Invariants
//!
//! - At most one live value per [`Key`]: concurrent first callers make it once, the others wait.
//! - No lock is held while a value is made, described or dropped.
//! - A failed attempt leaves its slot empty. Every caller that waited for it gets its error.
//! - A thread never waits for itself, directly or through other threads: `wait::Graph` refuses.
//! - What a generation makes before it is published is in its [`Overlay`] and invisible to others.
//! - Data is found by a caller only if the texts of the layouts are equal; see [`data`].

pub mod data;
mod error;
mod expected;
mod kept;
mod overlay;
mod policy;
mod redact;
mod replace;
pub mod service;
mod slot;
#[cfg(test)]
mod tests;
mod together;
mod upgrade;
mod value;
mod wait;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};

pub use self::error::{InitFailure, RegistryError};
pub use self::expected::Expected;
use self::expected::What;
pub use self::kept::KeptInfo;
use self::kept::KeptValues;
pub use self::overlay::Overlay;
use self::overlay::Place;
use self::policy::Fit;
pub use self::policy::Policy;
pub use self::replace::Wanted;
use self::slot::{Slot, Turn};
pub use self::slot::{SlotInfo, SlotState};
pub use self::together::Together;
pub use self::value::{Resource, Value};
use self::wait::Graph;

/// What is left to do when a change is valid: upgrades to finish and values to drop. Their makers' code does both, and it is
/// done when this is dropped: without a lock, and where that may take its time.
#[derive(Debug)]
#[must_use = "what is over is dropped with it, at once"]
pub struct Rest {
    upgrades: Vec<upgrade::Staged>,
    slots: Vec<Arc<Slot>>,
    values: Vec<Value>,
}

impl Rest {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.upgrades.is_empty() && self.slots.is_empty() && self.values.is_empty()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        // The routes lead to the new code already; whoever comes for one of these values waits for it. All are valid before
        // what is left of the first is dropped.
        let remains: Vec<_> = self.upgrades.drain(..).map(upgrade::Staged::commit).collect();
        drop(remains);
    }
}

/// The name of a slot: a key in a module. The empty module is the common one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub module: Arc<str>,
    /// Name within it.
    pub name: Arc<str>,
}

impl Key {
    /// A key; copies both texts.
    pub fn new(module: &str, name: &str) -> Key {
        Key { module: module.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.module.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.module, self.name)
        }
    }
}

/// Who asks: a generation of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// Number of the generation.
    pub generation: u64,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} generation {}", self.plugin, self.generation)
    }
}

/// How long a caller waits for an init unless it says otherwise; also when a hung init is given up.
pub const DEFAULT_INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The process-wide map from keys to slots.
#[derive(Default)]
pub struct Registry {
    /// Held for look-ups and insertions of slots only.
    slots: RwLock<HashMap<Key, Arc<Slot>>>,
    /// Which thread waits for which slot.
    waits: Graph,
    /// Slots that are to take the place of others as soon as they hold a value. Lock order: `slots`, this.
    successors: Mutex<HashMap<Key, Arc<Slot>>>,
    /// Order of creation, so that shutdown can reverse it.
    serial: AtomicU64,
    /// How often a value has left its key. Who remembers a value with the number from before looking it up may
    /// use it as long as the number is the same.
    epoch: AtomicU64,
    /// Plugins that are gone, and of which a thread may still run: what it asks for is nobody's use.
    gone: RwLock<HashSet<Arc<str>>>,
    /// Whether there ever was one.
    has_gone: AtomicBool,
    /// Values from before upgrades that dropped something.
    kept: Arc<KeptValues>,
}

/// How often a look-up begins anew when what it found has just been removed or replaced.
const TRIES: u32 = 64;

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Finds the value of `key`, making it with `init` if the slot is empty.
    ///
    /// Blocks while another caller makes the same key, up to `timeout`; an attempt that takes longer
    /// than `timeout` is given up by whoever waits for it, and its late result is dropped.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; whatever the variant, the slot is as it was or empty.
    pub fn get_or_init<'a>(
        &self,
        author: &Author,
        overlay: &Overlay,
        key: &Key,
        expected: impl Into<Expected<'a>>,
        timeout: Duration,
        init: impl FnOnce() -> Result<Value, InitFailure>,
    ) -> Result<Value, RegistryError> {
        let expected = self.counting(expected.into(), author, overlay);
        let mut init = Some(init);
        for _ in 0..TRIES {
            let slot = self.slot(overlay, key, author, expected)?;
            let value = match slot.turn(author, expected, timeout, &self.waits)? {
                Turn::Gone => continue,
                Turn::Ready(value) if slot.suits(author, expected) => value,
                Turn::Ready(_) => {
                    // Made for another configuration while this caller waited.
                    self.put_in_place(&slot);
                    continue;
                }
                Turn::Init(attempt) => {
                    let Some(init) = init.take() else { break };
                    let outcome = attempt.run(init);
                    attempt.finish(outcome, expected, self.serial.fetch_add(1, Ordering::Relaxed))?
                }
            };
            self.put_in_place(&slot);
            self.note_use(&slot, (&value, expected), author, overlay);
            return Ok(value);
        }
        Err(RegistryError::NotFound { key: key.clone() })
    }

    /// The value of `key`, if there is one. Never waits.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] or [`RegistryError::WrongType`].
    pub fn get<'a>(
        &self,
        author: &Author,
        overlay: &Overlay,
        key: &Key,
        expected: impl Into<Expected<'a>>,
    ) -> Result<Value, RegistryError> {
        let expected = self.counting(expected.into(), author, overlay);
        let published = self.slots.read().get(key).cloned();
        let staged = overlay.get(key);
        for slot in [overlay.over(key), staged, published].into_iter().flatten() {
            match slot.fit(author, expected) {
                Fit::Use => {}
                Fit::Replace => continue,
                Fit::Refuse(error) => return Err(error),
            }
            if let Some(found) = slot.peek(author, expected) {
                let value = found?;
                self.note_use(&slot, (&value, expected), author, overlay);
                return Ok(value);
            }
        }
        Err(RegistryError::NotFound { key: key.clone() })
    }

    /// Empties the slot of `key`. Who holds the value keeps it; a value that is being made stays to come.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] when there was no value.
    pub fn remove(&self, overlay: &Overlay, key: &Key) -> Result<Rest, RegistryError> {
        let published = {
            let mut slots = self.slots.write();
            let left = slots.get(key).and_then(|slot| slot.leave());
            if left.is_some() {
                slots.remove(key);
            }
            left.flatten()
        };
        let staged = overlay.take(key);
        if published.is_none() && staged.is_none() {
            return Err(RegistryError::NotFound { key: key.clone() });
        }
        self.changed();
        self.kept.forget(key);
        let values = published.into_iter().chain(staged).collect();
        Ok(Rest { upgrades: Vec::new(), slots: Vec::new(), values })
    }

    /// Publishes what a generation registered while it was loading. Where another filled a key in the
    /// meantime, that value stays; the staged one lives on for the generation that holds it. Upgrades become valid when
    /// what is returned is dropped.
    pub fn commit(&self, overlay: &Overlay) -> Rest {
        let overlay::Ended { slots: staged, over, mut upgrades, seen, used } = overlay.end(true);
        upgrades.iter_mut().for_each(|upgrade| self.keep(upgrade));
        for (slot, author) in used {
            slot.note_user(&author);
        }
        if let Some(together) = overlay.together() {
            together.forget(|slot| upgrades.iter().any(|upgrade| upgrade.is_for(slot)));
        }
        for (tenure, ty, author) in seen {
            tenure.note_user(&ty, &author);
        }
        let mut values = self.commit_over(over);
        let mut lost = Vec::new();
        let mut old = Vec::new();
        {
            let mut slots = self.slots.write();
            for slot in staged {
                match slots.get(slot.key()) {
                    Some(there) if slot.succeeds(there) => {
                        old.extend(slots.insert(slot.key().clone(), slot));
                    }
                    Some(there) if !there.leave_if_empty() => lost.push(slot),
                    _ => {
                        slots.insert(slot.key().clone(), slot);
                    }
                }
            }
        }
        // Dropped without the lock, and after their successors can be found.
        let before = values.len();
        values.extend(old.iter().filter_map(|slot| slot.leave().flatten()));
        if values.len() > before {
            self.changed();
        }
        Rest { upgrades, slots: lost, values }
    }

    /// Undoes what a generation registered while it was loading, newest first.
    pub fn abandon(&self, overlay: &Overlay) {
        let overlay::Ended { mut slots, over, mut upgrades, .. } = overlay.end(false);
        if let Some(together) = overlay.together() {
            together.forget(|slot| upgrades.iter().any(|upgrade| upgrade.is_for(slot)));
        }
        // All values are in use again before code of the generation runs once more, which may hang.
        upgrades.iter_mut().for_each(upgrade::Staged::reopen);
        // Undone when dropped, without any lock.
        drop(upgrades);
        slots.extend(over);
        close_all(slots);
    }

    /// Gives up the upgrades that run for a generation which was refused, so that the values are in use again at once.
    pub fn give_up_upgrades(&self, author: &Author) {
        let slots: Vec<Arc<Slot>> = self.slots.read().values().cloned().collect();
        for tenure in slots.iter().filter_map(|slot| slot.data()) {
            tenure.data().give_up_claim_of(author);
        }
    }

    /// Says that a plugin serves: also one that was gone, and is back.
    pub fn note_here(&self, plugin: &str) {
        self.gone.write().remove(plugin);
    }

    /// Says that a plugin serves the code again that served as generation `origin`.
    pub fn note_roll_back(&self, plugin: &str, origin: u64) {
        for slot in self.slots.read().values() {
            slot.note_roll_back(plugin, origin);
        }
    }

    /// Counts a reload for every value that `plugin` has used; it is at this generation now.
    pub fn note_reload(&self, plugin: &str, generation: u64) {
        for slot in self.slots.read().values() {
            slot.note_reload(plugin, generation);
        }
    }

    /// Says that there is no such plugin any more: nobody will ask for what it alone has used.
    pub fn note_gone(&self, plugin: &str) {
        self.gone.write().insert(plugin.into());
        self.has_gone.store(true, Ordering::Relaxed);
        for slot in self.slots.read().values() {
            slot.note_gone(plugin);
        }
    }

    /// See the field. Lives as long as the registry.
    pub fn epoch(&self) -> &AtomicU64 {
        &self.epoch
    }

    /// Says that a value has left its key. After it has: who reads the new number finds what there is now.
    fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Closes and drops every value, the newest first.
    pub fn shutdown(&self) {
        self.kept.clear();
        let slots = std::mem::take(&mut *self.slots.write());
        let successors = std::mem::take(&mut *self.successors.lock());
        close_all(slots.into_values().chain(successors.into_values()).collect());
    }

    /// Every slot that holds a value, is making one or failed to, sorted by key.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let slots: Vec<Arc<Slot>> = self.slots.read().values().cloned().collect();
        let mut infos: Vec<SlotInfo> = slots.iter().map(|slot| slot.info()).collect();
        for (info, slot) in infos.iter_mut().zip(&slots) {
            info.kept = self.kept.info(slot.key());
        }
        infos.sort_by(|a, b| (&a.module, &a.key).cmp(&(&b.module, &b.key)));
        infos
    }

    /// What a caller expects, with whether it counts as a user: not while it is loading, and not when it is gone.
    fn counting<'a>(&self, expected: Expected<'a>, author: &Author, overlay: &Overlay) -> Expected<'a> {
        let is_gone = || self.has_gone.load(Ordering::Relaxed) && self.gone.read().contains(&author.plugin);
        if overlay.is_committed() && !is_gone() { expected } else { expected.uncounted() }
    }

    /// Notes a use: a generation that is loading counts as a user when it is published.
    fn note_use(
        &self,
        slot: &Arc<Slot>,
        (value, expected): (&Value, Expected<'_>),
        author: &Author,
        overlay: &Overlay,
    ) {
        if !expected.counts && overlay.is_committed() {
            // A thread of a plugin that is gone: the value is not its to drop either.
            return;
        }
        note_user(value, expected, author, overlay);
        if !expected.counts {
            overlay.uses(slot, author);
        }
    }

    /// The slot to use for `key`: the published one if it is in use and suits, else the loading generation's own.
    fn slot(
        &self,
        overlay: &Overlay,
        key: &Key,
        author: &Author,
        expected: Expected<'_>,
    ) -> Result<Arc<Slot>, RegistryError> {
        if let Some(slot) = overlay.over(key) {
            return Ok(slot);
        }
        let published = self.slots.read().get(key).cloned();
        let mut old = None;
        if let Some(slot) = published {
            match slot.fit(author, expected) {
                Fit::Use if slot.is_taken() || !overlay.is_open() => return Ok(slot),
                Fit::Use => {}
                Fit::Replace => old = Some(slot),
                Fit::Refuse(error) => return Err(error),
            }
        }
        match overlay.place(key, old.as_ref()) {
            Place::Staged(slot) if matches!(slot.fit(author, expected), Fit::Replace) => {
                // Nobody but this generation has seen it.
                drop(overlay.take(key));
                match overlay.place(key, old.as_ref()) {
                    Place::Staged(slot) => Ok(slot),
                    Place::Refused | Place::Published => Err(RegistryError::Abandoned { key: key.clone() }),
                }
            }
            Place::Staged(slot) => Ok(slot),
            Place::Refused => Err(RegistryError::Abandoned { key: key.clone() }),
            Place::Published => match old {
                None => Ok(self.published_slot(key)),
                Some(old) => match self.successor(key, &old) {
                    Some(slot) => Ok(slot),
                    // Others have put a successor in its place since: look at that.
                    None => self.slot(overlay, key, author, expected),
                },
            },
        }
    }

    /// The slot of `key` that everybody sees, made if there is none.
    fn published_slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.slots.write();
        Arc::clone(slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key.clone()))))
    }

    /// Puts a value where everybody sees it, and returns what was there. The map is locked, so that the slot
    /// cannot leave it in between.
    fn put_published(&self, key: &Key, value: Value, author: Author, serial: u64) -> Option<Value> {
        let mut slots = self.slots.write();
        let slot = slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key.clone())));
        slot.put(value, author, serial)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("slots", &self.slots.read().len()).finish()
    }
}

/// Lets a generation take over the data that it has found: at once, or when it is published.
fn note_user(value: &Value, expected: Expected<'_>, author: &Author, overlay: &Overlay) {
    if let (Value::Data(tenure), What::Data(ty)) = (value, expected.what)
        && !overlay.saw(tenure, ty, author)
    {
        tenure.note_user(ty, author);
    }
}

/// Closes the values of `slots`, the newest first.
fn close_all(slots: Vec<Arc<Slot>>) {
    let mut values: Vec<(u64, Value)> = slots.iter().filter_map(|slot| slot.take()).collect();
    values.sort_by_key(|(serial, _)| std::cmp::Reverse(*serial));
    for (_, value) in values {
        value.close();
    }
}

/// Milliseconds since the Unix epoch, the form of points in time on every face.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
