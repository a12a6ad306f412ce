//! When the value of a key makes room for a new one: never, with each reload, or with its configuration.
//!
//! A new value is made beside the old one, in a slot of its own, by whoever asks first; the others wait for it
//! there. The slot takes the place of the old one when it holds a value and, for a generation that is loading,
//! when that is published. The old value is let go of after that, and closes when its last holder does.
//!
//! # Invariants
//!
//! - While a new value is made, and if that fails, the old one stays where it is, for everybody.
//! - Only the plugin that made a value replaces it by these rules, and never an older generation of it. Of a plugin that is
//!   gone, others do.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::slot::Slot;
use super::{Author, Expected, Key, Registry, RegistryError};

/// What a caller wants of a value beside its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy<'a> {
    /// A generation does not use what an earlier one has made.
    pub restarts: bool,
    /// What the value is made from: JSON, in one form for equal configurations.
    pub config: Option<&'a str>,
}

/// What a value was made with.
#[derive(Clone, Debug)]
pub(super) struct MadeWith {
    pub(super) restarts: bool,
    pub(super) config: Option<Arc<str>>,
}

impl From<Policy<'_>> for MadeWith {
    fn from(policy: Policy<'_>) -> MadeWith {
        MadeWith { restarts: policy.restarts, config: policy.config.map(Arc::from) }
    }
}

impl MadeWith {
    /// In one word, for faces.
    pub(super) fn name(&self) -> &'static str {
        match (&self.config, self.restarts) {
            (_, true) => "restart",
            (Some(_), false) => "configuration",
            (None, false) => "keep",
        }
    }
}

/// What a value is to a caller.
#[derive(Debug)]
pub(super) enum Fit {
    /// What it wants, as far as this room is concerned.
    Use,
    /// Too old, or made from another configuration: a new one is to be made.
    Replace,
    /// Another plugin's, made from another configuration.
    Refuse(RegistryError),
}

/// Judges a value that `maker` has made; where its plugin is gone, the value is for any other to replace.
pub(super) fn fit(
    key: &Key,
    made: &MadeWith,
    maker: Option<&Author>,
    author: &Author,
    expected: Expected<'_>,
) -> Fit {
    let wanted = expected.policy;
    let other = maker.filter(|maker| maker.plugin != author.plugin);
    let own = maker.filter(|maker| maker.plugin == author.plugin);
    match wanted.config {
        Some(config) if made.config.as_deref() != Some(config) => {
            if let Some(maker) = other {
                return Fit::Refuse(RegistryError::Misconfigured { key: key.clone(), author: maker.clone() });
            }
            // Requests that are still in older code use what there is.
            if own.is_some_and(|own| author.generation < own.generation) { Fit::Use } else { Fit::Replace }
        }
        _ if wanted.restarts && own.is_some_and(|own| own.generation < author.generation) => Fit::Replace,
        _ => Fit::Use,
    }
}

impl Registry {
    /// The slot in which the successor of what `old` holds is made; `None` if `old` has gone from its place.
    pub(super) fn successor(&self, key: &Key, old: &Arc<Slot>) -> Option<Arc<Slot>> {
        // Held to the end: a successor that takes its place in between would be made a second time.
        let slots = self.slots.read();
        slots.get(key).filter(|there| Arc::ptr_eq(there, old))?;
        let mut successors = self.successors.lock();
        match successors.get(key) {
            Some(slot) if slot.succeeds(old) => Some(Arc::clone(slot)),
            _ => {
                let slot = Arc::new(Slot::succeeding(old));
                // One for a value that is no longer there holds nothing, or has been handed out.
                successors.insert(key.clone(), Arc::clone(&slot));
                Some(slot)
            }
        }
    }

    /// Puts a successor that holds a value into the place of what it succeeds. Who comes second finds it done.
    pub(super) fn put_in_place(&self, slot: &Arc<Slot>) {
        let key = slot.key();
        let old = {
            let mut slots = self.slots.write();
            let mut successors = self.successors.lock();
            match successors.get(key) {
                Some(known) if Arc::ptr_eq(known, slot) => successors.remove(key),
                _ => return,
            };
            match slots.get(key) {
                Some(there) if slot.succeeds(there) || !there.is_taken() => {
                    slots.insert(key.clone(), Arc::clone(slot))
                }
                // Removed meanwhile, and made again by others: theirs stays.
                Some(_) => None,
                None => slots.insert(key.clone(), Arc::clone(slot)),
            }
        };
        // Dropped without the locks: the last reference to a pool closes connections.
        drop(old.and_then(|old| old.leave().flatten()));
        self.changed();
    }
}
