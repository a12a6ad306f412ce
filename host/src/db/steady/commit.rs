//! Transactions on a steady connection, and what became of one whose commit was not answered.
//!
//! # Invariants
//!
//! - Whatever the outcome, the level is over.
//! - `Ok` from a commit means that the database said so, on this connection or, asked about the
//!   transaction by its name, on the next one.

use std::time::{Duration, Instant};

use super::{How, Steady};
use crate::db::{Outcome, Ping, QueryError, TransactionOptions};

/// How long to ask what became of a transaction. The server's end of the broken connection may need
/// a moment to notice.
const RESOLVE_FOR: Duration = Duration::from_millis(250);
/// Between two questions.
const RESOLVE_EVERY: Duration = Duration::from_millis(10);

impl Steady {
    /// Begins a transaction, or a savepoint inside one.
    ///
    /// # Errors
    ///
    /// When the database refuses or cannot be reached; nothing has begun then.
    pub fn begin(&mut self) -> Result<(), QueryError> {
        self.begin_with(&TransactionOptions::default())
    }

    /// As [`begin`](Steady::begin), with a say in how.
    ///
    /// # Errors
    ///
    /// As `begin`, and inside a transaction, unless nothing is said.
    pub fn begin_with(&mut self, options: &TransactionOptions) -> Result<(), QueryError> {
        // Nothing is lost with a connection that breaks before anything has begun.
        let how = How { is_idempotent: true, failover: true };
        self.run(Ping::STATEMENT, how, "BEGIN", |conn| conn.begin_with(options))?;
        self.levels += 1;
        Ok(())
    }

    /// Commits the innermost transaction or savepoint. Whatever the outcome, it is over.
    ///
    /// # Errors
    ///
    /// When it is not lasting, or nobody knows: [`QueryError::OutcomeUnknown`].
    pub fn commit(&mut self) -> Result<(), QueryError> {
        let is_outermost = self.levels == 1;
        let outcome = self.end("COMMIT", |steady| steady.run_inside("COMMIT", |conn| conn.commit()));
        match outcome {
            Err(QueryError::OutcomeUnknown { reason, transaction }) if is_outermost => {
                self.resolve(reason, transaction)
            }
            outcome => outcome,
        }
    }

    /// Rolls the innermost transaction or savepoint back. Whatever the outcome, it is over.
    ///
    /// # Errors
    ///
    /// When the connection breaks meanwhile; the database then rolls back by itself.
    pub fn rollback(&mut self) -> Result<(), QueryError> {
        self.end("ROLLBACK", |steady| {
            if steady.is_over {
                // The database has done it already.
                return Ok(());
            }
            steady.run_inside("ROLLBACK", |conn| conn.rollback())
        })
    }

    /// Ends a level.
    fn end(
        &mut self,
        step: &'static str,
        body: impl FnOnce(&mut Steady) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        if self.levels == 0 {
            tracing::debug!("{step} without a transaction");
            return Err(QueryError::NoTransaction);
        }
        let outcome = body(self);
        self.levels -= 1;
        self.is_over &= self.levels > 0;
        outcome
    }

    /// Asks what became of a transaction, on a new connection.
    fn resolve(&mut self, reason: String, transaction: String) -> Result<(), QueryError> {
        let begun = Instant::now();
        while !transaction.is_empty() && begun.elapsed() < RESOLVE_FOR {
            if self.made.is_none() {
                let Ok(made) = self.source.connect() else { break };
                self.source.reopened();
                self.made = Some(made);
            }
            let Some(made) = self.made.as_mut() else { break };
            match made.conn.as_mut().outcome_of(&transaction) {
                Outcome::Committed => return Ok(()),
                Outcome::RolledBack => return Err(QueryError::NotCommitted { reason }),
                Outcome::Unknown if made.conn.as_ref().has_broken() => self.made = None,
                Outcome::Unknown => std::thread::sleep(RESOLVE_EVERY),
            }
        }
        Err(QueryError::OutcomeUnknown { reason, transaction })
    }
}
