//! One connection to SQLite: its statements, its transaction, its reset.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::db::rows::BlockWriter;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, ErrorCode, Statement, TransactionState};

use super::convert::{bind, cell};
use super::ending::EndingWatch;
use super::error::query_error;
use super::exact::ExactWatch;
use crate::db::interrupt::{Cancel, running};
use crate::db::sql::{Dialect, Dirt, Session, effect};
use crate::db::{Access, Connection, QueryError, Reset, Streamed, TransactionOptions, Value};

/// Rows of a block that is handed over while more are coming.
const BLOCK_ROWS: u64 = 256;
/// Bytes of such a block, more or less.
const BLOCK_BYTES: usize = 256 << 10;

/// An open database.
pub(super) struct Open {
    db: rusqlite::Connection,
    cancel: Arc<dyn Cancel>,
    session: Session,
    ending: EndingWatch,
    /// The file cannot be used any more. Set by the first error that says so, read by the pool.
    is_broken: bool,
    is_memory: bool,
    /// The open transaction only reads.
    is_read_only: bool,
}

/// Stops the statement that runs on a connection, within a few steps of its program.
struct Interrupter(rusqlite::InterruptHandle);

impl Cancel for Interrupter {
    fn cancel(&self) {
        self.0.interrupt();
    }
}

/// Why a statement failed: an error that is typed already, or SQLite's own.
#[derive(Debug)]
pub(super) enum Failed {
    Typed(QueryError),
    Engine(rusqlite::Error),
    /// The statement took its transaction along.
    Ending(Box<Failed>),
}

impl From<QueryError> for Failed {
    fn from(error: QueryError) -> Failed {
        Failed::Typed(error)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed::Engine(error)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failed::Typed(error) => error.fmt(f),
            Failed::Engine(error) => query_error(error, false).fmt(f),
            Failed::Ending(failed) => failed.fmt(f),
        }
    }
}

impl Open {
    /// A connection on a database that was opened a moment ago.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub(super) fn new(mut db: rusqlite::Connection, is_memory: bool) -> rusqlite::Result<Open> {
        let cancel = Arc::new(Interrupter(db.get_interrupt_handle()));
        let ending = EndingWatch::new(&mut db)?;
        Ok(Open {
            db,
            cancel,
            session: Session::default(),
            ending,
            is_broken: false,
            is_memory,
            is_read_only: false,
        })
    }

    /// Runs `body` with the prepared form of `sql` and its parameters bound, until nobody wants the outcome.
    fn run<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        body: impl FnOnce(&rusqlite::Connection, &mut Statement<'_>) -> Result<T, Failed>,
    ) -> Result<T, QueryError> {
        let cancel = Arc::clone(&self.cancel);
        running(cancel, || {
            self.may_run(sql)?;
            let exact = ExactWatch::begin(&mut self.db, params);
            let exact = exact.map_err(|error| self.engine_error(&error))?;
            let Open { db, session, ending, is_read_only, .. } = self;
            let attempt = || {
                let mut statement = db.prepare_cached(sql)?;
                // Not earlier: a text that is no statement leaves nothing behind.
                session.admit(effect(Dialect::Sqlite, sql))?;
                may_write(*is_read_only && session.depth > 0, &statement)?;
                bind(&mut statement, params)?;
                ending.around(db, session.depth > 0, || match &exact {
                    Some(exact) if !statement.readonly() => exact.around(db, || body(db, &mut statement)),
                    _ => body(db, &mut statement),
                })
            };
            let outcome = attempt();
            if exact.is_some() {
                ExactWatch::end(&mut self.db);
            }
            outcome.map_err(|failed| self.failed(failed))
        })
    }

    /// Refuses a text that would run in the place of a transaction that has ended. A transaction that texts
    /// began is given up by a text.
    fn may_run(&mut self, sql: &str) -> Result<(), QueryError> {
        if self.ending.has_ended() && self.session.depth == 0 && effect(Dialect::Sqlite, sql).ends_transaction
        {
            self.ending.give_up();
        }
        self.ending.check()
    }

    /// Runs the statements of a text, one after the other, until one fails.
    fn each_of(&mut self, sql: &str) -> Result<(), QueryError> {
        let Open { db, session, ending, is_read_only, .. } = self;
        let mut attempt = || {
            let mut batch = Batch::new(db, sql);
            while let Some(mut statement) = batch.next()? {
                may_write(*is_read_only && session.depth > 0, &statement)?;
                ending.around(db, session.depth > 0, || {
                    let mut rows = statement.raw_query();
                    while rows.next()?.is_some() {}
                    Ok(())
                })?;
            }
            Ok(())
        };
        attempt().map_err(|failed| self.failed(failed))
    }

    /// The error of a statement as ours. Remembers one after which the connection is beyond use.
    fn failed(&mut self, failed: Failed) -> QueryError {
        match failed {
            Failed::Typed(error) => error,
            Failed::Engine(error) => self.engine_error(&error),
            Failed::Ending(failed) => match self.failed(*failed) {
                QueryError::Database { message, sqlstate, details } => QueryError::Database {
                    message: format!("{message}; the database has rolled the whole transaction back"),
                    sqlstate,
                    details,
                },
                error => error,
            },
        }
    }

    fn engine_error(&mut self, error: &rusqlite::Error) -> QueryError {
        let is_fatal = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
            )
        );
        self.is_broken |= is_fatal;
        let state = self.db.transaction_state(None::<&str>);
        query_error(error, matches!(state, Ok(TransactionState::Read)) && !self.db.is_autocommit())
    }

    /// Runs a text of this driver's own.
    fn step(&mut self, text: &str) -> Result<(), QueryError> {
        let outcome = self.db.execute_batch(text);
        outcome.map_err(|error| self.engine_error(&error))
    }
}

/// Refuses a statement that writes in a transaction that only reads.
fn may_write(is_read_only: bool, statement: &Statement<'_>) -> Result<(), QueryError> {
    if is_read_only && !statement.readonly() {
        return Err(QueryError::database(
            "the statement writes, in a transaction that is read only",
            "25006",
        ));
    }
    Ok(())
}

/// The columns of a statement that has been stepped. Before that, SQLite may know them from a schema that
/// another connection has changed.
struct Columns {
    names: Vec<String>,
}

impl Columns {
    fn of(statement: &Statement<'_>) -> Columns {
        Columns { names: statement.column_names().map(str::to_owned).collect() }
    }

    /// A block with these columns, and no rows yet.
    fn block(&self) -> BlockWriter {
        let mut block = BlockWriter::new();
        self.names.iter().for_each(|name| block.column(name, ""));
        block
    }
}

/// Hands the rows of a statement to `each`, in blocks that `is_full` ends.
fn read(
    statement: &mut Statement<'_>,
    is_full: impl Fn(&BlockWriter) -> bool,
    each: &mut dyn FnMut(Vec<u8>) -> ControlFlow<()>,
) -> Result<Streamed, Failed> {
    let mut rows = statement.raw_query();
    let mut open: Option<(Columns, BlockWriter)> = None;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let (columns, block) = open.get_or_insert_with(|| {
            let columns = Columns::of(row.as_ref());
            let block = columns.block();
            (columns, block)
        });
        block.row();
        for (index, name) in columns.names.iter().enumerate() {
            block.cell(cell(row.get_ref(index)?, name)?);
        }
        count += 1;
        if is_full(block) {
            let full = std::mem::replace(block, columns.block());
            if each(full.finish()).is_break() {
                return Ok(Streamed::Stopped);
            }
        }
    }
    drop(rows);
    let block = open.map_or_else(|| Columns::of(statement).block(), |(_, block)| block);
    let stopped = each(block.finish()).is_break();
    Ok(if stopped { Streamed::Stopped } else { Streamed::All(count) })
}

impl Connection for Open {
    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        self.run(sql, params, |_, statement| {
            let mut all = Vec::new();
            read(statement, |_| false, &mut |block| {
                all = block;
                ControlFlow::Continue(())
            })?;
            Ok(all)
        })
    }

    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.run(sql, params, |_, statement| {
            let is_full = |block: &BlockWriter| block.rows() >= BLOCK_ROWS || block.size() >= BLOCK_BYTES;
            read(statement, is_full, &mut |block| each(&block))
        })
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        self.run(sql, params, |db, statement| {
            let before = db.total_changes();
            let mut found = 0;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {
                found += 1;
            }
            drop(rows);
            // `changes` keeps the number of an earlier statement when this one changed nothing.
            let changed = if db.total_changes() == before { 0 } else { db.changes() };
            Ok(if statement.readonly() { found } else { changed })
        })
    }

    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError> {
        self.may_run(sql)?;
        self.session.admit(effect(Dialect::Sqlite, sql))?;
        let cancel = Arc::clone(&self.cancel);
        running(cancel, || self.each_of(sql))
    }

    fn begin_with(&mut self, options: &TransactionOptions) -> Result<(), QueryError> {
        self.ending.check()?;
        let text = self.session.begin_text(options, TransactionOptions::sqlite_text)?;
        let cancel = Arc::clone(&self.cancel);
        running(cancel, || self.step(&text))?;
        self.session.enter(text, false);
        if self.session.depth == 1 {
            self.is_read_only = options.access == Some(Access::ReadOnly);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        let level = self.session.leave()?;
        let ended = self.ending.check();
        if level.is_outermost() {
            self.ending.give_up();
        }
        ended?;
        self.step(&level.commit_text()).inspect_err(|_| {
            if let Err(error) = self.db.execute_batch(&level.rollback_text()) {
                tracing::debug!("rollback after a failed commit: {error}");
            }
        })
    }

    fn rollback(&mut self) -> Result<(), QueryError> {
        let level = self.session.leave()?;
        if self.ending.has_ended() {
            // SQLite has done it already. Of a savepoint, together with all that is around it.
            if level.is_outermost() {
                self.ending.give_up();
            }
            return Ok(());
        }
        self.step(&level.rollback_text())
    }

    fn has_broken(&self) -> bool {
        self.is_broken
    }

    fn is_valid(&mut self, _: Duration) -> bool {
        // The file has to be read for this; `SELECT 1` would not touch it.
        self.db.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)).is_ok()
    }

    fn reset(&mut self) -> Reset {
        let dirt = std::mem::take(&mut self.session).dirt;
        self.ending.give_up();
        if !self.db.is_autocommit() && self.step("ROLLBACK").is_err() {
            return Reset::Close;
        }
        if dirt != Dirt::None && !self.is_memory { Reset::Close } else { Reset::Ready }
    }

    fn has_foreign_transaction(&mut self) -> bool {
        !self.db.is_autocommit()
    }

    fn settle(&mut self) {
        self.session = Session::default();
    }

    fn is_clean(&self) -> bool {
        self.session.is_clean() && self.db.is_autocommit() && !self.ending.has_ended()
    }

    fn backend_id(&self) -> Option<u64> {
        None
    }
}
