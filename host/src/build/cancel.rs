//! Giving up on a build: one flag, and what must happen at the instant it is raised.
//!
//! Owns the flag and the list of hooks. Does not know what a hook does: a build registers one that
//! kills its processes, a queue one that wakes a waiter.
//!
//! # Invariants
//!
//! - A hook runs at most once, and never after its [`Hook`] guard was dropped: a process number that
//!   the system has given to somebody else is never signalled.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The request to stop a build, shared by who may ask for it and who must obey.
///
/// Clones share one flag, and it is never lowered: every build takes a new one.
#[derive(Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    next: u64,
    entries: Vec<(u64, Box<dyn Fn() + Send>)>,
}

impl Cancel {
    /// Makes a flag that is not raised.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Raises the flag and runs every hook before it returns. Doing it twice is the same as once.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::SeqCst);
        for (_, run) in self.shared.hooks.lock().entries.drain(..) {
            run();
        }
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    /// Has `run` called by the thread that cancels, or at once if that has happened already.
    ///
    /// `run` must not call back into this `Cancel`.
    pub(super) fn on_cancel(&self, run: impl Fn() + Send + 'static) -> Hook {
        let mut hooks = self.shared.hooks.lock();
        let id = hooks.next;
        hooks.next += 1;
        // The flag is raised before the list is locked: who does not see it here is on the list in time.
        if self.is_cancelled() {
            run();
        } else {
            hooks.entries.push((id, Box::new(run)));
        }
        drop(hooks);
        Hook { shared: Arc::clone(&self.shared), id }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// Keeps a hook registered; dropping it waits for a running hook and takes it off the list.
#[must_use = "the hook is gone as soon as this is dropped"]
pub(super) struct Hook {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.shared.hooks.lock().entries.retain(|(id, _)| *id != self.id);
    }
}
