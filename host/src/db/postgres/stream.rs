//! Rows that are handed over as they come, and the end of a stream that its reader does not want to the end.
//!
//! # Invariants
//!
//! - A statement that only reads does not run on for a reader that has gone: what it would still send is read if
//!   that is little, else the statement is cancelled. One that changes something runs to its end.
//! - A cancellation spoils no transaction: the stream has a savepoint of its own there.
//! - Before anything else is sent the rest has been read. If that takes too long, the connection is broken.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use super::cells::Cells;
use super::client::{Client, CopyOut, Rows};
use super::connection::Open;
use crate::db::sql::Effect;
use crate::db::{QueryError, Streamed};

/// Rows of a block that is handed over while more are coming.
const BLOCK_ROWS: u64 = 256;
/// Bytes of such a block, more or less.
const BLOCK_BYTES: usize = 256 << 10;
/// How long rows may take to come before those that are there are handed over.
const LINGER: Duration = Duration::from_millis(2);
/// What a stream that was ended may send before it is cancelled: for so long, and so many bytes.
const LITTLE: (Duration, usize) = (Duration::from_millis(5), 64 << 10);
/// How long a cancelled statement may take to end.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long one that changes something may take to end, before the connection is closed.
const WORK_PATIENCE: Duration = Duration::from_secs(10);
/// How long a cancellation is waited for when its statement has ended without it.
const LATE: Duration = Duration::from_millis(250);

/// What is done with a stream when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Nothing is lost if it is cancelled.
    only_reads: bool,
    /// It has a savepoint.
    has_savepoint: bool,
}

/// A stream that its reader has ended, and that the server has not.
pub(super) struct Leftover {
    rest: Rest,
    mark: Mark,
    is_cancelled: bool,
}

/// What a stream may still send.
pub(super) enum Rest {
    Rows(Rows),
    Copy(CopyOut),
}

impl Rest {
    /// How many bytes come next, if they come within that time.
    fn next_within(
        &mut self,
        client: &mut Client,
        timeout: Duration,
    ) -> Option<Result<Option<usize>, Error>> {
        let size = |found: Option<usize>| Ok(found);
        match self {
            Rest::Rows(rows) => rows
                .next_within(client, timeout)
                .map(|next| next.and_then(|row| size(row.map(|row| row.raw_size_bytes())))),
            Rest::Copy(copy) => copy
                .next_within(client, timeout)
                .map(|next| next.and_then(|part| size(part.map(|part| part.len())))),
        }
    }

    /// Reads to the end. Nothing, if that is not reached in time or within so many bytes.
    fn end(&mut self, client: &mut Client, timeout: Duration, most: usize) -> Option<Result<(), Error>> {
        let deadline = Instant::now() + timeout;
        let mut bytes = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_within(client, left)? {
                Ok(None) => return Some(Ok(())),
                Err(error) => return Some(Err(error)),
                Ok(Some(more)) => bytes += more,
            }
            if bytes > most || left.is_zero() {
                return None;
            }
        }
    }
}

impl Open {
    /// Begins a stream.
    pub(super) fn mark_stream(&mut self, effect: Effect) -> Result<Mark, QueryError> {
        let only_reads = effect.only_reads();
        let has_savepoint = only_reads && self.session.may_be_in_transaction();
        if has_savepoint {
            self.batch("SAVEPOINT host_stream")?;
        }
        Ok(Mark { only_reads, has_savepoint })
    }

    /// Ends a stream that has come to its own end.
    pub(super) fn end_stream(&mut self, mark: Mark) -> Result<(), QueryError> {
        if mark.has_savepoint { self.batch("RELEASE SAVEPOINT host_stream") } else { Ok(()) }
    }

    /// Hands rows over, `first` before those that are still coming.
    pub(super) fn read(
        &mut self,
        mut rows: Rows,
        first: Option<Row>,
        cells: &mut Cells<'_>,
        mark: Mark,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let mut count = 0;
        let mut block = cells.block();
        let mut next = first;
        loop {
            let row = match next.take() {
                Some(row) => Ok(Some(row)),
                None => match rows.ready(&mut self.client) {
                    Some(row) => row,
                    None if block.rows() == 0 => rows.next(&mut self.client),
                    None => match rows.next_within(&mut self.client, LINGER) {
                        Some(row) => row,
                        None => {
                            let had = std::mem::replace(&mut block, cells.block());
                            if each(&had.finish()).is_break() {
                                return self.end_early(Rest::Rows(rows), mark).map(|()| Streamed::Stopped);
                            }
                            rows.next(&mut self.client)
                        }
                    },
                },
            };
            let row = match row.map_err(|error| self.failed(&error)) {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => return Err(handed_over(block, each, error)),
            };
            if let Err(error) = cells.write(&row, &mut block) {
                self.end_early(Rest::Rows(rows), mark)?;
                return Err(handed_over(block, each, error));
            }
            count += 1;
            if block.rows() >= BLOCK_ROWS || block.size() >= BLOCK_BYTES {
                let full = std::mem::replace(&mut block, cells.block());
                if each(&full.finish()).is_break() {
                    return self.end_early(Rest::Rows(rows), mark).map(|()| Streamed::Stopped);
                }
            }
        }
        self.end_stream(mark)?;
        Ok(if each(&block.finish()).is_break() { Streamed::Stopped } else { Streamed::All(count) })
    }

    /// Ends a stream whose reader wants no more.
    pub(super) fn end_early(&mut self, mut rest: Rest, mark: Mark) -> Result<(), QueryError> {
        match rest.end(&mut self.client, LITTLE.0, LITTLE.1) {
            Some(outcome) => {
                outcome.map_err(|error| self.failed(&error))?;
                self.end_stream(mark)
            }
            None => {
                if mark.only_reads {
                    self.canceller.send();
                }
                self.leftover = Some(Leftover { rest, mark, is_cancelled: mark.only_reads });
                Ok(())
            }
        }
    }

    /// Reads what a stream that was ended has still sent, so that the next answer is that of the next statement.
    ///
    /// # Errors
    ///
    /// When that takes too long, or the connection broke. It is of no more use then.
    pub(super) fn finish_leftover(&mut self) -> Result<(), QueryError> {
        let Some(Leftover { mut rest, mark, is_cancelled }) = self.leftover.take() else { return Ok(()) };
        let patience = if is_cancelled { END_PATIENCE } else { WORK_PATIENCE };
        let Some(outcome) = rest.end(&mut self.client, patience, usize::MAX) else {
            self.is_broken = true;
            let reason = "the rest of a stream that was ended early did not come to its end".to_owned();
            return Err(QueryError::Lost { reason, sqlstate: String::new() });
        };
        let was_cancelled =
            outcome.as_ref().is_err_and(|error| error.code() == Some(&SqlState::QUERY_CANCELED));
        if let Err(error) = &outcome
            && !was_cancelled
        {
            let error = self.failed(error);
            if self.is_broken {
                return Err(error);
            }
        }
        if is_cancelled && !was_cancelled {
            // It may yet come, and is not to stop the next statement.
            self.canceller.distrust();
            if mark.has_savepoint {
                let _ = self.client.batch_execute(&format!("SELECT pg_sleep({})", LATE.as_secs_f64()));
            }
        }
        match mark.has_savepoint {
            true => self.batch("ROLLBACK TO SAVEPOINT host_stream; RELEASE SAVEPOINT host_stream"),
            false => Ok(()),
        }
    }
}

/// Hands over the rows that came before an error; the error.
fn handed_over(
    block: plugin_api::db::rows::BlockWriter,
    each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    error: QueryError,
) -> QueryError {
    if block.rows() > 0 {
        // It hears of the error in any case.
        let _ = each(&block.finish());
    }
    error
}
