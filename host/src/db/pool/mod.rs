//! The pool: lends connections out, one borrower at a time each.
//!
//! Owns how many connections there are, who waits for one, and what is checked between two
//! borrowers. Does not know what a connection is beyond the [`Driver`] and `Connection` traits.
//!
//! # Invariants
//!
//! - One lock, [`Shared::state`]; no I/O, no drop of a connection and no call of a driver under it.
//! - Whoever waits is served in the order of arrival: a connection or a free slot goes straight to
//!   the first waiter, and a newcomer passes nobody.
//! - `open` counts the connections that are idle, lent out or being made. A failed connect gives its
//!   slot back.
//! - A connection is idle only when it has been reset.

mod lease;
mod state;
mod status;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub use self::lease::Lease;
use self::state::{Grant, Idle, Physical, State};
pub use self::status::PoolStatus;
use super::{CheckoutError, ConnectError, Driver, OpenError, Reset, blocking};

/// Connections of a pool whose configuration does not say.
///
/// Enough to keep the cores and disks of a small database server busy; more of them mostly wait for
/// each other there. And few enough that a dozen pools fit into PostgreSQL's default limit of 100.
pub const DEFAULT_MAX_SIZE: u32 = 8;

/// How long a checkout waits when the configuration does not say.
pub const DEFAULT_CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is asked whether it still works before it is lent out.
/// Asking costs a round trip, which a busy pool never pays.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// How long the database may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Most connections at a time.
    pub max_size: u32,
    /// How long a checkout waits when all are lent out; zero: not at all.
    pub checkout_timeout: Duration,
    /// [`STALE_AFTER`], unless a test wants to see the check at work.
    pub stale_after: Duration,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            max_size: DEFAULT_MAX_SIZE,
            checkout_timeout: DEFAULT_CHECKOUT_TIMEOUT,
            stale_after: STALE_AFTER,
        }
    }
}

/// A pool of connections to one database. A clone is the same pool.
///
/// Dropping the last clone closes the idle connections; lent ones close when they come back.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What clones and leases share.
struct Shared {
    driver: Box<dyn Driver>,
    config: PoolConfig,
    state: Mutex<State>,
}

impl Pool {
    /// Opens the pool of a URL (see [`driver`](super::driver)) and its first connection.
    ///
    /// # Errors
    ///
    /// When the URL or a setting is wrong or the database cannot be reached.
    pub fn open(url: &str, data_dir: &Path, config: PoolConfig) -> Result<Pool, OpenError> {
        Pool::with_driver(super::driver(url, data_dir)?, config)
    }

    /// Opens a pool on a driver, and its first connection, so that a wrong address shows at once.
    ///
    /// # Errors
    ///
    /// When a setting is wrong or the database cannot be reached.
    pub fn with_driver(driver: Box<dyn Driver>, mut config: PoolConfig) -> Result<Pool, OpenError> {
        if config.max_size == 0 {
            return Err(OpenError::NoSize);
        }
        config.max_size = driver.max_connections().unwrap_or(u32::MAX).min(config.max_size);
        let state = Mutex::new(State::with_first_slot());
        let pool = Pool { shared: Arc::new(Shared { driver, config, state }) };
        let first = Slot { shared: &pool.shared }.connect()?;
        pool.shared.hand_on(first);
        Ok(pool)
    }

    /// Lends a connection out, waiting as long as the configuration allows.
    ///
    /// # Errors
    ///
    /// When all stay lent out, the database cannot be reached or the pool is closed.
    pub fn checkout(&self) -> Result<Lease, CheckoutError> {
        self.checkout_timeout(self.shared.config.checkout_timeout)
    }

    /// As [`checkout`](Pool::checkout), waiting no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// As `checkout`.
    pub fn checkout_timeout(&self, timeout: Duration) -> Result<Lease, CheckoutError> {
        let shared = &self.shared;
        let physical = match shared.grant(timeout)? {
            Grant::Connection(idle) => match shared.inspect(idle) {
                Ok(physical) => physical,
                Err(slot) => slot.connect()?,
            },
            Grant::Slot => Slot { shared }.connect()?,
            Grant::Failed(error) => return Err(CheckoutError::Unreachable(error)),
            Grant::Closed => return Err(shared.closed()),
        };
        shared.state.lock().counts.checkouts += 1;
        Ok(Lease::new(shared.clone(), physical))
    }

    /// Closes the idle connections now and the others when they come back. Later checkouts fail.
    pub fn close(&self) {
        let idle = {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            state.refuse_waiters(|| Grant::Closed);
            state.take_idle()
        };
        blocking::run(idle, drop);
    }

    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        let shared = &self.shared;
        PoolStatus::new(shared.driver.as_ref(), shared.config, &shared.state.lock())
    }
}

impl Shared {
    fn closed(&self) -> CheckoutError {
        CheckoutError::Closed { address: self.driver.address().to_owned() }
    }

    /// Gets what it takes for a checkout, or waits for it in line.
    fn grant(&self, timeout: Duration) -> Result<Grant, CheckoutError> {
        let begun = Instant::now();
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(self.closed());
        }
        if let Some(grant) = state.take_free(self.config.max_size) {
            return Ok(grant);
        }
        if !timeout.is_zero() {
            let ready = Arc::new(Condvar::new());
            let ticket = state.enter_line(ready.clone());
            // A deadline beyond what the clock can express is none.
            let deadline = begun.checked_add(timeout);
            loop {
                if let Some(grant) = state.take_granted(ticket) {
                    return Ok(grant);
                }
                let has_timed_out = match deadline {
                    Some(deadline) => ready.wait_until(&mut state, deadline).timed_out(),
                    None => {
                        ready.wait(&mut state);
                        false
                    }
                };
                if has_timed_out {
                    // The grant may have come while this thread was waking up.
                    if let Some(grant) = state.take_granted(ticket) {
                        return Ok(grant);
                    }
                    state.leave_line(ticket);
                    break;
                }
            }
        }
        state.counts.timeouts += 1;
        Err(CheckoutError::Exhausted {
            address: self.driver.address().to_owned(),
            max_size: self.config.max_size,
            waited: begun.elapsed(),
        })
    }

    /// Looks whether an idle connection still works. If not, it is closed and its slot returned.
    ///
    /// Nothing is lost with it: it was reset when it came back, so it holds nobody's work.
    fn inspect(&self, idle: Idle) -> Result<Physical, Slot<'_>> {
        let slot = Slot { shared: self };
        let Idle { mut physical, since } = idle;
        let is_dead = physical.conn.has_broken()
            || (since.elapsed() >= self.config.stale_after && !physical.conn.is_valid(PING_TIMEOUT));
        if !is_dead {
            slot.keep();
            return Ok(physical);
        }
        tracing::debug!(address = self.driver.address(), "replacing a connection that died while idle");
        self.forget(&physical);
        blocking::run(physical, drop);
        Err(slot)
    }

    /// Takes a connection back from a borrower. May block.
    fn checkin(&self, mut physical: Physical) {
        // Given back by the guard if the driver panics.
        let slot = Slot { shared: self };
        let is_usable = !self.state.lock().is_closed
            && !physical.conn.has_broken()
            && physical.conn.reset() != Reset::Close
            && !physical.conn.has_broken();
        slot.keep();
        if is_usable {
            self.hand_on(physical);
        } else {
            self.discard(physical);
        }
    }

    /// Gives a clean connection to the first waiter, or to the idle ones.
    fn hand_on(&self, physical: Physical) {
        let idle = Idle { physical, since: Instant::now() };
        let refused = self.state.lock().offer(idle);
        if let Some(idle) = refused {
            self.discard(idle.physical);
        }
    }

    /// Closes a connection and gives its slot away. The slot comes last: the limit is never exceeded.
    fn discard(&self, physical: Physical) {
        self.forget(&physical);
        drop(physical);
        self.state.lock().free_slot();
    }

    /// Counts a connection as closed.
    fn forget(&self, physical: &Physical) {
        self.state.lock().closed(physical.serial);
    }

    /// Gives the slot of a lost connection away.
    fn lost(&self, serial: u64) {
        let mut state = self.state.lock();
        state.closed(serial);
        state.free_slot();
    }
}

/// Leave to make one connection; given back when dropped.
struct Slot<'a> {
    shared: &'a Shared,
}

impl Slot<'_> {
    /// Makes the connection. The slot is given back if that fails or panics.
    fn connect(self) -> Result<Physical, ConnectError> {
        let outcome = self.shared.driver.connect();
        let mut state = self.shared.state.lock();
        match outcome {
            Ok(conn) => {
                let serial = state.opened(conn.backend_id());
                drop(state);
                self.keep();
                Ok(Physical { conn, serial })
            }
            Err(error) => {
                state.counts.connect_failures += 1;
                state.fail_waiters(&error);
                drop(state);
                Err(error)
            }
        }
    }

    /// The slot is filled.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().free_slot();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let idle = self.state.get_mut().take_idle();
        if !idle.is_empty() {
            blocking::run(idle, drop);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("driver", &self.driver)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
