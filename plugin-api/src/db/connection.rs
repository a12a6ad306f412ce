//! A connection on loan, and its transactions.
//!
//! # Invariants
//!
//! - One thread at a time: neither type is `Sync`.
//! - A transaction borrows its connection mutably, so statements cannot slip past it, and the
//!   innermost one ends first.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::db::call::{self, Step};
use crate::db::{OwnedRow, QueryError, Rows, ToValue};
use crate::host::Owned;

/// A connection that is lent out. It returns to its pool when dropped.
///
/// Whatever it leaves behind (an open transaction, settings, temporary tables) is undone before
/// somebody else gets the connection.
///
/// It may move to another thread, but two cannot use it at a time:
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<plugin_api::db::Connection>();
/// ```
#[derive(Debug)]
pub struct Connection {
    handle: Owned,
    /// Makes the type `!Sync`.
    one_thread: PhantomData<Cell<()>>,
}

impl Connection {
    pub(crate) fn new(handle: Owned) -> Connection {
        Connection { handle, one_thread: PhantomData }
    }

    pub(crate) fn handle(&self) -> &Owned {
        &self.handle
    }

    /// Runs a statement and returns its rows. Placeholders are `$1`, `$2`, ... for every database.
    ///
    /// # Errors
    ///
    /// When a parameter does not fit, the database refuses the statement, or the connection breaks.
    pub fn query(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Rows, QueryError> {
        call::query(&self.handle, sql, params)
    }

    /// As [`query`](Connection::query), for a statement that finds exactly one row.
    ///
    /// # Errors
    ///
    /// As `query`, and [`QueryError::RowCount`] for any other number of rows.
    pub fn query_one(&self, sql: &str, params: &[&dyn ToValue]) -> Result<OwnedRow, QueryError> {
        self.query_opt(sql, params)?.ok_or(QueryError::RowCount { found: 0 })
    }

    /// As [`query`](Connection::query), for a statement that finds one row or none.
    ///
    /// # Errors
    ///
    /// As `query`, and [`QueryError::RowCount`] for more than one row.
    pub fn query_opt(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Option<OwnedRow>, QueryError> {
        let rows = self.query(sql, params)?;
        match rows.len() {
            0 => Ok(None),
            1 => Ok(Some(OwnedRow::first_of(rows))),
            found => Err(QueryError::RowCount { found }),
        }
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Connection::query).
    pub fn execute(&self, sql: &str, params: &[&dyn ToValue]) -> Result<u64, QueryError> {
        call::execute(&self.handle, sql, params)
    }

    /// Runs several statements, separated by semicolons, without parameters.
    ///
    /// # Errors
    ///
    /// When one of them is refused. On PostgreSQL none has then taken effect, unless the text itself
    /// begins and ends transactions; on SQLite those before it have.
    pub fn batch_execute(&self, sql: &str) -> Result<(), QueryError> {
        Ok(call::batch_execute(&self.handle, sql)?)
    }

    /// Begins a transaction. It rolls back when dropped without [`commit`](Transaction::commit).
    ///
    /// ```no_run
    /// # use plugin_api::db;
    /// # fn f(conn: &mut db::Connection) -> Result<(), db::QueryError> {
    /// let tx = conn.transaction()?;
    /// tx.execute("UPDATE account SET cents = cents - $1 WHERE id = $2", &[&500, &1])?;
    /// tx.execute("UPDATE account SET cents = cents + $1 WHERE id = $2", &[&500, &2])?;
    /// tx.commit()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the connection is broken.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, QueryError> {
        Transaction::begin(self)
    }
}

/// A transaction, or a savepoint inside one. Offers the statements of its [`Connection`].
#[derive(Debug)]
#[must_use = "a transaction that is dropped rolls back"]
pub struct Transaction<'a> {
    conn: &'a Connection,
    is_open: bool,
}

impl<'a> Transaction<'a> {
    fn begin(conn: &'a Connection) -> Result<Transaction<'a>, QueryError> {
        call::step(&conn.handle, Step::Begin)?;
        Ok(Transaction { conn, is_open: true })
    }

    /// Makes what was done lasting; for a savepoint, part of the outer transaction.
    ///
    /// # Errors
    ///
    /// When it is not: a commit that ended as a rollback, say because an error was swallowed, is an
    /// error too. [`QueryError::OutcomeUnknown`] means what it says.
    pub fn commit(mut self) -> Result<(), QueryError> {
        self.is_open = false;
        Ok(call::step(&self.conn.handle, Step::Commit)?)
    }

    /// Undoes what was done since it began.
    ///
    /// # Errors
    ///
    /// When the connection is broken; the database then rolls back by itself.
    pub fn rollback(mut self) -> Result<(), QueryError> {
        self.is_open = false;
        Ok(call::step(&self.conn.handle, Step::Rollback)?)
    }

    /// Begins a savepoint: a transaction inside this one.
    ///
    /// # Errors
    ///
    /// When this transaction is spoilt or the connection broken.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, QueryError> {
        Transaction::begin(self.conn)
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // A failure means a broken connection, which the pool sees at checkin.
            let _ = call::step(&self.conn.handle, Step::Rollback);
        }
    }
}
