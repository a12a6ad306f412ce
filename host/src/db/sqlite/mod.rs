//! The SQLite driver: a database in a file, or in memory, without a server.
//!
//! Files are opened in WAL mode, with foreign keys checked and a busy time-out. A transaction takes
//! the write lock when it begins (`BEGIN IMMEDIATE`): one that begins as a reader and then writes
//! can fail at once, whatever the time-out. A failed statement undoes itself and leaves its
//! transaction usable, as is SQLite's way.
//!
//! SQLite has nothing that resets a session, so a connection that ran PRAGMA, ATTACH or made
//! temporary tables is closed at checkin. A database in memory *is* its connection: there only the
//! open transaction is undone.

mod convert;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugin_api::db::rows::BlockWriter;
use rusqlite::ErrorCode;

use self::convert::{bind, cell, query_error};
use super::interrupt::{Cancel, running};
use super::sql::{Dialect, Dirt, Session, effect};
use super::{ConfigError, ConnectError, Connection, Driver, QueryError, Reset, Streamed, Value};

/// How long a statement waits for another connection's lock on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows of a block that is handed over while more are coming.
const BLOCK_ROWS: u64 = 256;
/// Bytes of such a block, more or less.
const BLOCK_BYTES: usize = 256 << 10;
/// Prepared statements kept for each connection.
const CACHED_STATEMENTS: usize = 128;

/// Where a database is.
#[derive(Clone, Debug)]
enum Place {
    Memory,
    File(PathBuf),
}

/// Opens one SQLite database.
#[derive(Debug)]
pub struct Sqlite {
    place: Place,
    address: String,
}

impl Sqlite {
    /// `path` is what follows `sqlite:`; a relative one lies below `data_dir`.
    ///
    /// # Errors
    ///
    /// When there is no path, or settings follow it.
    pub fn parse(path: &str, data_dir: &Path) -> Result<Sqlite, ConfigError> {
        let refuse = |reason: &str| ConfigError::Address { driver: "sqlite", reason: reason.to_owned() };
        let path = path.strip_prefix("//").unwrap_or(path);
        let place = match path {
            "" => return Err(refuse("no path: write `sqlite:PATH` or `sqlite::memory:`")),
            ":memory:" => Place::Memory,
            _ if path.contains('?') => return Err(refuse("settings after `?` are not supported")),
            _ => Place::File(data_dir.join(path)),
        };
        let address = match &place {
            Place::Memory => "sqlite::memory:".to_owned(),
            Place::File(path) => format!("sqlite:{}", path.display()),
        };
        Ok(Sqlite { place, address })
    }

    fn open(&self) -> rusqlite::Result<rusqlite::Connection> {
        let db = match &self.place {
            Place::Memory => rusqlite::Connection::open_in_memory()?,
            Place::File(path) => rusqlite::Connection::open(path)?,
        };
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.pragma_update(None, "foreign_keys", true)?;
        if let Place::File(_) = self.place {
            db.pragma_update(None, "journal_mode", "WAL")?;
        }
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Ok(db)
    }
}

impl Driver for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn max_connections(&self) -> Option<u32> {
        // A second connection to memory would be a second database.
        matches!(self.place, Place::Memory).then_some(1)
    }

    fn is_its_connection(&self) -> bool {
        matches!(self.place, Place::Memory)
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        if let Place::File(path) = &self.place
            && let Some(directory) = path.parent()
        {
            std::fs::create_dir_all(directory).map_err(|error| ConnectError::Directory {
                path: directory.to_owned(),
                reason: error.to_string(),
            })?;
        }
        let db = self.open().map_err(|error| ConnectError::Unreachable {
            address: self.address.clone(),
            reason: error.to_string(),
            sqlstate: None,
        })?;
        let is_memory = matches!(self.place, Place::Memory);
        let cancel = Arc::new(Interrupter(db.get_interrupt_handle()));
        Ok(Box::new(Open { db, cancel, session: Session::default(), is_broken: false, is_memory }))
    }
}

/// An open database.
struct Open {
    db: rusqlite::Connection,
    cancel: Arc<dyn Cancel>,
    session: Session,
    /// The file cannot be used any more. Set by `attempt`, read by the pool.
    is_broken: bool,
    is_memory: bool,
}

impl Open {
    /// As [`attempt`](Open::attempt), until nobody wants the outcome any more.
    fn run<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        body: impl FnOnce(&rusqlite::Connection, &mut rusqlite::Statement<'_>) -> Result<T, Failed>,
    ) -> Result<T, QueryError> {
        let cancel = Arc::clone(&self.cancel);
        running(cancel, || self.attempt(sql, params, body))
    }

    /// Runs `body` with the prepared form of `sql` and its parameters bound.
    fn attempt<T>(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        body: impl FnOnce(&rusqlite::Connection, &mut rusqlite::Statement<'_>) -> Result<T, Failed>,
    ) -> Result<T, QueryError> {
        let Open { db, session, .. } = self;
        let attempt = || {
            let mut statement = db.prepare_cached(sql)?;
            // Not earlier: a text that is no statement leaves nothing behind.
            session.admit(effect(Dialect::Sqlite, sql))?;
            bind(&mut statement, params)?;
            body(db, &mut statement)
        };
        attempt().map_err(|failed| match failed {
            Failed::Typed(error) => error,
            Failed::Engine(error) => self.engine_error(&error),
        })
    }

    /// SQLite's error as ours. Remembers one after which the connection is beyond use.
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
        query_error(error)
    }

    fn step(&mut self, text: &str) -> Result<(), QueryError> {
        let outcome = self.db.execute_batch(text);
        outcome.map_err(|error| self.engine_error(&error))
    }
}

/// A block with columns, and no rows yet.
fn block_of(names: &[String]) -> BlockWriter {
    let mut block = BlockWriter::new();
    names.iter().for_each(|name| block.column(name, ""));
    block
}

/// Stops the statement that runs on a connection, within a few steps of its program.
struct Interrupter(rusqlite::InterruptHandle);

impl Cancel for Interrupter {
    fn cancel(&self) {
        self.0.interrupt();
    }
}

/// An error that is typed already, or SQLite's own.
enum Failed {
    Typed(QueryError),
    Engine(rusqlite::Error),
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

impl Connection for Open {
    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        self.run(sql, params, |_, statement| {
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut block = block_of(&names);
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                block.row();
                for (index, name) in names.iter().enumerate() {
                    block.cell(cell(row.get_ref(index)?, name)?);
                }
            }
            Ok(block.finish())
        })
    }

    fn query_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Streamed, QueryError> {
        self.run(sql, params, |_, statement| {
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut block = block_of(&names);
            let mut count = 0;
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                block.row();
                for (index, name) in names.iter().enumerate() {
                    block.cell(cell(row.get_ref(index)?, name)?);
                }
                count += 1;
                if block.rows() >= BLOCK_ROWS || block.size() >= BLOCK_BYTES {
                    let full = std::mem::replace(&mut block, block_of(&names));
                    if each(&full.finish()).is_break() {
                        return Ok(Streamed::Stopped);
                    }
                }
            }
            let stopped = each(&block.finish()).is_break();
            Ok(if stopped { Streamed::Stopped } else { Streamed::All(count) })
        })
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64, QueryError> {
        self.run(sql, params, |db, statement| {
            let (is_reader, before) = (statement.readonly(), db.total_changes());
            let mut found = 0;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {
                found += 1;
            }
            drop(rows);
            // `changes` keeps the number of an earlier statement when this one changed nothing.
            let changed = if db.total_changes() == before { 0 } else { db.changes() };
            Ok(if is_reader { found } else { changed })
        })
    }

    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError> {
        self.session.admit(effect(Dialect::Sqlite, sql))?;
        let cancel = Arc::clone(&self.cancel);
        running(cancel, || self.step(sql))
    }

    fn begin(&mut self) -> Result<(), QueryError> {
        let text = self.session.begin_text("BEGIN IMMEDIATE");
        let cancel = Arc::clone(&self.cancel);
        running(cancel, || self.step(&text))?;
        self.session.depth += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        let level = self.session.leave()?;
        if self.db.is_autocommit() {
            // After some errors, a full disk for one, SQLite rolls the whole transaction back.
            return Err(QueryError::RolledBack);
        }
        self.step(&level.commit_text()).inspect_err(|_| {
            if let Err(error) = self.db.execute_batch(&level.rollback_text()) {
                tracing::debug!("rollback after a failed commit: {error}");
            }
        })
    }

    fn rollback(&mut self) -> Result<(), QueryError> {
        let level = self.session.leave()?;
        if self.db.is_autocommit() {
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
        self.session.is_clean() && self.db.is_autocommit()
    }

    fn backend_id(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests;
