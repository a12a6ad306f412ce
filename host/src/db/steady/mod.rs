//! A connection that comes back: made again when it breaks, where nothing can be lost.
//!
//! Owns when a connection is checked, replaced and given up, and what a transaction on it may still
//! do then. A pool has one of these in each of its slots.
//!
//! # Invariants
//!
//! - A connection is replaced unseen only outside a transaction, and only if nothing was left in its
//!   session that its user may count on.
//! - A statement is sent a second time only if its caller called it idempotent, or it is a `BEGIN`.
//! - A transaction whose connection broke is over: nothing of it runs on another connection, up to
//!   and including its commit, which is an error.

mod commit;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::clock::Moment;
use super::source::{Made, Source};
use super::{
    ConnectError, Connection, Driver, OpenError, Ping, QueryError, SteadyConfig, Streamed, Value, sql,
};

/// What a caller says of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Running it twice does what running it once does, so it may be sent again.
    pub is_idempotent: bool,
    /// Nothing is replaced or sent again for it. DBUtils: `no_failover`.
    pub failover: bool,
}

impl Default for How {
    fn default() -> How {
        How { is_idempotent: false, failover: true }
    }
}

/// One connection to a database, made at once and made again when it breaks. DBUtils: `SteadyDB`.
pub struct Steady {
    source: Arc<Source>,
    made: Option<Made>,
    /// 0: no transaction; 1: a transaction; more: savepoints in it.
    levels: u32,
    /// The connection of the transaction broke.
    is_over: bool,
    /// Nested scopes without failover.
    no_failover: u32,
}

impl Steady {
    /// Opens a connection to the database of a URL (see [`driver`](super::driver)).
    ///
    /// # Errors
    ///
    /// When the URL or a setting is wrong or the database cannot be reached.
    pub fn open(url: &str, data_dir: &Path, config: SteadyConfig) -> Result<Steady, OpenError> {
        Steady::with_driver(super::driver(url, data_dir)?, config)
    }

    /// Opens a connection by a driver.
    ///
    /// # Errors
    ///
    /// When a setting is wrong or the database cannot be reached.
    pub fn with_driver(driver: Box<dyn Driver>, config: SteadyConfig) -> Result<Steady, OpenError> {
        config.check()?;
        let mut steady = Steady::closed(Source::new(driver, config, None));
        steady.made = Some(steady.source.connect()?);
        Ok(steady)
    }

    /// One that connects at its first use.
    pub(super) fn closed(source: Arc<Source>) -> Steady {
        Steady { source, made: None, levels: 0, is_over: false, no_failover: 0 }
    }

    /// One on a connection that exists.
    pub(super) fn on(source: Arc<Source>, made: Made) -> Steady {
        Steady { made: Some(made), ..Steady::closed(source) }
    }

    /// Runs a statement and returns its rows as one block.
    ///
    /// # Errors
    ///
    /// As [`Connection::query`]; when the connection broke and could not or must not be replaced; when
    /// the transaction is over.
    pub fn query(&mut self, how: How, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        not_blank(sql)?;
        self.run(Ping::QUERY, how, sql, |conn| conn.query(sql, params))
    }

    /// Runs a statement and returns the number of rows it changed.
    ///
    /// # Errors
    ///
    /// As [`query`](Steady::query).
    pub fn execute(&mut self, how: How, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        not_blank(sql)?;
        self.run(Ping::STATEMENT, how, sql, |conn| conn.execute(sql, params))
    }

    /// Runs several statements without parameters.
    ///
    /// # Errors
    ///
    /// As [`query`](Steady::query).
    pub fn batch_execute(&mut self, how: How, sql: &str) -> Result<(), QueryError> {
        self.run(Ping::STATEMENT, how, sql, |conn| conn.batch_execute(sql))
    }

    /// Hands the rows of a statement to `each`, a block at a time. Never sent again: `each` may have seen
    /// some of them.
    ///
    /// # Errors
    ///
    /// As [`query`](Steady::query), maybe after some blocks.
    pub fn query_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        not_blank(sql)?;
        self.run(Ping::QUERY, How::default(), sql, |conn| conn.query_each(sql, params, each))
    }

    /// Runs a `COPY ... FROM STDIN`. Never sent again: what was read is gone.
    ///
    /// # Errors
    ///
    /// As [`query`](Steady::query).
    pub fn copy_in(
        &mut self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.run(Ping::STATEMENT, How::default(), sql, |conn| conn.copy_in(sql, source))
    }

    /// Runs a `COPY ... TO STDOUT`. Never sent again: `sink` may have seen some of it.
    ///
    /// # Errors
    ///
    /// As [`query`](Steady::query).
    pub fn copy_out(
        &mut self,
        sql: &str,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.run(Ping::QUERY, How::default(), sql, |conn| conn.copy_out(sql, sink))
    }

    /// Runs `body`, in which nothing is replaced and sent again. Nests.
    pub fn no_failover<T>(&mut self, body: impl FnOnce(&mut Steady) -> T) -> T {
        self.no_failover += 1;
        let result = body(self);
        self.no_failover -= 1;
        result
    }

    /// Runs `body` in a transaction (a savepoint inside one): commits if it returns `Ok`, else rolls back.
    ///
    /// # Errors
    ///
    /// The body's, or the commit's.
    pub fn scope<T, E: From<QueryError>>(
        &mut self,
        body: impl FnOnce(&mut Steady) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        match body(self) {
            Ok(value) => {
                self.commit()?;
                Ok(value)
            }
            Err(error) => {
                if let Err(second) = self.rollback() {
                    tracing::debug!("rollback after an error: {second}");
                }
                Err(error)
            }
        }
    }

    /// The connection itself, if there is one. What is done to it is neither counted nor guarded: the
    /// next use of the steady connection sees only whether it broke.
    pub fn raw(&mut self) -> Option<&mut dyn Connection> {
        self.made.as_mut().map(|made| made.conn.as_mut())
    }

    /// Closes the connection, if it is `closeable`; else only its transaction ends. The next use makes
    /// a new one. Harmless to repeat.
    pub fn close(&mut self) {
        if self.source.config.closeable {
            self.made = None;
            (self.levels, self.is_over) = (0, false);
        } else {
            self.reset();
        }
    }

    /// The database's own number of the connection.
    pub fn backend_id(&self) -> Option<u64> {
        self.made.as_ref().and_then(|made| made.conn.as_ref().backend_id())
    }

    /// Statements that the connection has run since it was made.
    pub fn uses(&self) -> u64 {
        self.made.as_ref().map_or(0, |made| made.uses)
    }

    /// Whether a transaction is open or was lost and has not been ended.
    pub fn is_in_transaction(&self) -> bool {
        self.levels > 0
    }

    pub(super) fn made(&mut self) -> Option<&mut Made> {
        self.made.as_mut()
    }

    /// Whether the next borrower might see something of this one.
    pub(super) fn needs_reset(&self) -> bool {
        self.made.as_ref().is_some_and(|made| made.conn.as_ref().needs_reset())
    }

    /// Whether a reset takes its time.
    pub(super) fn is_lagging(&self) -> bool {
        self.made.as_ref().is_some_and(|made| made.conn.as_ref().is_lagging())
    }

    /// Undoes what its user left behind; a connection on which that fails is closed.
    pub(super) fn reset(&mut self) {
        (self.levels, self.is_over) = (0, false);
        if self.made.as_mut().is_some_and(|made| !made.reset()) {
            self.made = None;
        }
    }

    /// Sees to it that there is a connection which is good for a new borrower.
    pub(super) fn check_out(&mut self) -> Result<(), ConnectError> {
        while self.levels == 0 {
            match self.ready(Ping::CHECKOUT, true) {
                Err(QueryError::Reconnect(error)) => return Err(*error),
                // What was lost with the old one was an earlier borrower's; there is none now.
                Err(_) => {}
                Ok(_) => break,
            }
        }
        Ok(())
    }

    /// Runs `body` on a connection that is good for it.
    fn run<T>(
        &mut self,
        occasion: Ping,
        how: How,
        sql: &str,
        mut body: impl FnMut(&mut dyn Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.levels > 0 {
            return self.run_inside(sql, body);
        }
        let may_replace = how.failover && self.source.config.failover && self.no_failover == 0;
        let was_clean = self.ready(occasion, may_replace)?.conn.as_ref().is_clean();
        match self.attempt(sql, &mut body) {
            Err(error) if self.source.is_fatal(&error) => {
                self.lose(&error);
                if !(how.is_idempotent && may_replace && was_clean) {
                    return Err(error);
                }
                // Not a `?`: what the caller should know is why the statement failed.
                let Ok(made) = self.source.connect() else { return Err(error) };
                self.source.reopened();
                self.made = Some(made);
                self.attempt(sql, &mut body).inspect_err(|again| {
                    if self.source.is_fatal(again) {
                        self.lose(again);
                    }
                })
            }
            outcome => outcome,
        }
    }

    /// Runs `body` inside the open transaction, on its connection or not at all.
    fn run_inside<T>(
        &mut self,
        sql: &str,
        mut body: impl FnMut(&mut dyn Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.is_over {
            return Err(QueryError::TransactionLost);
        }
        self.attempt(sql, &mut body).inspect_err(|error| {
            if self.source.is_fatal(error) {
                self.lose(error);
                self.is_over = true;
            }
        })
    }

    /// Runs `body` on the connection as it is.
    fn attempt<T>(
        &mut self,
        sql: &str,
        body: &mut impl FnMut(&mut dyn Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let made = self.made.as_mut().ok_or(QueryError::SessionLost)?;
        let begun = Moment::precise();
        let outcome = body(made.conn.as_mut());
        let ended = Moment::precise();
        made.uses += 1;
        self.source.slowest.note(sql, ended.since(begun));
        if outcome.is_ok() {
            made.worked(ended);
        }
        outcome
    }

    /// Sees to it that there is a connection which is good for a statement, outside a transaction.
    fn ready(&mut self, occasion: Ping, may_replace: bool) -> Result<&mut Made, QueryError> {
        let is_first = self.made.is_none();
        if let Some(made) = &mut self.made {
            let is_clean = made.conn.as_ref().is_clean();
            if made.conn.as_ref().has_broken() {
                self.made = None;
                if !is_clean {
                    return Err(QueryError::SessionLost);
                }
                if !may_replace {
                    let reason = "it broke while nobody used it".to_owned();
                    return Err(QueryError::Lost { reason, sqlstate: String::new() });
                }
            } else if is_clean && made.is_worn() {
                // The old one serves on until there is a new one.
                if let Ok(fresh) = self.source.connect() {
                    self.made = Some(fresh);
                }
            } else if is_clean && self.is_ping_due(occasion) && !self.ping() {
                self.made = None;
            }
        }
        if self.made.is_none() {
            let fresh = self.source.connect()?;
            if !is_first {
                self.source.reopened();
            }
            self.made = Some(fresh);
        }
        self.made.as_mut().ok_or(QueryError::SessionLost)
    }

    fn is_ping_due(&self, occasion: Ping) -> bool {
        let config = &self.source.config;
        config.ping.contains(occasion)
            && self
                .made
                .as_ref()
                .is_some_and(|made| config.ping_after.is_zero() || made.seen.elapsed() >= config.ping_after)
    }

    fn ping(&mut self) -> bool {
        self.made.as_mut().is_some_and(Made::ping)
    }

    /// Gives the connection up. The next use makes another one.
    fn lose(&mut self, error: &QueryError) {
        // In this order: a connection of a server that went away is closed without waiting for it.
        self.source.lost(error);
        self.made = None;
    }
}

/// Refuses a text without a statement, which a database would pass over or have other words for.
fn not_blank(sql: &str) -> Result<(), QueryError> {
    if sql::is_blank(sql) { Err(QueryError::Blank) } else { Ok(()) }
}

impl std::fmt::Debug for Steady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steady")
            .field("address", &self.source.driver.address())
            .field("is_connected", &self.made.is_some())
            .field("levels", &self.levels)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
