//! Results and loads that are larger than memory should hold: rows one by one, COPY in and out.

use std::io::{Read, Write};

use crate::db::rows::Block;
use crate::db::{Connection, QueryError, Row, ToValue, stream_call};
use std::fmt;

/// How much of a reader is sent at a time.
const PART: usize = 64 << 10;

impl Connection {
    /// Runs a statement and gives its rows to `each`, one after the other, as they come.
    ///
    /// Neither the host nor this plugin ever holds more than a few hundred of them, however many there
    /// are. An error of `each` ends the stream and is returned; the connection goes on working, after the
    /// rest of the result has passed by. While the stream runs, the connection takes no other statement.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// # fn f(conn: &db::Connection) -> Result<()> {
    /// let mut total = 0;
    /// conn.query_each("SELECT cents FROM entry WHERE year = $1", &[&2026], |row| -> Result<()> {
    ///     total += row.get::<i64>(0)?;
    ///     Ok(())
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Connection::query), maybe after some rows; and the error of `each`.
    pub fn query_each<E: From<QueryError>>(
        &self,
        sql: &str,
        params: &[&dyn ToValue],
        mut each: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        stream_call::query_each(self.handle(), sql, params, |part: &[u8]| {
            let block = Block::parse(part.to_vec())
                .map_err(|error| QueryError::Host { message: error.to_string() })?;
            Row::all_of(&block).try_for_each(&mut each)
        })
    }

    /// Runs a `COPY ... FROM STDIN` with what `from` gives, and returns how many rows it stored: the fastest
    /// way in. PostgreSQL only. If `from` fails, nothing is stored.
    ///
    /// ```no_run
    /// # use plugin_api::db;
    /// # fn f(conn: &db::Connection) -> Result<(), db::CopyError> {
    /// let lines = "1\tapples\n2\tpears\n";
    /// conn.copy_in("COPY fruit (id, name) FROM STDIN", lines.as_bytes())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When the database refuses, or `from` fails.
    pub fn copy_in(&self, sql: &str, mut from: impl Read) -> Result<u64, CopyError> {
        let mut buffer = vec![0; PART];
        stream_call::copy_in(self.handle(), sql, |give: &mut dyn FnMut(&[u8])| {
            loop {
                match from.read(&mut buffer) {
                    Ok(len) => {
                        give(&buffer[..len]);
                        return Ok(());
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(CopyError::Io(error)),
                }
            }
        })
    }

    /// Runs a `COPY ... TO STDOUT` and writes what comes to `to`. PostgreSQL only.
    ///
    /// # Errors
    ///
    /// When the database refuses, maybe after a part of it; or `to` fails.
    pub fn copy_out(&self, sql: &str, mut to: impl Write) -> Result<(), CopyError> {
        stream_call::copy_out(self.handle(), sql, |part: &[u8]| to.write_all(part).map_err(CopyError::Io))
    }
}

/// Why a COPY failed. A copy into the database has stored nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum CopyError {
    /// The database, or the way to it.
    Query(QueryError),
    /// The reader or writer that was passed.
    Io(std::io::Error),
}

impl From<QueryError> for CopyError {
    fn from(error: QueryError) -> CopyError {
        CopyError::Query(error)
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CopyError::Query(_) => "the database ended the copy",
            CopyError::Io(_) => "the other end of the copy failed",
        })
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CopyError::Query(error) => Some(error),
            CopyError::Io(error) => Some(error),
        }
    }
}
