//! A pool of connections, as an author holds it: a counted handle to the host's pool.

use std::sync::Arc;
use std::time::Duration;

use crate::db::{
    Builder, CheckoutError, Connection, IdempotentPool, OpenError, OwnedRow, QueryError, Rows, ToValue, call,
    open,
};
use crate::host::Owned;
use crate::registry;

/// A pool of connections to one database.
///
/// The pool and its connections belong to the host: they outlive this plugin's code. Kept in the
/// registry, the pool is opened once and found again by every later generation. A clone is another
/// handle to the same pool.
///
/// ```no_run
/// use plugin_api::db;
///
/// fn visits() -> Result<i64, Box<dyn std::error::Error>> {
///     let pool = db::Pool::open("sqlite:visits.db")?;
///     pool.execute("INSERT INTO visit (at) VALUES ($1)", &[&"today"])?;
///     Ok(pool.query_one("SELECT count(*) FROM visit", &[])?.get(0)?)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    handle: Arc<Owned>,
}

impl Pool {
    /// Opens a pool with the host's defaults, and its first connection.
    ///
    /// `url` is `postgres://user:password@host/database` or `sqlite:PATH`. A relative path lies below
    /// the host's data directory; `sqlite::memory:` is a database in memory.
    ///
    /// # Errors
    ///
    /// When the URL is wrong or the database cannot be reached.
    pub fn open(url: &str) -> Result<Pool, OpenError> {
        Pool::builder(url).open()
    }

    /// Opens a pool with other settings than the host's defaults.
    ///
    /// ```no_run
    /// # use plugin_api::db;
    /// # use std::time::Duration;
    /// # fn f() -> Result<db::Pool, db::OpenError> {
    /// db::Pool::builder("postgres://localhost/shop")
    ///     .max_size(4)
    ///     .checkout_timeout(Duration::ZERO)
    ///     .open()
    /// # }
    /// ```
    pub fn builder(url: &str) -> Builder<'_, Pool> {
        Builder::new(url)
    }

    /// Lends a connection out, waiting for one as long as the pool's `checkout_timeout` allows.
    ///
    /// # Errors
    ///
    /// When all are lent out, the database cannot be reached, or the pool is closed.
    pub fn get(&self) -> Result<Connection, CheckoutError> {
        Ok(Connection::new(call::checkout(&self.handle, None)?))
    }

    /// As [`get`](Pool::get), waiting no longer than `timeout`; zero fails at once.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Connection, CheckoutError> {
        Ok(Connection::new(call::checkout(&self.handle, Some(timeout))?))
    }

    /// A share in a connection: several borrowers' statements follow each other on it, so a few
    /// connections serve many. Who begins a transaction has the connection alone until its end; what a
    /// statement leaves in the session is undone right after it. Where the pool shares nothing
    /// (`max_shared`), this is [`get`](Pool::get). DBUtils: `connection(shareable=True)`.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    pub fn get_shared(&self) -> Result<Connection, CheckoutError> {
        Ok(Connection::new(open::checkout_shared(&self.handle, None)?))
    }

    /// The shortcuts below for statements that may be sent again, when the connection breaks.
    pub fn idempotent(&self) -> IdempotentPool<'_> {
        IdempotentPool::new(self)
    }

    /// [`Connection::query`] on a connection borrowed for this one statement.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get) and [`Connection::query`].
    pub fn query(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Rows, QueryError> {
        self.get()?.query(sql, params)
    }

    /// [`Connection::query_one`] on a connection borrowed for this one statement.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get) and [`Connection::query_one`].
    pub fn query_one(&self, sql: &str, params: &[&dyn ToValue]) -> Result<OwnedRow, QueryError> {
        self.get()?.query_one(sql, params)
    }

    /// [`Connection::query_opt`] on a connection borrowed for this one statement.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get) and [`Connection::query_opt`].
    pub fn query_opt(&self, sql: &str, params: &[&dyn ToValue]) -> Result<Option<OwnedRow>, QueryError> {
        self.get()?.query_opt(sql, params)
    }

    /// [`Connection::execute`] on a connection borrowed for this one statement.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get) and [`Connection::execute`].
    pub fn execute(&self, sql: &str, params: &[&dyn ToValue]) -> Result<u64, QueryError> {
        self.get()?.execute(sql, params)
    }

    /// [`Connection::batch_execute`] on a connection borrowed for this one text.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get) and [`Connection::batch_execute`].
    pub fn batch_execute(&self, sql: &str) -> Result<(), QueryError> {
        self.get()?.batch_execute(sql)
    }

    pub(crate) fn handle(&self) -> &Owned {
        &self.handle
    }

    /// A pool that the host handed out, say from the registry.
    pub(crate) fn from_handle(handle: Owned) -> Pool {
        Pool { handle: Arc::new(handle) }
    }
}

registry::host_handle!(Pool);

impl registry::sealed::HostHandle for Pool {
    const TYPE_NAME: &'static str = "db::Pool";

    fn from_owned(handle: Owned) -> Pool {
        Pool::from_handle(handle)
    }

    fn into_owned(self) -> Result<Owned, String> {
        // With clones about, the registry gets a second handle to the same pool.
        Arc::try_unwrap(self.handle).or_else(|shared| shared.try_clone()).map_err(|error| error.to_string())
    }
}
