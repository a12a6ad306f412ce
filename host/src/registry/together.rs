//! Generations that go live together: one upgrade of a value serves them all.
//!
//! An edit of a type that several plugins share changes each of them. They load beside each other, and the first that comes to
//! a value of the older layout upgrades it; the others find it upgraded to what they expect themselves. If one of them is
//! refused, all are, and so is the upgrade.
//!
//! Owns who goes live together and which upgrades they share. Does not own when that happens, nor the upgrades.
//!
//! # Invariants
//!
//! - One of them upgrades a slot at a time; the others wait for it, with a deadline.
//! - Who has been relied on does not leave in silence.
//! - No lock is held while an upgrade is built.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Author;
use super::data::DataType;
use super::slot::Slot;

/// The generations of one round.
#[derive(Debug, Default)]
pub struct Together {
    state: Mutex<State>,
    /// Signalled when an upgrade has been staged or has failed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Plugins that go live, with their generation once it is loading.
    members: HashMap<Arc<str>, Option<u64>>,
    /// Plugins whose older code stands in nobody's way because they go live, too.
    relied_on: HashSet<Arc<str>>,
    upgrades: Vec<SharedUpgrade>,
}

/// An upgrade for all.
#[derive(Debug)]
struct SharedUpgrade {
    slot: Arc<Slot>,
    by: Author,
    /// What the value becomes; `None` while it is being built.
    becomes: Option<DataType>,
}

/// What a member has to do about a value of an older layout.
pub(super) enum SharedTurn<'t> {
    /// Upgrade it.
    Mine(SharedTry<'t>),
    /// Nothing: another member has.
    Done,
    /// Another member has made something else of it.
    Differs(Author, DataType),
    /// Another member is still at it.
    TimedOut(Author),
}

/// The right of one member to upgrade a slot; without a result it passes to the next.
pub(super) struct SharedTry<'t> {
    together: &'t Together,
    slot: Arc<Slot>,
}

impl Together {
    /// For these plugins.
    pub fn new(plugins: impl IntoIterator<Item = Arc<str>>) -> Arc<Together> {
        let members = plugins.into_iter().map(|plugin| (plugin, None)).collect();
        Arc::new(Together {
            state: Mutex::new(State { members, ..State::default() }),
            changed: Condvar::new(),
        })
    }

    /// A member has begun to load.
    pub fn join(&self, author: &Author) {
        self.state.lock().members.insert(Arc::clone(&author.plugin), Some(author.generation));
    }

    /// A plugin stays with the code that serves. False: the others need that it does not.
    pub fn leave(&self, plugin: &str) -> bool {
        let mut state = self.state.lock();
        state.members.remove(plugin);
        !state.relied_on.contains(plugin)
    }

    /// Whether the plugin goes live with the others, who count on it from now on.
    pub(super) fn counts_on(&self, plugin: &Arc<str>) -> bool {
        let mut state = self.state.lock();
        let is_member = state.members.contains_key(plugin);
        if is_member {
            state.relied_on.insert(Arc::clone(plugin));
        }
        is_member
    }

    /// Whether this very generation is one of them.
    pub(super) fn is_of(&self, author: &Author) -> bool {
        self.state.lock().members.get(&author.plugin) == Some(&Some(author.generation))
    }

    /// Whether an upgrade of the slot is staged by any of them.
    pub(super) fn has_staged(&self, slot: &Arc<Slot>) -> bool {
        self.state.lock().upgrades.iter().any(|upgrade| upgrade.is_for(slot) && upgrade.becomes.is_some())
    }

    /// What `author`, whose type is `ty`, has to do about the value in `slot`.
    pub(super) fn turn(
        &self,
        slot: &Arc<Slot>,
        author: &Author,
        ty: &DataType,
        timeout: Duration,
    ) -> SharedTurn<'_> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        loop {
            let Some(upgrade) = state.upgrades.iter().find(|upgrade| upgrade.is_for(slot)) else {
                let upgrade = SharedUpgrade { slot: Arc::clone(slot), by: author.clone(), becomes: None };
                state.upgrades.push(upgrade);
                return SharedTurn::Mine(SharedTry { together: self, slot: Arc::clone(slot) });
            };
            let by = upgrade.by.clone();
            match &upgrade.becomes {
                Some(becomes) if becomes.is_same(ty) => return SharedTurn::Done,
                Some(becomes) => return SharedTurn::Differs(by, becomes.clone()),
                None => {}
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return SharedTurn::TimedOut(by);
            }
        }
    }

    /// The upgrades of a member are valid, or undone.
    pub(super) fn forget(&self, is_ended: impl Fn(&Arc<Slot>) -> bool) {
        self.state.lock().upgrades.retain(|upgrade| upgrade.becomes.is_none() || !is_ended(&upgrade.slot));
    }
}

impl SharedUpgrade {
    fn is_for(&self, slot: &Arc<Slot>) -> bool {
        Arc::ptr_eq(&self.slot, slot)
    }
}

impl SharedTry<'_> {
    /// The upgrade is staged, for all.
    pub(super) fn staged(self, becomes: &DataType) {
        let mut state = self.together.state.lock();
        if let Some(upgrade) = state.upgrades.iter_mut().find(|upgrade| upgrade.is_for(&self.slot)) {
            upgrade.becomes = Some(becomes.clone());
        }
    }
}

impl Drop for SharedTry<'_> {
    fn drop(&mut self) {
        let mut state = self.together.state.lock();
        state.upgrades.retain(|upgrade| upgrade.becomes.is_some() || !upgrade.is_for(&self.slot));
        self.together.changed.notify_all();
    }
}
