//! One transaction of a request: lazily begun, with its savepoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::{TxError, is_passing, is_serialisation_failure};
use super::{CommitError, Reason};
use crate::db::{Access, Borrower, Lease, Pool, QueryError, TransactionOptions};

/// Which endings of a handler keep what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every answer, be it a typed HTTP error: the handler has decided, and said so.
    #[default]
    Answers,
    /// Only answers below 400.
    Successes,
}

/// One transaction on one pool.
pub(super) struct Transaction {
    pool: Pool,
    /// Who asked for it first, and so has the connection, as far as the pool knows.
    borrower: Option<Arc<dyn Borrower>>,
    state: Mutex<State>,
    /// When it began among those of its scope, from 1; 0: not yet. Written with `state` locked.
    begun: AtomicU64,
    /// A statement runs. Statements are the handler's thread's alone, so whoever finds this set is a function
    /// that is called for the rows of one.
    is_busy: AtomicBool,
    /// A statement failed in a way that may well not happen again.
    was_serialisation_failure: AtomicBool,
    /// A statement failed for want of a lock or of room.
    was_passing: AtomicBool,
    /// How it begins, as far as somebody has said.
    options: Mutex<TransactionOptions>,
    /// When it takes the right to write, if nobody has said.
    default_access: Access,
}

#[derive(Debug)]
enum State {
    /// No statement yet.
    Fresh,
    Open(Open),
    Ended(Why),
}

#[derive(Debug)]
struct Open {
    lease: Lease,
    /// Who began each of the savepoints that are open.
    savepoints: Vec<u64>,
    /// The connection broke: there is nothing left to commit.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Concluded,
    Abandoned(Reason),
}

impl Transaction {
    pub(super) fn new(
        pool: Pool,
        borrower: Option<Arc<dyn Borrower>>,
        default_access: Access,
    ) -> Transaction {
        Transaction {
            options: Mutex::default(),
            default_access,
            was_passing: AtomicBool::new(false),
            pool,
            borrower,
            state: Mutex::new(State::Fresh),
            begun: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            was_serialisation_failure: AtomicBool::new(false),
        }
    }

    pub(super) fn is_of(&self, pool: &Pool) -> bool {
        self.pool.is_same(pool)
    }

    /// When it began among those of its scope; `None`: no statement came.
    pub(super) fn begun(&self) -> Option<u64> {
        Some(self.begun.load(Ordering::Acquire)).filter(|begun| *begun > 0)
    }

    pub(super) fn was_serialisation_failure(&self) -> bool {
        self.was_serialisation_failure.load(Ordering::Relaxed)
    }

    /// Whether a statement failed for want of a lock or of room, so that the same may well succeed later.
    pub(super) fn was_passing(&self) -> bool {
        self.was_passing.load(Ordering::Relaxed)
    }

    /// Takes note of how a holder wants it to begin.
    ///
    /// # Errors
    ///
    /// When another one has said otherwise, or it has begun otherwise.
    pub(super) fn agree(&self, options: TransactionOptions) -> Result<(), TxError> {
        let nothing = TransactionOptions::default();
        let mut agreed = self.options.lock();
        if options == nothing || options == *agreed {
            return Ok(());
        }
        if *agreed != nothing || self.begun().is_some() {
            return Err(TxError::OtherOptions);
        }
        *agreed = options;
        Ok(())
    }

    /// Runs `body` in the transaction, which begins now if it has not.
    fn with<T>(
        &self,
        counter: &AtomicU64,
        body: impl FnOnce(&mut Open) -> Result<T, TxError>,
    ) -> Result<T, TxError> {
        /// The statement is over, also when it unwinds.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        if self.is_busy.load(Ordering::Acquire) {
            return Err(QueryError::Busy.into());
        }
        let mut state = self.state.lock();
        self.is_busy.store(true, Ordering::Release);
        let _over = Over(&self.is_busy);
        if let State::Fresh = *state {
            let lease = self.pool.checkout_to_the_end(self.borrower.clone())?;
            let mut options = *self.options.lock();
            options.access.get_or_insert(self.default_access);
            self.noted(lease.begin_with(&options).map_err(TxError::from))?;
            self.begun.store(counter.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
            *state = State::Open(Open { lease, savepoints: Vec::new(), is_lost: false });
        }
        let open = match &mut *state {
            State::Open(open) => open,
            State::Ended(Why::Abandoned(reason)) => return Err(TxError::Abandoned { reason: *reason }),
            State::Ended(Why::Concluded) | State::Fresh => return Err(TxError::Ended),
        };
        let outcome = self.noted(body(open));
        if let Err(TxError::Query(error)) = &outcome {
            open.is_lost |= matches!(error, QueryError::Lost { .. } | QueryError::TransactionLost);
        }
        outcome
    }

    /// Takes note of a failure after which the same request may well succeed.
    fn noted<T>(&self, outcome: Result<T, TxError>) -> Result<T, TxError> {
        if let Err(TxError::Query(error)) = &outcome {
            self.was_serialisation_failure.fetch_or(is_serialisation_failure(error), Ordering::Relaxed);
            self.was_passing.fetch_or(is_passing(error), Ordering::Relaxed);
        }
        outcome
    }

    /// Commits. Savepoints that are still open are rolled back first: nobody has kept them.
    pub(super) fn commit(&self, committed: usize) -> Result<(), CommitError> {
        let ended = std::mem::replace(&mut *self.state.lock(), State::Ended(Why::Concluded));
        let address = || self.pool.address().to_owned();
        let open = match ended {
            State::Fresh | State::Ended(Why::Concluded) => return Ok(()),
            State::Ended(Why::Abandoned(reason)) => return Err(CommitError::Abandoned { reason }),
            State::Open(open) => open,
        };
        if open.is_lost {
            return Err(CommitError::Lost { address: address(), committed });
        }
        let outcome = open
            .savepoints
            .iter()
            .try_for_each(|_| open.lease.rollback())
            .map_err(|error| match error {
                // The commit was not sent.
                QueryError::Lost { reason, .. } => QueryError::NotCommitted { reason },
                error => error,
            })
            .and_then(|()| open.lease.commit());
        outcome.map_err(|source| match source {
            QueryError::Lost { .. } | QueryError::OutcomeUnknown { .. } => {
                CommitError::Unknown { address: address(), committed, source: source.into() }
            }
            QueryError::NotCommitted { .. } | QueryError::TransactionLost => {
                CommitError::Lost { address: address(), committed }
            }
            source => {
                if is_serialisation_failure(&source) {
                    self.was_serialisation_failure.store(true, Ordering::Relaxed);
                }
                CommitError::Refused { address: address(), committed, source: source.into() }
            }
        })
    }

    /// Rolls back: the pool undoes what an open lease leaves behind. Waits for a statement that runs.
    pub(super) fn roll_back(&self, abandoned: Option<Reason>) {
        let mut state = self.state.lock();
        if let State::Ended(_) = *state {
            return;
        }
        let why = abandoned.map_or(Why::Concluded, Why::Abandoned);
        let ended = std::mem::replace(&mut *state, State::Ended(why));
        drop(state);
        drop(ended);
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("pool", &self.pool)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A transaction as one `req.transaction(..)` holds it.
#[derive(Clone, Debug)]
pub struct Joined {
    pub(super) transaction: Arc<Transaction>,
    /// Counts the beginnings of its scope.
    pub(super) counter: Arc<AtomicU64>,
    /// Tells this holder's savepoints from another's.
    pub(super) number: u64,
}

impl Joined {
    /// Runs a statement in the transaction, which begins with it if it is the first one.
    ///
    /// # Errors
    ///
    /// When no connection can be had, the statement fails, or the transaction is over.
    pub fn run<T>(&self, body: impl FnOnce(&Lease) -> Result<T, QueryError>) -> Result<T, TxError> {
        self.transaction.with(&self.counter, |open| Ok(body(&open.lease)?))
    }

    /// Begins a savepoint.
    ///
    /// # Errors
    ///
    /// As [`run`](Joined::run).
    pub fn begin(&self) -> Result<(), TxError> {
        self.transaction.with(&self.counter, |open| {
            open.lease.begin()?;
            open.savepoints.push(self.number);
            Ok(())
        })
    }

    /// Keeps what was done since this holder's last savepoint, as a part of the transaction.
    ///
    /// # Errors
    ///
    /// As [`run`](Joined::run), and when this holder has no savepoint or not the last one.
    pub fn commit(&self) -> Result<(), TxError> {
        self.end(Lease::commit)
    }

    /// Undoes what was done since this holder's last savepoint.
    ///
    /// # Errors
    ///
    /// As [`commit`](Joined::commit).
    pub fn rollback(&self) -> Result<(), TxError> {
        self.end(Lease::rollback)
    }

    fn end(&self, step: impl FnOnce(&Lease) -> Result<(), QueryError>) -> Result<(), TxError> {
        self.transaction.with(&self.counter, |open| {
            if !open.savepoints.contains(&self.number) {
                return Err(TxError::NotYours);
            }
            open.savepoints.pop_if(|owner| *owner == self.number).ok_or(TxError::Overlapping)?;
            Ok(step(&open.lease)?)
        })
    }
}
