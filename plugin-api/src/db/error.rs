//! What can go wrong with a database, one enum per operation.

use std::fmt;

use crate::abi::Status;
use crate::db::ErrorDetails;
use crate::host::CallError;

/// Why a pool was not opened. Nothing is left behind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL or a setting is wrong.
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The first connection could not be made.
    Unreachable {
        /// The driver's words.
        message: String,
    },
    /// The host could not do it, or there is no host.
    Host {
        /// The host's words.
        message: String,
    },
}

impl From<CallError> for OpenError {
    fn from(error: CallError) -> OpenError {
        let message = error.message;
        match error.status {
            Status::INVALID => OpenError::Invalid { message },
            Status::UNREACHABLE | Status::DATABASE => OpenError::Unreachable { message },
            _ => OpenError::Host { message },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Invalid { message }
            | OpenError::Unreachable { message }
            | OpenError::Host { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why no connection was lent out. The pool is as it was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CheckoutError {
    /// Every connection stayed lent out for the whole time-out. The database itself may be fine.
    Exhausted {
        /// How many there are, and how long the wait was.
        message: String,
    },
    /// The database cannot be reached.
    Unreachable {
        /// The driver's words.
        message: String,
    },
    /// The pool has been closed.
    Closed {
        /// Which pool.
        message: String,
    },
    /// Called where blocking is forbidden, or there is no host.
    Host {
        /// The host's words.
        message: String,
    },
}

impl From<CallError> for CheckoutError {
    fn from(error: CallError) -> CheckoutError {
        let message = error.message;
        match error.status {
            Status::EXHAUSTED => CheckoutError::Exhausted { message },
            Status::UNREACHABLE | Status::DATABASE => CheckoutError::Unreachable { message },
            Status::CLOSED | Status::NOT_FOUND => CheckoutError::Closed { message },
            _ => CheckoutError::Host { message },
        }
    }
}

impl CheckoutError {
    /// What kind of failure, in the boundary's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            CheckoutError::Exhausted { .. } => Status::EXHAUSTED,
            CheckoutError::Unreachable { .. } => Status::UNREACHABLE,
            CheckoutError::Closed { .. } => Status::CLOSED,
            CheckoutError::Host { .. } => Status::FAILED,
        }
    }
}

impl fmt::Display for CheckoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckoutError::Exhausted { message }
            | CheckoutError::Unreachable { message }
            | CheckoutError::Closed { message }
            | CheckoutError::Host { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for CheckoutError {}

/// Why a statement, or a step of a transaction, failed.
///
/// Inside a transaction of PostgreSQL a failed statement spoils the transaction: it can only be
/// rolled back, and its commit is an error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueryError {
    /// The database refused the statement.
    Database {
        /// The database's words.
        message: String,
        /// The five characters of the SQL standard that say why, where the database knows.
        sqlstate: Option<String>,
        /// What else the database says, such as the name of the constraint.
        details: Option<Box<ErrorDetails>>,
    },
    /// The connection broke. Whether the statement took effect is unknown.
    Unreachable {
        /// The driver's words.
        message: String,
    },
    /// The connection broke during a commit. Whether the transaction is lasting is unknown: look for what
    /// it wrote before it is tried again.
    OutcomeUnknown {
        /// The driver's words.
        message: String,
    },
    /// A parameter does not fit.
    OutOfRange {
        /// Which one, its value and its type.
        message: String,
    },
    /// The statement cannot be run as asked: wrong number of parameters, a type without a Rust form, a
    /// connection that is busy, a call from a route that must not block.
    Invalid {
        /// What to change.
        message: String,
    },
    /// A query that must find one row found another number of them.
    RowCount {
        /// How many it found.
        found: usize,
    },
    /// A shortcut of the pool got no connection.
    Checkout(CheckoutError),
    /// The host failed, or there is no host.
    Host {
        /// The host's words.
        message: String,
    },
}

impl QueryError {
    /// The five characters by which the SQL standard names the failure, such as `23505` for a violated
    /// unique constraint.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            QueryError::Database { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// What else the database says: table, column, detail, hint, position.
    pub fn details(&self) -> Option<&ErrorDetails> {
        match self {
            QueryError::Database { details, .. } => details.as_deref(),
            _ => None,
        }
    }

    /// The constraint that does not hold. SQLite names it for a CHECK only; see
    /// [`details`](QueryError::details) for table and column.
    pub fn constraint(&self) -> Option<&str> {
        self.details()?.constraint.as_deref()
    }

    /// Whether the transaction is over, without having been committed: a statement of it has failed, or the
    /// database has rolled it back by itself. Nothing runs in it any more.
    pub fn is_transaction_over(&self) -> bool {
        self.sqlstate() == Some("25P02")
    }

    /// What kind of failure, in the boundary's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            // Somebody else has held a lock for all of the time-out.
            QueryError::Database { sqlstate: Some(code), .. } if code == "55P03" => Status::TIMED_OUT,
            QueryError::Database { .. } => Status::DATABASE,
            QueryError::Unreachable { .. } => Status::UNREACHABLE,
            QueryError::OutcomeUnknown { .. } => Status::OUTCOME_UNKNOWN,
            QueryError::OutOfRange { .. } => Status::OUT_OF_RANGE,
            QueryError::Checkout(error) => error.status(),
            QueryError::Invalid { .. } | QueryError::RowCount { .. } | QueryError::Host { .. } => {
                Status::FAILED
            }
        }
    }

    /// `index` counts from 0; people count `$1`.
    pub(crate) fn parameter(index: usize, error: &crate::db::ParameterError) -> QueryError {
        let message = format!("parameter ${}: {error}", index + 1);
        match error {
            crate::db::ParameterError::OutOfRange { .. } => QueryError::OutOfRange { message },
            crate::db::ParameterError::Unwritable { .. } => QueryError::Invalid { message },
        }
    }
}

impl From<CallError> for QueryError {
    fn from(error: CallError) -> QueryError {
        let CallError { status, message, sqlstate, details } = error;
        match status {
            Status::DATABASE => {
                let sqlstate = Some(sqlstate).filter(|code| !code.is_empty());
                QueryError::Database { message, sqlstate, details }
            }
            Status::UNREACHABLE | Status::CLOSED => QueryError::Unreachable { message },
            Status::OUTCOME_UNKNOWN => QueryError::OutcomeUnknown { message },
            Status::OUT_OF_RANGE => QueryError::OutOfRange { message },
            Status::INVALID | Status::NOT_FOUND => QueryError::Invalid { message },
            _ => QueryError::Host { message },
        }
    }
}

impl From<CheckoutError> for QueryError {
    fn from(error: CheckoutError) -> QueryError {
        QueryError::Checkout(error)
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Database { message, sqlstate: Some(code), .. } => write!(f, "{message} [{code}]"),
            QueryError::Database { message, sqlstate: None, .. }
            | QueryError::Unreachable { message }
            | QueryError::OutcomeUnknown { message }
            | QueryError::OutOfRange { message }
            | QueryError::Invalid { message }
            | QueryError::Host { message } => f.write_str(message),
            QueryError::RowCount { found } => write!(f, "expected one row, found {found}"),
            QueryError::Checkout(_) => f.write_str("no connection for the statement"),
        }
    }
}

impl std::error::Error for QueryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            QueryError::Checkout(error) => Some(error),
            _ => None,
        }
    }
}
