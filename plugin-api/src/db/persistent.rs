//! A connection for each thread.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::db::{Builder, CheckoutError, Connection, OpenError, QueryError, Transaction, call, open};
use crate::host::Owned;
use crate::registry;

/// Connections to one database, one for each thread that asks: the same thread always gets the same one,
/// and no other thread ever sees it. DBUtils: `PersistentDB`.
///
/// Nothing waits and nothing is returned, but there are as many connections as threads: the host's
/// workers, on which blocking handlers run. A connection is made at its thread's first
/// [`get`](Persistent::get), made again when it breaks, and closed when the thread ends. When the last
/// [`ThreadConnection`] of a thread is dropped, what was left open on it is undone.
///
/// Kept in the registry it outlives this plugin's code, as a pool does.
///
/// ```no_run
/// use plugin_api::prelude::*;
///
/// static DB: registry::Lazy<db::Persistent> =
///     registry::Lazy::new("db", || Ok(db::Persistent::open("postgres://localhost/shop")?));
///
/// fn count(_: &Request) -> Result<String> {
///     let row = DB.get()?.get()?.query_one("SELECT count(*) FROM entry", &[])?;
///     Ok(format!("{} entries", row.get::<i64>(0)?))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Persistent {
    handle: Arc<Owned>,
}

impl Persistent {
    /// Opens a set with the host's defaults, and this thread's connection. `url` is as
    /// [`Pool::open`](crate::db::Pool::open) takes it; a database in memory is refused, as it would be
    /// another one for each thread.
    ///
    /// # Errors
    ///
    /// When the URL is wrong or the database cannot be reached.
    pub fn open(url: &str) -> Result<Persistent, OpenError> {
        Persistent::builder(url).open()
    }

    /// Opens a set with other settings than the host's defaults.
    pub fn builder(url: &str) -> Builder<'_, Persistent> {
        Builder::new(url)
    }

    /// This thread's connection.
    ///
    /// # Errors
    ///
    /// When it has to be made and the database cannot be reached, or the set is closed.
    pub fn get(&self) -> Result<ThreadConnection, CheckoutError> {
        let conn = Connection::new(call::checkout(&self.handle, None)?);
        Ok(ThreadConnection { conn, one_thread: PhantomData })
    }

    pub(super) fn from_handle(handle: Owned) -> Persistent {
        Persistent { handle: Arc::new(handle) }
    }
}

registry::host_handle!(Persistent);

impl registry::sealed::HostHandle for Persistent {
    const TYPE_NAME: &'static str = "db::Persistent";

    fn from_owned(handle: Owned) -> Persistent {
        Persistent::from_handle(handle)
    }

    fn into_owned(self) -> Result<Owned, String> {
        // With clones about, the registry gets a second handle to the same set.
        Arc::try_unwrap(self.handle).or_else(|shared| shared.try_clone()).map_err(|error| error.to_string())
    }
}

/// The connection of the thread that asked for it. It stays there:
///
/// ```compile_fail,E0277
/// fn moved<T: Send>() {}
/// moved::<plugin_api::db::ThreadConnection>();
/// ```
///
/// It offers the statements of a [`Connection`].
#[derive(Debug)]
pub struct ThreadConnection {
    conn: Connection,
    /// Makes the type `!Send`.
    one_thread: PhantomData<*const ()>,
}

impl ThreadConnection {
    /// Begins a transaction, as [`Connection::transaction`].
    ///
    /// # Errors
    ///
    /// When the database cannot be reached.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, QueryError> {
        self.conn.transaction()
    }

    /// Closes this thread's connection; its next use makes another one. With `closeable(false)` only its
    /// transaction ends.
    ///
    /// # Errors
    ///
    /// None that an author can cause.
    pub fn close(&self) -> Result<(), QueryError> {
        Ok(open::close(self.conn.handle())?)
    }
}

impl Deref for ThreadConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}
