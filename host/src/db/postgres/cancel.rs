//! Stopping a statement of PostgreSQL, which takes a connection of its own.
//!
//! # Invariants
//!
//! - The server signals the session and says nothing, so a cancellation may arrive when its statement is
//!   over. A connection that has been cancelled once is therefore never lent out again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::{CancelToken, NoTls};

use super::error::chain;
use crate::db::interrupt::Cancel;

/// Cancels what runs on one connection.
pub(super) struct Canceller {
    token: CancelToken,
    was_used: Arc<AtomicBool>,
}

impl Canceller {
    pub(super) fn new(token: CancelToken) -> Canceller {
        Canceller { token, was_used: Arc::default() }
    }

    /// Whether a cancellation may be on its way.
    pub(super) fn was_used(&self) -> bool {
        self.was_used.load(Ordering::Acquire)
    }
}

impl Cancel for Canceller {
    fn cancel(&self) {
        self.was_used.store(true, Ordering::Release);
        let token = self.token.clone();
        let spawned = std::thread::Builder::new().name("db-cancel".to_owned()).spawn(move || {
            if let Err(error) = token.cancel_query(NoTls) {
                tracing::warn!("a statement that nobody waits for runs on: {}", chain(&error));
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("a statement that nobody waits for runs on: no thread to cancel it: {error}");
        }
    }
}
