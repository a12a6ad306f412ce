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

pub mod blocking;
mod error;
pub mod interrupt;
mod pool;
mod postgres;
mod sql;
mod sqlite;

use std::fmt;
use std::path::Path;

pub use plugin_api::db::Value;
pub use plugin_api::db::rows::Block;

pub use self::error::{CheckoutError, ConfigError, ConnectError, OpenError, QueryError};
pub use self::pool::{
    DEFAULT_CHECKOUT_TIMEOUT, DEFAULT_MAX_SIZE, Lease, Pool, PoolConfig, PoolStatus, STALE_AFTER,
};
pub use self::postgres::Postgres;
pub use self::sqlite::Sqlite;

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
    fn begin(&mut self) -> Result<(), QueryError>;

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

    /// Asks the database whether the connection works.
    fn is_valid(&mut self) -> bool;

    /// Undoes what a borrower left behind: an open transaction, settings, temporary tables.
    fn reset(&mut self) -> Reset;

    /// The database's own number of this connection, such as PostgreSQL's process id.
    fn backend_id(&self) -> Option<u64>;
}

/// What became of a connection that was to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It is as good as new.
    Ready,
    /// What was left behind goes away only with the connection.
    Close,
}

/// The driver for a URL. Does not connect.
///
/// `postgres://...` and `postgresql://...` are PostgreSQL, `sqlite:PATH` and `sqlite::memory:` are
/// SQLite. A relative path of SQLite lies below `data_dir`.
///
/// # Errors
///
/// When the URL is of no known form or has a setting that is not supported.
pub fn driver(url: &str, data_dir: &Path) -> Result<Box<dyn Driver>, ConfigError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Box::new(Postgres::parse(url)?))
    } else if let Some(path) = url.strip_prefix("sqlite:") {
        Ok(Box::new(Sqlite::parse(path, data_dir)?))
    } else {
        // Not the whole text: it may hold a password.
        let scheme = url.split(':').next().filter(|scheme| scheme.len() < url.len()).unwrap_or_default();
        Err(ConfigError::Scheme { scheme: scheme.chars().take(32).collect() })
    }
}

#[cfg(test)]
mod tests;
