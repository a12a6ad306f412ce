//! A connection that is lent out, alone or together with others.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use parking_lot::Mutex;

use super::Shared;
use super::joint::Joint;
use super::state::{Physical, Seat, Tie};
use crate::db::{How, QueryError, Steady, Streamed, TransactionOptions, Value, blocking};

/// A connection that is lent out. It goes back when dropped, by a thread of its own where the dropping
/// one must not block.
///
/// One thread at a time: a second one that comes while a statement runs gets an error, not a wait. Of a
/// shared connection the other borrowers do wait, bounded by the pool's `checkout_timeout`.
pub struct Lease {
    hold: Hold,
}

/// Whose the connection is.
enum Hold {
    /// This lease's, until it goes back to its pool.
    Own(Own),
    /// Several leases'.
    Joint(Arc<Shared>, Arc<Joint>, u64),
    /// No pool's: a steady connection that is this lease's for good, or one thread's.
    Alone(Arc<Alone>),
}

/// A connection of a pool, lent to one borrower.
struct Own {
    tie: Arc<Tie>,
    seat: Seat,
    /// Empty once the driver has panicked: nobody knows what state the connection was left in.
    physical: Mutex<Option<Box<Physical>>>,
}

/// A steady connection that has no pool.
pub(in crate::db) struct Alone {
    /// The only thread that may use it; empty: any, one at a time.
    pub(in crate::db) thread: Option<ThreadId>,
    /// Empty once the driver has panicked, or when the thread has ended.
    pub(in crate::db) steady: Mutex<Option<Steady>>,
    /// How many leases hold it.
    pub(in crate::db) leases: AtomicU64,
}

impl Lease {
    pub(super) fn own(physical: Box<Physical>) -> Lease {
        let (tie, seat) = (physical.tie.clone(), physical.seat);
        Lease { hold: Hold::Own(Own { tie, seat, physical: Mutex::new(Some(physical)) }) }
    }

    pub(super) fn joint(shared: Arc<Shared>, joint: Arc<Joint>, number: u64) -> Lease {
        Lease { hold: Hold::Joint(shared, joint, number) }
    }

    /// The lease of a steady connection that is nobody else's. Dropping it closes the connection.
    pub fn steady(steady: Steady) -> Lease {
        let steady = Mutex::new(Some(steady));
        Lease::alone(Arc::new(Alone { thread: None, steady, leases: AtomicU64::new(0) }))
    }

    pub(in crate::db) fn alone(alone: Arc<Alone>) -> Lease {
        alone.leases.fetch_add(1, Ordering::AcqRel);
        Lease { hold: Hold::Alone(alone) }
    }

    /// Runs a statement and returns its rows as one block.
    ///
    /// # Errors
    ///
    /// When another thread is using the connection, or as [`Steady::query`].
    pub fn query(&self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        self.with(|steady| steady.query(How::default(), sql, params))
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Lease::query).
    pub fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        self.with(|steady| steady.execute(How::default(), sql, params))
    }

    /// Hands the rows of a statement to `each`, a block at a time.
    ///
    /// # Errors
    ///
    /// As [`Connection::query_each`](crate::db::Connection::query_each).
    pub fn query_each(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.with(|conn| conn.query_each(sql, params, each))
    }

    /// Runs a `COPY ... FROM STDIN`.
    ///
    /// # Errors
    ///
    /// As [`Connection::copy_in`](crate::db::Connection::copy_in).
    pub fn copy_in(
        &self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.with(|conn| conn.copy_in(sql, source))
    }

    /// Runs a `COPY ... TO STDOUT`.
    ///
    /// # Errors
    ///
    /// As [`Connection::copy_out`](crate::db::Connection::copy_out).
    pub fn copy_out(
        &self,
        sql: &str,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.with(|conn| conn.copy_out(sql, sink))
    }

    /// Runs several statements without parameters.
    ///
    /// # Errors
    ///
    /// As [`query`](Lease::query).
    pub fn batch_execute(&self, sql: &str) -> Result<(), QueryError> {
        self.with(|steady| steady.batch_execute(How::default(), sql))
    }

    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// As [`Steady::begin`].
    pub fn begin(&self) -> Result<(), QueryError> {
        self.with(Steady::begin)
    }

    /// As [`begin`](Lease::begin), with a say in how.
    ///
    /// # Errors
    ///
    /// As [`Steady::begin_with`].
    pub fn begin_with(&self, options: &TransactionOptions) -> Result<(), QueryError> {
        self.with(|steady| steady.begin_with(options))
    }

    /// Commits the innermost transaction or savepoint.
    ///
    /// # Errors
    ///
    /// As [`Steady::commit`].
    pub fn commit(&self) -> Result<(), QueryError> {
        self.with(Steady::commit)
    }

    /// Rolls the innermost transaction or savepoint back.
    ///
    /// # Errors
    ///
    /// As [`Steady::rollback`].
    pub fn rollback(&self) -> Result<(), QueryError> {
        self.with(Steady::rollback)
    }

    /// Closes a steady or persistent connection, as [`Steady::close`]. Of a pool's connection only the
    /// transaction ends: it goes back when the lease is dropped.
    ///
    /// # Errors
    ///
    /// When another thread is using the connection.
    pub fn close(&self) -> Result<(), QueryError> {
        self.with(|steady| {
            match &self.hold {
                Hold::Alone(_) => steady.close(),
                Hold::Own(_) | Hold::Joint(..) => steady.reset(),
            }
            Ok(())
        })
    }

    /// The database's own number of this connection.
    ///
    /// # Errors
    ///
    /// When another thread is using the connection.
    pub fn backend_id(&self) -> Result<Option<u64>, QueryError> {
        self.with(|steady| Ok(steady.backend_id()))
    }

    /// Runs `body` on the connection.
    ///
    /// # Errors
    ///
    /// When another thread is using it, or an earlier statement panicked; else the body's.
    pub fn with<T>(&self, body: impl FnOnce(&mut Steady) -> Result<T, QueryError>) -> Result<T, QueryError> {
        match &self.hold {
            Hold::Own(own) => {
                let mut place = own.physical.try_lock().ok_or(QueryError::Busy)?;
                use_taken(&mut place, |physical| body(&mut physical.steady))
            }
            Hold::Joint(shared, joint, number) => {
                let outcome = joint.with(*number, shared.config.checkout_timeout, body);
                shared.joint_used(joint);
                outcome
            }
            Hold::Alone(alone) => {
                if alone.thread.is_some_and(|thread| thread != std::thread::current().id()) {
                    return Err(QueryError::WrongThread);
                }
                let mut place = alone.steady.try_lock().ok_or(QueryError::Busy)?;
                use_taken(&mut place, body)
            }
        }
    }

    /// For a test that stands in for a statement that takes its time.
    #[cfg(test)]
    pub(super) fn keep_busy(&self) -> parking_lot::MutexGuard<'_, Option<Box<Physical>>> {
        match &self.hold {
            Hold::Own(own) => own.physical.lock(),
            Hold::Joint(..) | Hold::Alone(_) => panic!("not a connection of its own"),
        }
    }
}

impl Alone {
    /// Undoes what the last lease left behind.
    fn rest(&self) {
        if let Some(steady) = self.steady.lock().as_mut()
            && (steady.is_in_transaction() || steady.needs_reset())
        {
            steady.reset();
        }
    }
}

/// Runs `body` with what is out of its place meanwhile, so a panic takes it along.
fn use_taken<P, T>(
    place: &mut Option<P>,
    body: impl FnOnce(&mut P) -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    let Some(mut taken) = place.take() else {
        let reason = "an earlier statement on it panicked, or its thread has ended".to_owned();
        return Err(QueryError::Lost { reason, sqlstate: String::new() });
    };
    let outcome = body(&mut taken);
    *place = Some(taken);
    outcome
}

impl Drop for Own {
    fn drop(&mut self) {
        match self.physical.get_mut().take() {
            // Nobody is to wait for what a stream that was ended early leaves.
            Some(physical) if !blocking::cannot_run() && !physical.steady.is_lagging() => {
                self.tie.0.checkin(physical);
            }
            Some(physical) => {
                let held = (self.tie.clone(), physical);
                blocking::run_apart(held, |(tie, physical)| tie.0.checkin(physical));
            }
            None => self.tie.0.lost(self.seat, false),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &self.hold {
            Hold::Joint(shared, joint, number) => {
                let held = (shared.clone(), joint.clone(), *number);
                blocking::run(held, |(shared, joint, number)| shared.leave(&joint, number));
            }
            Hold::Alone(alone) if alone.leases.fetch_sub(1, Ordering::AcqRel) == 1 => {
                blocking::run(alone.clone(), |alone| alone.rest());
            }
            // `Own` has a drop of its own.
            Hold::Alone(_) | Hold::Own(_) => {}
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, address) = match &self.hold {
            Hold::Own(own) => ("own", own.tie.0.source.driver.address()),
            Hold::Joint(shared, ..) => ("joint", shared.source.driver.address()),
            Hold::Alone(_) => ("alone", ""),
        };
        f.debug_struct("Lease").field("kind", &kind).field("address", &address).finish()
    }
}
