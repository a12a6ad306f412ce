//! What the pool's lock protects, and the only code that runs under it.
//!
//! # Invariants
//!
//! - Somebody waits without a grant only while nothing is idle and no slot is free.
//! - Nothing here blocks or drops a connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Condvar;

use crate::db::{ConnectError, Connection};

/// A connection with its number in this pool.
pub(super) struct Physical {
    pub(super) conn: Box<dyn Connection>,
    pub(super) serial: u64,
}

/// A connection that nobody has borrowed.
pub(super) struct Idle {
    pub(super) physical: Physical,
    /// When it came back.
    pub(super) since: Instant,
}

/// What a checkout is given.
pub(super) enum Grant {
    /// A connection, to be looked at before it is lent.
    Connection(Idle),
    /// Leave to make one.
    Slot,
    /// The database is down.
    Failed(ConnectError),
    /// The pool has been closed.
    Closed,
}

/// Somebody in line.
struct Waiter {
    ticket: u64,
    grant: Option<Grant>,
    ready: Arc<Condvar>,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) connects: u64,
    pub(super) closes: u64,
    pub(super) connect_failures: u64,
    pub(super) checkouts: u64,
    pub(super) timeouts: u64,
}

/// The pool's books.
#[derive(Default)]
pub(super) struct State {
    /// The last one back is the first one out: the others may rest, and expire.
    idle: Vec<Idle>,
    /// Connections that are idle, lent out or being made.
    pub(super) open: u32,
    /// In the order of arrival.
    line: VecDeque<Waiter>,
    last_ticket: u64,
    last_serial: u64,
    /// The made connections that are not closed: serial, and the database's own number.
    living: Vec<(u64, Option<u64>)>,
    pub(super) is_closed: bool,
    pub(super) counts: Counts,
}

impl State {
    /// The books of a pool whose first connection is being made.
    pub(super) fn with_first_slot() -> State {
        State { open: 1, ..State::default() }
    }

    /// Takes an idle connection or a free slot. Nothing, if somebody is waiting for it already.
    pub(super) fn take_free(&mut self, max_size: u32) -> Option<Grant> {
        if let Some(idle) = self.idle.pop() {
            return Some(Grant::Connection(idle));
        }
        if self.open >= max_size || self.waiting() > 0 {
            return None;
        }
        self.open += 1;
        Some(Grant::Slot)
    }

    /// Joins the line.
    pub(super) fn enter_line(&mut self, ready: Arc<Condvar>) -> u64 {
        self.last_ticket += 1;
        self.line.push_back(Waiter { ticket: self.last_ticket, grant: None, ready });
        self.last_ticket
    }

    /// Takes what a waiter was given, who leaves the line with it.
    pub(super) fn take_granted(&mut self, ticket: u64) -> Option<Grant> {
        let place = self.line.iter().position(|waiter| waiter.ticket == ticket)?;
        let grant = self.line.get_mut(place)?.grant.take()?;
        self.line.remove(place);
        Some(grant)
    }

    /// Leaves the line with empty hands.
    pub(super) fn leave_line(&mut self, ticket: u64) {
        self.line.retain(|waiter| waiter.ticket != ticket);
    }

    /// How many wait and have been given nothing yet.
    pub(super) fn waiting(&self) -> usize {
        self.line.iter().filter(|waiter| waiter.grant.is_none()).count()
    }

    /// Gives a clean connection to the first waiter or to the idle ones; back, if the pool is closed.
    pub(super) fn offer(&mut self, idle: Idle) -> Option<Idle> {
        if self.is_closed {
            return Some(idle);
        }
        match self.first_waiter() {
            Some(waiter) => waiter.give(Grant::Connection(idle)),
            None => self.idle.push(idle),
        }
        None
    }

    /// Gives a slot that has become free to the first waiter.
    pub(super) fn free_slot(&mut self) {
        match self.first_waiter() {
            Some(waiter) => waiter.give(Grant::Slot),
            None => self.open -= 1,
        }
    }

    /// Tells those in line that the database is down, unless a living connection may come back to them.
    pub(super) fn fail_waiters(&mut self, error: &ConnectError) {
        if self.living.is_empty() {
            self.refuse_waiters(|| Grant::Failed(error.clone()));
        }
    }

    /// Gives everybody in line the same answer.
    pub(super) fn refuse_waiters(&mut self, answer: impl Fn() -> Grant) {
        for waiter in self.line.iter_mut().filter(|waiter| waiter.grant.is_none()) {
            waiter.give(answer());
        }
    }

    /// Counts a connection that was made; returns its number.
    pub(super) fn opened(&mut self, backend: Option<u64>) -> u64 {
        self.last_serial += 1;
        self.counts.connects += 1;
        self.living.push((self.last_serial, backend));
        self.last_serial
    }

    /// Counts a connection that is going to be closed.
    pub(super) fn closed(&mut self, serial: u64) {
        self.counts.closes += 1;
        self.living.retain(|(living, _)| *living != serial);
    }

    /// Empties the pool of idle connections, for the caller to drop without the lock.
    pub(super) fn take_idle(&mut self) -> Vec<Idle> {
        let idle = std::mem::take(&mut self.idle);
        for one in &idle {
            self.closed(one.physical.serial);
            self.open -= 1;
        }
        idle
    }

    /// How many connections are idle.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The database's own numbers of the connections that are open.
    pub(super) fn backends(&self) -> Vec<u64> {
        self.living.iter().filter_map(|(_, backend)| *backend).collect()
    }

    fn first_waiter(&mut self) -> Option<&mut Waiter> {
        self.line.iter_mut().find(|waiter| waiter.grant.is_none())
    }
}

impl Waiter {
    fn give(&mut self, grant: Grant) {
        self.grant = Some(grant);
        self.ready.notify_one();
    }
}
