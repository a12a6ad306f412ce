//! A job on its way to a worker, seen from the I/O thread that brought it.
//!
//! # Invariants
//!
//! - A job whose request ends before it has begun is never begun.
//! - Jobs that are enqueued are announced: by a [`WakeUp`] that is dropped, whatever becomes of the request.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::connection::Thread;
use super::workers::{GivenUp, Ticket, Workers};

/// A job that a request waits for. Dropped before it is over, as its client has gone, it is never begun.
pub(super) struct PendingJob<'a> {
    pub(super) workers: &'a Workers,
    pub(super) ticket: Arc<Ticket>,
    /// Whether nothing is left to be withdrawn.
    pub(super) is_over: bool,
}

impl PendingJob<'_> {
    /// Drops the job if it has not begun; returns whether it was dropped.
    pub(super) fn withdraw(&mut self) -> bool {
        self.is_over = self.workers.withdraw(&self.ticket);
        self.is_over
    }

    /// Gives the job up, begun or not.
    pub(super) fn give_up(&mut self) -> GivenUp {
        self.is_over = true;
        self.workers.give_up(&self.ticket)
    }
}

impl Drop for PendingJob<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.workers.withdraw(&self.ticket);
        }
    }
}

/// Wakes a worker for the jobs of one pass of an I/O thread over what is to be done.
pub(super) struct WakeUp {
    workers: Workers,
    thread: Arc<Thread>,
}

impl WakeUp {
    /// Has a worker woken when this thread has been through all that is to be done now, and so maybe brought more
    /// jobs. Were it woken at once, it would often be done and asleep again before the next job comes.
    pub(super) fn soon(workers: &Workers, thread: &Arc<Thread>) {
        if !thread.is_waking.swap(true, Relaxed) {
            let this = WakeUp { workers: workers.clone(), thread: Arc::clone(thread) };
            // The runtime's queue is first come, first served. When it ends, this is dropped there as well.
            tokio::spawn(async move { drop(this) });
        }
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        self.thread.is_waking.store(false, Relaxed);
        self.workers.wake();
    }
}
