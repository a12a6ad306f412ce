//! How many bytes of bodies the server keeps in memory, for all connections and for each.
//!
//! A request's body is kept until its handler has returned, a response's until its client has taken it. Both are
//! booked here. A request that would pass a bound is answered with 503; while the budget is exhausted no request is
//! begun, and the connections that have kept responses for longest are closed (see [`Thread::sweep`]).
//!
//! # Invariants
//!
//! - What is reserved is given back when the last holder of the bytes drops them, on whatever thread.
//! - A response is always booked, since it is there already: the budget may be passed by what the workers return.
//!
//! [`Thread::sweep`]: super::connection::Thread::sweep

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::connection::Connection;

/// Bodies up to this size, in bytes, are not booked: there is one for each request that is answered at most.
const SMALL: usize = 1024;

/// One connection may have this part of the budget for bodies that it sends.
const CONNECTION_SHARE: usize = 4;

/// What the bodies of one server may take.
#[derive(Debug)]
pub(super) struct BufferBudget {
    /// In bytes.
    limit: usize,
    used: AtomicUsize,
    /// Whether much of it was used at the last look, so that the end of a burst is noticed.
    was_tight: AtomicBool,
}

impl BufferBudget {
    pub(super) fn new(limit: usize) -> Arc<BufferBudget> {
        Arc::new(BufferBudget { limit, used: AtomicUsize::new(0), was_tight: AtomicBool::new(false) })
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Whether nothing more may be begun that needs memory.
    pub(super) fn is_exhausted(&self) -> bool {
        self.used() >= self.limit
    }

    /// How many bytes are in use beyond half of the budget.
    pub(super) fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit / 2)
    }

    /// Whether a burst has just ended: much was in use at an earlier look, and little is now.
    pub(super) fn has_relaxed(&self) -> bool {
        if self.excess() > 0 {
            self.was_tight.store(true, Relaxed);
            return false;
        }
        self.used() < self.limit / 8 && self.was_tight.load(Relaxed) && self.was_tight.swap(false, Relaxed)
    }
}

/// Bytes that a request's body takes.
#[derive(Debug)]
pub(super) struct BodyReservation {
    budget: Arc<BufferBudget>,
    connection: Arc<Connection>,
    bytes: usize,
}

impl BodyReservation {
    /// A reservation of nothing.
    pub(super) fn new(budget: &Arc<BufferBudget>, connection: &Arc<Connection>) -> BodyReservation {
        BodyReservation { budget: Arc::clone(budget), connection: Arc::clone(connection), bytes: 0 }
    }

    /// Makes it one of `bytes` in all. Returns false, and leaves it as it was, if that is more than there is.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        if bytes <= SMALL {
            return true;
        }
        let more = bytes - self.bytes;
        let of_connection = self.connection.body_bytes.load(Relaxed) + more;
        let of_all = self.budget.used.fetch_add(more, Relaxed) + more;
        if of_all > self.budget.limit || of_connection > self.budget.limit / CONNECTION_SHARE {
            self.budget.used.fetch_sub(more, Relaxed);
            return false;
        }
        self.connection.body_bytes.fetch_add(more, Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.connection.body_bytes.fetch_sub(self.bytes, Relaxed);
            self.budget.used.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// A response's body with its booking.
struct BookedBytes {
    bytes: Bytes,
    budget: Arc<BufferBudget>,
    connection: Arc<Connection>,
}

/// Books a response's body until its last byte has been dropped.
pub(super) fn book_response(bytes: Bytes, budget: &Arc<BufferBudget>, connection: &Arc<Connection>) -> Bytes {
    if bytes.len() <= SMALL {
        return bytes;
    }
    budget.used.fetch_add(bytes.len(), Relaxed);
    connection.keep_response(bytes.len());
    let (budget, connection) = (Arc::clone(budget), Arc::clone(connection));
    Bytes::from_owner(BookedBytes { bytes, budget, connection })
}

impl AsRef<[u8]> for BookedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for BookedBytes {
    fn drop(&mut self) {
        self.connection.drop_response(self.bytes.len());
        self.budget.used.fetch_sub(self.bytes.len(), Relaxed);
    }
}
