//! One cargo at a time, first come first served.
//!
//! Builds of one host share a target directory, which cargo locks as a whole: a second cargo would
//! only wait, but unfairly, deaf to cancellation, and holding a process. So they queue here instead.
//!
//! # Invariants
//!
//! - At most one [`Turn`] of a [`Queue`] exists, and turns are given in the order they were asked for.
//! - A cancelled waiter leaves the queue at once and delays nobody.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::cancel::Cancel;

/// The queue in front of cargo.
#[derive(Default)]
pub(super) struct Queue {
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    tickets: Mutex<Tickets>,
    moved: Condvar,
}

#[derive(Default)]
struct Tickets {
    next: u64,
    /// The front holds the turn, the others wait for it.
    waiting: VecDeque<u64>,
}

impl Queue {
    /// Waits for the turn; `None` if `cancel` came first. `queued` is called once if there is a wait.
    pub(super) fn wait(&self, cancel: &Cancel, queued: impl FnOnce()) -> Option<Turn> {
        let (turn, is_first) = {
            let mut tickets = self.line.tickets.lock();
            let id = tickets.next;
            tickets.next += 1;
            tickets.waiting.push_back(id);
            // Made before anything can fail, so that the ticket leaves the line in every case.
            (Turn { line: Arc::clone(&self.line), id }, tickets.waiting.len() == 1)
        };
        if !is_first {
            queued();
            let line = Arc::clone(&self.line);
            let hook = cancel.on_cancel(move || {
                // Locked, so that a waiter between its check and its sleep cannot miss the call.
                let _tickets = line.tickets.lock();
                line.moved.notify_all();
            });
            let mut tickets = self.line.tickets.lock();
            while tickets.waiting.front() != Some(&turn.id) && !cancel.is_cancelled() {
                self.line.moved.wait(&mut tickets);
            }
            drop(tickets);
            drop(hook);
        }
        (!cancel.is_cancelled()).then_some(turn)
    }
}

/// The right to run cargo, or a place in the line for it; given back on drop.
pub(super) struct Turn {
    line: Arc<Line>,
    id: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line.tickets.lock().waiting.retain(|id| *id != self.id);
        self.line.moved.notify_all();
    }
}
