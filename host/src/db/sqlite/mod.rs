//! The SQLite driver: a database in a file, or in memory, without a server.
//!
//! Files are opened in WAL mode, with foreign keys checked and a busy time-out, unless their address says otherwise
//! (`place.rs`). A transaction takes the write lock when it begins, unless its options say otherwise: one that begins
//! as a reader and then writes can fail at once, whatever the time-out. A failed statement undoes itself and mostly
//! leaves its transaction usable; where it does not, see `ending.rs`.
//!
//! SQLite has nothing that resets a session, so a connection that ran PRAGMA, ATTACH or made
//! temporary tables is closed at checkin. A database in memory *is* its connection: there only the
//! open transaction is undone.

mod connection;
mod convert;
mod ending;
mod error;
mod exact;
mod place;

use std::path::Path;

use rusqlite::OpenFlags;

use self::connection::Open;
use self::place::{Address, Mode, Place};
use super::{ConfigError, ConnectError, Connection, Driver};

/// Prepared statements kept for each connection.
const CACHED_STATEMENTS: usize = 128;

/// Opens one SQLite database.
#[derive(Debug)]
pub struct Sqlite {
    said: Address,
    /// For people.
    address: String,
}

impl Sqlite {
    /// `text` is what follows `sqlite:`, or a `file:` URI; a relative path lies below `data_dir`.
    ///
    /// # Errors
    ///
    /// When there is no path, or a setting that is not supported.
    pub fn parse(text: &str, data_dir: &Path) -> Result<Sqlite, ConfigError> {
        let said = Address::parse(text, data_dir)?;
        let address = match &said.place {
            Place::Memory => "sqlite::memory:".to_owned(),
            Place::File(path) => format!("sqlite:{}", path.display()),
        };
        Ok(Sqlite { said, address })
    }

    fn open(&self) -> rusqlite::Result<rusqlite::Connection> {
        let said = &self.said;
        let mut db = match &said.place {
            Place::Memory => rusqlite::Connection::open_in_memory()?,
            Place::File(path) => {
                rusqlite::Connection::open_with_flags(Address::uri(path, said.is_immutable), said.flags())?
            }
        };
        db.busy_timeout(said.busy_timeout)?;
        if let Place::File(path) = &said.place
            && said.mode != Mode::ReadOnly
            && let Err(error) = set_journal(&db, said.journal_mode)
        {
            // A file or directory, or all of the disk, that is only read. What is wrong otherwise shows again.
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI;
            db = rusqlite::Connection::open_with_flags(Address::uri(path, false), flags)?;
            db.busy_timeout(said.busy_timeout)?;
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            tracing::warn!("{} is only read, for it cannot be written: {error}", self.address);
        }
        db.pragma_update(None, "foreign_keys", said.foreign_keys)?;
        if let Some(word) = said.synchronous {
            db.pragma_update(None, "synchronous", word)?;
        }
        if said.mode == Mode::ReadOnly {
            // So that what cannot be read shows now, and not at the first statement.
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        }
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Ok(db)
    }
}

/// Has the file keep its changes in such a journal. SQLite says which it is, and no error where it cannot be changed.
fn set_journal(db: &rusqlite::Connection, wanted: &str) -> rusqlite::Result<()> {
    if db.is_readonly("main")? {
        let denied = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(denied, None));
    }
    db.pragma_update(None, "journal_mode", wanted)
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
        matches!(self.said.place, Place::Memory).then_some(1)
    }

    fn is_its_connection(&self) -> bool {
        matches!(self.said.place, Place::Memory)
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        if let Place::File(path) = &self.said.place
            && self.said.mode == Mode::Create
            && let Some(directory) = path.parent()
        {
            std::fs::create_dir_all(directory).map_err(|error| ConnectError::Directory {
                path: directory.to_owned(),
                reason: error.to_string(),
            })?;
        }
        let refused = |error: &rusqlite::Error| ConnectError::Unreachable {
            address: self.address.clone(),
            reason: error.to_string(),
            sqlstate: None,
        };
        let db = self.open().map_err(|error| refused(&error))?;
        let is_memory = matches!(self.said.place, Place::Memory);
        Ok(Box::new(Open::new(db, is_memory).map_err(|error| refused(&error))?))
    }
}

#[cfg(test)]
mod tests;
