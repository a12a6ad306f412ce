//! The pool's books: what its lock protects, and the only code that runs under it.
//!
//! # Invariants
//!
//! - Nothing here blocks or drops a connection.
//! - Somebody waits without a grant only while nothing is idle and no slot is free, or while the first
//!   in line has been woken to take it. While somebody is in line nothing rests on a perch.
//! - A newcomer passes those in line only while the first of them has waited less than [`FAIR_AFTER`].
//!   From then on whatever comes free is handed to the first, so nobody starves. Before that it is not:
//!   to put a thread to sleep and another one in its place for each checkout costs a hundred times more
//!   than the checkout.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use super::Shared;
use super::borrower::Loan;
use super::joint::{Joint, Joints};
use super::perch::Perches;
use super::waits::Waits;
use crate::db::clock::Moment;
use crate::db::{ConnectError, Order, PoolConfig, Steady};

/// How long a newcomer may pass the one who waits. A fraction of the scheduler's turn.
pub(super) const FAIR_AFTER: Duration = Duration::from_millis(1);

/// Something that threads fight for, away from what they only read: on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A place for a connection, of which the pool has as many as connections.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    pub(super) number: usize,
    /// Where its loan is noted, if not in the books.
    pub(super) perch: Option<usize>,
}

impl Seat {
    pub(super) fn new(number: usize) -> Seat {
        Seat { number, perch: None }
    }
}

/// A connection in its seat. Boxed, it goes from hand to hand; on cache lines of its own, for each thread writes to
/// the one it has.
#[repr(align(128))]
pub(super) struct Physical {
    pub(super) steady: Steady,
    pub(super) seat: Seat,
    pub(super) tie: Arc<Tie>,
    /// When it came back from its last borrower.
    pub(super) since: Moment,
}

/// A connection's hold on its pool, of which a lease has a clone: for a counter that all leases of a pool change,
/// threads would fight, as they would for one beside another connection's. Whoever drops the last clone of the pool
/// empties it of connections.
#[repr(align(128))]
pub(super) struct Tie(pub(super) Arc<Shared>);

/// What a checkout is given.
pub(super) enum Grant {
    /// A connection, to be looked at before it is lent.
    Connection(Box<Physical>),
    /// Leave to make one, for this seat.
    Slot(Seat),
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

/// How long no connection is tried after the server had no room for one.
const FULL_FOR: Duration = Duration::from_millis(50);

/// The server has no room for one more connection.
pub(super) struct ServerFull {
    /// Until when none is tried.
    pub(super) until: Instant,
    /// Its words.
    pub(super) reason: String,
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
    pub(super) idle: VecDeque<Box<Physical>>,
    /// Connections that are idle, lent out or being made.
    pub(super) open: u32,
    /// What each seat is lent for; empty for one that is idle or free, and for one whose loan is noted at a perch.
    pub(super) seats: Vec<Option<Loan>>,
    free_seats: Vec<usize>,
    perches: Arc<Perches>,
    /// In the order of arrival.
    line: VecDeque<Waiter>,
    last_ticket: u64,
    max_size: u32,
    max_idle: usize,
    order: Order,
    pub(super) joints: Joints,
    pub(super) is_closed: bool,
    /// What the last try to connect met, if that was a server without room.
    pub(super) server_full: Option<ServerFull>,
    pub(super) counts: Counts,
    pub(super) waits: Waits,
}

impl State {
    pub(super) fn new(config: &PoolConfig, perches: Arc<Perches>) -> State {
        State {
            idle: VecDeque::new(),
            open: 0,
            seats: Vec::new(),
            free_seats: Vec::new(),
            perches,
            line: VecDeque::new(),
            last_ticket: 0,
            max_size: config.max_size,
            max_idle: usize::try_from(config.max_idle()).unwrap_or(usize::MAX),
            order: config.order,
            joints: Joints::default(),
            is_closed: false,
            server_full: None,
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
        idle.or_else(|| self.perches.take_any())
            .map(Grant::Connection)
            .or_else(|| self.take_slot().map(|number| Grant::Slot(Seat::new(number))))
    }

    /// Takes a free slot.
    pub(super) fn take_slot(&mut self) -> Option<usize> {
        if self.open >= self.max_size || self.is_closed || self.full_until().is_some() {
            return None;
        }
        self.open += 1;
        Some(self.free_seats.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        }))
    }

    /// Takes note that the server has no room for one more connection.
    pub(super) fn note_full(&mut self, reason: String) {
        self.server_full = Some(ServerFull { until: Instant::now() + FULL_FOR, reason });
    }

    /// Until when no connection is tried.
    pub(super) fn full_until(&self) -> Option<Instant> {
        self.server_full.as_ref().map(|full| full.until).filter(|until| *until > Instant::now())
    }

    /// Counts and notes who has a seat's connection: at a perch, or with all others.
    pub(super) fn lend(&mut self, seat: &mut Seat, loan: Loan) {
        let Err(loan) = self.perches.note(seat, loan) else { return };
        self.lend_to_many(*seat, loan);
    }

    /// The same for a connection that several borrowers share, which is no thread's.
    pub(super) fn lend_to_many(&mut self, seat: Seat, loan: Loan) {
        self.counts.checkouts += 1;
        if let Some(place) = self.seats.get_mut(seat.number) {
            debug_assert!(place.is_none(), "a seat has one borrower");
            *place = Some(loan);
        }
    }

    /// Ends the loan of a seat that is noted here. One lent in vain is not counted as lent.
    pub(super) fn end_loan(&mut self, seat: Seat, in_vain: bool) -> Option<Loan> {
        let loan = self.seats.get_mut(seat.number)?.take();
        self.counts.checkouts -= u64::from(in_vain && loan.is_some());
        loan
    }

    /// Joins the line. What rests on a perch is free to be taken then, and nothing alights any more.
    pub(super) fn enter_line(&mut self, ready: Arc<Condvar>, shares: bool) -> u64 {
        if self.line.is_empty() {
            self.perches.shut(&mut self.idle);
        }
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
            self.line_moved();
        }
        grant
    }

    /// Leaves the line with empty hands.
    pub(super) fn leave_line(&mut self, ticket: u64) {
        self.line.retain(|waiter| waiter.ticket != ticket);
        self.line_moved();
    }

    /// How many wait and have been given nothing yet.
    pub(super) fn waiting(&self) -> usize {
        self.line.iter().filter(|waiter| waiter.grant.is_none()).count()
    }

    /// Gives a clean connection to the first waiter or to the idle ones; back, if there are enough of
    /// those or the pool is closed.
    pub(super) fn offer(&mut self, idle: Box<Physical>) -> Option<Box<Physical>> {
        if self.is_closed {
            return Some(idle);
        }
        if self.line.is_empty() {
            if self.idle.len() >= self.max_idle {
                return Some(idle);
            }
            self.idle.extend(self.perches.exchange(idle));
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
        let may_connect = self.full_until().is_none();
        match self.first_waiter() {
            Some(waiter) if may_connect => waiter.give(Grant::Slot(Seat::new(seat))),
            _ => {
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

    /// Takes what rests on perches into the books, in the order in which it came back.
    pub(super) fn gather(&mut self) {
        self.perches.take_all(&mut self.idle);
        self.idle.make_contiguous().sort_by_key(|one| one.since);
    }

    /// Connections that nobody has borrowed.
    pub(super) fn idle_count(&self) -> usize {
        self.idle.len() + self.perches.idle()
    }

    /// Connections lent out so far.
    pub(super) fn checkouts(&self) -> u64 {
        self.counts.checkouts + self.perches.checkouts()
    }

    /// Looks at all loans.
    pub(super) fn for_each_loan(&mut self, mut look: impl FnMut(&mut Loan)) {
        self.perches.for_each_loan(&mut look);
        self.seats.iter_mut().flatten().for_each(look);
    }

    /// Lends nothing any more, sends those in line away, and empties the pool of idle connections, for the caller to
    /// drop without the lock.
    pub(super) fn close(&mut self) -> VecDeque<Box<Physical>> {
        self.is_closed = true;
        self.perches.shut(&mut self.idle);
        self.refuse_waiters(|| Grant::Closed);
        let idle = std::mem::take(&mut self.idle);
        self.open -= u32::try_from(idle.len()).unwrap_or_default();
        self.free_seats.extend(idle.iter().map(|one| one.seat.number));
        idle
    }

    /// Whether the first in line has waited long enough to be passed by nobody.
    fn is_overdue(&self) -> bool {
        let first = self.line.iter().find(|waiter| waiter.grant.is_none());
        first.is_some_and(|waiter| waiter.since.elapsed() >= FAIR_AFTER)
    }

    /// Somebody has left the line. What is idle although somebody waits is the next one's to take.
    fn line_moved(&mut self) {
        if self.line.is_empty() && !self.is_closed {
            self.perches.reopen();
        }
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
