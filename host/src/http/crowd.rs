//! How many connections there may be, and what becomes of those beyond.
//!
//! A connection costs a descriptor, and who has none left can neither accept nor open a file. So there is a
//! limit. Beyond it a few more are let in, to be told so; beyond these, clients wait in the system's queue.
//!
//! # Invariants
//!
//! - Each I/O thread asks on its own, so the limit may be passed by one connection for each of them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use super::trouble::Trouble;

/// How long accepting rests while not even those that are told fit in.
pub(super) const FULL_REST: Duration = Duration::from_millis(10);

/// The limit, and whether it has been reached.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    /// Whether that has been said in the log, so that it is said once and not for each client.
    is_told: AtomicBool,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Crowd {
        Crowd { most, is_told: AtomicBool::new(false) }
    }

    /// Whether a connection, one of `open`, is one too many.
    pub(super) fn is_surplus(&self, open: u64) -> bool {
        let is_surplus = open > self.most as u64;
        if is_surplus && !self.is_told.swap(true, Relaxed) {
            let max_connections = self.most;
            tracing::warn!(
                max_connections,
                "there are as many connections as may be; further clients get 503. Raise max_connections in [limits], \
                 and the number of descriptors that the process may have (`ulimit -n`, `LimitNOFILE=`)"
            );
        }
        if !is_surplus && open < self.most as u64 / 2 && self.is_told.load(Relaxed) {
            self.is_told.store(false, Relaxed);
        }
        is_surplus
    }

    /// Whether `open` connections leave no room even for those that are told so.
    pub(super) fn is_full(&self, open: u64) -> bool {
        open >= (self.most + (self.most / 8).clamp(8, 256)) as u64
    }

    /// What a client beyond the limit is told.
    pub(super) fn trouble(&self) -> Trouble {
        let words = "the server has as many connections as it may have; try again in a second";
        let reason = format!("max_connections is {}", self.most);
        let trouble = Trouble::new(StatusCode::SERVICE_UNAVAILABLE, words);
        Trouble { retry_after: Some(1), reason: Some(reason), ..trouble }
    }
}
