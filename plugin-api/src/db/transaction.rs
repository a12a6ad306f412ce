//! Transactions that the host ends: those of a request, and those of a closure.
//!
//! # Invariants
//!
//! - A request's transaction belongs to the handler's thread: the type is neither `Send` nor `Sync`.
//! - A plugin cannot commit a request's transaction. It can only end well, end badly, or doom it.

use std::marker::PhantomData;
use std::ops::Deref;

use crate::abi::{TX_KEEP_ANSWERS, TX_KEEP_SUCCESSES};
use crate::db::call::{self as conn_call, Step};
use crate::db::{Connection, Pool, QueryError, Transaction, TransactionOptions, tx_call};
use crate::request::Request;

/// Which endings of a handler keep what it did in a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Every answer, typed HTTP errors among them: a `redirect` after a form was stored, a `not_found` that
    /// has been counted.
    #[default]
    Answers,
    /// Only answers with a status below 400; a handler that answers with 4xx or 5xx is rolled back.
    Successes,
}

/// The transaction of a request on one pool. Offers the statements of a [`Connection`].
///
/// Made by [`Request::transaction`]. It belongs to the thread of its request, by its type:
///
/// ```compile_fail,E0277
/// fn sent<T: Send>() {}
/// sent::<plugin_api::db::RequestTransaction<'static>>();
/// ```
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<plugin_api::db::RequestTransaction<'static>>();
/// ```
#[derive(Debug)]
pub struct RequestTransaction<'r> {
    /// Its handle names the transaction, which takes statements as a connection does.
    conn: Connection,
    /// Of the request's thread.
    of: PhantomData<(&'r Request, *const ())>,
}

impl RequestTransaction<'_> {
    /// Begins a savepoint: a transaction inside this one, undone unless it is committed.
    ///
    /// # Errors
    ///
    /// When this transaction cannot begin or is spoilt.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, QueryError> {
        self.conn.transaction()
    }

    /// Decides that this request's transactions, all of them, are rolled back at its end, whatever the
    /// handler answers. The answer is sent all the same: a preview, a dry run.
    ///
    /// # Errors
    ///
    /// When the request has ended.
    pub fn doom(&self) -> Result<(), QueryError> {
        Ok(tx_call::doom()?)
    }
}

impl Deref for RequestTransaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}

impl Request {
    /// This request's transaction on a pool.
    ///
    /// It begins with its first statement, and there is one for each pool: asking twice is the same
    /// transaction. When the handler has returned the host ends it, *before* the client is answered:
    ///
    /// | the handler | the transaction |
    /// |---|---|
    /// | returns `Ok` | is committed |
    /// | returns an [`HttpError`](crate::HttpError), such as `redirect` or `not_found` | is committed |
    /// | returns any other error, panics, or passes its deadline; the client goes away | is rolled back |
    /// | called [`doom`](RequestTransaction::doom) | is rolled back |
    ///
    /// If the commit fails the client gets a 500, or a 503 with `Retry-After` if the same request may well
    /// succeed a moment later, and never the handler's answer. With [`Keep::Successes`], see
    /// [`transaction_keeping`](Request::transaction_keeping), answers of 4xx and 5xx are rolled back too.
    ///
    /// Transactions on several pools are committed in the order in which they began. The first failure
    /// rolls back the rest; what had been committed before stays. That is not a two-phase commit.
    ///
    /// A handler whose route says `idempotent` (see [`plugin!`](crate::plugin)) is run again, a few times,
    /// when the database says that the transaction collided with another one (SQLSTATE 40001, 40P01). What a
    /// transaction may do, and what it sees, is said with [`transaction_with`](Request::transaction_with).
    ///
    /// ```no_run
    /// use plugin_api::prelude::*;
    ///
    /// fn transfer(req: &Request, db: &db::Pool) -> Result<&'static str> {
    ///     let tx = req.transaction(db)?;
    ///     tx.execute("UPDATE account SET cents = cents - $1 WHERE id = $2", &[&500, &1])?;
    ///     tx.execute("UPDATE account SET cents = cents + $1 WHERE id = $2", &[&500, &2])?;
    ///     Ok("done\n")
    /// }
    /// ```
    ///
    /// # From other frameworks
    ///
    /// Both as whole plugins that run: `tests/fixtures/from_webpy` and `from_flask`.
    ///
    /// web.py's recipe is a processor that commits after the handler and on `web.HTTPError` (`raise
    /// web.seeother(..)`), and rolls back on any other exception. Here that is what happens anyway:
    ///
    /// ```no_run
    /// use plugin_api::prelude::*;
    ///
    /// fn rename(req: &Request, db: &db::Pool) -> Result<&'static str> {
    ///     let id: i64 = req.param("id")?;
    ///     let changed = req.transaction(db)?.execute("UPDATE page SET hits = hits + 1 WHERE id = $1", &[&id])?;
    ///     if changed == 0 {
    ///         // Committed: an answer like another.
    ///         return Err(HttpError::not_found("there is no such page").into());
    ///     }
    ///     Err(HttpError::redirect(&req.url("/")).into())
    /// }
    /// ```
    ///
    /// Flask with SQLAlchemy's `scoped_session` gives every function that runs for a request the same session
    /// without passing it on, and forgets it at the end. Here every function that has the request has it:
    ///
    /// ```no_run
    /// use plugin_api::prelude::*;
    ///
    /// static DB: registry::Lazy<db::Pool> =
    ///     registry::Lazy::new("db", || Ok(db::Pool::open("sqlite:shop.db")?));
    ///
    /// /// This request's session: the first call of a request makes it, every other finds it.
    /// fn session(req: &Request) -> Result<db::RequestTransaction<'_>> {
    ///     Ok(req.transaction(DB.get()?)?)
    /// }
    ///
    /// fn order(req: &Request) -> Result<&'static str> {
    ///     session(req)?.execute("INSERT INTO purchase (item) VALUES ($1)", &[&"tea"])?;
    ///     note(req, "ordered tea")?;
    ///     Ok("thank you\n")
    /// }
    ///
    /// fn note(req: &Request, words: &str) -> Result<()> {
    ///     session(req)?.execute("INSERT INTO note (words) VALUES ($1)", &[&words])?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// Outside of a request the same statements run in [`Pool::in_transaction`].
    ///
    /// # Errors
    ///
    /// On a route that must not block, and where the host is older than this call. A database that cannot
    /// be reached is an error of the first statement.
    pub fn transaction(&self, db: &Pool) -> Result<RequestTransaction<'_>, QueryError> {
        self.transaction_keeping(db, Keep::Answers)
    }

    /// As [`transaction`](Request::transaction), with a say in which endings keep it. If one request asks
    /// with both policies, the stricter one holds.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Request::transaction).
    pub fn transaction_keeping(&self, db: &Pool, keep: Keep) -> Result<RequestTransaction<'_>, QueryError> {
        self.joined(db, keep, TransactionOptions::new())
    }

    /// As [`transaction`](Request::transaction), with a say in how it begins. Of several calls in one request, all
    /// that say something have to say the same.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Request::transaction), and when the transaction begins, or has begun, in another way.
    pub fn transaction_with(
        &self,
        db: &Pool,
        options: TransactionOptions,
    ) -> Result<RequestTransaction<'_>, QueryError> {
        self.joined(db, Keep::Answers, options)
    }

    fn joined(
        &self,
        db: &Pool,
        keep: Keep,
        options: TransactionOptions,
    ) -> Result<RequestTransaction<'_>, QueryError> {
        let rule = match keep {
            Keep::Answers => TX_KEEP_ANSWERS,
            Keep::Successes => TX_KEEP_SUCCESSES,
        };
        let conn = Connection::new(tx_call::join(db.handle(), rule, options)?);
        Ok(RequestTransaction { conn, of: PhantomData })
    }
}

/// A transaction with a connection of its own. Rolls back when dropped without `commit`.
///
/// Made by [`Pool::transaction`]. Offers the statements of a [`Connection`].
#[derive(Debug)]
#[must_use = "a transaction that is dropped rolls back"]
pub struct PoolTransaction {
    /// Returned to the pool with the transaction open, it is rolled back there.
    conn: Connection,
}

impl PoolTransaction {
    /// Makes what was done lasting.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`].
    pub fn commit(self) -> Result<(), QueryError> {
        Ok(conn_call::step(self.conn.handle(), Step::Commit)?)
    }

    /// Undoes what was done.
    ///
    /// # Errors
    ///
    /// When the connection is broken; the database then rolls back by itself.
    pub fn rollback(self) -> Result<(), QueryError> {
        Ok(conn_call::step(self.conn.handle(), Step::Rollback)?)
    }

    /// Begins a savepoint: a transaction inside this one.
    ///
    /// # Errors
    ///
    /// When this transaction is spoilt or the connection broken.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, QueryError> {
        self.conn.transaction()
    }
}

impl Deref for PoolTransaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}

impl Pool {
    /// Begins a transaction on a connection of its own: for a task, a hook, a thread.
    ///
    /// # Errors
    ///
    /// As [`Pool::get`], and when the connection is broken.
    pub fn transaction(&self) -> Result<PoolTransaction, QueryError> {
        self.transaction_with(TransactionOptions::new())
    }

    /// As [`transaction`](Pool::transaction), with a say in how it begins.
    ///
    /// # Errors
    ///
    /// As `transaction`.
    pub fn transaction_with(&self, options: TransactionOptions) -> Result<PoolTransaction, QueryError> {
        let conn = self.get()?;
        conn_call::begin_with(conn.handle(), options)?;
        Ok(PoolTransaction { conn })
    }

    /// Runs `body` in a transaction: `Ok` commits, an error or a panic rolls back.
    ///
    /// What a handler does in its request's transaction, a function of a `&Connection` does in both:
    ///
    /// ```no_run
    /// use plugin_api::prelude::*;
    ///
    /// fn close_account(conn: &db::Connection, id: i64) -> Result<()> {
    ///     conn.execute("DELETE FROM account WHERE id = $1", &[&id])?;
    ///     Ok(())
    /// }
    ///
    /// fn handler(req: &Request, db: &db::Pool) -> Result<&'static str> {
    ///     close_account(&*req.transaction(db)?, 7)?;
    ///     Ok("closed\n")
    /// }
    ///
    /// fn nightly(db: &db::Pool) -> Result<()> {
    ///     db.in_transaction(|tx| close_account(tx, 7))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `body`, of [`Pool::transaction`] and of the commit.
    pub fn in_transaction<T, E: From<QueryError>>(
        &self,
        body: impl FnOnce(&mut PoolTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = self.transaction()?;
        let value = body(&mut tx)?;
        tx.commit()?;
        Ok(value)
    }
}
