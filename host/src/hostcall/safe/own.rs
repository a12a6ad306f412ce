//! Whose safe a call is about: the caller's own, by the name its generation was loaded under, or one that
//! the operator has granted it.
//!
//! # Invariants
//!
//! - No argument of a call leads to another plugin's safe: a handle names only what this generation opened.
//! - Calls of the safe block. On a thread that is inside a tokio runtime (the I/O thread that runs an
//!   `inline` route) each of them is an error before anything is touched.
//! - Once another generation is current, nobody waits on a watch of this one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use plugin_api::abi::{HandleId, Status};

use super::super::{Caller, Failure, Held};
use crate::db;
use crate::safe::{Safe, Safes, Watch};

/// A generation's way to its plugin's safe, opened at the first use, and to those it shares.
#[derive(Debug)]
pub struct OwnSafe {
    /// `None` in a probe.
    safes: Option<Arc<Safes>>,
    /// Only ever that of the caller this belongs to.
    own: OnceLock<Arc<Safe>>,
    /// Shared safes that are open, by name.
    shared: Mutex<HashMap<String, HandleId>>,
    /// Those that somebody may be waiting on.
    watches: Mutex<Watches>,
    /// What became of relaxed writes that were not made, by the safe's handle; the first of each.
    pub(super) relaxed: Arc<Mutex<HashMap<u64, Failure>>>,
}

#[derive(Debug, Default)]
struct Watches {
    list: Vec<Weak<Watch>>,
    is_cancelled: bool,
}

impl OwnSafe {
    /// The way to those of `safes`.
    pub fn new(safes: Arc<Safes>) -> OwnSafe {
        OwnSafe::of(Some(safes))
    }

    /// The way to nothing, where a library is only looked at.
    pub fn none() -> OwnSafe {
        OwnSafe::of(None)
    }

    /// The way of another generation, which has opened nothing yet.
    pub fn for_another(&self) -> OwnSafe {
        OwnSafe::of(self.safes.clone())
    }

    fn of(safes: Option<Arc<Safes>>) -> OwnSafe {
        OwnSafe {
            safes,
            own: OnceLock::new(),
            shared: Mutex::default(),
            watches: Mutex::default(),
            relaxed: Arc::default(),
        }
    }

    /// Wakes all who wait on a watch of this generation, for good: it is no longer the current one.
    pub fn cancel_watches(&self) {
        let mut watches = self.watches.lock();
        watches.is_cancelled = true;
        for watch in watches.list.drain(..).filter_map(|watch| watch.upgrade()) {
            watch.cancel();
        }
    }

    pub(super) fn add_watch(&self, watch: &Arc<Watch>) {
        let mut watches = self.watches.lock();
        if watches.is_cancelled {
            watch.cancel();
        }
        watches.list.retain(|watch| watch.strong_count() > 0);
        watches.list.push(Arc::downgrade(watch));
    }

    fn safes(&self) -> Result<&Arc<Safes>, Failure> {
        let none = || Failure::new(Status::CLOSED, "there is no safe where a library is only looked at");
        self.safes.as_ref().ok_or_else(none)
    }
}

/// The safe that a call is about, for a call that may block.
pub(super) fn safe(caller: &Caller, handle: HandleId) -> Result<Arc<Safe>, Failure> {
    may_block()?;
    if handle == HandleId::NONE {
        return own(caller);
    }
    shared(caller, handle)
}

/// As [`safe`], for a call that does not block once the safe is open.
pub(super) fn safe_if_open(caller: &Caller, handle: HandleId) -> Result<Arc<Safe>, Failure> {
    if handle != HandleId::NONE {
        return shared(caller, handle);
    }
    match caller.safe.own.get() {
        Some(safe) => Ok(Arc::clone(safe)),
        None => safe(caller, handle),
    }
}

/// Opens a safe that plugins share.
pub(super) fn open_shared(caller: &Caller, name: &str) -> Result<HandleId, Failure> {
    may_block()?;
    let safes = caller.safe.safes()?;
    let mut shared = caller.safe.shared.lock();
    if let Some(handle) = shared.get(name) {
        return Ok(*handle);
    }
    if !safes.is_granted(name, &caller.plugin) {
        let words = format!(
            "plugin `{plugin}` may not open the shared safe `{name}`; grant it in host.toml: \
             `[safe.shared]`, `{name} = [\"{plugin}\"]`",
            plugin = caller.plugin
        );
        return Err(Failure::new(Status::DENIED, words));
    }
    let handle = caller.handles.insert(Held::Safe(safes.open_shared(name)?));
    shared.insert(name.to_owned(), handle);
    Ok(handle)
}

pub(super) fn may_block() -> Result<(), Failure> {
    if db::blocking::is_forbidden() {
        return Err(Failure::invalid("the safe's calls block; declare the route without `inline`"));
    }
    Ok(())
}

fn own(caller: &Caller) -> Result<Arc<Safe>, Failure> {
    if let Some(safe) = caller.safe.own.get() {
        return Ok(Arc::clone(safe));
    }
    let safe = caller.safe.safes()?.open(&caller.plugin)?;
    Ok(Arc::clone(caller.safe.own.get_or_init(|| safe)))
}

fn shared(caller: &Caller, handle: HandleId) -> Result<Arc<Safe>, Failure> {
    match caller.handles.get(handle) {
        Some(Held::Safe(safe)) => Ok(safe),
        _ => Err(Failure::new(Status::NOT_FOUND, "this handle names no safe")),
    }
}
