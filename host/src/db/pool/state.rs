//! What the pool's lock protects, and the only code that runs under it.
//!
//! # Invariants
//!
//! - Nothing here blocks or drops a connection.
//! - Somebody waits without a grant only while nothing is idle and no slot is free, or while the first
//!   in line has been woken to take it.
//! - A newcomer passes those in line only while the first of them has waited less than [`FAIR_AFTER`].
//!   From then on whatever comes free is handed to the first, so nobody starves. Before that it is not:
//!   to put a thread to sleep and another one in its place for each checkout costs a hundred times more
//!   than the checkout.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use super::borrower::Loan;
use super::joint::{Joint, Joints};
use super::waits::Waits;
use crate::db::clock::Moment;
use crate::db::{ConnectError, Order, PoolConfig, Steady};

/// How long a newcomer may pass the one who waits. A fraction of the scheduler's turn.
pub(super) const FAIR_AFTER: Duration = Duration::from_millis(1);

/// Something that threads fight for, away from what they only read: on cache lines of its own.
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A connection in its seat, of which the pool has as many as connections.
pub(super) struct Physical {
    pub(super) steady: Box<Steady>,
    pub(super) seat: usize,
}

/// A connection that nobody has borrowed.
pub(super) struct Idle {
    pub(super) physical: Physical,
    /// When it came back.
    pub(super) since: Moment,
}

/// What a checkout is given.
pub(super) enum Grant {
    /// A connection, to be looked at before it is lent.
    Connection(Idle),
    /// Leave to make one, for this seat.
    Slot(usize),
    /// A share in a connection.
    Joint(Arc<Joint>),
    /// The database is down.
    Failed(Box<ConnectError>),
    /// The pool has been closed.
    Closed,
}

impl Grant {
    /// Whether it becomes a connection of this borrower's alone.
    pub(super) fn is_for_one(&self) -> bool {
        matches!(self, Grant::Connection(_) | Grant::Slot(_))
    }
}

/// Somebody in line.
struct Waiter {
    ticket: u64,
    since: Instant,
    grant: Option<Grant>,
    /// Something came free since this one last looked.
    is_woken: bool,
    /// A share in a connection would do.
    shares: bool,
    ready: Arc<Condvar>,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) checkouts: u64,
    pub(super) timeouts: u64,
    pub(super) leaks: u64,
}

/// The pool's books.
pub(super) struct State {
    /// In the order in which they came back.
    pub(super) idle: VecDeque<Idle>,
    /// Connections that are idle, lent out or being made.
    pub(super) open: u32,
    /// What each seat is lent for; empty for one that is idle or free.
    pub(super) seats: Vec<Option<Loan>>,
    free_seats: Vec<usize>,
    /// In the order of arrival.
    line: VecDeque<Waiter>,
    last_ticket: u64,
    max_size: u32,
    max_idle: usize,
    order: Order,
    pub(super) joints: Joints,
    pub(super) is_closed: bool,
    pub(super) counts: Counts,
    pub(super) waits: Waits,
}

impl State {
    pub(super) fn new(config: &PoolConfig) -> State {
        State {
            idle: VecDeque::new(),
            open: 0,
            seats: Vec::new(),
            free_seats: Vec::new(),
            line: VecDeque::new(),
            last_ticket: 0,
            max_size: config.max_size,
            max_idle: usize::try_from(config.max_idle()).unwrap_or(usize::MAX),
            order: config.order,
            joints: Joints::default(),
            is_closed: false,
            counts: Counts::default(),
            waits: Waits::default(),
        }
    }

    /// Takes an idle connection or a free slot. Nothing, if it is due to somebody in line.
    pub(super) fn take_free(&mut self) -> Option<Grant> {
        if self.line.is_empty() || !self.is_overdue() { self.take_any() } else { None }
    }

    /// Takes an idle connection or a free slot.
    fn take_any(&mut self) -> Option<Grant> {
        let idle = match self.order {
            Order::Lifo => self.idle.pop_back(),
            Order::Fifo => self.idle.pop_front(),
        };
        idle.map(Grant::Connection).or_else(|| self.take_slot().map(Grant::Slot))
    }

    /// Takes a free slot.
    pub(super) fn take_slot(&mut self) -> Option<usize> {
        if self.open >= self.max_size || self.is_closed {
            return None;
        }
        self.open += 1;
        Some(self.free_seats.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        }))
    }

    /// Notes who has a seat's connection; returns whoever had it.
    pub(super) fn lend(&mut self, seat: usize, loan: Option<Loan>) -> Option<Loan> {
        self.seats.get_mut(seat).and_then(|place| std::mem::replace(place, loan))
    }

    /// Joins the line.
    pub(super) fn enter_line(&mut self, ready: Arc<Condvar>, shares: bool) -> u64 {
        self.last_ticket += 1;
        self.line.push_back(Waiter {
            ticket: self.last_ticket,
            since: Instant::now(),
            grant: None,
            is_woken: false,
            shares,
            ready,
        });
        self.last_ticket
    }

    /// Takes what a waiter was given, or what is free and it is first to take. It leaves the line then.
    pub(super) fn take_granted(&mut self, ticket: u64) -> Option<Grant> {
        let place = self.line.iter().position(|waiter| waiter.ticket == ticket)?;
        let waiter = self.line.get_mut(place)?;
        waiter.is_woken = false;
        let mut grant = waiter.grant.take();
        if grant.is_none() && self.first_waiter().is_some_and(|first| first.ticket == ticket) {
            grant = self.take_any();
        }
        if grant.is_some() {
            self.line.remove(place);
            self.wake_first_for_rest();
        }
        grant
    }

    /// Leaves the line with empty hands.
    pub(super) fn leave_line(&mut self, ticket: u64) {
        self.line.retain(|waiter| waiter.ticket != ticket);
        self.wake_first_for_rest();
    }

    /// How many wait and have been given nothing yet.
    pub(super) fn waiting(&self) -> usize {
        self.line.iter().filter(|waiter| waiter.grant.is_none()).count()
    }

    /// Gives a clean connection to the first waiter or to the idle ones; back, if there are enough of
    /// those or the pool is closed.
    pub(super) fn offer(&mut self, idle: Idle) -> Option<Idle> {
        if self.is_closed {
            return Some(idle);
        }
        if self.line.is_empty() {
            if self.idle.len() >= self.max_idle {
                return Some(idle);
            }
            self.idle.push_back(idle);
            return None;
        }
        let is_overdue = self.is_overdue();
        match self.first_waiter() {
            Some(waiter) if is_overdue => waiter.give(Grant::Connection(idle)),
            Some(waiter) => {
                waiter.wake();
                self.idle.push_back(idle);
            }
            None => self.idle.push_back(idle),
        }
        None
    }

    /// Gives a slot that has become free to the first waiter.
    pub(super) fn free_slot(&mut self, seat: usize) {
        match self.first_waiter() {
            Some(waiter) => waiter.give(Grant::Slot(seat)),
            None => {
                self.open -= 1;
                self.free_seats.push(seat);
            }
        }
    }

    /// Gives those in line who would share a connection the ones that have no transaction any more.
    pub(super) fn offer_joints(&mut self) {
        for waiter in self.line.iter_mut().filter(|waiter| waiter.shares && waiter.grant.is_none()) {
            let Some(joint) = self.joints.join() else { return };
            waiter.give(Grant::Joint(joint));
        }
    }

    /// Gives everybody in line the same answer.
    pub(super) fn refuse_waiters(&mut self, answer: impl Fn() -> Grant) {
        for waiter in self.line.iter_mut().filter(|waiter| waiter.grant.is_none()) {
            waiter.give(answer());
        }
    }

    /// Empties the pool of idle connections, for the caller to drop without the lock.
    pub(super) fn take_idle(&mut self) -> Vec<Idle> {
        let idle: Vec<Idle> = std::mem::take(&mut self.idle).into();
        self.open -= u32::try_from(idle.len()).unwrap_or_default();
        self.free_seats.extend(idle.iter().map(|one| one.physical.seat));
        idle
    }

    /// Whether the first in line has waited long enough to be passed by nobody.
    fn is_overdue(&self) -> bool {
        let first = self.line.iter().find(|waiter| waiter.grant.is_none());
        first.is_some_and(|waiter| waiter.since.elapsed() >= FAIR_AFTER)
    }

    /// What is idle although somebody waits is the next one's to take.
    fn wake_first_for_rest(&mut self) {
        if !self.idle.is_empty()
            && let Some(waiter) = self.first_waiter()
        {
            waiter.wake();
        }
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

    fn wake(&mut self) {
        if !std::mem::replace(&mut self.is_woken, true) {
            self.ready.notify_one();
        }
    }
}
