//! A connection that is lent out.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Shared;
use super::state::Physical;
use crate::db::{Connection, QueryError, Streamed, Value, blocking};

/// A connection that is lent out. It returns to its pool when dropped, by a thread of its own where
/// the dropping one must not block.
///
/// One thread at a time: a second one that comes while a statement runs gets an error, not a wait.
pub struct Lease {
    shared: Arc<Shared>,
    serial: u64,
    /// Empty once the driver has panicked: nobody knows what state the connection was left in.
    pub(super) physical: Mutex<Option<Physical>>,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, physical: Physical) -> Lease {
        Lease { shared, serial: physical.serial, physical: Mutex::new(Some(physical)) }
    }

    /// Runs a statement and returns its rows as one block.
    ///
    /// # Errors
    ///
    /// When another thread is using the connection, or as [`Connection::query`].
    pub fn query(&self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        self.with(|conn| conn.query(sql, params))
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Lease::query).
    pub fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        self.with(|conn| conn.execute(sql, params))
    }

    /// Hands the rows of a statement to `each`, a block at a time.
    ///
    /// # Errors
    ///
    /// As [`Connection::query_each`].
    pub fn query_each(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.with(|conn| conn.query_each(sql, params, each))
    }

    /// Runs a `COPY ... FROM STDIN`.
    ///
    /// # Errors
    ///
    /// As [`Connection::copy_in`].
    pub fn copy_in(
        &self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.with(|conn| conn.copy_in(sql, source))
    }

    /// Runs a `COPY ... TO STDOUT`.
    ///
    /// # Errors
    ///
    /// As [`Connection::copy_out`].
    pub fn copy_out(
        &self,
        sql: &str,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.with(|conn| conn.copy_out(sql, sink))
    }

    /// Runs several statements without parameters.
    ///
    /// # Errors
    ///
    /// As [`query`](Lease::query).
    pub fn batch_execute(&self, sql: &str) -> Result<(), QueryError> {
        self.with(|conn| conn.batch_execute(sql))
    }

    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// As [`query`](Lease::query).
    pub fn begin(&self) -> Result<(), QueryError> {
        self.with(|conn| conn.begin())
    }

    /// Commits the innermost transaction or savepoint.
    ///
    /// # Errors
    ///
    /// As [`Connection::commit`].
    pub fn commit(&self) -> Result<(), QueryError> {
        self.with(|conn| conn.commit())
    }

    /// Rolls the innermost transaction or savepoint back.
    ///
    /// # Errors
    ///
    /// As [`Connection::rollback`].
    pub fn rollback(&self) -> Result<(), QueryError> {
        self.with(|conn| conn.rollback())
    }

    /// The database's own number of this connection.
    ///
    /// # Errors
    ///
    /// When another thread is using the connection.
    pub fn backend_id(&self) -> Result<Option<u64>, QueryError> {
        self.with(|conn| Ok(conn.backend_id()))
    }

    fn with<T>(
        &self,
        body: impl FnOnce(&mut dyn Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let mut place = self.physical.try_lock().ok_or(QueryError::Busy)?;
        // Out of its place while it is used, so a panic takes the connection along.
        let Some(mut physical) = place.take() else {
            let reason = "an earlier statement on it panicked".to_owned();
            return Err(QueryError::Lost { reason, sqlstate: String::new() });
        };
        let outcome = body(physical.conn.as_mut());
        *place = Some(physical);
        outcome
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.physical.get_mut().take() {
            Some(physical) => {
                let shared = self.shared.clone();
                blocking::run((shared, physical), |(shared, physical)| shared.checkin(physical));
            }
            None => self.shared.lost(self.serial),
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("address", &self.shared.driver.address())
            .field("serial", &self.serial)
            .finish()
    }
}
