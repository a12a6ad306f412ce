//! What a generation registers before it is published.
//!
//! # Invariants
//!
//! - Open from the start of loading to `commit` or `abandon`, and never again.
//! - Nobody but its generation sees its slots while it is open.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Key;
use super::slot::Slot;

/// The staged slots of one generation.
#[derive(Debug)]
pub struct Overlay(Mutex<Stage>);

#[derive(Debug)]
enum Stage {
    /// Loading: registrations are private.
    Open(HashMap<Key, Arc<Slot>>),
    /// Published: registrations are everybody's at once.
    Committed,
    /// Refused: there are no registrations any more, not even by a hook that is still running.
    Abandoned,
}

/// Where a generation's registrations go.
pub(super) enum Place {
    /// Into this slot of its own.
    Staged(Arc<Slot>),
    /// Into the registry.
    Published,
    /// Nowhere.
    Refused,
}

impl Overlay {
    /// For a generation that is loading.
    pub fn open() -> Overlay {
        Overlay(Mutex::new(Stage::Open(HashMap::new())))
    }

    /// For who registers for everybody at once.
    pub fn committed() -> Overlay {
        Overlay(Mutex::new(Stage::Committed))
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(*self.0.lock(), Stage::Open(_))
    }

    /// Where `key` is to be registered. A staged slot is made if there is none.
    pub(super) fn place(&self, key: &Key) -> Place {
        match &mut *self.0.lock() {
            Stage::Open(slots) => {
                let slot = slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key.clone())));
                Place::Staged(Arc::clone(slot))
            }
            Stage::Committed => Place::Published,
            Stage::Abandoned => Place::Refused,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Slot>> {
        match &*self.0.lock() {
            Stage::Open(slots) => slots.get(key).cloned(),
            Stage::Committed | Stage::Abandoned => None,
        }
    }

    pub(super) fn take(&self, key: &Key) -> Option<Arc<Slot>> {
        match &mut *self.0.lock() {
            Stage::Open(slots) => slots.remove(key),
            Stage::Committed | Stage::Abandoned => None,
        }
    }

    /// Ends the overlay and returns its slots.
    pub(super) fn end(&self, published: bool) -> Vec<Arc<Slot>> {
        let end = if published { Stage::Committed } else { Stage::Abandoned };
        let mut stage = self.0.lock();
        match std::mem::replace(&mut *stage, end) {
            Stage::Open(slots) => slots.into_values().collect(),
            ended => {
                *stage = ended;
                Vec::new()
            }
        }
    }
}
