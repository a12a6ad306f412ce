//! Why a request transaction failed, one enum per operation.

use thiserror::Error;

use crate::db::interrupt::Reason;
use crate::db::{CheckoutError, QueryError};

/// Why a statement of a request transaction, or a step of its savepoints, failed.
#[derive(Clone, Debug, Error)]
pub enum TxError {
    /// It was the first statement, and no connection could be had for it.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The statement itself.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The request has ended, and its transactions with it.
    #[error("the request has ended, and its transaction with it")]
    Ended,
    /// Nobody waits for the answer any more: the transaction has been rolled back.
    #[error("{reason}, so its transaction was rolled back")]
    Abandoned {
        /// Why nobody waits.
        reason: Reason,
    },
    /// A request transaction is committed by the host.
    #[error("a request's transaction is committed or rolled back when the handler has returned; see `doom`")]
    NotYours,
    /// Two holders of the transaction say differently how it begins.
    #[error("the request's transaction begins, or has begun, with other options: say the same in all places")]
    OtherOptions,
    /// Savepoints end in the reverse order of their beginning.
    #[error("a savepoint that was begun later is still open")]
    Overlapping,
}

/// Why a request that ended well has not kept its changes.
///
/// Whatever the variant, no transaction of the request is open any more.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The database refused the commit, or a statement before it.
    #[error("the transaction on {address} was not committed{}", earlier(*committed))]
    Refused {
        /// Which database.
        address: String,
        /// How many other transactions of the request had been committed before.
        committed: usize,
        /// The database's words.
        source: Box<QueryError>,
    },
    /// The connection was lost before the commit was sent.
    #[error("the connection to {address} was lost in the transaction, which the database rolls back{}", earlier(*committed))]
    Lost {
        /// Which database.
        address: String,
        /// How many other transactions of the request had been committed before.
        committed: usize,
    },
    /// The connection broke after the commit was sent.
    #[error("whether the transaction on {address} was committed is unknown{}", earlier(*committed))]
    Unknown {
        /// Which database.
        address: String,
        /// How many other transactions of the request had been committed before.
        committed: usize,
        /// What broke.
        source: Box<QueryError>,
    },
    /// Nobody waited for the answer any more.
    #[error("{reason}, so what it did was rolled back")]
    Abandoned {
        /// Why nobody waited.
        reason: Reason,
    },
}

impl CommitError {
    /// Whether it is certain that all of the request's transactions were rolled back.
    pub fn is_nothing_kept(&self) -> bool {
        match self {
            CommitError::Refused { committed, .. } | CommitError::Lost { committed, .. } => *committed == 0,
            CommitError::Abandoned { .. } => true,
            CommitError::Unknown { .. } => false,
        }
    }

    /// Whether nothing was kept and the same request may well succeed a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            CommitError::Refused { committed: 0, source, .. } => is_passing(source),
            CommitError::Lost { committed: 0, .. } => true,
            _ => false,
        }
    }
}

fn earlier(committed: usize) -> String {
    match committed {
        0 => String::new(),
        1 => "; another one of the request had been".to_owned(),
        more => format!("; {more} others of the request had been"),
    }
}

/// Whether the database says that the same transaction may well succeed when it is tried again.
pub(super) fn is_serialisation_failure(error: &QueryError) -> bool {
    match error {
        QueryError::Database { sqlstate, .. } => matches!(sqlstate.as_str(), "40001" | "40P01"),
        // Prepared anew, it fits.
        QueryError::Stale { .. } => true,
        _ => false,
    }
}

/// As [`is_serialisation_failure`], or it lacks a resource, or somebody holds a lock.
pub(super) fn is_passing(error: &QueryError) -> bool {
    let QueryError::Database { sqlstate, .. } = error else { return false };
    is_serialisation_failure(error) || sqlstate.starts_with("53") || sqlstate == "55P03"
}
