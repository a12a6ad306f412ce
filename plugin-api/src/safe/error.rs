//! What can go wrong with the safe, one enum per operation.

use std::fmt;

use crate::abi::Status;
use crate::host::CallError;

/// Why the safe gave no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The value does not fit the type it was asked for as. [`Safe::entry`](crate::safe::Safe::entry) still has
    /// its bytes.
    Decode {
        /// Key, type and the decoder's words.
        message: String,
    },
    /// The bytes under the key are not those that were written.
    Corrupt {
        /// Which key.
        message: String,
    },
    /// The disk does not answer; the host tries again by itself.
    Unavailable {
        /// The host's words.
        message: String,
    },
    /// The operator has not granted this shared safe to this plugin.
    Denied {
        /// What to write into `host.toml`.
        message: String,
    },
    /// Called where blocking is forbidden, or with a key that cannot be one, or there is no host.
    Host {
        /// The host's words.
        message: String,
    },
}

impl ReadError {
    /// What kind of failure, in the boundary's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            ReadError::Decode { .. } => Status::WRONG_TYPE,
            ReadError::Corrupt { .. } => Status::CORRUPT,
            ReadError::Unavailable { .. } => Status::UNREACHABLE,
            ReadError::Denied { .. } => Status::DENIED,
            ReadError::Host { .. } => Status::FAILED,
        }
    }
}

impl From<CallError> for ReadError {
    fn from(error: CallError) -> ReadError {
        let message = error.message;
        match error.status {
            Status::CORRUPT => ReadError::Corrupt { message },
            Status::UNREACHABLE => ReadError::Unavailable { message },
            Status::DENIED => ReadError::Denied { message },
            _ => ReadError::Host { message },
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Decode { message }
            | ReadError::Corrupt { message }
            | ReadError::Unavailable { message }
            | ReadError::Denied { message }
            | ReadError::Host { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a write was not acknowledged. But for [`Indeterminate`](WriteError::Indeterminate), nothing of it is in
/// the safe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// The value cannot be encoded.
    Encode {
        /// Key and the encoder's words.
        message: String,
    },
    /// The write breaks a limit or a rule: an empty or too long key, a too long value, a key changed twice.
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// Something else than an integer is where one should be added to.
    NotANumber {
        /// Which key.
        message: String,
    },
    /// The sum does not fit 64 signed bits.
    Overflow {
        /// Which key.
        message: String,
    },
    /// A check of a gated or relaxed write did not hold.
    Conflict {
        /// Which.
        message: String,
    },
    /// An `update` was overtaken again and again, or a claim was lost to somebody else.
    Contended {
        /// Which key, how often.
        message: String,
    },
    /// Too many writes wait for the disk, or this one's turn did not come in time.
    Overloaded {
        /// The host's words.
        message: String,
    },
    /// The disk refused.
    Unavailable {
        /// The host's words.
        message: String,
    },
    /// The disk failed while the write was under way: it may or may not be in the safe.
    Indeterminate {
        /// The host's words.
        message: String,
    },
    /// The value to be changed could not be read.
    Read(ReadError),
    /// Called where blocking is forbidden, or there is no host.
    Host {
        /// The host's words.
        message: String,
    },
}

impl WriteError {
    /// What kind of failure, in the boundary's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            WriteError::Encode { .. } | WriteError::Invalid { .. } => Status::INVALID,
            WriteError::NotANumber { .. } => Status::WRONG_TYPE,
            WriteError::Overflow { .. } => Status::OUT_OF_RANGE,
            WriteError::Conflict { .. } => Status::CONFLICT,
            WriteError::Contended { .. } | WriteError::Overloaded { .. } => Status::EXHAUSTED,
            WriteError::Unavailable { .. } => Status::UNREACHABLE,
            WriteError::Indeterminate { .. } => Status::INDETERMINATE,
            WriteError::Read(error) => error.status(),
            WriteError::Host { .. } => Status::FAILED,
        }
    }
}

impl From<CallError> for WriteError {
    fn from(error: CallError) -> WriteError {
        let message = error.message;
        match error.status {
            Status::INVALID => WriteError::Invalid { message },
            Status::WRONG_TYPE => WriteError::NotANumber { message },
            Status::OUT_OF_RANGE => WriteError::Overflow { message },
            Status::EXHAUSTED | Status::TIMED_OUT => WriteError::Overloaded { message },
            Status::UNREACHABLE => WriteError::Unavailable { message },
            Status::INDETERMINATE => WriteError::Indeterminate { message },
            Status::CONFLICT => WriteError::Conflict { message },
            Status::CORRUPT => WriteError::Read(ReadError::Corrupt { message }),
            _ => WriteError::Host { message },
        }
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> WriteError {
        WriteError::Read(error)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Encode { message }
            | WriteError::Invalid { message }
            | WriteError::NotANumber { message }
            | WriteError::Overflow { message }
            | WriteError::Conflict { message }
            | WriteError::Contended { message }
            | WriteError::Overloaded { message }
            | WriteError::Unavailable { message }
            | WriteError::Indeterminate { message }
            | WriteError::Host { message } => f.write_str(message),
            WriteError::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WriteError {}
