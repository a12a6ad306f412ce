//! COPY: rows in and out as the server's own text or binary, in parts of any size.

use std::io::{BufRead as _, Write as _};
use std::ops::ControlFlow;

use postgres::Client;

use super::error::query_error;
use crate::db::{QueryError, Streamed};

/// A failure that the driver has wrapped for `std::io`.
pub(super) enum Failure {
    Driver(postgres::Error),
    Ours(QueryError),
}

impl Failure {
    pub(super) fn driver(&self) -> Option<&postgres::Error> {
        match self {
            Failure::Driver(error) => Some(error),
            Failure::Ours(_) => None,
        }
    }

    pub(super) fn into_query_error(self) -> QueryError {
        match self {
            Failure::Driver(error) => query_error(&error),
            Failure::Ours(error) => error,
        }
    }
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Failure {
        Failure::Driver(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.downcast::<postgres::Error>() {
            Ok(error) => Failure::Driver(error),
            Err(error) => {
                Failure::Ours(QueryError::Lost { reason: error.to_string(), sqlstate: String::new() })
            }
        }
    }
}

/// Sends what `source` writes into the buffer, until it writes nothing or breaks off.
pub(super) fn copy_in(
    client: &mut Client,
    sql: &str,
    source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
) -> Result<Streamed, Failure> {
    let mut writer = client.copy_in(sql)?;
    let mut part = Vec::new();
    loop {
        part.clear();
        if source(&mut part).is_break() {
            // Dropped unfinished, the writer tells the server to forget it all.
            return Ok(Streamed::Stopped);
        }
        if part.is_empty() {
            return Ok(Streamed::All(writer.finish()?));
        }
        writer.write_all(&part)?;
    }
}

/// Hands what the server sends to `sink`, until that breaks off.
pub(super) fn copy_out(
    client: &mut Client,
    sql: &str,
    sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<Streamed, Failure> {
    let mut reader = client.copy_out(sql)?;
    let mut bytes = 0;
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            return Ok(Streamed::All(bytes));
        }
        let len = part.len();
        bytes += len as u64;
        if sink(part).is_break() {
            return Ok(Streamed::Stopped);
        }
        reader.consume(len);
    }
}
