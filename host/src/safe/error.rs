//! What can go wrong with a safe, one enum per operation.
//!
//! All are `Clone`: a failed commit is told to every writer that shared it.

use std::path::PathBuf;

use super::backend::Fault;

/// Why a safe was not opened. Nothing of it is changed; the next caller tries again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory cannot be used.
    #[error("cannot open the safe {}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Another process has the file open.
    #[error("the safe {} is in use by another process; stop that one, or name another --state", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The database server cannot be used.
    #[error("cannot open the safe in {place}: {reason}")]
    Server {
        /// Its address, without secrets.
        place: String,
        /// The driver's words.
        reason: String,
    },
    /// The file is not a safe, or is damaged beyond what a crash can do.
    #[error("the safe {} is damaged: {reason}; put a backup in its place, or move it away to begin anew", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The engine's words.
        reason: String,
    },
    /// The name cannot be that of a file.
    #[error("`{0}` cannot be the name of a safe")]
    Name(String),
    /// The host is stopping.
    #[error("the safes are closed: the host is stopping")]
    Closed,
}

/// Why there is no answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes under the key are not those that were written.
    #[error("the value under {key} is damaged: its checksum does not match")]
    Corrupt {
        /// The key, printable.
        key: String,
    },
    /// The disk does not answer; the safe tries again by itself.
    #[error("the safe cannot be read: {reason}")]
    Unavailable {
        /// The engine's words.
        reason: String,
    },
    /// The host is stopping.
    #[error("the safe is closed: the host is stopping")]
    Closed,
}

/// Why a write was not acknowledged.
///
/// But for `Indeterminate`, none of the write's changes is in the safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The write breaks a limit or a rule.
    #[error("{0}")]
    Invalid(String),
    /// A key holds something else than an integer.
    #[error("the value under {key} is no integer, so nothing can be added to it")]
    NotANumber {
        /// The key, printable.
        key: String,
    },
    /// The sum does not fit 64 signed bits.
    #[error("the number under {key} would leave the range of 64 bits")]
    Overflow {
        /// The key, printable.
        key: String,
    },
    /// A value that the write depends on is damaged.
    #[error("the value under {key} is damaged: its checksum does not match")]
    Corrupt {
        /// The key, printable.
        key: String,
    },
    /// More writes wait for the disk than the safe lets wait.
    #[error("too many writes wait for the disk")]
    Overloaded,
    /// The deadline passed before the write's turn came.
    #[error("the write's turn did not come before its deadline")]
    TimedOut,
    /// The disk refused, and the safe, read again, does not have the write.
    #[error("the disk refused the write: {reason}")]
    Refused {
        /// The engine's words.
        reason: String,
    },
    /// The disk failed while the write was under way: it may or may not be in the safe.
    #[error("the disk failed during the write, which may or may not have been made: {reason}")]
    Indeterminate {
        /// The engine's words.
        reason: String,
    },
    /// The disk does not answer; the safe tries again by itself.
    #[error("the safe cannot be written: {reason}")]
    Unavailable {
        /// The engine's words.
        reason: String,
    },
    /// The host is stopping.
    #[error("the safe is closed: the host is stopping")]
    Closed,
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> WriteError {
        match error {
            ReadError::Corrupt { key } => WriteError::Corrupt { key },
            ReadError::Unavailable { reason } => WriteError::Unavailable { reason },
            ReadError::Closed => WriteError::Closed,
        }
    }
}

impl From<Fault> for WriteError {
    fn from(fault: Fault) -> WriteError {
        match fault {
            Fault::Corrupt(key) => WriteError::Corrupt { key },
            Fault::Engine(reason) => WriteError::Refused { reason },
        }
    }
}

/// A key as a human may read it.
pub(super) fn printable(key: &[u8]) -> String {
    format!("`{}`", key.escape_ascii())
}
