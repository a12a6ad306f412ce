//! The transactions of one request, and how they end together.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Reason;
use super::error::{CommitError, TxError};
use super::transaction::{Joined, Rule, Transaction};
use crate::db::interrupt::Interrupt;
use crate::db::{Access, Borrower, Pool, TransactionOptions};

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer, be it a typed HTTP error.
    Answered {
        /// Its status code.
        status: u16,
    },
    /// Without one: an error, a panic.
    Failed,
}

/// The transactions of one request.
#[derive(Debug, Default)]
pub struct Scope {
    interrupt: Arc<Interrupt>,
    books: Mutex<Books>,
    /// Counts beginnings; shared with whoever may begin one.
    counter: Arc<AtomicU64>,
    is_doomed: AtomicBool,
}

#[derive(Debug, Default)]
struct Books {
    /// With the strictest rule that was asked for.
    members: Vec<(Arc<Transaction>, Rule)>,
    /// Counts holders.
    holders: u64,
    /// When transactions take the right to write, if nobody says; `None`: when they first write.
    access: Option<Access>,
    is_concluded: bool,
}

impl Books {
    fn access(&self) -> Access {
        self.access.unwrap_or(Access::Deferred)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Scope>>> = const { RefCell::new(None) };
}

/// The scope that this thread works in; `None` outside of requests.
pub fn current() -> Option<Arc<Scope>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl Scope {
    /// A scope whose transactions take the right to write at `access`, if nobody says otherwise.
    pub fn with_access(access: Access) -> Scope {
        Scope { books: Mutex::new(Books { access: Some(access), ..Books::default() }), ..Scope::default() }
    }

    /// Runs `body` in this scope: what it does in databases is given up with the scope.
    pub fn run<R>(self: &Arc<Scope>, body: impl FnOnce() -> R) -> R {
        /// Restores the outer scope, also when `body` unwinds.
        struct Restore(Option<Arc<Scope>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(Arc::clone(self))));
        self.interrupt.enter(body)
    }

    /// The scope's transaction on a pool: the one there is, or a new one, which begins with its first
    /// statement.
    ///
    /// # Errors
    ///
    /// When the scope has been concluded.
    pub fn join(&self, pool: &Pool, rule: Rule) -> Result<Joined, TxError> {
        self.join_for(None, pool, rule, TransactionOptions::default())
    }

    /// As [`join`](Scope::join), on behalf of somebody whom the report of a forgotten connection is to name, and
    /// with a say in how the transaction begins.
    ///
    /// # Errors
    ///
    /// As `join`, and when it begins, or has begun, in another way.
    pub fn join_for(
        &self,
        borrower: Option<Arc<dyn Borrower>>,
        pool: &Pool,
        rule: Rule,
        options: TransactionOptions,
    ) -> Result<Joined, TxError> {
        let mut books = self.books.lock();
        if books.is_concluded {
            return Err(TxError::Ended);
        }
        books.holders += 1;
        let number = books.holders;
        let known = books.members.iter_mut().find(|(transaction, _)| transaction.is_of(pool));
        let transaction = match known {
            Some((transaction, strictest)) => {
                transaction.agree(options)?;
                *strictest = rule.max(*strictest);
                Arc::clone(transaction)
            }
            None => {
                let transaction = Arc::new(Transaction::new(pool.clone(), borrower, books.access()));
                transaction.agree(options)?;
                books.members.push((Arc::clone(&transaction), rule));
                transaction
            }
        };
        Ok(Joined { transaction, counter: Arc::clone(&self.counter), number })
    }

    /// Decides that everything is rolled back at the end, whatever the handler answers.
    pub fn doom(&self) {
        self.is_doomed.store(true, Ordering::Relaxed);
    }

    /// Ends all transactions as the handler's ending demands.
    ///
    /// # Errors
    ///
    /// When something was to be committed and was not. All that was still open is rolled back.
    pub fn conclude(&self, ending: Ending) -> Result<(), CommitError> {
        let mut members = {
            let mut books = self.books.lock();
            books.is_concluded = true;
            books.members.clone()
        };
        members.sort_by_key(|(transaction, _)| transaction.begun());
        let is_kept = |(transaction, rule): &(Arc<Transaction>, Rule)| match ending {
            _ if transaction.begun().is_none() => false,
            Ending::Failed => false,
            Ending::Answered { status } => {
                !self.is_doomed.load(Ordering::Relaxed) && (*rule == Rule::Answers || status < 400)
            }
        };
        let mut outcome = Ok(());
        if members.iter().any(is_kept) {
            outcome = self.interrupt.close().map_err(|reason| CommitError::Abandoned { reason });
        }
        let mut committed = 0;
        for member in &members {
            if outcome.is_ok() && is_kept(member) {
                outcome = member.0.commit(committed);
                committed += 1;
            } else {
                // One that never began cannot begin any more.
                member.0.roll_back(None);
            }
        }
        outcome
    }

    /// Whether a statement or a commit failed in a way that may well not happen again, with nothing kept.
    pub fn was_serialisation_failure(&self) -> bool {
        self.books.lock().members.iter().any(|(transaction, _)| transaction.was_serialisation_failure())
    }

    /// Whether a statement failed for want of a lock or of room.
    pub fn was_passing(&self) -> bool {
        self.books.lock().members.iter().any(|(transaction, _)| transaction.was_passing())
    }

    /// Forgets the concluded transactions, for another run of the handler. The new ones take the right to write
    /// when they begin, so that they do not meet the same fate.
    ///
    /// # Errors
    ///
    /// When somebody has given up waiting meanwhile.
    pub fn begin_again(&self) -> Result<(), Reason> {
        self.interrupt.reopen()?;
        *self.books.lock() = Books { access: Some(Access::Immediate), ..Books::default() };
        self.is_doomed.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// 1 once the request has been given up, 0 before.
    pub fn cancelled(&self) -> &AtomicU8 {
        self.interrupt.flag()
    }

    /// Gives the request up: cancels the statement that runs, refuses later ones, and rolls back, on a
    /// thread of its own, whatever the handler does meanwhile.
    ///
    /// Returns false if it is too late, because the transactions are being committed.
    pub fn abandon(&self, reason: Reason) -> bool {
        if !self.interrupt.interrupt(reason) {
            return false;
        }
        let members = self.books.lock().members.clone();
        if members.is_empty() {
            return true;
        }
        let spawned = std::thread::Builder::new()
            .name("tx-abandon".to_owned())
            .spawn(move || members.iter().for_each(|(transaction, _)| transaction.roll_back(Some(reason))));
        if let Err(error) = spawned {
            tracing::error!(
                "a transaction stays open until its handler returns, for want of a thread: {error}"
            );
        }
        true
    }
}
