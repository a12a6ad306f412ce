//! When a service takes the place of another.
//!
//! # Invariants
//!
//! - The slot changes in one step: whoever looks finds the one or the other.
//! - While a generation is loading its replacement is staged, and found by nobody else.
//! - The old service is dropped by its last holder, without a lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::overlay::Place;
use super::service::{Interface, Service};
use super::{Author, Expected, InitFailure, Key, Overlay, Policy, Registry, RegistryError, Value};

/// What a key wants of its service.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it can be asked.
    pub interface: Interface,
    /// Whether a service of the same plugin's earlier code with other methods is dropped and made anew.
    pub restarts: bool,
}

impl Registry {
    /// As [`Registry::get_or_init`] for a service.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; whatever the variant, the slot is as it was or empty.
    pub fn service(
        &self,
        author: &Author,
        overlay: &Overlay,
        key: &Key,
        (wanted, policy): (&Wanted, Policy<'_>),
        timeout: Duration,
        mut init: Option<&mut dyn FnMut() -> Result<Value, InitFailure>>,
    ) -> Result<Arc<Service>, RegistryError> {
        let expected = Expected::from(&wanted.interface).with(policy);
        let mut find = || match &mut init {
            Some(init) => self.get_or_init(author, overlay, key, expected, timeout, init),
            None => self.get(author, overlay, key, expected),
        };
        let found = match find() {
            Err(RegistryError::Interface { author: maker, .. })
                if wanted.restarts
                    && maker.plugin == author.plugin
                    && maker.generation < author.generation =>
            {
                self.make_way(overlay, key, &maker);
                find()
            }
            found => found,
        };
        match found? {
            Value::Service(service) => Ok(service),
            // `found` accepts services only for an interface.
            Value::Host(_) | Value::Data(_) => Err(RegistryError::NotFound { key: key.clone() }),
        }
    }

    /// Puts a service in the place of the one under `key`, or there where there is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError::WrongType`] where there is anything but a service of the same name.
    pub fn replace(
        &self,
        author: &Author,
        overlay: &Overlay,
        key: &Key,
        service: Arc<Service>,
    ) -> Result<(), RegistryError> {
        let published = self.slots.read().get(key).cloned();
        if let Some(slot) = published {
            slot.may_become(service.interface())?;
        }
        service.is_held_as(format!("service `{key}`"));
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let value = Value::Service(service);
        let old = if overlay.is_open() {
            let slot = overlay.place_over(key);
            let slot = slot.ok_or_else(|| RegistryError::Abandoned { key: key.clone() })?;
            slot.put(value, author.clone(), serial)
        } else if matches!(overlay.place(key, None), Place::Published) {
            self.put_published(key, value, author.clone(), serial)
        } else {
            return Err(RegistryError::Abandoned { key: key.clone() });
        };
        note_replaced(old.as_ref(), key);
        self.changed();
        // Dropped here, without a lock.
        drop(old);
        Ok(())
    }

    /// Lets a loading generation make its own service, or empties the slot of the one that `maker` made.
    fn make_way(&self, overlay: &Overlay, key: &Key, maker: &Author) {
        if overlay.is_open() {
            overlay.place_over(key);
            return;
        }
        let slot = self.slots.read().get(key).cloned();
        let old = slot.and_then(|slot| slot.take_of(maker));
        note_replaced(old.as_ref(), key);
        self.changed();
    }

    /// Publishes the services that a generation staged over others; what they replaced is returned, to be dropped
    /// without a lock. Where something else than such a service has come under the key meanwhile, that stays.
    pub(super) fn commit_over(&self, over: Vec<Arc<super::slot::Slot>>) -> Vec<Value> {
        let mut old = Vec::new();
        for staged in over {
            let Some((serial, value, author)) = staged.take_with_author() else { continue };
            let there = self.slots.read().get(staged.key()).cloned();
            if let (Some(there), Value::Service(service)) = (there, &value)
                && let Err(error) = there.may_become(service.interface())
            {
                tracing::warn!(key = %staged.key(), maker = %author, "a service was made in vain: {error}");
                old.push(value);
                continue;
            }
            let replaced = self.put_published(staged.key(), value, author, serial);
            note_replaced(replaced.as_ref(), staged.key());
            old.extend(replaced);
        }
        if !old.is_empty() {
            self.changed();
        }
        old
    }
}

/// Says on the status page why the old service's code is still there.
fn note_replaced(old: Option<&Value>, key: &Key) {
    if let Some(Value::Service(service)) = old {
        service.is_held_as(format!("service `{key}`, which was replaced and is still held"));
    }
}
