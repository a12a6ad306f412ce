//! Where a connection rests between two uses by one thread, so that threads do not meet for each checkout.
//!
//! Owns the perches: each is some threads' and holds a connection that came back, or the loan of one that is to come
//! back there. Does not own who waits and what is open: those are the [`books`](super::state).
//!
//! The idea is that of HikariCP's `ConcurrentBag`, which looks into a list of the thread's own before it looks
//! anywhere else.
//!
//! # Invariants
//!
//! - A perch's lock is taken alone or under the books' lock, and nothing else is locked under it.
//! - Perches are shut while somebody waits, and once the pool is closed. Then nothing rests on any: what is idle is in
//!   the books.
//! - A connection that was lent from a perch, or whose loan is noted at one, comes back to that one or to the books.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::borrower::Loan;
use super::state::{Apart, Physical, Seat};
use crate::db::{Order, PoolConfig};

/// More would be looked through in vain: so many threads do not run at once. A power of two.
const MOST: usize = 64;

/// The perches of a pool.
pub(super) struct Perches(Box<[Apart<Mutex<Perch>>]>);

/// Holds a connection, or the loan of one, or nothing.
#[derive(Default)]
struct Perch {
    is_shut: bool,
    idle: Option<Box<Physical>>,
    loan: Option<Loan>,
    /// Connections lent out whose loan was noted here.
    checkouts: u64,
}

impl Perches {
    /// None, where the pool's settings speak of all idle connections together: which was idle longest, and how
    /// many there may be.
    pub(super) fn new(config: &PoolConfig) -> Perches {
        let is_fit = config.order == Order::Lifo && config.max_idle() >= config.max_size;
        // A power of two, so that a thread finds its own without a division.
        let count = usize::try_from(config.max_size).unwrap_or(MOST).min(MOST).next_power_of_two();
        Perches((0..if is_fit { count } else { 0 }).map(|_| Apart::default()).collect())
    }

    /// Takes what rests here, for the books, and lets nothing alight any more. Called under the books' lock.
    pub(super) fn shut(&self, books: &mut VecDeque<Box<Physical>>) {
        for place in &self.0 {
            let mut perch = place.lock();
            perch.is_shut = true;
            books.extend(perch.idle.take());
        }
    }

    /// Lets connections rest here again. Called under the books' lock.
    pub(super) fn reopen(&self) {
        self.0.iter().for_each(|place| place.lock().is_shut = false);
    }

    /// Lends what rests with this thread. Gives the loan back if that is nothing.
    pub(super) fn lend(&self, loan: Loan) -> Result<Box<Physical>, Loan> {
        let Some((number, place)) = self.own() else { return Err(loan) };
        let mut perch = place.lock();
        let Some(mut idle) = perch.idle.take() else { return Err(loan) };
        perch.note(loan);
        idle.seat.perch = Some(number);
        Ok(idle)
    }

    /// Notes the loan of a connection from the books with this thread, where it will come back. Gives it back if
    /// there is something already.
    pub(super) fn note(&self, seat: &mut Seat, loan: Loan) -> Result<(), Loan> {
        let Some((number, place)) = self.own() else { return Err(loan) };
        let mut perch = place.lock();
        if perch.idle.is_some() || perch.loan.is_some() {
            return Err(loan);
        }
        perch.note(loan);
        seat.perch = Some(number);
        Ok(())
    }

    /// Ends the loan of a connection that does not come back. One lent in vain is not counted as lent.
    pub(super) fn end(&self, seat: Seat, in_vain: bool) -> Option<Loan> {
        let mut perch = self.0.get(seat.perch?)?.lock();
        perch.checkouts -= u64::from(in_vain);
        perch.loan.take()
    }

    /// Takes a connection back to where its loan is noted. The connection itself comes back if it is due to the
    /// books; the loan in any case, to be dropped without a lock.
    pub(super) fn alight(&self, mut idle: Box<Physical>) -> (Option<Box<Physical>>, Option<Loan>) {
        let place = idle.seat.perch.take().and_then(|number| self.0.get(number));
        let Some(place) = place else { return (Some(idle), None) };
        let mut perch = place.lock();
        let loan = perch.loan.take();
        if perch.is_shut {
            return (Some(idle), loan);
        }
        debug_assert!(perch.idle.is_none(), "a perch has a connection or a loan");
        perch.idle = Some(idle);
        (None, loan)
    }

    /// Lets a connection that came back to the books rest with this thread, and takes the older one that did, so
    /// that for each thread the last one back is lent first. Called under the books' lock, while perches are open.
    pub(super) fn exchange(&self, idle: Box<Physical>) -> Option<Box<Physical>> {
        let Some((_, place)) = self.own() else { return Some(idle) };
        let mut perch = place.lock();
        debug_assert!(!perch.is_shut, "nobody is in line, and the pool is not closed");
        if perch.loan.is_some() {
            return Some(idle);
        }
        perch.idle.replace(idle)
    }

    /// Takes any one. Called under the books' lock.
    pub(super) fn take_any(&self) -> Option<Box<Physical>> {
        self.0.iter().find_map(|place| place.lock().idle.take())
    }

    /// Takes all, for the books. Called under their lock.
    pub(super) fn take_all(&self, books: &mut VecDeque<Box<Physical>>) {
        books.extend(self.0.iter().filter_map(|place| place.lock().idle.take()));
    }

    /// How many rest here.
    pub(super) fn idle(&self) -> usize {
        self.0.iter().filter(|place| place.lock().idle.is_some()).count()
    }

    /// How many connections have been lent with a loan noted here.
    pub(super) fn checkouts(&self) -> u64 {
        self.0.iter().map(|place| place.lock().checkouts).sum()
    }

    /// Looks at all loans.
    pub(super) fn for_each_loan(&self, mut look: impl FnMut(&mut Loan)) {
        self.0.iter().for_each(|place| place.lock().loan.iter_mut().for_each(&mut look));
    }

    /// This thread's perch, and its number.
    fn own(&self) -> Option<(usize, &Mutex<Perch>)> {
        let number = thread_number() & self.0.len().wrapping_sub(1);
        self.0.get(number).map(|place| (number, &**place))
    }
}

impl Perch {
    fn note(&mut self, loan: Loan) {
        self.loan = Some(loan);
        self.checkouts += 1;
    }
}

/// Numbers threads in the order in which they first come to any pool.
pub(super) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // At the end of a thread any perch will do.
    NUMBER.try_with(|number| *number).unwrap_or_default()
}
