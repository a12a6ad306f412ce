//! Connections that several borrowers share.
//!
//! # Invariants
//!
//! - A statement has the connection to itself.
//! - Who has begun a transaction has the connection to itself until the end of it; the others wait,
//!   bounded by the pool's `checkout_timeout`.
//! - What a statement outside a transaction leaves in the session is undone right after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::state::{Physical, Seat};
use crate::db::{QueryError, Steady};

/// A connection that several borrowers share.
pub(super) struct Joint {
    pub(super) seat: Seat,
    place: Mutex<Place>,
    /// The transaction has ended.
    ended: Condvar,
    /// Whether somebody has a transaction open. Written under `place`, read by the pool's choice.
    pub(super) is_in_transaction: AtomicBool,
}

struct Place {
    /// Empty once the driver has panicked.
    physical: Option<Box<Physical>>,
    /// The lease whose transaction is open.
    owner: Option<u64>,
}

/// The shared connections of a pool, under its lock.
#[derive(Default)]
pub(super) struct Joints {
    /// With the number of their leases.
    list: Vec<(Arc<Joint>, usize)>,
    /// Being made.
    pub(super) coming: usize,
    pub(super) last_lease: u64,
}

impl Joints {
    /// Shared connections, made and coming.
    pub(super) fn len(&self) -> usize {
        self.list.len() + self.coming
    }

    /// How many borrowers the shared connections have.
    pub(super) fn leases(&self) -> usize {
        self.list.iter().map(|(_, leases)| leases).sum()
    }

    /// Joins the one with the fewest borrowers of which none has a transaction open.
    pub(super) fn join(&mut self) -> Option<Arc<Joint>> {
        let free = self.list.iter_mut().filter(|(joint, _)| !joint.is_in_transaction.load(Ordering::Acquire));
        let (joint, leases) = free.min_by_key(|(_, leases)| *leases)?;
        *leases += 1;
        Some(joint.clone())
    }

    /// Adds one with its first borrower.
    pub(super) fn add(&mut self, joint: Arc<Joint>) {
        self.list.push((joint, 1));
    }

    /// Leaves one. Tells whether it was the last borrower, and the connection is nobody's.
    pub(super) fn leave(&mut self, joint: &Arc<Joint>) -> bool {
        let Some(place) = self.list.iter().position(|(known, _)| Arc::ptr_eq(known, joint)) else {
            return false;
        };
        let Some((_, leases)) = self.list.get_mut(place) else { return false };
        *leases -= 1;
        if *leases > 0 {
            return false;
        }
        self.list.remove(place);
        true
    }
}

impl Joint {
    pub(super) fn new(physical: Box<Physical>) -> Joint {
        Joint {
            seat: physical.seat,
            place: Mutex::new(Place { physical: Some(physical), owner: None }),
            ended: Condvar::new(),
            is_in_transaction: AtomicBool::new(false),
        }
    }

    /// Runs `body` for a lease, when the connection is free for it.
    ///
    /// # Errors
    ///
    /// `Busy` when others kept it for `patience`; else the body's.
    pub(super) fn with<T>(
        &self,
        lease: u64,
        patience: Duration,
        body: impl FnOnce(&mut Steady) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let deadline = Instant::now().checked_add(patience);
        let mut place = match deadline {
            Some(deadline) => self.place.try_lock_until(deadline).ok_or(QueryError::Busy)?,
            None => self.place.lock(),
        };
        while place.owner.is_some_and(|owner| owner != lease) {
            match deadline {
                Some(deadline) if self.ended.wait_until(&mut place, deadline).timed_out() => {
                    return Err(QueryError::Busy);
                }
                Some(_) => {}
                None => self.ended.wait(&mut place),
            }
        }
        // Out of its place while it is used, so a panic takes the connection along.
        let mut physical = place.physical.take().ok_or(QueryError::SessionLost)?;
        let outcome = body(&mut physical.steady);
        let is_in_transaction = physical.steady.is_in_transaction();
        if !is_in_transaction && physical.steady.needs_reset() {
            physical.steady.reset();
        }
        place.physical = Some(physical);
        self.set_owner(&mut place, is_in_transaction.then_some(lease));
        outcome
    }

    /// Ends what a lease that goes has left open.
    pub(super) fn release(&self, lease: u64) {
        let mut place = self.place.lock();
        if place.owner == Some(lease) {
            if let Some(physical) = &mut place.physical {
                physical.steady.reset();
            }
            self.set_owner(&mut place, None);
        }
    }

    /// Takes the connection out, when nobody shares it any more.
    pub(super) fn take(&self) -> Option<Box<Physical>> {
        self.place.lock().physical.take()
    }

    fn set_owner(&self, place: &mut Place, owner: Option<u64>) {
        place.owner = owner;
        self.is_in_transaction.store(owner.is_some(), Ordering::Release);
        if owner.is_none() {
            self.ended.notify_all();
        }
    }
}
