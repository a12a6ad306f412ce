//! One connection to PostgreSQL: its statements, its transaction, its reset.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::cancel::Canceller;
use super::cells::Cells;
use super::copy;
use super::error::{is_broken, is_stale, query_error};
use super::params::{for_driver, params as convert};
use super::pooled;
use super::prepared::{self, Prepared, Statements};
use crate::db::interrupt::{Cancel, running};
use crate::db::label::{self, Label};
use crate::db::sql::{Dialect, Dirt, Effect, Session, effect};
use crate::db::{Connection, Outcome, QueryError, Reset, Streamed, TransactionOptions, Value};

/// Rows of a block that is handed over while more are coming.
const BLOCK_ROWS: u64 = 256;
/// Bytes of such a block, more or less.
const BLOCK_BYTES: usize = 256 << 10;

/// Fails in a spoilt transaction, in the same message as the `COMMIT` that follows and so before it.
/// Without it the server answers `COMMIT` with a rollback and no error.
const PROOF: &str = "SELECT 1; ";

/// Fails in a spoilt transaction too, and names the one that is about to be committed, if it wrote.
const NAME: &str = "SELECT txid_current_if_assigned()";

/// Who is at the other end: the backend, and the timeline on which it numbers transactions. A server
/// that was promoted in another's place has another timeline, and may use a number twice.
const IDENTITY: &str = "SELECT pg_backend_pid(), CASE WHEN pg_is_in_recovery() THEN '' \
                        ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END";

/// What `DISCARD ALL` does, except that it keeps prepared statements: the driver holds some of its own.
const RESET: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES";

/// An open connection.
pub(super) struct Open {
    client: Client,
    canceller: Arc<Canceller>,
    backend: Option<u64>,
    /// Empty where nothing can be written.
    timeline: String,
    session: Session,
    announces: bool,
    /// Whether a pooler gives each transaction another session.
    is_pooled: bool,
    /// On whose behalf the session works, as the server knows it.
    label: Option<Label>,
    /// Set by the first error that says so, read by the pool.
    is_broken: bool,
    statements: Statements,
}

impl Open {
    pub(super) fn new(
        mut client: Client,
        tls: MakeRustlsConnect,
        announces: bool,
        is_pooled: bool,
    ) -> Result<Open, postgres::Error> {
        let answer = client.simple_query(IDENTITY)?;
        let cell = |index| {
            answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(index),
                _ => None,
            })
        };
        let backend = cell(0).and_then(|pid| pid.parse().ok());
        let timeline = cell(1).unwrap_or_default().to_owned();
        let canceller = Arc::new(Canceller::new(client.cancel_token(), tls));
        Ok(Open {
            client,
            canceller,
            announces,
            is_pooled,
            label: None,
            backend,
            timeline,
            session: Session::default(),
            is_broken: false,
            statements: Statements::new(),
        })
    }

    /// Turns the driver's error into ours, and remembers a broken connection.
    fn failed(&mut self, error: &postgres::Error) -> QueryError {
        self.is_broken |= is_broken(error);
        query_error(error)
    }

    fn cancel(&self) -> Arc<dyn Cancel> {
        Arc::clone(&self.canceller) as Arc<dyn Cancel>
    }

    fn first_cell(&mut self, text: &str) -> Result<Option<String>, QueryError> {
        let answer = self.client.simple_query(text).map_err(|error| self.failed(&error))?;
        Ok(answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// The server's number of the open transaction, and its timeline; empty if it has written nothing.
    fn transaction_name(&mut self) -> Result<String, QueryError> {
        let number = self.first_cell(NAME)?;
        Ok(number.map_or_else(String::new, |number| format!("{number}@{}", self.timeline)))
    }

    fn batch(&mut self, text: &str) -> Result<(), QueryError> {
        self.client.batch_execute(text).map_err(|error| self.failed(&error))
    }

    /// Runs `body` with the prepared form of `sql`, prepared afresh if the kept one went stale.
    fn with_prepared<T>(
        &mut self,
        sql: &str,
        mut body: impl FnMut(&mut Open, &Prepared) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if let Some(prepared) = self.statements.find(sql) {
            self.session.admit(prepared.effect)?;
            match body(self, &prepared) {
                Err(error) if is_stale(&error) => {
                    self.statements.forget(sql);
                    if self.session.may_be_in_transaction() {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
        let prepared = self.prepare(sql)?;
        self.session.admit(prepared.effect)?;
        body(self, &prepared)
    }

    fn prepare(&mut self, sql: &str) -> Result<Arc<Prepared>, QueryError> {
        no_nul(sql)?;
        let prepared = prepared::parse(&mut self.client, sql).map_err(|error| self.failed(&error))?;
        Ok(self.statements.keep(sql, prepared))
    }

    /// Tells the server on whose behalf the next statement runs, if that has changed. In a transaction a
    /// setting would be undone with it, so it stays as it is.
    fn announce(&mut self) {
        if !self.announces || self.is_pooled || self.session.may_be_in_transaction() || self.is_broken {
            return;
        }
        let Some(label) = label::changed(self.label.as_ref()) else { return };
        let text = format!("SET application_name = '{}'", label.application_name());
        match self.client.batch_execute(&text) {
            Ok(()) => self.label = Some(label),
            // Whatever is wrong, the statement itself will meet it, and say so.
            Err(error) => tracing::debug!("cannot set application_name: {}", super::error::chain(&error)),
        }
    }

    fn each(
        &mut self,
        prepared: &Prepared,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let params = convert(prepared.statement.params(), params)?;
        let mut cells = Cells::new(&prepared.plan)?;
        let mut block = prepared.plan.block();
        let mut count = 0;
        // The driver takes from the socket what is asked for, no more: a server that is faster waits.
        let mut read = || {
            let mut rows = self.client.query_raw(&prepared.statement, params.iter())?;
            while let Some(row) = rows.next()? {
                if let Err(error) = cells.write(&row, &mut block) {
                    return Ok(Err(error));
                }
                count += 1;
                if block.rows() >= BLOCK_ROWS || block.size() >= BLOCK_BYTES {
                    let full = std::mem::replace(&mut block, prepared.plan.block());
                    if each(&full.finish()).is_break() {
                        return Ok(Ok(Streamed::Stopped));
                    }
                }
            }
            Ok(Ok(Streamed::All(count)))
        };
        let outcome: Result<Result<Streamed, QueryError>, postgres::Error> = read();
        let streamed = outcome.map_err(|error| self.failed(&error))??;
        if streamed != Streamed::Stopped && each(&block.finish()).is_break() {
            return Ok(Streamed::Stopped);
        }
        Ok(streamed)
    }

    /// Runs `body` behind a pooler, where nothing is prepared.
    fn pooled<T>(
        &mut self,
        sql: &str,
        body: impl FnOnce(&mut Client) -> Result<T, copy::Failure>,
    ) -> Result<T, QueryError> {
        self.admit(sql)?;
        body(&mut self.client).map_err(|failure| {
            self.is_broken |= failure.driver().is_some_and(is_broken);
            failure.into_query_error()
        })
    }

    /// Takes note of what a text is about to do to the session; behind a pooler, refuses what would stay.
    fn admit(&mut self, sql: &str) -> Result<(), QueryError> {
        no_nul(sql)?;
        let effect = effect(Dialect::Postgres, sql);
        if self.is_pooled {
            pooled::admit(sql, effect)?;
            return self.session.admit(Effect { dirt: Dirt::None, ..effect });
        }
        self.session.admit(effect)
    }

    /// Runs a COPY, which is no statement that could be prepared.
    fn copy(
        &mut self,
        sql: &str,
        body: impl FnOnce(&mut Client) -> Result<Streamed, copy::Failure>,
    ) -> Result<Streamed, QueryError> {
        if self.is_pooled {
            // The driver prepares it, and would find it missing in the next session.
            return Err(QueryError::NotOffered { what: "COPY through a pooler" });
        }
        self.admit(sql)?;
        body(&mut self.client).map_err(|failure| {
            self.is_broken |= failure.driver().is_some_and(is_broken);
            failure.into_query_error()
        })
    }

    fn rows(&mut self, prepared: &Prepared, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        let params = convert(prepared.statement.params(), params)?;
        let mut cells = Cells::new(&prepared.plan)?;
        let rows = self.client.query(&prepared.statement, &for_driver(&params));
        let rows = rows.map_err(|error| self.failed(&error))?;
        let mut block = prepared.plan.block_for(&rows);
        for row in rows {
            cells.write(&row, &mut block)?;
        }
        Ok(block.finish())
    }

    fn affected(&mut self, prepared: &Prepared, params: &[Value<'_>]) -> Result<u64, QueryError> {
        let params = convert(prepared.statement.params(), params)?;
        let affected = self.client.execute(&prepared.statement, &for_driver(&params));
        affected.map_err(|error| self.failed(&error))
    }
}

/// The protocol ends texts with a NUL byte, so the driver refuses one inside.
fn no_nul(sql: &str) -> Result<(), QueryError> {
    if !sql.contains('\0') {
        return Ok(());
    }
    Err(QueryError::database("the statement contains a NUL byte", "22021"))
}

impl Connection for Open {
    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        let cancel = self.cancel();
        self.announce();
        running(cancel, || {
            if self.is_pooled {
                return self.pooled(sql, |client| pooled::rows(client, sql, params));
            }
            self.with_prepared(sql, |open, prepared| open.rows(prepared, params))
        })
    }

    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let cancel = self.cancel();
        self.announce();
        running(cancel, || {
            if self.is_pooled {
                let block = self.pooled(sql, |client| pooled::rows(client, sql, params))?;
                return Ok(if each(&block).is_break() { Streamed::Stopped } else { Streamed::All(0) });
            }
            self.with_prepared(sql, |open, prepared| open.each(prepared, params, each))
        })
    }

    fn copy_in(
        &mut self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let cancel = self.cancel();
        self.announce();
        running(cancel, || self.copy(sql, |client| copy::copy_in(client, sql, source)))
    }

    fn copy_out(
        &mut self,
        sql: &str,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let cancel = self.cancel();
        self.announce();
        running(cancel, || self.copy(sql, |client| copy::copy_out(client, sql, sink)))
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        let cancel = self.cancel();
        self.announce();
        running(cancel, || {
            if self.is_pooled {
                return self.pooled(sql, |client| pooled::affected(client, sql, params));
            }
            self.with_prepared(sql, |open, prepared| open.affected(prepared, params))
        })
    }

    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError> {
        self.admit(sql)?;
        let cancel = self.cancel();
        self.announce();
        running(cancel, || self.batch(sql))
    }

    fn begin_with(&mut self, options: &TransactionOptions) -> Result<(), QueryError> {
        let text = self.session.begin_text(options, TransactionOptions::postgres_text)?;
        let cancel = self.cancel();
        self.announce();
        running(cancel, || self.batch(&text))?;
        self.session.depth += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        let level = self.session.leave()?;
        let mut name = None;
        let outcome = if level.is_outermost() && self.session.take_wrote() {
            // A message of its own, since its answer must be here before the commit is sent.
            self.transaction_name().and_then(|found| {
                name = Some(found);
                self.batch(&level.commit_text())
            })
        } else {
            let proof = if level.is_outermost() { PROOF } else { "" };
            self.batch(&(proof.to_owned() + &level.commit_text()))
        };
        let Err(error) = outcome else { return Ok(()) };
        if self.is_broken {
            return Err(match (name, error) {
                (Some(none), QueryError::Lost { reason, .. }) if none.is_empty() => {
                    QueryError::NotCommitted { reason }
                }
                (Some(transaction), QueryError::Lost { reason, .. }) => {
                    QueryError::OutcomeUnknown { reason, transaction }
                }
                (_, error) => error,
            });
        }
        // Over it must be, whichever part of the text failed.
        self.batch(&level.rollback_text())?;
        match &error {
            QueryError::Database { sqlstate, .. } if sqlstate == "25P02" => Err(QueryError::RolledBack),
            _ => Err(error),
        }
    }

    fn rollback(&mut self) -> Result<(), QueryError> {
        let level = self.session.leave()?;
        self.batch(&level.rollback_text())
    }

    fn has_broken(&self) -> bool {
        // A cancellation may arrive late, and would stop the next borrower's statement.
        self.is_broken || self.canceller.was_used() || self.client.is_closed()
    }

    fn is_valid(&mut self, timeout: Duration) -> bool {
        let answer = self.client.is_valid(timeout);
        self.is_broken |= answer.is_err();
        answer.is_ok()
    }

    fn reset(&mut self) -> Reset {
        let session = std::mem::take(&mut self.session);
        if session.dirt == Dirt::Connection {
            return Reset::Close;
        }
        if session.dirt != Dirt::None {
            // Reset with the other settings.
            self.label = None;
        }
        let is_open = session.may_be_in_transaction();
        let (outcome, done) = match (is_open, session.dirt) {
            (false, Dirt::None) => (Ok(()), Reset::Ready),
            (true, Dirt::None) => (self.batch("ROLLBACK"), Reset::Ready),
            (false, _) => (self.batch(RESET), Reset::Bare),
            (true, _) => (self.batch(&format!("ROLLBACK; {RESET}")), Reset::Bare),
        };
        if outcome.is_ok() { done } else { Reset::Close }
    }

    fn distrust(&mut self) {
        self.session.distrust();
    }

    fn settle(&mut self) {
        self.session = Session::default();
    }

    fn is_clean(&self) -> bool {
        self.session.is_clean()
    }

    fn outcome_of(&mut self, transaction: &str) -> Outcome {
        let Some((number, timeline)) = transaction.split_once('@') else { return Outcome::Unknown };
        if timeline.is_empty() || timeline != self.timeline || number.parse::<u64>().is_err() {
            return Outcome::Unknown;
        }
        let answer = self.first_cell(&format!("SELECT txid_status({number})")).unwrap_or_default();
        match answer.as_deref() {
            Some("committed") => Outcome::Committed,
            Some("aborted") => Outcome::RolledBack,
            _ => Outcome::Unknown,
        }
    }

    fn backend_id(&self) -> Option<u64> {
        self.backend
    }
}
