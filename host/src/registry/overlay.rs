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

/// The staged slots of one loading generation; `None` once it has ended.
#[derive(Debug)]
pub struct Overlay(Mutex<Option<HashMap<Key, Arc<Slot>>>>);

impl Overlay {
    /// An open overlay, for a generation that is loading.
    pub fn open() -> Overlay {
        Overlay(Mutex::new(Some(HashMap::new())))
    }

    /// An ended overlay: its holder registers for everybody at once.
    pub fn ended() -> Overlay {
        Overlay(Mutex::new(None))
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The staged slot of `key`, made if there is none; `None` once the overlay has ended.
    pub(super) fn slot(&self, key: &Key) -> Option<Arc<Slot>> {
        let mut slots = self.0.lock();
        let slots = slots.as_mut()?;
        Some(Arc::clone(slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key.clone())))))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Slot>> {
        self.0.lock().as_ref()?.get(key).cloned()
    }

    pub(super) fn take(&self, key: &Key) -> Option<Arc<Slot>> {
        self.0.lock().as_mut()?.remove(key)
    }

    /// Ends the overlay and returns its slots.
    pub(super) fn end(&self) -> Vec<Arc<Slot>> {
        self.0.lock().take().map(|slots| slots.into_values().collect()).unwrap_or_default()
    }
}
