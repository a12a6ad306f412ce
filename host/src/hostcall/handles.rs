//! What a generation holds of the host's objects: [`HandleId`] -> object.
//!
//! # Invariants
//!
//! - An id is used once: a released or invented id finds nothing, whatever came after it.
//! - Dropping the table releases everything, so a generation cannot leak past its end.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use plugin_api::abi::HandleId;

use crate::db;
use crate::registry::Resource;
use crate::registry::data::{Data, Tenure};
use crate::safe::{Safe, Watch};

/// An object that a plugin holds.
#[derive(Clone)]
pub enum Held {
    /// Something the registry can keep, such as a pool.
    Resource(Arc<dyn Resource>),
    /// A connection that is lent out. One holder.
    Connection(Arc<db::Lease>),
    /// Data that was just made, on its way into a slot.
    Data(Arc<Tenure>),
    /// A safe that plugins share.
    Safe(Arc<Safe>),
    /// A watch on a range of a safe.
    Watch(Arc<Watch>),
}

/// The table of one generation.
#[derive(Default)]
pub struct Handles {
    /// Never held while an object is dropped or used.
    table: RwLock<HashMap<u64, Held>>,
    last: AtomicU64,
    /// Data whose cells the library may look at as long as it is mapped, also when it is retired.
    cells: Mutex<Vec<Arc<Data>>>,
}

impl Handles {
    /// Hands an object to the plugin.
    pub fn insert(&self, held: Held) -> HandleId {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.table.write().insert(id, held);
        HandleId(id)
    }

    /// Takes an object back. The caller drops it, without the lock.
    pub fn remove(&self, id: HandleId) -> Option<Held> {
        self.table.write().remove(&id.0)
    }

    /// Takes everything back.
    pub fn clear(&self) -> usize {
        let all = std::mem::take(&mut *self.table.write());
        all.len()
    }

    /// Keeps the cell of data readable to the end of the table.
    pub fn keep_cell(&self, data: &Arc<Data>) {
        let mut cells = self.cells.lock();
        if !cells.iter().any(|known| Arc::ptr_eq(known, data)) {
            cells.push(Arc::clone(data));
        }
    }

    /// Finds an object.
    pub fn get(&self, id: HandleId) -> Option<Held> {
        self.table.read().get(&id.0).cloned()
    }

    /// Finds a resource of type `R`.
    pub fn resource<R: Resource>(&self, id: HandleId) -> Option<Arc<R>> {
        match self.get(id)? {
            Held::Resource(resource) => {
                let any: Arc<dyn Any + Send + Sync> = resource;
                any.downcast().ok()
            }
            Held::Connection(_) | Held::Data(_) | Held::Safe(_) | Held::Watch(_) => None,
        }
    }

    /// Finds a connection.
    pub fn connection(&self, id: HandleId) -> Option<Arc<db::Lease>> {
        match self.get(id)? {
            Held::Connection(lease) => Some(lease),
            Held::Resource(_) | Held::Data(_) | Held::Safe(_) | Held::Watch(_) => None,
        }
    }

    /// How many objects the plugin holds.
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Whether the plugin holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handles").field("len", &self.len()).finish()
    }
}
