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

mod connection;
mod convert;
mod ending;
mod error;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::connection::Open;
use super::{ConfigError, ConnectError, Connection, Driver};

/// How long a statement waits for another connection's lock on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
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
        let refused = |error: &rusqlite::Error| ConnectError::Unreachable {
            address: self.address.clone(),
            reason: error.to_string(),
            sqlstate: None,
        };
        let db = self.open().map_err(|error| refused(&error))?;
        let is_memory = matches!(self.place, Place::Memory);
        Ok(Box::new(Open::new(db, is_memory).map_err(|error| refused(&error))?))
    }
}

#[cfg(test)]
mod tests;
