//! A connection of one's own that comes back when it breaks.

use std::ops::{Deref, DerefMut};

use crate::db::{Builder, Connection, OpenError, QueryError, open};
use crate::host::Owned;

/// A connection to a database that is nobody else's, made again when it breaks. DBUtils: `SteadyDB`.
///
/// Made again outside a transaction only, and only where nothing was left in its session that its user
/// may count on; a statement that failed is sent again only if it was called
/// [idempotent](Connection::idempotent). For a thread that works on its own, say one that copies from one
/// database to another. Request handlers want a [`Pool`](crate::db::Pool).
///
/// It offers what a [`Connection`] does. Dropping it closes it.
///
/// ```no_run
/// # use plugin_api::db;
/// # fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let conn = db::Steady::builder("postgres://localhost/shop").max_uses(10_000).open()?;
/// conn.execute("DELETE FROM cart WHERE seen < now() - interval '1 day'", &[])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Steady {
    conn: Connection,
}

impl Steady {
    /// Opens a connection with the host's defaults. `url` is as [`Pool::open`](crate::db::Pool::open) takes it.
    ///
    /// # Errors
    ///
    /// When the URL is wrong or the database cannot be reached.
    pub fn open(url: &str) -> Result<Steady, OpenError> {
        Steady::builder(url).open()
    }

    /// Opens a connection with other settings than the host's defaults.
    pub fn builder(url: &str) -> Builder<'_, Steady> {
        Builder::new(url)
    }

    /// Closes the connection; the next use makes another one. With `closeable(false)` only its
    /// transaction ends. Harmless to repeat.
    ///
    /// # Errors
    ///
    /// When another thread is using the connection.
    pub fn close(&self) -> Result<(), QueryError> {
        Ok(open::close(self.conn.handle())?)
    }

    pub(super) fn from_handle(handle: Owned) -> Steady {
        Steady { conn: Connection::new(handle) }
    }
}

impl Deref for Steady {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}

impl DerefMut for Steady {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.conn
    }
}
