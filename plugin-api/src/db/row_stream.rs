//! The rows of a result one by one, asked for by who reads them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::db::rows::Block;
use crate::db::{Connection, OwnedRow, QueryError, ToValue, stream_call};
use crate::host::Owned;

/// Iterates over the rows of a statement, of which only a few hundred are held at a time.
///
/// Made by [`Connection::stream`]. Dropping it ends the statement: the rest of the result passes by.
pub struct RowStream<'c> {
    rows: Owned,
    block: Option<Arc<Block>>,
    /// In the block.
    next: usize,
    is_over: bool,
    /// The connection takes no other statement meanwhile, and stays on its thread.
    of: PhantomData<(&'c Connection, *const ())>,
}

impl Connection {
    /// Runs a statement and iterates over its rows as they come.
    ///
    /// Neither the host nor this plugin ever holds more than a few hundred of them, however many there are.
    /// While the stream lives, the connection takes no other statement: check out a second one for that. Where
    /// a function for each row will do, [`query_each`](Connection::query_each) costs a little less; it is also
    /// the way on a connection of [`Persistent`](crate::db::Persistent), which cannot be read on another thread
    /// of the host's.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// # fn f(conn: &db::Connection) -> Result<()> {
    /// let mut total = 0;
    /// for row in conn.stream("SELECT cents FROM entry WHERE year = $1", &[&2026])?.take(1_000_000) {
    ///     total += row?.get::<i64>(0)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When a parameter does not fit or the connection cannot be used. What the database says of the statement
    /// is said by the iterator, maybe after some rows.
    pub fn stream(&self, sql: &str, params: &[&dyn ToValue]) -> Result<RowStream<'_>, QueryError> {
        let rows = stream_call::rows_open(self.handle(), sql, params)?;
        Ok(RowStream { rows, block: None, next: 0, is_over: false, of: PhantomData })
    }
}

impl Iterator for RowStream<'_> {
    type Item = Result<OwnedRow, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            if let Some(block) = &self.block
                && self.next < block.rows()
            {
                self.next += 1;
                return Some(Ok(OwnedRow::new(Arc::clone(block), self.next - 1)));
            }
            match stream_call::rows_next(&self.rows) {
                Ok(Some(block)) => (self.block, self.next) = (Some(Arc::new(block)), 0),
                Ok(None) => self.is_over = true,
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl std::iter::FusedIterator for RowStream<'_> {}

impl fmt::Debug for RowStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
