//! The pool: lends connections out, one borrower at a time each, or several on a shared one.
//!
//! Owns how many connections there are, who waits for one, and what is checked between two
//! borrowers. Does not know what a connection is beyond [`Steady`], nor who borrows it beyond what a
//! [`Borrower`] says.
//!
//! # Invariants
//!
//! - One lock, that of the [books](state), and smaller ones below it, of the [perches](perch); no I/O, no drop of a
//!   connection and no call of a driver under them.
//! - Waiters are served in the order of arrival, and none starves: see [`state`].
//! - `open` counts the connections that are idle, lent out or being made. A failed connect gives its
//!   slot back.
//! - A connection is idle only when it has been reset.

mod borrower;
mod joint;
mod lease;
mod patrol;
mod perch;
mod shared;
mod state;
mod status;
mod waits;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::borrower::Borrower;
pub(super) use self::lease::Alone;
pub use self::lease::Lease;
pub use self::patrol::pools;
use self::perch::Perches;
use self::shared::{Obtained, Slot};
use self::state::{Apart, State};
pub use self::status::PoolStatus;
pub use self::waits::Waits;
use super::source::Source;
use super::{CheckoutError, Driver, OpenError, PoolConfig, monitor};

/// A pool of connections to one database. A clone is the same pool. DBUtils: `PooledDB`.
///
/// Dropping the last clone closes the idle connections; lent ones close when they come back.
#[derive(Clone, Debug)]
pub struct Pool {
    owner: Arc<Owner>,
}

/// What the clones of a pool share and its leases do not: the last one closes what is idle.
#[derive(Debug)]
struct Owner(Arc<Shared>);

/// What clones and leases share.
struct Shared {
    source: Arc<Source>,
    config: PoolConfig,
    state: Apart<Mutex<State>>,
    perches: Arc<Perches>,
    /// A thread of the monitor's is at work on this pool.
    is_tended: AtomicBool,
}

impl Pool {
    /// Opens the pool of a URL (see [`driver`](super::driver)) and its first connections.
    ///
    /// # Errors
    ///
    /// When the URL or a setting is wrong or the database cannot be reached.
    pub fn open(url: &str, data_dir: &Path, config: PoolConfig) -> Result<Pool, OpenError> {
        Pool::with_driver(super::driver(url, data_dir)?, config)
    }

    /// Opens a pool on a driver, and `min_idle` connections; at least one, unless the pool is `lazy`, so
    /// that a wrong address shows at once.
    ///
    /// # Errors
    ///
    /// When a setting is wrong or the database cannot be reached.
    pub fn with_driver(driver: Box<dyn Driver>, config: PoolConfig) -> Result<Pool, OpenError> {
        let config = config.checked(driver.as_ref())?;
        let source = Source::new(driver, config.steady.clone(), config.max_lifetime);
        let perches = Arc::new(Perches::new(&config));
        let state = Apart(Mutex::new(State::new(&config, perches.clone())));
        let is_tended = AtomicBool::new(false);
        let shared = Arc::new(Shared { source, config, state, perches, is_tended });
        // From here on: it empties the pool of those that came before one that could not be made.
        let pool = Pool { owner: Arc::new(Owner(shared.clone())) };
        if !shared.config.lazy {
            for _ in 0..shared.config.min_idle.max(1) {
                let slot = shared.take_slot();
                let first = slot.map(Slot::connect).transpose()?;
                if let Some(first) = first {
                    shared.hand_on(first);
                }
            }
        }
        let watched: Weak<Shared> = Arc::downgrade(&shared);
        patrol::ALL.lock().push(watched.clone());
        monitor::watch(watched);
        Ok(pool)
    }

    /// Lends a connection out, waiting as long as the configuration allows.
    ///
    /// # Errors
    ///
    /// When all stay lent out, the database cannot be reached or the pool is closed.
    pub fn checkout(&self) -> Result<Lease, CheckoutError> {
        self.checkout_for(None, None)
    }

    /// As [`checkout`](Pool::checkout), waiting no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// As `checkout`.
    pub fn checkout_timeout(&self, timeout: Duration) -> Result<Lease, CheckoutError> {
        self.checkout_for(None, Some(timeout))
    }

    /// As [`checkout`](Pool::checkout), on behalf of somebody whom the report of a forgotten connection
    /// is to name, and waiting no longer than `timeout` if it is given.
    ///
    /// # Errors
    ///
    /// As `checkout`.
    pub fn checkout_for(
        &self,
        borrower: Option<Arc<dyn Borrower>>,
        timeout: Option<Duration>,
    ) -> Result<Lease, CheckoutError> {
        self.lend(borrower, timeout, false)
    }

    /// As [`checkout_for`](Pool::checkout_for), for something that gives the connection back when the work of this
    /// thread ends, and not before.
    ///
    /// # Errors
    ///
    /// As `checkout`.
    pub fn checkout_to_the_end(&self, borrower: Option<Arc<dyn Borrower>>) -> Result<Lease, CheckoutError> {
        self.lend(borrower, None, true)
    }

    fn lend(
        &self,
        borrower: Option<Arc<dyn Borrower>>,
        timeout: Option<Duration>,
        is_to_the_end: bool,
    ) -> Result<Lease, CheckoutError> {
        let shared = self.shared();
        let patience = timeout.unwrap_or(shared.config.checkout_timeout);
        match shared.obtain(borrower, patience, false, is_to_the_end)? {
            Obtained::Own(physical) => Ok(Lease::own(physical)),
            Obtained::Joint(joint) => Ok(shared.lend_share(joint)),
        }
    }

    /// Lends a share in a connection: of one more, up to `max_shared`; then of the one with the fewest
    /// borrowers, none of whom has a transaction open. Where nothing is shared, a connection of its own.
    ///
    /// # Errors
    ///
    /// As `checkout`.
    pub fn checkout_shared(
        &self,
        borrower: Option<Arc<dyn Borrower>>,
        timeout: Option<Duration>,
    ) -> Result<Lease, CheckoutError> {
        let shared = self.shared();
        let patience = timeout.unwrap_or(shared.config.checkout_timeout);
        if shared.config.max_shared == 0 {
            return self.checkout_for(borrower, timeout);
        }
        match shared.obtain(borrower, patience, true, false)? {
            Obtained::Own(physical) => Ok(Lease::own(physical)),
            Obtained::Joint(joint) => Ok(shared.lend_share(joint)),
        }
    }

    /// Whether `other` is a clone of this pool.
    pub fn is_same(&self, other: &Pool) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// Where its database is, without a password.
    pub fn address(&self) -> &str {
        self.shared().source.driver.address()
    }

    /// Closes the idle connections now and the others when they come back. Later checkouts fail.
    pub fn close(&self) {
        self.shared().close();
    }

    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        self.shared().status()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
