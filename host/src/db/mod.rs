//! Databases: drivers behind a small trait, and the pool above them.
//!
//! Owns connections, statements, values on their way to and from a column, and lending connections
//! out. Does not know plugins, the registry or HTTP: it is a library of its own.
//!
//! All calls block. PostgreSQL's driver runs a small runtime of its own for each connection, so none
//! may be made, nor a connection dropped, on a thread that is inside a tokio runtime; see
//! [`blocking`].
//!
//! # Invariants
//!
//! - Nothing is re-sent, and no connection replaced, where something could be lost.
//! - A password is in no error, no log and no status.

mod begin;
pub mod blocking;
mod clock;
mod config;
mod error;
mod gate;
pub mod interrupt;
mod journal;
pub mod label;
mod monitor;
mod persistent;
mod pool;
mod postgres;
mod source;
mod sql;
mod sqlite;
mod steady;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

pub use plugin_api::db::rows::Block;
pub use plugin_api::db::{ErrorDetails, Value};

pub use self::begin::{Access, Isolation, TransactionOptions};
pub use self::config::{
    DEFAULT_CHECKOUT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, DEFAULT_LEAK_AFTER, DEFAULT_MAX_LIFETIME,
    DEFAULT_MAX_SIZE, DEFAULT_PING_TIMEOUT, Order, Ping, PoolConfig, ResetPolicy, STALE_AFTER, SteadyConfig,
};
pub use self::error::{CheckoutError, ConfigError, ConnectError, OpenError, QueryError};
pub use self::journal::{PoolEvent, SlowStatement};
pub use self::persistent::Persistent;
pub use self::pool::{Borrower, Lease, Pool, PoolStatus, Waits, pools};
pub use self::postgres::{Listener, ListenerStatus, Notice, Postgres};
pub use self::sqlite::Sqlite;
pub use self::steady::{How, Steady};

/// Makes connections to one database.
pub trait Driver: fmt::Debug + Send + Sync {
    /// The driver's name, such as `postgres`.
    fn name(&self) -> &'static str;

    /// Where the database is, without a password.
    fn address(&self) -> &str;

    /// The most connections that make sense; `None`: any number.
    fn max_connections(&self) -> Option<u32> {
        None
    }

    /// What several threads may share.
    fn thread_safety(&self) -> ThreadSafety {
        ThreadSafety::Connection
    }

    /// Whether [`Connection::is_valid`] asks the database.
    fn has_ping(&self) -> bool {
        true
    }

    /// Whether the data are gone once the connection is closed. No limit closes such a connection.
    fn is_its_connection(&self) -> bool {
        false
    }

    /// Makes a connection.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses.
    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError>;
}

/// One physical connection. Used by one thread at a time.
pub trait Connection: Send {
    /// Runs a statement and returns its rows as one block (`plugin_api::db::rows`).
    ///
    /// # Errors
    ///
    /// When a parameter or a result column has no form here, or the database refuses.
    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError>;

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Connection::query).
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError>;

    /// Hands the rows of a statement to `each`, a block at a time, as they come: neither side holds them
    /// all. A driver that cannot do this hands over one block.
    ///
    /// # Errors
    ///
    /// As [`query`](Connection::query), maybe after some blocks.
    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let block = self.query(sql, params)?;
        Ok(if each(&block).is_break() { Streamed::Stopped } else { Streamed::All(0) })
    }

    /// Runs a `COPY ... FROM STDIN` with what `source` writes, until it writes nothing. If it breaks off,
    /// nothing is stored.
    ///
    /// # Errors
    ///
    /// [`QueryError::NotOffered`] where the database has no such thing, or as [`query`](Connection::query).
    fn copy_in(
        &mut self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let _ = (sql, source);
        Err(QueryError::NotOffered { what: "COPY" })
    }

    /// Runs a `COPY ... TO STDOUT` and hands what it sends to `sink`.
    ///
    /// # Errors
    ///
    /// As [`copy_in`](Connection::copy_in).
    fn copy_out(
        &mut self,
        sql: &str,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let _ = (sql, sink);
        Err(QueryError::NotOffered { what: "COPY" })
    }

    /// Runs several statements without parameters.
    ///
    /// # Errors
    ///
    /// When the database refuses one of them.
    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError>;

    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// When the database refuses; nothing has begun then.
    fn begin(&mut self) -> Result<(), QueryError> {
        self.begin_with(&TransactionOptions::default())
    }

    /// As [`begin`](Connection::begin), with a say in how.
    ///
    /// # Errors
    ///
    /// As `begin`; and inside a transaction, where a savepoint begins, unless nothing is said.
    fn begin_with(&mut self, options: &TransactionOptions) -> Result<(), QueryError>;

    /// Commits the innermost transaction or savepoint. Whatever the outcome, it is over.
    ///
    /// # Errors
    ///
    /// [`QueryError::RolledBack`] when it ended as a rollback.
    fn commit(&mut self) -> Result<(), QueryError>;

    /// Rolls the innermost transaction or savepoint back. Whatever the outcome, it is over.
    ///
    /// # Errors
    ///
    /// When the connection is broken; the database then rolls back by itself.
    fn rollback(&mut self) -> Result<(), QueryError>;

    /// Whether the connection is known to be broken. Instant: asks nobody.
    fn has_broken(&self) -> bool;

    /// Asks the database whether the connection works; no answer within `timeout` means that it does not.
    fn is_valid(&mut self, timeout: Duration) -> bool;

    /// Whether nothing would be lost with the connection: no transaction, no settings, no temporary
    /// tables, as far as the texts that ran tell. Instant.
    fn is_clean(&self) -> bool;

    /// Whether the next borrower might see something of this one. Instant.
    fn needs_reset(&self) -> bool {
        !self.is_clean()
    }

    /// Whether a statement that nobody waits for may still run, so that a reset takes its time. Instant.
    fn is_lagging(&self) -> bool {
        false
    }

    /// Undoes what a borrower left behind: an open transaction, settings, temporary tables.
    fn reset(&mut self) -> Reset;

    /// Makes the next [`reset`](Connection::reset) undo all that it can, whatever the texts told.
    fn distrust(&mut self) {}

    /// Whether a transaction is open that none of [`begin`](Connection::begin) began. Asks the database only if a text
    /// may have done so.
    fn has_foreign_transaction(&mut self) -> bool {
        false
    }

    /// Says that what has run so far belongs to the session: a reset need not undo it.
    fn settle(&mut self);

    /// What became of a transaction, by the name that [`QueryError::OutcomeUnknown`] gave it.
    fn outcome_of(&mut self, transaction: &str) -> Outcome {
        let _ = transaction;
        Outcome::Unknown
    }

    /// The database's own number of this connection, such as PostgreSQL's process id.
    fn backend_id(&self) -> Option<u64>;
}

/// How far a stream came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streamed {
    /// To its end; how many rows were stored, or bytes sent. 0 where that is not counted.
    All(u64),
    /// As far as the other side wanted it.
    Stopped,
}

/// What several threads may share, in the order of what they may. A driver that not even several
/// threads may use does not exist here: [`Driver`] is `Sync`.
///
/// (The levels 1 and 2 of Python's DB-API. Its 3 adds cursors, which do not exist here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadSafety {
    /// The driver. A connection is used by one borrower at a time.
    Driver,
    /// A connection, too: statements of several borrowers may follow each other on it.
    Connection,
}

/// What became of a transaction whose commit was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is lasting.
    Committed,
    /// Nothing of it is.
    RolledBack,
    /// Nobody knows yet.
    Unknown,
}

/// What became of a connection that was to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It is as good as when it was settled.
    Ready,
    /// It is as good as when it was made: the settings of its session are to be made again.
    Bare,
    /// What was left behind goes away only with the connection.
    Close,
}

/// The driver for a URL. Does not connect.
///
/// `postgres://...` and `postgresql://...` are PostgreSQL; `sqlite:PATH`, `sqlite::memory:` and SQLite's own
/// `file:` URIs are SQLite. A relative path of SQLite lies below `data_dir`.
///
/// # Errors
///
/// When the URL is of no known form or has a setting that is not supported.
pub fn driver(url: &str, data_dir: &Path) -> Result<Box<dyn Driver>, ConfigError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Box::new(Postgres::parse(url)?))
    } else if let Some(path) = url.strip_prefix("sqlite:") {
        Ok(Box::new(Sqlite::parse(path, data_dir)?))
    } else if url.starts_with("file:") {
        Ok(Box::new(Sqlite::parse(url, data_dir)?))
    } else {
        // Not the whole text: it may hold a password.
        let scheme = url.split(':').next().filter(|scheme| scheme.len() < url.len()).unwrap_or_default();
        Err(ConfigError::Scheme { scheme: scheme.chars().take(32).collect() })
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
