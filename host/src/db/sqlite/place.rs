//! Where a SQLite database is, and how it is opened: what its address says.
//!
//! An address is a path, or a `file:` URI as SQLite has them; settings follow a `?`. Each setting is SQLite's own or
//! one of ours, and an unknown one is refused by its name: one that is passed over would be missed by nobody until it
//! matters.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rusqlite::OpenFlags;

use crate::db::ConfigError;

/// How long a statement waits for another connection's lock on the file, if nothing is said.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory, gone with its connection.
    Memory,
    File(PathBuf),
}

/// What may be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is read.
    ReadOnly,
    /// It is read and written, and has to be there.
    ReadWrite,
    /// It is made where it is not there, with its directory.
    Create,
}

/// What the address of a database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) mode: Mode,
    /// Nobody changes the file, so neither locks nor a log beside it are looked for.
    pub(super) is_immutable: bool,
    pub(super) busy_timeout: Duration,
    pub(super) foreign_keys: bool,
    /// SQLite's own word, or none: as SQLite has it by default.
    pub(super) synchronous: Option<&'static str>,
    pub(super) journal_mode: &'static str,
}

const SYNCHRONOUS: &[&str] = &["OFF", "NORMAL", "FULL", "EXTRA"];
const JOURNALS: &[&str] = &["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"];

impl Address {
    /// `text` is what follows `sqlite:`, or the whole of a `file:` URI. A relative path lies below `data_dir`.
    ///
    /// # Errors
    ///
    /// When there is no path, or a setting that is not supported.
    pub(super) fn parse(text: &str, data_dir: &Path) -> Result<Address, ConfigError> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let path = match path.strip_prefix("file:") {
            Some(uri) => path_of_uri(uri)?,
            None => path.strip_prefix("//").unwrap_or(path).to_owned(),
        };
        let place = match path.as_str() {
            "" => return Err(refused("no path: write `sqlite:PATH` or `sqlite::memory:`")),
            ":memory:" => Place::Memory,
            path => Place::File(data_dir.join(path)),
        };
        let mut address = Address {
            place,
            mode: Mode::Create,
            is_immutable: false,
            busy_timeout: BUSY_TIMEOUT,
            foreign_keys: true,
            synchronous: None,
            journal_mode: "WAL",
        };
        let query = query.map(|query| query.split('#').next().unwrap_or_default()).unwrap_or_default();
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            address.set(name, &decoded(value)?)?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let bad = |wanted: &str| refused(format!("`{name}={value}`: write {wanted}"));
        match name {
            "mode" => match value {
                "ro" => self.mode = Mode::ReadOnly,
                "rw" => self.mode = Mode::ReadWrite,
                "rwc" => self.mode = Mode::Create,
                "memory" => self.place = Place::Memory,
                _ => return Err(bad("`ro`, `rw`, `rwc` or `memory`")),
            },
            "cache" if value == "private" => {}
            "cache" => {
                return Err(refused(
                    "`cache=shared`: connections that share a cache do not wait for each other's locks; a database \
                     in memory has one connection here, which all borrowers use in turn",
                ));
            }
            "immutable" => {
                self.is_immutable = boolean(value).ok_or_else(|| bad("`1` or `0`"))?;
                if self.is_immutable {
                    self.mode = Mode::ReadOnly;
                }
            }
            "busy_timeout" => {
                self.busy_timeout =
                    duration(value).ok_or_else(|| bad("milliseconds, such as `250`, or `250ms`, `5s`"))?;
            }
            "foreign_keys" => self.foreign_keys = boolean(value).ok_or_else(|| bad("`on` or `off`"))?,
            "synchronous" => {
                let word = word(value, SYNCHRONOUS);
                self.synchronous = Some(word.ok_or_else(|| bad("`off`, `normal`, `full` or `extra`"))?);
            }
            "journal_mode" => {
                self.journal_mode = word(value, JOURNALS)
                    .ok_or_else(|| bad("`wal`, `delete`, `truncate`, `persist`, `memory` or `off`"))?;
            }
            unknown => {
                return Err(refused(format!(
                    "there is no setting `{unknown}`: mode, cache, immutable, busy_timeout, foreign_keys, synchronous \
                     and journal_mode are known"
                )));
            }
        }
        Ok(())
    }

    /// How SQLite is to open the file.
    pub(super) fn flags(&self) -> OpenFlags {
        let mode = match self.mode {
            Mode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Mode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Mode::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
        // One thread at a time uses a connection, so it needs no lock of its own.
        mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI
    }

    /// The file as SQLite's URI, in which no byte of the path means anything.
    pub(super) fn uri(path: &Path, is_immutable: bool) -> String {
        use std::fmt::Write as _;
        use std::os::unix::ffi::OsStrExt as _;
        let mut uri = "file:".to_owned();
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                    uri.push(char::from(*byte))
                }
                // Writing to a `String` cannot fail.
                other => drop(write!(uri, "%{other:02X}")),
            }
        }
        if is_immutable {
            uri.push_str("?immutable=1");
        }
        uri
    }
}

fn refused(reason: impl Into<String>) -> ConfigError {
    ConfigError::Address { driver: "sqlite", reason: reason.into() }
}

/// The path in a `file:` URI: `PATH`, `///PATH` or `//localhost/PATH`.
fn path_of_uri(uri: &str) -> Result<String, ConfigError> {
    let uri = uri.split('#').next().unwrap_or_default();
    let path = match uri.strip_prefix("//") {
        None => uri,
        Some(rest) => match rest.strip_prefix("localhost").unwrap_or(rest) {
            path if path.starts_with('/') => path,
            _ => return Err(refused("a `file:` URI names no host but `localhost`: write `file:///PATH`")),
        },
    };
    decoded(path)
}

fn decoded(text: &str) -> Result<String, ConfigError> {
    let text =
        percent_decode_str(text).decode_utf8().map_err(|_| refused("it is not UTF-8 when it is decoded"))?;
    if text.contains('\0') {
        return Err(refused("it contains a NUL byte"));
    }
    Ok(text.into_owned())
}

/// The word of the list that is meant, however it is written.
fn word(value: &str, words: &[&'static str]) -> Option<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(value)).copied()
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "true" | "yes" => Some(true),
        "0" | "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// Milliseconds, unless a unit says otherwise.
fn duration(value: &str) -> Option<Duration> {
    let (number, unit) = match value.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => value.strip_suffix('s').map_or((value, 1), |number| (number, 1_000)),
    };
    let milliseconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    // SQLite keeps it in 31 bits.
    i32::try_from(milliseconds).ok().map(|_| Duration::from_millis(milliseconds))
}
