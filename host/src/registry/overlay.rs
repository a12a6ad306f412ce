//! What a generation registers before it is published.
//!
//! # Invariants
//!
//! - Open from the start of loading to `commit` or `abandon`, and never again.
//! - Nobody but its generation sees its slots while it is open.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::data::{DataType, Tenure};
use super::slot::Slot;
use super::together::Together;
use super::upgrade::Staged;
use super::{Author, Key, Value};

/// The staged slots of one generation.
#[derive(Debug)]
pub struct Overlay {
    stage: Mutex<Stage>,
    /// Those that the generation goes live with.
    together: Option<Arc<Together>>,
    /// Whether it is earlier code that serves again, and takes up the values of then.
    restores: bool,
}

#[derive(Debug)]
enum Stage {
    /// Loading: registrations are private.
    Open(Open),
    /// Published: registrations are everybody's at once.
    Committed,
    /// Refused: there are no registrations any more, not even by a hook that is still running.
    Abandoned,
}

/// What is staged.
#[derive(Debug, Default)]
struct Open {
    slots: HashMap<Key, Arc<Slot>>,
    /// Services that take the place of others with the generation.
    over: HashMap<Key, Arc<Slot>>,
    /// Upgraded data that becomes valid with the generation.
    upgrades: Vec<Staged>,
    /// Data of others that the generation has found, and takes over when it is published.
    seen: Vec<(Arc<Tenure>, DataType, Author)>,
    /// Slots whose values the generation has used: it counts as a user when it is published.
    used: Vec<(Arc<Slot>, Author)>,
    /// Whether nothing can refuse the generation any more: what is staged becomes valid in a moment.
    is_announced: bool,
}

/// What was staged.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) slots: Vec<Arc<Slot>>,
    pub(super) over: Vec<Arc<Slot>>,
    pub(super) upgrades: Vec<Staged>,
    pub(super) seen: Vec<(Arc<Tenure>, DataType, Author)>,
    pub(super) used: Vec<(Arc<Slot>, Author)>,
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
        Overlay::open_with(None, false)
    }

    /// For a generation that is loading, and goes live together with others.
    /// `restores`: it is earlier code that is to serve again.
    pub fn open_with(together: Option<Arc<Together>>, restores: bool) -> Overlay {
        Overlay { stage: Mutex::new(Stage::Open(Open::default())), together, restores }
    }

    /// Whether it is earlier code that serves again.
    pub(super) fn restores(&self) -> bool {
        self.restores
    }

    /// For who registers for everybody at once.
    pub fn committed() -> Overlay {
        Overlay { stage: Mutex::new(Stage::Committed), together: None, restores: false }
    }

    /// Those that the generation goes live with, or went.
    pub(super) fn together(&self) -> Option<&Arc<Together>> {
        self.together.as_ref()
    }

    /// Says that what is staged will be committed in a moment: from now on requests may wait for it.
    pub fn announce(&self) {
        if let Stage::Open(open) = &mut *self.stage.lock() {
            open.is_announced = true;
        }
    }

    /// Whether an upgrade of the slot is staged and about to become valid.
    pub(super) fn is_about_to_upgrade(&self, slot: &Arc<Slot>) -> bool {
        match &*self.stage.lock() {
            Stage::Open(open) => {
                open.is_announced
                    && (open.upgrades.iter().any(|upgrade| upgrade.is_for(slot))
                        || self.together.as_ref().is_some_and(|together| together.has_staged(slot)))
            }
            Stage::Committed | Stage::Abandoned => false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Open(_))
    }

    /// Whether its generation was refused.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Abandoned)
    }

    /// Where `key` is to be registered. A staged slot is made if there is none: to take the place of `old`, if
    /// that is something.
    pub(super) fn place(&self, key: &Key, old: Option<&Arc<Slot>>) -> Place {
        match &mut *self.stage.lock() {
            Stage::Open(open) => {
                let slot = open.slots.entry(key.clone()).or_insert_with(|| {
                    Arc::new(old.map_or_else(|| Slot::new(key.clone()), Slot::succeeding))
                });
                Place::Staged(Arc::clone(slot))
            }
            Stage::Committed => Place::Published,
            Stage::Abandoned => Place::Refused,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Slot>> {
        match &*self.stage.lock() {
            Stage::Open(open) => open.slots.get(key).cloned(),
            Stage::Committed | Stage::Abandoned => None,
        }
    }

    /// The slot in which a service waits to take the place of another.
    pub(super) fn over(&self, key: &Key) -> Option<Arc<Slot>> {
        match &*self.stage.lock() {
            Stage::Open(open) => open.over.get(key).cloned(),
            Stage::Committed | Stage::Abandoned => None,
        }
    }

    /// As `over`; made if there is none. `None`: the generation is not loading.
    pub(super) fn place_over(&self, key: &Key) -> Option<Arc<Slot>> {
        match &mut *self.stage.lock() {
            Stage::Open(open) => {
                let slot = open.over.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key.clone())));
                Some(Arc::clone(slot))
            }
            Stage::Committed | Stage::Abandoned => None,
        }
    }

    /// Takes out the value that is staged under `key`, for the caller to drop without the lock.
    pub(super) fn take(&self, key: &Key) -> Option<Value> {
        match &mut *self.stage.lock() {
            Stage::Open(open) => {
                let left = open.slots.get(key)?.leave()?;
                open.slots.remove(key);
                left
            }
            Stage::Committed | Stage::Abandoned => None,
        }
    }

    /// Keeps data in mind that the generation has found; false if it is published and takes over at once.
    pub(super) fn saw(&self, tenure: &Arc<Tenure>, ty: &DataType, author: &Author) -> bool {
        match &mut *self.stage.lock() {
            Stage::Open(open) => {
                if !open.seen.iter().any(|(known, ..)| Arc::ptr_eq(known, tenure)) {
                    open.seen.push((Arc::clone(tenure), ty.clone(), author.clone()));
                }
                true
            }
            Stage::Committed => false,
            Stage::Abandoned => true,
        }
    }

    /// Whether the generation is published, and counts as a user of what it finds at once.
    pub(super) fn is_committed(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Committed)
    }

    /// Keeps in mind that the generation, which is loading, uses what is in a slot.
    pub(super) fn uses(&self, slot: &Arc<Slot>, author: &Author) {
        if let Stage::Open(open) = &mut *self.stage.lock()
            && !open.used.iter().any(|(known, _)| Arc::ptr_eq(known, slot))
        {
            open.used.push((Arc::clone(slot), author.clone()));
        }
    }

    /// Stages an upgrade, unless the overlay has ended: then it is returned, to be undone without the lock.
    pub(super) fn stage(&self, upgrade: Staged) -> Option<Staged> {
        match &mut *self.stage.lock() {
            Stage::Open(open) => {
                open.upgrades.push(upgrade);
                None
            }
            Stage::Committed | Stage::Abandoned => Some(upgrade),
        }
    }

    /// What the upgrades that are staged drop of the values whose place they take, each with its key.
    pub fn lost(&self) -> Vec<String> {
        match &*self.stage.lock() {
            Stage::Open(open) => open.upgrades.iter().flat_map(Staged::lost).collect(),
            Stage::Committed | Stage::Abandoned => Vec::new(),
        }
    }

    /// Whether an upgrade of the slot is staged.
    pub(super) fn has_staged(&self, slot: &Arc<Slot>) -> bool {
        match &*self.stage.lock() {
            Stage::Open(open) => open.upgrades.iter().any(|upgrade| upgrade.is_for(slot)),
            Stage::Committed | Stage::Abandoned => false,
        }
    }

    /// Ends the overlay and returns what was staged.
    pub(super) fn end(&self, published: bool) -> Ended {
        let end = if published { Stage::Committed } else { Stage::Abandoned };
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, end) {
            Stage::Open(open) => Ended {
                slots: open.slots.into_values().collect(),
                over: open.over.into_values().collect(),
                upgrades: open.upgrades,
                seen: open.seen,
                used: open.used,
            },
            ended => {
                *stage = ended;
                Ended::default()
            }
        }
    }
}
