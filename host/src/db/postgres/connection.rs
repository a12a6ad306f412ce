//! One connection to PostgreSQL: its statements, its transaction, its reset.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::cancel::Canceller;
use super::cells::{Cells, Plan};
use super::client::Client;
use super::copy;
use super::error::{Fit, fit, is_broken, own_fit, query_error};
use super::params::{as_text, check, for_driver, params as convert};
use super::pooled;
use super::prepared::{self, Prepared, Statements};
use super::stream::{Leftover, Rest};
use crate::db::interrupt::{Cancel, running};
use crate::db::label::{self, Label};
use crate::db::sql::{Dialect, Dirt, Effect, Session, effect};
use crate::db::{Access, Connection, Outcome, QueryError, Reset, Streamed, TransactionOptions, Value};

/// Fails in a spoilt transaction, in the same message as the `COMMIT` that follows and so before it.
/// Without it the server answers `COMMIT` with a rollback and no error.
const PROOF: &str = "SELECT 1; ";

/// Fails in a spoilt transaction too, and names the one that is about to be committed, if it wrote.
const NAME: &str = "SELECT txid_current_if_assigned()";

/// Who is at the other end: the backend, and the timeline on which it numbers transactions. A server
/// that was promoted in another's place has another timeline, and may use a number twice.
const IDENTITY: &str = "SELECT pg_backend_pid(), CASE WHEN pg_is_in_recovery() THEN '' \
                        ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END";

/// What `DISCARD ALL` does, except that it keeps prepared statements and their plans: the driver holds some of its
/// own, and they are planned anew where a setting that they depend on has changed. Takes 40 us of the server's time.
const RESET: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// An open connection.
pub(super) struct Open {
    pub(super) client: Client,
    pub(super) canceller: Arc<Canceller>,
    backend: Option<u64>,
    /// Empty where nothing can be written.
    timeline: String,
    pub(super) session: Session,
    announces: bool,
    /// Whether a pooler gives each transaction another session.
    is_pooled: bool,
    /// Whether the address asks for a server that can be written.
    wants_writes: bool,
    /// What the last error told of the statement that was prepared earlier.
    fit: Fit,
    /// On whose behalf the session works, as the server knows it.
    label: Option<Label>,
    /// Set by the first error that says so, read by the pool.
    pub(super) is_broken: bool,
    statements: Statements,
    /// What a stream that its reader has ended may still send.
    pub(super) leftover: Option<Leftover>,
}

impl Open {
    pub(super) fn new(
        mut client: Client,
        tls: MakeRustlsConnect,
        announces: bool,
        is_pooled: bool,
        wants_writes: bool,
    ) -> Result<Open, Error> {
        let answer = client.simple_query(IDENTITY)?;
        let cell = |index| {
            answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(index),
                _ => None,
            })
        };
        if is_pooled {
            pooled::look_up_types(&mut client)?;
        }
        let backend = cell(0).and_then(|pid| pid.parse().ok());
        let timeline = cell(1).unwrap_or_default().to_owned();
        let canceller = Arc::new(Canceller::new(client.cancel_token(), tls));
        Ok(Open {
            client,
            canceller,
            announces,
            is_pooled,
            wants_writes,
            fit: Fit::Good,
            label: None,
            backend,
            timeline,
            session: Session::default(),
            is_broken: false,
            statements: Statements::new(),
            leftover: None,
        })
    }

    /// Turns the driver's error into ours, and remembers a broken connection.
    pub(super) fn failed(&mut self, error: &Error) -> QueryError {
        self.is_broken |= is_broken(error);
        self.fit = fit(error);
        // Nothing is prepared behind a pooler but the driver's look-up of a type that it does not know yet.
        self.is_broken |= self.is_pooled && self.fit == Fit::Gone;
        let is_other_role = error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
            && self.wants_writes
            && !self.session.is_read_only
            && self.session.dirt < Dirt::Session;
        if is_other_role {
            // The address asks for a server that can be written, and this one is none any more.
            self.is_broken = true;
            let sqlstate = SqlState::READ_ONLY_SQL_TRANSACTION.code().to_owned();
            return QueryError::Lost { reason: super::error::chain(error), sqlstate };
        }
        query_error(error)
    }

    /// Whether the server can be written, if the address asks for one that can.
    fn has_its_role(&mut self) -> bool {
        !self.wants_writes
            || self.session.may_be_in_transaction()
            || self.first_cell("SHOW transaction_read_only").is_ok_and(|cell| cell.as_deref() == Some("off"))
    }

    /// Makes the connection ready for a statement; what stops it.
    fn ready(&mut self) -> Result<Arc<dyn Cancel>, QueryError> {
        self.finish_leftover()?;
        self.announce();
        Ok(Arc::clone(&self.canceller) as Arc<dyn Cancel>)
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

    pub(super) fn batch(&mut self, text: &str) -> Result<(), QueryError> {
        self.client.batch_execute(text).map_err(|error| self.failed(&error))
    }

    /// Runs `body` with the prepared form of `sql`; if the kept one fits no more, with one that is prepared afresh.
    fn with_prepared<T>(
        &mut self,
        sql: &str,
        given: usize,
        mut body: impl FnMut(&mut Open, &Prepared) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if let Some(prepared) = self.statements.find(sql) {
            check(sql, prepared.effect.placeholders, given)?;
            self.session.admit(prepared.effect)?;
            self.fit = Fit::Good;
            return match body(self, &prepared) {
                Ok(done) => Ok(done),
                Err(error) => {
                    let fresh = self.renewed(sql, &prepared, error)?;
                    body(self, &fresh)
                }
            };
        }
        let prepared = self.prepare(sql, given)?;
        self.session.admit(prepared.effect)?;
        body(self, &prepared)
    }

    /// Prepares a statement again that has failed, if it did because tables or types have changed and running it
    /// again loses nothing.
    ///
    /// # Errors
    ///
    /// Else, the error that it failed with.
    fn renewed(&mut self, sql: &str, old: &Prepared, error: QueryError) -> Result<Arc<Prepared>, QueryError> {
        let own = own_fit(&error);
        let fit = if own == Fit::Good { self.fit } else { own };
        if fit == Fit::Good || self.is_broken || old.effect.may_commit {
            return Err(error);
        }
        self.statements.forget(sql);
        self.client.forget_types();
        let was_sent = own == Fit::Good;
        if was_sent && self.session.may_be_in_transaction() {
            let Some(text) = self.session.begin_again_text() else {
                return Err(match error {
                    QueryError::Database { message, sqlstate, .. } if fit == Fit::Gone => {
                        QueryError::Stale { message, sqlstate }
                    }
                    error => error,
                });
            };
            self.batch(&text)?;
        }
        let fresh = self.prepare(sql, 0)?;
        if fit == Fit::Gone || !fresh.has_types_of(old) {
            return Ok(fresh);
        }
        if was_sent && self.session.may_be_in_transaction() {
            // It has failed, and so has its transaction: there is no such savepoint.
            let _ = self.client.batch_execute("ROLLBACK TO SAVEPOINT host_none");
        }
        Err(error)
    }

    fn prepare(&mut self, sql: &str, given: usize) -> Result<Arc<Prepared>, QueryError> {
        no_nul(sql)?;
        check(sql, 0, given)?;
        let effect = effect(Dialect::Postgres, sql);
        if effect.copies {
            return Err(QueryError::CopyText);
        }
        check(sql, effect.placeholders, given)?;
        let prepared = prepared::parse(&mut self.client, sql, effect).map_err(|error| self.failed(&error))?;
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

    /// Hands the rows of a prepared statement over.
    fn each(
        &mut self,
        prepared: &Prepared,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let params = convert(prepared.statement.params(), params)?;
        let mut cells = Cells::new(&prepared.plan)?;
        let mark = self.mark_stream(prepared.effect)?;
        let rows = self.client.stream(&prepared.statement, &for_driver(&params));
        let rows = rows.map_err(|error| self.failed(&error))?;
        self.read(rows, None, &mut cells, mark, each)
    }

    /// Runs a statement behind a pooler, where nothing is prepared, and hands its rows over. A result without rows
    /// has no columns either.
    fn each_unprepared(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let effect = self.admit(sql, params.len())?;
        let params = as_text(params)?;
        let mark = self.mark_stream(effect)?;
        let rows = self.client.stream_unprepared(sql, &for_driver(&params));
        let mut rows = rows.map_err(|error| self.failed(&error))?;
        let first = rows.next(&mut self.client).map_err(|error| self.failed(&error))?;
        let plan = Plan::new(first.as_ref().map_or(&[], |row| row.columns()));
        let mut cells = Cells::new(&plan)?;
        self.read(rows, first, &mut cells, mark, each)
    }

    /// Runs a statement behind a pooler; its rows, and how many it changed.
    fn unprepared(&mut self, sql: &str, params: &[Value<'_>]) -> Result<(Vec<u8>, u64), QueryError> {
        self.admit(sql, params.len())?;
        let params = as_text(params)?;
        pooled::run(&mut self.client, sql, &for_driver(&params)).map_err(|error| self.failed(&error))?
    }

    /// Takes note of what a text is about to do to the session; behind a pooler, refuses what would stay.
    fn admit(&mut self, sql: &str, given: usize) -> Result<Effect, QueryError> {
        no_nul(sql)?;
        check(sql, 0, given)?;
        let mut effect = effect(Dialect::Postgres, sql);
        if effect.copies {
            return Err(QueryError::CopyText);
        }
        check(sql, effect.placeholders, given)?;
        if self.is_pooled {
            if effect.stays {
                return Err(QueryError::Pooled);
            }
            effect.dirt = Dirt::None;
        }
        self.session.admit(effect)?;
        Ok(effect)
    }

    /// Takes note of a COPY, which is no statement that could be prepared.
    fn admit_copy(&mut self, sql: &str) -> Result<(), QueryError> {
        if self.is_pooled {
            // The driver prepares it, and would find it missing in the next session.
            return Err(QueryError::NotOffered { what: "COPY through a pooler" });
        }
        no_nul(sql)?;
        self.session.admit(effect(Dialect::Postgres, sql))
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
        let cancel = self.ready()?;
        running(cancel, || {
            if self.is_pooled {
                return self.unprepared(sql, params).map(|(rows, _)| rows);
            }
            self.with_prepared(sql, params.len(), |open, prepared| open.rows(prepared, params))
        })
    }

    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let cancel = self.ready()?;
        running(cancel, || {
            if self.is_pooled {
                return self.each_unprepared(sql, params, each);
            }
            self.with_prepared(sql, params.len(), |open, prepared| open.each(prepared, params, each))
        })
    }

    fn copy_in(
        &mut self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let cancel = self.ready()?;
        self.admit_copy(sql)?;
        running(cancel, || copy::copy_in(&mut self.client, sql, source).map_err(|error| self.failed(&error)))
    }

    fn copy_out(
        &mut self,
        sql: &str,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        let cancel = self.ready()?;
        self.admit_copy(sql)?;
        running(cancel, || {
            let mark = self.mark_stream(effect(Dialect::Postgres, "SELECT"))?;
            let copied = copy::copy_out(&mut self.client, sql, sink);
            let (streamed, rest) = copied.map_err(|error| self.failed(&error))?;
            match rest {
                Some(copy) => self.end_early(Rest::Copy(copy), mark)?,
                None => self.end_stream(mark)?,
            }
            Ok(streamed)
        })
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        let cancel = self.ready()?;
        running(cancel, || {
            if self.is_pooled {
                return self.unprepared(sql, params).map(|(_, affected)| affected);
            }
            self.with_prepared(sql, params.len(), |open, prepared| open.affected(prepared, params))
        })
    }

    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError> {
        let cancel = self.ready()?;
        self.admit(sql, 0)?;
        running(cancel, || self.batch(sql))
    }

    fn begin_with(&mut self, options: &TransactionOptions) -> Result<(), QueryError> {
        let cancel = self.ready()?;
        let text = self.session.begin_text(options, TransactionOptions::postgres_text)?;
        running(cancel, || self.batch(&text))?;
        self.session.enter(text, options.access == Some(Access::ReadOnly));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        let finished = self.finish_leftover();
        let level = self.session.leave()?;
        finished?;
        let wrote = level.is_outermost() && self.session.take_wrote();
        // A message of its own, since its answer must be here before the commit is sent.
        let name = if wrote { self.transaction_name() } else { Ok(String::new()) };
        let (name, outcome) = match name {
            Ok(name) => {
                let proof = if level.is_outermost() && !wrote { PROOF } else { "" };
                (name, self.batch(&(proof.to_owned() + &level.commit_text())))
            }
            // The commit has not been sent, so there is nothing that it could have stored.
            Err(error) => (String::new(), Err(error)),
        };
        let Err(error) = outcome else { return Ok(()) };
        if self.is_broken {
            return Err(match error {
                QueryError::Lost { reason, .. } if level.is_outermost() && name.is_empty() => {
                    QueryError::NotCommitted { reason }
                }
                QueryError::Lost { reason, .. } if level.is_outermost() => {
                    QueryError::OutcomeUnknown { reason, transaction: name }
                }
                error => error,
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
        let finished = self.finish_leftover();
        let level = self.session.leave()?;
        finished?;
        self.batch(&level.rollback_text())
    }

    fn has_broken(&self) -> bool {
        // A cancellation may arrive late, and would stop the next borrower's statement.
        self.is_broken || self.canceller.was_used() || self.client.is_closed()
    }

    fn is_valid(&mut self, timeout: Duration) -> bool {
        let is_valid = self.finish_leftover().is_ok() && self.client.is_valid(timeout) && self.has_its_role();
        self.is_broken |= !is_valid;
        is_valid
    }

    fn reset(&mut self) -> Reset {
        if self.finish_leftover().is_err() || self.canceller.was_used() {
            return Reset::Close;
        }
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

    fn has_foreign_transaction(&mut self) -> bool {
        // Refused outside of a transaction, and only there with this code.
        let outside = |error: &Error| error.code() == Some(&SqlState::NO_ACTIVE_SQL_TRANSACTION);
        self.session.may_be_in_transaction()
            && !self.client.batch_execute("SAVEPOINT host_probe").is_err_and(|error| outside(&error))
    }

    fn settle(&mut self) {
        self.session = Session::default();
    }

    fn is_clean(&self) -> bool {
        self.session.is_clean()
    }

    fn needs_reset(&self) -> bool {
        self.session.needs_reset() || self.leftover.is_some()
    }

    fn is_lagging(&self) -> bool {
        self.leftover.is_some()
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
