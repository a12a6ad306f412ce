//! Stopping a statement of PostgreSQL, which takes a connection of its own.
//!
//! # Invariants
//!
//! - The server signals the session and says nothing, so a cancellation may arrive when its statement is
//!   over. A connection that has been cancelled is lent out again only if the statement ended by that cancellation.
//! - Nobody waits for a cancellation, and none takes longer than [`PATIENCE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio_postgres::CancelToken;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::chain;
use crate::db::interrupt::Cancel;

/// How long a cancellation may take to reach the server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cancels what runs on one connection.
pub(super) struct Canceller {
    token: CancelToken,
    tls: MakeRustlsConnect,
    was_used: Arc<AtomicBool>,
}

impl Canceller {
    pub(super) fn new(token: CancelToken, tls: MakeRustlsConnect) -> Canceller {
        Canceller { token, tls, was_used: Arc::default() }
    }

    /// Whether a cancellation may be on its way.
    pub(super) fn was_used(&self) -> bool {
        self.was_used.load(Ordering::Acquire)
    }

    /// Counts a cancellation as on its way.
    pub(super) fn distrust(&self) {
        self.was_used.store(true, Ordering::Release);
    }

    /// Cancels what runs. Its caller looks whether the statement ended by it, and else distrusts the connection.
    pub(super) fn send(&self) {
        send(self.token.clone(), self.tls.clone());
    }
}

impl Cancel for Canceller {
    fn cancel(&self) {
        self.distrust();
        self.send();
    }
}

/// Sends a cancellation, on a thread of its own.
pub(super) fn send(token: CancelToken, tls: MakeRustlsConnect) {
    let spawned = std::thread::Builder::new().name("db-cancel".to_owned()).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::warn!("a statement that nobody waits for runs on: {error}"),
        };
        let sent = runtime.block_on(async { tokio::time::timeout(PATIENCE, token.cancel_query(tls)).await });
        // A look-up of the server's name may be under way.
        runtime.shutdown_background();
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("a statement that nobody waits for runs on: {}", chain(&error));
            }
            Err(_) => {
                tracing::warn!("a statement that nobody waits for runs on: no answer to its cancellation")
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!("a statement that nobody waits for runs on: no thread to cancel it: {error}");
    }
}
