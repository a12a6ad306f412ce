//! Why a key has no value for a caller.

use std::fmt;

use crate::abi::Status;
use crate::host::CallError;

/// Why there is no value for this caller. Each variant carries the host's words, which name the key.
///
/// The slot is as it was, or empty; nothing is poisoned.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RegistryError {
    /// The init returned an error, in this call or in the one that this caller waited for.
    Init(String),
    /// The init panicked, likewise.
    Panicked(String),
    /// Inits failed repeatedly; it is too soon for the next one.
    BackingOff(String),
    /// The init is still running, or was given up, at the deadline.
    TimedOut(String),
    /// Making the value needs the value itself, directly or through other keys and threads.
    Recursive(String),
    /// The slot holds another type.
    WrongType(String),
    /// The slot holds the same type with another layout, and the value was not upgraded to the caller's.
    Outdated(String),
    /// The slot holds a service of the same name with other methods.
    Interface(String),
    /// Another plugin has made the value from another configuration.
    Misconfigured(String),
    /// The slot is empty.
    NotFound(String),
    /// The host did not do it for another reason.
    Refused(String),
}

impl RegistryError {
    /// What kind of failure, in the boundary's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            RegistryError::Init(_) => Status::INIT_FAILED,
            RegistryError::Panicked(_) => Status::INIT_PANICKED,
            RegistryError::BackingOff(_) => Status::BACKING_OFF,
            RegistryError::TimedOut(_) => Status::TIMED_OUT,
            RegistryError::Recursive(_) => Status::RECURSIVE,
            RegistryError::WrongType(_) => Status::WRONG_TYPE,
            RegistryError::Outdated(_) => Status::OUTDATED,
            RegistryError::Interface(_) => Status::INTERFACE,
            RegistryError::Misconfigured(_) => Status::MISCONFIGURED,
            RegistryError::NotFound(_) => Status::NOT_FOUND,
            RegistryError::Refused(_) => Status::FAILED,
        }
    }
}

impl From<CallError> for RegistryError {
    fn from(error: CallError) -> RegistryError {
        let words = error.message;
        match error.status {
            Status::INIT_FAILED => RegistryError::Init(words),
            Status::INIT_PANICKED => RegistryError::Panicked(words),
            Status::BACKING_OFF => RegistryError::BackingOff(words),
            Status::TIMED_OUT => RegistryError::TimedOut(words),
            Status::RECURSIVE => RegistryError::Recursive(words),
            Status::WRONG_TYPE => RegistryError::WrongType(words),
            Status::OUTDATED => RegistryError::Outdated(words),
            Status::INTERFACE => RegistryError::Interface(words),
            Status::MISCONFIGURED => RegistryError::Misconfigured(words),
            Status::NOT_FOUND => RegistryError::NotFound(words),
            _ => RegistryError::Refused(words),
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::Init(words)
            | RegistryError::Panicked(words)
            | RegistryError::BackingOff(words)
            | RegistryError::TimedOut(words)
            | RegistryError::Recursive(words)
            | RegistryError::WrongType(words)
            | RegistryError::Outdated(words)
            | RegistryError::Interface(words)
            | RegistryError::Misconfigured(words)
            | RegistryError::NotFound(words)
            | RegistryError::Refused(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for RegistryError {}
