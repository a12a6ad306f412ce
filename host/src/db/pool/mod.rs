//! The pool: lends connections out, one borrower at a time each, or several on a shared one.
//!
//! Owns how many connections there are, who waits for one, and what is checked between two
//! borrowers. Does not know what a connection is beyond [`Steady`], nor who borrows it beyond what a
//! [`Borrower`] says.
//!
//! # Invariants
//!
//! - One lock, [`Shared::state`]; no I/O, no drop of a connection and no call of a driver under it.
//! - Waiters are served in the order of arrival, and none starves: see [`state`].
//! - `open` counts the connections that are idle, lent out or being made. A failed connect gives its
//!   slot back.
//! - A connection is idle only when it has been reset.

mod borrower;
mod joint;
mod lease;
mod patrol;
mod state;
mod status;
mod waits;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

pub use self::borrower::Borrower;
use self::borrower::Loan;
use self::joint::Joint;
pub(super) use self::lease::Alone;
pub use self::lease::Lease;
pub use self::patrol::pools;
use self::state::{Grant, Idle, Physical, State};
pub use self::status::PoolStatus;
pub use self::waits::Waits;
use super::clock::Moment;
use super::source::Source;
use super::{
    CheckoutError, ConnectError, Driver, OpenError, Ping, PoolConfig, ResetPolicy, Steady, blocking, monitor,
};

/// A pool of connections to one database. A clone is the same pool. DBUtils: `PooledDB`.
///
/// Dropping the last clone closes the idle connections; lent ones close when they come back.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What clones and leases share.
struct Shared {
    source: Arc<Source>,
    config: PoolConfig,
    state: Mutex<State>,
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
        let state = Mutex::new(State::new(&config));
        let shared = Arc::new(Shared { source, config, state, is_tended: AtomicBool::new(false) });
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
        Ok(Pool { shared })
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
        let shared = &self.shared;
        let patience = timeout.unwrap_or(shared.config.checkout_timeout);
        let loan = Loan::now(borrower, shared.config.leak_backtrace);
        let grant = shared.grant(patience, false, loan)?;
        Ok(Lease::own(shared.clone(), shared.fulfil(grant)?))
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
        let shared = &self.shared;
        let patience = timeout.unwrap_or(shared.config.checkout_timeout);
        if shared.config.max_shared == 0 {
            return self.checkout_for(borrower, timeout);
        }
        let loan = Loan::now(borrower, shared.config.leak_backtrace);
        match shared.grant(patience, true, loan)? {
            Grant::Joint(joint) => Ok(shared.lend_share(joint)),
            grant => {
                let coming = Coming { shared, counts: grant.is_for_one() };
                let joint = Arc::new(Joint::new(shared.fulfil(grant)?));
                shared.state.lock().joints.add(joint.clone());
                drop(coming);
                Ok(shared.lend_share(joint))
            }
        }
    }

    /// Whether `other` is a clone of this pool.
    pub fn is_same(&self, other: &Pool) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Where its database is, without a password.
    pub fn address(&self) -> &str {
        self.shared.source.driver.address()
    }

    /// Closes the idle connections now and the others when they come back. Later checkouts fail.
    pub fn close(&self) {
        let idle = {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            state.refuse_waiters(|| Grant::Closed);
            state.take_idle()
        };
        drop(idle);
    }

    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        self.shared.status()
    }
}

impl Shared {
    fn closed(&self) -> CheckoutError {
        CheckoutError::Closed { address: self.source.driver.address().to_owned() }
    }

    /// Gets what it takes for a checkout, or waits for it in line.
    fn grant(&self, timeout: Duration, shares: bool, loan: Loan) -> Result<Grant, CheckoutError> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(self.closed());
        }
        if let Some(grant) = self.take(&mut state, shares) {
            return Ok(noted(state, grant, loan));
        }
        let begun = Instant::now();
        if !timeout.is_zero()
            && let Some(grant) = self.wait(&mut state, begun, timeout, shares)
        {
            state.waits.note(begun.elapsed());
            return Ok(noted(state, grant, loan));
        }
        state.counts.timeouts += 1;
        Err(CheckoutError::Exhausted {
            address: self.source.driver.address().to_owned(),
            max_size: self.config.max_size,
            waited: begun.elapsed(),
        })
    }

    /// Takes what is free.
    fn take(&self, state: &mut State, shares: bool) -> Option<Grant> {
        if !shares {
            return state.take_free();
        }
        let max_shared = usize::try_from(self.config.max_shared).unwrap_or(usize::MAX);
        if state.joints.len() < max_shared
            && let Some(grant) = state.take_free()
        {
            state.joints.coming += 1;
            return Some(grant);
        }
        state.joints.join().map(Grant::Joint)
    }

    /// Waits in line.
    fn wait(
        &self,
        state: &mut MutexGuard<'_, State>,
        begun: Instant,
        timeout: Duration,
        shares: bool,
    ) -> Option<Grant> {
        let ready = Arc::new(Condvar::new());
        let ticket = state.enter_line(ready.clone(), shares);
        // A deadline beyond what the clock can express is none.
        let deadline = begun.checked_add(timeout);
        loop {
            let has_timed_out = match deadline {
                Some(deadline) => ready.wait_until(state, deadline).timed_out(),
                None => {
                    ready.wait(state);
                    false
                }
            };
            // Also after the deadline: the grant may have come while this thread was waking up.
            if let Some(grant) = state.take_granted(ticket) {
                if shares && grant.is_for_one() {
                    state.joints.coming += 1;
                }
                return Some(grant);
            }
            if has_timed_out {
                state.leave_line(ticket);
                return None;
            }
        }
    }

    /// Makes a connection of a grant: the one that was idle, if it still works, or a new one.
    fn fulfil(self: &Arc<Shared>, grant: Grant) -> Result<Physical, CheckoutError> {
        match grant {
            Grant::Connection(idle) => match self.inspect(idle) {
                Ok(physical) => Ok(physical),
                Err(slot) => Ok(slot.connect()?),
            },
            Grant::Slot(seat) => Ok(Slot { shared: self, seat }.connect()?),
            Grant::Failed(error) => Err(CheckoutError::Unreachable(error)),
            Grant::Closed | Grant::Joint(_) => Err(self.closed()),
        }
    }

    /// Looks whether an idle connection is still good. If not, it is closed and its slot returned.
    ///
    /// Nothing is lost with it: it was reset when it came back, so it holds nobody's work.
    fn inspect(&self, idle: Idle) -> Result<Physical, Slot<'_>> {
        let Idle { mut physical, since } = idle;
        // Given back by the guard if the driver panics.
        let slot = Slot { shared: self, seat: physical.seat };
        if self.is_good(&mut physical.steady, since) {
            slot.keep();
            return Ok(physical);
        }
        tracing::debug!(address = self.source.driver.address(), "replacing a connection that was idle");
        self.source.reopened();
        drop(physical);
        Err(slot)
    }

    fn is_good(&self, steady: &mut Steady, since: Moment) -> bool {
        let config = &self.config.steady;
        let Some(made) = steady.made() else { return false };
        if made.conn.as_ref().has_broken() || made.is_worn() {
            return false;
        }
        let now = Moment::now();
        if made.has_expired(now) {
            return false;
        }
        if made.is_suspect() && !self.source.driver.is_its_connection() {
            return false;
        }
        let is_due = config.ping_after.is_zero() || now.since(since.max(made.seen)) >= config.ping_after;
        !(config.ping.contains(Ping::CHECKOUT) && is_due) || made.ping()
    }

    /// Takes a connection back from a borrower. May block.
    fn checkin(&self, mut physical: Physical) {
        // Given back by the guard if the driver panics.
        let slot = Slot { shared: self, seat: physical.seat };
        let is_usable = self.is_clean_again(&mut physical.steady);
        slot.keep();
        if is_usable {
            self.hand_on(physical);
        } else {
            self.discard(physical);
        }
    }

    /// Resets a connection by the pool's policy; whether it may be lent again.
    fn is_clean_again(&self, steady: &mut Steady) -> bool {
        let is_kept = self.source.driver.is_its_connection();
        match self.config.reset {
            ResetPolicy::Reopen if !is_kept => return false,
            ResetPolicy::Always => {
                if let Some(conn) = steady.raw() {
                    conn.distrust();
                }
                steady.reset();
            }
            ResetPolicy::IfDirty | ResetPolicy::Reopen => {
                if steady.is_in_transaction() || !steady.is_clean() {
                    steady.reset();
                }
            }
        }
        steady.made().is_some_and(|made| {
            !made.conn.as_ref().has_broken() && (is_kept || !(made.is_suspect() || made.is_worn()))
        })
    }

    /// Gives a clean connection to the first waiter, or to the idle ones.
    fn hand_on(&self, physical: Physical) {
        let idle = Idle { physical, since: Moment::now() };
        let mut state = self.state.lock();
        let loan = state.lend(idle.physical.seat, None);
        let refused = state.offer(idle);
        drop(state);
        drop(loan);
        if let Some(idle) = refused {
            self.discard(idle.physical);
        }
    }

    /// Closes a connection and gives its slot away. The slot comes last: the limit is never exceeded.
    fn discard(&self, physical: Physical) {
        let seat = physical.seat;
        drop(physical);
        self.lost(seat);
    }

    /// Gives the slot of a connection that is gone away.
    fn lost(&self, seat: usize) {
        let mut state = self.state.lock();
        let loan = state.lend(seat, None);
        state.free_slot(seat);
        drop(state);
        drop(loan);
    }

    /// Takes a free slot.
    fn take_slot(&self) -> Option<Slot<'_>> {
        let seat = self.state.lock().take_slot()?;
        Some(Slot { shared: self, seat })
    }

    fn lend_share(self: &Arc<Shared>, joint: Arc<Joint>) -> Lease {
        let mut state = self.state.lock();
        state.joints.last_lease += 1;
        let number = state.joints.last_lease;
        drop(state);
        Lease::joint(self.clone(), joint, number)
    }

    /// A shared connection may have become free of a transaction.
    fn joint_used(&self, joint: &Joint) {
        if !joint.is_in_transaction.load(std::sync::atomic::Ordering::Acquire) {
            let mut state = self.state.lock();
            if state.waiting() > 0 {
                state.offer_joints();
            }
        }
    }

    /// Ends a share in a connection. May block.
    fn leave(&self, joint: &Arc<Joint>, number: u64) {
        joint.release(number);
        let was_last = self.state.lock().joints.leave(joint);
        if !was_last {
            return self.joint_used(joint);
        }
        match joint.take() {
            Some(physical) => self.checkin(physical),
            None => self.lost(joint.seat),
        }
    }
}

/// Writes a grant into the books.
fn noted(mut state: MutexGuard<'_, State>, grant: Grant, loan: Loan) -> Grant {
    let seat = match &grant {
        Grant::Connection(idle) => idle.physical.seat,
        Grant::Slot(seat) => *seat,
        Grant::Joint(_) => {
            state.counts.checkouts += 1;
            return grant;
        }
        Grant::Failed(_) | Grant::Closed => return grant,
    };
    state.counts.checkouts += 1;
    let none = state.lend(seat, Some(loan));
    debug_assert!(none.is_none(), "a seat has one borrower");
    grant
}

/// A shared connection on its way, counted as one of `max_shared` until it is there or has failed.
struct Coming<'a> {
    shared: &'a Shared,
    counts: bool,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.shared.state.lock().joints.coming -= 1;
        }
    }
}

/// Leave to make one connection; given back when dropped.
struct Slot<'a> {
    shared: &'a Shared,
    seat: usize,
}

impl Slot<'_> {
    /// Makes the connection. The slot is given back if that fails or panics.
    fn connect(self) -> Result<Physical, ConnectError> {
        match self.shared.source.connect() {
            Ok(made) => {
                let steady = Box::new(Steady::on(self.shared.source.clone(), made));
                let seat = self.seat;
                self.keep();
                Ok(Physical { steady, seat })
            }
            Err(error) => {
                let mut state = self.shared.state.lock();
                if state.seats.get(self.seat).is_some_and(Option::is_some) {
                    state.counts.checkouts -= 1;
                }
                // A living connection may yet come back to those in line.
                if self.shared.source.has_none() {
                    state.refuse_waiters(|| Grant::Failed(error.clone()));
                }
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
        self.shared.lost(self.seat);
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
            .field("driver", &self.source.driver)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
