//! One connection to PostgreSQL: its statements, its transaction, its reset.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::db::rows::BlockWriter;
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, SimpleQueryMessage, Statement};

use super::cancel::Canceller;
use super::cells::{Cells, Plan};
use super::error::{is_broken, is_stale, query_error};
use super::params::params as convert;
use crate::db::interrupt::{Cancel, running};
use crate::db::sql::{Dialect, Dirt, Effect, Session, effect};
use crate::db::{Connection, Outcome, QueryError, Reset, Value};

/// Prepared statements kept for each connection.
const CACHED_STATEMENTS: usize = 128;

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

/// A statement that the server has parsed.
struct Prepared {
    statement: Statement,
    effect: Effect,
    plan: Plan,
}

/// An open connection.
pub(super) struct Open {
    client: Client,
    canceller: Arc<Canceller>,
    backend: Option<u64>,
    /// Empty where nothing can be written.
    timeline: String,
    session: Session,
    /// Set by the first error that says so, read by the pool.
    is_broken: bool,
    /// By text; the number says when the statement was used last.
    cache: HashMap<Box<str>, (Arc<Prepared>, u64)>,
    /// Counts uses of the cache.
    clock: u64,
}

impl Open {
    pub(super) fn new(mut client: Client) -> Result<Open, postgres::Error> {
        let answer = client.simple_query(IDENTITY)?;
        let cell = |index| {
            answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(index),
                _ => None,
            })
        };
        let backend = cell(0).and_then(|pid| pid.parse().ok());
        let timeline = cell(1).unwrap_or_default().to_owned();
        let cache = HashMap::with_capacity(CACHED_STATEMENTS);
        let canceller = Arc::new(Canceller::new(client.cancel_token()));
        Ok(Open {
            client,
            canceller,
            backend,
            timeline,
            session: Session::default(),
            is_broken: false,
            cache,
            clock: 0,
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
        if let Some(prepared) = self.cached(sql) {
            self.session.admit(prepared.effect)?;
            match body(self, &prepared) {
                Err(error) if is_stale(&error) => {
                    self.cache.remove(sql);
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

    fn cached(&mut self, sql: &str) -> Option<Arc<Prepared>> {
        self.clock += 1;
        let (prepared, used) = self.cache.get_mut(sql)?;
        *used = self.clock;
        Some(prepared.clone())
    }

    fn prepare(&mut self, sql: &str) -> Result<Arc<Prepared>, QueryError> {
        no_nul(sql)?;
        let statement = self.client.prepare(sql).map_err(|error| self.failed(&error))?;
        let plan = Plan::new(statement.columns());
        let prepared = Arc::new(Prepared { statement, effect: effect(Dialect::Postgres, sql), plan });
        if self.cache.len() >= CACHED_STATEMENTS {
            let oldest = self.cache.iter().min_by_key(|(_, (_, used))| *used).map(|(sql, _)| sql.clone());
            oldest.and_then(|sql| self.cache.remove(&sql));
        }
        self.cache.insert(sql.into(), (prepared.clone(), self.clock));
        Ok(prepared)
    }

    fn rows(&mut self, prepared: &Prepared, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        let params = convert(prepared.statement.params(), params)?;
        let mut cells = Cells::new(&prepared.plan)?;
        let mut block = BlockWriter::new();
        prepared.plan.write_columns(&mut block);
        let mut read = || {
            let mut rows = self.client.query_raw(&prepared.statement, params.iter())?;
            while let Some(row) = rows.next()? {
                if let Err(error) = cells.write(&row, &mut block) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        };
        let outcome: Result<Result<(), QueryError>, postgres::Error> = read();
        outcome.map_err(|error| self.failed(&error))??;
        Ok(block.finish())
    }

    fn affected(&mut self, prepared: &Prepared, params: &[Value<'_>]) -> Result<u64, QueryError> {
        let params = convert(prepared.statement.params(), params)?;
        let mut run = || {
            let mut rows = self.client.query_raw(&prepared.statement, params.iter())?;
            while rows.next()?.is_some() {}
            Ok(rows.rows_affected().unwrap_or(0))
        };
        let outcome: Result<u64, postgres::Error> = run();
        outcome.map_err(|error| self.failed(&error))
    }
}

/// The protocol ends texts with a NUL byte, so the driver refuses one inside.
fn no_nul(sql: &str) -> Result<(), QueryError> {
    if !sql.contains('\0') {
        return Ok(());
    }
    Err(QueryError::Database {
        message: "the statement contains a NUL byte".to_owned(),
        sqlstate: "22021".to_owned(),
    })
}

impl Connection for Open {
    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        let cancel = self.cancel();
        running(&cancel, || self.with_prepared(sql, |open, prepared| open.rows(prepared, params)))
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        let cancel = self.cancel();
        running(&cancel, || self.with_prepared(sql, |open, prepared| open.affected(prepared, params)))
    }

    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError> {
        no_nul(sql)?;
        self.session.admit(effect(Dialect::Postgres, sql))?;
        let cancel = self.cancel();
        running(&cancel, || self.batch(sql))
    }

    fn begin(&mut self) -> Result<(), QueryError> {
        let text = self.session.begin_text("BEGIN");
        let cancel = self.cancel();
        running(&cancel, || self.batch(&text))?;
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
