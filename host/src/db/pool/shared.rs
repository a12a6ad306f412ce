//! What clones and leases of a pool do with what they share: get a connection, look at it, take it back.
//!
//! # Invariants
//!
//! - No I/O, no drop of a connection and no call of a driver under the lock.
//! - A seat whose connection could not be made, or was lost with a panic, is given back: [`Slot`] sees
//!   to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

use super::Shared;
use super::borrower::{Borrower, Loan};
use super::joint::Joint;
use super::lease::Lease;
use super::state::{Grant, Physical, Seat, State, Tie};
use crate::db::clock::Moment;
use crate::db::{CheckoutError, ConnectError, Ping, ResetPolicy, Steady, blocking};

impl Shared {
    pub(super) fn closed(&self) -> CheckoutError {
        CheckoutError::Closed { address: self.source.driver.address().to_owned() }
    }

    /// Closes what is idle now and the rest when it comes back. May block.
    pub(super) fn close(&self) {
        let idle = self.state.lock().close();
        if !idle.is_empty() {
            blocking::run(idle, drop);
        }
    }

    /// Gets what it takes for a checkout, or waits for it in line. Tells when it was granted.
    pub(super) fn grant(
        &self,
        timeout: Duration,
        shares: bool,
        mut loan: Loan,
    ) -> Result<(Grant, Moment), CheckoutError> {
        let since = loan.since;
        if !shares {
            match self.perches.lend(loan) {
                Ok(idle) => return Ok((Grant::Connection(idle), since)),
                Err(unused) => loan = unused,
            }
        }
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(self.closed());
        }
        if let Some(grant) = self.take(&mut state, shares) {
            return Ok((noted(&mut state, grant, loan, shares), since));
        }
        let begun = Instant::now();
        if self.all_lent_to(&mut state, loan.work, true) {
            return Err(self.own_work(begun));
        }
        if !timeout.is_zero()
            && let Some(grant) = self.wait(&mut state, begun, timeout, shares)
        {
            state.waits.note(begun.elapsed());
            let since = Moment::now();
            loan.since = since;
            return Ok((noted(&mut state, grant, loan, shares), since));
        }
        state.counts.timeouts += 1;
        if self.all_lent_to(&mut state, loan.work, false) {
            return Err(self.own_work(begun));
        }
        if let Some(full) = &state.server_full {
            return Err(CheckoutError::Full {
                address: self.source.driver.address().to_owned(),
                open: state.open,
                waited: begun.elapsed(),
                reason: full.reason.clone(),
            });
        }
        Err(CheckoutError::Exhausted {
            address: self.source.driver.address().to_owned(),
            max_size: self.config.max_size,
            waited: begun.elapsed(),
        })
    }

    /// Whether the work that asks has all connections itself; `to_the_end`: and gives none back before it ends.
    fn all_lent_to(&self, state: &mut State, work: Option<usize>, to_the_end: bool) -> bool {
        let mut its_own = 0;
        state.for_each_loan(|loan| {
            its_own += u32::from(loan.work == work && (loan.is_to_the_end || !to_the_end));
        });
        work.is_some() && its_own >= self.config.max_size
    }

    fn own_work(&self, begun: Instant) -> CheckoutError {
        CheckoutError::OwnWork {
            address: self.source.driver.address().to_owned(),
            max_size: self.config.max_size,
            waited: begun.elapsed(),
        }
    }

    /// Takes what is free.
    pub(super) fn take(&self, state: &mut State, shares: bool) -> Option<Grant> {
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
    pub(super) fn wait(
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
        let mut has_timed_out = false;
        loop {
            // At once, for what rested on a perch; and after the deadline, for the grant may have come while this
            // thread was waking up.
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
            // Where the server has no room, there may be some later.
            let next_try = state.full_until();
            match [deadline, next_try].into_iter().flatten().min() {
                Some(until) => {
                    let is_over = ready.wait_until(state, until).timed_out();
                    has_timed_out = is_over && deadline == Some(until);
                }
                None => ready.wait(state),
            }
        }
    }

    /// Makes a connection of a grant: the one that was idle, if it still works, or a new one.
    pub(super) fn fulfil(
        self: &Arc<Shared>,
        grant: Grant,
        now: Moment,
    ) -> Result<Box<Physical>, CheckoutError> {
        match grant {
            Grant::Connection(idle) => match self.inspect(idle, now) {
                Ok(physical) => Ok(physical),
                Err(slot) => Ok(slot.connect()?),
            },
            Grant::Slot(seat) => Ok(Slot { shared: self, seat }.connect()?),
            Grant::Failed(error) => Err(CheckoutError::Unreachable(*error)),
            Grant::Closed | Grant::Joint(_) => Err(self.closed()),
        }
    }

    /// As [`grant`](Shared::grant) and [`fulfil`](Shared::fulfil), again while the server has no room for a connection
    /// and there are some that may come back.
    pub(super) fn obtain(
        self: &Arc<Shared>,
        borrower: Option<Arc<dyn Borrower>>,
        timeout: Duration,
        shares: bool,
        is_to_the_end: bool,
    ) -> Result<Obtained, CheckoutError> {
        let begun = Instant::now();
        loop {
            let loan = Loan { is_to_the_end, ..Loan::now(borrower.clone(), self.config.leak_backtrace) };
            let left = timeout.saturating_sub(begun.elapsed());
            let (grant, now) = self.grant(left, shares, loan)?;
            if let Grant::Joint(joint) = grant {
                return Ok(Obtained::Joint(joint));
            }
            let coming = Coming { shared: self, counts: shares && grant.is_for_one() };
            match self.fulfil(grant, now) {
                Ok(physical) if shares => {
                    let joint = Arc::new(Joint::new(physical));
                    self.state.lock().joints.add(joint.clone());
                    drop(coming);
                    return Ok(Obtained::Joint(joint));
                }
                Ok(physical) => return Ok(Obtained::Own(physical)),
                Err(CheckoutError::Unreachable(error)) if error.is_full() && !self.source.has_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks whether an idle connection is still good. If not, it is closed and its slot returned.
    ///
    /// Nothing is lost with it: it was reset when it came back, so it holds nobody's work.
    pub(super) fn inspect(
        self: &Arc<Shared>,
        mut physical: Box<Physical>,
        now: Moment,
    ) -> Result<Box<Physical>, Slot<'_>> {
        // Given back by the guard if the driver panics.
        let slot = Slot { shared: self, seat: physical.seat };
        let since = physical.since;
        if self.is_good(&mut physical.steady, since, now) {
            slot.keep();
            return Ok(physical);
        }
        tracing::debug!(address = self.source.driver.address(), "replacing a connection that was idle");
        self.source.reopened();
        drop(physical);
        Err(slot)
    }

    pub(super) fn is_good(&self, steady: &mut Steady, since: Moment, now: Moment) -> bool {
        let config = &self.config.steady;
        let Some(made) = steady.made() else { return false };
        if made.conn.as_ref().has_broken() || made.is_worn() {
            return false;
        }
        if made.has_expired(now) {
            return false;
        }
        if made.is_suspect() && !self.source.driver.is_its_connection() && !made.survived() {
            return false;
        }
        let is_due = config.ping_after.is_zero() || now.since(since.max(made.seen)) >= config.ping_after;
        !(config.ping.contains(Ping::CHECKOUT) && is_due) || made.ping()
    }

    /// Takes a connection back from a borrower. May block.
    pub(super) fn checkin(self: &Arc<Shared>, mut physical: Box<Physical>) {
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
    pub(super) fn is_clean_again(&self, steady: &mut Steady) -> bool {
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
                if steady.is_in_transaction() || steady.needs_reset() {
                    steady.reset();
                }
            }
        }
        steady.made().is_some_and(|made| {
            !made.conn.as_ref().has_broken() && (is_kept || (!made.is_worn() && made.survived()))
        })
    }

    /// Gives a clean connection to where its loan is noted; if that is in the books, to the first waiter or to the
    /// idle ones.
    pub(super) fn hand_on(&self, mut physical: Box<Physical>) {
        physical.since = Moment::now();
        let (idle, loan) = self.perches.alight(physical);
        drop(loan);
        let Some(idle) = idle else { return };
        let mut state = self.state.lock();
        let loan = state.end_loan(idle.seat, false);
        let refused = state.offer(idle);
        drop(state);
        drop(loan);
        if let Some(idle) = refused {
            self.discard(idle);
        }
    }

    /// Closes a connection and gives its slot away. The slot comes last: the limit is never exceeded.
    pub(super) fn discard(&self, physical: Box<Physical>) {
        let seat = physical.seat;
        drop(physical);
        self.lost(seat, false);
    }

    /// Gives the slot of a connection that is gone away, or that was lent in vain.
    pub(super) fn lost(&self, seat: Seat, in_vain: bool) {
        let at_perch = self.perches.end(seat, in_vain);
        let mut state = self.state.lock();
        let in_books = state.end_loan(seat, in_vain);
        state.free_slot(seat.number);
        drop(state);
        drop((at_perch, in_books));
    }

    /// Takes a free slot.
    pub(super) fn take_slot(self: &Arc<Shared>) -> Option<Slot<'_>> {
        let number = self.state.lock().take_slot()?;
        Some(Slot { shared: self, seat: Seat::new(number) })
    }

    pub(super) fn lend_share(self: &Arc<Shared>, joint: Arc<Joint>) -> Lease {
        let mut state = self.state.lock();
        state.joints.last_lease += 1;
        let number = state.joints.last_lease;
        drop(state);
        Lease::joint(self.clone(), joint, number)
    }

    /// A shared connection may have become free of a transaction.
    pub(super) fn joint_used(&self, joint: &Joint) {
        if !joint.is_in_transaction.load(Ordering::Acquire) {
            let mut state = self.state.lock();
            if state.waiting() > 0 {
                state.offer_joints();
            }
        }
    }

    /// Ends a share in a connection. May block.
    pub(super) fn leave(self: &Arc<Shared>, joint: &Arc<Joint>, number: u64) {
        joint.release(number);
        let was_last = self.state.lock().joints.leave(joint);
        if !was_last {
            return self.joint_used(joint);
        }
        match joint.take() {
            Some(physical) => self.checkin(physical),
            None => self.lost(joint.seat, false),
        }
    }
}

/// Writes a grant into the books.
fn noted(state: &mut State, mut grant: Grant, loan: Loan, shares: bool) -> Grant {
    let seat = match &mut grant {
        Grant::Connection(idle) => &mut idle.seat,
        Grant::Slot(seat) => seat,
        Grant::Joint(_) => {
            state.counts.checkouts += 1;
            return grant;
        }
        Grant::Failed(_) | Grant::Closed => return grant,
    };
    if shares {
        state.lend_to_many(*seat, loan)
    } else {
        state.lend(seat, loan)
    }
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

/// What a checkout ends with.
pub(super) enum Obtained {
    Own(Box<Physical>),
    Joint(Arc<Joint>),
}

/// Leave to make one connection; given back when dropped.
pub(super) struct Slot<'a> {
    shared: &'a Arc<Shared>,
    seat: Seat,
}

impl Slot<'_> {
    /// Makes the connection. The slot is given back if that fails or panics.
    pub(super) fn connect(self) -> Result<Box<Physical>, ConnectError> {
        match self.shared.source.connect() {
            Ok(made) => {
                self.shared.state.lock().server_full = None;
                let steady = Steady::on(self.shared.source.clone(), made);
                let (seat, tie) = (self.seat, Arc::new(Tie(self.shared.clone())));
                self.keep();
                Ok(Box::new(Physical { steady, seat, tie, since: Moment::now() }))
            }
            Err(error) => {
                // A living connection may yet come back to those in line.
                if error.is_full() && !self.shared.source.has_none() {
                    self.shared.state.lock().note_full(error.reason());
                } else if self.shared.source.has_none() {
                    self.shared.state.lock().refuse_waiters(|| Grant::Failed(Box::new(error.clone())));
                }
                let (shared, seat) = (self.shared, self.seat);
                self.keep();
                shared.lost(seat, true);
                Err(error)
            }
        }
    }

    /// The slot is filled.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.shared.lost(self.seat, false);
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
