//! Statements that may be sent twice.

use crate::abi::STATEMENT_IDEMPOTENT;
use crate::db::{Connection, OwnedRow, Pool, QueryError, Rows, ToValue, call, connection};

/// A connection whose statements may be sent again when it breaks: running one twice does what running it
/// once does. What [`Connection::idempotent`] returns.
///
/// ```no_run
/// # use plugin_api::db;
/// # fn f(conn: &db::Connection) -> Result<(), db::QueryError> {
/// conn.idempotent().execute("UPDATE account SET is_open = false WHERE id = $1", &[&7])?;
/// # Ok(())
/// # }
/// ```
///
/// Inside a transaction nothing is sent again: what came before it in the transaction would be missing.
#[derive(Clone, Copy, Debug)]
pub struct Idempotent<'a> {
    conn: &'a Connection,
}

impl<'a> Idempotent<'a> {
    pub(super) fn new(conn: &'a Connection) -> Idempotent<'a> {
        Idempotent { conn }
    }

    /// As [`Connection::query`].
    ///
    /// # Errors
    ///
    /// As there; for a broken connection only if the second try failed, too.
    pub fn query(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Rows, QueryError> {
        call::query(self.conn.handle(), STATEMENT_IDEMPOTENT | self.conn.flags(), sql, params)
    }

    /// As [`Connection::query_one`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn query_one(&self, sql: &str, params: &[&dyn ToValue]) -> Result<OwnedRow, QueryError> {
        connection::one(self.query(sql, params)?)
    }

    /// As [`Connection::query_opt`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn query_opt(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Option<OwnedRow>, QueryError> {
        connection::one_or_none(self.query(sql, params)?)
    }

    /// As [`Connection::execute`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn execute(&self, sql: &str, params: &[&dyn ToValue]) -> Result<u64, QueryError> {
        call::execute(self.conn.handle(), STATEMENT_IDEMPOTENT | self.conn.flags(), sql, params)
    }
}

/// The shortcuts of a pool for statements that may be sent again. What [`Pool::idempotent`] returns.
#[derive(Clone, Copy, Debug)]
pub struct IdempotentPool<'a> {
    pool: &'a Pool,
}

impl<'a> IdempotentPool<'a> {
    pub(super) fn new(pool: &'a Pool) -> IdempotentPool<'a> {
        IdempotentPool { pool }
    }

    /// As [`Pool::query`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn query(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Rows, QueryError> {
        self.pool.get()?.idempotent().query(sql, params)
    }

    /// As [`Pool::query_one`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn query_one(&self, sql: &str, params: &[&dyn ToValue]) -> Result<OwnedRow, QueryError> {
        self.pool.get()?.idempotent().query_one(sql, params)
    }

    /// As [`Pool::execute`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn execute(&self, sql: &str, params: &[&dyn ToValue]) -> Result<u64, QueryError> {
        self.pool.get()?.idempotent().execute(sql, params)
    }
}
