//! Who waits for whom, so that a cycle is an error and never a deadlock.
//!
//! Two threads: T1 makes `a` and asks for `b`; T2 makes `b` and asks for `a`. Each announces its wait
//! under the one lock of the graph, so one of them comes second, walks from the slot it wants to that
//! slot's maker, from there to the slot this maker waits for, and arrives at itself: it gets an error
//! instead of its wait, its init fails, and the other one's wait ends with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::slot::Slot;

/// Names a thread for the life of the process. (A `ThreadId` would do within one copy of `std`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ThreadToken(u64);

impl ThreadToken {
    /// The current thread's.
    pub(super) fn current() -> ThreadToken {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static TOKEN: ThreadToken = ThreadToken(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        TOKEN.with(|token| *token)
    }
}

/// A wait for one attempt at one slot.
struct Edge {
    slot: Arc<Slot>,
    attempt: u64,
}

/// The waits of all threads.
#[derive(Default)]
pub(super) struct Graph {
    /// Lock order: this, then a slot's state.
    edges: Mutex<HashMap<ThreadToken, Edge>>,
}

impl Graph {
    /// Announces that the current thread is about to wait for `attempt` at `slot`.
    ///
    /// # Errors
    ///
    /// The cycle as `a -> b -> a`, if the wait would close one.
    pub(super) fn announce(&self, slot: &Arc<Slot>, attempt: u64) -> Result<Wait<'_>, String> {
        let me = ThreadToken::current();
        let mut edges = self.edges.lock();
        let mut path = slot.key().to_string();
        let mut at = Arc::clone(slot);
        let mut number = attempt;
        // An edge counts only while its slot is at the very attempt that the thread waits for: a
        // thread that was woken and has not yet withdrawn its edge waits for nobody.
        while let Some(owner) = at.owner(number) {
            if owner == me {
                return Err(format!("{path} -> {}", slot.key()));
            }
            let Some(edge) = edges.get(&owner) else { break };
            path = format!("{path} -> {}", edge.slot.key());
            number = edge.attempt;
            at = Arc::clone(&edge.slot);
        }
        edges.insert(me, Edge { slot: Arc::clone(slot), attempt });
        Ok(Wait { graph: self, thread: me })
    }

    /// How many threads wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.edges.lock().len()
    }
}

/// An announced wait; withdrawn on drop.
pub(super) struct Wait<'g> {
    graph: &'g Graph,
    thread: ThreadToken,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.graph.edges.lock().remove(&self.thread);
    }
}
