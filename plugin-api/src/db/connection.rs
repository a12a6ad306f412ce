//! A connection on loan, and its transactions.
//!
//! # Invariants
//!
//! - One thread at a time: neither type is `Sync`.
//! - A transaction borrows its connection mutably, so statements cannot slip past it, and the
//!   innermost one ends first.

use std::cell::Cell;
use std::ops::Deref;

use crate::abi::STATEMENT_NO_FAILOVER;
use crate::db::call::{self, Step};
use crate::db::{Idempotent, OwnedRow, QueryError, Rows, ToValue, TransactionOptions};
use crate::host::Owned;

/// A connection that is lent out. It returns to its pool when dropped.
///
/// If it breaks while nothing was left on it (no transaction, no settings), the next statement runs on a
/// new one. A statement that fails with the connection is an error: whether it took effect is unknown.
/// [`idempotent`](Connection::idempotent) says that it may be sent again.
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
    /// How many scopes without failover are open. A `Cell` also makes the type `!Sync`.
    no_failover: Cell<u32>,
}

impl Connection {
    pub(crate) fn new(handle: Owned) -> Connection {
        Connection { handle, no_failover: Cell::new(0) }
    }

    /// What the host is told with each statement.
    pub(crate) fn flags(&self) -> u64 {
        if self.no_failover.get() > 0 { STATEMENT_NO_FAILOVER } else { 0 }
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
        call::query(&self.handle, self.flags(), sql, params)
    }

    /// As [`query`](Connection::query), for a statement that finds exactly one row.
    ///
    /// # Errors
    ///
    /// As `query`, and [`QueryError::RowCount`] for any other number of rows.
    pub fn query_one(&self, sql: &str, params: &[&dyn ToValue]) -> Result<OwnedRow, QueryError> {
        one(self.query(sql, params)?)
    }

    /// As [`query`](Connection::query), for a statement that finds one row or none.
    ///
    /// # Errors
    ///
    /// As `query`, and [`QueryError::RowCount`] for more than one row.
    pub fn query_opt(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Option<OwnedRow>, QueryError> {
        one_or_none(self.query(sql, params)?)
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Connection::query).
    pub fn execute(&self, sql: &str, params: &[&dyn ToValue]) -> Result<u64, QueryError> {
        call::execute(&self.handle, self.flags(), sql, params)
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

    /// The same statements, which may be sent again on a new connection when this one breaks.
    pub fn idempotent(&self) -> Idempotent<'_> {
        Idempotent::new(self)
    }

    /// Runs `body`, whose statements on this connection are not sent again and do not replace it unseen:
    /// for one that is expected to fail in a controlled way. Nests.
    ///
    /// ```no_run
    /// # use plugin_api::db;
    /// # fn f(conn: &db::Connection) -> Result<(), db::QueryError> {
    /// let outcome = conn.no_failover(|conn| conn.idempotent().query("SELECT pg_sleep(9)", &[]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn no_failover<T>(&self, body: impl FnOnce(&Connection) -> T) -> T {
        /// Also when `body` unwinds.
        struct Leave<'a>(&'a Cell<u32>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.no_failover.set(self.no_failover.get() + 1);
        let _leave = Leave(&self.no_failover);
        body(self)
    }

    /// Runs `body` in a transaction: commits if it returns `Ok`, rolls back if it returns `Err`.
    ///
    /// ```no_run
    /// # use plugin_api::db;
    /// # fn f(conn: &mut db::Connection) -> Result<(), db::QueryError> {
    /// conn.scope(|tx| {
    ///     tx.execute("UPDATE account SET cents = cents - 5 WHERE id = 1", &[])?;
    ///     tx.execute("UPDATE account SET cents = cents + 5 WHERE id = 2", &[])
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The body's, or the commit's.
    pub fn scope<T, E: From<QueryError>>(
        &mut self,
        body: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = self.transaction()?;
        let value = body(&mut tx)?;
        tx.commit()?;
        Ok(value)
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

    /// As [`transaction`](Connection::transaction), with a say in how it begins.
    ///
    /// # Errors
    ///
    /// As `transaction`.
    pub fn transaction_with(&mut self, options: TransactionOptions) -> Result<Transaction<'_>, QueryError> {
        call::begin_with(&self.handle, options)?;
        Ok(Transaction { conn: self, is_open: true })
    }
}

/// The only row.
pub(super) fn one(rows: Rows) -> Result<OwnedRow, QueryError> {
    one_or_none(rows)?.ok_or(QueryError::RowCount { found: 0 })
}

/// The only row, if there is one.
pub(super) fn one_or_none(rows: Rows) -> Result<Option<OwnedRow>, QueryError> {
    match rows.len() {
        0 => Ok(None),
        1 => Ok(Some(OwnedRow::first_of(rows))),
        found => Err(QueryError::RowCount { found }),
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
