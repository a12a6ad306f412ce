//! What a generation holds of the host's objects: [`HandleId`] -> object.
//!
//! # Invariants
//!
//! - An id is used once: a released or invented id finds nothing, whatever came after it.
//! - Dropping the table releases everything, so a generation cannot leak past its end.
//! - A retired generation keeps what it holds as long as a service that it made lives: that is its code still.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use plugin_api::abi::HandleId;

use super::db_rows::Reading;
use crate::db;
use crate::registry::Resource;
use crate::registry::data::{Data, Tenure};
use crate::registry::service::Service;
use crate::safe::{Safe, Watch};
use crate::tx;

/// An object that a plugin holds.
#[derive(Clone)]
pub enum Held {
    /// Something the registry can keep, such as a pool.
    Resource(Arc<dyn Resource>),
    /// A connection that is lent out. One holder.
    Connection(Arc<db::Lease>),
    /// A request's transaction, which takes statements as a connection does.
    Transaction(tx::Joined),
    /// Data that was just made, on its way into a slot.
    Data(Arc<Tenure>),
    /// A service, found or just made.
    Service(Arc<Service>),
    /// A safe that plugins share.
    Safe(Arc<Safe>),
    /// A statement whose rows the plugin asks for.
    Rows(Arc<Reading>),
    /// A watch on a range of a safe.
    Watch(Arc<Watch>),
}

/// The table of one generation.
#[derive(Default)]
pub struct Handles {
    /// Never held while an object is dropped or used.
    table: RwLock<HashMap<u64, Held, foldhash::fast::RandomState>>,
    last: AtomicU64,
    /// Data whose cells the library may look at as long as it is mapped, also when it is retired; by address.
    cells: Mutex<HashMap<usize, Arc<Data>>>,
    /// Services that the generation made and that live, and whether it is retired.
    services: Mutex<(usize, bool)>,
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

    /// Takes everything back, at once or when the last service of the generation has gone; how many objects were
    /// taken now.
    pub fn retire(&self) -> usize {
        let has_services = {
            let mut services = self.services.lock();
            services.1 = true;
            services.0 > 0
        };
        if has_services { 0 } else { self.clear() }
    }

    /// Counts a service that the generation has made.
    pub(super) fn add_service(&self) {
        self.services.lock().0 += 1;
    }

    /// A service that the generation made has gone.
    pub(super) fn remove_service(&self) {
        let is_last = {
            let mut services = self.services.lock();
            services.0 -= 1;
            *services == (0, true)
        };
        if is_last {
            self.clear();
        }
    }

    /// Finds a service.
    pub fn service(&self, id: HandleId) -> Option<Arc<Service>> {
        match self.get(id)? {
            Held::Service(service) => Some(service),
            _ => None,
        }
    }

    /// Keeps the cell of data readable to the end of the table.
    pub fn keep_cell(&self, data: &Arc<Data>) {
        self.cells.lock().entry(Arc::as_ptr(data).addr()).or_insert_with(|| Arc::clone(data));
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
            Held::Connection(_)
            | Held::Transaction(_)
            | Held::Data(_)
            | Held::Service(_)
            | Held::Rows(_)
            | Held::Safe(_)
            | Held::Watch(_) => None,
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
